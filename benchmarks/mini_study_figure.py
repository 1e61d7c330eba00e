"""Pictures of a finished study: what was retrieved and what SDS, VSD and ReDream made of it, front and back.

    python benchmarks/mini_study_figure.py              docs/images/mini-study.png and mini-study-assets.png

Nothing is picked: the first seed of every prompt, in the order of the prompt file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from _common import ROOT
from PIL import Image, ImageDraw

from threestudio_redream.assets.rasteriser import AssetRenderer
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.evaluation.bench.methods import MAIN, METHODS
from threestudio_redream.evaluation.bench.runs import Harness, read_result
from threestudio_redream.evaluation.bench.suites import Cell, open_suite
from threestudio_redream.evaluation.renders import open_renders

SIDE, TITLE, LABEL = 112, 22, 120
GROUND = 0.6


def asset_views(harness: Harness, cell: Cell) -> list[np.ndarray]:
    """Front and back of the asset that a run gets, ``[S, S, 3]`` each."""
    renderer = AssetRenderer(harness.asset(cell).asset, supersample=3)
    c2w = orbit_c2w([0.0, 180.0], [15.0] * 2, [1.46] * 2)
    rgba = renderer(c2w, np.full(2, 40.0), SIDE, SIDE).rgba
    return list(rgba[..., :3] + (1.0 - rgba[..., 3:]) * GROUND)


def run_views(harness: Harness, cell: Cell) -> list[np.ndarray]:
    """Front and back of a run's field; two empty tiles if it has not been made."""
    if read_result(harness.folder(cell)) is None:
        return [np.full((SIDE, SIDE, 3), GROUND)] * 2
    rgb = open_renders(harness.folder(cell)).turn(12)[0][[0, 6]].numpy()
    tiles = [Image.fromarray((view * 255.0).round().astype(np.uint8)).resize((SIDE, SIDE)) for view in rgb]
    return [np.asarray(tile, np.float32) / 255.0 for tile in tiles]


def sheet(rows: list[tuple[str, list[np.ndarray]]], titles: list[str], path: Path) -> None:
    """Labelled rows of tiles, two per title."""
    width, height = LABEL + SIDE * max(len(tiles) for _, tiles in rows), TITLE + SIDE * len(rows)
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    for number, title in enumerate(titles):
        draw.text((LABEL + 2 * SIDE * number + 6, 5), f"{title}: front, back", fill="black")
    for y, (text, tiles) in enumerate(rows):
        draw.multiline_text((6, TITLE + SIDE * y + SIDE // 2 - 12), text.replace(" ", "\n", 1), fill="black")
        for x, tile in enumerate(tiles):
            picture = Image.fromarray((np.clip(tile, 0.0, 1.0) * 255.0).round().astype(np.uint8))
            canvas.paste(picture, (LABEL + SIDE * x, TITLE + SIDE * y))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path, optimize=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "bench" / "mini")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    harness = Harness("mini", arguments.work.resolve(), ROOT)
    rows, swapped = [], []
    for prompt in open_suite("mini").prompts:
        mine, other = Cell("redream", prompt, arguments.seed), Cell("second-asset", prompt, arguments.seed)
        tiles = asset_views(harness, mine)
        for method in MAIN:
            tiles += run_views(harness, Cell(method, prompt, arguments.seed))
        rows.append((prompt, tiles))
        if read_result(harness.folder(other)) is not None:
            pairs = (asset_views(harness, mine), run_views(harness, mine))
            swapped.append((prompt, [*pairs[0], *pairs[1], *asset_views(harness, other), *run_views(harness, other)]))
    sheet(rows, ["retrieved", *(METHODS[method].title for method in MAIN)], arguments.out / "mini-study.png")
    if swapped:
        titles = ["first asset", "with it", "second asset", "with it"]
        sheet(swapped, titles, arguments.out / "mini-study-assets.png")


if __name__ == "__main__":
    main()
