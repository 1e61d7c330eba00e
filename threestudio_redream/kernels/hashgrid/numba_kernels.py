"""Hash-grid kernels for the CPU. Imported only when they run, since this module needs numba at once.

Every derivative of the encoding is the same sum over the corners c of a point's cell with other
weights, so three modes of one loop do everything:

* gather   ``out[n] = sum_c weight_c(x_n) * table[row_c(x_n)]``
* scatter  ``table_grad[row_c(x_n)] += weight_c(x_n) * grad[n]`` for every n and c
* slope    ``x_grad[n] = sum_c (d weight_c / d x)(x_n) * <table[row_c(x_n)], grad[n]>``

With a tangent (a direction per point) ``weight_c`` is replaced by its derivative along it, which
gives the second-order terms.

How they are fast: points go through in blocks of ``BLOCK``, level after level, so that one level's
table stays in cache. Per block, rows and weights are computed for all points at once, which the
compiler vectorises; then one load, multiply and add per corner moves all features of a row. That part
is written in LLVM vectors, since numba does not merge neighbouring scalars itself. Values travel
level-major and are transposed at the end: strided stores of one feature pair cost more than the
look-up. A level too large for a core's own cache is first read once from front to back, since memory
serves that several times faster than the same lines in random order.

How they are deterministic: every element of a result is summed by one thread in the order of points
and corners. gather and slope are split over points, scatter over levels.

Positions are clamped to [0, 1] first. NaN stays NaN and reaches the result, with the rows of
position 0. So no input can address memory outside the table.
"""

# mypy: ignore-errors
# (the functions below are typed by numba, at their first call)

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from threestudio_redream.kernels.jit import njit

__all__ = ["BLOCK", "GATHER", "SLOPE", "columns_kernel", "level_kernel", "points_kernel"]

BLOCK = 256
"""Points per block: rows and weights of one block fit in a 32 KiB first-level cache."""

GATHER, SCATTER, SLOPE = 0, 1, 2
OWN_CACHE = 1 << 20
"""Bytes that a core roughly has to itself; a level above this is read ahead."""

ADDITIONS = 256
"""Terms per table row, on average, that are summed in one go."""

_FLOAT, _INT32, _INT64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)


# --- one row of features as one LLVM vector -------------------------------------------------------
# (code that writes code: it runs only when nothing is cached, hence not counted in coverage)


def _data(context, builder, signature, args, position: int):  # pragma: no cover
    return context.make_array(signature.args[position])(context, builder, args[position]).data


def _splat(builder, scalar, lanes: int):  # pragma: no cover
    empty = ir.Constant(ir.VectorType(_FLOAT, lanes), ir.Undefined)
    one = builder.insert_element(empty, scalar, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(one, empty, ir.Constant(ir.VectorType(_INT32, lanes), [0] * lanes))


def _vector(builder, values, at, lanes: int):  # pragma: no cover
    return builder.bitcast(builder.gep(values, [at]), ir.VectorType(_FLOAT, lanes).as_pointer())


def _row(builder, values, base, row, lanes: int):  # pragma: no cover
    at = builder.mul(builder.zext(row, _INT64), ir.Constant(_INT64, lanes))
    return _vector(builder, values, builder.add(base, at), lanes)


@intrinsic  # pragma: no cover
def _weighted_sum(typingctx, lanes, corners, table, base, rows, weights, i, out, at):
    """``out[at : at + F] = sum_c weights[c, i] * table[base + rows[c, i] * F :][:F]``."""

    def codegen(context, builder, signature, args):
        width, count = len(signature.args[0]), len(signature.args[1])
        table, rows, weights, out = (_data(context, builder, signature, args, k) for k in (2, 4, 5, 7))
        base, i, at = args[3], args[6], args[8]
        total = None
        for corner in range(count):
            k = builder.add(i, ir.Constant(_INT64, corner * BLOCK))
            row = builder.load(_row(builder, table, base, builder.load(builder.gep(rows, [k])), width), align=4)
            term = builder.fmul(
                row, _splat(builder, builder.load(builder.gep(weights, [k])), width), flags=["contract"]
            )
            total = term if total is None else builder.fadd(total, term, flags=["contract"])
        builder.store(total, _vector(builder, out, at, width), align=4)
        return context.get_dummy_value()

    return types.void(lanes, corners, table, base, rows, weights, i, out, at), codegen


@intrinsic  # pragma: no cover
def _weighted_add(typingctx, lanes, corners, table, base, rows, weights, i, grad, at):
    """``table[base + rows[c, i] * F :][:F] += weights[c, i] * grad[at : at + F]`` for each corner c in turn."""

    def codegen(context, builder, signature, args):
        width, count = len(signature.args[0]), len(signature.args[1])
        table, rows, weights, grad = (_data(context, builder, signature, args, k) for k in (2, 4, 5, 7))
        base, i, at = args[3], args[6], args[8]
        value = builder.load(_vector(builder, grad, at, width), align=4)
        for corner in range(count):
            k = builder.add(i, ir.Constant(_INT64, corner * BLOCK))
            target = _row(builder, table, base, builder.load(builder.gep(rows, [k])), width)
            term = builder.fmul(
                value, _splat(builder, builder.load(builder.gep(weights, [k])), width), flags=["contract"]
            )
            builder.store(builder.fadd(builder.load(target, align=4), term, flags=["contract"]), target, align=4)
        return context.get_dummy_value()

    return types.void(lanes, corners, table, base, rows, weights, i, grad, at), codegen


@intrinsic  # pragma: no cover
def _dot(typingctx, lanes, corners, table, base, rows, dots, i, grad, at):
    """``dots[c, i] = <table[base + rows[c, i] * F :][:F], grad[at : at + F]>`` for each corner c."""

    def codegen(context, builder, signature, args):
        width, count = len(signature.args[0]), len(signature.args[1])
        table, rows, dots, grad = (_data(context, builder, signature, args, k) for k in (2, 4, 5, 7))
        base, i, at = args[3], args[6], args[8]
        value = builder.load(_vector(builder, grad, at, width), align=4)
        for corner in range(count):
            k = builder.add(i, ir.Constant(_INT64, corner * BLOCK))
            row = builder.load(_row(builder, table, base, builder.load(builder.gep(rows, [k])), width), align=4)
            product, total = builder.fmul(row, value), None
            for lane in range(width):
                term = builder.extract_element(product, ir.Constant(_INT32, lane))
                total = term if total is None else builder.fadd(total, term)
            builder.store(total, builder.gep(dots, [k]))
        return context.get_dummy_value()

    return types.void(lanes, corners, table, base, rows, dots, i, grad, at), codegen


@intrinsic  # pragma: no cover
def _copy(typingctx, lanes, source, source_at, target, target_at):
    """``target[target_at : target_at + F] = source[source_at : source_at + F]``."""

    def codegen(context, builder, signature, args):
        width = len(signature.args[0])
        source, target = (_data(context, builder, signature, args, k) for k in (1, 3))
        value = builder.load(_vector(builder, source, args[2], width), align=4)
        builder.store(value, _vector(builder, target, args[4], width), align=4)
        return context.get_dummy_value()

    return types.void(lanes, source, source_at, target, target_at), codegen


# --- rows and weights of a block ------------------------------------------------------------------


@njit(error_model="numpy")
def _cell(value, scale):
    """Cell and fraction of a clamped coordinate; written so that NaN gives cell 0 and fraction NaN."""
    half = np.float32(0.5)
    position = value * scale + half
    cell = np.int32(position if position >= half else half)
    return np.uint32(cell), position - np.float32(cell)


@njit(error_model="numpy")
def _wrap(row, size):
    """``row % size`` for row < 2 size: the subtraction wraps to a huge number when row < size."""
    row = np.uint32(row)
    return min(row, np.uint32(row - size))


@njit(error_model="numpy")
def _rows2(x, first, scale, factor, size, hashed, rows, fraction):
    x0, x1 = x[0, first : first + BLOCK], x[1, first : first + BLOCK]
    f0, f1 = fraction[0], fraction[1]
    r0, r1, r2, r3 = rows[0], rows[1], rows[2], rows[3]
    by, mask = factor[1], np.uint32(size - np.uint32(1))
    if hashed:
        for i in range(BLOCK):
            a, f0[i] = _cell(x0[i], scale)
            cell, f1[i] = _cell(x1[i], scale)
            b = np.uint32(cell * by)
            a1, b1 = np.uint32(a + np.uint32(1)), np.uint32(b + by)
            r0[i], r1[i], r2[i], r3[i] = (a ^ b) & mask, (a1 ^ b) & mask, (a ^ b1) & mask, (a1 ^ b1) & mask
    else:
        for i in range(BLOCK):
            a, f0[i] = _cell(x0[i], scale)
            cell, f1[i] = _cell(x1[i], scale)
            b = np.uint32(cell * by)
            a1, b1 = np.uint32(a + np.uint32(1)), np.uint32(b + by)
            r0[i], r1[i] = _wrap(a + b, size), _wrap(a1 + b, size)
            r2[i], r3[i] = _wrap(a + b1, size), _wrap(a1 + b1, size)


@njit(error_model="numpy")
def _rows3(x, first, scale, factor, size, hashed, rows, fraction):
    last = first + BLOCK
    x0, x1, x2 = x[0, first:last], x[1, first:last], x[2, first:last]
    f0, f1, f2 = fraction[0], fraction[1], fraction[2]
    r0, r1, r2, r3, r4, r5, r6, r7 = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], rows[6], rows[7]
    by, bz, mask = factor[1], factor[2], np.uint32(size - np.uint32(1))
    if hashed:
        for i in range(BLOCK):
            a, f0[i] = _cell(x0[i], scale)
            cell, f1[i] = _cell(x1[i], scale)
            b = np.uint32(cell * by)
            cell, f2[i] = _cell(x2[i], scale)
            c = np.uint32(cell * bz)
            a1, b1, c1 = np.uint32(a + np.uint32(1)), np.uint32(b + by), np.uint32(c + bz)
            r0[i], r1[i] = (a ^ b ^ c) & mask, (a1 ^ b ^ c) & mask
            r2[i], r3[i] = (a ^ b1 ^ c) & mask, (a1 ^ b1 ^ c) & mask
            r4[i], r5[i] = (a ^ b ^ c1) & mask, (a1 ^ b ^ c1) & mask
            r6[i], r7[i] = (a ^ b1 ^ c1) & mask, (a1 ^ b1 ^ c1) & mask
    else:
        for i in range(BLOCK):
            a, f0[i] = _cell(x0[i], scale)
            cell, f1[i] = _cell(x1[i], scale)
            b = np.uint32(cell * by)
            cell, f2[i] = _cell(x2[i], scale)
            c = np.uint32(cell * bz)
            a1, b1, c1 = np.uint32(a + np.uint32(1)), np.uint32(b + by), np.uint32(c + bz)
            r0[i], r1[i] = _wrap(a + b + c, size), _wrap(a1 + b + c, size)
            r2[i], r3[i] = _wrap(a + b1 + c, size), _wrap(a1 + b1 + c, size)
            r4[i], r5[i] = _wrap(a + b + c1, size), _wrap(a1 + b + c1, size)
            r6[i], r7[i] = _wrap(a + b1 + c1, size), _wrap(a1 + b1 + c1, size)


# The rest always has three axes and eight corners. In 2-D the third fraction is 0, and so are the
# weights and products of the upper four corners.


@njit(error_model="numpy")
def _weights(fraction, weights):
    f0, f1, f2 = fraction[0], fraction[1], fraction[2]
    w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
    w4, w5, w6, w7 = weights[4], weights[5], weights[6], weights[7]
    one = np.float32(1)
    for i in range(BLOCK):
        x, y, z = f0[i], f1[i], f2[i]
        x1, y1, z1 = one - x, one - y, one - z
        w0[i], w1[i] = x1 * (y1 * z1), x * (y1 * z1)
        w2[i], w3[i] = x1 * (y * z1), x * (y * z1)
        w4[i], w5[i] = x1 * (y1 * z), x * (y1 * z)
        w6[i], w7[i] = x1 * (y * z), x * (y * z)


@njit(error_model="numpy")
def _tangent_weights(fraction, change, weights):
    """Change of the weights when the fractions change by ``change``."""
    f0, f1, f2 = fraction[0], fraction[1], fraction[2]
    c0, c1, c2 = change[0], change[1], change[2]
    w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
    w4, w5, w6, w7 = weights[4], weights[5], weights[6], weights[7]
    one = np.float32(1)
    for i in range(BLOCK):
        x, y, z, dx, dy, dz = f0[i], f1[i], f2[i], c0[i], c1[i], c2[i]
        x1, y1, z1 = one - x, one - y, one - z
        lower, d_lower = y1 * z1, -(dy * z1 + y1 * dz)
        w0[i], w1[i] = x1 * d_lower - dx * lower, x * d_lower + dx * lower
        at_y, d_at_y = y * z1, dy * z1 - y * dz
        w2[i], w3[i] = x1 * d_at_y - dx * at_y, x * d_at_y + dx * at_y
        at_z, d_at_z = y1 * z, y1 * dz - dy * z
        w4[i], w5[i] = x1 * d_at_z - dx * at_z, x * d_at_z + dx * at_z
        upper, d_upper = y * z, dy * z + y * dz
        w6[i], w7[i] = x1 * d_upper - dx * upper, x * d_upper + dx * upper


@njit(error_model="numpy")
def _smoothstep(fraction):
    for d in range(fraction.shape[0]):
        f = fraction[d]
        for i in range(BLOCK):
            f[i] = f[i] * f[i] * (np.float32(3) - np.float32(2) * f[i])


@njit(error_model="numpy")
def _derivatives(smooth, scale, fraction, slope, curve):
    """First and second derivative of the weighting fraction by the coordinate, before :func:`_smoothstep`."""
    one, two, six = np.float32(1), np.float32(2), np.float32(6)
    for d in range(fraction.shape[0]):
        f, s, k = fraction[d], slope[d], curve[d]
        if smooth:
            for i in range(BLOCK):
                s[i] = scale * six * f[i] * (one - f[i])
            for i in range(BLOCK):
                k[i] = scale * scale * six * (one - two * f[i])
        else:
            s[:] = scale
            k[:] = np.float32(0)


@njit(error_model="numpy")
def _add_gradient(values, fraction, slope, gx, gy, gz):
    """Add the gradient by position of the interpolation of corner ``values`` [8, BLOCK]."""
    f0, f1, f2, s0, s1, s2 = fraction[0], fraction[1], fraction[2], slope[0], slope[1], slope[2]
    v0, v1, v2, v3 = values[0], values[1], values[2], values[3]
    v4, v5, v6, v7 = values[4], values[5], values[6], values[7]
    for i in range(BLOCK):
        x, y, z = f0[i], f1[i], f2[i]
        a0, a1, a2, a3 = v1[i] - v0[i], v3[i] - v2[i], v5[i] - v4[i], v7[i] - v6[i]
        b0, b1, b2, b3 = v0[i] + x * a0, v2[i] + x * a1, v4[i] + x * a2, v6[i] + x * a3
        low, high = a0 + y * (a1 - a0), a2 + y * (a3 - a2)
        gx[i] += s0[i] * (low + z * (high - low))
        c0, c1 = b1 - b0, b3 - b2
        gy[i] += s1[i] * (c0 + z * (c1 - c0))
        gz[i] += s2[i] * ((b2 + y * c1) - (b0 + y * c0))


@njit(error_model="numpy")
def _add_curvature(values, fraction, change, slope, bend, gx, gy, gz):
    """Add the change of that gradient when fractions change by ``change`` and slopes by ``bend``."""
    f0, f1, f2, s0, s1, s2 = fraction[0], fraction[1], fraction[2], slope[0], slope[1], slope[2]
    u0, u1, u2, k0, k1, k2 = change[0], change[1], change[2], bend[0], bend[1], bend[2]
    v0, v1, v2, v3 = values[0], values[1], values[2], values[3]
    v4, v5, v6, v7 = values[4], values[5], values[6], values[7]
    for i in range(BLOCK):
        x, y, z, dx, dy, dz = f0[i], f1[i], f2[i], u0[i], u1[i], u2[i]
        a0, a1, a2, a3 = v1[i] - v0[i], v3[i] - v2[i], v5[i] - v4[i], v7[i] - v6[i]
        low, high, d_low, d_high = a0 + y * (a1 - a0), a2 + y * (a3 - a2), dy * (a1 - a0), dy * (a3 - a2)
        gx[i] += k0[i] * (low + z * (high - low)) + s0[i] * (d_low + z * (d_high - d_low) + dz * (high - low))
        c0 = (v2[i] - v0[i]) + x * (a1 - a0)
        c1 = (v6[i] - v4[i]) + x * (a3 - a2)
        e0, e1 = dx * (a1 - a0), dx * (a3 - a2)
        gy[i] += k1[i] * (c0 + z * (c1 - c0)) + s1[i] * (e0 + z * (e1 - e0) + dz * (c1 - c0))
        d = (v4[i] - v0[i]) + x * (a2 - a0)
        gz[i] += k2[i] * (d + y * (c1 - c0)) + s2[i] * (dx * (a2 - a0) + dy * (c1 - c0) + y * (e1 - e0))


@njit(error_model="numpy")
def _times(along, first, rows, out):
    for d in range(rows.shape[0]):
        t, r, o = along[d, first : first + BLOCK], rows[d], out[d]
        for i in range(BLOCK):
            o[i] = t[i] * r[i]


# --- one level over a run of points ---------------------------------------------------------------


@njit(error_model="numpy")
def _level(
    mode, lanes, dims, corners, points, along, begin, end, level, layout, smooth, table, base, features, at, x_grad
):
    """One level, whose rows begin at ``table[base]``, for the columns ``begin : end`` of ``points`` [3, padded].

    The features of all columns, [., F], begin at ``features[at]``; ``along`` is a tangent like
    ``points``, or has no columns; ``x_grad`` [3, padded] is added to. ``begin``: a multiple of BLOCK.
    """
    scales, factors, sizes, _, hashed = layout
    scale, factor, size, width = scales[level], factors[level], sizes[level], len(lanes)
    by_tangent = along.shape[1] > 0
    rows = np.zeros((len(corners), BLOCK), np.uint32)
    weights = np.zeros((8, BLOCK), np.float32)
    fraction, slope = np.zeros((3, BLOCK), np.float32), np.zeros((3, BLOCK), np.float32)
    curve, change = np.zeros((3, BLOCK), np.float32), np.zeros((3, BLOCK), np.float32)
    flat_rows, flat_weights = rows.reshape(-1), weights.reshape(-1)
    if mode != SCATTER and np.int64(size) * width * 4 > OWN_CACHE and (end - begin) * width > size:
        for k in range(base, base + np.int64(size) * width, 16):
            weights[0, 0] += table[k]
    for first in range(begin, end, BLOCK):
        n, here = min(BLOCK, end - first), at + first * width
        if len(dims) == 3:
            _rows3(points, first, scale, factor, size, hashed[level], rows, fraction)
        else:
            _rows2(points, first, scale, factor, size, hashed[level], rows, fraction)
        if by_tangent or mode == SLOPE:
            _derivatives(smooth, scale, fraction, slope, curve)
        if smooth:
            _smoothstep(fraction)
        if by_tangent:
            _times(along, first, slope, change)
        if mode == SLOPE:
            for i in range(n):
                _dot(lanes, corners, table, base, flat_rows, flat_weights, i, features, here + i * width)
            last = first + BLOCK
            gx, gy, gz = x_grad[0, first:last], x_grad[1, first:last], x_grad[2, first:last]
            if by_tangent:
                _times(along, first, curve, curve)
                _add_curvature(weights, fraction, change, slope, curve, gx, gy, gz)
            else:
                _add_gradient(weights, fraction, slope, gx, gy, gz)
            continue
        if by_tangent:
            _tangent_weights(fraction, change, weights)
        else:
            _weights(fraction, weights)
        if mode == GATHER:
            for i in range(n):
                _weighted_sum(lanes, corners, table, base, flat_rows, flat_weights, i, features, here + i * width)
        else:
            for i in range(n):
                _weighted_add(lanes, corners, table, base, flat_rows, flat_weights, i, features, here + i * width)


@njit(error_model="numpy")
def _columns(dims, x, tangent, first, count, points, along):
    """Points ``x[first : first + count]`` as clamped rows; tangents too, zero where the clamp is flat."""
    zero, one = np.float32(0), np.float32(1)
    for i in range(count):
        for d in range(len(dims)):
            value = x[first + i, d]
            points[d, i] = zero if value < zero else (one if value > one else value)
            if along.shape[1] > 0:
                along[d, i] = tangent[first + i, d] if zero <= value <= one else zero


# --- the kernels: they run without the GIL, many at a time ----------------------------------------
# lanes, dims, corners: tuples of zeros of length F, D and 2^D, so that each is a compile-time constant.
# x [N, D]; tangent [N, D] or [0, D]; layout: see HashGridConfig; table flat; features flat [N * L * F].


@njit(nogil=True, error_model="numpy")
def points_kernel(mode, lanes, dims, corners, x, tangent, first, count, layout, smooth, table, features, stage, x_grad):
    """All levels for the points ``first : first + count``: gather into ``features`` or slope into ``x_grad``.

    ``stage``: scratch for ``count * L * F`` values.
    """
    levels, width = layout[0].shape[0], len(lanes)
    padded = (count + BLOCK - 1) // BLOCK * BLOCK
    points = np.zeros((3, padded), np.float32)
    along = np.zeros((3, padded if tangent.shape[0] > 0 else 0), np.float32)
    sums = np.zeros((3, padded), np.float32)
    _columns(dims, x, tangent, first, count, points, along)
    if mode == SLOPE:
        for i in range(count):
            for level in range(levels):
                _copy(lanes, features, ((first + i) * levels + level) * width, stage, (level * count + i) * width)
    for level in range(levels):
        base, at = layout[3][level] * width, level * count * width
        _level(mode, lanes, dims, corners, points, along, 0, count, level, layout, smooth, table, base, stage, at, sums)
    if mode == GATHER:
        for i in range(count):
            for level in range(levels):
                _copy(lanes, stage, (level * count + i) * width, features, ((first + i) * levels + level) * width)
        return
    for i in range(count):
        for d in range(len(dims)):
            inside = np.float32(0) <= x[first + i, d] <= np.float32(1)
            x_grad[first + i, d] = sums[d, i] if inside else np.float32(0)


@njit(nogil=True, error_model="numpy")
def columns_kernel(lanes, dims, x, tangent, first, count, features, points, along, stage):
    """Prepare :func:`level_kernel`: points to [3, padded], features to level-major ``stage`` [L, N, F]."""
    _columns(dims, x, tangent, first, count, points[:, first : first + count], along[:, first : first + count])
    width, total = len(lanes), x.shape[0]
    levels = stage.shape[0] // max(total * width, 1)
    for i in range(first, first + count):
        for level in range(levels):
            _copy(lanes, features, (i * levels + level) * width, stage, (level * total + i) * width)


@njit(nogil=True, error_model="numpy")
def level_kernel(lanes, dims, corners, points, along, count, level, layout, smooth, table_grad, stage):
    """Overwrite one level of ``table_grad`` with its gradient."""
    width, rows = len(lanes), np.int64(layout[2][level])
    target = table_grad[layout[3][level] * width : (layout[3][level] + rows) * width]
    target[:] = np.float32(0)
    unused = np.zeros((3, 0), np.float32)
    # where very many points share few rows, float32 sums of sums keep the digits that one long sum loses
    run = max(ADDITIONS * rows // len(corners) // BLOCK, 1) * BLOCK
    partial = np.zeros(target.shape[0], np.float32) if run < count else target
    for begin in range(0, count, run):
        end, at = min(begin + run, count), level * count * width
        _level(
            SCATTER,
            lanes,
            dims,
            corners,
            points,
            along,
            begin,
            end,
            level,
            layout,
            smooth,
            partial,
            0,
            stage,
            at,
            unused,
        )
        if run < count:
            for k in range(target.shape[0]):
                target[k] += partial[k]
            partial[:] = np.float32(0)
