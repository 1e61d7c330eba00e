"""What every benchmark script shares: the environment record, timers, memory peaks, the JSON writer."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "environment", "peak_extra_mib", "summary", "time_calls", "versions", "write_results"]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
if str(ROOT) not in sys.path:  # `python benchmarks/x.py` finds `tools` and, in a clone, the package
    sys.path.append(str(ROOT))
_PACKAGES = ("torch", "numpy", "numba", "llvmlite")


def environment(packages: Iterable[str] = _PACKAGES) -> dict[str, Any]:
    """Command, commit, machine, threads, versions and load: what a figure needs beside it."""
    names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "REDREAM_KERNELS")
    return {
        "command": " ".join(["python", os.path.relpath(sys.argv[0], ROOT), *map(_without_folder, sys.argv[1:])]),
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "cpu": _cpu_name(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(packages),
        "threads": {name: os.environ[name] for name in names if name in os.environ},
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }


def _without_folder(argument: str) -> str:
    """An absolute path says more about a machine than about the run: keep its last two parts."""
    path = Path(argument)
    return str(Path(*path.parts[-2:])) if path.is_absolute() else argument


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Installed versions, without importing anything; absent packages are left out."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def time_calls(call: Callable[[], object], repeats: int, warmup: int = 1, budget_s: float = 60.0) -> list[float]:
    """Wall-clock milliseconds of up to ``repeats`` calls after ``warmup`` unmeasured ones.

    At least one call is measured; none begins once ``budget_s`` of measured time has passed.
    """
    for _ in range(warmup):
        call()
    times: list[float] = []
    while len(times) < repeats and sum(times) < budget_s * 1e3:
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1e3)
    return times


def summary(times: list[float]) -> dict[str, float]:
    """Median and best of measured milliseconds, and how many there were."""
    return {"median_ms": round(statistics.median(times), 2), "best_ms": round(min(times), 2), "calls": len(times)}


def peak_extra_mib(call: Callable[[], object]) -> float | None:
    """Resident memory at the peak of a second call above what stays after a first, in MiB.

    None where the system does not tell (it needs Linux with glibc).
    """
    call()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what the first call freed must not hide what the second needs
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    except OSError:
        return None
    before = _status_kib("VmRSS")
    call()
    return round((_status_kib("VmHWM") - before) / 1024, 1)


def write_results(name: str, results: dict[str, Any]) -> Path:
    """Write ``benchmarks/results/<name>.json`` whole or not at all; returns its path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    target = RESULTS / f"{name}.json"
    with tempfile.NamedTemporaryFile("w", dir=RESULTS, suffix=".tmp", delete=False) as file:
        json.dump(results, file, indent=2)
        file.write("\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, target)
    return target


def _short(argument: str) -> str:
    """A command-line argument without folders that only this machine has."""
    path = Path(argument).absolute()
    if os.sep not in argument:
        return argument
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(Path(*path.parts[-3:]))


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    family = ", ".join(f"{key} {facts[key].strip()}" for key in ("cpu family", "model") if key in facts)
    return f"{facts.get('model name', platform.machine()).strip()} ({family})"


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _status_kib(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    return 0
