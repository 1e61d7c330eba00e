"""Pictures of a study: what was retrieved and what SDS, VSD and ReDream made of it, front and back.

    python benchmarks/mini_study_figure.py --seed 0     docs/images/mini-study-assets.jpg, and the two below
    python benchmarks/mini_study_figure.py --seed 2     docs/images/mini-study.jpg and mini-study-parts.jpg

They are made of the turns in ``benchmarks/results/mini``. Nothing is picked: one seed of every prompt, in the order of
the prompt file; what has not been run stays empty.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from _common import ROOT
from PIL import Image, ImageDraw

from threestudio_redream.assets.rasteriser import AssetRenderer
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.evaluation.bench.harness import Harness
from threestudio_redream.evaluation.bench.methods import MAIN, METHODS
from threestudio_redream.evaluation.bench.suites import Cell, open_suite
from threestudio_redream.evaluation.bench.turns import SIDE, TURN, VIEWS, read_turn, view_of_turn

TITLE, LABEL = 22, 120
PARTS = ("no-adaptation", "no-view-tokens", "no-delta", "initialisation-only", "no-prior", "adaptation-only")
GROUND = 0.6


def asset_views(harness: Harness, cell: Cell) -> list[np.ndarray]:
    """Front and back of the asset that a run gets, ``[S, S, 3]`` each."""
    renderer = AssetRenderer(harness.asset(cell).asset, supersample=3)
    c2w = orbit_c2w([0.0, 180.0], [15.0] * 2, [1.46] * 2)
    rgba = renderer(c2w, np.full(2, 40.0), SIDE, SIDE).rgba
    return list(rgba[..., :3] + (1.0 - rgba[..., 3:]) * GROUND)


def run_views(results: Path, cell: Cell) -> list[np.ndarray]:
    """Front and back of a run's field, ``[S, S, 3]`` each; nothing if it has not been made."""
    turn = read_turn((results / "runs" / cell.method / cell.name).with_suffix(Path(TURN).suffix))
    return [] if turn is None else [view_of_turn(turn, view) for view in (0, VIEWS // 2)]


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
    canvas.save(path, quality=90, optimize=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "mini")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    harness = Harness("mini", ROOT, ROOT)
    empty = [np.full((SIDE, SIDE, 3), GROUND)] * 2
    rows, swapped, parts = [], [], []
    for prompt in open_suite("mini").prompts:
        mine, other = (Cell(method, prompt, arguments.seed) for method in ("redream", "second-asset"))
        made = [run_views(arguments.results, Cell(method, prompt, arguments.seed)) for method in MAIN]
        rows.append((prompt, sum((views or empty for views in made), asset_views(harness, mine))))
        without = [run_views(arguments.results, Cell(method, prompt, arguments.seed)) for method in PARTS]
        if any(without):
            parts.append((prompt, sum((views or empty for views in without), made[-1] or empty)))
        with_other = run_views(arguments.results, other)
        if with_other:
            assets = [asset_views(harness, cell) for cell in (mine, other)]
            swapped.append((prompt, [*assets[0], *(made[-1] or empty), *assets[1], *with_other]))
    sheet(rows, ["retrieved", *(METHODS[method].title for method in MAIN)], arguments.out / "mini-study.jpg")
    if parts:
        titles = [METHODS[method].title for method in ("redream", *PARTS)]
        sheet(parts, titles, arguments.out / "mini-study-parts.jpg")
    if swapped:
        titles = ["first asset", "with it", "second asset", "with it"]
        sheet(swapped, titles, arguments.out / "mini-study-assets.jpg")


if __name__ == "__main__":
    main()
