"""What an index will consist of once rows were added or removed: the plan of a write, before anything is moved."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from threestudio_redream.retrieval.errors import RetrievalError
from threestudio_redream.retrieval.index.integrity import file_entry
from threestudio_redream.retrieval.index.journal import STAGING
from threestudio_redream.retrieval.index.manifest import Manifest, PartEntry
from threestudio_redream.retrieval.index.parts import Part, write_rows
from threestudio_redream.retrieval.index.spec import IndexSpec
from threestudio_redream.retrieval.index.staging import Item, asset_id_of_copy

__all__ = ["Conflict", "Plan", "plan_additions", "plan_removal"]

Conflict = Literal["error", "keep", "replace"]
_CONFLICTS = ("error", "keep", "replace")
_WORK = f"{STAGING}/work"


@dataclass(frozen=True)
class Plan:
    """The next state of an index.

    Attributes:
        changes: for :meth:`.manifest.Manifest.next`. moves: (staged, final) paths that lead to it.
    """

    changes: dict[str, Any] = field(default_factory=dict)
    moves: tuple[tuple[str, str], ...] = ()


class _Source:
    """A part that the next index takes its rows from, all but the ``dropped`` ones.

    Args:
        own: folder of its files. item: that it comes from; None if it is in the index.
    """

    def __init__(self, entry: PartEntry, spec: IndexSpec, own: Path, item: Item | None = None) -> None:
        self.entry, self.spec, self.own, self.item = entry, spec, own, item
        self.dropped: set[str] = set()

    @cached_property
    def part(self) -> Part:
        return Part(self.own, self.entry, self.spec, self.own)

    @cached_property
    def ids(self) -> list[str]:
        return self.part.table.ids()


def plan_additions(folder: Path, current: Manifest, items: Sequence[Item], conflict: Conflict) -> Plan:
    """Add staged items, in their order.

    Raises:
        RetrievalError: an asset id is there already with other values, and ``conflict`` is ``error``; or ``conflict``
            is none of ``error``, ``keep`` and ``replace``.
    """
    if conflict not in _CONFLICTS:
        raise RetrievalError(
            "there is no such rule for assets that are there already",
            received=conflict,
            fix=f"Use one of {', '.join(_CONFLICTS)}",
        )
    sources = _present(folder, current)
    new = [_Source(item.part, current.spec, item.folder / "part", item) for item in items if item.part]
    where = {asset_id: (source, row) for source in sources if new for row, asset_id in enumerate(source.ids)}
    for source in new:
        for row, asset_id in enumerate(source.ids):
            other, place = where.setdefault(asset_id, (source, row))
            if other is source:
                continue
            if conflict == "keep" or source.part.row_digests([row]) == other.part.row_digests([place]):
                source.dropped.add(asset_id)
            elif conflict == "replace":
                other.dropped.add(asset_id)
                where[asset_id] = (source, row)
            else:
                raise RetrievalError(
                    "the index has an asset of this id with other values",
                    received=asset_id,
                    fix="Say whether to keep the old rows or to replace them, or rename the assets",
                )
    plan = _assemble(folder, current, [*sources, *new])
    changes, moves = _rejected(folder, current, items)
    return Plan({**plan.changes, **changes}, (*plan.moves, *moves))


def plan_removal(folder: Path, current: Manifest, asset_ids: set[str]) -> Plan:
    """Take assets out.

    Raises:
        RetrievalError: the index has no such asset.
    """
    sources, missing = _present(folder, current), set(asset_ids)
    for source in sources:
        source.dropped = missing.intersection(source.ids)
        missing -= source.dropped
    if missing:
        raise RetrievalError(
            f"the index has no asset of this id ({len(missing)} unknown)",
            received=min(missing),
            fix="`redream search` and Index.records() show the ids",
        )
    return _assemble(folder, current, sources)


def _present(folder: Path, current: Manifest) -> list[_Source]:
    return [_Source(entry, current.spec, folder / "parts" / entry.part_id) for entry in current.parts]


def _assemble(folder: Path, current: Manifest, sources: Sequence[_Source]) -> Plan:
    """Parts as they are where nothing is dropped from them, written anew where something is."""
    parts: dict[str, PartEntry] = {}
    moves: list[tuple[str, str]] = []
    assets = dict(current.assets)
    for number, source in enumerate(sources):
        entry, own = source.entry, source.own
        if source.dropped:
            rows = [row for row, asset_id in enumerate(source.ids) if asset_id not in source.dropped]
            if not rows:
                continue
            own = folder / _WORK / str(number)
            entry = write_rows(own, source.part.table.records(rows), source.part.arrays(rows))
        if entry.part_id not in parts and own != folder / "parts" / entry.part_id:
            moves.append((own.relative_to(folder).as_posix(), f"parts/{entry.part_id}"))
        parts[entry.part_id] = entry
    for source in sources:  # after all drops: a replaced asset may come with the same file
        if source.item is None:
            assets = {name: copy for name, copy in assets.items() if asset_id_of_copy(name) not in source.dropped}
    for source in sources:
        for name, copy in source.item.assets.items() if source.item else ():
            if asset_id_of_copy(name) not in source.dropped and name not in assets:
                assets[name] = copy
                if name not in current.assets:
                    moves.append((f"{source.item.folder.relative_to(folder).as_posix()}/assets/{name}", copy.path))  # type: ignore[union-attr]
    return Plan({"parts": tuple(parts.values()), "assets": assets}, tuple(moves))


def _rejected(folder: Path, current: Manifest, items: Sequence[Item]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The list of refused assets with the lines of ``items`` added, each line once, sorted."""
    old = (folder / current.rejected.path).read_text("utf-8").split("\n") if current.rejected else []
    lines = sorted({line for line in old if line}.union(*(item.rejected for item in items)))
    data = "".join(line + "\n" for line in lines).encode()
    name = f"rejected-{hashlib.sha256(data).hexdigest()[:12]}.jsonl"
    if not lines or (current.rejected and current.rejected.path == name):
        return {}, []
    work = folder / _WORK / "rejected.jsonl"
    work.parent.mkdir(parents=True, exist_ok=True)
    work.write_bytes(data)
    return {"rejected": file_entry(work, name), "n_rejected": len(lines)}, [(f"{_WORK}/rejected.jsonl", name)]
