"""What the parts of retrieval hand to each other: asset records, encoders, hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["AssetRecord", "Encoder", "Hit", "Outcome", "SearchResult"]

Float = NDArray[np.float32]
Outcome = Literal["ok", "nothing_similar"]


@dataclass(frozen=True)
class AssetRecord:
    """One row of an index: everything known about an asset but its vectors.

    Attributes:
        asset_id: unique in the index, made of letters, digits, ``.``, ``_`` and ``-``; at most 128 characters.
        name: for people. caption: what the text embedding was made of.
        caption_source: ``sidecar``, ``csv``, ``cap3d``, or ``name`` (derived from the file name).
        author, licence, licence_url, source_url: as stated by the library; empty if unknown. Licences are SPDX ids
            where they can be mapped to one.
        path: of the file below the source's root, with forward slashes; never absolute, never with ``..``. Empty for
            assets that are fetched on demand.
        sha256, n_bytes: of that file; empty and 0 while it has not been fetched.
        n_faces: triangles; 0 while unknown.
        up, front: axes of the file (``+y``, ``+z``, ...) or empty for the rule of its format.
        front_deg: where the front is after normalisation, degrees from +x; None if unknown or if there is none.
        front_source: ``sidecar``, ``clip`` or ``unknown``.
        tags: free words.
    """

    asset_id: str
    name: str
    caption: str
    caption_source: str = "name"
    author: str = ""
    licence: str = ""
    licence_url: str = ""
    source_url: str = ""
    path: str = ""
    sha256: str = ""
    n_bytes: int = 0
    n_faces: int = 0
    up: str = ""
    front: str = ""
    front_deg: float | None = None
    front_source: str = "unknown"
    tags: tuple[str, ...] = ()


class Encoder(Protocol):
    """A CLIP-like model with its own preprocessing.

    Attributes:
        name: as the user wrote it, e.g. ``hf:openai/clip-vit-large-patch14`` or ``mini``.
        dim: length of an embedding.
        image_size: pixels of the square images it wants.
        fingerprint: hex digest that changes with weights, tokenizer or preprocessing.
        preprocessing: JSON-able description (size, crop, interpolation, mean, std), stored in an index.
    """

    name: str
    dim: int
    image_size: int
    fingerprint: str
    preprocessing: dict[str, Any]

    def encode_texts(self, texts: Sequence[str]) -> Float:
        """``[N, dim]`` float32 unit vectors."""

    def encode_images(self, images: Float) -> Float:
        """``[N, dim]`` float32 unit vectors of images ``[N, H, W, 3]`` in [0, 1], sRGB-encoded."""


@dataclass(frozen=True)
class Hit:
    """One asset that was found.

    Attributes:
        score_text: cosine between query and caption. score_image: cosine between query and the asset's views, by which
            hits are ranked; NaN if it has no views.
    """

    record: AssetRecord
    score_text: float
    score_image: float

    def to_json(self) -> dict[str, Any]:
        """The row that ``redream search --json`` prints."""
        record = self.record
        return {
            "asset_id": record.asset_id,
            "name": record.name,
            "caption": record.caption,
            "score_text": round(self.score_text, 6),
            "score_image": None if np.isnan(self.score_image) else round(self.score_image, 6),
            "licence": record.licence,
            "author": record.author,
            "front_deg": record.front_deg,
            "path": record.path,
        }


@dataclass(frozen=True)
class SearchResult:
    """Answer to a query.

    Attributes:
        index: folder of the index. took_ms: of the search, without loading. outcome: ``nothing_similar`` if the best
            score is below ``threshold``; the hits are given all the same.
    """

    query: str
    index: str
    took_ms: float
    results: tuple[Hit, ...]
    outcome: Outcome
    threshold: float
    timings_ms: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        return {
            "query": self.query,
            "index": self.index,
            "took_ms": round(self.took_ms, 3),
            "results": [hit.to_json() for hit in self.results],
            "outcome": self.outcome,
            "threshold": self.threshold,
        }


def record_to_json(record: AssetRecord) -> dict[str, Any]:
    """All fields as plain values."""
    return {**asdict(record), "tags": list(record.tags)}
