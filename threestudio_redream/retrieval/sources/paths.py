"""Paths below the root of a library, and the asset ids that are made of them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from threestudio_redream.retrieval.errors import SourceError

__all__ = ["MESH_SUFFIXES", "asset_id_of", "below", "digest_file", "find_meshes"]

MESH_SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off", ".zip")
MAX_PATH_CHARACTERS = 1024
MAX_FILES = 5_000_000
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._]*(?:-[A-Za-z0-9._]+)*(?:/[A-Za-z0-9][A-Za-z0-9._]*(?:-[A-Za-z0-9._]+)*)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def asset_id_of(path: str) -> str:
    """Id of the asset at a path below the root: ``"chairs/red_chair.glb" -> "chairs--red_chair"``.

    The id depends on that path alone, so adding files renames nothing. ``.glb`` is left out and other extensions
    are kept; what is not made of letters, digits, ``.``, ``_`` and single ``-`` is replaced, and then ten digits
    of a hash keep the id unique.
    """
    stem = path.removesuffix(".glb")
    plain = _PLAIN.fullmatch(path) is not None and (stem == path or not stem.lower().endswith(MESH_SUFFIXES))
    name = stem.replace("/", "--")
    if plain and len(name) <= 128:
        return name
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", stem).strip("-._")[:100] or "asset"
    return f"{slug}-{hashlib.sha256(path.encode(errors='surrogatepass')).hexdigest()[:10]}"


def find_meshes(root: Path, refuse: Callable[[str, str], None]) -> Iterator[tuple[str, Path]]:
    """Meshes below a folder: (path with forward slashes, file), folder by folder in the order of names.

    Hidden files and folders are left out; links to folders are not followed.

    Args:
        refuse: called with (path, reason) for a mesh that cannot be offered.

    Raises:
        SourceError: the folder cannot be read, or holds more than five million files.
    """
    seen = 0

    def fail(error: OSError) -> None:
        if Path(error.filename or root) == root:
            raise SourceError(
                "the folder of meshes cannot be read", received=str(error.strerror), fix="Check its path and its rights"
            ) from error
        refuse(_below_root(Path(error.filename), root), f"the folder cannot be read: {error.strerror}")

    for folder, folders, files in os.walk(root, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        for name in sorted(files):
            seen += 1
            if seen > MAX_FILES:
                raise SourceError(
                    "the folder holds too many files", received=seen, fix="Index its subfolders one by one"
                )
            if name.startswith(".") or not name.lower().endswith(MESH_SUFFIXES):
                continue
            path = Path(folder, name)
            relative = _below_root(path, root)
            if _CONTROL.search(relative) or "\\" in relative or len(relative) > MAX_PATH_CHARACTERS:
                shown = relative.encode("unicode_escape").decode()[:200]
                refuse(
                    shown, "the path is too long or holds control characters, a backslash, or bytes that are no text"
                )
                continue
            try:
                below(root, relative)
            except SourceError as error:
                refuse(relative, str(error))
                continue
            yield relative, path


def below(root: Path, relative: str) -> Path:
    """The regular file ``relative`` below ``root``, links resolved.

    Raises:
        SourceError: absolute, with ``..``, outside of the root once links are followed, or no regular file.
    """
    parts = relative.split("/")
    if not relative or relative.startswith("/") or "\\" in relative or ":" in parts[0] or {"", ".", ".."} & set(parts):
        raise SourceError(
            "the path of an asset is not a plain path below its library", received=relative, fix="Rebuild"
        )
    try:
        path, base = root.joinpath(*parts).resolve(), root.resolve()
        inside, regular = path.is_relative_to(base), path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise SourceError("the path of an asset cannot be followed", received=relative, fix="Check links") from error
    if not inside:
        raise SourceError(
            "the asset is a link that leads outside of its library", received=relative, fix="Copy the file instead"
        )
    if not regular:
        raise SourceError("the file of the asset is not there", received=relative, fix="Check the path of the library")
    return path


def digest_file(path: Path) -> tuple[str, int]:
    """SHA-256 (hex) and size of a file, read in blocks.

    Raises:
        SourceError: it cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise SourceError("the file cannot be read", received=error.strerror, fix="Check its rights") from error
    return digest.hexdigest(), size


def _below_root(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
