"""The asset records of a part as a Parquet file that any tool reads, and that may come from a stranger."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import mmap
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from threestudio_redream.retrieval.errors import IndexDamagedError, RetrievalError
from threestudio_redream.retrieval.index.parquet import GROUP_ROWS, ColumnType, ParquetFile, write_parquet
from threestudio_redream.retrieval.types import AssetRecord

__all__ = ["Table", "check_record", "write_table"]

MAX_TEXT = 8192  # characters of one text
MAX_TAGS = 256
MAX_FACES = 2**40
_CACHED_RECORDS = 100_000
_CACHED_GROUPS = 128
_TEXTS = tuple(f.name for f in dataclasses.fields(AssetRecord) if f.type == "str")
_TYPES: dict[str, ColumnType] = {"n_bytes": "integer", "n_faces": "integer", "front_deg": "real"}
# tags are a JSON list; an unknown front_deg is NaN
_COLUMNS: dict[str, ColumnType] = {f.name: _TYPES.get(f.name, "text") for f in dataclasses.fields(AssetRecord)}
_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_AXES = ("", "+x", "-x", "+y", "-y", "+z", "-z")
_FRONT_SOURCES = ("sidecar", "clip", "unknown")


def check_record(record: AssetRecord) -> str:
    """Why a record cannot be a row of an index; an empty text if it can."""
    values = vars(record)
    for name in _TEXTS:
        value = values[name]
        if not isinstance(value, str) or len(value) > MAX_TEXT or "\0" in value:
            return f"{name} must be a text of at most {MAX_TEXT} characters"
        if not value.isascii() and any(0xD800 <= ord(character) <= 0xDFFF for character in value):
            return f"{name} holds a character that UTF-8 has no code for"
    if not _ID.fullmatch(record.asset_id):
        return "asset_id must be 1 to 128 letters, digits, '.', '_' or '-', and not begin with '.'"
    if record.path and not _is_plain_path(record.path):
        return "path must be relative, with forward slashes and without '..'"
    if not re.fullmatch(r"|[0-9a-f]{64}", record.sha256):
        return "sha256 must be empty or 64 hex digits"
    for name, most in (("n_bytes", 2**53), ("n_faces", MAX_FACES)):
        if type(values[name]) is not int or not 0 <= values[name] <= most:
            return f"{name} must be a whole number from 0 to {most}"
    front = record.front_deg
    if front is not None and not (isinstance(front, float | int) and math.isfinite(front)):
        return "front_deg must be finite degrees or None"
    if record.up not in _AXES or record.front not in _AXES:
        return "up and front must be axes such as +y, or empty"
    if record.front_source not in _FRONT_SOURCES:
        return f"front_source must be one of {', '.join(_FRONT_SOURCES)}"
    if len(record.tags) > MAX_TAGS or not all(isinstance(tag, str) and len(tag) <= 256 for tag in record.tags):
        return f"tags must be at most {MAX_TAGS} texts of at most 256 characters"
    return ""


def write_table(path: Path, records: Sequence[AssetRecord]) -> None:
    """Write records in their order.

    Raises:
        RetrievalError: a record that :func:`check_record` refuses.
    """
    for record in records:
        problem = check_record(record)
        if problem:
            raise RetrievalError(
                f"an asset cannot be indexed: {problem}",
                received=record,
                fix="Correct the sidecar file or the source, or leave the asset out",
            )
    columns: dict[str, list[Any]] = {name: [getattr(record, name) for record in records] for name in _COLUMNS}
    columns["tags"] = [json.dumps(list(tags), ensure_ascii=False) for tags in columns["tags"]]
    columns["front_deg"] = [math.nan if front is None else float(front) for front in columns["front_deg"]]
    write_parquet(path, _COLUMNS, columns)


class Table:
    """Records of one part, read on demand from a file that is mapped at once. All errors name the file.

    Args:
        path: of the Parquet file. rows: how many it must have. name: below the index folder, for messages.

    Raises:
        IndexDamagedError: the file is missing; by every method: it holds something else than ``rows`` assets.
    """

    def __init__(self, path: Path, rows: int, name: str) -> None:
        self.rows, self.name = rows, name
        self._made: dict[int, AssetRecord] = {}
        self._groups: OrderedDict[int, dict[str, list[Any]]] = OrderedDict()
        with self._named_errors(), open(path, "rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    @cached_property
    def file(self) -> ParquetFile:
        """The file, its description checked."""
        with self._named_errors():
            return ParquetFile(self._data, _COLUMNS, self.rows)

    def records(self, rows: Iterable[int]) -> list[AssetRecord]:
        """The records of chosen rows, in that order."""
        wanted = [int(row) for row in rows]
        if len(self._made) > _CACHED_RECORDS:
            self._made.clear()
        for row in wanted:
            if row not in self._made:
                self._made[row] = self._record(self._group(row // GROUP_ROWS), row % GROUP_ROWS)
        return [self._made[row] for row in wanted]

    def __iter__(self) -> Iterator[AssetRecord]:
        for number in range(self.file.groups):
            with self._named_errors():
                group = self.file.read_group(number)
            for row in range(len(group["asset_id"])):
                yield self._record(group, row)

    def ids(self) -> list[str]:
        """The asset ids of all rows; reads that column only."""
        file = self.file
        with self._named_errors():
            return [name for i in range(file.groups) for name in file.read_group(i, ("asset_id",))["asset_id"]]

    def _group(self, number: int) -> dict[str, list[Any]]:
        if number not in self._groups:
            file = self.file
            with self._named_errors():
                self._groups[number] = file.read_group(number)
            if len(self._groups) > _CACHED_GROUPS:
                self._groups.popitem(last=False)
        return self._groups[number]

    def _record(self, group: dict[str, list[Any]], row: int) -> AssetRecord:
        values = {name: column[row] for name, column in group.items()}
        values["front_deg"] = None if math.isnan(values["front_deg"]) else values["front_deg"]
        values["tags"] = _tags(values["tags"])
        record = AssetRecord(**values)
        problem = check_record(record)
        if problem:
            raise self._damaged(f"a row is no asset: {problem}", record)
        return record

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise self._damaged("the file is missing", self.name.rsplit("/", 1)[-1], "missing") from error
        except (OSError, ValueError) as error:
            raise self._damaged("this is no table of assets", str(error)[:200]) from error

    def _damaged(self, problem: str, received: object, kind: str = "malformed") -> IndexDamagedError:
        fix = "Restore the file from a copy, or build the index again"
        return IndexDamagedError(problem, file=self.name, kind=kind, received=received, fix=fix)


def _tags(text: str) -> tuple[Any, ...]:
    """Tags from their JSON; what is none gives something that :func:`check_record` refuses."""
    try:
        tags = json.loads(text)
    except (ValueError, RecursionError):
        return (None,)
    return tuple(tags) if isinstance(tags, list) else (None,)


def _is_plain_path(path: str) -> bool:
    parts = path.split("/")
    return "\\" not in path and ":" not in parts[0] and all(part not in ("", ".", "..") for part in parts)
