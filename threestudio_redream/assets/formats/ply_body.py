"""The elements of a PLY file, text or binary: rows of scalars, and rows with lists of varying length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.errors import AssetError

__all__ = ["AsciiBody", "BinaryBody", "Columns", "Element", "Property", "Ragged"]


class Property(NamedTuple):
    """``type`` and, for a list, ``count_type`` are numpy codes without byte order, e.g. ``"f4"``."""

    name: str
    type: str
    count_type: str | None = None


@dataclass(frozen=True)
class Element:
    """``count`` rows, each with all ``properties``."""

    name: str
    count: int
    properties: list[Property] = field(default_factory=list)

    @property
    def has_list(self) -> bool:
        return any(prop.count_type is not None for prop in self.properties)


class Ragged(NamedTuple):
    """Lists of one property: ``values`` flat, ``counts`` per row."""

    values: NDArray
    counts: NDArray[np.int64]


#: name -> ``[count]`` for scalars, :class:`Ragged` for lists
Columns = dict[str, "NDArray | Ragged"]


class BinaryBody:
    """Sequential reader of binary elements."""

    def __init__(self, data: bytes | memoryview, order: str) -> None:
        self._data, self._order, self._at = data, order, 0
        self._bytes = np.frombuffer(data, np.uint8)

    def read(self, element: Element) -> Columns:
        """All rows of the next element.

        Raises:
            AssetError: the body ends before the element does, or a list length is negative.
        """
        if not element.has_list:
            dtype = np.dtype([(prop.name, self._order + prop.type) for prop in element.properties])
            self._need(dtype.itemsize * element.count, element)
            rows = np.frombuffer(self._data, dtype, element.count, self._at) if dtype.itemsize else np.zeros(0, dtype)
            self._at += dtype.itemsize * element.count
            return {prop.name: rows[prop.name] for prop in element.properties}
        return _read_lists(self, element)

    def _need(self, size: int, element: Element) -> None:
        if self._at + size > len(self._data):
            raise _truncated(element)

    # What _read_lists asks of a body; units are bytes here and numbers in a text body.

    def size(self, code: str) -> int:
        return int(code[1:])

    def span(self) -> tuple[int, int]:
        return self._at, len(self._data)

    def seek(self, position: int) -> None:
        self._at = position

    def count(self, position: int, code: str) -> int:
        if code == "u1":
            return self._data[position]
        raw = self._data[position : position + int(code[1:])]
        return int.from_bytes(raw, "big" if self._order == ">" else "little", signed=code[0] == "i")

    def gather(self, positions: NDArray[np.int64], code: str) -> NDArray:
        width = self.size(code)
        raw = np.zeros((len(positions), width), np.uint8)
        for offset in range(width):
            raw[:, offset] = self._bytes[positions + offset]
        return raw.view(self._order + code)[:, 0]


class AsciiBody:
    """Sequential reader of text elements, given as all their numbers in a row."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        self._values, self._at = values, 0

    def read(self, element: Element) -> Columns:
        """As :meth:`BinaryBody.read`; every column is float64."""
        if not element.has_list:
            width = len(element.properties)
            if self._at + width * element.count > len(self._values):
                raise _truncated(element)
            rows = self._values[self._at : self._at + width * element.count].reshape(element.count, width)
            self._at += width * element.count
            return {prop.name: rows[:, column] for column, prop in enumerate(element.properties)}
        return _read_lists(self, element)

    def size(self, code: str) -> int:
        return 1

    def span(self) -> tuple[int, int]:
        return self._at, len(self._values)

    def seek(self, position: int) -> None:
        self._at = position

    def count(self, position: int, code: str) -> int:
        value = self._values.item(position)
        return int(value) if 0.0 <= value < 2**32 else -1

    def gather(self, positions: NDArray[np.int64], code: str) -> NDArray:
        return self._values[positions]


def _truncated(element: Element) -> AssetError:
    return AssetError(
        f"the PLY file ends before its {element.count} rows of {element.name!r} do",
        received=element.name,
        fix="Download or export it again",
    )


def _read_lists(body: BinaryBody | AsciiBody, element: Element) -> Columns:
    """Rows with lists: one stride if all lists are as long as in the first row, else row by row."""
    lists = [prop for prop in element.properties if prop.count_type is not None]
    first, end = body.span()
    if element.count == 0:
        return {prop.name: Ragged(np.zeros(0), np.zeros(0, np.int64)) for prop in lists}
    starts, counts, stride = _walk(body, element, first, end, 1)
    if first + stride * element.count <= end:
        begin = starts[0] + stride * np.arange(element.count)[:, None]
        same = True
        for column, prop in enumerate(lists):
            code = str(prop.count_type)
            lengths = body.gather(begin[:, column] - body.size(code), code)
            same = same and bool((lengths == counts[0, column]).all())
        if same:
            body.seek(first + stride * element.count)
            return _collect(body, lists, begin, np.repeat(counts, element.count, axis=0))
    starts, counts, total = _walk(body, element, first, end, element.count)
    body.seek(first + total)
    return _collect(body, lists, starts, counts)


def _walk(
    body: BinaryBody | AsciiBody, element: Element, first: int, end: int, rows: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Where the lists of the first ``rows`` rows start and how long they are, ``[rows, lists]``; total size."""
    steps: list[tuple[int, str, int, int]] = []
    skip = 0
    for prop in element.properties:
        if prop.count_type is None:
            skip += body.size(prop.type)
        else:
            steps.append((skip, prop.count_type, body.size(prop.count_type), body.size(prop.type)))
            skip = 0
    starts, counts, position = [], [], first
    for _ in range(rows):
        for before, code, width, size in steps:
            position += before
            if position + width > end:
                raise _truncated(element)
            count = body.count(position, code)
            if count < 0:
                raise AssetError("a PLY list has a negative length", received=count, fix="Export the file again")
            position += width
            starts.append(position)
            counts.append(count)
            position += count * size
        position += skip
        if position > end:
            raise _truncated(element)
    shape = (rows, len(steps))
    return np.array(starts, np.int64).reshape(shape), np.array(counts, np.int64).reshape(shape), position - first


def _collect(
    body: BinaryBody | AsciiBody, lists: Sequence[Property], starts: NDArray[np.int64], counts: NDArray[np.int64]
) -> Columns:
    columns: Columns = {}
    for column, prop in enumerate(lists):
        size, count = body.size(prop.type), counts[:, column]
        before = np.cumsum(count) - count
        positions = np.repeat(starts[:, column] - size * before, count) + size * np.arange(int(count.sum()))
        columns[prop.name] = Ragged(body.gather(positions, prop.type), count)
    return columns
