"""Where new rows wait for the next commit: each item is complete or not there.

.staging/parts/<name>/item.json     written last, so its folder is renamed into place with everything in it
.staging/parts/<name>/part/         table.parquet, text.npy, ...; absent if all assets were refused
.staging/parts/<name>/assets/       copies of asset files
.staging/parts/<name>/rejected.jsonl
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from threestudio_redream.retrieval.checks import Document, canonical_json
from threestudio_redream.retrieval.errors import RetrievalError
from threestudio_redream.retrieval.index.integrity import file_entry, refuse_links
from threestudio_redream.retrieval.index.journal import STAGING, delete
from threestudio_redream.retrieval.index.manifest import FileEntry, Manifest, PartEntry
from threestudio_redream.retrieval.index.parts import Part, write_rows
from threestudio_redream.retrieval.index.spec import IndexSpec
from threestudio_redream.retrieval.types import AssetRecord

__all__ = [
    "Item",
    "asset_id_of_copy",
    "read_items",
    "stage_index",
    "stage_item",
    "sweep",
    "temporary_folder",
    "tidy",
]

_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}(\.[a-z0-9]{1,8})?")
_COPY = re.compile(r"(.+)-[0-9a-f]{12}(\.[a-z0-9.]{1,18})?")
_ATTEMPTS = 20
_OLD_S = 7 * 86_400
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Item:
    """Rows that wait for a commit.

    Attributes:
        folder: of the item. spec: of its vectors. part: None if it has no rows. assets: copies of asset files, by
            name. rejected: lines of JSON.
    """

    folder: Path
    spec: IndexSpec
    part: PartEntry | None
    assets: dict[str, FileEntry]
    rejected: tuple[str, ...] = ()

    def save(self) -> None:
        """Write ``item.json`` and ``rejected.jsonl``."""
        values = {
            **self.spec.to_json(),
            "part": self.part.to_json() if self.part else None,
            "copies": {name: entry.to_json() for name, entry in self.assets.items()},
        }
        (self.folder / "rejected.jsonl").write_text("".join(line + "\n" for line in self.rejected), "utf-8")
        (self.folder / "item.json").write_text(json.dumps(values), "utf-8")

    @staticmethod
    def load(folder: Path) -> Item:
        """Read what :meth:`save` wrote. Raises IndexDamagedError."""
        document = Document.read((folder / "item.json").read_bytes(), f"{STAGING}/parts/{folder.name}/item.json")
        copies = document.child("copies")
        part = None if document.values.get("part") is None else PartEntry.from_json(document.child("part"))
        assets = {name: FileEntry.from_json(f"assets/{name}", copies.child(name)) for name in copies.values}
        lines = (folder / "rejected.jsonl").read_text("utf-8").split("\n")[:-1]
        return Item(folder, IndexSpec.from_json(document), part, assets, tuple(lines))


def read_items(folder: Path) -> list[Item]:
    """Complete items of the index in ``folder``, by name."""
    found = sorted((folder / STAGING / "parts").glob("*/item.json"))
    return [Item.load(path.parent) for path in found]


def stage_item(
    folder: Path,
    spec: IndexSpec,
    records: Sequence[AssetRecord],
    arrays: dict[str, np.ndarray],
    *,
    name: str | None,
    rejected: Iterable[Mapping[str, Any]],
    assets: Mapping[str, Path],
) -> Item:
    """Stage rows; see :meth:`.writer.IndexWriter.write_part`."""
    if name is not None and not _NAME.fullmatch(name):
        raise RetrievalError(
            "the name of a part must be letters, digits, '.', '_' and '-'", received=name, fix="Rename the part"
        )
    lines = tuple(_rejected_line(row) for row in rejected)
    with temporary_folder(folder) as work:
        part = write_rows(work / "part", records, arrays) if records else None
        item = Item(work, spec, part, _copy_assets(work, records, assets), lines)
        item.save()
        _sync(work)
        target = folder / STAGING / "parts" / (name or (part.part_id if part else f"none-{work.name}"))
        if target.exists():  # a shard that is done again
            delete(target)
        _within(target.parent, lambda: os.rename(work, target))
    return Item(target, spec, part, item.assets, lines)


def stage_index(folder: Path, other: Path, manifest: Manifest) -> list[Item]:
    """Copies of all parts of another index, in ``.staging/merge``. The caller holds the lock and has checked them."""
    lines: tuple[str, ...] = ()
    if manifest.rejected:
        lines = tuple((other / manifest.rejected.path).read_text("utf-8").split("\n")[:-1])
    items = [Item(folder / STAGING / "merge" / "rejected", manifest.spec, None, {}, lines)]
    for number, entry in enumerate(manifest.parts):
        own = folder / STAGING / "merge" / str(number)
        shutil.copytree(other / "parts" / entry.part_id, own / "part")
        ids = set(Part(other, entry, manifest.spec).table.ids()) if manifest.assets else set()
        copies = {name: copy for name, copy in manifest.assets.items() if asset_id_of_copy(name) in ids}
        for name, copy in copies.items():
            (own / "assets").mkdir(exist_ok=True)
            shutil.copyfile(other / copy.path, own / "assets" / name)
        items.append(Item(own, manifest.spec, entry, copies))
    return items


def _copy_name(record: AssetRecord, sha256: str, source: Path) -> str:
    """File name of the copy of an asset in the index: its id, the start of its hash, and its suffix."""
    suffix = "".join(source.suffixes[-2:] if source.suffix == ".gz" else [source.suffix]).lower()
    return f"{record.asset_id}-{sha256[:12]}" + (suffix if _SUFFIX.fullmatch(suffix) else "")


def asset_id_of_copy(name: str) -> str:
    """The asset that a file below ``assets/`` is a copy of; empty if the name is none of ours."""
    match = _COPY.fullmatch(name)
    return match[1] if match else ""


def sweep(folder: Path) -> None:
    """Delete what dead processes left half done. The caller holds the write lock."""
    staging = folder / STAGING
    for path in staging.glob("*"):
        if path.name.startswith("tmp-"):
            if _is_abandoned(path):
                delete(path)
        elif path.name not in ("parts", "lock", "journal.json"):
            delete(path)


def _copy_assets(work: Path, records: Sequence[AssetRecord], assets: Mapping[str, Path]) -> dict[str, FileEntry]:
    by_id = {record.asset_id: record for record in records}
    copies: dict[str, FileEntry] = {}
    for asset_id, source in sorted(assets.items()):
        if asset_id not in by_id:
            raise RetrievalError(
                "a file is given for an asset that is not in this part", received=asset_id, fix="Leave it out"
            )
        (work / "assets").mkdir(exist_ok=True)
        copy = work / "assets" / "copy"
        shutil.copyfile(source, copy)
        found = file_entry(copy, "")
        wanted = by_id[asset_id].sha256
        if wanted and wanted != found.sha256:
            raise RetrievalError(
                f"{source} is not the file that the record of {asset_id} describes: SHA-256 {wanted[:16]}...",
                received=found.sha256[:16],
                fix="Read the source again",
            )
        name = _copy_name(by_id[asset_id], found.sha256, Path(source))
        os.replace(copy, work / "assets" / name)
        copies[name] = FileEntry(f"assets/{name}", found.sha256, found.n_bytes, found.spot)
    return copies


def _rejected_line(row: Mapping[str, Any]) -> str:
    try:
        line = canonical_json(dict(row))
        line.encode()
    except (TypeError, ValueError) as error:
        raise RetrievalError(
            "a rejected asset must be described by plain JSON values", received=str(error), fix="Turn values into texts"
        ) from error
    return line.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x85", "\\u0085")


@contextlib.contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """A staging folder of the index in ``folder``, deleted unless the block moves it away.

    Its name tells others whether its maker still lives.

    Raises:
        IndexDamagedError: the index holds a link.
    """
    staging = folder / STAGING
    refuse_links(folder)
    prefix = f"tmp-{_host()}-{os.getpid()}-"
    work = Path(_within(staging, lambda: tempfile.mkdtemp(prefix=prefix, dir=staging)))
    work.chmod(0o777 & ~_umask())
    try:
        yield work
    finally:
        if work.exists():
            shutil.rmtree(work)
        tidy(folder)


def tidy(folder: Path) -> None:
    """Take the staging folder away if nothing is in it."""
    for path in (folder / STAGING / "parts", folder / STAGING):
        with contextlib.suppress(OSError):  # it is not empty, or somebody else was faster
            path.rmdir()


def _within(folder: Path, make: Callable[[], Any]) -> Any:
    """Make something in a folder that another process may :func:`tidy` away at any time."""
    for _ in range(_ATTEMPTS):
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            return make()
    return make()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", platform.node()) or "_"


def _is_abandoned(work: Path) -> bool:
    """Whether the maker of a temporary folder is dead; on another host that can only be guessed from its age."""
    host, pid = work.name.split("-")[1:3]
    try:
        if host != _host():
            return time.time() - work.stat().st_mtime > _OLD_S
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return True
    except OSError:  # somebody else's process, or the folder has just gone
        return False
    return False


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
