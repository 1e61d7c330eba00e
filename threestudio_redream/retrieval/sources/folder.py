"""A folder of meshes: searched recursively, described by sidecars, by one CSV, and by the files themselves."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from threestudio_redream.retrieval.curation.licences import LicencePolicy, licence_fields, licence_problem
from threestudio_redream.retrieval.errors import SourceError
from threestudio_redream.retrieval.sources.base import Rejection, check_shard, in_shard
from threestudio_redream.retrieval.sources.captions import caption_from_path, clean_text
from threestudio_redream.retrieval.sources.paths import asset_id_of, below, digest_file, find_meshes
from threestudio_redream.retrieval.sources.sidecars import (
    Description,
    embedded_description,
    merge,
    read_sidecar,
    read_table,
)
from threestudio_redream.retrieval.types import AssetRecord

__all__ = ["TABLE_NAME", "FolderSource", "make_record"]

TABLE_NAME = "assets.csv"
_LOG = logging.getLogger(__name__)


def make_record(path: Path, relative: str, description: Description) -> AssetRecord:
    """The record of one file; caption and name come from the path where nobody gave them.

    Args:
        relative: the path below the root of the library.

    Raises:
        SourceError: the file cannot be read, or the description was written for another one.
    """
    sha256, n_bytes = digest_file(path)
    if description.sha256.lower() not in ("", sha256):
        raise SourceError(
            "the file is not the one that its sidecar describes",
            received=f"sha256 {sha256}",
            fix="Restore the file, or correct sha256 in the sidecar",
        )
    derived = caption_from_path(relative)
    front_deg = description.front_deg
    if front_deg is None and description.front not in ("", "none"):
        front_deg = 0.0  # normalising takes a named front axis to +x
    return AssetRecord(
        asset_id=asset_id_of(relative),
        name=description.name or derived,
        caption=description.caption or derived,
        caption_source=description.caption_source or "name",
        author=description.author,
        licence=description.licence,
        licence_url=description.licence_url,
        source_url=description.source_url,
        path=relative,
        sha256=sha256,
        n_bytes=n_bytes,
        up=description.up,
        front="" if description.front == "none" else description.front,
        front_deg=front_deg,
        front_source="sidecar" if description.front or front_deg is not None else "unknown",
        tags=description.tags,
    )


class FolderSource:
    """Every mesh below a folder; see :mod:`threestudio_redream.retrieval.sources.sidecars` for what can describe them.

    Args:
        root: the folder. table: CSV with one row per file; None looks for ``assets.csv`` in the root.
        licence, author: for assets of which nothing says them.
        policy: licences that are admitted; None leaves out non-commercial and no-derivatives ones.

    Attributes:
        settings: arguments with which ``open_source`` makes this source again in another process.

    Raises:
        SourceError: the folder does not exist, or the table cannot be read.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        table: str | Path | None = None,
        licence: str = "",
        author: str = "",
        policy: LicencePolicy | None = None,
    ) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise SourceError("there is no such folder of meshes", received=str(root), fix="Check the path")
        self.name = f"folder:{clean_text(self.root.resolve().name) or 'root'}"
        self.rejected: list[Rejection] = []
        self.policy = policy or LicencePolicy()
        default = self.root / TABLE_NAME
        self._table = Path(table) if table is not None else default if default.is_file() else None
        self._rows, self._row_problems = read_table(self._table) if self._table is not None else ({}, [])
        spdx, url = licence_fields(licence)
        self._defaults = Description(author=clean_text(author), licence=spdx, licence_url=url)
        self.settings: dict[str, Any] = {
            "spec": str(self.root),
            "table": None if self._table is None else str(self._table),
            "licence": licence,
            "author": author,
            "policy": vars(self.policy).copy(),
        }

    def records(self, shard: int = 0, num_shards: int = 1) -> Iterator[AssetRecord]:
        """See :meth:`.Source.records`. Files are hashed on the way; those of other shards are not opened."""
        check_shard(shard, num_shards)
        self.rejected = []
        if shard == 0:
            self.rejected += [Rejection(path, "source", reason) for path, reason in self._row_problems]
        unused = set(self._rows)
        refused: list[Rejection] = []
        for relative, path in find_meshes(
            self.root, lambda *what: refused.append(Rejection(what[0], "source", what[1]))
        ):
            unused.discard(relative)
            asset_id = asset_id_of(relative)
            if not in_shard(asset_id, shard, num_shards):
                continue
            try:
                sidecar, row = read_sidecar(path), self._rows.get(relative)
                said = merge(sidecar, row, embedded_description(path), self._defaults)
                problem = licence_problem(said.licence, self.policy, url=said.licence_url)
                if problem is not None:
                    self.rejected.append(Rejection(asset_id, "licence", problem))
                    continue
                record = make_record(path, relative, said)
            except SourceError as error:
                self.rejected.append(Rejection(asset_id, "source", str(error)))
                continue
            yield record
        if shard == 0:
            self.rejected += refused
            self.rejected += [
                Rejection(path, "source", "the table names it, but there is no such mesh") for path in sorted(unused)
            ]
        _LOG.debug("%s: %d items left out", self.name, len(self.rejected))

    def open(self, record: AssetRecord) -> Path:
        """See :meth:`.Source.open`. Size is compared, content is not: ``load_asset`` hashes what it reads."""
        path = below(self.root, record.path)
        size = path.stat().st_size
        if record.n_bytes and size != record.n_bytes:
            raise SourceError(
                f"{record.path}: the file changed since it was indexed",
                received=f"{size} bytes instead of {record.n_bytes}",
                fix="Add the folder to the index again",
            )
        return path
