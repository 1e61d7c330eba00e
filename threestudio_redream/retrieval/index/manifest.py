"""The manifest: one JSON file that names every other file of an index, and says what its vectors mean.

It is replaced in one step, so whoever reads it sees one generation of the index. Everything it says is checked when
it is read: it may come from a stranger.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from threestudio_redream.retrieval.checks import Document, canonical_json
from threestudio_redream.retrieval.errors import IndexDamagedError, RetrievalError
from threestudio_redream.retrieval.index.spec import Calibration, EncoderInfo, IndexSpec

__all__ = [
    "FORMAT",
    "MANIFEST",
    "AnnEntry",
    "Calibration",
    "EncoderInfo",
    "FileEntry",
    "IndexSpec",
    "Manifest",
    "PartEntry",
    "read_manifest",
]

FORMAT = "redream-index-1"
MANIFEST = "manifest.json"
PART_FILES = ("table.parquet", "text.npy", "views.npy", "thumbs.npy")
MAX_BYTES = 64 * 1024**2
MAX_PARTS = 100_000
MAX_ROWS = 2**31 - 1
_HEX64 = r"[0-9a-f]{64}"
_ASSET_FILE = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}"
_REJECTED_FILE = r"rejected-[0-9a-f]{12}\.jsonl"
_ANN_FILE = r"[a-z0-9][a-z0-9._-]{0,63}"


@dataclass(frozen=True)
class FileEntry:
    """A file of the index: path below its folder, content hash, length, and a hash of a few blocks of it.

    ``spot`` is the SHA-256 of 64 evenly spaced blocks of 4 KiB: enough to tell large files apart in a millisecond.
    """

    path: str
    sha256: str
    n_bytes: int
    spot: str

    def to_json(self) -> dict[str, Any]:
        """Plain values without the path, which is the key."""
        return {"sha256": self.sha256, "bytes": self.n_bytes, "spot": self.spot}

    @staticmethod
    def from_json(path: str, document: Document) -> FileEntry:
        """Read what :meth:`to_json` wrote. Raises IndexDamagedError."""
        document.only("sha256", "bytes", "spot")
        return FileEntry(path, document.text("sha256", _HEX64), document.whole("bytes"), document.text("spot", _HEX64))


@dataclass(frozen=True)
class PartEntry:
    """An immutable group of rows.

    Attributes:
        part_id: names its folder and identifies its content. rows: number of assets. rows_digest: sum of the hashes
            of its rows modulo 2^256, in hex: equal for equal sets of rows, however they are cut into parts.
        files: by name within the part.
    """

    part_id: str
    rows: int
    rows_digest: str
    files: dict[str, FileEntry]

    def to_json(self) -> dict[str, Any]:
        """Plain values; :meth:`from_json` reads them."""
        return {
            "id": self.part_id,
            "rows": self.rows,
            "rows_digest": self.rows_digest,
            "files": {name: entry.to_json() for name, entry in sorted(self.files.items())},
        }

    @staticmethod
    def from_json(document: Document, folder: str = "parts") -> PartEntry:
        """Read what :meth:`to_json` wrote. Raises IndexDamagedError."""
        document.only("id", "rows", "rows_digest", "files")
        part_id, files = document.text("id", r"[0-9a-f]{32}"), document.child("files")
        files.only(*PART_FILES)
        for name in ("table.parquet", "text.npy"):
            if name not in files.values:
                document.refuse("files", sorted(files.values), f"complete, {name} is not in it")
        return PartEntry(
            part_id,
            document.whole("rows", 0, MAX_ROWS),
            document.text("rows_digest", _HEX64),
            {name: FileEntry.from_json(f"{folder}/{part_id}/{name}", files.child(name)) for name in files.values},
        )


@dataclass(frozen=True)
class AnnEntry:
    """An approximate index over the captions.

    Attributes:
        kind: backend, e.g. ``faiss-hnsw``. params: of its build and search. recall: measured against exact search,
            ``{"k", "recall", "queries", "ms"}``. content: :attr:`Manifest.content` it was built from.
        seal: proof that it was built by this user on this machine; other machines rebuild it and never read it.
        build: names its folder below ``ann/``. files: by name in that folder.
    """

    kind: str
    params: dict[str, Any]
    recall: dict[str, Any]
    content: str
    seal: str
    build: str
    files: dict[str, FileEntry]

    def to_json(self) -> dict[str, Any]:
        """Plain values; :meth:`from_json` reads them."""
        return {
            "kind": self.kind,
            "params": self.params,
            "recall": self.recall,
            "content": self.content,
            "seal": self.seal,
            "build": self.build,
            "files": {name: entry.to_json() for name, entry in sorted(self.files.items())},
        }

    @staticmethod
    def from_json(document: Document) -> AnnEntry:
        """Read what :meth:`to_json` wrote. Raises IndexDamagedError."""
        document.only("kind", "params", "recall", "content", "seal", "build", "files")
        build = document.text("build", r"[0-9a-f]{16}")
        return AnnEntry(
            document.text("kind", r"[a-z][a-z0-9-]{0,31}"),
            dict(document.child("params").values),
            dict(document.child("recall").values),
            document.text("content", _HEX64),
            document.text("seal", _HEX64),
            build,
            _files(document, f"ann/{build}", _ANN_FILE),
        )


@dataclass(frozen=True)
class Manifest:
    """What one generation of an index consists of.

    Attributes:
        spec: of all its vectors. generation: counts the writes, from 1. parts: in the order of their rows.
        assets: copies of asset files, by name below ``assets/``. rejected: the list of refused assets, if any.
        n_rejected: how many lines it has. calibration: None until it was made. ann: None unless asked for.
    """

    spec: IndexSpec
    generation: int = 0
    parts: tuple[PartEntry, ...] = ()
    assets: dict[str, FileEntry] = field(default_factory=dict)
    rejected: FileEntry | None = None
    n_rejected: int = 0
    calibration: Calibration | None = None
    ann: AnnEntry | None = None

    @property
    def rows(self) -> int:
        """Number of assets."""
        return sum(part.rows for part in self.parts)

    @property
    def content(self) -> str:
        """Hash of all rows, 64 hex digits. It does not depend on their order, or on how they are cut into parts."""
        return f"{sum(int(part.rows_digest, 16) for part in self.parts) % 2**256:064x}"

    def entries(self) -> Iterator[FileEntry]:
        """Every file that belongs to the index, but the manifest itself."""
        for part in self.parts:
            yield from part.files.values()
        yield from self.assets.values()
        if self.rejected:
            yield self.rejected
        if self.ann:
            yield from self.ann.files.values()

    def next(self, **changes: Any) -> Manifest:
        """The following generation. An approximate index of other rows is dropped, the calibration is kept."""
        new = replace(self, generation=self.generation + 1, **changes)
        return replace(new, ann=None) if new.ann and new.ann.content != new.content else new

    def to_bytes(self) -> bytes:
        """The file. It ends with a digest of itself, so that a damaged one is noticed."""
        values: dict[str, Any] = {
            "format": FORMAT,
            "generation": self.generation,
            **self.spec.to_json(),
            "counts": {"assets": self.rows, "rejected": self.n_rejected},
            "content": self.content,
            "parts": [part.to_json() for part in self.parts],
            "assets": {name: entry.to_json() for name, entry in sorted(self.assets.items())},
            "rejected": {self.rejected.path: self.rejected.to_json()} if self.rejected else {},
            "calibration": self.calibration.to_json() if self.calibration else None,
            "ann": self.ann.to_json() if self.ann else None,
        }
        data = json.dumps({**values, "digest": _digest(values)}, indent=1, ensure_ascii=False, allow_nan=False).encode()
        if len(data) > MAX_BYTES:
            raise RetrievalError(
                f"the list of files of this index is longer than {MAX_BYTES // 1024**2} MiB",
                received=len(data),
                fix="Leave the copies of the asset files out, or use fewer and larger parts",
            )
        return data

    @staticmethod
    def from_bytes(data: bytes) -> Manifest:
        """Read and check a manifest.

        Raises:
            IndexDamagedError: it was changed, or is no manifest of this format.
        """
        document = Document.read(data, MANIFEST)
        document.text("format", FORMAT)
        values = {key: value for key, value in document.values.items() if key != "digest"}
        if document.text("digest", _HEX64) != _digest(values):
            raise IndexDamagedError(
                "the manifest was changed after it was written",
                file=MANIFEST,
                kind="changed",
                received=document.values["digest"],
                fix="Restore it from a copy, or build the index again",
            )
        return _parse(document)


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of the index in ``folder``.

    Raises:
        RetrievalError: there is none. IndexDamagedError: it cannot be used.
    """
    path = Path(folder) / MANIFEST
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RetrievalError(
            "there is no index in this folder: it has no manifest.json",
            received=str(folder),
            fix="Build one with: redream index build SOURCE --out DIR",
        ) from error
    except OSError as error:
        raise IndexDamagedError(
            "the manifest cannot be read",
            file=MANIFEST,
            received=str(error),
            fix="Check the permissions of the folder and the disk",
        ) from error
    if len(data) > MAX_BYTES:
        raise IndexDamagedError(
            f"the manifest is longer than {MAX_BYTES} bytes",
            file=MANIFEST,
            received=path.stat().st_size,
            fix="Restore it from a copy, or build the index again",
        )
    return Manifest.from_bytes(data)


def _parse(document: Document) -> Manifest:
    document.only(
        *("format", "generation", "encoder", "probe", "views_per_asset", "cameras", "dtype", "settings", "counts"),
        *("content", "parts", "assets", "rejected", "calibration", "ann", "digest"),
    )
    spec, counts = IndexSpec.from_json(document), document.child("counts")
    counts.only("assets", "rejected")
    parts = tuple(PartEntry.from_json(part) for part in document.children("parts", MAX_PARTS))
    if len({part.part_id for part in parts}) != len(parts):
        document.refuse("parts", [part.part_id for part in parts], "a list of different parts")
    for part in parts:
        if "views.npy" in part.files and not spec.views_per_asset:
            document.refuse("parts", part.part_id, "without views, as views_per_asset 0 says")
    rejected = document.child("rejected").values
    if len(rejected) > 1:
        document.refuse("rejected", list(rejected), "one file")
    manifest = Manifest(
        spec,
        document.whole("generation", 1),
        parts,
        _files(document, "assets", _ASSET_FILE, key="assets"),
        next(iter(_files(document, "", _REJECTED_FILE, key="rejected").values()), None),
        counts.whole("rejected", 0),
        None if document.values.get("calibration") is None else Calibration.from_json(document.child("calibration")),
        None if document.values.get("ann") is None else AnnEntry.from_json(document.child("ann")),
    )
    if counts.whole("assets", 0) != manifest.rows:
        counts.refuse("assets", counts.values["assets"], f"the sum of the parts, {manifest.rows}")
    if document.text("content", _HEX64) != manifest.content:
        document.refuse("content", document.values["content"], "the content hash of its parts")
    return manifest


def _files(document: Document, folder: str, pattern: str, key: str = "files") -> dict[str, FileEntry]:
    """Entries by name; a name is one path segment that matches ``pattern``."""
    files = document.child(key)
    entries = {}
    for name in files.values:
        Document({"name": name}, files.file, files.where).text("name", pattern, 256)
        entries[name] = FileEntry.from_json(f"{folder}/{name}" if folder else name, files.child(name))
    return entries


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()
