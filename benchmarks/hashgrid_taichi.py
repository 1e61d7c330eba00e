"""Taichi kernels of the hash-grid benchmark; in a file of their own since taichi reads annotations as values."""

import taichi as ti


def make_kernels(levels):
    """``encode(x, table, out)`` and ``scatter(x, grad, table_grad)`` for fixed levels, 2 features each."""

    @ti.func
    def row(cx, cy, cz, level: ti.template()):
        result = ti.u32(0)
        if ti.static(levels[level].hashed):
            mixed = cx ^ (cy * ti.u32(2654435761)) ^ (cz * ti.u32(805459861))
            result = mixed & ti.u32(levels[level].rows - 1)
        else:
            stride = ti.u32(levels[level].resolution)
            result = cx + cy * stride + cz * stride * stride
            if result >= ti.u32(levels[level].rows):
                result -= ti.u32(levels[level].rows)
        return result + ti.u32(levels[level].offset)

    @ti.func
    def locate(x: ti.template(), i, level: ti.template()):
        p = ti.Vector([x[i, 0], x[i, 1], x[i, 2]]) * levels[level].scale + 0.5
        cell = ti.cast(p, ti.u32)
        return cell, p - ti.cast(cell, ti.f32)

    @ti.func
    def corner(cell, f, c: ti.template(), level: ti.template()):
        wx = f[0] if ti.static(c & 1) else 1.0 - f[0]
        wy = f[1] if ti.static(c & 2) else 1.0 - f[1]
        wz = f[2] if ti.static(c & 4) else 1.0 - f[2]
        x, y, z = cell[0] + ti.u32(c & 1), cell[1] + ti.u32(c >> 1 & 1), cell[2] + ti.u32(c >> 2)
        return row(x, y, z, level), wx * wy * wz

    @ti.kernel
    def encode(x: ti.types.ndarray(ndim=2), table: ti.types.ndarray(ndim=2), out: ti.types.ndarray(ndim=2)):
        for i in range(x.shape[0]):
            for level in ti.static(range(len(levels))):
                cell, f = locate(x, i, level)
                a, b = 0.0, 0.0
                for c in ti.static(range(8)):
                    r, w = corner(cell, f, c, level)
                    a += w * table[r, 0]
                    b += w * table[r, 1]
                out[i, level * 2], out[i, level * 2 + 1] = a, b

    @ti.kernel
    def scatter(x: ti.types.ndarray(ndim=2), grad: ti.types.ndarray(ndim=2), table_grad: ti.types.ndarray(ndim=2)):
        for i in range(x.shape[0]):
            for level in ti.static(range(len(levels))):
                cell, f = locate(x, i, level)
                for c in ti.static(range(8)):
                    r, w = corner(cell, f, c, level)
                    ti.atomic_add(table_grad[r, 0], w * grad[i, level * 2])
                    ti.atomic_add(table_grad[r, 1], w * grad[i, level * 2 + 1])

    return encode, scatter
