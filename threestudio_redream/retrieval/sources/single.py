"""One file that the user names: ``system.retrieval.asset=my.glb`` skips search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from threestudio_redream.retrieval.errors import SourceError
from threestudio_redream.retrieval.sources.base import Rejection, check_shard, in_shard
from threestudio_redream.retrieval.sources.captions import clean_text
from threestudio_redream.retrieval.sources.folder import make_record
from threestudio_redream.retrieval.sources.paths import MESH_SUFFIXES, asset_id_of
from threestudio_redream.retrieval.sources.sidecars import embedded_description, merge, read_sidecar
from threestudio_redream.retrieval.types import AssetRecord

__all__ = ["SingleSource"]


class SingleSource:
    """One 3D file with its sidecar. The user chose it, so no licence filter applies; the licence is recorded.

    Args:
        path: the file. caption: instead of the one from sidecar or name.

    Raises:
        SourceError: there is no such file, or its extension is not that of a mesh.
    """

    def __init__(self, path: str | Path, *, caption: str = "") -> None:
        self.path = Path(path)
        if not self.path.is_file() or self.path.suffix.lower() not in MESH_SUFFIXES:
            raise SourceError(
                "there is no such 3D file", received=str(path), fix=f"Name one of {', '.join(MESH_SUFFIXES)}"
            )
        self._caption = clean_text(caption)
        self.name, self.rejected = f"file:{clean_text(self.path.name)}", list[Rejection]()
        self.settings: dict[str, Any] = {"spec": str(self.path), "caption": caption}

    def record(self) -> AssetRecord:
        """The one asset.

        Raises:
            SourceError: the file or its sidecar cannot be used.
        """
        said = merge(read_sidecar(self.path), embedded_description(self.path))
        if self._caption:
            said = replace(said, caption=self._caption, caption_source="sidecar")
        return make_record(self.path, self.path.name, said)

    def records(self, shard: int = 0, num_shards: int = 1) -> Iterator[AssetRecord]:
        """See :meth:`.Source.records`."""
        check_shard(shard, num_shards)
        self.rejected = []
        if not in_shard(asset_id_of(self.path.name), shard, num_shards):
            return
        try:
            yield self.record()
        except SourceError as error:
            self.rejected.append(Rejection(self.path.name, "source", str(error)))

    def open(self, record: AssetRecord) -> Path:
        """See :meth:`.Source.open`."""
        if record.path != self.path.name:
            raise SourceError("this source holds another file", received=record.path, fix=f"Ask for {self.path.name}")
        return self.path
