"""Fetch one file so that it is either complete and checked, or not there.

Bytes go to ``<name>.part`` beside the destination, are checked (size, content, sha256) and renamed. A
download that was cut off goes on where it stopped, if the server can promise that the file is the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from threestudio_redream.assets.sniff import sniff
from threestudio_redream.errors import AssetError, ConfigError
from threestudio_redream.retrieval.errors import FetchError
from threestudio_redream.retrieval.fetching.transfer import Interrupted, TransferLimits, check_url, transfer
from threestudio_redream.runtime.files import atomic_write_text
from threestudio_redream.runtime.locks import lock_file

__all__ = ["Downloaded", "TransferLimits", "check_mesh", "download", "partial_path"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Downloaded:
    """A file that is complete.

    Attributes:
        attempts: 0 if it was there before. resumed_from: bytes that an earlier attempt had left.
    """

    path: Path
    sha256: str
    n_bytes: int
    attempts: int
    resumed_from: int


def partial_path(destination: Path) -> Path:
    """Where the bytes of an unfinished download lie."""
    return destination.with_name(destination.name + ".part")


def check_mesh(path: Path) -> None:
    """Raise FetchError unless the content is that of a 3D file; a GLB must be as long as its header says.

    An error page of a server, a Git LFS pointer and a truncated GLB are what this is for.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        kind = sniff(data, Path(path.name.removesuffix(".part")).suffix)
    except AssetError as error:
        raise FetchError(f"what came is no mesh: {error.problem}", received=error.received, fix=error.fix) from error
    if kind == "glb":
        declared = int.from_bytes(data[8:12], "little") if len(data) >= 12 else 0
        if declared != len(data):
            raise FetchError(
                f"the GLB is {len(data):,} bytes long, and its header says {declared:,}",
                received=len(data),
                fix="Fetch again",
            )


def download(
    url: str,
    destination: str | Path,
    *,
    limits: TransferLimits | None = None,
    sha256: str = "",
    n_bytes: int = 0,
    check: Callable[[Path], None] | None = check_mesh,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Downloaded:
    """Fetch ``url`` to ``destination``, unless a good file is there already.

    Args:
        url: https, or http on this machine. destination: its folder is made.
        sha256, n_bytes: what the file must have; empty and 0 if nobody knows.
        check: looks at the complete file before it is renamed, raises FetchError; None for anything but meshes.
        progress: called with bytes so far and in all.

    Raises:
        FetchError: refused, too large, not what it should be, or still failing after the last attempt. What came is
            kept for the next call unless it was wrong.
    """
    destination, limits = Path(destination), limits or TransferLimits()
    if destination.is_file():
        digest = _digest(destination)
        if (not sha256 or digest == sha256) and (not n_bytes or destination.stat().st_size == n_bytes):
            return Downloaded(destination, digest, destination.stat().st_size, 0, 0)
        _LOG.warning("%s is not what it should be and is fetched again", destination.name)
    check_url(url)  # only now: what is there can be used offline
    if n_bytes > limits.max_bytes:
        raise FetchError(
            f"the file is larger than the cap of {limits.max_bytes:,} bytes",
            received=n_bytes,
            fix="Raise the cap or skip it",
        )
    destination.parent.mkdir(parents=True, exist_ok=True)
    part = partial_path(destination)
    with _exclusive(part, limits.deadline_s) as file:
        if file is not None:
            attempts, resumed_from = _attempts(url, part, file, limits, check is check_mesh, progress, sleep)
            digest, size = _verify(part, sha256, n_bytes, check)
            os.fsync(file.fileno())
            os.replace(part, destination)
            _note_path(part).unlink(missing_ok=True)
            return Downloaded(destination, digest, size, attempts, resumed_from)
    # Another process finished it while this one waited: look at what it left.
    return download(
        url, destination, limits=limits, sha256=sha256, n_bytes=n_bytes, check=check, progress=progress, sleep=sleep
    )


def _attempts(
    url: str,
    part: Path,
    file: IO[bytes],
    limits: TransferLimits,
    mesh: bool,
    progress: Callable[[int, int | None], None],
    sleep: Callable[[float], None],
) -> tuple[int, int]:
    """Try until the file is complete; returns the number of attempts and where the last one went on."""
    deadline = time.monotonic() + limits.deadline_s
    reasons: list[str] = []
    for attempt in range(limits.retries + 1):
        offset, validator = _resumable(part, url)
        file.seek(offset)
        try:
            received = transfer(
                url,
                file,
                limits,
                offset=offset,
                validator=validator,
                deadline=deadline,
                began=lambda found: _note(part, url, found),
                check_head=_refuse_page if mesh else lambda head: None,
                progress=progress,
            )
            file.flush()
            return attempt + 1, received.resumed_from
        except Interrupted as error:
            file.flush()
            reasons.append(error.reason)
            if error.restart:
                _discard(part)
            wait = min(limits.backoff_s * 2**attempt if error.wait_s is None else error.wait_s, 60.0)
            _LOG.info("%s: attempt %d: %s", part.name, attempt + 1, error.reason)
            if attempt == limits.retries or time.monotonic() + wait > deadline:
                break
            sleep(wait)
        except FetchError:
            _discard(part)
            raise
    raise FetchError(
        f"the download failed {len(reasons)} times, last: {reasons[-1]}",
        received=url,
        fix="Try again later; what came is kept and goes on from there",
    )


def _verify(part: Path, sha256: str, n_bytes: int, check: Callable[[Path], None] | None) -> tuple[str, int]:
    digest, size = _digest(part), part.stat().st_size
    try:
        if n_bytes and size != n_bytes:
            raise FetchError("the file has another size than announced", received=size, fix=f"It should be {n_bytes}")
        if sha256 and digest != sha256:
            raise FetchError(
                "the file has another sha256 than announced", received=digest, fix=f"It should be {sha256}"
            )
        if size == 0:
            raise FetchError("the file is empty", received=0, fix="Fetch again")
        if check is not None:
            check(part)
    except FetchError:
        _discard(part)
        raise
    return digest, size


def _refuse_page(head: bytes) -> None:
    """Stop at the first bytes of an error page, before the rest of it comes."""
    start = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml", b"<error")):
        raise FetchError(
            "the server sent a page instead of a mesh", received=head[:80], fix="Open the address in a browser"
        )


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _note_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _note(part: Path, url: str, validator: str) -> None:
    atomic_write_text(_note_path(part), json.dumps({"url": url, "validator": validator}))


def _resumable(part: Path, url: str) -> tuple[int, str]:
    """Bytes that can be built on, and the validator that says of which file they are."""
    try:
        note: Any = json.loads(_note_path(part).read_text())
        validator = note["validator"] if note["url"] == url else ""
    except (OSError, ValueError, LookupError, TypeError):
        return 0, ""
    usable = isinstance(validator, str) and 0 < len(validator) < 500 and validator.isprintable()
    return (part.stat().st_size, validator) if usable else (0, "")


def _discard(part: Path) -> None:
    """Forget what came. The part itself stays, emptied: its lock is held."""
    _note_path(part).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        os.truncate(part, 0)


@contextlib.contextmanager
def _exclusive(part: Path, patience_s: float) -> Iterator[IO[bytes] | None]:
    """The part, open for writing and locked; None if another process completed the download meanwhile."""
    deadline = time.monotonic() + patience_s
    while True:
        waited = False
        with open(part, "ab") as probe:  # creates without truncating
            probe.flush()
        with open(part, "r+b") as file:
            while not _lock(file):
                waited = True
                if time.monotonic() > deadline:
                    raise FetchError(
                        "another process holds the download", received=part.name, fix="Wait for it or end it"
                    )
                time.sleep(0.1)
            try:
                current = os.stat(part).st_ino == os.fstat(file.fileno()).st_ino
            except FileNotFoundError:
                current = False
            if current:
                yield file
                return
        destination = part.with_name(part.name.removesuffix(".part"))
        if waited and destination.is_file():
            yield None
            return


def _lock(file: IO[bytes]) -> bool:
    """Take the lock of an open file; the system gives it back when the process ends, however it ends."""
    try:
        return lock_file(file.fileno())
    except (ConfigError, OSError):  # without locks a second process fails at the rename instead
        return True
