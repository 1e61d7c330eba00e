"""All runs of a sweep on an executor, and what is found of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from threestudio_redream.errors import ConfigError
from threestudio_redream.evaluation.bench.runs import RESULT, Harness, read_result, run_cell
from threestudio_redream.evaluation.bench.suites import Cell
from threestudio_redream.executors import Executor

__all__ = ["collect", "forget_failures", "sweep"]


def sweep(
    harness: Harness,
    cells: Sequence[Cell],
    executor: Executor,
    done: Callable[[dict[str, Any]], None] = lambda row: None,
) -> list[dict[str, Any]]:
    """Run what is not there yet; returns all rows, in the order of ``cells``.

    Args:
        done: called with every row that this call made.

    Raises:
        ConfigError: a configuration is missing, or a folder holds results of other settings; before anything runs.
        WorkerDiedError: a worker was killed; a repeated call goes on.
    """
    rows: dict[Cell, dict[str, Any]] = {}
    for cell in cells:
        row = read_result(harness.folder(cell))
        if row is not None:
            rows[cell] = run_cell(harness, cell)  # refuses other settings, and runs nothing
        else:
            harness.config_files(cell)
    waiting = [(harness, cell) for cell in cells if cell not in rows]
    for row in executor.run(run_cell, waiting):
        rows[_cell_of(row)] = row
        done(row)
    return [rows[cell] for cell in cells]


def collect(harness: Harness, cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """Rows of those of ``cells`` that have one, each with the ``name`` of its raw file.

    Raises:
        ConfigError: results of several settings for one method.
    """
    found: list[dict[str, Any]] = []
    for cell in cells:
        row = read_result(harness.folder(cell))
        if row is None:
            continue
        if row["settings"] != harness.settings(cell):
            raise ConfigError(
                "A run was made with other settings than these",
                received=f"{cell.method}/{cell.name}",
                fix="Repeat the options that it was made with (--set, --root), or give this sweep another --work.",
            )
        found.append({"name": cell.name, **row})
    return found


def forget_failures(harness: Harness, cells: Iterable[Cell]) -> int:
    """Delete the rows of failed runs, so that a sweep tries them again; returns how many."""
    rows = {harness.folder(cell): read_result(harness.folder(cell)) for cell in cells}
    failed = [folder for folder, row in rows.items() if row is not None and row["status"] != "ok"]
    for folder in failed:
        (folder / RESULT).unlink()
    return len(failed)


def _cell_of(row: dict[str, Any]) -> Cell:
    return Cell(row["method"], row["prompt"], row["seed"])
