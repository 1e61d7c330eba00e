"""The verb ``redream bench``; :mod:`threestudio_redream.cli` adds it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from threestudio_redream.evaluation.bench.suites import Cell

__all__ = ["bench"]


def bench(
    suite: Annotated[str, typer.Option(help="mini (a laptop) or paper (a GPU, full-size models).")] = "mini",
    methods: Annotated[
        list[str] | None, typer.Option("--methods", "-m", help="main, ablations, all, or names; repeat, or use commas.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Like 0,1,2; left out: the suite's.")] = "",
    prompts: Annotated[int | None, typer.Option(help="The first so many for every method.")] = None,
    executor: Annotated[str, typer.Option(help="local, slurm or ray.")] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of each run; left out: the cores shared by the workers.")
    ] = None,
    gpu: Annotated[str, typer.Option(help="As for launch.py; left out: cpu for mini, auto for paper.")] = "",
    work: Annotated[Path | None, typer.Option(help="Folder of the runs; left out: outputs/bench/SUITE.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the results; left out: benchmarks/results/SUITE, or WORK/results if that holds other runs."
        ),
    ] = None,
    root: Annotated[Path, typer.Option(help="A clone of the repository: its configurations are run.")] = Path(),
    index: Annotated[
        Path | None, typer.Option(help="Folder of the assets; left out: what ReDream's configuration names.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value over every run's configuration.")
    ] = None,
    adopted: Annotated[
        Path | None, typer.Option("--adopt", help="Results of another machine: its finished runs count as made here.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="List the runs and what is missing; run nothing.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Only count what is there.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run again what has failed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Run prompts x methods x seeds in one harness, and write tables with 95 % paired intervals.

    Repeat the command to go on: finished runs are never repeated, an interrupted one goes on at its last checkpoint.
    A run that fails is a row of its own and stops nothing. The exit status is 1 if one has failed.
    """
    from threestudio_redream.evaluation.bench.gallery import write_gallery
    from threestudio_redream.evaluation.bench.harness import Harness
    from threestudio_redream.evaluation.bench.methods import chosen_methods
    from threestudio_redream.evaluation.bench.suites import open_suite
    from threestudio_redream.evaluation.bench.sweep import adopt, adoptable, collect, forget_failures, sweep
    from threestudio_redream.evaluation.bench.tables import as_markdown, write_results
    from threestudio_redream.executors import open_executor

    chosen = open_suite(suite)
    names = chosen_methods([name for text in methods or ["main"] for name in text.split(",")])
    cells = chosen.cells(names, prompts=prompts, seeds=_numbers(seeds) if seeds else None)
    harness = Harness(
        suite=suite,
        work=(work or Path("outputs") / "bench" / suite).resolve(),
        root=root.resolve(),
        gpu=gpu or ("cpu" if suite == "mini" else "auto"),
        threads=threads or max((os.cpu_count() or 1) // workers, 1),
        extra=tuple(settings or ()),
        index="" if index is None else str(index.resolve()),
    )
    left_out = [cell for cell in cells if not harness.applicable(cell)]
    for cell in left_out:
        typer.echo(f"left out: {cell.method}, {cell.prompt}, seed {cell.seed}: the index has no such asset", err=True)
    cells = [cell for cell in cells if cell not in left_out]
    if plan:
        waiting = adoptable(harness, cells, adopted) if adopted is not None else ()
        _show_plan([(cell, _state(harness, cell, waiting)) for cell in cells], as_json)
        return
    if adopted is not None:
        typer.echo(f"{adopt(harness, cells, adopted)} runs adopted from {adopted}", err=True)
    if not report:
        if retry_failed:
            forget_failures(harness, cells)
        runner = open_executor(executor, workers=workers, folder=harness.work / "submitit")
        with _bar(len(cells), len(collect(harness, cells)), quiet=as_json) as advance:
            sweep(harness, cells, runner, advance)
    rows = collect(harness, cells)
    if not rows:
        typer.echo("No run has finished yet.", err=True)
        raise typer.Exit(1)
    folder = _results_folder(harness, rows, out)
    table = write_results(folder, chosen, rows, _about(harness, rows), harness.folder_of)
    gallery = write_gallery(harness.work / "gallery.html", chosen, rows, table, harness.folder_of)
    failed = [row for row in rows if row["status"] != "ok"]
    if as_json:
        typer.echo(json.dumps(table, indent=1))
    else:
        counts = {name: sum(row["method"] == name for row in failed) for name in names}
        typer.echo(as_markdown(table, chosen.columns, counts))
        typer.echo(f"{len(rows)} of {len(cells)} runs, {len(failed)} failed. Tables and raw rows: {_near(folder)}")
        typer.echo(f"Pictures of all runs: {_near(gallery)}")
    for row in failed:
        typer.echo(f"{row['method']}, {row['prompt']}, seed {row['seed']}: {row['reason']}", err=True)
    if failed:
        raise typer.Exit(1)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError as cause:
        raise typer.BadParameter("Use whole numbers like 0,1,2.", param_hint="--seeds") from cause


def _results_folder(harness: Any, rows: Sequence[dict[str, Any]], out: Path | None) -> Path:
    """Where the tables go. Unless a folder was named, what lies there is only replaced by what covers it."""
    from threestudio_redream.evaluation.bench.sweep import would_lose

    folder = (out or Path("benchmarks") / "results" / harness.suite).resolve()
    lost = would_lose(harness, rows, folder)
    if not lost:
        return folder
    if out is not None:
        typer.echo(f"{lost} finished runs in {_near(folder)} are not among these, and not in its tables now", err=True)
        return folder
    other = harness.work / "results"
    typer.echo(
        f"{_near(folder)} holds {lost} finished runs that are not among these, and is left as it is; the tables go to "
        f"{_near(other)} (--out names another folder)",
        err=True,
    )
    return Path(other)


def _show_plan(states: Sequence[tuple[Cell, str]], as_json: bool) -> None:
    if as_json:
        rows = [{"method": c.method, "prompt": c.prompt, "seed": c.seed, "status": state} for c, state in states]
        typer.echo(json.dumps(rows, indent=1))
        return
    for cell, state in states:
        typer.echo(f"{state:14} {cell.method:26} seed {cell.seed}  {cell.prompt}")
    typer.echo(f"{sum(state == 'to do' for _, state in states)} of {len(states)} runs are to be made.")


def _state(harness: Any, cell: Cell, adoptable: Container[Cell]) -> str:
    from threestudio_redream.errors import ConfigError
    from threestudio_redream.evaluation.bench.rows import read_result, refuse_other_settings

    row = read_result(harness.folder(cell))
    if row is None:
        return "to adopt" if cell in adoptable else "to do"
    try:
        refuse_other_settings(harness, cell, row)
    except ConfigError:
        return "other settings"
    return str(row["status"])


def _bar(total: int, finished: int, quiet: bool) -> Any:
    """A context that gives a function to call with every new row."""
    from contextlib import contextmanager

    @contextmanager
    def shown() -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), disable=quiet, speed_estimate_period=86400.0) as bars:
            task = bars.add_task("runs", total=total, completed=finished)

            def advance(row: dict[str, Any]) -> None:
                bars.console.print(f"{row['status']}: {row['method']}, {row['prompt']}, seed {row['seed']}")
                bars.advance(task)

            yield advance

    return shown()


def _about(harness: Any, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a figure needs beside it."""
    import platform

    from threestudio_redream.runtime.trial import code_version

    first = next((row for row in rows if row["status"] == "ok"), {})
    return {
        "runs": len(rows),
        "threads": harness.threads,
        "extra": list(harness.extra),
        "commits": sorted({str(row.get("commit")) for row in rows}),
        "reported_at": code_version(),
        "platform": platform.platform(),
        "versions": first.get("versions", {}),
        "models": first.get("models", {}),
    }


def _near(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
