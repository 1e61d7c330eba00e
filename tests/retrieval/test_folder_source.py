"""A folder of meshes, its sidecars and its table; a single file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threestudio_redream.assets import load_asset, normalise, write_sample
from threestudio_redream.errors import ConfigError
from threestudio_redream.retrieval.curation.licences import LicencePolicy
from threestudio_redream.retrieval.errors import SourceError
from threestudio_redream.retrieval.sources import FolderSource, SingleSource, open_source, shard_of
from threestudio_redream.retrieval.sources.paths import asset_id_of
from threestudio_redream.retrieval.sources.sidecars import Description, describe_values, merge, read_sidecar, read_table
from threestudio_redream.retrieval.types import AssetRecord, record_to_json

OBJ = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"


def mesh(root: Path, name: str, sidecar: dict[str, Any] | None = None, content: str = OBJ) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    if sidecar is not None:
        path.with_name(path.name + ".json").write_text(json.dumps(sidecar))
    return path


def glb(path: Path, asset: dict[str, Any]) -> Path:
    """A GLB with nothing but metadata."""
    text = json.dumps({"asset": {"version": "2.0", **asset}}).encode()
    text += b" " * (-len(text) % 4)
    path.write_bytes(
        b"glTF" + (2).to_bytes(4, "little") + (20 + len(text)).to_bytes(4, "little")
        + len(text).to_bytes(4, "little") + b"JSON" + text
    )  # fmt: skip
    return path


def reasons(source: FolderSource | SingleSource) -> dict[str, str]:
    return {row.item: row.reason for row in source.rejected}


def test_a_bare_folder_gives_records_with_derived_captions(tmp_path: Path) -> None:
    mesh(tmp_path, "props/Red_Chair_02.obj")
    mesh(tmp_path, "blue-mug.obj")
    mesh(tmp_path, ".hidden/x.obj")
    mesh(tmp_path, "__MACOSX/x.obj")
    mesh(tmp_path, "notes.txt")
    source = FolderSource(tmp_path)
    records = list(source.records())
    assert [record.asset_id for record in records] == ["blue-mug.obj", "props--Red_Chair_02.obj"]
    chair = records[1]
    assert (chair.caption, chair.caption_source, chair.name) == ("red chair", "name", "red chair")
    assert (chair.path, chair.n_bytes, len(chair.sha256)) == ("props/Red_Chair_02.obj", len(OBJ), 64)
    assert (chair.front_deg, chair.front_source) == (None, "unknown")
    assert source.rejected == []
    assert source.open(chair) == (tmp_path / chair.path).resolve()
    assert load_asset(source.open(chair)).sha256 == chair.sha256


def test_json_wins_over_table_and_table_over_the_file(tmp_path: Path) -> None:
    glb(
        tmp_path / "a.glb",
        {"extras": {"author": "E", "license": "CC-BY-4.0 (x)", "source": "https://e.org/", "title": "T"}},
    )
    (tmp_path / "a.json").write_text('{"caption": "from json", "front": "-x"}')
    (tmp_path / "assets.csv").write_text(
        "\ufeffPath,caption,author,license,tags,front_deg\na.glb,from table,Table Author,by-sa,one; two;one,90\n"
    )
    (record,) = FolderSource(tmp_path).records()
    assert (record.caption, record.caption_source) == ("from json", "sidecar")
    assert (record.author, record.licence, record.licence_url) == (
        "Table Author", "CC-BY-SA-4.0", "https://creativecommons.org/licenses/by-sa/4.0/",
    )  # fmt: skip
    assert (record.name, record.source_url, record.tags) == ("T", "https://e.org/", ("one", "two"))
    assert (record.front, record.front_deg, record.front_source) == ("-x", 0.0, "sidecar")


def test_the_front_of_a_sidecar_is_where_normalise_puts_it(tmp_path: Path) -> None:
    write_sample(tmp_path / "robot.glb")
    for said, expected in (
        ({"front": "-x"}, ("-x", 0.0, "sidecar")),
        ({"front_deg": 270}, ("", -90.0, "sidecar")),
        ({"front": "none"}, ("", None, "sidecar")),
        ({"front": None}, ("", None, "sidecar")),
        ({}, ("", None, "unknown")),
    ):
        (tmp_path / "robot.glb.json").write_text(json.dumps(said))
        (record,) = FolderSource(tmp_path).records()
        assert (record.front, record.front_deg, record.front_source) == expected
    # the convention: with the front of a record, normalise turns that axis to +x, azimuth 0
    asset = load_asset(tmp_path / "robot.glb")
    turned = normalise(asset, front="-x")
    tip = np.argmin(asset.vertices[:, 0])
    assert turned.vertices[tip, 0] == turned.vertices[:, 0].max()


def test_licences_are_filtered_and_defaults_fill_in(tmp_path: Path) -> None:
    mesh(tmp_path, "free.obj", {"licence": "CC0"})
    mesh(tmp_path, "nc.obj", {"license": "CC BY-NC 4.0"})
    mesh(tmp_path, "nd.obj", {"license": "by-nd"})
    mesh(tmp_path, "both.obj", {"license": "by", "licence_url": "https://creativecommons.org/licenses/by-nc/4.0/"})
    mesh(tmp_path, "silent.obj")
    source = FolderSource(tmp_path, licence="MIT", author="Studio")
    found = {record.asset_id: record for record in source.records()}
    assert {key: record.licence for key, record in found.items()} == {"free.obj": "CC0-1.0", "silent.obj": "MIT"}
    assert found["silent.obj"].author == "Studio"
    assert set(reasons(source)) == {"nc.obj", "nd.obj", "both.obj"}
    assert {row.stage for row in source.rejected} == {"licence"}
    wide = FolderSource(tmp_path, policy=LicencePolicy(non_commercial=True, no_derivatives=True))
    assert len(list(wide.records())) == 5
    strict = FolderSource(tmp_path, policy=LicencePolicy(unknown=False))
    assert [record.asset_id for record in strict.records()] == ["free.obj"]


def test_one_bad_item_is_a_row_and_not_a_stop(tmp_path: Path) -> None:
    mesh(tmp_path, "good.obj")
    mesh(tmp_path, "wrong.obj", {"caption": 3})
    mesh(tmp_path, "axes.obj", {"up": "+y", "front": "-y"})
    mesh(tmp_path, "angle.obj", {"front_deg": "north"})
    mesh(tmp_path, "tags.obj", {"tags": [1]})
    mesh(tmp_path, "swapped.obj", {"sha256": "0" * 64})
    mesh(tmp_path, "torn.obj").with_name("torn.obj.json").write_text("{")
    mesh(tmp_path, "list.obj").with_name("list.obj.json").write_text("[]")
    mesh(tmp_path, "deep.obj").with_name("deep.obj.json").write_text("[" * 100_000)
    mesh(tmp_path, "huge.obj").with_name("huge.obj.json").write_text(" " * 300_000)
    (tmp_path / "line\nfeed.obj").write_text(OBJ)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/latin\xe9.obj")).write_text(OBJ)
    (tmp_path / "assets.csv").write_text(
        "path,front_deg\ngood.obj,10\ngood.obj,20\n,30\nx.obj,up\ngone.obj,1\n../up.obj,1\n"
    )
    (tmp_path / "dangling.obj").symlink_to("nowhere.obj")
    outside = mesh(tmp_path.parent / f"{tmp_path.name}-outside", "secret.obj")
    (tmp_path / "link.obj").symlink_to(outside)
    source = FolderSource(tmp_path)
    assert [record.asset_id for record in source.records()] == ["good.obj"]
    found = reasons(source)
    expected = {
        "wrong.obj": "caption is not a text",
        "axes.obj": "cannot lie along its up axis",
        "angle.obj": "front_deg is not an angle",
        "tags.obj": "tags is not a list of texts",
        "swapped.obj": "not the one that its sidecar describes",
        "torn.obj": "cannot be read as a JSON object",
        "list.obj": "cannot be read as a JSON object",
        "deep.obj": "cannot be read as a JSON object",
        "huge.obj": "cannot be read as a JSON object",
        "line\\nfeed.obj": "control characters",
        "latin\\udce9.obj": "no text",
        "link.obj": "leads outside",
        "dangling.obj": "is not there",
        "good.obj": "a second row",
        "row 4": "no path",
        "x.obj": "front_deg is not an angle",
        "gone.obj": "there is no such mesh",
        "../up.obj": "there is no such mesh",
    }
    assert set(found) == set(expected)
    assert {key: text for key, text in expected.items() if text not in found[key]} == {}
    assert all(json.loads(json.dumps(row.to_json())) for row in source.rejected)


def test_a_json_of_another_tool_is_no_sidecar(tmp_path: Path) -> None:
    path = mesh(tmp_path, "a.obj")
    for text in ('{"meshes": []}', "[1]", "{", " " * 300_000):
        (tmp_path / "a.json").write_text(text)
        assert read_sidecar(path) is None
    (tmp_path / "a.json").write_text('{"meshes": [], "License": "MIT"}')
    assert read_sidecar(path) == Description(licence="MIT", licence_url="https://opensource.org/license/mit")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"caption\nx\n", "no column called path"),
        (b"", "no column called path"),
        (b"path\n\xff\xfe\n", "cannot be read"),
        (b'path,caption\na,"x" y\n', "not a CSV"),
        (b"path,caption\na," + b"x" * 100_000, "not a CSV"),
    ],
)
def test_a_broken_table_is_named(tmp_path: Path, text: bytes, words: str) -> None:
    (tmp_path / "assets.csv").write_bytes(text)
    with pytest.raises(SourceError, match=words) as caught:
        FolderSource(tmp_path)
    assert caught.value.problem.startswith("assets.csv")
    assert caught.value.fix
    assert caught.value.received is not None
    with pytest.raises(SourceError, match="cannot be read"):
        FolderSource(tmp_path, table=tmp_path / "other.csv")


def test_a_table_has_a_cap_on_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threestudio_redream.retrieval.sources.sidecars.MAX_TABLE_ROWS", 3)
    (tmp_path / "t.csv").write_text("file\n" + "".join(f"{index}.obj\n" for index in range(9)))
    with pytest.raises(SourceError, match="too many rows"):
        read_table(tmp_path / "t.csv")


def test_ids_are_unique_plain_and_depend_on_the_path_only() -> None:
    paths = ["a.glb", "a.obj", "a.obj.glb", "a/b.glb", "a--b.glb", "a b.glb", "a_b.glb", "a.GLB", "-a.glb",
             "\u00e9.glb", "x" * 300 + ".glb", "y/" + "x" * 300 + ".glb", "a-/b.glb", ".glb"]  # fmt: skip
    ids = [asset_id_of(path) for path in paths]
    assert ids[:5] == ["a", "a.obj", asset_id_of("a.obj.glb"), "a--b", asset_id_of("a--b.glb")]
    assert len(set(ids)) == len(ids)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(min_size=1, max_size=200))
def test_any_path_has_a_valid_id(path: str) -> None:
    identifier = asset_id_of(path)
    assert 0 < len(identifier) <= 128
    assert set(identifier) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def test_shards_are_disjoint_complete_and_stable(tmp_path: Path) -> None:
    for index in range(30):
        mesh(tmp_path, f"m{index:02d}.obj")
    whole = [record.asset_id for record in FolderSource(tmp_path).records()]
    parts = [[record.asset_id for record in FolderSource(tmp_path).records(shard, 3)] for shard in range(3)]
    assert sorted(name for part in parts for name in part) == whole
    assert all(parts)
    mesh(tmp_path, "another.obj")
    for shard, part in enumerate(parts):
        assert set(part) <= {record.asset_id for record in FolderSource(tmp_path).records(shard, 3)}
    assert shard_of("duck", 4) == 0
    with pytest.raises(ConfigError, match="shard"):
        list(FolderSource(tmp_path).records(3, 3))


def test_problems_of_the_table_are_told_by_one_shard_only(tmp_path: Path) -> None:
    mesh(tmp_path, "a.obj")
    (tmp_path / "assets.csv").write_text("path\nnone.obj\n")
    told = []
    for shard in range(3):
        source = FolderSource(tmp_path)
        list(source.records(shard, 3))
        told += source.rejected
    assert len(told) == 1


def test_open_refuses_what_is_not_in_the_library(tmp_path: Path) -> None:
    mesh(tmp_path, "lib/a.obj")
    mesh(tmp_path, "secret.obj")
    source = FolderSource(tmp_path / "lib")
    (record,) = source.records()
    for path in (
        "../secret.obj",
        str(tmp_path / "secret.obj"),
        "",
        "b.obj",
        "a.obj/..",
        "C:/a.obj",
        "a\\b.obj",
        "x\0y",
    ):
        with pytest.raises(SourceError) as caught:
            source.open(AssetRecord("a", "a", "a", path=path))
        assert caught.value.fix
    mesh(tmp_path / "lib", "a.obj", content=OBJ + "\n# changed\n")
    with pytest.raises(SourceError, match="changed since it was indexed"):
        source.open(record)


def test_a_single_file(tmp_path: Path) -> None:
    path = mesh(tmp_path, "My_Chair.obj", {"author": "Me", "licence": "by-nc"})
    source = SingleSource(path)
    (record,) = source.records()
    assert (record.caption, record.author, record.licence, record.path) == (
        "my chair", "Me", "CC-BY-NC-4.0", "My_Chair.obj",
    )  # fmt: skip
    assert source.open(record) == path
    (described,) = SingleSource(path, caption="a throne").records()
    assert (described.caption, described.caption_source) == ("a throne", "sidecar")
    assert sum(len(list(source.records(shard, 3))) for shard in range(3)) == 1
    with pytest.raises(SourceError, match="another file"):
        source.open(AssetRecord("x", "x", "x", path="x.obj"))
    for bad in (tmp_path / "none.glb", path.with_name("My_Chair.obj.json")):
        with pytest.raises(SourceError, match="no such 3D file"):
            SingleSource(bad)
    mesh(tmp_path, "My_Chair.obj", {"author": 3})
    assert list(source.records()) == []
    assert "author is not a text" in reasons(source)["My_Chair.obj"]


def test_open_source_understands_its_own_settings(tmp_path: Path) -> None:
    path = mesh(tmp_path, "a.obj", {"licence": "by-nc"})
    for source in (
        open_source(tmp_path, author="Me", policy=LicencePolicy(non_commercial=True)),
        open_source(str(path), caption="thing"),
    ):
        again = open_source(**json.loads(json.dumps(source.settings)))
        assert type(again) is type(source)
        expected = [record_to_json(record) for record in source.records()]
        assert [record_to_json(record) for record in again.records()] == expected
        assert len(expected) == 1
        assert str(tmp_path) not in source.name
    for call in (
        lambda: open_source(tmp_path / "none"),
        lambda: open_source("objaverse", table="x.csv"),
        lambda: open_source(tmp_path, captions="x.csv"),
        lambda: open_source(path, licence="MIT"),
    ):
        with pytest.raises(SourceError) as caught:
            call()
        assert caught.value.fix
    with pytest.raises(SourceError, match="no such folder"):
        FolderSource(tmp_path / "none")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_without_rights_is_a_row(tmp_path: Path) -> None:
    mesh(tmp_path, "closed/a.obj")
    (tmp_path / "closed").chmod(0)
    source = FolderSource(tmp_path)
    assert list(source.records()) == []
    (tmp_path / "closed").chmod(0o700)
    assert "cannot be read" in reasons(source)["closed"]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["caption", "licence", "License", "front", "front_deg", "up", "tags", "author", "source_url"])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.dictionaries(KEYS | st.text(max_size=5), JSON, max_size=6))
def test_any_sidecar_is_read_or_refused_by_name(values: dict[str, Any]) -> None:
    try:
        description = describe_values(values, "x.json")
    except SourceError as error:
        refused = str(error)
    else:
        refused = ""
    assert refused.startswith("x.json" if refused else "")
    if refused:
        return
    assert description.front_deg is None or -180.0 <= description.front_deg < 180.0
    assert merge(None, description, Description()) == merge(description)
    json.dumps(vars(description), allow_nan=False)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=120))
def test_any_table_is_read_or_refused_by_name(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "assets.csv")
        path.write_bytes(b"path,caption,front_deg\n" + data)
        rows, problems, refused = {}, [], "assets.csv"
        try:
            rows, problems = read_table(path)
        except SourceError as error:
            refused = error.problem
        assert refused.startswith("assets.csv")
        assert all(name for name in rows)
        assert all(reason for _, reason in problems)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_metadata_inside_a_file_never_stops_anything(data: bytes) -> None:
    import tempfile

    from threestudio_redream.retrieval.sources.sidecars import embedded_description

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.glb")
        for prefix in (b"", b"glTF\x02\0\0\0", b"{", b'{"asset": '):
            path.write_bytes(prefix + data)
            assert isinstance(embedded_description(path), Description)
