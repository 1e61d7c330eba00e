"""Warp kernels of the hash-grid benchmark; in a file of their own since warp reads their source on import."""

import warp as wp


@wp.func
def cell_and_fraction(x: wp.vec3, scale: float):
    p = x * scale + wp.vec3(0.5, 0.5, 0.5)
    cell = wp.vec3ui(wp.uint32(p[0]), wp.uint32(p[1]), wp.uint32(p[2]))
    return cell, p - wp.vec3(float(cell[0]), float(cell[1]), float(cell[2]))


@wp.func
def row(
    cx: wp.uint32, cy: wp.uint32, cz: wp.uint32, resolution: wp.uint32, rows: wp.uint32, offset: wp.uint32, hashed: bool
) -> wp.uint32:
    if hashed:
        mixed = cx ^ (cy * wp.uint32(2654435761)) ^ (cz * wp.uint32(805459861))
        return offset + (mixed & (rows - wp.uint32(1)))
    index = cx + cy * resolution + cz * resolution * resolution
    if index >= rows:
        index = index - rows
    return offset + index


@wp.func
def corner_weight(f: wp.vec3, c: int) -> float:
    wx = wp.where((c & 1) == 1, f[0], 1.0 - f[0])
    wy = wp.where((c & 2) == 2, f[1], 1.0 - f[1])
    wz = wp.where((c & 4) == 4, f[2], 1.0 - f[2])
    return wx * wy * wz


@wp.kernel(enable_backward=False)
def encode(
    x: wp.array(dtype=wp.vec3),
    table: wp.array(dtype=wp.vec2),
    scales: wp.array(dtype=wp.float32),
    shape: wp.array2d(dtype=wp.uint32),
    out: wp.array2d(dtype=wp.vec2),
):
    level, i = wp.tid()
    resolution = shape[level, 0]
    rows = shape[level, 1]
    offset = shape[level, 2]
    hashed = shape[level, 3] == wp.uint32(1)
    cell, f = cell_and_fraction(x[i], scales[level])
    total = wp.vec2(0.0, 0.0)
    for c in range(8):
        cx = cell[0] + wp.uint32(c & 1)
        cy = cell[1] + wp.uint32((c >> 1) & 1)
        cz = cell[2] + wp.uint32(c >> 2)
        total += corner_weight(f, c) * table[row(cx, cy, cz, resolution, rows, offset, hashed)]
    out[i, level] = total


@wp.kernel(enable_backward=False)
def scatter(
    x: wp.array(dtype=wp.vec3),
    grad: wp.array2d(dtype=wp.vec2),
    scales: wp.array(dtype=wp.float32),
    shape: wp.array2d(dtype=wp.uint32),
    table_grad: wp.array(dtype=wp.vec2),
):
    level, i = wp.tid()
    resolution = shape[level, 0]
    rows = shape[level, 1]
    offset = shape[level, 2]
    hashed = shape[level, 3] == wp.uint32(1)
    cell, f = cell_and_fraction(x[i], scales[level])
    value = grad[i, level]
    for c in range(8):
        cx = cell[0] + wp.uint32(c & 1)
        cy = cell[1] + wp.uint32((c >> 1) & 1)
        cz = cell[2] + wp.uint32(c >> 2)
        wp.atomic_add(table_grad, row(cx, cy, cz, resolution, rows, offset, hashed), corner_weight(f, c) * value)
