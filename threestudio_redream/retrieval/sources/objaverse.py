"""Objaverse 1.0 with Cap3D captions: captions are embedded first, assets are fetched when a query wants them.

The data set is terabytes; an index of it is one CSV, the catalogue of licences, and one file of vectors. Downloads are
ours by default: the ``objaverse`` package has no cap, no resume and no check of what came. What that package
already has in its own cache is used, after a check.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from threestudio_redream.errors import MissingExtraError
from threestudio_redream.retrieval.curation.licences import LicencePolicy, licence_problem
from threestudio_redream.retrieval.errors import FetchError, SourceError
from threestudio_redream.retrieval.fetching.download import TransferLimits, check_mesh, download, partial_path
from threestudio_redream.retrieval.fetching.plan import PlannedFile, State
from threestudio_redream.retrieval.sources.base import Rejection, check_shard, in_shard
from threestudio_redream.retrieval.sources.cap3d import read_cap3d
from threestudio_redream.retrieval.sources.catalogue import Catalogue, Entry, check_packed_json, read_packed_json
from threestudio_redream.retrieval.sources.paths import digest_file
from threestudio_redream.retrieval.types import AssetRecord
from threestudio_redream.runtime.files import atomic_path

__all__ = ["BASE_URL", "ObjaverseSource", "default_cache"]

BASE_URL = "https://huggingface.co/datasets/allenai/objaverse/resolve/main"
#: Where the ``objaverse`` package keeps its files, in the layout of the data set.
PACKAGE_CACHE = Path("~/.objaverse/hf-objaverse-v1")
_PATHS_FILE = "object-paths.json.gz"
_UID = re.compile(r"[0-9a-f]{32}")
_BATCH = 2000


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/threestudio-redream/objaverse``, below ``~/.cache`` if that is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "threestudio-redream" / "objaverse"


class ObjaverseSource:
    """Objaverse 1.0, one record per captioned uid; files are fetched by :meth:`open`, one by one.

    Args:
        captions: Cap3D's CSV; needed for :meth:`records` only.
        cache: folder for downloads and the catalogue, see :func:`default_cache`.
        policy: licences that are admitted; None leaves out unknown, non-commercial and no-derivatives ones.
        max_faces: assets with more are left out, as far as Objaverse knows.
        limits: caps of a download, or the same as a dictionary. base_url: of the data set or a mirror of it.
        fetcher: ``direct``, or ``package`` for ``objaverse.load_objects``, whose result is copied after the checks.

    Attributes:
        settings: arguments with which ``open_source`` makes this source again in another process.
    """

    def __init__(
        self,
        captions: str | Path | None = None,
        *,
        cache: str | Path | None = None,
        policy: LicencePolicy | None = None,
        max_faces: int = 1_000_000,
        limits: TransferLimits | Mapping[str, Any] | None = None,
        base_url: str = BASE_URL,
        fetcher: Literal["direct", "package"] = "direct",
    ) -> None:
        if fetcher not in ("direct", "package"):
            raise SourceError("there is no such fetcher", received=fetcher, fix="Use direct or package")
        self.name, self.rejected = "objaverse", list[Rejection]()
        self.cache = Path(cache) if cache is not None else default_cache()
        self.policy = policy or LicencePolicy(unknown=False)
        self._captions = None if captions is None else Path(captions)
        self._max_faces, self._base = max_faces, base_url.rstrip("/")
        self._limits = TransferLimits(**limits) if isinstance(limits, Mapping) else limits or TransferLimits()
        self._fetcher = fetcher
        self.settings: dict[str, Any] = {
            "spec": "objaverse",
            "captions": None if captions is None else str(captions),
            "cache": str(self.cache),
            "policy": vars(self.policy).copy(),
            "max_faces": max_faces,
            "limits": vars(self._limits).copy(),
            "base_url": self._base,
            "fetcher": fetcher,
        }

    def prepare(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Fetch the list of assets and all annotations into the catalogue; goes on where it was interrupted.

        Args:
            progress: called with files done and in all.

        Raises:
            FetchError: a file could not be fetched. SourceError: a file is damaged.
        """
        with self._catalogue() as catalogue:
            self._read_paths(catalogue)
            folders = catalogue.folders()
            for done, folder in enumerate(folders, start=1):
                name = f"metadata/{folder}.json.gz"
                if not catalogue.has_read(name):
                    path = self._fetch_packed(name)
                    catalogue.add_annotations(read_packed_json(path), name)
                    path.unlink(missing_ok=True)  # the catalogue has what we use
                progress(done, len(folders))

    def records(self, shard: int = 0, num_shards: int = 1) -> Iterator[AssetRecord]:
        """See :meth:`.Source.records`. What is left out is summed up by reason: there would be too many rows.

        Raises:
            SourceError: no captions; or :meth:`prepare` has not run, and unknown licences are not admitted.
        """
        check_shard(shard, num_shards)
        if self._captions is None:
            raise SourceError("Objaverse needs captions", received=None, fix="Pass Cap3D's CSV with --captions")
        self.rejected = []
        skipped: Counter[str] = Counter()
        unusable: Counter[str] = Counter()
        with self._catalogue() as catalogue:
            if not catalogue.folders() and not self.policy.unknown:
                raise SourceError(
                    "the licences of Objaverse are not here yet, and unknown licences are not admitted",
                    received=str(self.cache),
                    fix="Call ObjaverseSource.prepare() first",
                )
            rows = (
                (uid, text) for uid, text in read_cap3d(self._captions, unusable) if in_shard(uid, shard, num_shards)
            )
            while batch := list(itertools.islice(rows, _BATCH)):
                entries = catalogue.look_up([uid for uid, _ in batch])
                for uid, caption in batch:
                    entry = entries.get(uid, Entry(uid, ""))
                    problem = self._problem(entry)
                    if problem is None:
                        yield _record(entry, caption)
                    else:
                        skipped[problem] += 1
        if shard == 0:
            skipped += unusable
        self.rejected = [
            Rejection(self._captions.name, "source", f"{count:,} left out: {reason}")
            for reason, count in sorted(skipped.items())
        ]

    def open(self, record: AssetRecord) -> Path:
        """See :meth:`.Source.open`. Fetched into the cache unless it is there; checked against ``record.sha256``.

        Raises:
            SourceError: not a uid, or not in Objaverse. FetchError: the download failed, or gave no GLB.
            MissingExtraError: ``fetcher="package"`` without the package.
        """
        entry = self._entry(record)
        destination = self.cache / entry.object_path
        shared = self._in_package_cache(entry)
        wanted = shared is not None and (not record.sha256 or digest_file(shared)[0] == record.sha256)
        if shared is not None and wanted and not destination.is_file():
            return shared
        if self._fetcher == "package" and not destination.is_file():
            return self._open_with_package(entry, record.sha256)
        return download(
            f"{self._base}/{entry.object_path}",
            destination,
            limits=self._limits,
            sha256=record.sha256,
            check=check_mesh,
        ).path

    def planned_file(self, record: AssetRecord) -> PlannedFile:
        """What :meth:`open` would fetch. Asks nobody: addresses, sizes and licences come from the catalogue.

        Raises:
            SourceError: not a uid, or not in Objaverse.
        """
        with self._catalogue() as catalogue:
            entry = catalogue.look_up([record.asset_id]).get(record.asset_id)
            unread = not catalogue.has_read(_PATHS_FILE)
        if entry is None and unread and _UID.fullmatch(record.asset_id):
            problem = licence_problem(record.licence, self.policy, url=record.licence_url)
            note = f"where it lies is known once {_PATHS_FILE} is here"
            state: State = "refused" if problem else "missing"
            where = self.cache / f"{record.asset_id}.glb"
            return PlannedFile(record.asset_id, "", where, None, record.licence, record.author, state, problem or note)
        if entry is None:
            raise SourceError("Objaverse holds no such asset", received=record.asset_id, fix="Leave it out")
        destination = self.cache / entry.object_path
        shared = self._in_package_cache(entry)
        present = destination.is_file() or shared is not None
        path = shared if shared is not None and not destination.is_file() else destination
        n_bytes = path.stat().st_size if present else entry.n_bytes or None
        said = record if record.licence else entry
        problem = licence_problem(said.licence, self.policy, url=said.licence_url)
        if problem is None and not present and (n_bytes or 0) > self._limits.max_bytes:
            problem = f"larger than the cap of {self._limits.max_bytes:,} bytes"
        partial = partial_path(destination).is_file()
        return PlannedFile(
            asset_id=record.asset_id,
            url=f"{self._base}/{entry.object_path}",
            path=path,
            n_bytes=n_bytes,
            licence=record.licence or entry.licence,
            author=record.author or entry.author,
            state="present" if present else "refused" if problem else "partial" if partial else "missing",
            note="" if present else problem or "",
        )

    def planned_metadata(self) -> list[PlannedFile]:
        """What :meth:`prepare` would fetch; sizes are not known beforehand."""
        with self._catalogue() as catalogue:
            names = [] if catalogue.has_read(_PATHS_FILE) else [_PATHS_FILE]
            folders = catalogue.folders() or [f"{index // 1000:03d}-{index % 1000:03d}" for index in range(160)]
            names += [name for folder in folders if not catalogue.has_read(name := f"metadata/{folder}.json.gz")]
        return [
            PlannedFile(
                name, f"{self._base}/{name}", self.cache / name, None, "ODC-By-1.0", "Allen Institute for AI", "missing"
            )
            for name in names
        ]

    def _catalogue(self) -> Catalogue:
        return Catalogue(self.cache / "catalogue.sqlite")

    def _read_paths(self, catalogue: Catalogue) -> None:
        if not catalogue.has_read(_PATHS_FILE):
            path = self._fetch_packed(_PATHS_FILE)
            catalogue.add_paths(read_packed_json(path), _PATHS_FILE)
            path.unlink(missing_ok=True)

    def _fetch_packed(self, name: str) -> Path:
        return download(f"{self._base}/{name}", self.cache / name, limits=self._limits, check=check_packed_json).path

    def _entry(self, record: AssetRecord) -> Entry:
        uid = record.asset_id
        if _UID.fullmatch(uid) is None:
            raise SourceError("this is no uid of Objaverse", received=uid, fix="Open it with the source it came from")
        with self._catalogue() as catalogue:
            self._read_paths(catalogue)
            entry = catalogue.look_up([uid]).get(uid)
        if entry is None:
            raise SourceError("Objaverse holds no such asset", received=uid, fix="Leave it out")
        return entry

    def _problem(self, entry: Entry) -> str | None:
        if not entry.folder and not self.policy.unknown:
            return "not in Objaverse 1.0"
        if entry.faces > self._max_faces:
            return f"more than {self._max_faces:,} faces"
        return licence_problem(entry.licence, self.policy, url=entry.licence_url)

    def _in_package_cache(self, entry: Entry) -> Path | None:
        path = PACKAGE_CACHE.expanduser() / entry.object_path
        try:
            if path.is_file() and path.stat().st_size <= self._limits.max_bytes:
                check_mesh(path)
                return path
        except (FetchError, OSError):  # a broken file there is none of ours to repair
            pass
        return None

    def _open_with_package(self, entry: Entry, sha256: str) -> Path:
        try:
            import objaverse
        except ImportError as error:
            raise MissingExtraError("objaverse", "objaverse", "fetching with fetcher='package'", error) from error
        if entry.n_bytes > self._limits.max_bytes:
            raise FetchError("the file is larger than the cap", received=entry.n_bytes, fix="Raise the cap or skip it")
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
                paths: dict[str, str] = objaverse.load_objects([entry.uid])
        except (OSError, EOFError, ValueError) as error:  # urllib's errors are OSErrors
            raise FetchError(
                "the objaverse package failed", received=str(error)[:200], fix="Try again later"
            ) from error
        path = Path(paths.get(entry.uid, ""))
        if not path.is_file() or path.stat().st_size > self._limits.max_bytes:
            raise FetchError(
                "the objaverse package gave no usable file", received=entry.uid, fix="Use fetcher='direct'"
            )
        destination = self.cache / entry.object_path
        with atomic_path(destination) as temporary:
            shutil.copyfile(path, temporary)
            check_mesh(temporary)
            digest = digest_file(temporary)[0]
            if sha256 and digest != sha256:
                raise FetchError(
                    "the file has another sha256 than announced", received=digest, fix=f"It should be {sha256}"
                )
        return destination


def _record(entry: Entry, caption: str) -> AssetRecord:
    return AssetRecord(
        asset_id=entry.uid,
        name=entry.name or entry.uid,
        caption=caption,
        caption_source="cap3d",
        author=entry.author,
        licence=entry.licence,
        licence_url=entry.licence_url,
        source_url=f"https://sketchfab.com/3d-models/{entry.uid}",
        n_faces=entry.faces,
        tags=entry.tags,
    )
