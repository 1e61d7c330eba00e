"""Hash-grid kernels for the CPU. Imported only when they run, since this module needs numba at once.

Three kernels do everything, because every derivative of the encoding is the same sum over the 2^D
corners of a cell with other weights:

* :func:`gather`   ``out[n]        = sum_c weight_c(x_n) * table[row_c(x_n)]``
* :func:`scatter`  ``table_grad    = sum_n weight_c(x_n) * grad[n]`` at ``row_c(x_n)``
* :func:`slope`    ``x_grad[n, e]  = sum_c d weight_c / d x_e * <table[row_c], grad[n]>``

With a ``tangent`` (a direction per point) ``weight_c`` is replaced by its derivative along that
direction, which gives the second-order terms.

How they are fast: points go through in blocks of ``BLOCK``, level after level, so that one level's
table stays in cache. Per block, rows and weights are computed for all points at once (the compiler
vectorises that); then one load, multiply and add per corner moves all features of a row, written in
LLVM vectors since numba does not merge neighbouring scalars itself. Values travel level-major and are
transposed at the end: strided stores of one feature pair cost more than the look-up itself. A level
too large for a core's own cache is first read once from front to back, since memory serves that far
faster than the same lines in random order.

How they are deterministic: every output element is summed by one thread in a fixed order. ``gather``
and ``slope`` run in parallel over points, ``scatter`` over levels.

Positions are clamped to [0, 1] first (NaN stays NaN and reaches the result, its rows are those of
position 0), so no input can address memory outside the table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from threestudio_redream.kernels.jit import njit, prange

__all__ = ["BLOCK", "gather", "scatter", "slope"]

BLOCK = 256
"""Points per block: rows and weights of one block fit in a 32 KiB first-level cache."""

_FLOAT, _INT32, _INT64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)


# --- one row of features as one LLVM vector -------------------------------------------------------


def _data(context: Any, builder: Any, signature: Any, args: Any, position: int) -> Any:
    return context.make_array(signature.args[position])(context, builder, args[position]).data


def _splat(builder: Any, scalar: Any, lanes: int) -> Any:
    empty = ir.Constant(ir.VectorType(_FLOAT, lanes), ir.Undefined)
    one = builder.insert_element(empty, scalar, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(one, empty, ir.Constant(ir.VectorType(_INT32, lanes), [0] * lanes))


def _vector(builder: Any, values: Any, at: Any, lanes: int) -> Any:
    return builder.bitcast(builder.gep(values, [at]), ir.VectorType(_FLOAT, lanes).as_pointer())


def _row(builder: Any, values: Any, base: Any, row: Any, lanes: int) -> Any:
    at = builder.mul(builder.zext(row, _INT64), ir.Constant(_INT64, lanes))
    return _vector(builder, values, builder.add(base, at), lanes)


@intrinsic
def _weighted_sum(typingctx, lanes, corners, table, base, rows, weights, i, out, at):  # type: ignore[no-untyped-def]
    """``out[at : at + F] = sum_c weights[c, i] * table[base + rows[c, i] * F :][:F]``."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
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


@intrinsic
def _weighted_add(typingctx, lanes, corners, table, base, rows, weights, i, grad, at):  # type: ignore[no-untyped-def]
    """``table[base + rows[c, i] * F :][:F] += weights[c, i] * grad[at : at + F]`` for each corner c in turn."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
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


@intrinsic
def _dot(typingctx, lanes, corners, table, base, rows, dots, i, grad, at):  # type: ignore[no-untyped-def]
    """``dots[c, i] = <table[base + rows[c, i] * F :][:F], grad[at : at + F]>`` for each corner c."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
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


@intrinsic
def _copy(typingctx, lanes, source, source_at, target, target_at):  # type: ignore[no-untyped-def]
    """``target[target_at : target_at + F] = source[source_at : source_at + F]``."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        width = len(signature.args[0])
        source, target = (_data(context, builder, signature, args, k) for k in (1, 3))
        value = builder.load(_vector(builder, source, args[2], width), align=4)
        builder.store(value, _vector(builder, target, args[4], width), align=4)
        return context.get_dummy_value()

    return types.void(lanes, source, source_at, target, target_at), codegen


# --- rows and weights of a block ------------------------------------------------------------------


@njit(error_model="numpy")
def _cell(value, scale):  # type: ignore[no-untyped-def]
    """Cell and fraction of a clamped coordinate; written so that NaN gives cell 0 and fraction NaN."""
    half = np.float32(0.5)
    position = value * scale + half
    cell = np.int32(position if position >= half else half)
    return np.uint32(cell), position - np.float32(cell)


@njit(error_model="numpy")
def _wrap(row, size):  # type: ignore[no-untyped-def]
    """``row % size`` for row < 2 size: the subtraction wraps to a huge number when row < size."""
    row = np.uint32(row)
    return min(row, np.uint32(row - size))


@njit(error_model="numpy")
def _rows2(x, first, scale, factor, size, hashed, rows, fraction):  # type: ignore[no-untyped-def]
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
def _rows3(x, first, scale, factor, size, hashed, rows, fraction):  # type: ignore[no-untyped-def]
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


@njit(error_model="numpy")
def _weights2(fraction, weights):  # type: ignore[no-untyped-def]
    f0, f1 = fraction[0], fraction[1]
    w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
    for i in range(BLOCK):
        x, y = f0[i], f1[i]
        w3[i] = x * y
        w2[i] = y - w3[i]
        w1[i] = x - w3[i]
        w0[i] = (np.float32(1) - y) - w1[i]


@njit(error_model="numpy")
def _weights3(fraction, weights):  # type: ignore[no-untyped-def]
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
def _smoothstep(fraction):  # type: ignore[no-untyped-def]
    for d in range(fraction.shape[0]):
        f = fraction[d]
        for i in range(BLOCK):
            f[i] = f[i] * f[i] * (np.float32(3) - np.float32(2) * f[i])


@njit(error_model="numpy")
def _axis_factors(smooth, scale, fraction, axes):  # type: ignore[no-untyped-def]
    """Per axis d: its factor in the corner weights, ``axes[d, upper, n]`` = the n-th derivative, n = 0, 1, 2."""
    one, two, three, six = np.float32(1), np.float32(2), np.float32(3), np.float32(6)
    for d in range(fraction.shape[0]):
        f = fraction[d]
        lower, upper, falling, rising = axes[d, 0, 0], axes[d, 1, 0], axes[d, 0, 1], axes[d, 1, 1]
        concave, convex = axes[d, 0, 2], axes[d, 1, 2]
        if smooth:
            for i in range(BLOCK):
                convex[i] = scale * scale * six * (one - two * f[i])
                concave[i] = -convex[i]
            for i in range(BLOCK):
                rising[i] = scale * six * f[i] * (one - f[i])
                falling[i] = -rising[i]
            for i in range(BLOCK):
                upper[i] = f[i] * f[i] * (three - two * f[i])
                lower[i] = one - upper[i]
        else:
            for i in range(BLOCK):
                convex[i] = concave[i] = np.float32(0)
            for i in range(BLOCK):
                rising[i], falling[i] = scale, -scale
            for i in range(BLOCK):
                upper[i], lower[i] = f[i], one - f[i]


@njit(error_model="numpy")
def _add_product(axes, corner, e, t, start, total):  # type: ignore[no-untyped-def]
    """``total += start * d^2 weight_corner / (d x_e d x_t)``; an axis of -1 leaves its derivative out."""
    a = axes[0, corner & 1, int(e == 0) + int(t == 0)]
    b = axes[1, corner >> 1 & 1, int(e == 1) + int(t == 1)]
    if axes.shape[0] == 2:
        for i in range(BLOCK):
            total[i] += start[i] * (a[i] * b[i])
    else:
        c = axes[2, corner >> 2, int(e == 2) + int(t == 2)]
        for i in range(BLOCK):
            total[i] += start[i] * (a[i] * b[i] * c[i])


# --- one level over a run of points ---------------------------------------------------------------

_GATHER, _SCATTER, _SLOPE = 0, 1, 2
_OWN_CACHE = 1 << 20  # bytes that a core keeps to itself, roughly


@njit(error_model="numpy")
def _level(mode, lanes, dims, corners, points, along, count, level, layout, smooth, table, features, at, x_grad):  # type: ignore[no-untyped-def]
    """One level for ``count`` points [D, padded]; their features [count, F] start at ``features[at]``.

    ``along`` is a tangent like ``points``, or has no columns; ``x_grad`` [D, padded] is added to.
    """
    scales, factors, sizes, offsets, hashed = layout
    scale, factor, size = scales[level], factors[level], sizes[level]
    width, base = len(lanes), offsets[level] * len(lanes)
    by_tangent = along.shape[1] > 0
    rows = np.zeros((len(corners), BLOCK), np.uint32)
    weights = np.zeros((len(corners), BLOCK), np.float32)
    fraction = np.zeros((len(dims), BLOCK), np.float32)
    axes = np.zeros((len(dims), 2, 3, BLOCK), np.float32)
    start = np.zeros(BLOCK, np.float32)
    flat_rows, flat_weights = rows.reshape(-1), weights.reshape(-1)
    if mode != _SCATTER and np.int64(size) * width * 4 > _OWN_CACHE and count * width > size:
        for k in range(base, base + np.int64(size) * width, 16):
            start[0] += table[k]
    for first in range(0, count, BLOCK):
        n, here = min(BLOCK, count - first), at + first * width
        if len(dims) == 3:
            _rows3(points, first, scale, factor, size, hashed[level], rows, fraction)
        else:
            _rows2(points, first, scale, factor, size, hashed[level], rows, fraction)
        if by_tangent or mode == _SLOPE:
            _axis_factors(smooth, scale, fraction, axes)
        elif smooth:
            _smoothstep(fraction)
        if mode == _SLOPE:
            for i in range(n):
                _dot(lanes, corners, table, base, flat_rows, flat_weights, i, features, here + i * width)
            for e in range(len(dims)):
                target = x_grad[e, first : first + BLOCK]
                for c in range(len(corners)):
                    if not by_tangent:
                        _add_product(axes, c, e, -1, weights[c], target)
                    else:
                        for t in range(len(dims)):
                            for i in range(BLOCK):
                                start[i] = weights[c, i] * along[t, first + i]
                            _add_product(axes, c, e, t, start, target)
            continue
        if by_tangent:
            for c in range(len(corners)):
                weights[c] = np.float32(0)
                for t in range(len(dims)):
                    _add_product(axes, c, -1, t, along[t, first : first + BLOCK], weights[c])
        elif len(dims) == 3:
            _weights3(fraction, weights)
        else:
            _weights2(fraction, weights)
        if mode == _GATHER:
            for i in range(n):
                _weighted_sum(lanes, corners, table, base, flat_rows, flat_weights, i, features, here + i * width)
        else:
            for i in range(n):
                _weighted_add(lanes, corners, table, base, flat_rows, flat_weights, i, features, here + i * width)


@njit(error_model="numpy")
def _columns(dims, x, tangent, first, count, points, along):  # type: ignore[no-untyped-def]
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
def points_kernel(mode, lanes, dims, corners, x, tangent, first, count, layout, smooth, table, features, stage, x_grad):  # type: ignore[no-untyped-def]
    """All levels for the points ``first : first + count``: gather into ``features`` or slope into ``x_grad``.

    ``stage``: scratch for ``count * L * F`` values.
    """
    levels, width = layout[0].shape[0], len(lanes)
    padded = (count + BLOCK - 1) // BLOCK * BLOCK
    points = np.zeros((len(dims), padded), np.float32)
    along = np.zeros((len(dims), padded if tangent.shape[0] > 0 else 0), np.float32)
    sums = np.zeros((len(dims), padded), np.float32)
    _columns(dims, x, tangent, first, count, points, along)
    if mode == _SLOPE:
        for i in range(count):
            for level in range(levels):
                _copy(lanes, features, ((first + i) * levels + level) * width, stage, (level * count + i) * width)
    for level in range(levels):
        at = level * count * width
        _level(mode, lanes, dims, corners, points, along, count, level, layout, smooth, table, stage, at, sums)
    if mode == _GATHER:
        for i in range(count):
            for level in range(levels):
                _copy(lanes, stage, (level * count + i) * width, features, ((first + i) * levels + level) * width)
        return
    for i in range(count):
        for d in range(len(dims)):
            inside = np.float32(0) <= x[first + i, d] <= np.float32(1)
            x_grad[first + i, d] = sums[d, i] if inside else np.float32(0)


@njit(nogil=True, error_model="numpy")
def columns_kernel(lanes, dims, x, tangent, first, count, features, points, along, stage):  # type: ignore[no-untyped-def]
    """Prepare :func:`level_kernel`: points to [D, N], features to level-major ``stage`` [L, N, F]."""
    _columns(dims, x, tangent, first, count, points[:, first : first + count], along[:, first : first + count])
    width, total = len(lanes), x.shape[0]
    levels = stage.shape[0] // max(total * width, 1)
    for i in range(first, first + count):
        for level in range(levels):
            _copy(lanes, features, (i * levels + level) * width, stage, (level * total + i) * width)


@njit(nogil=True, error_model="numpy")
def level_kernel(lanes, dims, corners, points, along, count, level, layout, smooth, table_grad, stage):  # type: ignore[no-untyped-def]
    """Overwrite one level of ``table_grad`` with its gradient."""
    base = layout[3][level] * len(lanes)
    table_grad[base : base + np.int64(layout[2][level]) * len(lanes)] = np.float32(0)
    unused = np.zeros((len(dims), 0), np.float32)
    at = level * count * len(lanes)
    _level(_SCATTER, lanes, dims, corners, points, along, count, level, layout, smooth, table_grad, stage, at, unused)
