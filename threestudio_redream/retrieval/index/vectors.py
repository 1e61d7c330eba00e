"""Arrays of an index on disk: ``.npy`` files whose header is checked before anything is mapped or allocated."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from threestudio_redream.retrieval.errors import IndexDamagedError, RetrievalError
from threestudio_redream.retrieval.index.scan import decode, encode, scan

__all__ = ["STORED_DTYPE", "THUMB_SIDE", "VectorFile", "map_array", "unit_rows", "write_array"]

THUMB_SIDE = 64
STORED_DTYPE = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4"}
_MAX_HEADER = 4096
# What numpy writes. Its own reader evaluates the header as Python, and fails in many ways on a damaged one.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)\{'descr': '(?P<dtype>[<|][a-z]\d)', 'fortran_order': False, "
    rb"'shape': \((?P<shape>\d{1,15}(?:, \d{1,15})*,?)\), \} *\n",
    re.DOTALL,
)
_UNIT_TOLERANCE = 1e-2


def map_array(path: Path, shape: tuple[int, ...], dtype: str, name: str) -> np.ndarray:
    """Map an ``.npy`` file read-only, after its header, shape, type and length were checked.

    Args:
        shape: that it must have. dtype: little-endian type string, e.g. ``<f2``. name: of the file, for messages.

    Raises:
        IndexDamagedError: kind ``missing`` or ``malformed``.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_MAX_HEADER)
            length = file.seek(0, 2)
    except FileNotFoundError as error:
        raise _damaged("the file is missing", name, "missing", path.name) from error
    except OSError as error:
        raise _damaged("the file cannot be read", name, "malformed", str(error)) from error
    match = _HEADER.match(head)
    start = match.end() if match else 0
    if match is None or start != 10 + int.from_bytes(match["length"], "little"):
        raise _damaged("this is no array file of version 1.0 in C order", name, "malformed", head[:80])
    found = tuple(int(number) for number in match["shape"].split(b",") if number.strip())
    if match["dtype"].decode() != dtype or found != shape:
        raise _damaged(f"an array {shape} of {dtype} was expected", name, "malformed", (found, match["dtype"].decode()))
    if length - start != math.prod(shape) * np.dtype(dtype).itemsize:
        raise _damaged(f"the file should hold {math.prod(shape)} numbers", name, "malformed", f"{length - start} bytes")
    if not math.prod(shape):
        return np.zeros(shape, dtype)
    try:
        return np.asarray(np.memmap(path, dtype, "r", start, shape))
    except OSError as error:  # e.g. more open files than the system allows
        raise _damaged("the file cannot be mapped", name, "malformed", str(error)) from error


def write_array(path: Path, values: np.ndarray) -> None:
    """Write an ``.npy`` file (version 1.0, C order) that :func:`map_array` reads."""
    with open(path, "wb") as file:
        np.lib.format.write_array(file, np.ascontiguousarray(values), version=(1, 0), allow_pickle=False)


def unit_rows(values: object, shape: Sequence[int | None], dtype: str, what: str) -> np.ndarray:
    """Check vectors and bring them into the number format of an index.

    Args:
        values: array of floats. shape: wanted; None where any number will do. dtype: ``float16``, ``bfloat16`` or
            ``float32``. what: names them in the message.

    Returns:
        The array as stored, see :func:`~.scan.encode`.

    Raises:
        RetrievalError: another shape, not finite, or not of length one (within 1 %).
    """
    array = np.asarray(values)
    fits = array.ndim == len(shape) and all(w is None or w == g for w, g in zip(shape, array.shape))
    if not fits or array.dtype.kind != "f":
        raise RetrievalError(
            f"{what} must be floats of shape {list(shape)}",
            received=f"{array.dtype} {list(array.shape)}",
            fix="Pass one vector per asset, and views only if every asset of the part has all of them",
        )
    lengths = np.linalg.norm(array.astype(np.float32, copy=False), axis=-1)
    if not (np.abs(lengths - 1.0) < _UNIT_TOLERANCE).all():  # false for NaN as well
        worst = int(np.argmax(np.where(np.isfinite(lengths), np.abs(lengths - 1.0), np.inf)))
        raise RetrievalError(
            f"{what} must be finite and of length one, vector {worst} is not",
            received=float(lengths.reshape(-1)[worst]),
            fix="Divide each vector by its length; an encoder that gives NaN has broken weights",
        )
    return encode(array, dtype)


class VectorFile:
    """Unit vectors ``[R, ...]`` on disk; the last axis is the embedding.

    Args:
        path: of the ``.npy`` file. shape, dtype: as the manifest says; dtype is a key of :data:`STORED_DTYPE`.
        name: of the file below the index folder, for messages.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str, name: str) -> None:
        self.name = name
        self.stored = map_array(path, shape, STORED_DTYPE[dtype], name)
        self._widened: np.ndarray | None = None

    def scores(self, query: np.ndarray, *, widen: bool) -> np.ndarray:
        """Cosines ``[R]`` float32 of a unit query ``[D]`` with all rows ``[R, D]``, within 1e-5.

        Args:
            widen: keep a float32 copy for BLAS, which is quickest for small indexes; else :func:`~.scan.scan`.
        """
        if not widen:
            return scan(self.stored, query)
        with np.errstate(invalid="ignore"):  # a vector that is not finite is refused by `cosines`
            return self._wide() @ query

    def quick_cosines(self, rows: np.ndarray, query: np.ndarray, *, widen: bool) -> np.ndarray:
        """:meth:`cosines` by BLAS, float32, within 1e-5; ``widen`` as for :meth:`scores`."""
        chosen = self._wide()[rows] if widen else decode(self.stored[rows])
        with np.errstate(invalid="ignore"):
            return chosen @ query

    def _wide(self) -> np.ndarray:
        if self._widened is None:
            self._widened = decode(self.stored)
        return self._widened

    def cosines(self, rows: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Cosines ``[N, ...]`` of the query with chosen rows, float64.

        They are sums in one fixed order over the stored numbers, so that equal vectors have equal scores, on every
        machine and wherever they are stored.

        Raises:
            IndexDamagedError: a chosen row is not finite.
        """
        chosen = decode(self.stored[rows]).astype(np.float64)
        with np.errstate(invalid="ignore"):
            scores = (chosen * query.astype(np.float64)).sum(-1)
        if not np.isfinite(scores).all():
            bad = int(np.asarray(rows)[~np.isfinite(scores.reshape(len(rows), -1)).all(1)][0])
            raise _damaged("a vector is not finite", self.name, "malformed", f"row {bad}")
        return np.clip(scores, -1.0, 1.0)  # rounding to 16 bits makes some vectors a little longer than one

    def row(self, row: int) -> np.ndarray:
        """One row as float32."""
        return decode(self.stored[row : row + 1])[0]


def _damaged(problem: str, name: str, kind: str, received: object) -> IndexDamagedError:
    fix = "Restore the file from a copy, or build the index again"
    return IndexDamagedError(problem, file=name, kind=kind, received=received, fix=fix)
