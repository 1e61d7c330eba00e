"""One cell of a sweep: launch it, score it, leave one raw file. Made to be repeated: a finished run is never run again.

A run's folder holds what ``launch.py`` leaves (without its checkpoints, once it is scored), ``launch.log``,
``turn.webp`` and ``result.json``. The lock on the folder is held by the launch itself, so that a run whose sweep was
killed is not started a second time beside the first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from threestudio_redream.errors import ConfigError, RedreamError
from threestudio_redream.evaluation.bench.methods import METHODS, Choice
from threestudio_redream.evaluation.bench.suites import Cell, open_suite
from threestudio_redream.evaluation.bench.turns import keep_turn
from threestudio_redream.evaluation.scoring import ScoreConfig, Scorer
from threestudio_redream.runtime.files import atomic_write_text
from threestudio_redream.runtime.locks import lock_file
from threestudio_redream.runtime.threads import torch_threads
from threestudio_redream.runtime.trial import code_version
from threestudio_redream.shipped import shipped

__all__ = ["RESULT", "Harness", "read_result", "read_row", "refuse_other_settings", "run_cell"]

RESULT, BEGUN = "result.json", "settings.txt"
LOG_TAIL, MAX_RESULT = 2000, 2**24
_STOPPED = (-signal.SIGINT, -signal.SIGTERM, 128 + signal.SIGTERM, -1, 129)  # 1 is SIGHUP, which Windows lacks
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Harness:
    """Where and how the runs of a sweep are made; the same for all of them.

    Attributes:
        suite: its name. work: folder of the runs. root: folder with ``custom_configs``; runs start there. If it is the
            current folder, it may do without: the configurations of the installation are used.
        gpu: as for ``launch.py``. threads: of each run. extra: ``key=value`` for every run.
        index: folder of the assets; empty: the one that ReDream's configuration names.
        keep_checkpoints: leave them where they are after scoring.
    """

    suite: str
    work: Path
    root: Path
    gpu: str = "cpu"
    threads: int = 1
    extra: tuple[str, ...] = ()
    index: str = ""
    keep_checkpoints: bool = False

    def folder(self, cell: Cell) -> Path:
        """Of one run."""
        return self.work / cell.method / cell.name

    def folder_of(self, row: Mapping[str, Any]) -> Path:
        """Of the run that a row is of."""
        return self.folder(Cell(row["method"], row["prompt"], row["seed"]))

    def config_files(self, cell: Cell) -> list[Path]:
        """Configurations of a run, the later over the earlier.

        Raises:
            ConfigError: one is not there.
        """
        method = METHODS[cell.method]
        names = [open_suite(self.suite).configs[method.base]]
        if method.ablation:
            names.append(f"ablations/{method.ablation}.yaml")
        files = [_config_file(self.root, name) for name in names]
        if missing := [file for file in files if not file.is_file()]:
            raise ConfigError(
                "A configuration of the suite is not here",
                received=str(missing[0]),
                fix="Run from a clone of the repository, or name it with --root.",
            )
        return files

    def overrides(self, cell: Cell) -> list[str]:
        """What decides a run's result beside its files, as ``key=value``."""
        method = METHODS[cell.method]
        words = [*open_suite(self.suite).overrides, *method.overrides, *self.extra]
        if method.base == "redream" and method.asset != "best":
            words.append(f"system.retrieval.asset_ids=[{self.asset(cell).record.asset_id}]")
        return [f"system.prompt_processor.prompt={cell.prompt}", f"seed={cell.seed}", *words]

    def settings(self, cell: Cell) -> str:
        """Fingerprint of everything above, comments aside: results with another one are of another experiment.

        An index of one's own counts by its content, so that it may lie elsewhere on another machine.
        """
        parts = [[_content(file) for file in self.config_files(cell)], self.overrides(cell)]
        if self.index:
            parts.append([_index_fingerprint(self.index)])
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def command(self, cell: Cell) -> list[str]:
        """The launch of a run."""
        folder = self.folder(cell)
        files = [word for file in self.config_files(cell) for word in ("--config", str(file))]
        words = ["use_timestamp=false", "resume=last", f"exp_root_dir={folder.parent}", "name=.", f"tag={folder.name}"]
        if METHODS[cell.method].base == "redream":
            words.append(f"system.cache={self.work / 'adaptations'}")
            if self.index:
                words.append(f"system.retrieval.index={self.index}")
        launcher = [sys.executable, "-m", "threestudio_redream.runtime.launch"]
        return [*launcher, *files, "--gpu", self.gpu, *words, *self.overrides(cell)]

    def asset(self, cell: Cell) -> Any:
        """The :class:`~threestudio_redream.retrieval.retrieve.Reference` that a run gets, or is compared with; None if
        nothing in the index is like the prompt."""
        method = METHODS[cell.method]
        return _asset(self.root, self.suite, self.index, cell.prompt, cell.seed, method.asset)

    def retrieval(self) -> Any:
        """How assets are found, a :class:`~threestudio_redream.retrieval.retrieve.RetrievalConfig`.

        Raises:
            ConfigError: neither this sweep nor ReDream's configuration names an index.
        """
        return _retrieval_config(self.root, self.suite, self.index)


def _config_file(root: Path, name: str) -> Path:
    """Where the suite runs from a folder that is no clone, the configurations are those of the installation."""
    path = Path("custom_configs") / name
    return shipped(path).resolve() if root == Path.cwd() else root / path


def _content(file: Path) -> Any:
    """What a configuration says, with its interpolations as they are written."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.load(file), resolve=False)


@cache
def _asset(root: Path, suite: str, index: str, prompt: str, seed: int, choice: Choice) -> Any:
    from dataclasses import replace

    from threestudio_redream.retrieval.index.reader import Index
    from threestudio_redream.retrieval.retrieve import retrieve

    cfg = _retrieval_config(root, suite, index)
    if choice == "random":
        ids = sorted(record.asset_id for record in Index.open(cfg.index, check="quick").records())
        key = int.from_bytes(hashlib.sha256(f"{prompt}\0{seed}".encode()).digest()[:8], "little")
        cfg = replace(cfg, asset_ids=(ids[int(np.random.default_rng(key).integers(len(ids)))],))
    wanted = open_suite(suite).other_prompt(prompt) if choice == "wrong" else prompt
    found = retrieve(wanted, replace(cfg, count=2 if choice == "second" else 1)).references
    place = 1 if choice == "second" else 0
    return found[place] if len(found) > place else None


@cache
def _index_fingerprint(index: str) -> str:
    from threestudio_redream.retrieval.index.manifest import read_manifest

    return read_manifest(Path(index)).content


@cache
def _retrieval_config(root: Path, suite: str, index: str) -> Any:
    from omegaconf import MISSING, OmegaConf

    from threestudio_redream.retrieval.retrieve import RetrievalConfig

    cfg = OmegaConf.load(_config_file(root, open_suite(suite).configs["redream"]))
    keys = OmegaConf.to_container(cfg.system.retrieval)
    assert isinstance(keys, dict)
    keys["index"] = index or keys["index"]
    if keys["index"] == MISSING:
        raise ConfigError(
            f"The suite {suite} ships without assets",
            received="no index",
            fix="Build one (retrieval_index/README.md) and name it with --index FOLDER.",
        )
    return RetrievalConfig(**{str(key): value for key, value in keys.items() if key != "enabled"})


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
    if row["status"] == "ok" and not harness.keep_checkpoints:
        for path in (folder / "ckpts").glob("*"):
            path.unlink()
    return row


def _begin(folder: Path, base: Mapping[str, Any]) -> None:
    """Note the settings before the run starts, so that it goes on with these or not at all."""
    note = folder / BEGUN
    earlier = note.read_text("utf-8") if note.is_file() else None
    if earlier not in (None, base["settings"]) or (earlier is None and any((folder / "ckpts").glob("*"))):
        raise ConfigError(
            "An interrupted run was begun with other settings than these",
            received=f"{base['method']}/{folder.name}",
            fix="Repeat the options that it was begun with (--set, --root), or give this sweep another --work.",
        )
    atomic_write_text(note, base["settings"])


def read_result(folder: Path) -> dict[str, Any] | None:
    """The row of a finished run, or None."""
    return read_row(folder / RESULT)


def read_row(path: Path) -> dict[str, Any] | None:
    """A raw row, or None if there is none or it is damaged."""
    try:
        if path.stat().st_size > MAX_RESULT:
            return None
        row = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return row if isinstance(row, dict) and row.get("status") in ("ok", "failed") else None


def refuse_other_settings(harness: Harness, cell: Cell, row: Mapping[str, Any]) -> None:
    """Check that a row belongs to this sweep.

    Raises:
        ConfigError: it is of another cell, or was made with other settings.
    """
    if {key: row.get(key) for key in asdict(cell)} != asdict(cell) or type(row.get("seed")) is not int:
        raise ConfigError(
            "A result is not of the run that its place names",
            received=f"{cell.method}/{cell.name}",
            fix="Take it away; whoever wrote it did not write it with redream bench.",
        )
    if row.get("settings") != harness.settings(cell):
        raise ConfigError(
            "A run was made with other settings than these",
            received=f"{cell.method}/{cell.name}",
            fix="Repeat the options that it was made with (--set, --root), or give this sweep another --work.",
        )


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
            mesh, reference = exported_mesh(folder), harness.asset(cell)
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
