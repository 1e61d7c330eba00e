"""Everything that can be wrong with an index, listed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from threestudio_redream.retrieval.errors import IndexDamagedError, IndexMismatchError, RetrievalError
from threestudio_redream.retrieval.index.integrity import find_damage
from threestudio_redream.retrieval.index.manifest import read_manifest
from threestudio_redream.retrieval.index.parts import Part
from threestudio_redream.retrieval.index.reader import Index
from threestudio_redream.retrieval.index.scan import decode
from threestudio_redream.retrieval.index.vectors import VectorFile
from threestudio_redream.retrieval.types import Encoder

__all__ = ["verify_index"]

_SAMPLES = 4  # captions per part that are encoded again
_SAME_CAPTION = 0.99
_BLOCK = 4096


def verify_index(folder: str | Path, encoder: Encoder | None = None) -> list[RetrievalError]:
    """Every problem of an index that can be found; an empty list if it is sound.

    Reads every byte of every file and every row of every table, and looks at every vector. With an encoder it also
    encodes some captions of each part again, which finds vectors that another model made.

    Returns:
        IndexDamagedError and IndexMismatchError, each naming the file. A folder without an index gives one
        RetrievalError.
    """
    folder = Path(folder)
    try:
        manifest = read_manifest(folder)
    except RetrievalError as error:
        return [error]
    problems: list[RetrievalError] = list(find_damage(folder, manifest))
    damaged = {problem.file for problem in problems if isinstance(problem, IndexDamagedError)}
    try:
        if encoder is not None:
            manifest.spec.require_encoder(encoder)
    except IndexMismatchError as error:
        problems.append(error)
        encoder = None
    owners: dict[str, str] = {}
    for entry in manifest.parts:
        if damaged.isdisjoint(file.path for file in entry.files.values()):
            try:
                part = Part(folder, entry, manifest.spec)
            except IndexDamagedError as error:
                problems.append(error)
            else:
                problems += _problems_of(part, encoder, owners)
    if manifest.rejected and manifest.rejected.path not in damaged:
        problems += _collect(_check_rejected, Index(folder, replace(manifest, parts=())))
    return problems


def _problems_of(part: Part, encoder: Encoder | None, owners: dict[str, str]) -> list[RetrievalError]:
    problems = _collect(_check_rows, part, owners)
    for file in (part.text, part.views):
        problems += _collect(_check_lengths, file) if file else []
    if encoder is not None and not problems:
        problems += _collect(_check_captions, part, encoder)
    return problems


def _collect(check: Callable[..., None], *arguments: Any) -> list[RetrievalError]:
    try:
        check(*arguments)
    except RetrievalError as error:
        return [error]
    return []


def _check_rows(part: Part, owners: dict[str, str]) -> None:
    """Ids are sorted, and unique in the index; ``owners`` tells the table of each id seen so far."""
    before = ""
    for record in part.table:
        if record.asset_id in owners:
            _refuse(part.table.name, f"an asset id is also in {owners[record.asset_id]}", record.asset_id)
        if record.asset_id < before:
            _refuse(part.table.name, "the rows are not sorted by asset id", record.asset_id)
        owners[record.asset_id] = part.table.name
        before = record.asset_id


def _check_lengths(file: VectorFile) -> None:
    for start in range(0, len(file.stored), _BLOCK):
        lengths = np.linalg.norm(decode(file.stored[start : start + _BLOCK]), axis=-1)
        if not (np.abs(lengths - 1.0) < 0.02).all():
            worst = float(lengths.reshape(-1)[np.argmax(np.abs(lengths - 1.0))])
            _refuse(file.name, "a vector is not finite and of length one", worst)


def _check_captions(part: Part, encoder: Encoder) -> None:
    if not part.entry.rows:
        return
    rows = np.unique(np.linspace(0, part.entry.rows - 1, _SAMPLES).astype(int))
    made = np.asarray(encoder.encode_texts([record.caption for record in part.table.records(rows)]), np.float32)
    cosine = min(float(vector @ part.text.row(int(row))) for vector, row in zip(made, rows))
    if cosine < _SAME_CAPTION:
        raise IndexMismatchError(
            f"{part.text.name}: these are not the vectors that {encoder.name!r} gives for the captions: the cosine "
            f"must be at least {_SAME_CAPTION}",
            received=round(cosine, 4),
            fix="Build the index again with one encoder",
        )


def _check_rejected(index: Index) -> None:
    lines, entry = sum(1 for _ in index.rejected()), index.manifest.rejected
    if entry and lines != index.manifest.n_rejected:
        _refuse(entry.path, f"the file should have {index.manifest.n_rejected} lines", lines)


def _refuse(file: str, problem: str, received: object) -> NoReturn:
    fix = "Restore the file from a copy, or build the index again"
    raise IndexDamagedError(problem, file=file, received=received, fix=fix)
