"""Writing an index: create, add, remove, merge. A reader sees the index before or after, never something between.

>>> writer = IndexWriter(folder, IndexSpec.of(encoder, views_per_asset=8, cameras=cameras))
>>> if "shard-0003-of-0016" not in writer.staged():
...     writer.write_part(records, text, views, thumbs, name="shard-0003-of-0016", rejected=refused)
>>> writer.commit()
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from threestudio_redream.retrieval.errors import RetrievalError
from threestudio_redream.retrieval.index.combine import Conflict, Plan, plan_additions, plan_removal
from threestudio_redream.retrieval.index.integrity import check_files, refuse_links
from threestudio_redream.retrieval.index.journal import STAGING, Journal
from threestudio_redream.retrieval.index.lock import write_lock
from threestudio_redream.retrieval.index.manifest import MANIFEST, AnnEntry, Manifest, read_manifest
from threestudio_redream.retrieval.index.parts import prepare_arrays
from threestudio_redream.retrieval.index.spec import Calibration, IndexSpec
from threestudio_redream.retrieval.index.staging import Item, read_items, stage_index, stage_item, sweep, tidy
from threestudio_redream.retrieval.types import AssetRecord

__all__ = ["IndexWriter"]


class IndexWriter:
    """Writes the index in ``folder``.

    :meth:`write_part` takes no lock: any number of processes may stage parts at once. What is staged completely
    survives a kill; half a part is thrown away. Everything else takes the lock and switches the manifest in one step.

    Args:
        folder: of the index; made if absent.
        spec: needed for a new index. For an existing one it is compared, or left out.

    Raises:
        IndexMismatchError: the index that is there was made by another encoder, or with other cameras.
        RetrievalError: there is no index, and no ``spec`` was given.
    """

    def __init__(self, folder: str | Path, spec: IndexSpec | None = None) -> None:
        self.folder = Path(folder)
        existing = self._manifest()
        if existing and spec:
            existing.spec.require_same(spec, "these vectors")
        if not existing and not spec:
            read_manifest(self.folder)  # raises: there is no index
        self.spec: IndexSpec = existing.spec if existing else spec  # type: ignore[assignment]

    def staged(self) -> tuple[str, ...]:
        """Names of the complete parts that wait for :meth:`commit`."""
        return tuple(sorted(path.parent.name for path in (self.folder / STAGING / "parts").glob("*/item.json")))

    def write_part(
        self,
        records: Sequence[AssetRecord],
        text: np.ndarray,
        views: np.ndarray | None = None,
        thumbs: np.ndarray | None = None,
        *,
        name: str | None = None,
        rejected: Iterable[Mapping[str, Any]] = (),
        assets: Mapping[str, Path] | None = None,
    ) -> str:
        """Stage rows for the next :meth:`commit`.

        Args:
            records: R assets, in any order; 0 are fine.
            text: ``[R, D]`` unit vectors of the captions. views: ``[R, V, D]`` unit vectors of the renders, V as in
                the spec; None if no asset of this part has views. thumbs: ``[R, 64, 64, 3]`` uint8 or None.
            name: of the part among the staged ones, e.g. of a shard; a part of the same name is replaced. None: the
                part is named by its content.
            rejected: JSON values about each refused asset, e.g. ``{"path": ..., "reason": ...}``.
            assets: files to copy into the index, by asset id; each must be complete in itself (GLB, zip).

        Returns:
            32 hex digits that identify the content of the part; empty if there are no records.

        Raises:
            RetrievalError: vectors of a wrong shape or length, a record that cannot be stored, an id given twice.
        """
        arrays = prepare_arrays(len(records), self.spec, text, views, thumbs)
        item = stage_item(
            self.folder, self.spec, records, arrays, name=name, rejected=rejected, assets=dict(assets or {})
        )
        return item.part.part_id if item.part else ""

    def commit(self, conflict: Conflict = "error", *, wait_s: float = 0.0) -> Manifest:
        """Take all staged parts into the index.

        Args:
            conflict: what to do with an asset id that the index has already, with other values: ``error``, ``keep``
                the old row, or ``replace`` it. A row that is there with the same values is passed over.
            wait_s: seconds to wait for another writer.

        Raises:
            IndexBusyError: another process is writing. IndexMismatchError: a staged part has another spec.
            RetrievalError: ids in conflict; nothing has changed then.
        """
        with self._writing(wait_s) as current:
            items = read_items(self.folder)
            for item in items:
                self.spec.require_same(item.spec, f"the staged part {item.folder.name}")
            return self._publish(current, plan_additions(self.folder, current, items, conflict), items)

    def remove(self, asset_ids: Iterable[str], *, wait_s: float = 0.0) -> Manifest:
        """Take assets out, with the copies of their files. The parts concerned are written anew.

        Raises:
            RetrievalError: the index has no such asset; nothing has changed then. IndexBusyError: see :meth:`commit`.
        """
        with self._writing(wait_s) as current:
            return self._publish(current, plan_removal(self.folder, current, set(asset_ids)))

    def merge(self, other: str | Path, conflict: Conflict = "error", *, wait_s: float = 0.0) -> Manifest:
        """Add everything that another index holds; that one is left as it is.

        Args:
            conflict, wait_s: see :meth:`commit`.

        Raises:
            IndexMismatchError: it was made by another encoder, or with other preprocessing, cameras or number format.
            IndexDamagedError: one of its files is not sound; all are read. RetrievalError, IndexBusyError: see
            :meth:`commit`.
        """
        other = Path(other)
        theirs = read_manifest(other)
        self.spec.require_same(theirs.spec, f"the index {other.name}")
        check_files(other, theirs, "full")
        with self._writing(wait_s) as current:
            items = stage_index(self.folder, other, theirs)
            return self._publish(current, plan_additions(self.folder, current, items, conflict))

    def set_calibration(self, calibration: Calibration | None, *, wait_s: float = 0.0) -> Manifest:
        """Store when a best hit counts as "nothing similar"; None forgets it."""
        with self._writing(wait_s) as current:
            return self._publish(current, Plan({"calibration": calibration}))

    def set_ann(self, entry: AnnEntry | None, built: Path | None = None, *, wait_s: float = 0.0) -> Manifest:
        """Put an approximate index in place, or drop it (None).

        Args:
            entry: describes it. built: folder below the staging folder that holds its files; it is moved.

        Raises:
            RetrievalError: the rows have changed since it was built. IndexBusyError: see :meth:`commit`.
        """
        with self._writing(wait_s) as current:
            if entry is not None and entry.content != current.content:
                raise RetrievalError(
                    "the index changed while its approximate index was built",
                    received=entry.content,
                    fix="Build the approximate index again",
                )
            moves = []
            if entry is not None and built is not None:
                moves = [(built.relative_to(self.folder).as_posix(), f"ann/{entry.build}")]
            return self._publish(current, Plan({"ann": entry}, tuple(moves)))

    def _publish(self, current: Manifest, plan: Plan, done: Sequence[Item] = ()) -> Manifest:
        """Move files into place, switch the manifest, and delete what it does not name; see :mod:`.journal`."""
        new = current.next(**plan.changes)
        data = new.to_bytes()
        kept = {_owner(entry.path) for entry in new.entries()}
        drops = {_owner(entry.path) for entry in current.entries()} - kept
        staged = [item.folder.relative_to(self.folder).as_posix() for item in done]
        journal = Journal(new.generation, plan.moves, (*sorted(drops), *staged))
        journal.write(self.folder)
        if new != current.next() or not current.generation:
            journal.carry_out(self.folder)
            for path in {(self.folder / final).parent for _, final in plan.moves}:
                _sync_folder(path)
            manifest = self.folder / STAGING / MANIFEST
            manifest.write_bytes(data)
            with open(manifest, "rb") as file:
                os.fsync(file.fileno())
            os.replace(manifest, self.folder / MANIFEST)
            _sync_folder(self.folder)
        else:
            new = current
        journal.settle(self.folder, journal.generation)
        return new

    @contextlib.contextmanager
    def _writing(self, wait_s: float) -> Iterator[Manifest]:
        """Hold the lock, with the folder tidied up before and after; gives the manifest in force."""
        staging = self.folder / STAGING
        refuse_links(self.folder)  # an index of somebody else: what follows moves and deletes
        with write_lock(staging / "lock", wait_s):
            current = self._manifest() or Manifest(self.spec)
            Journal.read(self.folder).settle(self.folder, current.generation)
            sweep(self.folder)
            try:
                yield current
            finally:
                sweep(self.folder)
        tidy(self.folder)

    def _manifest(self) -> Manifest | None:
        return read_manifest(self.folder) if (self.folder / MANIFEST).exists() else None


def _owner(path: str) -> str:
    """What is moved and deleted as one: the folder of a part, or else the file."""
    return "/".join(path.split("/")[:2])


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
