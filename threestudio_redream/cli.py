"""The ``redream`` command: one verb per job.

Exit status: 0 the job is done; 1 it is not, and one message on standard error says why; 2 the command
line is wrong; 130 interrupted. ``redream --debug VERB ...`` shows the traceback behind a message.

Heavy packages are imported inside the verbs, so that ``redream --help`` and ``redream doctor`` also
work where torch does not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from threestudio_redream import __version__
from threestudio_redream.errors import RedreamError

__all__ = ["app", "main"]

app = typer.Typer(
    name="redream",
    help="Retrieval-augmented text-to-3D. Training runs start with launch.py; this command does the jobs around them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback behind an error message.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    context.obj = {"debug": debug}


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of tables.")] = False,
    outputs: Annotated[Path, typer.Option(help="Folder of the runs, for the disk space line.")] = Path("outputs"),
) -> None:
    """Say what works on this machine: each component found, missing or broken, and the cure.

    The exit status is 0 if everything that the base install needs is found, else 1.
    """
    from threestudio_redream.doctor import diagnose, render

    diagnosis = diagnose(outputs=outputs)
    if as_json:
        typer.echo(json.dumps(diagnosis.as_dict(), indent=1))
    else:
        from rich.console import Console

        render(diagnosis, Console())
    if not diagnosis.ok:
        raise typer.Exit(1)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command and end the process with its exit status (see the module docstring).

    A :class:`~threestudio_redream.errors.RedreamError` becomes one message on standard error.

    Args:
        arguments: the words after ``redream``; ``sys.argv`` if left out.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        app(args=words, prog_name="redream")
    except RedreamError as error:
        if "--debug" in words:
            raise
        typer.echo(f"redream: {error}", err=True)
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
