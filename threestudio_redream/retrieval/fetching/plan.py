"""``redream fetch --plan``: files, bytes and licences before anything is downloaded; and the fetching itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from threestudio_redream.errors import RedreamError
from threestudio_redream.retrieval.types import AssetRecord

__all__ = ["FetchPlan", "Fetched", "PlannedFile", "Plans", "State", "fetch", "human_bytes", "plan_fetch"]

State = Literal["present", "partial", "missing", "refused"]


@dataclass(frozen=True)
class PlannedFile:
    """One file.

    Attributes:
        asset_id: or the name of the file, where it is no asset. url: empty while nobody said where it lies.
        n_bytes: of the whole file; None while nobody said how large it is.
        state: ``present``, ``partial`` (an earlier download was cut off), ``missing``, or ``refused``, which
            ``note`` explains.
    """

    asset_id: str
    url: str
    path: Path
    n_bytes: int | None
    licence: str
    author: str
    state: State
    note: str = ""


@dataclass(frozen=True)
class FetchPlan:
    """Files in the order in which they would be fetched."""

    files: tuple[PlannedFile, ...]

    @property
    def to_fetch(self) -> tuple[PlannedFile, ...]:
        """Those that are not there and not refused."""
        return tuple(file for file in self.files if file.state in ("partial", "missing"))

    def to_json(self) -> dict[str, Any]:
        """``{"files", "n_files", "n_bytes", "n_unknown_size", "licences"}``; sums are over what would be fetched."""
        pending = self.to_fetch
        return {
            "files": [{**asdict(file), "path": str(file.path)} for file in self.files],
            "n_files": len(pending),
            "n_bytes": sum(file.n_bytes or 0 for file in pending),
            "n_unknown_size": sum(file.n_bytes is None for file in pending),
            "licences": dict(sorted(Counter(file.licence or "unknown" for file in pending).items())),
        }

    def to_text(self) -> str:
        """A table for people: a line per file, then the sums."""
        lines = [
            f"{file.state:8}  {human_bytes(file.n_bytes):>10}  {file.licence or 'unknown':18}  {file.asset_id}"
            + (f"  by {file.author}" if file.author else "")
            + (f"  ({file.note})" if file.note else "")
            for file in self.files
        ]
        sums = self.to_json()
        unknown = f", and {sums['n_unknown_size']} of unknown size" if sums["n_unknown_size"] else ""
        lines.append(f"to fetch: {sums['n_files']} files, {human_bytes(sums['n_bytes'])}{unknown}")
        lines += [f"  {count} x {licence}" for licence, count in sums["licences"].items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Fetched:
    """What :func:`fetch` did: files by asset id, and reasons by asset id for what failed or was refused."""

    paths: dict[str, Path]
    failures: dict[str, str]


class Plans(Protocol):
    """A source whose files are elsewhere."""

    def planned_file(self, record: AssetRecord) -> PlannedFile:
        """What ``open`` would fetch, without fetching it."""
        ...

    def open(self, record: AssetRecord) -> Path:
        """See :meth:`.Source.open`."""
        ...


def human_bytes(count: int | None) -> str:
    """``human_bytes(1_500_000) -> "1.5 MB"``; powers of 1000."""
    if count is None:
        return "?"
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.95:
            break
        value, unit = value / 1000.0, larger
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def plan_fetch(source: Plans, records: Iterable[AssetRecord]) -> FetchPlan:
    """What :func:`fetch` would do. Downloads nothing and asks no server.

    Raises:
        SourceError: the source does not know an asset.
    """
    return FetchPlan(tuple(source.planned_file(record) for record in records))


def fetch(
    source: Plans, records: Iterable[AssetRecord], progress: Callable[[int, int], None] = lambda done, total: None
) -> Fetched:
    """Fetch what is missing, one file after the other. A failure is noted, and the rest goes on.

    Args:
        progress: called with files done and in all.
    """
    todo = list(records)
    paths: dict[str, Path] = {}
    failures: dict[str, str] = {}
    for done, record in enumerate(todo, start=1):
        try:
            planned = source.planned_file(record)
            if planned.state == "refused":
                failures[record.asset_id] = planned.note
            else:
                paths[record.asset_id] = source.open(record)
        except (RedreamError, OSError) as error:
            failures[record.asset_id] = str(error)
        progress(done, len(todo))
    return Fetched(paths, failures)
