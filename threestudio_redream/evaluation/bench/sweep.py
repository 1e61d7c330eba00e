"""All runs of a sweep on an executor, and what is found of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from threestudio_redream.errors import ConfigError
from threestudio_redream.evaluation.bench.harness import Harness
from threestudio_redream.evaluation.bench.rows import (
    RESULT,
    read_result,
    read_row,
    refuse_other_settings,
    refuse_several_models,
)
from threestudio_redream.evaluation.bench.runs import run_cell
from threestudio_redream.evaluation.bench.suites import Cell, open_suite
from threestudio_redream.evaluation.bench.turns import TURN, read_turn
from threestudio_redream.evaluation.scoring import Scorer
from threestudio_redream.executors import Executor
from threestudio_redream.runtime.files import atomic_write_bytes, atomic_write_text, visible

__all__ = ["adopt", "adoptable", "collect", "forget_failures", "sweep", "would_lose"]


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
        ConfigError, RetrievalError: a configuration, the index, an asset that a method needs or a model that scores is
            missing, or a folder holds results of other settings; before anything runs.
        WorkerDiedError: a worker was killed; a repeated call goes on.
    """
    rows: dict[Cell, dict[str, Any]] = {}
    for cell in cells:
        row = read_result(harness.folder(cell))
        if row is not None:
            rows[cell] = run_cell(harness, cell)  # refuses other settings, and runs nothing
        else:
            harness.overrides(cell)
            harness.config_files(cell)
    waiting = [(harness, cell) for cell in cells if cell not in rows]
    if waiting:
        harness.retrieval()
        for cfg in open_suite(harness.suite).scores:
            Scorer(cfg)  # a model that is not here is better noticed before hours of training
    for row in executor.run(run_cell, waiting):
        rows[_cell_of(row)] = row
        done(row)
    return [rows[cell] for cell in cells]


def collect(harness: Harness, cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """Rows of those of ``cells`` that have one, each with the ``name`` of its raw file.

    Raises:
        ConfigError: results of several settings for one method, or scored by several models.
    """
    found: list[dict[str, Any]] = []
    for cell in cells:
        row = read_result(harness.folder(cell))
        if row is None:
            continue
        refuse_other_settings(harness, cell, row)
        found.append({"name": cell.name} | {key: value for key, value in row.items() if key != "name"})
    refuse_several_models(found)
    return found


def would_lose(harness: Harness, rows: Iterable[Mapping[str, Any]], results: Path) -> int:
    """How many finished runs in a folder of results would be lost to the tables of ``rows``: these have none for the
    same method, prompt and seed, or were made with other settings."""
    finished = [Cell(row["method"], row["prompt"], row["seed"]) for row in rows if row["status"] == "ok"]
    ours = {results / "runs" / cell.method / f"{cell.name}.json": cell for cell in finished}
    lost = 0
    for path in visible((results / "runs").glob("*/*.json")):
        row = read_row(path)
        if row is None or row["status"] != "ok":
            continue
        try:
            refuse_other_settings(harness, ours[path], row)
        except (KeyError, ConfigError):
            lost += 1
    return lost


def adoptable(harness: Harness, cells: Iterable[Cell], results: Path) -> dict[Cell, tuple[dict[str, Any], Path]]:
    """Finished runs of a folder of results, as another machine wrote it, that are not here; with their raw files.

    A failed run is not taken.

    Raises:
        ConfigError: no such folder, or a row of other settings.
    """
    if not (results / "runs").is_dir():
        raise ConfigError(
            "This is no folder of results",
            received=str(results),
            fix="Name one that redream bench wrote (--out), for instance benchmarks/results/mini.",
        )
    found: dict[Cell, tuple[dict[str, Any], Path]] = {}
    for cell in cells:
        path = results / "runs" / cell.method / f"{cell.name}.json"
        row = read_row(path)
        if row is None or row["status"] != "ok" or read_result(harness.folder(cell)) is not None:
            continue
        refuse_other_settings(harness, cell, row)
        found[cell] = row, path
    return found


def adopt(harness: Harness, cells: Iterable[Cell], results: Path) -> int:
    """Take over what is :func:`adoptable`; returns how many. A run that is here already is left as it is.

    Raises:
        ConfigError: as there; before anything is taken.
    """
    found = adoptable(harness, cells, results)
    for cell, (row, path) in found.items():
        folder = harness.folder(cell)
        folder.mkdir(parents=True, exist_ok=True)
        turn = read_turn(path.with_suffix(Path(TURN).suffix))
        if turn is not None:
            atomic_write_bytes(folder / TURN, turn)
        row = {key: value for key, value in row.items() if key != "name"}
        atomic_write_text(folder / RESULT, json.dumps(row, indent=1))
    return len(found)


def forget_failures(harness: Harness, cells: Iterable[Cell]) -> int:
    """Delete the rows of failed runs, so that a sweep tries them again; returns how many."""
    rows = {}
    for cell in cells:
        rows[harness.folder(cell)] = row = read_result(harness.folder(cell))
        if row is not None:
            refuse_other_settings(harness, cell, row)
    failed = [folder for folder, row in rows.items() if row is not None and row["status"] != "ok"]
    for folder in failed:
        (folder / RESULT).unlink()
    return len(failed)


def _cell_of(row: dict[str, Any]) -> Cell:
    return Cell(row["method"], row["prompt"], row["seed"])
