"""Pictures of what the three parts of ReDream do, drawn from the mini models and from two real runs.

    for config in redream baselines/prolificdreamer; do
      python launch.py --config custom_configs/$config.yaml use_timestamp=false exp_root_dir=outputs/concepts name=. \\
        tag=$(basename $config) trainer.val_check_interval=50 data.n_val_views=2 data.n_test_views=13
    done
    python benchmarks/concept_figures.py outputs/concepts

They go to ``docs/images``: ``concept-prior.png`` (how two fields grow, with and without the 3D prior),
``concept-adaptation.png`` (samples of the 2D model that is asked for a side), ``concept-delta.png`` (what the 2D model
pulls a render towards). Nothing is picked: seeds are fixed, and the first samples are shown.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import ROOT
from adapter_gate import Adapted, adapted_mini, edited
from PIL import Image, ImageDraw
from torch import Tensor

from threestudio_redream.adaptation.view_tokens import view_phrase
from threestudio_redream.assets.rasteriser import AssetRenderer
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.retrieval.retrieve import RetrievalConfig, retrieve
from threestudio_redream.runtime import load_config

PROMPT = "a blue robot"
STEPS = (50, 100, 150, 200, 250, 300, 400, 500)
SAMPLES, SEED = 4, 0
DELTA_STEP, DELTA_TIME = 150, 700
SIDE, TITLE, LABEL, GROUND = 96, 20, 96, 0.6
NEVER = (1001, 1001)


def sheet(rows: Sequence[tuple[str, Sequence[np.ndarray]]], titles: Sequence[str], path: Path) -> None:
    """Labelled rows of pictures ``[S, S, 3]`` in [0, 1], a title over each column."""
    canvas = Image.new("RGB", (LABEL + SIDE * len(rows[0][1]), TITLE + SIDE * len(rows)), "white")
    draw = ImageDraw.Draw(canvas)
    for x, title in enumerate(titles):
        draw.text((LABEL + SIDE * x + 4, 4), title, fill="black")
    for y, (text, tiles) in enumerate(rows):
        draw.multiline_text((6, TITLE + SIDE * y + SIDE // 2 - 14), text, fill="black")
        for x, tile in enumerate(tiles):
            picture = Image.fromarray((np.clip(tile, 0.0, 1.0) * 255.0).round().astype(np.uint8))
            canvas.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (LABEL + SIDE * x, TITLE + SIDE * y))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path, optimize=True)


def validation_views(trial: Path, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Front and back of a run's field at a step, ``[S, S, 3]`` each."""
    with Image.open(trial / "save" / f"it{step}-val.png") as image:
        grid = np.asarray(image.convert("RGB"), np.float32) / 255.0
    side = grid.shape[0]
    return grid[:, :side], grid[:, side : 2 * side]


def asset_views(system: Any) -> list[np.ndarray]:
    """Front and back of the best asset, seen as the validation views are."""
    found = retrieve(PROMPT, RetrievalConfig(index=str(ROOT / system.retrieval.index), count=1)).references[0]
    c2w = orbit_c2w([0.0, 180.0], [15.0] * 2, [1.46] * 2)
    rgba = AssetRenderer(found.asset, supersample=3)(c2w, np.full(2, 40.0), 128, 128).rgba
    return list(rgba[..., :3] + (1.0 - rgba[..., 3:]) * GROUND)


def prior_figure(runs: Path, assets: Sequence[np.ndarray], path: Path) -> None:
    """Fields by step, with and without the prior."""
    rows = []
    for title, name in (("VSD", "prolificdreamer"), ("ReDream", "redream")):
        shown = [validation_views(runs / name, step) for step in STEPS]
        for side, word in enumerate(("front", "back")):
            rows.append((f"{title}\n{word}", [assets[side], *(views[side] for views in shown)]))
    sheet(rows, ["the asset", *(f"step {step}" for step in STEPS)], path)


def adaptation_figure(made: Adapted, guidance: Any, path: Path) -> None:
    """Samples from noise, asked for a side in words, and with tokens and adapter."""
    size = made.model.image_size() // made.model.downsampling
    nothing = torch.zeros(SAMPLES, 4, size, size)
    rows = []
    for view in ("front", "side", "back"):
        tiles: list[np.ndarray] = []
        for phrase, gate in (
            (f"{PROMPT}, {view} view", NEVER),
            (view_phrase(PROMPT, view), tuple(guidance.adapter_gate)),
        ):
            texts = embedded(made, (phrase, PROMPT, ""), SAMPLES)
            latents = edited(made.model, made.unet, texts, nothing, 999, gate, guidance)
            tiles += list(made.model.decode(latents).numpy())
        rows.append((f"asked for\nthe {view}", tiles))
    sheet(rows, ["pretrained", "", "", "", "with adapter and tokens"], path)


def delta_figure(made: Adapted, guidance: Any, asset: np.ndarray, field: np.ndarray, path: Path) -> None:
    """The back of the asset and of a field, and what one timestep pulls them towards, without and with the delta term.

    ``z + (clean(z) - z)`` is where the score of a noised z points; the delta term takes ``clean(z_asset) - z_asset``
    away, drawn with the same noise.
    """
    model = made.model
    pictures = torch.from_numpy(np.stack([asset, field]))
    texts = embedded(made, (f"{PROMPT}, back view", PROMPT, ""), 2)
    with torch.no_grad():
        latents = model.encode(model.resized(pictures))
        noise = torch.randn(latents[:1].shape, generator=torch.Generator().manual_seed(SEED)).expand_as(latents)
        at = torch.full((2,), DELTA_TIME)
        noisy = model.add_noise(latents, noise, at)
        sided, plain, empty = model.predict(noisy.repeat(3, 1, 1, 1), at.repeat(3), texts).chunk(3)
        said = empty + guidance.guidance_scale * (plain - empty) + (sided - plain)
        pull = model.read(said, noisy, at).clean - latents
        alone, held = (model.decode(latents + way).numpy() for way in (pull, pull - pull[:1]))
    rows = [
        ("the asset,\nfrom behind", [asset, alone[0], held[0]]),
        (f"the field,\nstep {DELTA_STEP}", [field, alone[1], held[1]]),
    ]
    sheet(rows, ["render", "pulled towards", "with delta"], path)


def embedded(made: Adapted, phrases: Sequence[str], count: int) -> Tensor:
    """Embeddings ``[len(phrases) count, L, C]``, each phrase ``count`` times."""
    with torch.no_grad():
        return torch.cat([made.encoder([phrase]).expand(count, -1, -1) for phrase in phrases])


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder with the trials redream and prolificdreamer")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    arguments = parser.parse_args(argv)
    system = load_config(str(ROOT / "custom_configs" / "redream.yaml")).system
    assets = asset_views(system)
    prior_figure(arguments.runs, assets, arguments.out / "concept-prior.png")
    made = adapted_mini(PROMPT, system)
    adaptation_figure(made, system.guidance, arguments.out / "concept-adaptation.png")
    field = validation_views(arguments.runs / "redream", DELTA_STEP)[1]
    delta_figure(made, system.guidance, assets[1], field, arguments.out / "concept-delta.png")


if __name__ == "__main__":
    main()
