"""Reading an index: open, look at and search it.

>>> index = Index.open("retrieval_index/mini", encoder)
>>> for hit in index.search("a red robot", n=3).results:
...     hit.record.name, hit.score_text, hit.score_image
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from threestudio_redream.retrieval.checks import Document
from threestudio_redream.retrieval.errors import IndexDamagedError, RetrievalError
from threestudio_redream.retrieval.index.integrity import Check, check_files
from threestudio_redream.retrieval.index.manifest import Manifest, read_manifest
from threestudio_redream.retrieval.index.parts import Part
from threestudio_redream.retrieval.index.staging import asset_id_of_copy
from threestudio_redream.retrieval.search import (
    Candidate,
    Rank,
    ViewSource,
    nearest_captions,
    rank_by_views,
    rescore,
    unit_query,
)
from threestudio_redream.retrieval.types import AssetRecord, Encoder, Hit, Outcome, SearchResult

__all__ = ["Index"]

_EAGER_ROWS = 50_000  # tables of larger indexes are opened when a row of them is read
_ATTEMPTS = 10  # an index that is rewritten while it is opened is opened anew


class Index:
    """A read-only view of one generation of an index; make it with :meth:`open`.

    It stays usable, and the same, while the index is being rewritten. ``len(index)`` is the number of assets.

    Attributes:
        folder: of the index. manifest: what it consists of. parts: its rows, mapped into memory.
    """

    def __init__(self, folder: Path, manifest: Manifest, encoder: Encoder | None = None) -> None:
        self.folder, self.manifest, self.encoder = folder, manifest, encoder
        self.parts = tuple(Part(folder, entry, manifest.spec) for entry in manifest.parts)
        self._copies = {asset_id_of_copy(name): entry for name, entry in manifest.assets.items()}
        self._places: dict[str, tuple[Part, int]] | None = None
        self._ann: Any = None

    @classmethod
    def open(cls, folder: str | Path, encoder: Encoder | None = None, *, check: Check = "auto") -> Index:
        """Open an index.

        Args:
            encoder: for text queries; it must be the one that made the index.
            check: ``auto`` reads every byte of an index of up to 64 MiB and some blocks of each file of a larger one;
                ``full`` reads every byte; ``quick`` compares lengths.

        Raises:
            RetrievalError: the folder holds no index.
            IndexDamagedError: a file is missing, changed, swapped, malformed, or does not belong to it; it is named.
            IndexMismatchError: another encoder, preprocessing, or other weights made the vectors.
        """
        folder = Path(folder)
        for attempt in range(_ATTEMPTS):
            manifest = read_manifest(folder)
            try:
                check_files(folder, manifest, check)
                index = cls(folder, manifest)
                if len(index) <= _EAGER_ROWS:
                    for part in index.parts:
                        _ = part.table.file
                break
            except IndexDamagedError:
                # A writer may have switched the manifest since it was read, and taken old files away.
                if attempt == _ATTEMPTS - 1 or read_manifest(folder).generation == manifest.generation:
                    raise
        if encoder is not None:
            manifest.spec.require_encoder(encoder)
            index.encoder = encoder
        return index

    def __len__(self) -> int:
        return self.manifest.rows

    def records(self) -> Iterator[AssetRecord]:
        """All assets, part by part, by id within a part. Raises IndexDamagedError for a row that is no asset."""
        for part in self.parts:
            yield from part.table

    def record(self, asset_id: str) -> AssetRecord:
        """One asset. Raises RetrievalError if the index does not have it."""
        part, row = self._place(asset_id)
        return part.table.records([row])[0]

    def text_vector(self, asset_id: str) -> np.ndarray:
        """The caption vector ``[D]`` of an asset, float32. Raises RetrievalError for an unknown id."""
        part, row = self._place(asset_id)
        return part.text.row(row)

    def view_vectors(self, asset_id: str) -> np.ndarray | None:
        """The view vectors ``[V, D]`` of an asset, float32; None if the index holds none of it."""
        part, row = self._place(asset_id)
        return None if part.views is None else part.views.row(row)

    def thumb(self, asset_id: str) -> np.ndarray | None:
        """The thumbnail ``[64, 64, 3]`` uint8 of an asset; None if the index holds none of it."""
        part, row = self._place(asset_id)
        return None if part.thumbs is None else np.array(part.thumbs[row])

    def asset_path(self, record: AssetRecord) -> Path | None:
        """The copy of an asset's file in the index; None if it holds none."""
        entry = self._copies.get(record.asset_id)
        return self.folder / entry.path if entry else None

    def rejected(self) -> Iterator[dict[str, Any]]:
        """What was refused while the index was built, and why."""
        entry = self.manifest.rejected
        if entry is None:
            return
        with open(self.folder / entry.path, "rb") as file:
            for line in file.read(entry.n_bytes).split(b"\n")[:-1]:
                yield dict(Document.read(line, entry.path).values)

    def search(
        self,
        query: str | np.ndarray,
        n: int = 3,
        *,
        pool: int = 100,
        rank: Rank = "mean",
        accept: Callable[[AssetRecord], bool] | None = None,
        view_source: ViewSource | None = None,
        approximate: bool = False,
    ) -> SearchResult:
        """Find the assets that a prompt describes.

        The ``pool`` assets whose captions are nearest are ranked by the cosines of the query with their views.

        Args:
            query: a prompt, or its vector ``[D]``. n: number of hits. pool: N' of the paper; at least ``n`` is used.
            rank: by the ``mean`` over the views (the paper's reading), or by the ``max``.
            accept: e.g. a licence filter; what it refuses neither fills the pool nor is a hit.
            view_source: embeds views of assets that have none in the index; see :func:`~.search.rank_by_views`.
            approximate: take the pool from the approximate index, see :mod:`.ann`.

        Returns:
            At most ``n`` hits. ``outcome`` is ``nothing_similar`` if there are none, or if the best scores less than
            the threshold of the calibration, which is made for ``mean``; without a calibration the threshold is -1.

        Raises:
            RetrievalError: a text query without an encoder, an unusable vector, ``n`` or ``pool`` below 1.
        """
        started = time.perf_counter()
        if n < 1 or pool < 1:
            raise RetrievalError("a search must ask for one asset at least", received=(n, pool), fix="Raise n and pool")
        vector = unit_query(self._encode(query) if isinstance(query, str) else query, self.manifest.spec.encoder.dim)
        encoded = time.perf_counter()
        candidates = self._pool(vector, max(n, pool), accept, approximate)
        pooled = time.perf_counter()
        hits = rank_by_views(candidates, vector, rank, view_source, n)
        ended = time.perf_counter()
        outcome, threshold = self._judge(hits)
        return SearchResult(
            query=query if isinstance(query, str) else "",
            index=str(self.folder),
            took_ms=(ended - started) * 1e3,
            results=tuple(hits),
            outcome=outcome,
            threshold=threshold,
            timings_ms={
                "encode": (encoded - started) * 1e3,
                "captions": (pooled - encoded) * 1e3,
                "views": (ended - pooled) * 1e3,
            },
        )

    def info(self) -> dict[str, Any]:
        """What ``redream index info`` shows: plain values."""
        manifest, spec = self.manifest, self.manifest.spec
        ann = manifest.ann
        return {
            "folder": str(self.folder),
            "generation": manifest.generation,
            "content": manifest.content,
            "assets": len(self),
            "assets_with_views": sum(part.entry.rows for part in self.parts if part.views is not None),
            "rejected": manifest.n_rejected,
            "parts": len(self.parts),
            "copied_files": len(manifest.assets),
            "bytes": sum(entry.n_bytes for entry in manifest.entries()),
            **{key: value for key, value in spec.to_json().items() if key != "probe"},
            "calibration": manifest.calibration.to_json() if manifest.calibration else None,
            "ann": {"kind": ann.kind, "params": ann.params, "recall": ann.recall} if ann else None,
        }

    def _encode(self, text: str) -> np.ndarray:
        if self.encoder is None:
            raise RetrievalError(
                "a text query needs the encoder of the index",
                received=text,
                fix=f"Open the index with the encoder {self.manifest.spec.encoder.name!r}",
            )
        return np.asarray(self.encoder.encode_texts([text]))[0]

    def _pool(
        self, vector: np.ndarray, count: int, accept: Callable[[AssetRecord], bool] | None, approximate: bool
    ) -> list[Candidate]:
        if not approximate:
            return nearest_captions(self.parts, vector, count, accept)
        if self._ann is None:
            from threestudio_redream.retrieval.index.ann import open_ann

            self._ann = open_ann(self)
        wanted = count if accept is None else 2 * count
        rows = np.sort(self._ann.nearest(vector, wanted))
        ends = np.cumsum([part.entry.rows for part in self.parts])
        chosen = [rows[(rows >= end - part.entry.rows) & (rows < end)] for part, end in zip(self.parts, ends)]
        local = [rows - (end - part.entry.rows) for rows, part, end in zip(chosen, self.parts, ends)]
        found = rescore(self.parts, vector, local, wanted)
        return [candidate for candidate in found if accept is None or accept(candidate.record)][:count]

    def threshold(self, *, views: bool) -> float:
        """Score from which on something is similar: of renders (their mean), or of captions. -1 if not calibrated."""
        calibration = self.manifest.calibration
        limit = None if calibration is None else calibration.image if views else calibration.text
        return -1.0 if limit is None else limit

    def _judge(self, hits: list[Hit]) -> tuple[Outcome, float]:
        if not hits:
            return "nothing_similar", -1.0
        has_views = not np.isnan(hits[0].score_image)
        score = hits[0].score_image if has_views else max(h.score_text for h in hits)
        threshold = self.threshold(views=has_views)
        return ("ok" if score >= threshold else "nothing_similar"), threshold

    def _place(self, asset_id: str) -> tuple[Part, int]:
        if self._places is None:
            self._places = {name: (part, row) for part in self.parts for row, name in enumerate(part.table.ids())}
        if asset_id not in self._places:
            raise RetrievalError(
                "the index has no asset of this id", received=asset_id, fix="Index.records() gives all assets"
            )
        return self._places[asset_id]
