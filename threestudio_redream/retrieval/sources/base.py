"""What every source of assets offers, and what it says about items that it had to leave out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from threestudio_redream.errors import ConfigError
from threestudio_redream.retrieval.types import AssetRecord

__all__ = ["Rejection", "Source", "check_shard", "in_shard", "shard_of"]


@dataclass(frozen=True)
class Rejection:
    """One item that did not make it into an index, as a row of ``rejected.jsonl``.

    Attributes:
        item: id of the asset, or its path below the root where it never got an id.
        stage: where it failed: ``source``, ``licence``, ``load``, ``filter``, ``render``, ...
        reason: a sentence for people.
    """

    item: str
    stage: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        return asdict(self)


class Source(Protocol):
    """Where assets come from.

    Attributes:
        name: what it is, for a manifest and for messages, e.g. ``folder:chairs``; holds no absolute path.
        rejected: what the last ``records()`` left out, complete once that iterator is exhausted.
    """

    name: str
    rejected: list[Rejection]

    def records(self, shard: int = 0, num_shards: int = 1) -> Iterator[AssetRecord]:
        """Yield the assets of one shard in an order that depends on the content of the source only.

        An asset belongs to the shard ``shard_of(asset_id, num_shards)``, so that adding assets moves no other.
        A bad item is appended to ``rejected`` and skipped; only a source that cannot be read at all raises.

        Raises:
            SourceError: there is no such source. ConfigError: ``shard`` is not below ``num_shards``.
        """
        ...

    def open(self, record: AssetRecord) -> Path:
        """Local file of an asset, ready for ``load_asset``; downloads it first if it has to.

        Raises:
            SourceError: no file of that name, or one that changed. FetchError: the download failed.
        """
        ...


def shard_of(asset_id: str, num_shards: int) -> int:
    """Shard of an asset, from its id alone: ``shard_of("duck", 4) -> 0`` on every machine."""
    return int.from_bytes(hashlib.sha256(asset_id.encode()).digest()[:8], "big") % num_shards


def check_shard(shard: int, num_shards: int) -> None:
    """Raise ConfigError unless ``0 <= shard < num_shards``."""
    if not 0 <= shard < num_shards:
        raise ConfigError(
            "the shard must be at least 0 and below the number of shards",
            received=(shard, num_shards),
            fix="With --num-shards 4 the shards are 0, 1, 2 and 3",
        )


def in_shard(asset_id: str, shard: int, num_shards: int) -> bool:
    """True if the asset belongs to that shard."""
    return num_shards == 1 or shard_of(asset_id, num_shards) == shard
