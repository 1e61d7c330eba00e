"""Views of assets that an index knows by their captions only: fetched, rendered and embedded when a query wants them.

>>> index = Index.open("indexes/objaverse", encoder)
>>> views = OnDemandViews(ObjaverseSource(), encoder)
>>> index.search("a red robot", n=3, pool=100, view_source=views)

The first query that meets an asset pays for the download; its vectors are kept in a cache folder.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.errors import RedreamError
from threestudio_redream.retrieval.checks import canonical_json
from threestudio_redream.retrieval.curation.filters import FilterSettings, geometry_problem, render_problem
from threestudio_redream.retrieval.types import AssetRecord, Encoder
from threestudio_redream.retrieval.views import DEFAULT_VIEWS, ViewSpec, open_record, render_views
from threestudio_redream.runtime.files import atomic_path

__all__ = ["OnDemandViews"]

log = logging.getLogger(__name__)


class _Opens(Protocol):
    def open(self, record: AssetRecord) -> Path: ...


class OnDemandViews:
    """A ``view_source`` for :meth:`.index.Index.search`.

    Args:
        source: opens assets, downloading them if it has to. encoder: the one of the index. views: cameras.
        cache: folder for the vectors; None: they are not kept. filters: assets that fail them get no views.
        progress: called with (assets done, assets in all).

    Attributes:
        failures: reasons by asset id, of all calls so far.
    """

    def __init__(
        self,
        source: _Opens,
        encoder: Encoder,
        *,
        views: ViewSpec = DEFAULT_VIEWS,
        cache: str | Path | None = None,
        filters: FilterSettings | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.source, self.encoder, self.views, self.filters = source, encoder, views, filters
        self.progress, self.failures = progress, dict[str, str]()
        key = canonical_json([encoder.fingerprint, views.to_json()])
        self._folder = None if cache is None else Path(cache) / hashlib.sha256(key.encode()).hexdigest()[:16]

    def __call__(self, records: Sequence[AssetRecord]) -> dict[str, NDArray[np.float32]]:
        """``[V, D]`` unit vectors by asset id. What cannot be had is left out, with the reason in ``failures``."""
        found = {}
        for done, record in enumerate(records, start=1):
            vectors = self._cached(record)
            if vectors is None and record.asset_id not in self.failures:
                vectors = self._make(record)
            if vectors is not None:
                found[record.asset_id] = vectors
            self.progress(done, len(records))
        return found

    def _make(self, record: AssetRecord) -> NDArray[np.float32] | None:
        try:
            asset = open_record(self.source.open(record), record)
            problem = geometry_problem(asset, self.filters)
            if problem is None:
                images = render_views(asset, self.views, self.encoder.image_size).images
                problem = render_problem(images, self.views.background, self.filters)
        except (RedreamError, OSError, ArithmeticError, MemoryError) as error:
            problem = str(error)
        if problem is not None:
            log.info("%s has no views: %s", record.asset_id, problem)
            self.failures[record.asset_id] = problem
            return None
        vectors = self.encoder.encode_images(images)
        if self._folder is not None:
            with atomic_path(self._path(record)) as temporary, open(temporary, "wb") as file:
                np.save(file, vectors, allow_pickle=False)
        return vectors

    def _path(self, record: AssetRecord) -> Path:
        name = hashlib.sha256(f"{record.asset_id}\0{record.sha256}".encode()).hexdigest()[:32]
        return Path(self._folder or "") / f"{name}.npy"

    def _cached(self, record: AssetRecord) -> NDArray[np.float32] | None:
        if self._folder is None or not (path := self._path(record)).is_file():
            return None
        shape = (self.views.count, self.encoder.dim)
        try:
            vectors: NDArray[Any] = np.load(path, allow_pickle=False, mmap_mode="r")
            if vectors.shape != shape or vectors.dtype != np.float32:
                raise ValueError(f"its shape is {vectors.shape}")
            vectors = np.array(vectors)
            if not np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3):
                raise ValueError("its rows have no unit length")
        except (OSError, ValueError, EOFError) as error:
            log.warning("The cached vectors %s are of no use and are made again: %s", path.name, error)
            return None
        return vectors
