"""Progress bars and option types that the retrieval verbs share."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from threestudio_redream.retrieval.build.run import Progress

__all__ = ["Cache", "Json", "count_bar", "step_bars"]

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]
Cache = Annotated[Path | None, typer.Option(help="Folder for what Objaverse downloads.")]


@contextmanager
def step_bars(quiet: bool) -> Iterator[Progress | None]:
    """A bar per step on a terminal, with the time that is left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
    with Bars(*columns, console=console, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(step: str, done: int, total: int, left: float | None) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total, left="")
            minutes = "" if not left else f"{left / 60:.0f} min left" if left > 90 else f"{left:.0f} s left"
            bars.update(tasks[step], completed=done, total=total, left=minutes)

        yield show


@contextmanager
def count_bar(what: str, quiet: bool) -> Iterator[Any]:
    with step_bars(quiet) as show:
        yield (lambda done, total: None) if show is None else (lambda done, total: show(what, done, total, None))
