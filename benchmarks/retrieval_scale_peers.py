"""The searches that ``retrieval_scale.py`` compares, each behind the same calls.

``Engine(folder)`` names its files; ``build(vectors)`` makes them from a memory map ``[R, D]`` float32; ``open()``
loads them; ``search(query, k, effort)`` gives row numbers. ``EFFORTS``: the settings that are measured. Constructors
and builds may raise: the reason is recorded.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from threestudio_redream.retrieval.index.manifest import IndexSpec
from threestudio_redream.retrieval.index.reader import Index
from threestudio_redream.retrieval.index.writer import IndexWriter
from threestudio_redream.retrieval.search import nearest_captions
from threestudio_redream.retrieval.types import AssetRecord

BLOCK = 65_536


class RandomEncoder:
    """Stands in for CLIP where only its vectors' length matters; a text gives a random unit vector."""

    def __init__(self, dim: int) -> None:
        self.name, self.dim, self.image_size = "random", dim, 224
        self.fingerprint, self.preprocessing = "0" * 64, {"size": 224}

    def encode_texts(self, texts: Any) -> np.ndarray:
        vectors = np.random.default_rng(len(texts)).standard_normal((len(texts), self.dim))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def encode_images(self, images: np.ndarray) -> np.ndarray:
        return self.encode_texts([""] * len(images))


def record(row: int) -> AssetRecord:
    """An asset as Objaverse with Cap3D has them; ids sort like rows."""
    words = np.random.default_rng(row).integers(0, 5000, 12)
    caption = " ".join(f"w{word:04d}" for word in words)
    return AssetRecord(
        f"{row:032x}",
        f"object {row}",
        caption,
        caption_source="cap3d",
        author=f"author {row % 50_000}",
        licence="CC-BY-4.0",
        licence_url="https://creativecommons.org/licenses/by/4.0/",
        source_url=f"https://example.org/3d-models/{row:032x}",
    )


def blocks(vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """``(first row, [n, D])``."""
    for start in range(0, len(vectors), BLOCK):
        yield start, np.ascontiguousarray(vectors[start : start + BLOCK])


class Ours:
    """Our index: exact over float16, with records; every hit is scored again and comes with its record."""

    PACKAGES: tuple[str, ...] = ("numpy", "numba")
    EFFORTS: tuple[int, ...] = (100,)  # size of the pool
    DTYPE = "float16"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def build(self, vectors: np.ndarray) -> None:
        spec = IndexSpec.of(RandomEncoder(vectors.shape[1]), views_per_asset=0, dtype=self.DTYPE)
        writer = IndexWriter(self.folder, spec)
        for start, block in blocks(vectors):
            writer.write_part([record(start + i) for i in range(len(block))], block, name=f"part-{start:09d}")
        writer.commit()

    def open(self) -> None:
        self.index = Index.open(self.folder)

    def search(self, query: np.ndarray, k: int, effort: int) -> list[int]:
        found = self.index.search(query, k, pool=effort).results
        return [int(hit.record.asset_id, 16) for hit in found]


class OursBfloat16(Ours):
    """The same over bfloat16."""

    DTYPE = "bfloat16"


class OursRows(Ours):
    """Our exact caption search without records, as the libraries do it; shares the files of :class:`Ours`."""

    EFFORTS = (0,)

    def build(self, vectors: np.ndarray) -> None:
        if not (self.folder / "manifest.json").exists():
            super().build(vectors)

    def search(self, query: np.ndarray, k: int, effort: int) -> list[int]:
        first = {id(part): number * BLOCK for number, part in enumerate(self.index.parts)}
        return [first[id(c.part)] + c.row for c in nearest_captions(self.index.parts, query, k)]


class TorchFloat32:
    """A matrix product of torch over the mapped float32 file, then topk."""

    PACKAGES: tuple[str, ...] = ("torch",)
    EFFORTS: tuple[int, ...] = (0,)

    def __init__(self, folder: Path) -> None:
        import torch

        self.torch, self.folder = torch, folder

    def build(self, vectors: np.ndarray) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        np.save(self.folder / "vectors.npy", vectors)

    def open(self) -> None:
        mapped = np.load(self.folder / "vectors.npy", mmap_mode="c", allow_pickle=False)
        self.vectors = self.torch.from_numpy(mapped)

    def search(self, query: np.ndarray, k: int, effort: int) -> list[int]:
        return self.torch.topk(self.vectors @ self.torch.from_numpy(query), k).indices.tolist()


class Faiss:
    """A FAISS index, mapped on opening."""

    PACKAGES: tuple[str, ...] = ("faiss-cpu",)
    EFFORTS: tuple[int, ...] = (0,)
    FACTORY = "Flat"
    TRAIN_ROWS = 0

    def __init__(self, folder: Path) -> None:
        import faiss

        self.faiss, self.folder = faiss, folder
        faiss.omp_set_num_threads(2)

    def build(self, vectors: np.ndarray) -> None:
        index = self.faiss.index_factory(vectors.shape[1], self.factory(len(vectors)), self.faiss.METRIC_INNER_PRODUCT)
        if self.TRAIN_ROWS:
            rows = np.sort(np.random.default_rng(0).permutation(len(vectors))[: self.TRAIN_ROWS])
            index.train(np.ascontiguousarray(vectors[rows]))
        for _, block in blocks(vectors):
            index.add(block)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.faiss.write_index(index, str(self.folder / "index.faiss"))

    def factory(self, rows: int) -> str:
        return self.FACTORY

    def open(self) -> None:
        self.index = self.faiss.read_index(str(self.folder / "index.faiss"), self.faiss.IO_FLAG_MMAP_IFC)

    def search(self, query: np.ndarray, k: int, effort: int) -> list[int]:
        return self.index.search(query[None], k, params=self.parameters(effort))[1][0].tolist()

    def parameters(self, effort: int) -> Any:
        return None


class FaissFlat(Faiss):
    """Exact, float32."""


class FaissSq(Faiss):
    """Exact over float16."""

    FACTORY, TRAIN_ROWS = "SQfp16", 1000


class FaissHnsw(Faiss):
    """The graph that ``build_ann(folder, "faiss-hnsw")`` makes."""

    FACTORY, TRAIN_ROWS, EFFORTS = "HNSW32,SQfp16", 1000, (64, 128, 256, 512, 1024)

    def parameters(self, effort: int) -> Any:
        return self.faiss.SearchParametersHNSW(efSearch=effort)


class FaissIvf(Faiss):
    """The lists that ``build_ann(folder, "faiss-ivf")`` makes."""

    TRAIN_ROWS, EFFORTS = 200_000, (16, 64, 256, 512)

    def factory(self, rows: int) -> str:
        return f"IVF{max(1, min(round(4 * rows**0.5), rows // 39))},SQfp16"

    def parameters(self, effort: int) -> Any:
        return self.faiss.SearchParametersIVF(nprobe=effort)


class Scann:
    """The paper's library with the settings of its guide."""

    PACKAGES: tuple[str, ...] = ("scann",)
    EFFORTS: tuple[int, ...] = (100, 200, 400)

    def __init__(self, folder: Path) -> None:
        import scann

        self.pybind, self.folder = scann.scann_ops_pybind, folder

    def build(self, vectors: np.ndarray) -> None:
        leaves = max(1, round(2 * len(vectors) ** 0.5))
        builder = self.pybind.builder(np.ascontiguousarray(vectors), 10, "dot_product")
        builder = builder.tree(leaves, min(100, leaves), training_sample_size=min(len(vectors), 250_000))
        searcher = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(400).build()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        searcher.serialize(str(self.folder), relative_path=True)

    def open(self) -> None:
        self.searcher = self.pybind.load_searcher(str(self.folder), assets_backcompat_shim=False)

    def search(self, query: np.ndarray, k: int, effort: int) -> list[int]:
        found, _ = self.searcher.search(
            query, final_num_neighbors=k, pre_reorder_num_neighbors=4 * effort, leaves_to_search=effort
        )
        return list(map(int, found))


ENGINES: dict[str, Any] = {
    "ours": Ours,
    "ours-rows": OursRows,
    "ours-bfloat16": OursBfloat16,
    "torch-float32": TorchFloat32,
    "faiss-flat": FaissFlat,
    "faiss-sqfp16": FaissSq,
    "faiss-hnsw": FaissHnsw,
    "faiss-ivf": FaissIvf,
    "scann": Scann,
}
SHARED_FOLDER = {"ours-rows": "ours"}
