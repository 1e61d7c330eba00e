"""Fit real meshes with the shipped configuration, and score field and exported mesh on held-out views.

    python benchmarks/fit_asset.py MESH [MESH ...] [--set key=value ...]

Each mesh is one run of ``launch.py --config custom_configs/fit-asset.yaml`` in a process of its own, timed
from its start to its end (asset rendering, training, turntable, export and scoring included). Scores
are those the run writes into ``metrics.json``: 16 views at 128 px that were never trained on, on white.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _common import environment, write_results

ROOT = Path(__file__).resolve().parents[1]


def fit(mesh: Path, overrides: list[str], workdir: Path) -> dict:
    """Run one fit; returns its scores, seconds and steps."""
    tag = mesh.stem.replace(" ", "-")
    command = [
        sys.executable,
        str(ROOT / "launch.py"),
        "--config",
        str(ROOT / "custom_configs" / "fit-asset.yaml"),
        f"system.asset.path={mesh}",
        f"exp_root_dir={workdir}",
        "use_timestamp=false",
        f"tag={tag}",
        *overrides,
    ]
    started = time.perf_counter()
    finished = subprocess.run(command, cwd=ROOT, check=False)
    seconds = time.perf_counter() - started
    if finished.returncode != 0:
        return {"mesh": mesh.name, "error": f"exit status {finished.returncode}", "seconds": seconds}
    metrics = json.loads((workdir / "fit-asset" / tag / "save" / "metrics.json").read_text())
    glb = metrics.pop("mesh")
    return {"mesh": mesh.name, "bytes": mesh.stat().st_size, "seconds": round(seconds, 1), **metrics, "glb": glb}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("meshes", nargs="+", type=Path)
    parser.add_argument("--set", nargs="*", default=[], metavar="key=value", help="configuration overrides")
    parser.add_argument("--keep", type=Path, help="keep the trial folders here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        workdir = (args.keep or Path(temporary)).resolve()
        runs = [fit(mesh.resolve(), args.set, workdir) for mesh in args.meshes]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    record = {"environment": environment(), "overrides": args.set, "peak_rss_gib": round(peak, 2), "runs": runs}
    write_results("fit_asset", record)


if __name__ == "__main__":
    main()
