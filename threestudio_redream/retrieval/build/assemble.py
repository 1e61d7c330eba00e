"""Last step of a build: drop near-duplicates, write the parts, switch the index, calibrate it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.errors import RedreamError
from threestudio_redream.retrieval.build.plan import BuildSettings, Chunk, Plan, read_lines, record_from_json
from threestudio_redream.retrieval.curation.duplicates import near_duplicates
from threestudio_redream.retrieval.encoders import open_encoder
from threestudio_redream.retrieval.errors import RetrievalError
from threestudio_redream.retrieval.index.journal import STAGING, delete
from threestudio_redream.retrieval.index.manifest import MANIFEST, IndexSpec, Manifest, read_manifest
from threestudio_redream.retrieval.index.writer import IndexWriter
from threestudio_redream.retrieval.sources import Rejection
from threestudio_redream.retrieval.types import AssetRecord, Encoder

__all__ = ["assemble", "spec_of"]

log = logging.getLogger(__name__)

PART_ROWS = 4096
_WHOLE = (".glb", ".stl", ".ply", ".off", ".zip")  # one file is the whole asset


def spec_of(encoder: Encoder, settings: BuildSettings, about: dict[str, Any] | None = None) -> IndexSpec:
    """What an index with these settings says about its vectors."""
    return IndexSpec.of(
        encoder,
        views_per_asset=settings.views.count if settings.views else 0,
        cameras=settings.views.to_json() if settings.views else {},
        dtype=settings.dtype,
        settings=about or {},
    )


def assemble(plan: Plan, out: Path) -> tuple[Manifest, int, list[dict[str, Any]]]:
    """Put the finished chunks of a plan into the index.

    Returns:
        The manifest, the number of assets added or replaced, and what was refused.

    Raises:
        RetrievalError: chunks are missing. IndexBusyError: another process writes to the index.
    """
    missing = [chunk for chunk in plan.chunks if not plan.is_done(chunk)]
    if missing:
        raise RetrievalError(
            f"{len(missing)} of {len(plan.chunks)} chunks are not done yet",
            received=[chunk.key for chunk in missing[:3]],
            fix="Run the steps render and embed for all shards first; what is done is not done again.",
        )
    settings = plan.settings
    encoder = open_encoder(settings.encoder, texts_only=True)
    about = {"source": plan.open_source().name, **_about(settings)}
    chunks = [_Finished(plan, chunk) for chunk in plan.chunks]
    dropped = _duplicates(chunks, out, settings.duplicate_cosine)
    refused = plan.read_refused() + [row for chunk in chunks for row in chunk.rejected] + list(dropped.values())
    added = sum(chunk.count for chunk in chunks) - len(dropped)
    exists = (out / MANIFEST).is_file()
    if not exists or added:
        _write(plan, out, IndexWriter(out, spec_of(encoder, settings, about)), chunks, dropped, refused)
    if exists is False or read_manifest(out).calibration is None:
        _calibrate(out, encoder)
    return read_manifest(out), added, refused


class _Finished:
    """A finished chunk, on disk: the rows of a large library do not fit into memory."""

    def __init__(self, plan: Plan, chunk: Chunk) -> None:
        self.folder = plan.chunk_folder(chunk)
        self.rejected = read_lines(self.folder / "rejected.jsonl")
        self.count = chunk.rows - len(self.rejected)

    @property
    def rows(self) -> list[AssetRecord]:
        """Its assets."""
        return [record_from_json(row) for row in read_lines(self.folder / "rows.jsonl")]

    def array(self, name: str) -> NDArray[Any] | None:
        """``text``, ``views`` or ``thumbs``."""
        path = self.folder / f"{name}.npy"
        return np.load(path, allow_pickle=False) if path.is_file() else None


def _duplicates(chunks: list[_Finished], out: Path, threshold: float) -> dict[str, dict[str, Any]]:
    """Assets that look like an earlier one, or like one that the index has, by id, with the reason."""
    means: list[NDArray[np.float32]] = []
    names: list[str] = []
    for chunk in chunks:
        if (views := chunk.array("views")) is not None:
            means.append(views.mean(axis=1))
            names += [row.asset_id for row in chunk.rows]
    if not means:
        return {}
    old_names, old = _existing(out, set(names))
    names = old_names + names
    pairs = near_duplicates(np.concatenate([*old, *means]), threshold)
    return {
        names[row]: Rejection(names[row], "duplicate", f"its views are those of {names[kept]}").to_json()
        for row, kept in pairs
        if row >= len(old_names)
    }


def _existing(out: Path, replaced: set[str]) -> tuple[list[str], list[NDArray[np.float32]]]:
    """Ids and mean views of the assets that the index has and keeps."""
    if not (out / MANIFEST).is_file():
        return [], []
    from threestudio_redream.retrieval.index.reader import Index

    index, names, means = Index.open(out), [], []
    for record in index.records():
        views = None if record.asset_id in replaced else index.view_vectors(record.asset_id)
        if views is not None:
            names.append(record.asset_id)
            means.append(np.asarray(views, np.float32).mean(axis=0, keepdims=True))
    return names, means


def _write(
    plan: Plan,
    out: Path,
    writer: IndexWriter,
    chunks: list[_Finished],
    dropped: dict[str, dict[str, Any]],
    refused: list[dict[str, Any]],
) -> None:
    per_part = max(1, PART_ROWS // plan.settings.chunk_size)
    groups = [chunks[start : start + per_part] for start in range(0, len(chunks), per_part)] or [[]]
    names = [f"{number:05d}-{plan.identity[:24]}" for number in range(len(groups))]
    staged = set(writer.staged())
    for name in staged - set(names):  # of a build with other settings that was given up
        delete(out / STAGING / "parts" / name)
    source = plan.open_source()
    for number, (name, group) in enumerate(zip(names, groups)):
        if name in staged:
            continue
        members = [chunk.rows for chunk in group]
        keep = [np.array([row.asset_id not in dropped for row in part], bool) for part in members]
        rows = [row for part in members for row in part if row.asset_id not in dropped]
        arrays = {kind: _gather(group, keep, kind) for kind in ("text", "views", "thumbs")}
        text = arrays["text"] if arrays["text"] is not None else np.zeros((0, writer.spec.encoder.dim), np.float32)
        copies = {}
        if plan.settings.copy_assets:
            copies = {row.asset_id: source.open(row) for row in rows if Path(row.path).suffix.lower() in _WHOLE}
        writer.write_part(
            rows,
            text,
            arrays["views"],
            arrays["thumbs"],
            name=name,
            rejected=refused if number == 0 else (),
            assets=copies,
        )
    writer.commit("replace", wait_s=60.0)


def _gather(group: list[_Finished], keep: list[NDArray[np.bool_]], kind: str) -> NDArray[Any] | None:
    arrays = [(chunk.array(kind), mask) for chunk, mask in zip(group, keep)]
    found = [array[mask] for array, mask in arrays if array is not None and mask.any()]
    return np.concatenate(found) if found else None


def _about(settings: BuildSettings) -> dict[str, Any]:
    """Settings that a reader of the index may want to know; names and numbers, no paths."""
    values = settings.to_json()
    return {key: values[key] for key in ("precision", "align", "filters", "licences")}


def _calibrate(out: Path, encoder: Encoder) -> None:
    """Find the threshold of "nothing similar"; an index works without."""
    from threestudio_redream.retrieval.index.calibration import calibrate
    from threestudio_redream.retrieval.index.reader import Index

    index = Index.open(out)
    if not len(index):
        return
    try:
        IndexWriter(out).set_calibration(calibrate(index, encoder), wait_s=60.0)
    except RedreamError as error:
        log.warning("The threshold of 'nothing similar' could not be set: %s", error)
