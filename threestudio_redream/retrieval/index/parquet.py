"""A small corner of the Parquet format, written and read here: plain columns without nulls, one page per column.

Any Parquet tool reads these files. The reader reads only what the writer writes: it takes the sizes of the columns
from the footer, and then requires the footer and every page header to be, byte for byte, the ones that the writer
makes for these sizes. So nothing in a foreign file is trusted, and no C++ library sees it (those abort the process on
some damaged footers). Format: https://parquet.apache.org/docs/file-format/, Thrift compact protocol.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

__all__ = ["GROUP_ROWS", "Column", "ColumnType", "ParquetFile", "write_parquet"]

ColumnType = Literal["text", "integer", "real"]
Column = Sequence[Any]
GROUP_ROWS = 1024  # rows of a group, but of the last one
_MAGIC = b"PAR1"
_MAKER = "threestudio-redream"
_PHYSICAL: dict[ColumnType, int] = {"integer": 2, "real": 5, "text": 6}
_I32, _I64, _TEXT, _LIST, _STRUCT = 5, 6, 8, 9, 12
_MAX_FOOTER = 256 * 1024**2


def write_parquet(path: Path, columns: Mapping[str, ColumnType], values: Mapping[str, Column]) -> None:
    """Write a table.

    Args:
        columns: type of each column by name, in order. values: of each column, all of one length: texts, integers of
            64 bits, or floats.
    """
    rows = len(next(iter(values.values())))
    sizes: list[list[int]] = []
    with open(path, "wb") as file:
        file.write(_MAGIC)
        for start in range(0, rows, GROUP_ROWS):
            count = min(GROUP_ROWS, rows - start)
            pages = [_encode(kind, values[name][start : start + count]) for name, kind in columns.items()]
            for page in pages:
                file.write(_page_header(len(page), count) + page)
            sizes.append([len(page) for page in pages])
        footer = _footer(columns, rows, sizes)
        file.write(footer + struct.pack("<I", len(footer)) + _MAGIC)


class ParquetFile:
    """A file of :func:`write_parquet`, read group by group.

    Args:
        data: content of the file, e.g. a memory map. columns: that it must have. rows: that it must have.

    Raises:
        ValueError: it is not what the writer makes for some ``rows`` rows of these columns.
    """

    def __init__(self, data: bytes | mmap.mmap, columns: Mapping[str, ColumnType], rows: int) -> None:
        self.data, self.columns, self.rows = data, dict(columns), rows
        length, tail = len(data), data[-8:]
        if length < 12 or tail[4:] != _MAGIC:
            raise ValueError("it does not end as a Parquet file")
        footer_length = struct.unpack("<I", tail[:4])[0]
        if footer_length > min(length - 12, _MAX_FOOTER):
            raise ValueError("its footer is longer than the file")
        footer = data[length - 8 - footer_length : length - 8]
        sizes = _sizes(footer)
        if len(sizes) != self.groups or any(len(group) != len(self.columns) for group in sizes):
            raise ValueError(f"it has not {rows} rows of {len(self.columns)} columns")
        if _footer(self.columns, rows, sizes) != footer:
            raise ValueError("its footer describes something else")
        self._sizes, self._starts, place = sizes, [], len(_MAGIC)
        for number, group in enumerate(sizes):
            self._starts.append(place)
            place += sum(len(_page_header(size, self._count(number))) + size for size in group)
        if place != length - 8 - footer_length:
            raise ValueError("its columns do not fill it")

    @property
    def groups(self) -> int:
        """How many groups of rows there are."""
        return -(-self.rows // GROUP_ROWS)

    def read_group(self, number: int, names: Iterable[str] | None = None) -> dict[str, list[Any]]:
        """Columns of a group of rows; all of them, or those of ``names``.

        Raises:
            ValueError: a page is not what its header says; UnicodeDecodeError is one.
        """
        wanted, count = set(self.columns if names is None else names), self._count(number)
        found: dict[str, list[Any]] = {}
        place = self._starts[number]
        for (name, kind), size in zip(self.columns.items(), self._sizes[number]):
            header = _page_header(size, count)
            start = place + len(header)
            place = start + size
            if name in wanted:
                if self.data[start - len(header) : start] != header:
                    raise ValueError(f"the header of a page of {name} is not the one its size asks for")
                found[name] = _decode(kind, self.data[start:place], count)
        return found

    def _count(self, number: int) -> int:
        return min(GROUP_ROWS, self.rows - number * GROUP_ROWS)


def _encode(kind: ColumnType, values: Column) -> bytes:
    if kind != "text":
        return struct.pack(f"<{len(values)}{'q' if kind == 'integer' else 'd'}", *values)
    encoded = [value.encode() for value in values]
    return b"".join(part for text in encoded for part in (len(text).to_bytes(4, "little"), text))


def _decode(kind: ColumnType, page: bytes, count: int) -> list[Any]:
    if kind != "text":
        if len(page) != 8 * count:
            raise ValueError("a page of numbers has another length")
        return list(struct.unpack(f"<{count}{'q' if kind == 'integer' else 'd'}", page))
    even = _decode_even(page, count)
    if even is not None:
        return even
    texts, place = [], 0
    for _ in range(count):
        end = place + 4 + int.from_bytes(page[place : place + 4], "little")
        if end > len(page) or place + 4 > len(page):
            raise ValueError("a text ends outside its page")
        texts.append(page[place + 4 : end].decode())
        place = end
    if place != len(page):
        raise ValueError("a page of texts has another length")
    return texts


def _decode_even(page: bytes, count: int) -> list[str] | None:
    """Texts of one length, as ids, licences and empty columns are, without walking; None if they are not."""
    width = 4 + int.from_bytes(page[:4], "little")
    if width * count != len(page):
        return None
    if page == page[:width] * count:
        return [page[4:width].decode()] * count
    heads = np.frombuffer(page, np.uint8).reshape(count, width)[:, :4]
    if (heads != heads[0]).any():
        return None
    return [page[start : start + width - 4].decode() for start in range(4, len(page), width)]


def _page_header(size: int, count: int) -> bytes:
    data = _struct((1, _I32, count), (2, _I32, 0), (3, _I32, 3), (4, _I32, 3))  # plain values, RLE levels (none)
    return _struct((1, _I32, 0), (2, _I32, size), (3, _I32, size), (5, _STRUCT, data))


def _footer(columns: Mapping[str, ColumnType], rows: int, sizes: Sequence[Sequence[int]]) -> bytes:
    root = _struct((4, _TEXT, "schema"), (5, _I32, len(columns)))
    schema = [root]
    for name, kind in columns.items():
        fields = [(1, _I32, _PHYSICAL[kind]), (3, _I32, 0), (4, _TEXT, name)]  # 0: required
        schema.append(_struct(*fields, *([(6, _I32, 0)] if kind == "text" else [])))  # 0: UTF-8
    groups, place = [], len(_MAGIC)
    names = {name: _list(_TEXT, [_text(name)]) for name in columns}
    plain = _list(_I32, [_varint(0), _varint(6)])  # encodings: plain, and RLE for the levels that are not there
    for number, group in enumerate(sizes):
        count, total, chunks = min(GROUP_ROWS, rows - number * GROUP_ROWS), 0, []
        for (name, kind), size in zip(columns.items(), group):
            whole = len(_page_header(size, count)) + size
            about = _struct(
                *((1, _I32, _PHYSICAL[kind]), (2, _LIST, plain), (3, _LIST, names[name]), (4, _I32, 0)),
                *((5, _I64, count), (6, _I64, whole), (7, _I64, whole), (9, _I64, place)),
            )
            chunks.append(_struct((2, _I64, place), (3, _STRUCT, about)))
            place, total = place + whole, total + whole
        groups.append(_struct((1, _LIST, _list(_STRUCT, chunks)), (2, _I64, total), (3, _I64, count)))
    return _struct(
        *((1, _I32, 1), (2, _LIST, _list(_STRUCT, schema)), (3, _I64, rows)),
        *((4, _LIST, _list(_STRUCT, groups)), (6, _TEXT, _MAKER)),
    )


def _sizes(footer: bytes) -> list[list[int]]:
    """Lengths of the pages by group and column, as a footer claims them.

    Raises:
        ValueError: it is not Thrift, or not a footer.
    """
    try:
        groups = _Thrift(footer).read(_STRUCT, 0)[4]
        return [[_page_size(chunk[3][7], group[3]) for chunk in group[1]] for group in groups]
    except (IndexError, KeyError, TypeError, OverflowError) as error:
        raise ValueError("its footer cannot be read") from error


def _page_size(whole: int, count: int) -> int:
    """Length of a page without its header, from the length with it; the header is longer for longer pages."""
    if not 0 <= whole < 2**31 or not 0 <= count <= GROUP_ROWS:
        raise ValueError("a page or a group is too long")
    for size in range(whole - len(_page_header(whole, count)), whole):
        if size >= 0 and size + len(_page_header(size, count)) == whole:
            return size
    raise ValueError("a page has no possible length")


class _Thrift:
    """Reads the compact protocol into dictionaries by field number, lists, integers and bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def read(self, kind: int, depth: int) -> Any:
        if depth > 8:
            raise ValueError("its footer is nested too deeply")
        if kind in (_I32, _I64):
            number = self._varint()
            return (number >> 1) ^ -(number & 1)
        if kind == _TEXT:
            length = self._varint()
            self.place += length
            return self.data[self.place - length : self.place]
        if kind == _LIST:
            head = self._byte()
            length = head >> 4 if head >> 4 < 15 else self._varint()
            if length > len(self.data):  # every member takes a byte at least
                raise ValueError("a list of its footer is too long")
            return [self.read(head & 15, depth + 1) for _ in range(length)]
        if kind != _STRUCT:
            raise ValueError("its footer holds an unknown type")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number += head >> 4
            fields[number] = self.read(head & 15, depth + 1)
        return fields

    def _byte(self) -> int:
        self.place += 1
        return self.data[self.place - 1]

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number
            if shift > 63:
                raise ValueError("a number of its footer is too long")


def _varint(number: int) -> bytes:
    """A number that is not negative, seven bits to a byte."""
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    data.append(number)
    return bytes(data)


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _varint(len(encoded)) + encoded


def _list(kind: int, members: Sequence[bytes]) -> bytes:
    length = len(members)
    head = bytes([length << 4 | kind]) if length < 15 else bytes([0xF0 | kind]) + _varint(length)
    return head + b"".join(members)


def _struct(*fields: tuple[int, int, Any]) -> bytes:
    """Fields as (number, type, value); lists and structs are encoded already."""
    data, before = bytearray(), 0
    for number, kind, value in fields:
        data.append((number - before) << 4 | kind)
        data += _varint(2 * value) if kind in (_I32, _I64) else _text(value) if kind == _TEXT else value
        before = number
    data.append(0)
    return bytes(data)
