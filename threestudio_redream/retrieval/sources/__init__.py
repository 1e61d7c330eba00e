"""Where assets come from: a folder, one file, or Objaverse with Cap3D captions.

>>> source = open_source("my-library")  # a folder: recursive, sidecars and captions read
>>> records = list(source.records())
>>> path = source.open(records[0])  # a local file for load_asset
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from threestudio_redream.retrieval.curation.licences import LicencePolicy
from threestudio_redream.retrieval.errors import SourceError
from threestudio_redream.retrieval.sources.base import Rejection, Source, check_shard, in_shard, shard_of
from threestudio_redream.retrieval.sources.folder import FolderSource
from threestudio_redream.retrieval.sources.objaverse import ObjaverseSource
from threestudio_redream.retrieval.sources.single import SingleSource

__all__ = [
    "FolderSource",
    "ObjaverseSource",
    "Rejection",
    "SingleSource",
    "Source",
    "check_shard",
    "in_shard",
    "open_source",
    "shard_of",
]


def open_source(
    spec: str | Path,
    *,
    table: str | Path | None = None,
    captions: str | Path | None = None,
    cache: str | Path | None = None,
    caption: str = "",
    licence: str = "",
    author: str = "",
    policy: LicencePolicy | Mapping[str, bool] | None = None,
    **options: Any,
) -> FolderSource | SingleSource | ObjaverseSource:
    """The source that ``redream index build SPEC`` means; ``open_source(**source.settings)`` makes it once more.

    Args:
        spec: a folder, a 3D file, or the word ``objaverse``.
        table: CSV with one row per file, for a folder whose CSV is not called ``assets.csv``.
        captions: the Cap3D CSV (``uid,caption``), for Objaverse.
        cache: folder for what Objaverse downloads; the default is under the user's cache folder.
        caption: of a single file. licence, author: of files in a folder where nothing states them.
        policy: licences that are admitted, or the same as a dictionary of its switches.
        options: more keyword arguments of :class:`ObjaverseSource`.

    Raises:
        SourceError: there is no such folder or file, or an argument does not fit the source.
    """
    if isinstance(policy, Mapping):
        policy = LicencePolicy(**policy)
    path = Path(spec)
    given = {"table": table, "captions": captions, "cache": cache, "caption": caption, "licence": licence,
             "author": author, "policy": policy, **options}  # fmt: skip
    if str(spec) == "objaverse":
        _refuse(given, "Objaverse", "table", "caption", "licence", "author")
        return ObjaverseSource(captions, cache=cache, policy=policy, **options)
    if path.is_dir():
        _refuse(given, "a folder", "captions", "cache", "caption", *options)
        return FolderSource(path, table=table, licence=licence, author=author, policy=policy)
    if path.is_file():
        _refuse(given, "a single file", "table", "captions", "cache", "licence", "author", *options)
        return SingleSource(path, caption=caption)
    raise SourceError(
        "there is no such source of assets",
        received=str(spec),
        fix="Name a folder of meshes, one 3D file, or the word objaverse",
    )


def _refuse(given: Mapping[str, Any], what: str, *names: str) -> None:
    for name in names:
        if given[name] not in (None, ""):
            raise SourceError(f"{what} has no use for {name}", received=given[name], fix=f"Leave {name} out")
