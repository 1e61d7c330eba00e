"""The verb ``redream adapt``; :mod:`threestudio_redream.cli` adds it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from threestudio_redream.retrieval.cli_common import Json, step_bars

__all__ = ["adapt"]


def adapt(
    out: Annotated[Path, typer.Option(help="Folder of the result; made if needed.", show_default=False)],
    prompt: Annotated[str, typer.Option(help="What to look for in the index.")] = "",
    asset: Annotated[
        list[Path] | None, typer.Option(help="Adapt to this 3D file instead of searching. Repeatable.")
    ] = None,
    caption: Annotated[
        list[str] | None, typer.Option(help="Of the file at the same place; the prompt if left out. Repeatable.")
    ] = None,
    index: Annotated[str, typer.Option(help="Folder of the index.")] = "retrieval_index/mini",
    count: Annotated[int, typer.Option("-n", "--count", help="Number of assets.")] = 3,
    model: Annotated[str, typer.Option(help="mini, a known name, a hub id, or a folder.")] = "mini",
    config: Annotated[
        Path | None, typer.Option(help="Take settings from system.references and system.adaptation of this file.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of training.", show_default=False)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures of a step.", show_default=False)] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of the LoRA.", show_default=False)] = None,
    token_lr: Annotated[float | None, typer.Option(help="Learning rate of the tokens.", show_default=False)] = None,
    rank: Annotated[int | None, typer.Option(help="Of the LoRA.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Of every draw.", show_default=False)] = None,
    views: Annotated[int | None, typer.Option(help="Renders of each asset.", show_default=False)] = None,
    resolution: Annotated[int | None, typer.Option(help="Their side in pixels; default: the model's own.")] = None,
    up: Annotated[str, typer.Option(help="Axis of the files that points up: +y, +z, ...")] = "",
    front: Annotated[str, typer.Option(help="Axis of the files that the front faces.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="Of the model's weights: float32, bfloat16 or float16.")] = "float32",
    as_json: Json = False,
) -> None:
    """Teach a 2D model from which side it sees: a LoRA and view tokens from renders of 3D assets.

    The folder is in diffusers' formats. Interrupted, the same command goes on where it was.
    """
    if not prompt and not asset:
        raise typer.BadParameter("Give --prompt TEXT, or --asset FILE.", param_hint="--prompt")
    if len(caption or []) > len(asset or []):
        raise typer.BadParameter("There are more captions than files.", param_hint="--caption")
    if asset and len(caption or []) < len(asset) and not prompt:
        raise typer.BadParameter("Give one for each file, or --prompt TEXT for all of them.", param_hint="--caption")

    from threestudio_redream.adaptation.standalone import adapt_model, subjects_from_files, subjects_from_index
    from threestudio_redream.retrieval.retrieve import RetrievalConfig

    where = _device(device)
    given = {"steps": steps, "batch_size": batch_size, "lr": lr, "token_lr": token_lr, "rank": rank, "seed": seed}
    reference_config, adaptation_config = _settings(
        config, model, {"views_per_asset": views, "resolution": resolution}, given
    )
    if asset:
        captions = [*(caption or []), *[prompt] * (len(asset) - len(caption or []))]
        subjects = subjects_from_files(asset, captions, up=up or None, front=front or None)
    else:
        subjects = subjects_from_index(prompt, RetrievalConfig(index=index, count=count))
    if not as_json:
        names = ", ".join(subject.record.name or subject.record.asset_id for subject in subjects)
        typer.echo(f"adapting {model} to {names}", err=True)
    try:
        with _progress(as_json) as show:
            result = adapt_model(
                subjects,
                model,
                out,
                reference_config,
                adaptation_config,
                prompt=prompt,
                device=where,
                dtype=dtype,
                progress=show,
            )
    except KeyboardInterrupt:
        typer.echo(f"redream: interrupted; the same command goes on from {out / 'resume'}", err=True)
        raise
    if as_json:
        typer.echo(json.dumps(result.to_json(), indent=1))
        return
    typer.echo(
        f"{out}: {result.steps} steps, loss {result.loss:.4f}, "
        f"views told apart {result.before:.0%} before, {result.after:.0%} after"
    )


def _settings(config: Path | None, model: str, views: dict[str, Any], training: dict[str, Any]) -> tuple[Any, Any]:
    """The two dataclasses from a configuration file and what the command line says."""
    from omegaconf import OmegaConf

    from threestudio_redream.adaptation.references import ReferenceConfig
    from threestudio_redream.adaptation.training import AdaptationConfig
    from threestudio_redream.runtime import parse_structured

    blocks: dict[str, dict[str, Any]] = {"references": {}, "adaptation": {}}
    if config is not None:
        if not config.is_file():
            raise typer.BadParameter(f"{config} does not exist.", param_hint="--config")
        loaded = OmegaConf.load(config)
        for name, block in blocks.items():
            chosen = OmegaConf.select(loaded, f"system.{name}")
            values: Any = {} if chosen is None else OmegaConf.to_container(chosen, resolve=True)
            block.update({key: value for key, value in values.items() if key != "enabled"})
    blocks["references"].update({key: value for key, value in views.items() if value is not None})
    blocks["adaptation"].update({key: value for key, value in training.items() if value is not None})
    if "resolution" not in blocks["references"]:
        blocks["references"]["resolution"] = _own_size(model)
    made = [
        OmegaConf.to_object(parse_structured(kind, blocks[name]))
        for name, kind in (("references", ReferenceConfig), ("adaptation", AdaptationConfig))
    ]
    return made[0], made[1]


def _own_size(model: str) -> int:
    """Pixels of a side that a model was made for, without opening its weights."""
    from threestudio_redream.guidance.models import model_folder

    folder = model_folder(model)
    unet = json.loads((folder / "unet" / "config.json").read_text("utf-8"))
    vae = json.loads((folder / "vae" / "config.json").read_text("utf-8"))
    return int(unet["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)


def _device(name: str) -> str:
    import torch

    from threestudio_redream.runtime.device import choose_accelerator

    if name == "auto":
        return choose_accelerator()
    try:
        kind = torch.device(name).type
    except RuntimeError:
        kind = ""
    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not usable.get(kind, False):
        raise typer.BadParameter(f"{name!r} cannot be used here.", param_hint="--device")
    return name


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[int, int, float], None] | None]:
    """A bar on a terminal, ten lines elsewhere."""
    with step_bars(quiet) as bars:
        if quiet:
            yield None
            return

        def show(done: int, total: int, left: float) -> None:
            if bars is not None:
                bars("adapting", done, total, left)
            elif done % max(total // 10, 1) == 0:
                typer.echo(f"adapting: step {done} of {total}, {left:.0f} s left", err=True)

        yield show
