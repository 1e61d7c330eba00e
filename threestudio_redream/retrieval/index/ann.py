"""An approximate index beside the exact one: built here, measured here, and read only where it was built.

Exact search takes well under 0.1 s for a million captions; ask for an approximate index beyond a few million, or
for many queries. The libraries that read such files trust them blindly, so a file is opened only if a seal shows
that this user built it on this machine; an index from elsewhere brings vectors, and the rest is built from them.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from threestudio_redream.retrieval.checks import canonical_json, plain_json
from threestudio_redream.retrieval.errors import IndexDamagedError, RetrievalError
from threestudio_redream.retrieval.index.ann_backends import Backend, backend_of
from threestudio_redream.retrieval.index.integrity import file_entry, hash_file
from threestudio_redream.retrieval.index.manifest import AnnEntry, FileEntry
from threestudio_redream.retrieval.index.reader import Index
from threestudio_redream.retrieval.index.scan import decode
from threestudio_redream.retrieval.index.staging import temporary_folder
from threestudio_redream.retrieval.index.writer import IndexWriter
from threestudio_redream.retrieval.search import nearest_captions

__all__ = ["AnnSearcher", "build_ann", "measure_recall", "open_ann"]

TARGET_RECALL = 0.98
_BLOCK = 16_384
_KEY_BYTES = 32
_QUERIES = 200
_NOISE = 0.5  # a query is a caption vector plus noise of half its length: a cosine of about 0.9 with it


class AnnSearcher:
    """Rows of an index by an approximate search.

    Args:
        backend: loaded. effort: of its search.
    """

    def __init__(self, backend: Backend, effort: int) -> None:
        self.backend, self.effort = backend, effort

    def nearest(self, query: np.ndarray, count: int) -> np.ndarray:
        """Rows ``[<= count]`` int64, counted through the parts, about the nearest to a unit query ``[D]``."""
        return self.backend.search(query, count, self.effort)


def build_ann(
    folder: str | Path,
    kind: str = "faiss-hnsw",
    params: dict[str, Any] | None = None,
    *,
    k: int = 10,
    target_recall: float = TARGET_RECALL,
    seed: int = 0,
) -> AnnEntry:
    """Build an approximate index over the captions of an index, measure it against exact search, and put it in place.

    The search effort is the smallest one of the backend's ladder whose recall reaches the target, else the largest.

    Args:
        kind: ``faiss-hnsw``, ``faiss-ivf`` or ``scann``. params: of the backend. k: of the recall that is measured.
        target_recall: share of the exact best ``k`` that a search should find. seed: of queries and training.

    Returns:
        The entry of the manifest, with the recall.

    Raises:
        RetrievalError: an unknown kind or parameter, an empty index, or one that changed meanwhile.
        MissingExtraError: the library does not import. IndexBusyError: another process writes to the index.
    """
    folder = Path(folder)
    index, backend = Index.open(folder), backend_of(kind)
    if not len(index):
        raise RetrievalError("an empty index cannot be searched", received=str(folder), fix="Add assets first")
    used = backend.build(lambda: _blocks(index), len(index), index.manifest.spec.encoder.dim, params or {}, seed)
    effort, recall = _choose_effort(index, backend, min(k, len(index)), target_recall, seed)
    with temporary_folder(folder) as work:
        built = work / "ann"
        built.mkdir()
        backend.save(built)
        names = sorted(path.name for path in built.iterdir())
        entries = {name: file_entry(built / name, name) for name in names}
        digest = canonical_json([(name, entry.sha256) for name, entry in entries.items()])
        build = hashlib.sha256(digest.encode()).hexdigest()[:16]
        files = {n: FileEntry(f"ann/{build}/{n}", e.sha256, e.n_bytes, e.spot) for n, e in entries.items()}
        shown = plain_json({**used, backend.effort: effort})
        entry = AnnEntry(kind, shown, recall, index.manifest.content, "0" * 64, build, files)
        entry = AnnEntry(kind, shown, recall, entry.content, _seal(entry), build, files)
        IndexWriter(folder).set_ann(entry, built, wait_s=60.0)
    return entry


def open_ann(index: Index) -> AnnSearcher:
    """The approximate index of ``index``.

    Raises:
        RetrievalError: it has none, or one that was built elsewhere. IndexDamagedError: a file of it was changed.
        MissingExtraError: the library does not import.
    """
    entry = index.manifest.ann
    rebuild = "Build it here with build_ann(folder), or search without approximate=True"
    if entry is None:
        raise RetrievalError("this index has no approximate index", received=str(index.folder), fix=rebuild)
    if not hmac.compare_digest(entry.seal, _seal(entry)):
        raise RetrievalError(
            "the approximate index was not built by you on this machine, so it is not read",
            received=entry.kind,
            fix=rebuild,
        )
    folder = index.folder / "ann" / entry.build
    for file in entry.files.values():
        path = index.folder / file.path
        if not path.is_file() or hash_file(path) != file.sha256:
            raise IndexDamagedError(
                "the file is missing or was changed", file=file.path, kind="changed", received=path.name, fix=rebuild
            )
    backend = backend_of(entry.kind)
    backend.load(folder)
    return AnnSearcher(backend, int(entry.params[backend.effort]))


def measure_recall(index: Index, backend: Backend, effort: int, k: int, seed: int = 0) -> dict[str, Any]:
    """Share of the exact best ``k`` captions that a backend finds, over queries near captions of the index.

    Returns:
        ``{"k", "recall", "queries", "p50_ms"}``; the time is that of one approximate search in one thread of Python.
    """
    return _measure(backend, _exact(index, k, seed), effort, k)


def _choose_effort(index: Index, backend: Backend, k: int, target: float, seed: int) -> tuple[int, dict[str, Any]]:
    truth = _exact(index, k, seed)
    for effort in backend.ladder:
        result = _measure(backend, truth, effort, k)
        if result["recall"] >= target:
            break
    return effort, result


def _measure(backend: Backend, truth: list[tuple[np.ndarray, set[int]]], effort: int, k: int) -> dict[str, Any]:
    found, times = 0, []
    for query, best in truth:
        started = time.perf_counter()
        rows = backend.search(query, k, effort)
        times.append((time.perf_counter() - started) * 1e3)
        found += len(best.intersection(rows.tolist()))
    recall = found / max(1, sum(len(best) for _, best in truth))
    return {"k": k, "recall": round(recall, 4), "queries": len(truth), "p50_ms": round(float(np.median(times)), 3)}


def _exact(index: Index, k: int, seed: int) -> list[tuple[np.ndarray, set[int]]]:
    """Queries and the rows of their exact best ``k``."""
    random = np.random.default_rng(seed)
    starts = np.cumsum([0, *(part.entry.rows for part in index.parts)])
    first = {id(part): int(start) for part, start in zip(index.parts, starts)}
    truth = []
    for row in np.sort(random.permutation(len(index))[:_QUERIES]):
        number = int(np.searchsorted(starts, row, "right")) - 1
        vector = index.parts[number].text.row(int(row - starts[number]))
        noise = random.standard_normal(len(vector)).astype(np.float32)
        query = vector + _NOISE * noise / np.linalg.norm(noise)
        query /= np.linalg.norm(query)
        best = nearest_captions(index.parts, query, k)
        truth.append((query, {first[id(found.part)] + found.row for found in best}))
    return truth


def _blocks(index: Index) -> Iterator[np.ndarray]:
    for part in index.parts:
        for start in range(0, part.entry.rows, _BLOCK):
            yield np.ascontiguousarray(decode(part.text.stored[start : start + _BLOCK]))


def _seal(entry: AnnEntry) -> str:
    """Keyed hash over all that an entry says but the seal; the key never leaves this user's folder."""
    values = canonical_json({**entry.to_json(), "seal": ""})
    return hmac.new(_key(), values.encode(), hashlib.sha256).hexdigest()


def _key() -> bytes:
    base = os.environ.get("REDREAM_STATE_DIR") or os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    path = Path(base) / "threestudio-redream" / "ann.key"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _make_key(path)
        key = path.read_bytes()
    except OSError as error:
        raise RetrievalError(
            "there is no place to keep the key that seals approximate indexes",
            received=str(error),
            fix="Set REDREAM_STATE_DIR to a folder that you can write to",
        ) from error
    if len(key) != _KEY_BYTES:
        raise RetrievalError(
            "the key that seals approximate indexes is damaged",
            received=f"{len(key)} bytes in {path}",
            fix="Delete that file and build the approximate indexes again",
        )
    return key


def _make_key(path: Path) -> None:
    """Complete or not there, and never replaced: two processes may come here at once."""
    handle, work = tempfile.mkstemp(dir=path.parent)  # for this user alone
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(work, path)
    finally:
        os.unlink(work)
