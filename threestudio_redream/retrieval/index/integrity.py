"""Is every file of an index the one that its manifest names, and is there no other?"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

from threestudio_redream.retrieval.errors import IndexDamagedError
from threestudio_redream.retrieval.index.journal import STAGING, Journal
from threestudio_redream.retrieval.index.manifest import MANIFEST, FileEntry, Manifest

__all__ = ["Check", "check_files", "file_entry", "find_damage", "hash_file", "refuse_links"]

Check = Literal["auto", "full", "quick"]
_SPOTS, _SPOT_BYTES = 64, 4096
_BLOCK = 4 * 1024**2
_AUTO_BYTES = 64 * 1024**2  # `auto` hashes indexes up to this size: 0.1 s
_FIX = "Restore the file from a copy, or build the index again"


def hash_file(path: Path) -> str:
    """SHA-256 of a whole file, hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def file_entry(path: Path, name: str) -> FileEntry:
    """What a manifest says about a file; ``name`` is its path below the index folder."""
    return FileEntry(name, hash_file(path), path.stat().st_size, _spot_hash(path))


def check_files(folder: Path, manifest: Manifest, check: Check) -> None:
    """Raise the first problem that opening an index must notice.

    ``auto`` and ``full`` read every byte of an index of up to 64 MiB; of a larger one ``auto`` reads 64 blocks per
    file, which finds missing, truncated, swapped and rebuilt files, but not every flipped bit. ``full`` always reads
    everything; ``quick`` compares lengths only.
    """
    entries = list(manifest.entries())
    deep = check == "full" or (check == "auto" and sum(entry.n_bytes for entry in entries) <= _AUTO_BYTES)
    known = {entry.sha256: entry for entry in entries} if check != "quick" else {}
    for entry in entries:
        problem = _problem(folder, entry, known, deep=deep, spot=check != "quick")
        if problem:
            raise problem
    if check != "quick":
        for extra in _extra(folder, {entry.path for entry in entries}):
            raise extra


def find_damage(folder: Path, manifest: Manifest) -> list[IndexDamagedError]:
    """Every missing, changed, swapped or extra file; reads all bytes."""
    entries = list(manifest.entries())
    known = {entry.sha256: entry for entry in entries}
    found = [_problem(folder, entry, known, deep=True, spot=False) for entry in entries]
    return [problem for problem in found if problem] + _extra(folder, {entry.path for entry in entries})


def refuse_links(folder: Path) -> None:
    """Raise IndexDamagedError if there is a link below ``folder``: through it a writer would reach files of others.

    What a dead writer left behind is looked at, too. The folder itself may be a link.
    """
    for path in _links(folder):
        raise IndexDamagedError(
            "this is a link, and an index holds none",
            file=path,
            kind="extra",
            received=path.rsplit("/", 1)[-1],
            fix="Take it out of the folder; what it leads to was not touched",
        )


def _links(folder: Path) -> list[str]:
    found = []
    for root, folders, files in os.walk(folder):
        paths = (Path(root) / name for name in (*folders, *files))
        found += [path.relative_to(folder).as_posix() for path in paths if path.is_symlink()]
    return sorted(found)


def _problem(
    folder: Path, entry: FileEntry, known: dict[str, FileEntry], *, deep: bool, spot: bool
) -> IndexDamagedError | None:
    path = folder / entry.path
    try:
        if path.is_symlink() or not path.is_file():
            what = "the file is missing" if not path.exists() else "this is not an ordinary file"
            return IndexDamagedError(what, file=entry.path, kind="missing", received=path.name, fix=_FIX)
        size = path.stat().st_size
        if size == entry.n_bytes and not deep and not (spot and _spot_hash(path) != entry.spot):
            return None
        found = hash_file(path) if known and (deep or size != entry.n_bytes or spot) else ""
    except OSError as error:
        return IndexDamagedError("the file cannot be read", file=entry.path, received=str(error), fix=_FIX)
    if found == entry.sha256:
        return None
    if found in known:
        other = known[found].path
        return IndexDamagedError(
            f"the file was swapped: it holds what {other} should hold",
            file=entry.path,
            kind="swapped",
            received=found,
            fix=_FIX,
        )
    problem = f"the file was changed: it should have {entry.n_bytes} bytes and SHA-256 {entry.sha256[:16]}..."
    return IndexDamagedError(problem, file=entry.path, kind="changed", received=(size, found[:16]), fix=_FIX)


def _extra(folder: Path, known: set[str]) -> list[IndexDamagedError]:
    """Files that no manifest names, and links. What a writer is moving, or a dead one left, is not among them."""
    staged_links = [path for path in _links(folder) if path.split("/")[0] == STAGING]
    found: list[str] = []
    for root, folders, files in os.walk(folder):
        below = Path(root).relative_to(folder).as_posix()
        if below == ".":
            folders[:] = [name for name in folders if name != STAGING]
            files = [name for name in files if name != STAGING]
        for name in [*files, *(f for f in folders if (Path(root) / f).is_symlink())]:
            path = name if below == "." else f"{below}/{name}"
            if path != MANIFEST and path not in known:
                found.append(path)
    # In this order: a writer notes what it moves before it moves it, and deletes before it forgets the note. So what
    # was there, is in no note, and is there still, is either foreign or named by a newer manifest.
    journal = Journal.read(folder) if found else Journal()
    return [
        IndexDamagedError(
            "this file does not belong to the index",
            file=path,
            kind="extra",
            received=path.rsplit("/", 1)[-1],
            fix="Take it out of the folder",
        )
        for path in sorted([*found, *staged_links])
        if (path in staged_links or not journal.covers(path)) and os.path.lexists(folder / path)
    ]


def _spot_hash(path: Path) -> str:
    digest = hashlib.sha256()
    size = path.stat().st_size
    with open(path, "rb") as file:
        for i in range(_SPOTS if size > _SPOTS * _SPOT_BYTES else 1):
            if size > _SPOTS * _SPOT_BYTES:
                file.seek((size - _SPOT_BYTES) * i // (_SPOTS - 1))
                digest.update(file.read(_SPOT_BYTES))
            else:
                digest.update(file.read())
    return digest.hexdigest()
