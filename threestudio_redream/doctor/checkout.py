"""The state of a checkout of upstream threestudio: which it is, and whether this package is let in."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from threestudio_redream.runtime.stand_in.checkout import VARIABLE

__all__ = ["describe_checkout"]

MAX_BYTES = 2**16
_VERSION = re.compile(r"""^__version__\s*=\s*["']([^"']{1,40})["']""", re.MULTILINE)


def describe_checkout(path: str | Path | None = None) -> dict[str, Any] | None:
    """Facts about a checkout, as JSON values; nothing of it is imported.

    Args:
        path: of the folder with its ``launch.py``; left out, what ``THREESTUDIO_DIR`` names.

    Returns:
        None if none is named; else ``path``, ``version``, ``commit`` (empty where unknown), ``shim`` (``in place``,
        ``outdated``, ``absent``), ``clones`` of this project in its ``custom/``, ``error`` and ``cure``.
    """
    named = str(path or os.environ.get(VARIABLE, ""))
    if not named:
        return None
    from threestudio_redream.errors import RedreamError
    from threestudio_redream.hosting.shim import look

    folder = Path(named).expanduser()
    facts: dict[str, Any] = {
        "path": str(folder),
        "version": _version(folder / "threestudio" / "__init__.py"),
        "commit": _commit(folder),
        "shim": "absent",
        "clones": [],
        "error": "",
        "cure": "",
    }
    try:
        found = look(folder)
    except RedreamError as error:
        return {**facts, "error": error.problem, "cure": error.fix}
    facts |= {"shim": found.status, "clones": [str(clone) for clone in found.clones]}
    if found.status != "in place" and not (found.status == "absent" and found.clones):
        facts["cure"] = f"redream install-extension {folder}"
    return facts


def _version(file: Path) -> str:
    try:
        found = _VERSION.search(file.read_text("utf-8", errors="replace")[:MAX_BYTES])
    except OSError:
        return ""
    return found.group(1) if found else ""


def _commit(folder: Path) -> str:
    """Short hash of the checkout's own commit; not that of a repository around it."""
    if not (folder / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
