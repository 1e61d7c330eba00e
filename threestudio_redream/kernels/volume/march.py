"""Samples of fixed length along rays, only where a grid says that there may be something."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from threestudio_redream.errors import ConfigError
from threestudio_redream.kernels.volume import _march_kernels as kernels
from threestudio_redream.kernels.volume.backends import nerfacc_march, resolve_backend
from threestudio_redream.kernels.volume.intersect import ray_aabb_intersect
from threestudio_redream.kernels.volume.packing import kernel_output

__all__ = ["march_rays"]

Samples = tuple[Tensor, Tensor, Tensor]

CANDIDATES_AT_ONCE = 1 << 21  # bounds the memory of the reference to about 300 MB
SHORTEST_DIRECTION = 1e-6  # a shorter one would make millions of steps, or endlessly many, in the box
SMALLEST_STEP = 1e-6  # of the longest side; below it a ray would have millions of samples


@torch.no_grad()
def march_rays(
    rays_o: Tensor,
    rays_d: Tensor,
    binaries: Tensor,
    aabbs: Tensor,
    *,
    t_first: Tensor,
    far_plane: float,
    step_size: float,
    backend: str = "auto",
) -> Samples:
    """Intervals ``[t_first + k * step, t_first + (k + 1) * step]`` whose middle is in an occupied cell.

    Convention:
        Distances are in multiples of the direction's length. A box from -1 to 1, all occupied, a ray
        from ``(3, 0, 0)`` along ``(-1, 0, 0)``, ``t_first = 0`` and a step of 0.5 give 4 samples: the
        first is ``[2, 2.5]``, the last ``[3.5, 4]``.

    Args:
        rays_o: ``[N, 3]`` float, origins. rays_d: ``[N, 3]`` float, directions of length 1.
        binaries: ``[L, X, Y, Z]`` bool, the occupied cells of ``L`` nested grids, finest first. A
            point is judged by the finest grid that holds it.
        aabbs: ``[L, 6]`` float, box of each grid (min, max), each inside the next.
        t_first: ``[N]`` float, where the lattice of each ray begins (near plane plus jitter).
        far_plane: no sample has its middle there or beyond.
        step_size: length of a sample, at least 1e-6 of the longest side of the largest box.
        backend: see :mod:`threestudio_redream.kernels.volume.backends`.

    Returns:
        ``ray_indices`` ``[M]`` int64 (sorted), ``t_starts`` ``[M]``, ``t_ends`` ``[M]`` (float32, float64
        for float64 rays). Not differentiable. Rays with a NaN have no samples.

    Raises:
        ConfigError: if a shape or the step is wrong, or the backend is unknown.
    """
    _check(rays_o, rays_d, binaries, aabbs, t_first, step_size)
    dtype = torch.promote_types(rays_o.dtype, torch.float32)
    rays_o, rays_d = rays_o.to(dtype).contiguous(), rays_d.to(dtype).contiguous()
    chosen = resolve_backend(backend, rays_o)
    if chosen == "nerfacc":
        return nerfacc_march(rays_o, rays_d, binaries, aabbs, t_first.to(dtype), far_plane, step_size)
    if chosen == "numba":
        return _march_numba(rays_o, rays_d, binaries, aabbs, t_first, far_plane, step_size)
    return march_reference(rays_o, rays_d, binaries, aabbs, t_first, far_plane, step_size)


def march_reference(
    rays_o: Tensor, rays_d: Tensor, binaries: Tensor, aabbs: Tensor, t_first: Tensor, far: float, step: float
) -> Samples:
    """The same in plain torch: every lattice point within the largest box is looked up in the grid."""
    starts, slopes = _to_grid(rays_o, rays_d, binaries, aabbs)
    first = t_first.to(starts.dtype)
    outer = starts.new_tensor([0, 0, 0, *binaries.shape[1:]])
    enter, leave, hit = ray_aabb_intersect(starts[:, -1], slopes[:, -1], outer, near=-math.inf, far=far)
    # One lattice point more on either side than the box holds; the lookup decides.
    first_k, last_k = (enter - first) / step - 0.5, (leave - first) / step - 0.5
    begin = first_k.ceil().sub(1).clamp(min=0)
    count = last_k.floor().add(2).sub(begin).clamp(min=0)
    usable = hit & (first_k.abs() < kernels.MOST_STEPS) & (last_k.abs() < kernels.MOST_STEPS)
    begin = torch.where(usable, begin, torch.zeros_like(begin))
    counts = torch.where(usable, count, torch.zeros_like(count)).long()

    none = rays_o.new_zeros(0)
    parts = [(counts.new_zeros(0), none, none)]
    for low, high in _chunks(counts):
        rays = torch.repeat_interleave(torch.arange(low, high, device=rays_o.device), counts[low:high])
        before = counts[low:high].cumsum(0) - counts[low:high]
        k = begin[rays] + (torch.arange(rays.shape[0], device=rays_o.device) - before[rays - low])
        t = first[rays] + (k + 0.5) * step
        keep = _occupied(starts[rays] + t[:, None, None] * slopes[rays], binaries) & (t < far)
        rays, k = rays[keep], k[keep]
        t_starts, t_ends = first[rays] + k * step, first[rays] + (k + 1) * step
        parts.append((rays, t_starts.to(rays_o.dtype), t_ends.to(rays_o.dtype)))
    ray_indices, all_starts, all_ends = (torch.cat(part) for part in zip(*parts, strict=True))
    return ray_indices, all_starts, all_ends


def _march_numba(
    rays_o: Tensor, rays_d: Tensor, binaries: Tensor, aabbs: Tensor, t_first: Tensor, far: float, step: float
) -> Samples:
    starts, slopes = _to_grid(rays_o, rays_d, binaries, aabbs)
    rays = [tensor.contiguous().numpy() for tensor in (starts, slopes, slopes.reciprocal(), t_first.to(starts))]
    cells = binaries.contiguous().numpy()
    counts, firsts, ends = torch.zeros(3, rays_o.shape[0], dtype=torch.int64).numpy()
    kernels.count_samples(*rays, float(far), float(step), cells, rays_o.new_zeros(0).numpy(), counts, firsts, ends)
    offsets = torch.zeros(rays_o.shape[0] + 1, dtype=torch.int64)
    torch.cumsum(torch.from_numpy(counts), 0, out=offsets[1:])
    total = int(offsets[-1])
    ray_indices = kernel_output(total, like=offsets)
    t_starts, t_ends = kernel_output(total, like=rays_o), kernel_output(total, like=rays_o)
    out = (ray_indices.numpy(), t_starts.numpy(), t_ends.numpy())
    kernels.fill_samples(*rays, float(step), cells, offsets.numpy(), firsts, ends, *out)
    return ray_indices, t_starts, t_ends


def _to_grid(rays_o: Tensor, rays_d: Tensor, binaries: Tensor, aabbs: Tensor) -> tuple[Tensor, Tensor]:
    """Rays in coordinates of each grid, where cells are unit cubes: starts and slopes ``[N, L, 3]``.

    In double precision where the device has it. Rays without a direction become NaN, which never hits.
    """
    wide = torch.float32 if rays_o.device.type == "mps" else torch.float64
    boxes = aabbs.detach().to(wide)
    scale = torch.tensor(binaries.shape[1:], dtype=wide, device=boxes.device) / (boxes[:, 3:] - boxes[:, :3])
    directions = rays_d.detach().to(wide)
    usable = directions.norm(dim=-1, keepdim=True) >= SHORTEST_DIRECTION
    directions = torch.where(usable, directions, torch.full_like(directions, torch.nan))
    starts = (rays_o.detach().to(wide)[:, None] - boxes[:, :3]) * scale
    return starts, directions[:, None] * scale


def _occupied(places: Tensor, binaries: Tensor) -> Tensor:
    """Whether the finest grid around each point has its cell occupied; ``[P, L, 3]`` in grid coordinates."""
    shape = torch.tensor(binaries.shape[1:], device=places.device)
    answer = torch.zeros(places.shape[0], dtype=torch.bool, device=places.device)
    for level in reversed(range(binaries.shape[0])):
        place = places[:, level]
        inside = ((place >= 0) & (place < shape)).all(dim=-1)
        x, y, z = torch.where(inside[:, None], place, torch.zeros_like(place)).long().unbind(dim=-1)
        answer = torch.where(inside, binaries[level, x, y, z], answer)
    return answer


def _chunks(counts: Tensor) -> list[tuple[int, int]]:
    """Ranges of rays that hold about ``CANDIDATES_AT_ONCE`` lattice points each (at least one ray)."""
    if not int(counts.sum()):
        return []
    group = (counts.cumsum(0) - counts) // CANDIDATES_AT_ONCE
    ends = torch.unique_consecutive(group, return_counts=True)[1].cumsum(0).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _check(rays_o: Tensor, rays_d: Tensor, binaries: Tensor, aabbs: Tensor, t_first: Tensor, step: float) -> None:
    n_rays = rays_o.shape[0]
    for name, tensor, shape in (
        ("rays_o", rays_o, (n_rays, 3)),
        ("rays_d", rays_d, (n_rays, 3)),
        ("t_first", t_first, (n_rays,)),
        ("aabbs", aabbs, (binaries.shape[0], 6)),
    ):
        if tuple(tensor.shape) != shape:
            raise ConfigError(
                f"'{name}' has the wrong shape", received=tuple(tensor.shape), fix=f"Pass shape {list(shape)}."
            )
    smallest = SMALLEST_STEP * float((aabbs[-1, 3:] - aabbs[-1, :3]).max())
    if not (math.isfinite(step) and step >= smallest and step > 0):
        raise ConfigError(
            "The step along rays must be positive and at least a millionth of the box",
            received=step,
            fix=f"Use a step of {smallest:g} or more, such as the diagonal of the box divided by 512.",
        )
