"""The two steps of a build that cost time, chunk by chunk: render, embed. Any number of processes may run them."""

from __future__ import annotations

import functools
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.errors import MissingExtraError, RedreamError
from threestudio_redream.retrieval.build.plan import (
    Chunk,
    Plan,
    folder_in_place,
    read_lines,
    record_from_json,
    write_lines,
)
from threestudio_redream.retrieval.curation.filters import geometry_problem, render_problem
from threestudio_redream.retrieval.encoders import open_encoder
from threestudio_redream.retrieval.orientation import ALIGN_VIEWS, ClipAligner
from threestudio_redream.retrieval.sources import Rejection, Source
from threestudio_redream.retrieval.types import AssetRecord, Encoder, record_to_json
from threestudio_redream.retrieval.views import open_record, render_sets, thumbnail
from threestudio_redream.runtime.threads import torch_threads

__all__ = ["BLAME", "load_blame", "render_asset_views", "run_shard"]

log = logging.getLogger(__name__)

Bytes = NDArray[np.uint8]
#: Counts how often a worker died while it worked on an asset.
BLAME = "blame.json"
_MAX_DEATHS = 2


def run_shard(
    folder: str, shard: int, num_shards: int, steps: Sequence[str] = ("render", "embed"), threads: int = 1
) -> int:
    """Do the chunks ``shard``, ``shard + num_shards``, ... of a plan; returns how many it did.

    Chunks that are finished are passed over, so a shard can be repeated after any interruption.

    Args:
        folder: the work folder. threads: of torch; the last bits of an embedding can depend on it.
    """
    plan = Plan.load(Path(folder))
    source, done = plan.open_source(), 0
    with torch_threads(threads):
        for chunk in plan.chunks[shard::num_shards]:
            if plan.is_done(chunk):
                continue
            if "render" in steps and not plan.renders_folder(chunk).is_dir():
                render_chunk(plan, chunk, source)
            if "embed" in steps and plan.renders_folder(chunk).is_dir():
                embed_chunk(plan, chunk)
                shutil.rmtree(plan.renders_folder(chunk), ignore_errors=True)
            done += 1
    return done


def render_chunk(plan: Plan, chunk: Chunk, source: Source) -> None:
    """Open, check and render the assets of a chunk; pictures are kept as bytes.

    Writes ``rows.jsonl``, ``rejected.jsonl``, ``views.npy [R, V, S, S, 3]`` and, for the assets whose front has to be
    found, ``align.npy [A, M, S, S, 3]`` with their rows in ``align.json``.
    """
    rows: list[AssetRecord] = []
    rejected: list[dict[str, Any]] = []
    views: list[Bytes] = []
    align: dict[int, Bytes] = {}
    blame, trying = load_blame(plan.folder), plan.trying_file(chunk)
    for record in plan.read_chunk(chunk):
        if blame.get(record.asset_id, 0) >= _MAX_DEATHS:
            reason = f"the process died {blame[record.asset_id]} times while it worked on this asset"
            rejected.append(_rejection(record, "load", reason))
            continue
        trying.parent.mkdir(parents=True, exist_ok=True)
        trying.write_text(record.asset_id, encoding="utf-8")
        found = _render_safely(plan, source, record)
        if isinstance(found, dict):
            rejected.append(found)
            continue
        record, pictures, around = found
        if pictures is not None:
            views.append(pictures)
        if around is not None:
            align[len(rows)] = around
        rows.append(record)
    with folder_in_place(plan.renders_folder(chunk)) as folder:
        _write_rows(folder, rows, rejected)
        if plan.settings.views is not None and views:
            _save(folder / "views.npy", np.stack(views))
        if align:
            _save(folder / "align.npy", np.stack(list(align.values())))
            (folder / "align.json").write_text(json.dumps(list(align)), encoding="utf-8")
    trying.unlink(missing_ok=True)


def render_asset_views(
    path: Path, record: AssetRecord, plan: Plan
) -> tuple[AssetRecord, Bytes | None, Bytes | None] | str:
    """One asset: its record with what was found out, its pictures, and those for its orientation; or why not.

    Raises:
        AssetError: the file cannot be used.
    """
    settings = plan.settings
    asset = open_record(path, record)
    if problem := geometry_problem(asset, settings.filters):
        return problem
    record = replace(
        record,
        n_faces=len(asset.faces),
        sha256=record.sha256 or asset.sha256 or "",
        n_bytes=record.n_bytes or path.stat().st_size,
    )
    if record.front_source == "sidecar" and record.front and record.front_deg is None:
        record = replace(record, front_deg=0.0)  # normalising by that axis brings it to +x
    if settings.views is None:
        return record, None, None
    to_align = settings.align and record.front_source != "sidecar"
    specs = (settings.views, ALIGN_VIEWS) if to_align else (settings.views,)
    sets = render_sets(asset, specs, plan.image_size)
    if problem := render_problem(sets[0].images, settings.views.background, settings.filters):
        return problem
    pictures = [np.rint(views.images * 255.0).astype(np.uint8) for views in sets]
    return record, pictures[0], pictures[1] if to_align else None


def embed_chunk(plan: Plan, chunk: Chunk) -> None:
    """Embed captions and pictures of a rendered chunk, find fronts.

    Writes ``rows.jsonl``, ``rejected.jsonl``, ``text.npy [R, D]``, ``views.npy [R, V, D]``, both float32, and
    ``thumbs.npy [R, 64, 64, 3]``.
    """
    settings = plan.settings
    encoder = _encoder(settings.encoder, settings.device, settings.precision, settings.batch_size)
    renders = plan.renders_folder(chunk)
    rows = [record_from_json(row) for row in read_lines(renders / "rows.jsonl")]
    pictures = _load(renders / "views.npy")
    if (around := _load(renders / "align.npy")) is not None:
        aligner = ClipAligner(encoder)
        for images, row in zip(around, json.loads((renders / "align.json").read_text("utf-8")), strict=True):
            front = aligner.align(images.astype(np.float32) / 255.0, rows[row].caption).front_deg
            rows[row] = replace(rows[row], front_deg=front, front_source="unknown" if front is None else "clip")
    with folder_in_place(plan.chunk_folder(chunk)) as folder:
        _save(folder / "text.npy", _embed_texts(encoder, [row.caption for row in rows], settings.batch_size))
        if pictures is not None:
            _save(folder / "views.npy", _embed_views(encoder, pictures, settings.batch_size))
            if settings.thumbnails and settings.views is not None:
                shown = [_front_view(row, settings.views.azimuths_deg) for row in rows]
                _save(folder / "thumbs.npy", np.stack([thumbnail(p[view]) for p, view in zip(pictures, shown)]))
        _write_rows(folder, rows, read_lines(renders / "rejected.jsonl"))


def load_blame(folder: Path) -> dict[str, int]:
    """Deaths of workers by asset id."""
    try:
        return {str(key): int(value) for key, value in json.loads((folder / BLAME).read_text("utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _render_safely(
    plan: Plan, source: Source, record: AssetRecord
) -> tuple[AssetRecord, Bytes | None, Bytes | None] | dict[str, Any]:
    """One bad asset is a row in a report, never a stop."""
    if plan.settings.views is None and not record.path:
        return record, None, None  # fetched when a query wants it
    try:
        found = render_asset_views(source.open(record), record, plan)
    except MissingExtraError:
        raise
    except RedreamError as error:
        return _rejection(record, "load", str(error))
    except Exception as error:
        log.warning("%s: %s", record.asset_id, error, exc_info=log.isEnabledFor(logging.DEBUG))
        return _rejection(record, "load", f"{type(error).__name__}: {error}")
    return _rejection(record, "filter", found) if isinstance(found, str) else found


def _rejection(record: AssetRecord, stage: str, reason: str) -> dict[str, Any]:
    return Rejection(record.asset_id, stage, reason[:1000]).to_json()


def _front_view(record: AssetRecord, azimuths_deg: tuple[float, ...]) -> int:
    """The view nearest to the front, or to what the file's format calls so."""
    front = record.front_deg or 0.0
    return int(np.argmin([abs((azimuth - front + 180.0) % 360.0 - 180.0) for azimuth in azimuths_deg]))


def _embed_texts(encoder: Encoder, texts: list[str], batch_size: int) -> NDArray[np.float32]:
    """``[N, D]``. All batches have one size: then an embedding does not depend, to the last bit, on its neighbours."""
    spare = -len(texts) % batch_size
    return encoder.encode_texts(texts + [""] * spare)[: len(texts)]


def _embed_views(encoder: Encoder, pictures: Bytes, batch_size: int) -> NDArray[np.float32]:
    """``[R, V, D]`` of pictures ``[R, V, S, S, 3]``; as :func:`_embed_texts`."""
    count, views = pictures.shape[:2]
    flat = pictures.reshape(count * views, *pictures.shape[2:])
    out = np.zeros((len(flat), encoder.dim), np.float32)
    for start in range(0, len(flat), batch_size):
        batch = flat[start : start + batch_size]
        images = np.zeros((batch_size, *flat.shape[1:]), np.float32)
        images[: len(batch)] = batch / np.float32(255.0)
        out[start : start + len(batch)] = encoder.encode_images(images)[: len(batch)]
    return out.reshape(count, views, -1)


@functools.lru_cache(maxsize=1)
def _encoder(name: str, device: str, dtype: str, batch_size: int) -> Encoder:
    """Loaded once per process."""
    return open_encoder(name, device=device, dtype=dtype, batch_size=batch_size)


def _write_rows(folder: Path, rows: list[AssetRecord], rejected: list[dict[str, Any]]) -> None:
    write_lines(folder / "rows.jsonl", [record_to_json(row) for row in rows])
    write_lines(folder / "rejected.jsonl", rejected)


def _save(path: Path, values: NDArray[Any]) -> None:
    with open(path, "wb") as file:
        np.save(file, values, allow_pickle=False)


def _load(path: Path) -> NDArray[Any] | None:
    return np.load(path, mmap_mode="r", allow_pickle=False) if path.is_file() else None
