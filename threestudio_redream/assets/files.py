"""The only door to the file system and to zip archives: what an asset may read, and how much of it."""

from __future__ import annotations

import os
import re
import stat
import struct
import zipfile
import zlib
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Protocol

from threestudio_redream.assets.limits import Limits, check_limit
from threestudio_redream.errors import AssetError, AssetLimitError

__all__ = ["ArchiveFiles", "FolderFiles", "MissingSideFileError", "SideFiles", "read_asset_file", "safe_parts"]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError)
_MESH_SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")


class MissingSideFileError(AssetError):
    """A file that the asset refers to is not there; harmless for a texture, fatal for a buffer."""


class SideFiles(Protocol):
    """Where the files lie that an asset refers to (MTL, textures, glTF buffers)."""

    def read(self, reference: str, what: str) -> bytes:
        """Bytes of the file that ``reference`` names; ``what`` says in errors what it is for."""
        ...


def safe_parts(reference: str, what: str) -> tuple[str, ...]:
    """Split a reference from inside a file into path components that cannot leave the asset's folder.

    Raises:
        AssetError: a URL, an absolute path, a drive letter, ``..``, or control characters.
    """
    name = reference.replace("\\", "/")
    if _SCHEME.match(name) or name.startswith("//"):
        raise AssetError(
            f"{what} is a remote address, and nothing is downloaded while loading",
            received=reference,
            fix="Save that file beside the asset and refer to it by its name",
        )
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ":" in name[:2] or ".." in parts or _CONTROL.search(name):
        raise AssetError(
            f"{what} points outside the folder of the asset",
            received=reference,
            fix="Move that file beside the asset and refer to it by its relative name",
        )
    if not parts or len(name) > 1024:
        raise MissingSideFileError(f"{what} has no usable name", received=reference, fix="Name a file beside the asset")
    return parts


def read_asset_file(path: Path, limit: int, what: str = "the asset") -> bytes:
    """Read a regular file of at most ``limit`` bytes; pipes, devices and folders are refused unopened.

    Raises:
        MissingSideFileError: nothing is there. AssetError: not a regular file, or unreadable.
        AssetLimitError: larger than ``limit``.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        missing = MissingSideFileError(f"{what} was not found", received=str(path), fix="Check the path")
        raise missing from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise AssetError(
            f"{what} is {kind}", received=str(path), fix="Name one GLB, glTF, OBJ, PLY, STL, OFF or zip file"
        )
    try:
        # Non-blocking, and one byte more than allowed: the file may have been swapped or may be growing.
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
            data = file.read(limit + 1) if status.st_size <= limit else b""
    except OSError as error:
        raise AssetError(f"{what} cannot be read: {error.strerror}", received=str(path), fix="Check it") from error
    size = max(status.st_size, len(data))
    if size > limit:
        raise AssetLimitError(
            f"{what} is larger than the {limit:,} bytes that are left under the cap",
            received=size,
            fix="Simplify the file or, if you trust it, pass limits with a larger max_bytes",
        )
    return data


class FolderFiles:
    """Side files in the folder of the asset or below it, within one byte budget; links may not lead out."""

    def __init__(self, folder: Path, budget: int) -> None:
        self._root, self._left = folder.resolve(), budget

    def read(self, reference: str, what: str) -> bytes:
        parts = safe_parts(reference, what)
        try:
            path = self._root.joinpath(*parts).resolve()
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
            raise MissingSideFileError(f"{what} was not found", received=reference, fix="Check the path") from error
        if not path.is_relative_to(self._root):
            raise AssetError(
                f"{what} is a link that leads outside the folder of the asset",
                received=reference,
                fix="Copy that file beside the asset instead of linking it",
            )
        data = read_asset_file(path, self._left, what)
        self._left -= len(data)
        return data


class ArchiveFiles:
    """A zip archive in memory: at most one mesh inside, members unpacked one by one within one budget."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        self._left = limits.max_unpacked_bytes
        self._base = PurePosixPath()
        self._archive, self._members = _open_archive(data, limits)

    def open_mesh(self) -> tuple[str, bytes]:
        """Name and bytes of the one mesh in the archive; side files are then looked up beside it."""
        names = [name for name in self._members if name.lower().endswith(_MESH_SUFFIXES)]
        if len(names) != 1:
            raise AssetError(
                f"the zip archive holds {len(names)} meshes instead of one",
                received=names[:5],
                fix="Pack one GLB, glTF, OBJ, PLY, STL or OFF file with its textures",
            )
        self._base = PurePosixPath(names[0]).parent
        return names[0], self._unpack(names[0])

    def read(self, reference: str, what: str) -> bytes:
        name = str(self._base.joinpath(*safe_parts(reference, what)))
        if name not in self._members:
            raise MissingSideFileError(f"{what} is not in the archive", received=reference, fix="Add that file to it")
        return self._unpack(name)

    def _unpack(self, name: str) -> bytes:
        try:
            with self._archive.open(self._members[name]) as stream:
                data = stream.read(self._left + 1)
        except _ZIP_DAMAGE as error:
            raise AssetError(
                f"a member of the zip archive cannot be unpacked: {error}", received=name, fix="Pack the archive again"
            ) from error
        if len(data) > self._left:
            raise AssetLimitError(
                f"the zip archive unpacks to more than the {self._left:,} bytes that are left under the cap",
                received=name,
                fix="Unpack it yourself or pass limits with a larger max_unpacked_bytes",
            )
        self._left -= len(data)
        return data


def _open_archive(data: bytes, limits: Limits) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """An archive and its members by name, after its declared sizes have been checked.

    The end record is read here first: the standard library builds an object per entry that the
    archive claims to have, which by itself can take minutes.
    """
    end = data.rfind(b"PK\x05\x06", max(0, len(data) - 65_557))
    if end < 0 or end + 22 > len(data):
        raise AssetError("the zip archive is truncated", received=len(data), fix="Download or pack it again")
    count, directory_bytes = struct.unpack_from("<H", data, end + 10)[0], struct.unpack_from("<I", data, end + 12)[0]
    check_limit(limits, "max_archive_members", count, "archive members")
    if data[max(0, end - 20) : end].startswith(b"PK\x06\x07") or directory_bytes > 1024 * (
        limits.max_archive_members + 1
    ):
        raise AssetLimitError(
            "the directory of the zip archive is too large",
            received=directory_bytes,
            fix="Pack fewer files, without zip64",
        )
    try:
        archive = zipfile.ZipFile(BytesIO(data))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise AssetError(f"the zip archive is damaged: {error}", received=len(data), fix="Pack it again") from error
    entries = archive.infolist()
    check_limit(limits, "max_archive_members", len(entries), "archive members")
    members: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        if entry.filename.endswith("/") or entry.filename.startswith("__MACOSX/"):
            continue
        name = str(PurePosixPath(*safe_parts(entry.filename, "an archive member")))
        if name in members or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise AssetError(
                "an archive member is stored twice or in an unusual way",
                received=name,
                fix="Pack the archive again with deflate",
            )
        members[name] = entry
    check_limit(limits, "max_unpacked_bytes", sum(entry.file_size for entry in members.values()), "unpacked bytes")
    return archive, members
