"""Run by test_hostile_bombs.py in a process of its own: load files under 1 GB of address space.

Prints one JSON list: name, seconds of processor time, and the name of the error (or "Asset") for each.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # each thread would reserve address space
resource.setrlimit(resource.RLIMIT_AS, (1024**3, 1024**3))


def processor_time() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def main() -> None:
    from threestudio_redream.assets import load_asset
    from threestudio_redream.errors import AssetError

    def attempt(path: Path) -> tuple[float, str]:
        start = processor_time()
        try:
            load_asset(path)
            name = "Asset"
        except AssetError as error:
            name = "MemoryError" if "MemoryError" in str(error) else type(error).__name__
        return processor_time() - start, name

    budget, results = float(sys.argv[2]), []
    for path in sorted(Path(sys.argv[1]).iterdir()):
        seconds, name = attempt(path)
        for _ in range(2):  # neighbours on the machine inflate processor time: the least of three counts
            if seconds < budget:
                break
            seconds = min(seconds, attempt(path)[0])
        results.append((path.name, seconds, name))
    sys.stdout.write(json.dumps(results))


main()
