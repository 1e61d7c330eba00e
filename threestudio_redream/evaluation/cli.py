"""The verb ``redream eval``; :mod:`threestudio_redream.cli` adds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["evaluate"]


def evaluate(
    sources: Annotated[
        list[Path], typer.Argument(help="Runs (trial folders), folders of renders 0.png ..., or meshes.")
    ],
    prompt: Annotated[str, typer.Option(help="What they should show; left out: the run's own prompt.")] = "",
    encoder: Annotated[str, typer.Option(help="CLIP: mini, hf:... or openclip:...")] = "mini",
    lpips: Annotated[str, typer.Option(help="Backbone of A-LPIPS: vgg, alex or mini; none leaves it out.")] = "mini",
    lpips_weights: Annotated[Path | None, typer.Option(help="File of that backbone.")] = None,
    asset: Annotated[Path | None, typer.Option(help="The asset to compare shapes and colours with.")] = None,
    others: Annotated[Path | None, typer.Option(help="Text file of prompts, one a line, for R-precision.")] = None,
    views: Annotated[int | None, typer.Option(min=2, help="Expected number of pictures in a folder.")] = None,
    open_turn: Annotated[
        bool, typer.Option("--open-turn", help="The last picture of a folder is not the first one again.")
    ] = False,
    protocol: Annotated[str, typer.Option(help="How meshes are looked at: paper or mini.")] = "paper",
    ground: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Grey behind the object; left out: the run's own; the protocol's for meshes and transparent pictures.",
        ),
    ] = None,
    judge: Annotated[bool, typer.Option("--judge", help="Also ask the mini lab's judge.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the figures as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of tables.")] = False,
) -> None:
    """Score runs, renders or meshes; what is missing, blank or left over is refused and never scored.

    The exit status is 1 if one of the sources could not be scored; the others are scored all the same.
    """
    from threestudio_redream.evaluation.renders import PROTOCOLS
    from threestudio_redream.evaluation.scoring import ScoreConfig, Scorer
    from threestudio_redream.runtime.files import atomic_write_text

    if protocol not in PROTOCOLS:
        raise typer.BadParameter(f"Use {' or '.join(PROTOCOLS)}.", param_hint="--protocol")
    if out is not None and (out.is_dir() or (out.parent.exists() and not out.parent.is_dir())):
        raise typer.BadParameter(f"{out} is a folder, or below a file.", param_hint="--out")
    chosen = PROTOCOLS[protocol]
    scorer = Scorer(
        ScoreConfig(
            encoder=encoder,
            lpips="" if lpips == "none" else lpips,
            lpips_weights=lpips_weights,
            others=_lines(others),
            judge=judge,
        )
    )
    look = {"count": views, "protocol": chosen, "ground": ground, "closed": not open_turn}
    rows = [_row(scorer, source, prompt, asset, look) for source in sources]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    else:
        for row in rows:
            _show(row)
    if out is not None:
        atomic_write_text(out, json.dumps(rows, indent=1))
    if any("error" in row for row in rows):
        raise typer.Exit(1)


def _row(scorer: Any, source: Path, prompt: str, asset: Path | None, look: dict[str, Any]) -> dict[str, Any]:
    """Figures about one source, or why there are none. ``look``: options of ``open_renders``."""
    from threestudio_redream.assets import load_asset, normalise
    from threestudio_redream.errors import ConfigError, RedreamError
    from threestudio_redream.evaluation.renders import open_renders
    from threestudio_redream.evaluation.report.reading import known_prompt
    from threestudio_redream.evaluation.scoring import NO_MESH, exported_mesh

    name = source.resolve().name
    try:
        text = prompt or known_prompt(source)
        if not text:
            raise ConfigError("What should this show?", received=name, fix='Say it: --prompt "a red robot".')
        renders = open_renders(source, **look)
        step = renders.about.get("step")
        mesh = load_asset(source) if source.is_file() else NO_MESH if step is None else exported_mesh(source, step)
        reference = None if asset is None else normalise(load_asset(asset))
        return {"source": name, **scorer(renders, text, asset=reference, mesh=mesh)}
    except RedreamError as error:
        kind = getattr(error, "kind", type(error).__name__)
        return {"source": name, "error": {"kind": kind, "message": str(error)}}


def _lines(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        with path.open("rb") as file:
            data = file.read(2**20 + 1)
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as cause:
        raise typer.BadParameter(f"{path} is no text file that can be read: {cause}", param_hint="--others") from cause
    if len(data) > 2**20:
        raise typer.BadParameter("A file of prompts has at most 1 MiB.", param_hint="--others")
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _show(row: dict[str, Any]) -> None:
    if "error" in row:
        typer.echo(f"{row['source']}: not scored ({row['error']['kind']}): {row['error']['message']}", err=True)
        return
    typer.echo(f"{row['source']}: {row['prompt']}, {row['renders']['views']} views")
    for name, value in row["metrics"].items():
        typer.echo(f"  {name:32} {value:.4f}" if isinstance(value, float) else f"  {name:32} {json.dumps(value)}")
    for name, reason in row["left_out"].items():
        typer.echo(f"  {name:32} left out: {reason}")
