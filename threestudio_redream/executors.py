"""Run independent jobs: here, in processes of this machine, on Slurm through submitit, or on Ray.

No engine of our own: an executor only starts an importable function on each of a list of jobs and hands out the
results as they come. What makes long work survive anything is that its jobs can be repeated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from threestudio_redream.errors import ConfigError, MissingExtraError, RedreamError

__all__ = [
    "EXECUTORS",
    "Executor",
    "InlineExecutor",
    "LocalExecutor",
    "RayExecutor",
    "SlurmExecutor",
    "WorkerDiedError",
    "WorkerError",
    "open_executor",
]

EXECUTORS = ("local", "slurm", "ray")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

Job = tuple[Any, ...]


@dataclass(frozen=True)
class _Failure:
    """A named error of another process. As an exception it may not survive the way: some need more than a message."""

    text: str
    cause: str


class WorkerError(RedreamError, RuntimeError):
    """A named error of another process; its cause names the class."""


class WorkerDiedError(WorkerError):
    """A worker process ended without a result: killed for memory, or crashed in native code."""


class Executor(Protocol):
    """Calls an importable function on many arguments.

    Attributes:
        name: for messages. workers: jobs that run at a time.
    """

    name: str
    workers: int

    def run(self, function: Callable[..., Any], jobs: Sequence[Job]) -> Iterator[Any]:
        """Results in any order, as they come.

        Raises:
            WorkerDiedError: a worker ended without a result. WorkerError: for a RedreamError of another process,
            with its text. Whatever else the function raises.
        """
        ...


class InlineExecutor:
    """One job after the other in this process."""

    name, workers = "local", 1

    def run(self, function: Callable[..., Any], jobs: Sequence[Job]) -> Iterator[Any]:
        """See :class:`Executor`."""
        for job in jobs:
            yield function(*job)


class LocalExecutor:
    """Processes of this machine, started afresh (spawn), so that no threads or GPU contexts are inherited."""

    name = "local"

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(self, function: Callable[..., Any], jobs: Sequence[Job]) -> Iterator[Any]:
        """See :class:`Executor`."""
        from concurrent.futures import ProcessPoolExecutor, as_completed
        from concurrent.futures.process import BrokenProcessPool
        from multiprocessing import get_context

        with ProcessPoolExecutor(
            min(self.workers, max(len(jobs), 1)), get_context("spawn"), initializer=_one_thread
        ) as pool:
            futures = [pool.submit(_call, function, *job) for job in jobs]
            try:
                for future in as_completed(futures):
                    yield _unwrap(future.result())
            except BrokenProcessPool as cause:
                raise _died(str(cause)) from cause
            finally:
                for future in futures:
                    future.cancel()


class SlurmExecutor:
    """Slurm jobs through submitit (extra ``slurm``).

    Args:
        folder: for logs, on a file system that all nodes see. cluster: None lets submitit look for Slurm; ``local``
            runs subprocesses, ``debug`` this process. options: submitit's, e.g. ``slurm_partition``, ``timeout_min``.
    """

    name = "slurm"

    def __init__(self, workers: int, folder: Path, *, cluster: str | None = None, **options: Any) -> None:
        self.workers, self.folder, self.cluster, self.options = workers, folder, cluster, options

    def run(self, function: Callable[..., Any], jobs: Sequence[Job]) -> Iterator[Any]:
        """See :class:`Executor`."""
        try:
            import submitit
            from submitit.core.utils import FailedJobError, UncompletedJobError
        except ImportError as cause:
            raise MissingExtraError("submitit", "slurm", "The slurm executor", cause) from cause

        self.folder.mkdir(parents=True, exist_ok=True)
        executor = submitit.AutoExecutor(folder=str(self.folder), cluster=self.cluster)
        if self.cluster is None and executor.cluster != "slurm":  # submitit would start all jobs at once right here
            raise ConfigError(
                "There is no Slurm on this machine",
                received=f"submitit found {executor.cluster!r}",
                fix="Run this where sbatch is, or use --executor local.",
            )
        executor.update_parameters(name="redream", **({"timeout_min": 720} | self.options))
        if executor.cluster == "slurm":
            executor.update_parameters(slurm_array_parallelism=self.workers)
        if not jobs:
            return
        submitted = executor.map_array(_call, [function] * len(jobs), *zip(*jobs, strict=True))
        try:
            for job in submitit.helpers.as_completed(submitted):
                yield _unwrap(job.result())
        except (FailedJobError, UncompletedJobError) as cause:
            raise _died(str(cause)[-400:]) from cause


class RayExecutor:
    """Ray tasks (extra ``ray``) on the cluster that ``RAY_ADDRESS`` names, else on this machine."""

    name = "ray"

    def __init__(self, workers: int, **options: Any) -> None:
        self.workers, self.options = workers, options

    def run(self, function: Callable[..., Any], jobs: Sequence[Job]) -> Iterator[Any]:
        """See :class:`Executor`."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as cause:
            raise MissingExtraError("ray", "ray", "The ray executor", cause) from cause
        started = not ray.is_initialized()
        if started:
            local: dict[str, Any] = {}
            if not os.environ.get("RAY_ADDRESS"):
                local = {"num_cpus": self.workers, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
            ray.init(log_to_driver=False, configure_logging=False, **(local | self.options))
        try:
            task = ray.remote(num_cpus=1, max_retries=0)(_call)
            waiting = [task.remote(function, *job) for job in jobs]
            while waiting:
                ready, waiting = ray.wait(waiting, num_returns=1)
                yield _unwrap(ray.get(ready[0]))
        except ray.exceptions.RayTaskError as cause:
            raise cause.cause or cause from cause
        except ray.exceptions.RayError as cause:
            raise _died(str(cause)[-400:]) from cause
        finally:
            if started:
                ray.shutdown()


def open_executor(name: str, *, workers: int = 1, folder: Path | None = None, **options: Any) -> Executor:
    """An executor by name.

    Args:
        name: ``local`` (one worker runs in this process), ``slurm`` or ``ray``. workers: jobs at a time.
        folder: for logs of Slurm jobs. options: of submitit or ``ray.init``.

    Raises:
        ConfigError: unknown name, or no workers.
    """
    if workers < 1:
        raise ConfigError("At least one worker is needed", received=workers, fix="Use --workers 1 or more.")
    if name == "local":
        return InlineExecutor() if workers == 1 else LocalExecutor(workers)
    if name == "slurm":
        return SlurmExecutor(workers, folder or Path("submitit"), **options)
    if name == "ray":
        return RayExecutor(workers, **options)
    raise ConfigError("The executor is unknown", received=name, fix=f"Use one of {', '.join(EXECUTORS)}.")


def _call(function: Callable[..., Any], *job: Any) -> Any:
    """What runs in the other process."""
    try:
        return function(*job)
    except RedreamError as error:
        return _Failure(str(error), type(error).__name__)


def _unwrap(result: Any) -> Any:
    if isinstance(result, _Failure):
        error = WorkerError(result.text)
        raise error from RuntimeError(f"{result.cause} in a worker")
    return result


def _one_thread() -> None:
    """Workers share the cores; set before numba or torch is imported."""
    for name in _THREAD_VARIABLES:
        os.environ[name] = "1"


def _died(detail: str) -> WorkerDiedError:
    return WorkerDiedError(
        "A worker ended without a result",
        received=detail,
        fix="Repeat the command: it goes on where it stopped. If memory is short, use fewer workers.",
    )
