"""What Objaverse says about its assets, in a small local database: licence, author, size, faces, folder.

Objaverse keeps this in 160 packed JSON files that unpack to gigabytes. They are read once, one after the other;
a file that was read is not read again, so an interrupted preparation goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threestudio_redream.retrieval.curation.licences import licence_fields
from threestudio_redream.retrieval.errors import FetchError, SourceError
from threestudio_redream.retrieval.sources.captions import clean_text

__all__ = ["Catalogue", "Entry", "check_packed_json", "read_packed_json"]

MAX_UNPACKED_BYTES = 1024**3
_OBJECT_PATH = re.compile(r"glbs/(\d{3}-\d{3})/([0-9a-f]{32})\.glb")
_UID = re.compile(r"[0-9a-f]{32}")
_COLUMNS = ("uid", "folder", "name", "author", "licence", "licence_url", "faces", "n_bytes")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS assets (
    uid TEXT PRIMARY KEY, folder TEXT NOT NULL, name TEXT NOT NULL DEFAULT '', author TEXT NOT NULL DEFAULT '',
    licence TEXT NOT NULL DEFAULT '', licence_url TEXT NOT NULL DEFAULT '', faces INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0, tags TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS read_files (name TEXT PRIMARY KEY) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Entry:
    """One asset. ``faces`` and ``n_bytes`` are 0 where Objaverse does not say; ``tags`` are free words."""

    uid: str
    folder: str
    name: str = ""
    author: str = ""
    licence: str = ""
    licence_url: str = ""
    faces: int = 0
    n_bytes: int = 0
    tags: tuple[str, ...] = ()

    @property
    def object_path(self) -> str:
        """Where the asset lies below the data set, e.g. ``glbs/000-023/<uid>.glb``."""
        return f"glbs/{self.folder}/{self.uid}.glb"


def read_packed_json(path: Path, cap: int = MAX_UNPACKED_BYTES) -> Any:
    """A gzip file with JSON in it, unpacked to at most ``cap`` bytes.

    Raises:
        SourceError: truncated, not gzip, not JSON, or larger.
    """
    try:
        with gzip.open(path, "rb") as file:
            data = file.read(cap + 1)
        if len(data) > cap:
            raise SourceError(
                f"{path.name}: it unpacks to more than {cap:,} bytes", received=len(data), fix="Remove it"
            )
        return json.loads(data)
    except SourceError:
        raise
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise SourceError(
            f"{path.name}: it is not JSON packed with gzip",
            received=str(error)[:200],
            fix="Remove it and fetch it again",
        ) from error


def check_packed_json(path: Path) -> None:
    """The check of :func:`.download` for such a file."""
    try:
        read_packed_json(path)
    except SourceError as error:
        raise FetchError(error.problem, received=error.received, fix="Fetch it again") from error


class Catalogue:
    """The database. Use it in a ``with`` block; reading from several processes at once is fine.

    Raises:
        SourceError: the file is no such database.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._guard():
            self._connection = sqlite3.connect(self._path, timeout=60.0)
            self._connection.executescript(_SCHEMA)

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def add_paths(self, paths: Any, name: str) -> int:
        """Take over ``{uid: "glbs/<folder>/<uid>.glb"}``; what looks different is left out. Returns how many."""
        rows = []
        for uid, path in (paths if isinstance(paths, dict) else {}).items():
            match = _OBJECT_PATH.fullmatch(path) if isinstance(path, str) else None
            if match is not None and match[2] == uid:
                rows.append((uid, match[1]))
        self._write("INSERT OR IGNORE INTO assets (uid, folder) VALUES (?, ?)", rows, name)
        return len(rows)

    def add_annotations(self, annotations: Any, name: str) -> int:
        """Take over one file of annotations, ``{uid: {...}}``. Returns how many of them were usable."""
        rows = []
        for uid, said in (annotations if isinstance(annotations, dict) else {}).items():
            if _UID.fullmatch(uid) is not None and isinstance(said, dict):
                rows.append((*_annotation(said), uid))
        self._write(
            "UPDATE assets SET name=?, author=?, licence=?, licence_url=?, faces=?, bytes=?, tags=? WHERE uid=?",
            rows,
            name,
        )
        return len(rows)

    def has_read(self, name: str) -> bool:
        """True if that file was taken over completely."""
        with self._guard():
            return self._connection.execute("SELECT 1 FROM read_files WHERE name=?", (name,)).fetchone() is not None

    def folders(self) -> list[str]:
        """Names of the folders that hold assets, sorted; each has a file of annotations."""
        with self._guard():
            rows = self._connection.execute("SELECT DISTINCT folder FROM assets ORDER BY folder").fetchall()
        return [row[0] for row in rows]

    def look_up(self, uids: Sequence[str]) -> dict[str, Entry]:
        """Entries of those uids that are known."""
        found: dict[str, Entry] = {}
        for start in range(0, len(uids), 500):
            chunk = list(uids[start : start + 500])
            marks = ",".join("?" * len(chunk))
            with self._guard():
                rows = self._connection.execute(f"SELECT * FROM assets WHERE uid IN ({marks})", chunk).fetchall()
            for row in rows:
                *values, tags = row
                entry = dict(zip(_COLUMNS, values, strict=True))
                found[values[0]] = Entry(**entry, tags=tuple(tags.split("\n")) if tags else ())
        return found

    def _write(self, statement: str, rows: Iterable[tuple[Any, ...]], name: str) -> None:
        with self._guard(), self._connection:  # one transaction: the file counts as read, or nothing happened
            self._connection.executemany(statement, rows)
            self._connection.execute("INSERT OR IGNORE INTO read_files VALUES (?)", (name,))

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise SourceError(
                f"{self._path.name}: the catalogue cannot be used",
                received=str(error)[:200],
                fix="Remove it and prepare again",
            ) from error


def _annotation(said: dict[str, Any]) -> tuple[str, str, str, str, int, int, str]:
    user = said.get("user")
    author = _words(user, "displayName") or _words(user, "username") if isinstance(user, dict) else ""
    licence, url = licence_fields(_words(said, "license"))
    archives = said.get("archives")
    glb = archives.get("glb") if isinstance(archives, dict) else None
    tags = said.get("tags")
    names = [_words(tag, "name") for tag in tags[:16] if isinstance(tag, dict)] if isinstance(tags, list) else []
    return (
        _words(said, "name"),
        author,
        licence,
        url,
        _count(said, "faceCount"),
        _count(glb, "size") if isinstance(glb, dict) else 0,
        "\n".join(name for name in names if name),
    )


def _words(values: Any, key: str) -> str:
    value = values.get(key)
    return clean_text(value, 200) if isinstance(value, str) else ""


def _count(values: dict[str, Any], key: str) -> int:
    value = values.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else 0
