"""First step of a build: read the source, leave out what cannot be used, cut the rest into chunks."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from threestudio_redream.retrieval.build.plan import BuildSettings, Chunk, Plan, SourceSpec, with_files, write_lines
from threestudio_redream.retrieval.encoders import open_encoder
from threestudio_redream.retrieval.index.manifest import MANIFEST
from threestudio_redream.retrieval.index.table import check_record
from threestudio_redream.retrieval.sources import Rejection, Source
from threestudio_redream.retrieval.types import AssetRecord, record_to_json

__all__ = ["ingest", "is_unchanged"]

#: What a build finds out about an asset; the source does not know it.
_FOUND = ("n_faces", "front_deg", "front_source")


def ingest(source: SourceSpec, settings: BuildSettings, folder: Path, out: Path) -> Plan:
    """Write the plan of a build; repeating it with the same source writes the same plan.

    Args:
        folder: the work folder. out: the index; assets that it holds unchanged are left out.

    Raises:
        SourceError: the source cannot be read. ConfigError: the encoder cannot be opened.
    """
    folder.mkdir(parents=True, exist_ok=True)
    opened, encoder = source.open(settings.licences), open_encoder(settings.encoder)
    plan = Plan(folder, source, settings, encoder.fingerprint, encoder.image_size)
    known = _known(out)
    refused: list[dict[str, Any]] = []
    chunks: list[Chunk] = []
    whole, unchanged, offset = hashlib.sha256(), 0, 0
    temporary = folder / f"records.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            group: list[AssetRecord] = []

            def close_group() -> None:
                nonlocal offset
                data = "".join(json.dumps(record_to_json(record)) + "\n" for record in group).encode()
                chunks.append(Chunk(plan.chunk_key(group), offset, len(group)))
                file.write(data)
                whole.update(data)
                offset += len(data)
                group.clear()

            for record in _usable(opened, refused):
                if (old := known.get(record.asset_id)) is not None and is_unchanged(old, record):
                    unchanged += 1
                    continue
                group.append(record)
                if len(group) == settings.chunk_size:
                    close_group()
            if group:
                close_group()
        refused = [rejection.to_json() for rejection in opened.rejected] + refused
        names = f"records-{whole.hexdigest()[:16]}.jsonl", f"refused-{_digest(refused)}.jsonl"
        os.replace(temporary, folder / names[0])
    finally:
        temporary.unlink(missing_ok=True)
    write_lines(folder / names[1], refused)
    plan = with_files(plan, *names, chunks, unchanged)
    plan.save()
    return plan


def is_unchanged(old: AssetRecord, new: AssetRecord) -> bool:
    """Whether a row of an index says what the source says now, apart from what the build itself found out."""
    found = {name: getattr(old, name) for name in _FOUND}
    if "sidecar" in (old.front_source, new.front_source):
        found = {"n_faces": old.n_faces}
    if not new.sha256:  # the source has not fetched the file, the index may have
        found |= {"sha256": old.sha256, "n_bytes": old.n_bytes}
    return replace(new, **found) == old


def _known(out: Path) -> dict[str, AssetRecord]:
    if not (out / MANIFEST).is_file():
        return {}
    from threestudio_redream.retrieval.index.reader import Index

    return {record.asset_id: record for record in Index.open(out).records()}


def _usable(source: Source, refused: list[dict[str, Any]]) -> Iterator[AssetRecord]:
    seen: set[str] = set()
    for record in source.records():
        problem = check_record(record) or ("a second asset of this id" if record.asset_id in seen else "")
        if not problem and not record.caption.strip():
            problem = "there is no caption, and the name says nothing"
        if problem:
            refused.append(Rejection(record.asset_id, "source", problem).to_json())
        else:
            seen.add(record.asset_id)
            yield record


def _digest(rows: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]
