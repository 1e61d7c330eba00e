"""Cosines of one query with every row of a stored matrix, at the speed of memory.

Numbers of 16 bits are widened in registers: no copy of the matrix in 32 bits is made, and the sums are those of
32-bit arithmetic. A 16-bit float is moved bit by bit into the place where a 32-bit float keeps the same fields; its
exponent is then 112 too small, which the query makes up for by a factor of 2^112 (exact, as it is a power of two).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from threestudio_redream.kernels.jit import njit, prange, use_numba

__all__ = ["decode", "encode", "scan", "scan_reference"]

BLOCK_NUMBERS = 4_000_000  # of a block that the reference widens: 16 MB
_STORED: dict[str, Any] = {"float16": np.float16, "bfloat16": np.uint16, "float32": np.float32}


def encode(values: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers as they are stored: rounded to nearest, ties to even; bfloat16 as its bits in uint16."""
    if dtype != "bfloat16":
        return np.ascontiguousarray(values, _STORED[dtype])
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def decode(stored: np.ndarray) -> np.ndarray:
    """Stored numbers as float32, exactly; uint16 is taken for bfloat16."""
    if stored.dtype == np.uint16:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(stored, np.float32)


def scan(matrix: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Scalar products of ``query`` with all rows.

    Args:
        matrix: ``[R, D]`` float16, float32, or bfloat16 as uint16; may be a memory map.
        query: ``[D]`` float32, of length at most one.

    Returns:
        ``[R]`` float32, within 1e-5 of the exact sums for unit rows.
    """
    if matrix.dtype == np.float32 or not use_numba():
        return scan_reference(matrix, query)
    scores = np.zeros(len(matrix), np.float32)
    if matrix.dtype == np.float16:
        _scan_float16(matrix.view(np.uint16), query * np.float32(2.0**112), scores)
    else:
        _scan_bfloat16(matrix, query, scores)
    return scores


def scan_reference(matrix: np.ndarray, query: np.ndarray) -> np.ndarray:
    """:func:`scan` by BLAS over blocks that are widened to float32 first."""
    step = max(1, BLOCK_NUMBERS // max(1, matrix.shape[1]))
    blocks = [decode(matrix[start : start + step]) @ query for start in range(0, len(matrix), step)]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


@njit(parallel=True, fastmath={"reassoc", "contract", "nsz"})
def _scan_float16(matrix, query, scores):
    for row in prange(matrix.shape[0]):
        total = np.float32(0)
        for i in range(matrix.shape[1]):
            word = np.uint32(matrix[row, i])
            bits = ((word & np.uint32(0x8000)) << np.uint32(16)) | ((word & np.uint32(0x7FFF)) << np.uint32(13))
            total += np.uint32(bits).view(np.float32) * query[i]
        scores[row] = total


@njit(parallel=True, fastmath={"reassoc", "contract", "nsz"})
def _scan_bfloat16(matrix, query, scores):
    for row in prange(matrix.shape[0]):
        total = np.float32(0)
        for i in range(matrix.shape[1]):
            total += np.uint32(np.uint32(matrix[row, i]) << np.uint32(16)).view(np.float32) * query[i]
        scores[row] = total
