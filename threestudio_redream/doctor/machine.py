"""What the doctor says about the machine: processors, memory, disk. Standard library only."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

__all__ = ["describe_machine"]

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def describe_machine(outputs: str | Path = "outputs") -> dict[str, Any]:
    """Facts about this machine, as JSON values; sizes in bytes, ``None`` where the system does not say.

    Args:
        outputs: folder that runs are written to; it need not exist yet.
    """
    folder = Path(outputs).absolute()
    present = next(path for path in (folder, *folder.parents) if path.exists())
    memory, limit = _memory_total(), _memory_limit()
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "executable": sys.executable,
        "cores": os.cpu_count(),
        "usable_cores": _usable_cores(),
        "thread_settings": {
            name: os.environ[name] for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS") if name in os.environ
        },
        "memory_total": min(memory, limit) if memory and limit else memory,
        "memory_available": _memory_available(),
        "outputs": str(folder),
        "outputs_writable": os.access(present, os.W_OK),
        "outputs_free": shutil.disk_usage(present).free,
    }


def _usable_cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):  # respects taskset and container CPU sets
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _memory_total() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # no sysconf on Windows
        return None


def _memory_limit(files: tuple[str, ...] = _CGROUP_LIMITS) -> int | None:
    """The memory limit of the container that this process runs in, if there is one."""
    for name in files:
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 2**60:  # cgroup v1 writes a huge number for "no limit"
            return int(text)
    return None


def _memory_available(meminfo: str = "/proc/meminfo") -> int | None:
    try:
        lines = Path(meminfo).read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
