"""Random damage to manifests, tables and arrays: a named error or a sound value, never a crash."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_index import toy_records, write_toy_index

from threestudio_redream.retrieval.checks import Document, canonical_json
from threestudio_redream.retrieval.errors import IndexDamagedError
from threestudio_redream.retrieval.index.manifest import MANIFEST, Manifest
from threestudio_redream.retrieval.index.parquet import GROUP_ROWS, ColumnType, ParquetFile, write_parquet
from threestudio_redream.retrieval.index.table import _COLUMNS as COLUMNS
from threestudio_redream.retrieval.index.table import Table, check_record, write_table
from threestudio_redream.retrieval.index.vectors import map_array, write_array

EXAMPLES = settings(max_examples=100, deadline=None, derandomize=True)
edits = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True), st.sampled_from(["set", "cut", "insert", "copy"]), st.binary(max_size=8)
    ),
    min_size=1,
    max_size=6,
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=20), st.just("../../x")
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@cache
def manifest_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_toy_index(Path(folder), 6)
        return (Path(folder) / MANIFEST).read_bytes()


@cache
def table_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_table(Path(folder) / "t", toy_records(300))
        return (Path(folder) / "t").read_bytes()


def damaged(data: bytes, changes: list[tuple[float, str, bytes]]) -> bytes:
    result = bytearray(data)
    for where, kind, content in changes:
        place = int(where * max(1, len(result)))
        if kind == "set":
            result[place : place + len(content)] = content
        elif kind == "cut":
            del result[place : place + 1 + len(content)]
        elif kind == "insert":
            result[place:place] = content
        else:
            result[place : place + 16] = result[:16]
    return bytes(result)


def is_named(error: IndexDamagedError, file: str) -> None:
    assert error.file == file
    assert error.problem
    assert error.received is not ...
    assert error.fix


@EXAMPLES
@given(edits)
def test_damaged_manifest_bytes(changes: list[tuple[float, str, bytes]]) -> None:
    data = damaged(manifest_bytes(), changes)
    try:
        manifest = Manifest.from_bytes(data)
    except IndexDamagedError as error:
        is_named(error, MANIFEST)
    else:
        assert manifest == Manifest.from_bytes(manifest_bytes())


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in items:
        found += places(member, (*path, key))
    return found


def resigned(document: dict[str, Any]) -> bytes:
    document.pop("digest", None)
    digest = hashlib.sha256(canonical_json(document).encode()).hexdigest()
    return json.dumps({**document, "digest": digest}).encode()


@EXAMPLES
@given(st.data())
def test_changed_manifest_values_with_a_right_digest(data: st.DataObject) -> None:
    document = json.loads(manifest_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        *path, key = data.draw(st.sampled_from(places(document)))
        target = document
        for step in path:
            target = target[step]
        kind = data.draw(st.sampled_from(["replace", "delete", "add"]))
        if kind == "replace":
            target[key] = data.draw(values)
        elif kind == "delete":
            del target[key]
        elif isinstance(target, dict):
            target[data.draw(st.text(max_size=8))] = data.draw(values)
        if not document:
            break
    try:
        signed = resigned(document)
    except (ValueError, TypeError):  # NaN: the writer could not have written it
        return
    try:
        manifest = Manifest.from_bytes(signed)
    except IndexDamagedError as error:
        is_named(error, MANIFEST)
    else:
        for entry in manifest.entries():
            assert not entry.path.startswith(("/", "."))
            assert ".." not in entry.path.split("/")
        assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        "[" * 100_000,
        '{"a":' * 50 + "1" + "}" * 50,
        '{"format": "redream-index-2"}',
        '{"format": "redream-index-1", "format": "redream-index-1"}',
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": "\\ud800"}',
        '{"a": ' + "9" * 5000 + "}",
        "\ufeff{}",
    ],
)
def test_documents_that_are_no_manifest(text: str) -> None:
    with pytest.raises(IndexDamagedError) as caught:
        Manifest.from_bytes(text.encode())
    is_named(caught.value, MANIFEST)


def test_no_entry_leaves_the_folder() -> None:
    for name in ("../x", "/etc/passwd", "..", ".", "a/../../b", "C:x", "", "a\0b", "x" * 300):
        document = json.loads(manifest_bytes())
        document["assets"] = {name: next(iter(document["parts"][0]["files"].values()))}
        with pytest.raises(IndexDamagedError):
            Manifest.from_bytes(resigned(document))


def read_all(path: Path, rows: int) -> list[Any]:
    table = Table(path, rows, "parts/x/table.parquet")
    records = [*table, *table.records(range(rows))]
    assert table.ids() == [record.asset_id for record in records[:rows]]
    return records


@EXAMPLES
@given(edits)
def test_damaged_tables(changes: list[tuple[float, str, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        path.write_bytes(damaged(table_bytes(), changes))
        try:
            records = read_all(path, 300)
        except IndexDamagedError as error:
            is_named(error, "parts/x/table.parquet")
        else:
            assert len(records) == 600
            assert not any(map(check_record, records))


@EXAMPLES
@given(st.floats(0, 1), st.integers(0, 255))
def test_damaged_table_footers(where: float, value: int) -> None:
    """The footer is what a reader believes first."""
    data = bytearray(table_bytes())
    length = int.from_bytes(data[-8:-4], "little")
    data[len(data) - 8 - length + int(where * (length + 7))] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        path.write_bytes(data)
        try:
            read_all(path, 300)
        except IndexDamagedError as error:
            is_named(error, "parts/x/table.parquet")


def test_tables_of_another_form(tmp_path: Path) -> None:
    path, records = tmp_path / "table.parquet", toy_records(10)
    values = {name: [getattr(record, name) for record in records] for name in COLUMNS}
    values["tags"] = ["[]"] * 10
    values["front_deg"] = [0.0] * 10
    write_parquet(path, COLUMNS, values)
    assert len(read_all(path, 10)) == 20
    for change, rows, words in [
        ({}, 11, "something else|rows of"),
        ({}, 1030, "rows of"),
        ({"author": None}, 10, "rows of"),
        ({"author": ("integer", [1] * 10)}, 10, "something else"),
        ({"asset_id": ("text", ["../x"] * 10)}, 10, "asset_id"),
        ({"caption": ("text", ["x" * 10_000] * 10)}, 10, "caption"),
        ({"tags": ("text", ["{}"] * 10)}, 10, "tags"),
        ({"tags": ("text", ["[" * 1000] * 10)}, 10, "tags"),
        ({"tags": ("text", ["[" + "0," * 999 + "0]"] * 10)}, 10, "tags"),
        ({"n_faces": ("integer", [-1] * 10)}, 10, "n_faces"),
        ({"front_deg": ("real", [float("inf")] * 10)}, 10, "front_deg"),
    ]:
        columns, content = dict(COLUMNS), dict(values)
        for name, new in change.items():
            del columns[name]
            if new:
                columns = {key: (new[0] if key == name else COLUMNS[key]) for key in COLUMNS}
                content[name] = new[1]
        write_parquet(path, columns, content)
        with pytest.raises(IndexDamagedError, match=words) as caught:
            read_all(path, rows)
        is_named(caught.value, "parts/x/table.parquet")


def test_every_byte_outside_the_values_is_checked(tmp_path: Path) -> None:
    """Headers, footer and lengths: a flipped bit of any of them is noticed."""
    path = tmp_path / "t.parquet"
    columns: dict[str, ColumnType] = {"a": "text", "b": "integer"}
    write_parquet(path, columns, {"a": ["ab", "c"], "b": [1, 2]})
    data = path.read_bytes()
    in_values = {
        i for i in range(len(data)) if 0 < data.find(b"ab") <= i < data.find(b"ab") + 2 or data[i : i + 1] == b"c"
    }
    start = data.find((1).to_bytes(8, "little"))
    in_values |= set(range(start, start + 16)) | set(range(4))
    for place in set(range(len(data))) - in_values:
        for bit in range(8):
            flipped = data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
            with pytest.raises(ValueError, match=r"."):
                ParquetFile(flipped, columns, 2).read_group(0)


@pytest.mark.parametrize("rows", [0, 1, GROUP_ROWS, 2 * GROUP_ROWS + 3])
def test_other_tools_read_our_tables(tmp_path: Path, rows: int) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "table.parquet"
    records = [replace(record, caption="ü" * (i % 40)) for i, record in enumerate(toy_records(rows))]
    write_table(path, records)
    found = parquet.read_table(path)
    assert found.column_names == list(COLUMNS)
    assert found.column("caption").to_pylist() == [record.caption for record in records]
    assert found.column("n_faces").to_pylist() == [record.n_faces for record in records]
    fronts = found.column("front_deg").to_pylist()
    assert [None if np.isnan(front) else front for front in fronts] == [record.front_deg for record in records]
    assert list(Table(path, rows, "t")) == records


def test_footers_of_another_form() -> None:
    for data in (b"", b"PAR1", b"PAR1" + b"\xff" * 4 + b"PAR1", b"PAR1\0\0\0\0PAR2"):
        with pytest.raises(ValueError, match=r"Parquet|footer"):
            ParquetFile(data, COLUMNS, 0)
    for footer in (
        b"\x19" * 50,
        b"\x19\xfc" + b"\xff" * 9 + b"\x01",
        b"\x19\xfc\xff\xff\xff\x07",
        b"\x1d\0",
        b"\x15" + b"\xff" * 20,
    ):
        with pytest.raises(ValueError, match=r"footer|number"):
            ParquetFile(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1", COLUMNS, 0)


@EXAMPLES
@given(edits)
def test_damaged_arrays(changes: list[tuple[float, str, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npy"
        write_array(path, np.ones((4, 8), np.float16))
        path.write_bytes(damaged(path.read_bytes(), changes))
        try:
            array = map_array(path, (4, 8), "<f2", "a.npy")
        except IndexDamagedError as error:
            is_named(error, "a.npy")
        else:
            assert (array.shape, array.dtype) == ((4, 8), np.dtype("<f2"))


def test_document_bounds() -> None:
    document = Document({"a": 1, "b": "x", "c": [1], "d": True, "e": 1e7}, "f.json")
    for call in (
        lambda: document.whole("a", 2),
        lambda: document.whole("d"),
        lambda: document.whole("missing"),
        lambda: document.text("b", "y"),
        lambda: document.text("a"),
        lambda: document.number("e"),
        lambda: document.number("b"),
        lambda: document.child("c"),
        lambda: document.children("c", 5),
        lambda: document.items("c", 0),
        lambda: document.items("c", 5, lambda value: value > 1),
        lambda: document.only("a"),
        lambda: Document([], "f.json"),
    ):
        with pytest.raises(IndexDamagedError) as caught:
            call()
        is_named(caught.value, "f.json")
