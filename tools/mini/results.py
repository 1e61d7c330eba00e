"""Raw figures of the mini lab on disk, beside a record of where they came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks._common import environment
from threestudio_redream.runtime.files import atomic_write_text

__all__ = ["write_results"]


def write_results(path: Path, figures: dict[str, Any]) -> None:
    """Write ``{"environment", "results"}`` as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packages = ("torch", "diffusers", "transformers", "numpy", "numba")
    text = json.dumps({"environment": environment(packages), "results": figures}, indent=2)
    atomic_write_text(path, text + "\n")
