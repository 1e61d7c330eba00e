"""From a prompt to aligned 3D assets: search, open, turn the front to +x, and say how far to trust each.

>>> found = retrieve("a blue robot", RetrievalConfig())
>>> [(reference.record.name, reference.reliability) for reference in found.references]
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from threestudio_redream.assets import Asset, load_asset, normalise
from threestudio_redream.retrieval.encoders import open_encoder
from threestudio_redream.retrieval.errors import RetrievalError
from threestudio_redream.retrieval.index.manifest import read_manifest
from threestudio_redream.retrieval.index.reader import Index
from threestudio_redream.retrieval.sources.paths import below
from threestudio_redream.retrieval.types import AssetRecord, Hit, Outcome
from threestudio_redream.shipped import shipped

__all__ = ["Reference", "RetrievalConfig", "Retrieved", "index_folder", "reliability", "retrieve"]

log = logging.getLogger("pytorch_lightning")


@dataclass
class RetrievalConfig:
    """What is looked for, and where.

    Attributes:
        index: folder of an index; a relative one may also lie beside the package. encoder: if the index names one that
            is elsewhere here.
        count: assets (N of the paper). pool: assets that the captions choose (N'). rank: ``mean`` or ``max`` over
            views.
        asset_ids: use these assets of the index instead of searching; their scores are measured all the same.
        asset: a 3D file of your own instead of searching: a scan, or what a feed-forward model made. You chose it, so
            it is trusted whatever its score; its front is looked for unless a sidecar tells. asset_caption: what it
            shows, in its own colours ("a green robot"); else the sidecar's caption, or the file's name.
        source_root: folder of the files, for an index of a folder that holds no copies.
        trust_width: how far above the index's threshold a score must be for full reliability; see :func:`reliability`.
        gate: whether the reliability acts. Without it every asset counts fully, also one that does not resemble the
            prompt: for negative controls.
        cache: folder of downloads for Objaverse indexes; empty is the usual one.
    """

    index: str = "retrieval_index/mini"
    encoder: str = ""
    count: int = 3
    pool: int = 100
    rank: str = "mean"
    asset_ids: tuple[str, ...] = ()
    asset: str = ""
    asset_caption: str = ""
    source_root: str = ""
    trust_width: float = 0.02
    gate: bool = True
    cache: str = ""


@dataclass(frozen=True)
class Reference:
    """A retrieved asset, ready to use.

    Attributes:
        record: its row of the index. score_text, score_image: cosines with the prompt; the latter NaN without views.
        asset: the mesh in the canonical frame, radius 0.5, its front at +x if it is known.
        front_known: whether it was turned; a ball has no front.
        reliability: 0 to 1.
    """

    record: AssetRecord
    score_text: float
    score_image: float
    asset: Asset
    front_known: bool
    reliability: float

    def to_json(self) -> dict[str, Any]:
        """The row of a run's ``retrieved.json``."""
        row = Hit(self.record, self.score_text, self.score_image).to_json()
        return {**row, "front_known": self.front_known, "reliability": round(self.reliability, 4)}


@dataclass(frozen=True)
class Retrieved:
    """Answer to a prompt.

    Attributes:
        content: fingerprint of the index. outcome: ``nothing_similar`` if the best score is below ``threshold``.
        references: best first.
    """

    prompt: str
    index: str
    content: str
    outcome: Outcome
    threshold: float
    references: tuple[Reference, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        rows = [reference.to_json() for reference in self.references]
        values = {"prompt": self.prompt, "index": self.index, "content": self.content, "outcome": self.outcome}
        return {**values, "threshold": self.threshold, "references": rows}


def reliability(score: float, threshold: float, width: float) -> float:
    """Trust in an asset by its score: 0 up to the threshold, 1 from ``width`` above it on, linear between."""
    if not np.isfinite(score):
        return 0.0
    if width <= 0.0:
        return float(score >= threshold)
    return float(np.clip((score - threshold) / width, 0.0, 1.0))


def retrieve(prompt: str, cfg: RetrievalConfig) -> Retrieved:
    """Find, open and align assets for a prompt.

    An asset whose file cannot be used is passed over with a warning, and the next best takes its place.

    Raises:
        RetrievalError: no index there, an asset that it does not hold, no asset whose file can be used, or the gate
            together with ``rank: max``.
        SourceError: ``cfg.asset`` is no 3D file.
    """
    if cfg.asset:
        return _of_file(prompt, cfg)
    if cfg.asset_caption:
        raise RetrievalError("there is no asset to caption", received=cfg.asset_caption, fix="Set retrieval.asset, too")
    if cfg.gate and cfg.rank != "mean":
        raise RetrievalError(
            "the reliability gate is calibrated for the mean over views",
            received=f"rank={cfg.rank}",
            fix="Set retrieval.rank: mean, or retrieval.gate: false",
        )
    folder = index_folder(cfg.index)
    spec = read_manifest(folder).spec
    encoder = open_encoder(cfg.encoder or spec.encoder.name, texts_only=spec.settings.get("source") != "objaverse")
    index = Index.open(folder, encoder)
    files = _Files(index, cfg, encoder)
    wanted = set(cfg.asset_ids)
    for name in cfg.asset_ids:
        index.record(name)  # names one that is not there
    count = len(wanted) if wanted else cfg.count
    result = index.search(
        prompt,
        count if wanted else 2 * count,
        pool=max(cfg.pool, 2 * count),
        rank=cfg.rank,  # type: ignore[arg-type]
        accept=(lambda record: record.asset_id in wanted) if wanted else None,
        view_source=files.views,
    )
    if cfg.gate and not wanted and max(index.threshold(views=True), index.threshold(views=False)) <= -1.0:
        calibration = index.manifest.calibration
        log.warning(
            "The index %s has no threshold (%s): every asset counts as one that fits the prompt. Look at what is "
            "retrieved, or name an asset with retrieval.asset_ids.",
            folder,
            "not calibrated" if calibration is None else calibration.method,
        )
    references: list[Reference] = []
    for hit in result.results:
        if len(references) == count:
            break
        try:
            asset = _aligned(load_asset(files.path(hit.record)), hit.record)
        except (ValueError, OSError) as cause:  # asset and retrieval errors are ValueErrors
            log.warning("Passing over asset %s: %s", hit.record.asset_id, cause)
            continue
        seen = not np.isnan(hit.score_image)
        score = hit.score_image if seen else hit.score_text
        trust = reliability(score, index.threshold(views=seen), cfg.trust_width) if cfg.gate else 1.0
        known = hit.record.front_deg is not None
        references.append(Reference(hit.record, hit.score_text, hit.score_image, asset, known, trust))
    if not references:
        raise RetrievalError(
            "no asset of the index can be used", received=str(folder), fix="See the warnings above for the reasons"
        )
    return Retrieved(prompt, str(folder), index.manifest.content, result.outcome, result.threshold, tuple(references))


def _of_file(prompt: str, cfg: RetrievalConfig) -> Retrieved:
    """The one asset that the user names, by an index of its own that lives as long as this call."""
    from tempfile import TemporaryDirectory

    from threestudio_redream.retrieval.build.run import BuildSettings, SourceSpec, build_index

    if cfg.asset_ids:
        raise RetrievalError(
            "a file and assets of the index are both named",
            received=(cfg.asset, list(cfg.asset_ids)),
            fix="Set one of retrieval.asset and retrieval.asset_ids",
        )
    path = Path(cfg.asset).expanduser().resolve()
    encoder = cfg.encoder or read_manifest(index_folder(cfg.index)).spec.encoder.name
    source = SourceSpec(str(path), caption=cfg.asset_caption)
    source.open()  # says what is wrong with the name before anything is built
    with TemporaryDirectory(prefix="redream-asset-") as folder:
        made = build_index(source, Path(folder) / "index", BuildSettings(encoder=encoder, thumbnails=False))
        if not made["assets"]:
            raise RetrievalError(
                "the file cannot be used as an asset",
                received=str(path),
                fix=f"See why: redream index build {path.name} --out looked-at",
            )
        one = replace(
            cfg,
            asset="",
            asset_caption="",
            index=made["index"],
            encoder=encoder,
            count=1,
            source_root=str(path.parent),
            gate=False,
        )
        found = retrieve(prompt, one)
    return replace(found, index=path.name, outcome="ok")


def index_folder(name: str) -> Path:
    """The folder of an index; ``retrieval_index/mini`` is found from everywhere."""
    return shipped(name)


def _aligned(asset: Asset, record: AssetRecord) -> Asset:
    options = {key: getattr(record, key) for key in ("up", "front") if getattr(record, key)}
    return normalise(asset, yaw_deg=-(record.front_deg or 0.0), **options)


class _Files:
    """Where the files of an index's assets are."""

    def __init__(self, index: Index, cfg: RetrievalConfig, encoder: Any) -> None:
        self.index, self.root = index, cfg.source_root
        spec = index.manifest.spec
        self.views: Any = None
        self._source: Any = None
        if spec.settings.get("source") == "objaverse":
            from threestudio_redream.retrieval.fetching.index_source import source_of_index, views_on_demand

            cache = Path(cfg.cache) if cfg.cache else None
            self._source = source_of_index(spec, cache)
            self.views = views_on_demand(spec, encoder, cache)

    def path(self, record: AssetRecord) -> Path:
        """The file of an asset.

        Raises:
            RetrievalError: it is not in the index and nothing says where it is.
        """
        copy = self.index.asset_path(record)
        if copy is not None:
            return copy
        if self._source is not None:
            return Path(self._source.open(record))
        if self.root and record.path:
            return below(Path(self.root), record.path)
        raise RetrievalError(
            "the index holds no copy of an asset's file",
            received=record.asset_id,
            fix="Set retrieval.source_root to the folder it was built from, or build it with --copy-assets",
        )
