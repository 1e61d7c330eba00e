"""Approximate indexes: built here, measured against exact search, sealed, dropped when the rows change.

The rules are tested with a backend made of numpy; the real ones too, where their packages are installed.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_index import ToyEncoder, stage_toys, toy_records, toy_spec, write_toy_index

from threestudio_redream.errors import MissingExtraError
from threestudio_redream.retrieval.errors import IndexDamagedError, RetrievalError
from threestudio_redream.retrieval.index import ann_backends
from threestudio_redream.retrieval.index.ann import build_ann, measure_recall, open_ann
from threestudio_redream.retrieval.index.ann_backends import BACKENDS, backend_of
from threestudio_redream.retrieval.index.reader import Index
from threestudio_redream.retrieval.index.verify import verify_index
from threestudio_redream.retrieval.index.writer import IndexWriter


class Coarse:
    """Looks at the first ``effort`` numbers of each vector only: recall grows with effort."""

    kind, effort, ladder = "coarse", "numbers", (2, 8, 16, 32)

    def build(self, blocks: Any, rows: int, dim: int, params: dict[str, Any], seed: int) -> dict[str, Any]:
        self.vectors = np.concatenate(list(blocks()))
        assert self.vectors.shape == (rows, dim)
        return dict(params)

    def save(self, folder: Path) -> None:
        np.save(folder / "vectors.npy", self.vectors)

    def load(self, folder: Path) -> None:
        self.vectors = np.load(folder / "vectors.npy", allow_pickle=False)

    def search(self, query: np.ndarray, count: int, effort: int) -> np.ndarray:
        return np.argsort(-(self.vectors[:, :effort] @ query[:effort]), kind="stable")[:count]


@pytest.fixture(autouse=True)
def _own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("REDREAM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setitem(BACKENDS, "coarse", Coarse)
    return None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toy_index(tmp_path / "index", 150, parts=3)
    return tmp_path / "index"


def test_effort_is_the_smallest_that_reaches_the_target(folder: Path) -> None:
    entry = build_ann(folder, "coarse", target_recall=0.3)
    assert entry.params == {"numbers": 16}
    assert 0.3 <= entry.recall["recall"] < 1.0
    assert (entry.recall["k"], entry.recall["queries"]) == (10, 150)
    index = Index.open(folder)
    again = measure_recall(index, open_ann(index).backend, 16, 10)
    assert again["recall"] == entry.recall["recall"]
    assert measure_recall(index, open_ann(index).backend, 2, 10)["recall"] < 0.3
    assert build_ann(folder, "coarse", target_recall=1.0).params == {"numbers": 32}
    assert len(list((folder / "ann").iterdir())) == 1


def test_search_takes_the_pool_from_it_and_scores_exactly(folder: Path) -> None:
    build_ann(folder, "coarse", target_recall=1.0)
    index = Index.open(folder, ToyEncoder(), check="full")
    assert index.info()["ann"]["recall"]["recall"] == 1.0
    for accept in (None, lambda record: record.n_faces % 2 == 0):
        exact = index.search("a blue sofa", 5, pool=20, accept=accept)
        found = index.search("a blue sofa", 5, pool=20, accept=accept, approximate=True)
        assert found.results[0] == exact.results[0]
        if accept is None:
            assert found.results == exact.results
    assert verify_index(folder, ToyEncoder()) == []
    assert not (folder / ".staging").exists()


def test_it_is_dropped_when_rows_change(folder: Path) -> None:
    build_ann(folder, "coarse")
    IndexWriter(folder).remove(["toy-00003"])
    index = Index.open(folder, ToyEncoder())
    assert index.manifest.ann is None
    assert not list((folder / "ann").iterdir())
    with pytest.raises(RetrievalError, match="no approximate index") as caught:
        index.search("a cup", approximate=True)
    assert "build_ann" in caught.value.fix


def test_one_from_elsewhere_is_not_read(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_ann(folder, "coarse")
    monkeypatch.setenv("REDREAM_STATE_DIR", str(tmp_path / "another user"))
    monkeypatch.setattr(Coarse, "load", None)
    index = Index.open(folder, ToyEncoder())
    assert index.search("a red robot").results
    with pytest.raises(RetrievalError, match="not built by you on this machine") as caught:
        index.search("a red robot", approximate=True)
    assert caught.value.fix
    key = tmp_path / "another user" / "threestudio-redream" / "ann.key"
    assert key.stat().st_mode & 0o077 == 0


def test_a_changed_file_is_not_read(folder: Path) -> None:
    build_ann(folder, "coarse")
    index = Index.open(folder, ToyEncoder())
    (file,) = (folder / "ann").rglob("*.npy")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(IndexDamagedError, match="changed") as caught:
        open_ann(index)
    assert caught.value.file.startswith("ann/")
    with pytest.raises(IndexDamagedError, match="changed"):
        Index.open(folder)


def test_refusals(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RetrievalError, match="no such approximate index") as caught:
        build_ann(folder, "annoy")
    assert "faiss-hnsw" in caught.value.fix
    IndexWriter(tmp_path / "empty", toy_spec()).commit()
    with pytest.raises(RetrievalError, match="empty index"):
        build_ann(tmp_path / "empty", "coarse")
    monkeypatch.setenv("REDREAM_STATE_DIR", "/proc/none")
    with pytest.raises(RetrievalError, match="no place to keep the key"):
        build_ann(folder, "coarse")
    assert Index.open(folder).manifest.ann is None


def test_a_key_is_whole_or_not_there(folder: Path, tmp_path: Path) -> None:
    build_ann(folder, "coarse")
    key = tmp_path / "state" / "threestudio-redream" / "ann.key"
    assert len(key.read_bytes()) == 32
    assert key.stat().st_mode & 0o077 == 0
    assert [path.name for path in key.parent.iterdir()] == ["ann.key"]
    key.write_bytes(b"")  # a full disk: with no key everybody could seal
    with pytest.raises(RetrievalError, match=r"key.*is damaged.*0 bytes.*Delete that file"):
        open_ann(Index.open(folder))


def test_rows_that_change_during_the_build(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(self: Coarse, target: Path) -> None:
        np.save(target / "vectors.npy", self.vectors)
        writer = IndexWriter(folder)
        stage_toys(writer, toy_records(3, 1000))
        writer.commit()

    monkeypatch.setattr(Coarse, "save", save)
    with pytest.raises(RetrievalError, match="changed while"):
        build_ann(folder, "coarse")
    assert len(Index.open(folder)) == 153


@pytest.mark.parametrize(("kind", "package"), [("faiss-hnsw", "faiss"), ("faiss-ivf", "faiss"), ("scann", "scann")])
def test_missing_packages(kind: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError) as caught:
        backend_of(kind)
    assert caught.value.package == package
    assert "pip install" in caught.value.fix


@pytest.mark.parametrize("kind", ["faiss-hnsw", "faiss-ivf", "scann"])
def test_real_backends(tmp_path: Path, kind: str) -> None:
    pytest.importorskip(kind.split("-")[0])
    folder = tmp_path / "index"
    write_toy_index(folder, 1200, parts=2, views=0)
    entry = build_ann(folder, kind, target_recall=0.95)
    assert entry.recall["recall"] >= 0.95
    index = Index.open(folder, ToyEncoder())
    exact, found = (index.search("a green boat", 5, pool=10, approximate=flag).results for flag in (False, True))
    assert found[0] == exact[0]
    moved = Path(shutil.move(folder, tmp_path / "moved"))  # no path of the old place in the files
    assert Index.open(moved, ToyEncoder()).search("a green boat", 5, pool=10, approximate=True).results == found
    with pytest.raises(RetrievalError, match="no such parameter"):
        build_ann(moved, kind, {"wings": 2})


def test_samples_for_training_cover_all_blocks() -> None:
    data = np.arange(100, dtype=np.float32).reshape(50, 2)
    sample = ann_backends._sample(lambda: iter([data[:10], data[10:11], data[11:]]), 20, 0)
    assert len(np.unique(sample[:, 0])) == 20
    assert len(ann_backends._sample(lambda: iter([data]), 1000, 0)) == 50
