"""One cell of a sweep: launch it, score it, leave one raw file. Made to be repeated: a finished run is never run again.

A run's folder holds what ``launch.py`` leaves (without its checkpoints, once it is scored), ``launch.log``,
``turn.webp`` and ``result.json``. The lock on the folder is held by the launch itself, so that a run whose sweep was
killed is not started a second time beside the first.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from threestudio_redream.errors import ConfigError, RedreamError
from threestudio_redream.evaluation.bench.harness import Harness
from threestudio_redream.evaluation.bench.rows import RESULT, read_result, refuse_other_settings
from threestudio_redream.evaluation.bench.suites import Cell, open_suite
from threestudio_redream.evaluation.bench.turns import keep_turn
from threestudio_redream.evaluation.report import write_report
from threestudio_redream.evaluation.scoring import ScoreConfig, Scorer
from threestudio_redream.runtime.files import atomic_write_text
from threestudio_redream.runtime.locks import lock_file
from threestudio_redream.runtime.threads import torch_threads
from threestudio_redream.runtime.trial import code_version

__all__ = ["run_cell"]

BEGUN, LOG_TAIL = "begun.json", 2000
_STOPPED = (-signal.SIGINT, -signal.SIGTERM, 128 + signal.SIGTERM, -1, 129)  # 1 is SIGHUP, which Windows lacks
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def run_cell(harness: Harness, cell: Cell) -> dict[str, Any]:
    """Run and score one cell unless its result is there; returns the row, also when the run failed.

    A failed run's row has ``status: failed`` and ``reason``. What was interrupted goes on at its last checkpoint.

    Raises:
        ConfigError: the folder holds a result of other settings.
    """
    folder = harness.folder(cell)
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder / ".lock") as handle:
        row = read_result(folder)
        if row is not None:
            refuse_other_settings(harness, cell, row)
            return row
        base = {
            **asdict(cell),
            "settings": harness.settings(cell),
            "inputs": harness.inputs(cell),
            "overrides": harness.overrides(cell),
            "commit": code_version(),
        }
        _begin(folder, base)
        began = time.perf_counter()
        resumed = any((folder / "ckpts").glob("*"))
        reason = _launch(harness, cell, handle)
        seconds = round(time.perf_counter() - began, 1)
        if reason:
            row = {**base, "status": "failed", "reason": reason}
        else:
            row = {**base, **_scored(harness, cell)}
            if row["status"] == "ok" and not resumed:
                row["metrics"]["seconds"] = seconds
        if row["status"] == "ok":
            keep_turn(folder)
        atomic_write_text(folder / RESULT, json.dumps(row, indent=1))
        if row["status"] == "ok":
            write_report(folder)  # the run's own was written before there were figures
    if row["status"] == "ok" and not harness.keep_checkpoints:
        for path in (folder / "ckpts").glob("*"):
            path.unlink()
    return row


def _begin(folder: Path, base: Mapping[str, Any]) -> None:
    """Note settings and inputs before the run starts, so that it goes on with these or not at all."""
    note = folder / BEGUN
    mine = json.dumps({name: base[name] for name in ("settings", "inputs")})
    earlier = note.read_text("utf-8") if note.is_file() else None
    if earlier not in (None, mine) or (earlier is None and any((folder / "ckpts").glob("*"))):
        raise ConfigError(
            "An interrupted run was begun with other settings, assets or weights than these",
            received=f"{base['method']}/{folder.name}",
            fix="Repeat the options it was begun with (--set, --root, --index), or give this sweep another --work.",
        )
    atomic_write_text(note, mine)


def _launch(harness: Harness, cell: Cell, lock: int) -> str:
    """Empty, or why the run failed."""
    large_pages = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # some per cent faster; changes no number
    environment = {**large_pages, **os.environ, **dict.fromkeys(_THREADS, str(harness.threads))}
    log = harness.folder(cell) / "launch.log"
    with log.open("ab") as sink:
        done = subprocess.run(
            harness.command(cell),
            cwd=harness.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            pass_fds=(lock,),
            check=False,
        )
    if done.returncode == 130 or done.returncode in _STOPPED:
        raise KeyboardInterrupt  # a shutdown or a preemption is no failure of the run: it goes on next time
    if done.returncode == 0:
        return ""
    tail = log.read_bytes()[-LOG_TAIL:].decode("utf-8", errors="replace")
    return f"launch ended with status {done.returncode}: ...{tail}"


def _scored(harness: Harness, cell: Cell) -> dict[str, Any]:
    from threestudio_redream.evaluation.renders import open_renders
    from threestudio_redream.evaluation.scoring import exported_mesh

    folder = harness.folder(cell)
    try:
        with torch_threads(harness.threads):
            renders = open_renders(folder)
            mesh, reference = exported_mesh(folder, renders.about["step"]), harness.asset(cell)
            asset = None if reference is None else reference.asset
            scorers = [_scorer(cfg) for cfg in open_suite(harness.suite).scores]
            found = [scorer(renders, cell.prompt, asset=asset, mesh=mesh) for scorer in scorers]
    except RedreamError as error:
        return {"status": "failed", "reason": f"{getattr(error, 'kind', type(error).__name__)}: {error}"}
    return {
        "status": "ok",
        "metrics": {name: value for score in found for name, value in flat(score["metrics"]).items()},
        "asset": None if reference is None else reference.record.asset_id,
        "renders": found[0]["renders"],
        "models": {cfg.encoder: score["models"] for cfg, score in zip(open_suite(harness.suite).scores, found)},
        "versions": found[0]["versions"],
    }


def flat(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested metrics as ``a/b``; what is neither a number nor a truth value is left out."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            found[prefix + name] = float(value)
    return found


@cache
def _scorer(cfg: ScoreConfig) -> Scorer:
    return Scorer(cfg)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[int]:
    """Wait for the lock file; yields its descriptor, which a child process may inherit."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        lock_file(handle, wait=True)
        yield handle
    finally:
        os.close(handle)
