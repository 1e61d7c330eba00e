"""What a build will do, written down in its work folder: which assets, in which chunks, with which settings.

    <parent>/.<index name>.build/
      plan.json              settings, chunks as (key, offset, rows); replaced in one step
      records-<hash>.jsonl   the assets, in the order of the source; refused-<hash>.jsonl: what was left out, and why
      chunks/<key>/          a finished chunk; <key>.renders/ one that waits for its embeddings

The key of a chunk is a hash over its assets and everything that shapes the result, so that a build that is repeated,
continued, or spread over machines never does a chunk twice and never takes a stale one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from threestudio_redream.errors import ConfigError
from threestudio_redream.retrieval.checks import canonical_json
from threestudio_redream.retrieval.curation.filters import FilterSettings
from threestudio_redream.retrieval.curation.licences import LicencePolicy
from threestudio_redream.retrieval.errors import RetrievalError
from threestudio_redream.retrieval.sources import Source, open_source
from threestudio_redream.retrieval.types import AssetRecord, record_to_json
from threestudio_redream.retrieval.views import DEFAULT_VIEWS, ViewSpec
from threestudio_redream.runtime.files import atomic_write_text

__all__ = ["BuildSettings", "Chunk", "Plan", "SourceSpec", "record_from_json", "work_folder"]

_PLAN = "plan.json"
_FORMAT = "redream-build-1"


@dataclass(frozen=True)
class SourceSpec:
    """A source by its arguments, so that other processes can open it too; see :func:`.sources.open_source`."""

    spec: str
    table: str | None = None
    captions: str | None = None
    cache: str | None = None
    caption: str = ""
    licence: str = ""
    author: str = ""

    def open(self, policy: LicencePolicy | None = None) -> Source:
        """Open it; assets whose licence the policy does not admit are left out."""
        return open_source(**asdict(self), policy=policy)


@dataclass(frozen=True)
class BuildSettings:
    """Everything that shapes the content of an index.

    Attributes:
        encoder: name for :func:`.encoders.open_encoder`. precision: of its towers: ``float32``, ``bfloat16``, ...
            device, batch_size: as there.
        dtype: number format of the stored vectors.
        views: cameras of the pictures; None: captions only, pictures are made when a query wants them.
        align: look for the front of assets whose sidecar does not tell.
        thumbnails: keep a picture of 64 px. copy_assets: keep the files themselves, where one file is a whole asset.
        filters, licences: which assets are left out; None: the licences that the source admits by default.
        duplicate_cosine: of mean views; an asset that reaches it with an earlier one is left out.
        chunk_size: assets that are done at a time; a kill loses one chunk at most.
    """

    encoder: str = "mini"
    precision: str = "float32"
    device: str = "auto"
    batch_size: int = 32
    dtype: str = "float16"
    views: ViewSpec | None = DEFAULT_VIEWS
    align: bool = True
    thumbnails: bool = True
    copy_assets: bool = False
    filters: FilterSettings = field(default_factory=FilterSettings)
    licences: LicencePolicy | None = None
    duplicate_cosine: float = 0.995
    chunk_size: int = 64

    def __post_init__(self) -> None:
        if not 0.0 < self.duplicate_cosine <= 1.0:
            raise ConfigError(
                "The threshold of near-duplicates is out of range",
                received=self.duplicate_cosine,
                fix="Use for example 0.995; 1 keeps all but exact copies.",
            )
        if not 1 <= self.chunk_size <= 65_536:
            raise ConfigError("The chunk size is out of range", received=self.chunk_size, fix="Use for example 64.")

    def to_json(self) -> dict[str, Any]:
        """Plain values; :meth:`from_json` reads them."""
        return {**asdict(self), "views": self.views.to_json() if self.views else None}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> BuildSettings:
        """Read what :meth:`to_json` wrote."""
        return BuildSettings(
            **{
                **values,
                "views": ViewSpec.from_json(values["views"]) if values["views"] else None,
                "filters": FilterSettings(**values["filters"]),
                "licences": LicencePolicy(**values["licences"]) if values["licences"] else None,
            }
        )


@dataclass(frozen=True)
class Chunk:
    """Some consecutive assets: ``rows`` lines of the records file from byte ``offset`` on."""

    key: str
    offset: int
    rows: int


@dataclass(frozen=True)
class Plan:
    """A build, as written down.

    Attributes:
        folder: the work folder. source, settings: of the build. fingerprint, image_size: of the encoder.
        records, refused: names of the two files. chunks: all of them. unchanged: assets that the index has already.
    """

    folder: Path
    source: SourceSpec
    settings: BuildSettings
    fingerprint: str
    image_size: int
    records: str = ""
    refused: str = ""
    chunks: tuple[Chunk, ...] = ()
    unchanged: int = 0

    def open_source(self) -> Source:
        """The source, with the licence filter of the settings."""
        return self.source.open(self.settings.licences)

    @property
    def identity(self) -> str:
        """Changes with the assets and with every setting."""
        return _hash([chunk.key for chunk in self.chunks], self.refused, self.settings.to_json())

    def chunk_folder(self, chunk: Chunk) -> Path:
        """Where the finished chunk is, or will be."""
        return self.folder / "chunks" / chunk.key

    def renders_folder(self, chunk: Chunk) -> Path:
        """Where its pictures are, or will be."""
        return self.folder / "chunks" / f"{chunk.key}.renders"

    def trying_file(self, chunk: Chunk) -> Path:
        """Names the asset that is being opened and rendered right now."""
        return self.folder / "chunks" / f"{chunk.key}.trying"

    def is_done(self, chunk: Chunk) -> bool:
        """Whether the chunk is finished."""
        return self.chunk_folder(chunk).is_dir()

    def read_chunk(self, chunk: Chunk) -> list[AssetRecord]:
        """Its assets."""
        with open(self.folder / self.records, encoding="utf-8") as file:
            file.seek(chunk.offset)
            return [record_from_json(json.loads(file.readline())) for _ in range(chunk.rows)]

    def read_refused(self) -> list[dict[str, Any]]:
        """Items that were left out before anything was rendered."""
        return read_lines(self.folder / self.refused)

    def chunk_key(self, records: list[AssetRecord]) -> str:
        """Key of a chunk with these assets."""
        shape = {key: value for key, value in self.settings.to_json().items() if key not in _SHAPELESS}
        return _hash([record_to_json(record) for record in records], shape, self.fingerprint)[:32]

    def save(self) -> None:
        """Write ``plan.json``."""
        values = {
            "format": _FORMAT,
            "source": asdict(self.source),
            "settings": self.settings.to_json(),
            "fingerprint": self.fingerprint,
            "image_size": self.image_size,
            "records": self.records,
            "refused": self.refused,
            "chunks": [[chunk.key, chunk.offset, chunk.rows] for chunk in self.chunks],
            "unchanged": self.unchanged,
        }
        atomic_write_text(self.folder / _PLAN, json.dumps(values))

    @staticmethod
    def load(folder: Path) -> Plan:
        """Read ``plan.json``.

        Raises:
            RetrievalError: there is none, or it cannot be used.
        """
        try:
            values = json.loads((folder / _PLAN).read_text("utf-8"))
            if values["format"] != _FORMAT:
                raise ValueError(f"it has the format {values['format']!r}")
            return Plan(
                folder,
                SourceSpec(**values["source"]),
                BuildSettings.from_json(values["settings"]),
                str(values["fingerprint"]),
                int(values["image_size"]),
                Path(values["records"]).name,
                Path(values["refused"]).name,
                tuple(Chunk(Path(key).name, int(offset), int(rows)) for key, offset, rows in values["chunks"]),
                int(values["unchanged"]),
            )
        except FileNotFoundError as cause:
            raise RetrievalError(
                "There is no plan of a build here",
                received=str(folder),
                fix="Run the step `ingest` first, or all steps: redream index build SOURCE --out DIR",
            ) from cause
        except (OSError, ValueError, KeyError, TypeError) as cause:
            raise RetrievalError(
                f"The plan of the build cannot be used: {cause}",
                received=str(folder),
                fix="Delete the work folder and build again.",
            ) from cause


#: Settings without influence on the rows of a chunk; devices differ in the last bits, which the user accepts.
_SHAPELESS = ("licences", "duplicate_cosine", "chunk_size", "copy_assets", "dtype", "device")


def work_folder(out: Path) -> Path:
    """Work folder of the build of an index, beside it: ``work_folder("a/mini") -> a/.mini.build``."""
    out = Path(out).absolute()
    return out.parent / f".{out.name}.build"


def record_from_json(values: Mapping[str, Any]) -> AssetRecord:
    """Inverse of :func:`.types.record_to_json`."""
    return AssetRecord(**{**values, "tags": tuple(values["tags"])})


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSON-lines file."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Objects as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@contextmanager
def folder_in_place(target: Path) -> Iterator[Path]:
    """Yield a new folder that becomes ``target`` when the block ends; if another process was faster, its own stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        try:
            os.rename(temporary, target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def with_files(plan: Plan, records: str, refused: str, chunks: list[Chunk], unchanged: int) -> Plan:
    """The plan with its lists."""
    return replace(plan, records=records, refused=refused, chunks=tuple(chunks), unchanged=unchanged)


def _hash(*values: Any) -> str:
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()
