"""Approximate nearest-neighbour libraries behind one interface: FAISS (HNSW, IVF) and ScaNN.

They find the rows; scores are always computed anew from the stored vectors. Each needs its optional package; exact
search needs none of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from threestudio_redream.errors import MissingExtraError
from threestudio_redream.retrieval.errors import RetrievalError

__all__ = ["BACKENDS", "Backend", "backend_of"]

Blocks = Callable[[], Iterator[np.ndarray]]


class Backend(Protocol):
    """One kind of approximate index over unit vectors, by inner product.

    Attributes:
        kind: as the user writes it. effort: name of the search setting that trades time for recall. ladder: values of
            it to try, cheapest first.
    """

    kind: ClassVar[str]
    effort: ClassVar[str]
    ladder: ClassVar[tuple[int, ...]]

    def build(self, blocks: Blocks, rows: int, dim: int, params: dict[str, Any], seed: int) -> dict[str, Any]:
        """Index ``rows`` vectors that ``blocks()`` yields as ``[n, dim]`` float32; returns the parameters used."""

    def save(self, folder: Path) -> None:
        """Write files into an existing empty folder."""

    def load(self, folder: Path) -> None:
        """Read the files of :meth:`save`. The caller has made sure that this machine wrote them."""

    def search(self, query: np.ndarray, count: int, effort: int) -> np.ndarray:
        """Rows ``[<= count]`` int64 that are about the nearest to a unit query ``[dim]`` float32."""


class _Faiss:
    """What the FAISS kinds share. Vectors are kept in 16 bits; the file is mapped, not read, when it is opened."""

    effort: ClassVar[str]

    def __init__(self) -> None:
        self.faiss = _faiss()
        self.index: Any = None

    def _make(self, factory: str, dim: int) -> None:
        self.index = self.faiss.index_factory(dim, factory, self.faiss.METRIC_INNER_PRODUCT)

    def _fill(self, index: Any, blocks: Blocks, train_rows: int, seed: int) -> None:
        index.train(_sample(blocks, train_rows, seed))
        for block in blocks():
            index.add(block)

    def save(self, folder: Path) -> None:
        self.faiss.write_index(self.index, str(folder / "index.faiss"))

    def load(self, folder: Path) -> None:
        self.index = self.faiss.read_index(str(folder / "index.faiss"), self.faiss.IO_FLAG_MMAP_IFC)

    def _search(self, query: np.ndarray, count: int, parameters: Any) -> np.ndarray:
        _, rows = self.index.search(query[None], count, params=parameters)
        return rows[0][rows[0] >= 0].astype(np.int64)


class FaissHnsw(_Faiss):
    """A navigable small-world graph: best recall for the time, slow to build. ``params``: links, construction."""

    kind = "faiss-hnsw"
    effort = "efSearch"
    ladder = (64, 128, 256, 512, 1024, 2048)

    def build(self, blocks: Blocks, rows: int, dim: int, params: dict[str, Any], seed: int) -> dict[str, Any]:
        used = _with_defaults(params, {"links": 32, "construction": 80}, self.kind)
        self._make(f"HNSW{used['links']},SQfp16", dim)
        self.index.hnsw.efConstruction = used["construction"]
        self._fill(self.index, blocks, 1000, seed)
        return used

    def search(self, query: np.ndarray, count: int, effort: int) -> np.ndarray:
        return self._search(query, count, self.faiss.SearchParametersHNSW(efSearch=max(effort, count)))


class FaissIvf(_Faiss):
    """Lists around centroids: quick to build, little memory, lower recall. ``params``: lists, train_rows."""

    kind = "faiss-ivf"
    effort = "nprobe"
    ladder = (8, 16, 32, 64, 128, 256, 512, 1024)

    def build(self, blocks: Blocks, rows: int, dim: int, params: dict[str, Any], seed: int) -> dict[str, Any]:
        lists = max(1, min(65_536, round(4 * rows**0.5), rows // 39 or 1))
        used = _with_defaults(params, {"lists": lists, "train_rows": min(rows, 64 * lists)}, self.kind)
        self._make(f"IVF{used['lists']},SQfp16", dim)
        if self.faiss.get_num_gpus():
            device = self.faiss.index_cpu_to_all_gpus(self.index)
            self._fill(device, blocks, used["train_rows"], seed)
            self.index = self.faiss.index_gpu_to_cpu(device)
        else:
            self._fill(self.index, blocks, used["train_rows"], seed)
        return used

    def search(self, query: np.ndarray, count: int, effort: int) -> np.ndarray:
        return self._search(query, count, self.faiss.SearchParametersIVF(nprobe=effort))


class Scann:
    """The library that the paper used: a tree, anisotropic hashing, and reordering. ``params``: leaves, threshold."""

    kind = "scann"
    effort = "leaves_to_search"
    ladder = (25, 50, 100, 200, 400, 800)

    def __init__(self) -> None:
        self.scann = _scann()
        self.searcher: Any = None

    def build(self, blocks: Blocks, rows: int, dim: int, params: dict[str, Any], seed: int) -> dict[str, Any]:
        used = _with_defaults(params, {"leaves": max(1, round(2 * rows**0.5)), "threshold": 0.2}, self.kind)
        vectors = np.concatenate(list(blocks()))
        builder = self.scann.scann_ops_pybind.builder(vectors, 100, "dot_product")
        if rows >= 1000:  # below, its tree has too little to learn from
            builder = builder.tree(used["leaves"], min(100, used["leaves"]), training_sample_size=min(rows, 250_000))
            builder = builder.score_ah(2, anisotropic_quantization_threshold=used["threshold"]).reorder(400)
        else:
            builder = builder.score_brute_force()
        self.searcher = builder.build()
        return used

    def save(self, folder: Path) -> None:
        self.searcher.serialize(str(folder), relative_path=True)

    def load(self, folder: Path) -> None:
        if any(path.suffix == ".pkl" for path in folder.iterdir()):
            raise RetrievalError(
                "the ScaNN files hold a pickle, which is not read", received=str(folder), fix="Build them again"
            )
        self.searcher = self.scann.scann_ops_pybind.load_searcher(str(folder), assets_backcompat_shim=False)

    def search(self, query: np.ndarray, count: int, effort: int) -> np.ndarray:
        rows, _ = self.searcher.search(
            query, final_num_neighbors=count, pre_reorder_num_neighbors=4 * count + 100, leaves_to_search=effort
        )
        return np.asarray(rows, np.int64)


BACKENDS: dict[str, Callable[[], Any]] = {kind.kind: kind for kind in (FaissHnsw, FaissIvf, Scann)}


def backend_of(kind: str) -> Backend:
    """A backend by name.

    Raises:
        RetrievalError: there is none of this name. MissingExtraError: its package does not import.
    """
    if kind not in BACKENDS:
        raise RetrievalError(
            "there is no such approximate index", received=kind, fix=f"Use one of {', '.join(BACKENDS)}"
        )
    return BACKENDS[kind]()


def _sample(blocks: Blocks, rows: int, seed: int) -> np.ndarray:
    """About ``rows`` vectors, spread over all blocks."""
    total = sum(len(block) for block in blocks())
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:rows])
    taken, start = [], 0
    for block in blocks():
        taken.append(block[chosen[(chosen >= start) & (chosen < start + len(block))] - start])
        start += len(block)
    return np.concatenate(taken)


def _with_defaults(params: dict[str, Any], defaults: dict[str, Any], kind: str) -> dict[str, Any]:
    unknown = sorted(set(params) - set(defaults))
    if unknown:
        raise RetrievalError(f"{kind} has no such parameter", received=unknown[0], fix=f"It has {', '.join(defaults)}")
    return {**defaults, **params}


def _faiss() -> Any:
    try:
        return importlib.import_module("faiss")
    except Exception as error:  # a build for another numpy raises more than ImportError
        raise MissingExtraError("faiss", "ann", "FAISS search", error) from error


def _scann() -> Any:
    try:
        return importlib.import_module("scann")
    except Exception as error:
        raise MissingExtraError("scann", "scann", "ScaNN search", error) from error
