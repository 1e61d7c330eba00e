"""When is the best hit not similar enough? A threshold from the index's own data.

Two kinds of queries are searched: captions of the index itself, for which something similar is there, and prompts
about things that no library of 3D objects shows. The threshold is the score that tells their best hits apart with
the highest balanced accuracy, in the middle of the gap if there is one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from threestudio_redream.retrieval.index.reader import Index
from threestudio_redream.retrieval.index.spec import Calibration
from threestudio_redream.retrieval.search import nearest_captions, rank_by_views, unit_query
from threestudio_redream.retrieval.types import AssetRecord, Encoder

__all__ = ["FOREIGN_PROMPTS", "best_threshold", "calibrate"]

FOREIGN_PROMPTS = (
    "the terms of a rental contract",
    "a melody in a minor key",
    "quarterly earnings of a bank",
    "the smell of rain on warm asphalt",
    "a proof that there are infinitely many primes",
    "election results by county",
    "an apology to an old friend",
    "the exchange rate of two currencies",
    "advice on learning a language",
    "satellite view of a river delta",
    "a page of handwritten notes",
    "an x-ray of a broken wrist",
    "the history of a small republic",
    "a crowd in a football stadium at night",
    "a joke about two economists",
    "fog over a mountain valley at dawn",
    "source code of a sorting algorithm",
    "how to file a tax return",
    "a stormy sea at dusk",
    "the rules of a card game",
    "a weather forecast for the weekend",
    "minutes of a town meeting",
    "the northern lights above a forest",
    "a feeling of homesickness",
    "lyrics of a lullaby",
    "a microscope slide of plant cells",
    "a street map of an old city",
    "the timetable of a night train",
    "an argument about free will",
    "a wedding party on a beach",
    "a recipe with too much salt",
    "a dream about falling",
)
_MOST = 256  # captions that are searched


def calibrate(
    index: Index, encoder: Encoder, *, foreign: Sequence[str] = FOREIGN_PROMPTS, pool: int = 100, seed: int = 0
) -> Calibration:
    """Choose the thresholds of an index for its captions and, if it has them, its views.

    Both are learnt from what captions find **besides their own asset**: a prompt hardly ever describes an asset of the
    library exactly, and a blue robot should be found for want of a red one.

    Args:
        encoder: of the index. foreign: prompts about nothing that the index has; replace them if your library does
            have such things. pool: as in :meth:`.index.Index.search`. seed: of the choice of captions.

    Returns:
        Thresholds of None where the data do not tell: fewer than two assets, no foreign prompts, or queries that
        score no better than chance.
    """
    index.manifest.spec.require_encoder(encoder)
    captions = [record.caption for record in _sample(index, seed)]
    if len(index) < 2 or not foreign:
        return Calibration(method="not calibrated: too few assets or prompts")
    similar = _best_scores(index, np.asarray(encoder.encode_texts(captions)), pool, itself=True)
    strange = _best_scores(index, np.asarray(encoder.encode_texts(list(foreign))), pool, itself=False)
    text, text_accuracy = best_threshold(similar[:, 0], strange[:, 0])
    image, image_accuracy = best_threshold(similar[:, 1], strange[:, 1])
    used = image_accuracy if image is not None else text_accuracy
    method = f"captions of the index against {len(foreign)} foreign prompts, balanced accuracy, pool {pool}"
    return Calibration(text, image, round(used, 4), len(captions), len(foreign), method)


def best_threshold(similar: np.ndarray, strange: np.ndarray) -> tuple[float | None, float]:
    """The score that separates two samples with the highest balanced accuracy.

    Args:
        similar, strange: scores; NaN are left out. A query counts as similar at or above the threshold.

    Returns:
        (threshold, balanced accuracy); the threshold is None if a sample is empty or nothing beats guessing. Among
        equally good thresholds the middle one, rounded down to 1e-4.
    """
    similar, strange = (np.sort(values[~np.isnan(values)]) for values in (similar, strange))
    if not len(similar) or not len(strange):
        return None, 0.5
    values = np.unique(np.concatenate([similar, strange]))
    cuts = np.concatenate([[values[0] - 0.01], (values[1:] + values[:-1]) / 2, [values[-1] + 0.01]])
    kept = 1.0 - np.searchsorted(similar, cuts) / len(similar)
    refused = np.searchsorted(strange, cuts) / len(strange)
    accuracy = (kept + refused) / 2
    best = np.flatnonzero(accuracy >= accuracy.max() - 1e-12)
    if accuracy.max() <= 0.5 + 1e-12:
        return None, 0.5
    threshold = np.clip(cuts[best[len(best) // 2]], -1.0, 1.0)
    return float(np.floor(threshold * 1e4) / 1e4), float(accuracy.max())


def _sample(index: Index, seed: int) -> list[AssetRecord]:
    rows = np.sort(np.random.default_rng(seed).permutation(len(index))[:_MOST])
    records: list[AssetRecord] = []
    start = 0
    for part in index.parts:
        end = start + part.entry.rows
        records += part.table.records(rows[(rows >= start) & (rows < end)] - start)
        start = end
    return records


def _best_scores(index: Index, queries: np.ndarray, pool: int, *, itself: bool) -> np.ndarray:
    """Best caption and view cosine of each query ``[Q, 2]``; ``itself``: captions equal to the query do not count."""
    scores = np.full((len(queries), 2), np.nan)
    for i, query in enumerate(queries):
        vector = unit_query(query, index.manifest.spec.encoder.dim)
        candidates = nearest_captions(index.parts, vector, pool)
        others = [c for c in candidates if not (itself and c.score_text > 0.9999)]
        scores[i, 0] = max((c.score_text for c in others), default=np.nan)
        scores[i, 1] = max((hit.score_image for hit in rank_by_views(others, vector, n=1)), default=np.nan)
    return scores
