"""Create, add, remove, merge: what an index holds afterwards, and what it refuses."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from toy_index import ToyEncoder, stage_toys, toy_records, toy_spec, toy_vectors, write_toy_index

from threestudio_redream.retrieval.errors import IndexBusyError, IndexMismatchError, RetrievalError
from threestudio_redream.retrieval.index.lock import write_lock
from threestudio_redream.retrieval.index.parquet import ParquetFile, write_parquet
from threestudio_redream.retrieval.index.reader import Index
from threestudio_redream.retrieval.index.spec import Calibration, IndexSpec
from threestudio_redream.retrieval.index.verify import verify_index
from threestudio_redream.retrieval.index.writer import IndexWriter
from threestudio_redream.retrieval.types import AssetRecord


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def ids(folder: Path) -> list[str]:
    return sorted(record.asset_id for record in Index.open(folder).records())


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    manifest = write_toy_index(tmp_path, 30)
    encoder, records = ToyEncoder(), toy_records(30)
    index = Index.open(tmp_path, encoder, check="full")
    assert list(index.records()) == records
    assert len(index) == 30 == manifest.rows
    assert index.record("toy-00007") == records[7]
    text, views, thumbs = toy_vectors(records[:15], encoder)  # rows of the first part
    np.testing.assert_allclose(index.text_vector("toy-00003"), text[3], atol=1e-3)
    np.testing.assert_allclose(index.view_vectors("toy-00003"), views[3], atol=1e-3)
    np.testing.assert_array_equal(index.thumb("toy-00003"), thumbs[3])
    assert [row["path"] for row in index.rejected()] == ["bad/toy-00000.glb", "bad/toy-00015.glb"]
    assert verify_index(tmp_path, encoder) == []
    assert names(tmp_path) == ["manifest.json", "parts", next(n for n in names(tmp_path) if n.startswith("rejected-"))]


def test_the_manifest_is_readable_and_says_what_the_vectors_mean(tmp_path: Path) -> None:
    write_toy_index(tmp_path)
    values = json.loads((tmp_path / "manifest.json").read_text())
    assert values["format"] == "redream-index-1"
    assert values["encoder"]["preprocessing"] == ToyEncoder().preprocessing
    assert len(values["probe"]["vector"]) == 32
    assert values["counts"] == {"assets": 30, "rejected": 2}
    assert Index.open(tmp_path).info()["assets_with_views"] == 30


def test_content_does_not_depend_on_the_cut_into_parts_or_on_order(tmp_path: Path) -> None:
    contents = [write_toy_index(tmp_path / str(parts), 30, parts=parts).content for parts in (1, 2, 7)]
    writer = IndexWriter(tmp_path / "turned", toy_spec())
    stage_toys(writer, toy_records(30)[::-1])
    contents.append(writer.commit().content)
    assert len(set(contents)) == 1
    assert write_toy_index(tmp_path / "other", 29).content != contents[0]


def test_equal_rows_give_an_equal_part(tmp_path: Path) -> None:
    hashes = [stage_toys(IndexWriter(tmp_path / name, toy_spec()), toy_records(5)) for name in "ab"]
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 32


def test_add_appends_and_repeating_it_changes_nothing(tmp_path: Path) -> None:
    write_toy_index(tmp_path, 10)
    for _ in range(2):
        writer = IndexWriter(tmp_path)
        stage_toys(writer, toy_records(5, 8))
        manifest = writer.commit()
        assert ids(tmp_path) == [f"toy-{i:05d}" for i in range(13)]
        assert manifest.generation == 2
        assert ".staging" not in names(tmp_path)
    assert verify_index(tmp_path, ToyEncoder()) == []


def test_empty_commit_makes_an_empty_index(tmp_path: Path) -> None:
    writer = IndexWriter(tmp_path, toy_spec())
    writer.write_part([], np.zeros((0, 32), np.float32), rejected=[{"path": "a.glb", "reason": "no faces"}])
    manifest = writer.commit()
    assert (manifest.rows, manifest.n_rejected, manifest.generation) == (0, 1, 1)
    index = Index.open(tmp_path, ToyEncoder())
    assert index.search("a red robot").results == ()
    assert index.search("a red robot").outcome == "nothing_similar"
    assert verify_index(tmp_path) == []


@pytest.mark.parametrize(("conflict", "caption"), [("keep", "a red robot"), ("replace", "a new robot")])
def test_conflicting_rows(tmp_path: Path, conflict: str, caption: str) -> None:
    write_toy_index(tmp_path, 10)
    changed = [dataclasses.replace(toy_records(1)[0], caption="a new robot"), *toy_records(2, 9)]
    writer = IndexWriter(tmp_path)
    stage_toys(writer, changed)
    with pytest.raises(RetrievalError, match="other values") as caught:
        writer.commit()
    assert caught.value.fix
    assert Index.open(tmp_path).record("toy-00000").caption == "a red robot"
    assert len(writer.staged()) == 1
    assert writer.commit(conflict).rows == 11  # type: ignore[arg-type]
    assert Index.open(tmp_path).record("toy-00000").caption == caption
    assert writer.staged() == ()
    assert verify_index(tmp_path, ToyEncoder()) == []


def test_staged_parts_that_replace_each_other(tmp_path: Path) -> None:
    writer = IndexWriter(tmp_path, toy_spec())
    stage_toys(writer, toy_records(4), "a")
    stage_toys(writer, [dataclasses.replace(r, caption="a new cup") for r in toy_records(4, 2)], "b")
    assert writer.commit("replace").rows == 6
    captions = [record.caption for record in Index.open(tmp_path).records()]
    assert captions.count("a new cup") == 4


def test_unknown_conflict_rule(tmp_path: Path) -> None:
    write_toy_index(tmp_path, 3)
    with pytest.raises(RetrievalError, match="no such rule") as caught:
        IndexWriter(tmp_path).commit("merge")  # type: ignore[arg-type]
    assert "keep" in caught.value.fix


def test_a_part_staged_again_under_its_name_is_replaced(tmp_path: Path) -> None:
    writer = IndexWriter(tmp_path, toy_spec())
    stage_toys(writer, toy_records(4), "shard-0")
    stage_toys(writer, toy_records(5), "shard-0")
    assert writer.staged() == ("shard-0",)
    assert writer.commit().rows == 5


def test_remove(tmp_path: Path) -> None:
    clean = write_toy_index(tmp_path / "clean", 20)
    write_toy_index(tmp_path / "index", 30, parts=3)
    manifest = IndexWriter(tmp_path / "index").remove([f"toy-{i:05d}" for i in range(20, 30)])
    assert manifest.content == clean.content
    assert ids(tmp_path / "index") == ids(tmp_path / "clean")
    assert len(list((tmp_path / "index" / "parts").iterdir())) == 2
    with pytest.raises(RetrievalError, match="no asset of this id") as caught:
        IndexWriter(tmp_path / "index").remove(["toy-00001", "toy-00025"])
    assert "toy-00025" in str(caught.value)
    assert len(Index.open(tmp_path / "index")) == 20


def test_merge(tmp_path: Path) -> None:
    clean = write_toy_index(tmp_path / "clean", 30)
    write_toy_index(tmp_path / "a", 20)
    writer = IndexWriter(tmp_path / "b", toy_spec())
    stage_toys(writer, toy_records(20, 10))
    writer.commit()
    before = (tmp_path / "b" / "manifest.json").read_bytes()
    manifest = IndexWriter(tmp_path / "a").merge(tmp_path / "b")
    assert manifest.content == clean.content
    assert manifest.n_rejected == 2  # one line is the same in both
    assert (tmp_path / "b" / "manifest.json").read_bytes() == before
    assert verify_index(tmp_path / "a", ToyEncoder()) == []
    assert IndexWriter(tmp_path / "a").merge(tmp_path / "b").generation == manifest.generation


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (toy_spec(ToyEncoder(seed=1)), "encoder"),
        (toy_spec(ToyEncoder(16)), "embedding length"),
        (toy_spec(views=2), "views per asset"),
        (toy_spec(dtype="float32"), "number format"),
        (dataclasses.replace(toy_spec(), cameras={}), "camera set"),
        (dataclasses.replace(toy_spec(), probe=toy_spec(ToyEncoder(seed=1)).probe), "probe"),
    ],
)
def test_other_vectors_are_refused(tmp_path: Path, spec: IndexSpec, words: str) -> None:
    write_toy_index(tmp_path / "a", 4)
    with pytest.raises(IndexMismatchError, match=words) as caught:
        IndexWriter(tmp_path / "a", spec)
    assert caught.value.fix
    other = IndexWriter(tmp_path / "b", spec)
    other.commit()
    with pytest.raises(IndexMismatchError, match=words):
        IndexWriter(tmp_path / "a").merge(tmp_path / "b")


def test_parts_staged_with_another_spec_are_refused_at_the_commit(tmp_path: Path) -> None:
    stage_toys(IndexWriter(tmp_path, toy_spec(views=2)), toy_records(3))
    writer = IndexWriter(tmp_path, toy_spec())
    with pytest.raises(IndexMismatchError, match="staged part"):
        writer.commit()


def test_copies_of_assets(tmp_path: Path) -> None:
    sources = {}
    records = []
    for record in toy_records(3):
        source = tmp_path / f"{record.asset_id}.GLB"
        source.write_bytes(record.asset_id.encode())
        sources[record.asset_id] = source
        records.append(dataclasses.replace(record, sha256=hashlib.sha256(source.read_bytes()).hexdigest()))
    encoder = ToyEncoder()
    text, views, thumbs = toy_vectors(records, encoder)
    for name in "ab":
        writer = IndexWriter(tmp_path / name, toy_spec())
        keep = slice(0, 3) if name == "b" else slice(0, 2)
        chosen = {record.asset_id: sources[record.asset_id] for record in records[keep]}
        writer.write_part(records[keep], text[keep], views[keep], thumbs[keep], assets=chosen)
        writer.commit()
    writer = IndexWriter(tmp_path / "a")
    writer.merge(tmp_path / "b")
    index = Index.open(tmp_path / "a", check="full")
    found = index.asset_path(records[2])
    assert found is not None
    assert found.read_bytes() == b"toy-00002"
    assert found.name == f"toy-00002-{records[2].sha256[:12]}.glb"
    writer.remove(["toy-00002"])
    assert not found.exists()
    assert len(list((tmp_path / "a" / "assets").iterdir())) == 2
    assert Index.open(tmp_path / "a").asset_path(records[2]) is None
    with pytest.raises(RetrievalError, match="is not the file"):
        writer.write_part(records[2:], text[2:], views[2:], assets={"toy-00002": sources["toy-00001"]})
    with pytest.raises(RetrievalError, match="not in this part"):
        writer.write_part(records[2:], text[2:], views[2:], assets={"toy-00001": sources["toy-00001"]})
    assert not list((tmp_path / "a" / ".staging").glob("tmp-*"))


def test_calibration_is_kept_through_later_writes(tmp_path: Path) -> None:
    write_toy_index(tmp_path, 10)
    writer = IndexWriter(tmp_path)
    writer.set_calibration(Calibration(text=0.5, image=0.25, balanced_accuracy=0.9, n_similar=10, n_foreign=5))
    manifest = writer.remove(["toy-00000"])
    assert manifest.calibration == Calibration(0.5, 0.25, 0.9, 10, 5)
    assert writer.set_calibration(None).calibration is None


BAD_RECORDS = [
    ({"asset_id": "../x"}, "asset_id"),
    ({"asset_id": ""}, "asset_id"),
    ({"asset_id": ".hidden"}, "asset_id"),
    ({"asset_id": "a" * 129}, "asset_id"),
    ({"path": "/etc/passwd"}, "path"),
    ({"path": "a/../../b"}, "path"),
    ({"path": "a\\b"}, "path"),
    ({"path": "c:/b"}, "path"),
    ({"caption": "x" * 9000}, "caption"),
    ({"caption": "a\0b"}, "caption"),
    ({"caption": "\ud800"}, "caption"),
    ({"name": None}, "name"),
    ({"sha256": "xyz"}, "sha256"),
    ({"n_faces": -1}, "n_faces"),
    ({"n_bytes": True}, "n_bytes"),
    ({"front_deg": float("nan")}, "front_deg"),
    ({"up": "+w"}, "up"),
    ({"front_source": "guess"}, "front_source"),
    ({"tags": ("x",) * 300}, "tags"),
]


@pytest.mark.parametrize(("change", "field"), BAD_RECORDS)
def test_records_that_cannot_be_stored(tmp_path: Path, change: dict, field: str) -> None:
    record = dataclasses.replace(toy_records(1)[0], **change)
    writer = IndexWriter(tmp_path, toy_spec())
    text, views, _ = toy_vectors(toy_records(1), ToyEncoder())
    with pytest.raises(RetrievalError, match=field) as caught:
        writer.write_part([record], text, views)
    assert caught.value.received is record
    assert caught.value.fix
    assert writer.staged() == ()


def test_unusual_text_survives(tmp_path: Path) -> None:
    record = AssetRecord("x", "Stuhl\u2028\n", "ein grüner Stuhl \U0001f600 \x85\r\n\t", tags=("é", ""))
    writer = IndexWriter(tmp_path, toy_spec())
    text, views, _ = toy_vectors(toy_records(1), ToyEncoder())
    writer.write_part([record], text, views, rejected=[{"reason": "a\u2028b\x85c\nd"}])
    writer.commit()
    index = Index.open(tmp_path)
    assert list(index.records()) == [record]
    assert list(index.rejected()) == [{"reason": "a\u2028b\x85c\nd"}]


def test_arrays_that_cannot_be_stored(tmp_path: Path) -> None:
    writer = IndexWriter(tmp_path, toy_spec())
    records = toy_records(2)
    text, views, thumbs = toy_vectors(records, ToyEncoder())
    broken = text.copy()
    broken[1, 3] = np.nan
    for arguments, words in [
        ((text[:1], views, thumbs), "caption vectors must be floats"),
        ((text.astype(int), views, thumbs), "caption vectors must be floats"),
        ((text * 2, views, thumbs), "length one"),
        ((broken, views, thumbs), "vector 1 is not"),
        ((text, views[:, :2], thumbs), "view vectors must be floats"),
        ((text, views, thumbs[..., :2]), "thumbnails"),
        ((text, views, thumbs.astype(float)), "thumbnails"),
    ]:
        with pytest.raises(RetrievalError, match=words) as caught:
            writer.write_part(records, *arguments)
        assert caught.value.received is not ...
        assert caught.value.fix
    for keywords, words in [
        ({"name": "../x"}, "name of a part"),
        ({"rejected": [{"error": ValueError()}]}, "plain JSON"),
    ]:
        with pytest.raises(RetrievalError, match=words):
            writer.write_part(records, text, views, **keywords)  # type: ignore[arg-type]
    with pytest.raises(RetrievalError, match="same asset_id"):
        writer.write_part([records[0]] * 2, text, views)
    assert writer.staged() == ()


def test_a_new_index_needs_a_spec(tmp_path: Path) -> None:
    with pytest.raises(RetrievalError, match="no index in this folder") as caught:
        IndexWriter(tmp_path / "none")
    assert caught.value.fix
    with pytest.raises(RetrievalError, match="numbers of this type"):
        toy_spec(dtype="int8")
    with pytest.raises(RetrievalError, match="plain JSON"):
        IndexSpec.of(ToyEncoder(), cameras={"radius": np.float32(1)})


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    write_toy_index(tmp_path, 4)
    writer = IndexWriter(tmp_path)
    with write_lock(tmp_path / ".staging" / "lock"):
        with pytest.raises(IndexBusyError, match="another process") as caught:
            writer.remove(["toy-00000"], wait_s=0.1)
        assert caught.value.received == str(os.getpid())
        stage_toys(writer, toy_records(2, 10))  # needs no lock
        assert len(Index.open(tmp_path)) == 4
    assert writer.commit().rows == 6


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_toy_index(tmp_path, 4)
    lock = tmp_path / ".staging" / "lock"
    lock.parent.mkdir()
    lock.write_text("999999999")
    assert IndexWriter(tmp_path).remove(["toy-00000"]).rows == 3
    assert "999999999 died" in caplog.text
    assert not lock.exists()


def _stage_shard(folder: str, shard: int) -> None:
    stage_toys(IndexWriter(folder, toy_spec()), toy_records(5, 5 * shard), f"shard-{shard}")


def test_shards_of_many_processes_and_leftovers_of_dead_ones(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    shards = [context.Process(target=_stage_shard, args=(str(tmp_path), shard)) for shard in range(2)]
    for shard in shards:
        shard.start()
    for shard in shards:
        shard.join()
    writer = IndexWriter(tmp_path, toy_spec())
    assert writer.staged() == ("shard-0", "shard-1")
    dead = tmp_path / ".staging" / "tmp-elsewhere-1-x"
    dead.mkdir()
    os.utime(dead, (0, 0))
    assert writer.commit().content == write_toy_index(tmp_path / "clean", 10).content
    assert not dead.exists()


@pytest.mark.parametrize(
    "texts",
    [
        ["", "", ""],
        ["same", "same", "same"],
        ["abcd", "efgh", "ijkl"],
        ["abcd", "efg", "hijkl"],  # as long as three of four letters
        ["ä", "bb", "ü"],
        ["one"],
    ],
)
def test_columns_of_texts_come_back(tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "table.parquet"
    write_parquet(path, {"name": "text"}, {"name": texts})
    assert ParquetFile(path.read_bytes(), {"name": "text"}, len(texts)).read_group(0)["name"] == texts


def test_a_length_that_is_damaged_among_equal_ones_is_found(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    write_parquet(path, {"name": "text"}, {"name": ["abcd", "efgh", "ijkl"]})
    data = bytearray(path.read_bytes())
    data[data.index(b"efgh") - 4] = 5
    with pytest.raises(ValueError, match="text"):
        ParquetFile(bytes(data), {"name": "text"}, 3).read_group(0)
