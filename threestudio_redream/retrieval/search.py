"""The two-stage rule of ReDream: the pool by captions, the ranking by renders.

"Performing Top-K operation with image embeddings after retrieving N' (N' > N) objects with text embeddings" (Seo et
al., ICML 2024, section 4.1). All scores are cosines of unit vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np

from threestudio_redream.retrieval.errors import RetrievalError
from threestudio_redream.retrieval.index.parts import Part
from threestudio_redream.retrieval.types import AssetRecord, Hit

__all__ = [
    "Candidate",
    "Rank",
    "ViewSource",
    "nearest_captions",
    "rank_by_views",
    "rescore",
    "unit_query",
]

Rank = Literal["mean", "max"]
ViewSource = Callable[[Sequence[AssetRecord]], Mapping[str, np.ndarray]]
WIDEN_NUMBERS = 16_000_000  # of all captions; up to 64 MB are kept as float32, and numba is not imported
_SCAN_ERROR = 2e-5  # of the fast scan, with margin
_CHUNK = 4096


@dataclass(slots=True)
class Candidate:
    """A row of a part, and the cosine of the query with its caption."""

    part: Part
    row: int
    score_text: float

    @property
    def record(self) -> AssetRecord:
        """The asset; read from disk once."""
        return self.part.table.records([self.row])[0]


def unit_query(query: np.ndarray, dim: int) -> np.ndarray:
    """A query vector ``[dim]`` as float32 of length one.

    Raises:
        RetrievalError: another shape, zero, or not finite.
    """
    vector = np.asarray(query, np.float64)
    length = np.linalg.norm(vector) if vector.shape == (dim,) else np.nan
    if not (np.isfinite(length) and length > 0):
        raise RetrievalError(
            f"a query must be a finite vector of {dim} numbers and not zero",
            received=f"{list(vector.shape)}, length {length}",
            fix="Encode the text with the encoder of the index",
        )
    return (vector / length).astype(np.float32)


def nearest_captions(
    parts: Sequence[Part], query: np.ndarray, count: int, accept: Callable[[AssetRecord], bool] | None = None
) -> list[Candidate]:
    """The ``count`` acceptable assets with the highest caption cosines, best first; equal scores by asset id.

    Every row is scored in 32-bit arithmetic; all that could be among the best are scored again in 64 bits in a fixed
    order, so the result does not depend on blocks, threads or parts.

    Args:
        query: ``[D]`` unit float32. accept: rows that it refuses are passed over; called for the best rows only.
    """
    widen = sum(part.text.stored.size for part in parts) <= WIDEN_NUMBERS
    scores = [part.text.scores(query, widen=widen) for part in parts]
    total = sum(map(len, scores))
    wanted = count
    while True:
        found = rescore(parts, query, _above(scores, min(wanted, total)), wanted)
        chosen = [candidate for candidate in found if accept is None or accept(candidate.record)]
        if len(chosen) >= count or wanted >= total:
            return chosen[:count]
        wanted *= 4  # the filter took too many


def rescore(parts: Sequence[Part], query: np.ndarray, rows: Iterable[np.ndarray], count: int) -> list[Candidate]:
    """The best ``count`` of some rows of each part, by exact score, then asset id."""
    best: list[Candidate] = []
    for part, chosen in zip(parts, rows):
        chunks = [part.text.cosines(chosen[i : i + _CHUNK], query) for i in range(0, len(chosen), _CHUNK)]
        exact = np.concatenate(chunks) if chunks else np.zeros(0)
        order = np.lexsort((chosen, -exact))[:count]  # rows of a part are sorted by id
        best += [Candidate(part, int(chosen[i]), float(exact[i])) for i in order]
    return _best_first([(candidate.score_text, candidate) for candidate in best], count)


def _view_score(cosines: np.ndarray, rank: Rank) -> float:
    """Score of an asset from the cosines ``[V]`` of the query with its views: their mean, or the largest."""
    return float(cosines.mean() if rank == "mean" else cosines.max())


def rank_by_views(
    candidates: Sequence[Candidate],
    query: np.ndarray,
    rank: Rank = "mean",
    view_source: ViewSource | None = None,
    n: int | None = None,
) -> list[Hit]:
    """The best ``n`` of a pool by their views; assets without views follow, by caption. Equal scores by asset id.

    Args:
        view_source: gives the unit view vectors ``[V, D]`` of assets whose views the index does not hold, by id; what
            it leaves out stays without views. n: None for all.

    Raises:
        RetrievalError: ``rank`` is neither ``mean`` nor ``max``, or the view source gives something else.
    """
    if rank not in ("mean", "max"):
        raise RetrievalError("views cannot be ranked in this way", received=rank, fix="Use mean or max")
    count = len(candidates) if n is None else n
    bare = [candidate for candidate in candidates if candidate.part.views is None]
    seen = [
        (_view_score(candidate.part.views.cosines(np.array([candidate.row]), query)[0], rank), candidate)
        for candidate in _shortlist(candidates, query, rank, count)
        if candidate.part.views is not None
    ]
    if view_source and bare:
        supplied = dict(view_source([candidate.record for candidate in bare]))
        named = [(candidate.record.asset_id, candidate) for candidate in bare]
        for name, candidate in named:
            if name in supplied:
                seen.append((_view_score(_supplied_cosines(supplied[name], query, name), rank), candidate))
        bare = [candidate for name, candidate in named if name not in supplied]
    hits = [Hit(found.record, found.score_text, score) for score, found in _sorted(seen, count)]
    rest = _sorted([(candidate.score_text, candidate) for candidate in bare], count - len(hits))
    return hits + [Hit(found.record, found.score_text, np.nan) for _, found in rest]


def _shortlist(candidates: Sequence[Candidate], query: np.ndarray, rank: Rank, count: int) -> list[Candidate]:
    """The candidates with views that may be among the best ``count`` of those, by scores in 32-bit arithmetic."""
    parts = {id(candidate.part): candidate.part for candidate in candidates if candidate.part.views is not None}
    widen = sum(part.views.stored.size for part in parts.values() if part.views) <= WIDEN_NUMBERS
    members: list[Candidate] = []
    quick: list[np.ndarray] = []
    for part in parts.values():
        own = [candidate for candidate in candidates if candidate.part is part]
        if part.views is not None:
            cosines = part.views.quick_cosines(np.array([candidate.row for candidate in own]), query, widen=widen)
            quick.append(cosines.mean(1) if rank == "mean" else cosines.max(1))
            members += own
    chosen = _above(quick, min(count, len(members)))
    starts = np.cumsum([0, *map(len, quick)])
    return [members[start + row] for start, rows in zip(starts, chosen) for row in rows]


def _best_first(scored: list[tuple[float, Candidate]], count: int) -> list[Candidate]:
    return [candidate for _, candidate in _sorted(scored, count)]


def _sorted(scored: list[tuple[float, Candidate]], count: int) -> list[tuple[float, Candidate]]:
    """The best ``count``; records are read for equal scores only."""
    scored = sorted(scored, key=lambda item: -item[0])
    found: list[tuple[float, Candidate]] = []
    for _, equal in groupby(scored, key=lambda item: item[0]):
        if len(found) >= count:
            break
        run = list(equal)
        if len(run) == 1:
            found += run
            continue
        if len({id(candidate.part) for _, candidate in run}) == 1:
            run.sort(key=lambda item: item[1].row)
        else:
            run.sort(key=lambda item: item[1].record.asset_id)
        found += run
    return found[: max(0, count)]


def _supplied_cosines(views: np.ndarray, query: np.ndarray, name: str) -> np.ndarray:
    array = np.asarray(views, np.float64)
    if array.ndim != 2 or array.shape[1] != len(query) or not len(array) or not np.isfinite(array).all():
        raise RetrievalError(
            f"the view source gave no vectors [views, {len(query)}] for {name}",
            received=list(array.shape),
            fix="Leave assets out that could not be rendered",
        )
    return np.clip((array * query.astype(np.float64)).sum(-1), -1.0, 1.0)


def _above(scores: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """Rows of each part that could be among the best ``count``, given the error of the scan."""
    if not count:
        return [np.zeros(0, np.int64) for _ in scores]
    joined = np.concatenate(scores)
    bound = np.partition(joined, len(joined) - count)[len(joined) - count] - _SCAN_ERROR
    # A NaN comes from a damaged vector: it is kept, and refused when it is scored exactly.
    return [np.flatnonzero(~(part < bound)) for part in scores]
