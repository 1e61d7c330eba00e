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
transposed at the end: strided stores of one feature pair cost more than the look-up. Levels larger
than a core's own cache prefetch the rows of the next block.

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


def _row(builder: Any, values: Any, base: Any, row: Any, lanes: int) -> Any:
    at = builder.add(base, builder.mul(builder.zext(row, _INT64), ir.Constant(_INT64, lanes)))
    return builder.bitcast(builder.gep(values, [at]), ir.VectorType(_FLOAT, lanes).as_pointer())


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
        builder.store(total, builder.bitcast(builder.gep(out, [at]), total.type.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(lanes, corners, table, base, rows, weights, i, out, at), codegen


@intrinsic
def _weighted_add(typingctx, lanes, corners, table, base, rows, weights, i, grad, at):  # type: ignore[no-untyped-def]
    """``table[base + rows[c, i] * F :][:F] += weights[c, i] * grad[at : at + F]`` for each corner c in turn."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        width, count = len(signature.args[0]), len(signature.args[1])
        table, rows, weights, grad = (_data(context, builder, signature, args, k) for k in (2, 4, 5, 7))
        base, i, at = args[3], args[6], args[8]
        vector = ir.VectorType(_FLOAT, width)
        value = builder.load(builder.bitcast(builder.gep(grad, [at]), vector.as_pointer()), align=4)
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
def _prefetch(typingctx, lanes, corners, table, base, rows, i):  # type: ignore[no-untyped-def]
    """Ask the cache for the rows of point i; a hint without any effect on results."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        width, count = len(signature.args[0]), len(signature.args[1])
        table, rows = (_data(context, builder, signature, args, k) for k in (2, 4))
        base, i = args[3], args[5]
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, _INT32, _INT32, _INT32])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], fnty=kind)
        for corner in range(count):
            k = builder.add(i, ir.Constant(_INT64, corner * BLOCK))
            pointer = _row(builder, table, base, builder.load(builder.gep(rows, [k])), width)
            read, keep, data = (ir.Constant(_INT32, number) for number in (0, 3, 1))
            builder.call(function, [builder.bitcast(pointer, byte), read, keep, data])
        return context.get_dummy_value()

    return types.void(lanes, corners, table, base, rows, i), codegen


# --- rows and weights of a block ------------------------------------------------------------------


@njit(error_model="numpy")
def _cell(value, scale):  # type: ignore[no-untyped-def]
    """Cell and fraction of a clamped coordinate; written so that NaN gives cell 0 and fraction NaN."""
    half = np.float32(0.5)
    position = value * scale + half
    cell = np.int32(position if position >= half else half)
    return np.uint32(cell), position - np.float32(cell)


@njit(error_model="numpy")
def _rows3(x, scale, factor, size, hashed, rows, fraction):  # type: ignore[no-untyped-def]
    x0, x1, x2 = x[0], x[1], x[2]
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
            r0[i] = (a ^ b ^ c) & mask
            r1[i] = (a1 ^ b ^ c) & mask
            r2[i] = (a ^ b1 ^ c) & mask
            r3[i] = (a1 ^ b1 ^ c) & mask
            r4[i] = (a ^ b ^ c1) & mask
            r5[i] = (a1 ^ b ^ c1) & mask
            r6[i] = (a ^ b1 ^ c1) & mask
            r7[i] = (a1 ^ b1 ^ c1) & mask
    else:
        for i in range(BLOCK):
            a, f0[i] = _cell(x0[i], scale)
            cell, f1[i] = _cell(x1[i], scale)
            b = np.uint32(cell * by)
            cell, f2[i] = _cell(x2[i], scale)
            c = np.uint32(cell * bz)
            a1, b1, c1 = np.uint32(a + np.uint32(1)), np.uint32(b + by), np.uint32(c + bz)
            r0[i] = _wrap(a + b + c, size)
            r1[i] = _wrap(a1 + b + c, size)
            r2[i] = _wrap(a + b1 + c, size)
            r3[i] = _wrap(a1 + b1 + c, size)
            r4[i] = _wrap(a + b + c1, size)
            r5[i] = _wrap(a1 + b + c1, size)
            r6[i] = _wrap(a + b1 + c1, size)
            r7[i] = _wrap(a1 + b1 + c1, size)


@njit(error_model="numpy")
def _wrap(row, size):  # type: ignore[no-untyped-def]
    """``row % size`` for row < 2 size: the subtraction wraps to a huge number when row < size."""
    row = np.uint32(row)
    return min(row, np.uint32(row - size))


@njit(error_model="numpy")
def _weights3(fraction, weights):  # type: ignore[no-untyped-def]
    f0, f1, f2 = fraction[0], fraction[1], fraction[2]
    w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
    w4, w5, w6, w7 = weights[4], weights[5], weights[6], weights[7]
    for i in range(BLOCK):
        x, y, z = f0[i], f1[i], f2[i]
        both = y * z
        only_y, only_z = y - both, z - both
        neither = np.float32(1) - y - only_z
        w1[i] = x * neither
        w0[i] = neither - w1[i]
        w3[i] = x * only_y
        w2[i] = only_y - w3[i]
        w5[i] = x * only_z
        w4[i] = only_z - w5[i]
        w7[i] = x * both
        w6[i] = both - w7[i]

@njit(error_model="numpy")
def gather_block(lanes, corners, table, base, rows, weights, count, out, at):
    for i in range(count):
        _weighted_sum(lanes, corners, table, base, rows, weights, i, out, at+i*len(lanes))
@njit(error_model="numpy")
def scatter_block(lanes, corners, table, base, rows, weights, count, out, at):
    for i in range(count):
        _weighted_add(lanes, corners, table, base, rows, weights, i, out, at+i*len(lanes))
