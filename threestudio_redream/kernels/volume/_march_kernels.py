"""numba kernels that walk rays through the occupancy grid.

The samples of a ray lie on a lattice, ``t_first + (k + 1/2) * step`` being the middle of sample
``k``. A sample exists if its middle lies in an occupied cell; that test is the one of the torch
reference, to the bit. What is faster here is *which* ``k`` are looked at: one per cell that the ray
crosses, because all further samples before the ray leaves the cell share its answer.

Rays come in grid coordinates, where every cell is a unit cube: ``starts[ray, level] + t * slopes[ray,
level]`` is the place of the ray in each of ``L`` nested grids, finest first.
"""

from __future__ import annotations

import math

from threestudio_redream.kernels.jit import njit, prange

__all__ = ["MOST_STEPS", "count_samples", "fill_samples"]

# A cell is shrunk by this share of its size before its exit is trusted, so that rounding can never
# carry an answer over to a sample that lies in the next cell.
SHRINK = 1e-9

MOST_STEPS = 2.0**50  # beyond, doubles cannot tell one step from the next


@njit(error_model="numpy")
def slab(start, slope, low, high):
    """``(enter, leave)`` of a ray and the space between two parallel planes."""
    if slope == 0.0:
        if low <= start <= high:
            return -math.inf, math.inf
        return math.inf, -math.inf
    first, second = (low - start) / slope, (high - start) / slope
    return min(first, second), max(first, second)


@njit(error_model="numpy")
def box(start, slope, shape, margin):
    """``(enter, leave)`` of a ray and a whole grid, made larger by ``margin`` cells on each side."""
    x0, x1 = slab(start[0], slope[0], -margin, shape[0] + margin)
    y0, y1 = slab(start[1], slope[1], -margin, shape[1] + margin)
    z0, z1 = slab(start[2], slope[2], -margin, shape[2] + margin)
    return max(x0, y0, z0), min(x1, y1, z1)


@njit(error_model="numpy")
def cell_exit(start, inverse, cell):
    """Where a ray leaves the (shrunk) cell along one axis; ``inverse`` is one over its slope."""
    edge = cell + (1.0 - SHRINK) if inverse > 0.0 else cell + SHRINK
    return (edge - start) * inverse if math.isfinite(inverse) else math.inf


@njit(error_model="numpy")
def walk(starts, slopes, inverses, t_first, k_from, k_to, step, binaries, t_starts, t_ends, base):
    """Visit lattice points ``k_from`` to ``k_to`` (excluded) of one ray.

    Writes the samples from ``base`` on, unless ``t_starts`` is empty.

    Args:
        starts, slopes, inverses: ``[L, 3]``, the ray in each grid. binaries: ``[L, X, Y, Z]``.

    Returns:
        Number of samples, lattice point of the first one, and the one after the last.
    """
    write = t_starts.shape[0] > 0
    outer = binaries.shape[0] - 1
    shape = binaries.shape[1:]
    per_step = 1.0 / step
    k, found, first, end = k_from, 0, 0, 0
    while k < k_to:
        t = t_first + (k + 0.5) * step
        level = -1
        x, y, z, inside = 0.0, 0.0, 0.0, False
        while not inside and level < outer:
            level += 1
            x = starts[level, 0] + t * slopes[level, 0]
            y = starts[level, 1] + t * slopes[level, 1]
            z = starts[level, 2] + t * slopes[level, 2]
            inside = x >= 0.0 and x < shape[0] and y >= 0.0 and y < shape[1] and z >= 0.0 and z < shape[2]
        if not inside:
            k += 1
            continue

        i, j, m = int(x), int(y), int(z)
        leave = min(
            cell_exit(starts[level, 0], inverses[level, 0], i),
            cell_exit(starts[level, 1], inverses[level, 1], j),
            cell_exit(starts[level, 2], inverses[level, 2], m),
        )
        if level > 0:  # the answer also ends where the next finer grid begins
            enter, out = box(starts[level - 1], slopes[level - 1], shape, SHRINK)
            if out > enter and out >= t:
                leave = min(leave, max(enter, t))

        k_next = min(max(math.floor((leave - t_first) * per_step - 0.5), k) + 1, k_to)
        if binaries[level, i, j, m]:
            if write:
                emit(t_first, step, k, k_next, t_starts, t_ends, base + found)
            if found == 0:
                first = k
            found += k_next - k
            end = k_next
        k = k_next
    return found, first, end


@njit(error_model="numpy")
def emit(t_first, step, k_from, k_to, t_starts, t_ends, base):
    """Write the intervals of lattice points ``k_from`` to ``k_to`` (excluded)."""
    for k in range(k_from, k_to):
        t_starts[base + k - k_from] = t_first + k * step
        t_ends[base + k - k_from] = t_first + (k + 1) * step


@njit(parallel=True, error_model="numpy")
def count_samples(starts, slopes, inverses, t_first, far, step, binaries, none, counts, firsts, ends):
    """Fill number of samples, first lattice point and the one after the last, each ``[N]``.

    ``none`` is an empty array of the dtype of the distances.
    """
    outer = binaries.shape[0] - 1
    for ray in prange(counts.shape[0]):
        enter, leave = box(starts[ray, outer], slopes[ray, outer], binaries.shape[1:], 0.0)
        leave = min(leave, far)
        first_k, last_k = (enter - t_first[ray]) / step - 0.5, (leave - t_first[ray]) / step - 0.5
        # A miss, a NaN, and a ray too far away to count its steps have no samples.
        if leave > enter and abs(first_k) < MOST_STEPS and abs(last_k) < MOST_STEPS:
            # One lattice point more on either side than the box holds; the test per sample decides.
            k_from = max(math.ceil(first_k) - 1, 0)
            k_to = math.floor(last_k) + 2
            while k_to > k_from and not t_first[ray] + (k_to - 0.5) * step < far:
                k_to -= 1
            counts[ray], firsts[ray], ends[ray] = walk(
                starts[ray], slopes[ray], inverses[ray], t_first[ray], k_from, k_to, step, binaries, none, none, 0
            )


@njit(parallel=True, error_model="numpy")
def fill_samples(starts, slopes, inverses, t_first, step, binaries, offsets, firsts, ends, rays, t_starts, t_ends):
    """Fill ``rays``, ``t_starts`` and ``t_ends`` ``[M]``; ``offsets`` ``[N + 1]`` come from the counts."""
    for ray in prange(offsets.shape[0] - 1):
        base, found = offsets[ray], offsets[ray + 1] - offsets[ray]
        if found == ends[ray] - firsts[ray]:  # no gap in between: nothing to look up again
            emit(t_first[ray], step, firsts[ray], ends[ray], t_starts, t_ends, base)
        else:
            walk(
                starts[ray],
                slopes[ray],
                inverses[ray],
                t_first[ray],
                firsts[ray],
                ends[ray],
                step,
                binaries,
                t_starts,
                t_ends,
                base,
            )
        for i in range(base, base + found):
            rays[i] = ray
