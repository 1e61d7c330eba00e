"""Picture of finished runs of redream.yaml for the README: the retrieved asset, and the exported mesh from four sides.

python tools/run_figure.py OUT.jpg TRIAL_DIR [TRIAL_DIR ...]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from fit_figure import in_world
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from threestudio_redream.assets import Asset, load_asset
from threestudio_redream.assets.rasteriser import AssetRenderer
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.retrieval.retrieve import RetrievalConfig, retrieve
from threestudio_redream.runtime.config import load_config

AZIMUTHS_DEG = (20.0, 110.0, 200.0, 290.0)
ELEVATION_DEG, DISTANCE, FOVY_DEG = 15.0, 1.46, 40.0
SIDE, TITLE = 240, 22
TITLES = ("retrieved", "model.glb", "left", "back", "right")


def seen(asset: Asset, azimuths_deg: Sequence[float]) -> list[NDArray[np.uint8]]:
    """Unlit pictures on white, ``[S, S, 3]`` each."""
    cameras = orbit_c2w(list(azimuths_deg), [ELEVATION_DEG] * len(azimuths_deg), [DISTANCE] * len(azimuths_deg))
    renders = AssetRenderer(asset, supersample=4)(cameras, np.full(len(cameras), FOVY_DEG), SIDE, SIDE)
    return list((renders.over(1.0) * 255.0 + 0.5).clip(0, 255).astype(np.uint8))


def row(trial: Path) -> list[NDArray[np.uint8]]:
    """The asset that a run retrieved first, and what it exported."""
    cfg = load_config(trial / "configs" / "parsed.yaml")
    references = json.loads((trial / "save" / "retrieved" / "retrieved.json").read_text("utf-8"))["references"]
    index = RetrievalConfig(index=cfg.system.retrieval.index, asset_ids=(references[0]["asset_id"],))
    asset = retrieve(cfg.system.prompt_processor.prompt, index).references[0].asset
    (mesh,) = trial.glob("save/it*-export/model.glb")
    return [*seen(asset, AZIMUTHS_DEG[:1]), *seen(in_world(load_asset(mesh)), AZIMUTHS_DEG)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("trials", type=Path, nargs="+")
    args = parser.parse_args()
    tiles = np.concatenate([np.concatenate(row(trial), axis=1) for trial in args.trials])
    canvas = Image.new("RGB", (tiles.shape[1], tiles.shape[0] + TITLE), "white")
    canvas.paste(Image.fromarray(tiles), (0, TITLE))
    draw = ImageDraw.Draw(canvas)
    for number, title in enumerate(TITLES):
        draw.text((number * SIDE + 8, 6), title, fill="black")
    canvas.save(args.out, quality=90)


if __name__ == "__main__":
    main()
