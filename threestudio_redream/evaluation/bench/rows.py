"""Raw rows, one per run: read as a stranger's file, and refused where they are not of the sweep at hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from threestudio_redream.errors import ConfigError
from threestudio_redream.evaluation.bench.harness import Harness
from threestudio_redream.evaluation.bench.suites import Cell

__all__ = ["RESULT", "read_result", "read_row", "refuse_other_settings", "refuse_several_models"]

RESULT = "result.json"
MAX_RESULT = 2**24


def read_result(folder: Path) -> dict[str, Any] | None:
    """The row of a finished run, or None."""
    return read_row(folder / RESULT)


def read_row(path: Path) -> dict[str, Any] | None:
    """A raw row, or None if there is none or it is damaged."""
    try:
        if path.stat().st_size > MAX_RESULT:
            return None
        row = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    metrics, reason = row.get("metrics"), row.get("reason")
    whole = {"ok": _are_metrics(metrics), "failed": isinstance(reason, str)}
    return row if whole.get(str(row.get("status"))) else None


def _are_metrics(found: Any) -> bool:
    """Names that can be written and numbers that fit a float."""
    if not isinstance(found, dict):
        return False
    try:
        "".join(found).encode()
        return all(type(value) in (int, float) and float(value) is not None for value in found.values())
    except (UnicodeEncodeError, OverflowError):
        return False


def refuse_other_settings(harness: Harness, cell: Cell, row: Mapping[str, Any]) -> None:
    """Check that a row belongs to this sweep.

    Raises:
        ConfigError: it is of another cell, or was made with other settings, another index or other weights.
    """
    if {key: row.get(key) for key in asdict(cell)} != asdict(cell) or type(row.get("seed")) is not int:
        raise ConfigError(
            "A result is not of the run that its place names",
            received=f"{cell.method}/{cell.name}",
            fix="Take it away; whoever wrote it did not write it with redream bench.",
        )
    if row.get("settings") != harness.settings(cell):
        raise ConfigError(
            "A run was made with other settings than these",
            received=f"{cell.method}/{cell.name}",
            fix="Repeat the options that it was made with (--set, --root), or give this sweep another --work.",
        )
    inputs = row.get("inputs")
    if inputs is not None and inputs != harness.inputs(cell):  # rows of the first sweeps do not have them
        raise ConfigError(
            "A run was made from another index of assets or other weights than these",
            received=f"{cell.method}/{cell.name}",
            fix="Restore them, or give this sweep another --work.",
        )


def refuse_several_models(rows: Iterable[Mapping[str, Any]]) -> None:
    """Check that all finished rows were scored by the same models.

    Raises:
        ConfigError: they were not; their figures do not compare.
    """
    first: Mapping[str, Any] | None = None
    for row in rows:
        if row["status"] != "ok":
            continue
        first = first or row
        if row.get("models") != first.get("models"):
            raise ConfigError(
                "Two runs were scored by different models",
                received=[
                    f"{each.get('method')}, {each.get('prompt')}, seed {each.get('seed')}" for each in (first, row)
                ],
                fix="Delete the older result.json, which makes that run again, or give this sweep another --work.",
            )
