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
from threestudio_redream.adaptation.cli import adapt
from threestudio_redream.errors import RedreamError
from threestudio_redream.evaluation.bench.cli import bench
from threestudio_redream.evaluation.cli import evaluate
from threestudio_redream.hosting.cli import install_extension
from threestudio_redream.retrieval.cli import index_app
from threestudio_redream.retrieval.cli_search import fetch, search

__all__ = ["app", "main"]

app = typer.Typer(
    name="redream",
    help="Retrieval-augmented text-to-3D. `redream launch` is launch.py; the other verbs do the jobs around a run.",
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
    hub: Annotated[bool, typer.Option("--hub", help="Also ask the hub for the models that are not here.")] = False,
    threestudio: Annotated[
        Path | None, typer.Option(help="Also look at a checkout of upstream; left out: THREESTUDIO_DIR.")
    ] = None,
) -> None:
    """Say what works on this machine: each component found, missing or broken, and the cure.

    The exit status is 0 if everything that the base install needs is found, else 1.
    """
    from threestudio_redream.doctor import diagnose, render

    diagnosis = diagnose(outputs=outputs, ask_hub=hub, checkout=threestudio)
    if as_json:
        typer.echo(json.dumps(diagnosis.as_dict(), indent=1))
    else:
        from rich.console import Console

        render(diagnosis, Console())
    if not diagnosis.ok:
        raise typer.Exit(1)


_COLOURS = {"none": None, "transparent": None, "black": (0.0,) * 3, "grey": (0.5,) * 3, "white": (1.0,) * 3}


def _parse_background(text: str) -> tuple[float, ...] | None:
    """A colour by name, as one number, or as three with commas; sRGB-encoded, from 0 to 1."""
    if text.lower() in _COLOURS:
        return _COLOURS[text.lower()]
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3):
        raise typer.BadParameter(
            f"{text!r} is no colour. Give {', '.join(_COLOURS)}, a number from 0 to 1, or three: 0.2,0.4,1"
        )
    return numbers * (3 // len(numbers))


@app.command("render")
def render_file(
    file: Annotated[Path, typer.Argument(help="GLB, glTF, OBJ, PLY, STL or OFF.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the pictures; made if needed.", show_default=False)],
    views: Annotated[int, typer.Option(help="Number of views, equally spaced around the object.")] = 8,
    size: Annotated[int, typer.Option(help="Side of a picture in pixels.")] = 512,
    elevation: Annotated[float, typer.Option(help="Camera elevation in degrees, -90 to 90.")] = 15.0,
    fovy: Annotated[float, typer.Option(help="Vertical field of view in degrees.")] = 40.0,
    distance: Annotated[
        float | None, typer.Option(help="Camera distance; the object has radius 0.5. Left out: it fills the picture.")
    ] = None,
    background: Annotated[
        str, typer.Option(help="none (transparent), black, grey, white, or numbers from 0 to 1: 0.2,0.4,1")
    ] = "none",
    shading: Annotated[str, typer.Option(help="none (plain colour), headlight or world.")] = "none",
    up: Annotated[str, typer.Option(help="Axis of the file that points up: +y, +z, -x, ...")] = "+y",
    front: Annotated[
        str | None, typer.Option(help="Axis of the file that the front faces. Left out: the usual one for that up.")
    ] = None,
    masks: Annotated[bool, typer.Option("--masks", help="Write silhouettes too.")] = False,
    depths: Annotated[bool, typer.Option("--depths", help="Write depth arrays (npy) too.")] = False,
    normals: Annotated[bool, typer.Option("--normals", help="Write normal maps too.")] = False,
    supersample: Annotated[int, typer.Option(help="Samples along each side of a pixel.")] = 3,
    backend: Annotated[str, typer.Option(help="auto, numba, numpy or moderngl (GPU).")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of a line.")] = False,
) -> None:
    """Render a 3D file from all sides: pictures, their cameras, a contact sheet.

    The first view looks at the front; the others follow counter-clockwise seen from above.
    """
    colour = _parse_background(background)

    from rich.console import Console
    from rich.progress import Progress

    from threestudio_redream.assets.render import render_to_folder

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=as_json or not console.is_terminal) as bar:
        task = bar.add_task("rendering", total=views)
        report = render_to_folder(
            file,
            out,
            views=views,
            size=size,
            elevation_deg=elevation,
            fovy_deg=fovy,
            distance=distance,
            background=colour,
            shading=shading,
            supersample=supersample,
            masks=masks,
            depths=depths,
            normals=normals,
            up=up,
            front=front,
            backend=backend,  # type: ignore[arg-type]  # checked there
            progress=lambda done, _: bar.update(task, completed=done),
        )
    if as_json:
        typer.echo(json.dumps(report, indent=1))
        return
    for warning in report["warnings"]:
        typer.echo(f"redream: {file}: {warning}", err=True)
    count = "1 view" if report["views"] == 1 else f"{report['views']} views"
    first = out / (report["sheet"] or report["files"][0])
    typer.echo(f"{count} of {file} ({report['asset']['faces']} faces) in {report['seconds']:.1f} s: {first}")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Trial folder of a run: the one with configs and save in it.")],
) -> None:
    """Write report.html into a run's folder: one page with views, assets, curves and provenance."""
    from threestudio_redream.evaluation.report import write_report

    typer.echo(str(write_report(run)))


@app.command(
    "launch",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def launch(context: typer.Context) -> None:
    """Run a configuration: launch.py for those who have no clone. --help shows its flags."""
    from threestudio_redream.runtime.launch import main as run

    raise typer.Exit(run(context.args))


app.add_typer(index_app)
app.command("search")(search)
app.command("adapt")(adapt)
app.command("fetch")(fetch)
app.command("eval")(evaluate)
app.command()(bench)
app.command("install-extension")(install_extension)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command and end the process with its exit status (see the module docstring).

    A :class:`~threestudio_redream.errors.RedreamError` becomes one message on standard error, and so does
    a package that does not import.

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
    except ImportError as error:
        if "--debug" in words:
            raise
        typer.echo(f"redream: {type(error).__name__}: {error}. The cure: redream doctor", err=True)
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
