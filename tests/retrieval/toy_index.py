"""A deterministic encoder without weights, and indexes made with it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from threestudio_redream.retrieval.index.manifest import IndexSpec, Manifest
from threestudio_redream.retrieval.index.writer import IndexWriter
from threestudio_redream.retrieval.types import AssetRecord


class ToyEncoder:
    """Bag of words: every word has a random direction that depends on the word and ``seed`` only.

    Texts that share words are similar, equal texts are equal, word order does not matter. An image is embedded as the
    colour word nearest to its mean colour plus a little of its brightness pattern, so that red renders match "red".
    Both encoders give unit vectors ``[N, dim]`` float32.
    """

    COLOURS: ClassVar = {
        "red": (1.0, 0.0, 0.0),
        "green": (0.0, 1.0, 0.0),
        "blue": (0.0, 0.0, 1.0),
        "white": (1.0, 1.0, 1.0),
        "black": (0.0, 0.0, 0.0),
        "grey": (0.5, 0.5, 0.5),
        "yellow": (1.0, 1.0, 0.0),
    }

    def __init__(self, dim: int = 32, *, seed: int = 0, image_size: int = 16, name: str = "toy") -> None:
        self.name, self.dim, self.image_size, self.seed = name, dim, image_size, seed
        self.fingerprint = hashlib.sha256(f"{name}:{dim}:{seed}:{image_size}".encode()).hexdigest()
        self.preprocessing: dict[str, Any] = {
            "size": image_size, "crop": image_size, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3,
        }  # fmt: skip

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        rows = [sum((self._word(word) for word in text.lower().split()), np.zeros(self.dim)) for text in texts]
        return unit(np.array(rows).reshape(-1, self.dim) + 1e-3 * self._word("\0bias"))

    def encode_images(self, images: np.ndarray) -> np.ndarray:
        names, colours = list(self.COLOURS), np.array(list(self.COLOURS.values()))
        rows = []
        for image in np.asarray(images, np.float64):
            nearest = np.argmin(((colours - image.mean((0, 1))) ** 2).sum(1))
            strip = image.mean(2)[:: max(1, len(image) // 4)].mean(1)
            rows.append(self._word(names[nearest]) + 0.1 * sum(s * self._word(f"\0{i}") for i, s in enumerate(strip)))
        return unit(np.array(rows).reshape(-1, self.dim))

    def _word(self, word: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(f"{self.seed}:{word}".encode()).digest()[:8], "big")
        return np.random.default_rng(seed).standard_normal(self.dim)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length one, float32."""
    return (rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)).astype(np.float32)


def toy_records(count: int, start: int = 0) -> list[AssetRecord]:
    """Assets ``toy-00000`` ... with captions such as "a red robot"; 7 colours x 11 things, then numbered."""
    things = ["robot", "chair", "boat", "lamp", "duck", "tree", "car", "cup", "sofa", "piano", "dragon"]
    colours = list(ToyEncoder.COLOURS)
    records = []
    for i in range(start, start + count):
        caption = f"a {colours[i % len(colours)]} {things[i // len(colours) % len(things)]}"
        caption += f" number{i}" if i >= len(colours) * len(things) else ""
        records.append(
            AssetRecord(
                asset_id=f"toy-{i:05d}",
                name=caption.removeprefix("a ").title(),
                caption=caption,
                author="Ann Author" if i % 2 else "",
                licence="CC0-1.0",
                path=f"things/{i:05d}.glb",
                sha256=hashlib.sha256(caption.encode()).hexdigest(),
                n_bytes=100 + i,
                n_faces=10 + i,
                front_deg=float(i % 360) if i % 3 else None,
                front_source="sidecar" if i % 3 else "unknown",
                tags=("toy", f"tag{i % 4}"),
            )
        )
    return records


def toy_vectors(
    records: Sequence[AssetRecord], encoder: ToyEncoder, views: int = 3
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Caption vectors ``[R, D]``, view vectors ``[R, V, D]`` near them, thumbnails ``[R, 64, 64, 3]`` uint8."""
    text = encoder.encode_texts([record.caption for record in records])
    noise = np.stack([encoder.encode_texts([f"{r.asset_id}:{v}" for v in range(views)]) for r in records])
    thumbs = np.stack([np.full((64, 64, 3), int(record.sha256[:2] or "0", 16), np.uint8) for record in records])
    return text, unit(text[:, None] + 0.3 * noise), thumbs


def toy_spec(encoder: ToyEncoder | None = None, *, views: int = 3, dtype: str = "float16") -> IndexSpec:
    """A spec with a small camera set."""
    cameras = {"elevation_deg": 20.0, "azimuths": views}
    return IndexSpec.of(encoder or ToyEncoder(), views_per_asset=views, cameras=cameras, dtype=dtype)


def write_toy_index(
    folder: Path, count: int = 30, *, parts: int = 2, encoder: ToyEncoder | None = None, **options: Any
) -> Manifest:
    """An index of :func:`toy_records` in ``folder``; ``options`` are those of :func:`toy_spec`."""
    encoder = encoder or ToyEncoder()
    writer = IndexWriter(folder, toy_spec(encoder, **options))
    for number, rows in enumerate(np.array_split(np.arange(count), parts)):
        stage_toys(writer, toy_records(len(rows), int(rows[0])), f"part-{number}", encoder)
    return writer.commit()


def stage_toys(
    writer: IndexWriter, records: Sequence[AssetRecord], name: str | None = None, encoder: ToyEncoder | None = None
) -> str:
    """Stage records with their toy vectors; one line is rejected per part."""
    views = writer.spec.views_per_asset
    text, images, thumbs = toy_vectors(records, encoder or ToyEncoder(), max(1, views))
    rejected = [{"path": f"bad/{records[0].asset_id}.glb", "reason": "empty"}]
    return writer.write_part(records, text, images if views else None, thumbs, name=name, rejected=rejected)
