"""``redream install-extension``: this package inside upstream threestudio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["install_extension"]

_DONE = {
    "written": "Written: {}",
    "updated": "Brought up to date: {}",
    "unchanged": "Already in place: {}",
    "removed": "Removed: {}",
    "absent": "Nothing to remove, there is no {}",
}


def install_extension(
    threestudio: Annotated[
        Path, typer.Argument(help="Checkout of threestudio: the folder with its launch.py.", show_default=False)
    ],
    remove: Annotated[bool, typer.Option("--remove", help="Take the file away again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of lines.")] = False,
) -> None:
    """Make upstream threestudio load this package: one small file in its custom folder.

    The package itself must be installed in the environment that runs threestudio. Nothing is copied; configurations
    are used where they are.
    """
    from threestudio_redream.hosting import shim

    done = shim.remove(threestudio) if remove else shim.install(threestudio)
    if as_json:
        typer.echo(json.dumps(done.to_json(), indent=1))
        return
    typer.echo(_DONE[done.status].format(done.file))
    for clone in done.clones:
        typer.echo(f"{clone} holds the package, too; that is harmless, the installed one is used.")
    if not remove:
        config = done.configs[0] if done.configs else "FOLDER_OF_THE_CLONE/custom_configs/redream.yaml"
        typer.echo(f"Next, in {threestudio}: python launch.py --config {config} --train --gpu 0")
