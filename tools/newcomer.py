"""Do literally what the quickstart says, in a fresh clone and a bare environment, and write down how long it took.

    python tools/newcomer.py                    benchmarks/results/newcomer.json

Every command of ``docs/quickstart.md`` is run in order, but for the way without make. ``<trial>`` is the newest trial
folder, as a reader would fill it in. The environment holds HOME (an empty folder), PATH and what pip needs here, no
more. A command that fails ends the walk.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path("docs") / "quickstart.md"
BLOCK = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
WITHOUT_MAKE = "python3 -m venv"
TAIL = 400


def commands(page: str) -> list[str]:
    """Command lines of a page in order; blocks of output are left out."""
    found: list[str] = []
    for block in BLOCK.findall(page):
        lines = block.replace("\\\n", " ").splitlines()
        if lines and not lines[0].startswith(WITHOUT_MAKE) and re.match(r"(make|python|redream) ", lines[0]):
            found += [line.partition("   #")[0].strip() for line in lines]
    return found


def newest_trial(clone: Path) -> str:
    """``outputs/<name>/<trial>`` of the last run."""
    trials = sorted((clone / "outputs").glob("*/*@*"), key=lambda path: path.stat().st_mtime)
    return str(trials[-1].relative_to(clone)) if trials else ""


def walk(clone: Path, home: Path) -> list[dict[str, Any]]:
    """Run every command of the page in ``clone``; one row each."""
    bare = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    rows = []
    for command in commands((clone / PAGE).read_text("utf-8")):
        # The page says to activate the environment before anything but make.
        path = PATH if command.startswith("make") else f"{clone / '.venv' / 'bin'}:{PATH}"
        typed = re.sub(r"outputs/\S*<trial>", newest_trial(clone), command)
        began = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", typed],
            cwd=clone,
            env={**bare, "HOME": str(home), "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        rows.append({"command": command, "seconds": round(time.monotonic() - began, 1), "status": done.returncode})
        sys.stdout.write(f"{rows[-1]['seconds']:7.1f} s  {command}\n")
        sys.stdout.flush()
        if done.returncode:
            rows[-1]["output"] = done.stdout[-TAIL:]
            sys.stderr.write(done.stdout[-4000:])
            break
    return rows


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "newcomer.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="newcomer-") as scratch:
        home, clone = Path(scratch) / "home", Path(scratch) / "threestudio-redream"
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=clone, capture_output=True, text=True, check=True
        ).stdout.strip()
        rows = walk(clone, home)
    total = round(sum(row["seconds"] for row in rows), 1)
    about = {"commit": commit, "python": sys.version.split()[0], "cores": os.cpu_count(), "seconds": total}
    arguments.out.write_text(json.dumps({**about, "commands": rows}, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{total:7.1f} s  in all\n")
    return max(int(row["status"]) for row in rows)


if __name__ == "__main__":
    sys.exit(main())
