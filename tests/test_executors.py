"""Executors: all jobs are done wherever they run, errors come back as they are, dead workers are noticed."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from threestudio_redream.errors import ConfigError, MissingExtraError
from threestudio_redream.executors import (
    EXECUTORS,
    Executor,
    InlineExecutor,
    LocalExecutor,
    RayExecutor,
    SlurmExecutor,
    WorkerDiedError,
    WorkerError,
    open_executor,
)
from threestudio_redream.retrieval.build.plan import Plan
from threestudio_redream.retrieval.index.manifest import read_manifest

JOBS = [(number, 2) for number in range(5)]


def make(kind: str, folder: Path) -> Executor:
    """An executor that runs on this machine, or a skip."""
    if kind == "slurm":
        pytest.importorskip("submitit")
        return SlurmExecutor(2, folder / "logs", cluster="local", timeout_min=2)
    if kind == "ray":
        pytest.importorskip("ray", minversion="2.0")  # a folder of that name is not it
        return RayExecutor(2)
    return InlineExecutor() if kind == "inline" else LocalExecutor(2)


@pytest.mark.parametrize("kind", ["inline", "local", "slurm", "ray"])
def test_all_jobs_are_done(kind: str, tmp_path: Path) -> None:
    executor = make(kind, tmp_path)
    assert sorted(executor.run(math.pow, JOBS)) == [0.0, 1.0, 4.0, 9.0, 16.0]
    assert list(executor.run(math.pow, [])) == []


@pytest.mark.parametrize("kind", ["inline", "local", "ray"])
def test_errors_of_a_job_come_back(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the text differs between Python releases
        list(make(kind, tmp_path).run(math.sqrt, [(-1.0,)]))


@pytest.mark.parametrize("kind", ["local", "slurm"])
def test_named_errors_survive_the_way(kind: str, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"no plan of a build.*Run the step `ingest`"):
        list(make(kind, tmp_path).run(Plan.load, [(tmp_path,)]))
    (tmp_path / "sheet").mkdir()
    with pytest.raises(WorkerError, match=r"no index in this folder"):
        list(make(kind, tmp_path).run(read_manifest, [(tmp_path / "sheet",)]))


@pytest.mark.parametrize("kind", ["local", "ray"])
def test_dead_workers_are_noticed(kind: str, tmp_path: Path) -> None:
    with pytest.raises(WorkerDiedError) as caught:
        list(make(kind, tmp_path).run(os._exit, [(3,)]))
    assert "goes on where it stopped" in caught.value.fix


def test_slurm_without_slurm_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """submitit would start all jobs at once on this machine."""
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"no Slurm.*--executor local"):
        list(SlurmExecutor(1, tmp_path / "logs").run(math.pow, JOBS))


def test_workers_have_one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert list(LocalExecutor(1).run(os.getenv, [("OMP_NUM_THREADS",), ("NUMBA_NUM_THREADS",)])) == ["1", "1"]


def test_names() -> None:
    assert isinstance(open_executor("local"), InlineExecutor)
    assert isinstance(open_executor("local", workers=3), LocalExecutor)
    assert isinstance(open_executor("slurm", workers=3), SlurmExecutor)
    assert isinstance(open_executor("ray", workers=3), RayExecutor)
    with pytest.raises(ConfigError, match="unknown") as caught:
        open_executor("dask")
    assert all(name in caught.value.fix for name in EXECUTORS)
    with pytest.raises(ConfigError, match="At least one worker"):
        open_executor("local", workers=0)


@pytest.mark.parametrize(("name", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_extras(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"threestudio-redream\[{name}\]"):
        list(open_executor(name).run(math.pow, JOBS))
