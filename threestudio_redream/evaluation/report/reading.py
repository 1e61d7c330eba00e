"""What a page shows of a run's folder: capped in size, and nothing instead of an exception for what is damaged."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from threestudio_redream.runtime.files import visible

__all__ = [
    "Series",
    "known_prompt",
    "newest",
    "prompt_of",
    "read_curves",
    "read_json",
    "read_number",
    "read_text",
    "turn_frames",
]

MAX_TEXT, MAX_ROWS = 2**24, 100_000
Series = dict[str, list[tuple[float, float]]]


def read_text(path: Path) -> str:
    """A small text file; empty if there is none."""
    try:
        return path.read_text("utf-8", errors="replace") if path.stat().st_size <= MAX_TEXT else ""
    except OSError:
        return ""


def read_json(path: Path) -> Any:
    """A small JSON file; None if there is none or it is damaged."""
    try:
        return json.loads(read_text(path) or "null")
    except (ValueError, RecursionError):
        return None


def read_number(value: Any) -> float:
    """A float; NaN for what is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def newest(paths: Iterable[Path], count: int = 1) -> list[Path]:
    """The last ``count`` by step; their names, or those of their folders, start with ``it<step>-``."""

    def step(path: Path) -> int:
        found = (re.match(r"it(\d{1,12})-", name) for name in (path.name, path.parent.name))
        return next((int(match[1]) for match in found if match), -1)

    return sorted(visible(paths), key=step)[-count:]


def turn_frames(save: Path) -> list[Path]:
    """Pictures of the newest turn of test views without its last one, which is the first again."""
    folders = newest(path for path in save.glob("it*-test") if path.is_dir())
    frames = [path for folder in folders for path in visible(folder.glob("*.png")) if path.stem.isdigit()]
    return sorted(frames, key=lambda path: int(path.stem))[:-1]


def read_curves(logs: Path, names: Sequence[str]) -> Series:
    """``(step, value)`` of the logged figures called ``names``, finite ones alone; in the order of ``names``."""
    series: Series = {name: [] for name in names}
    for path in sorted(logs.glob("version_*/metrics.csv"), key=lambda path: _version(path.parent.name)):
        for row in _csv_rows(read_text(path)):
            step = read_number(row.get("step"))
            for name, points in series.items():
                value = read_number(row.get(name) or "nan")
                if math.isfinite(value) and math.isfinite(step):
                    points.append((step, value))
    return {name: points for name, points in series.items() if points}


def _version(name: str) -> tuple[int, str]:
    """Lightning counts a run's resumptions: version_10 comes after version_2."""
    number = name.removeprefix("version_")
    return (int(number) if re.fullmatch(r"\d{1,9}", number) else -1, name)


def _csv_rows(text: str) -> Iterator[dict[str, str]]:
    """At most so many, up to the first that is damaged."""
    reader = csv.DictReader(io.StringIO(text))
    try:
        yield from (row for _, row in zip(range(MAX_ROWS), reader))
    except csv.Error:
        return


def prompt_of(trial: Path) -> str:
    """The prompt of a run; the folder's name if it is not known. For titles."""
    return known_prompt(trial) or trial.name


def known_prompt(trial: Path) -> str:
    """The prompt of a run as its guidance got it; empty if it is not known."""
    retrieved = read_json(trial / "save" / "retrieved" / "retrieved.json")
    if isinstance(retrieved, dict) and isinstance(retrieved.get("prompt"), str):
        return str(retrieved["prompt"])
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        config = OmegaConf.create(read_text(trial / "configs" / "parsed.yaml"))
        prompt = OmegaConf.select(config, "system.prompt_processor.prompt", throw_on_resolution_failure=False)
    except (ValueError, OmegaConfBaseException, YAMLError, RecursionError):
        prompt = None
    if not isinstance(prompt, str) or prompt.startswith("lib:"):  # a library of prompts may lie elsewhere by now
        return ""
    return prompt
