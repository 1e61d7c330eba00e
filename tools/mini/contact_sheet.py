"""Look at the library: renders of some kinds on one sheet, or the whole library for the documentation.

    python -m tools.mini.contact_sheet cat dog --out sheet.png
    python -m tools.mini.contact_sheet --library --out docs/images

The first form: a row a kind; eight instances with all sorts of finishes, seen obliquely from the front, then one of
them from eight sides, starting in front, against the clock. The last column is seen from above.

With ``--library`` the index assets, on labelled sheets ``library-1.jpg`` and so on: a row a kind, its four assets
obliquely from the front, then the first of them from the front, a side, the back and overhead.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from threestudio_redream.assets.rasteriser import AssetRenderer
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.runtime.files import atomic_path
from tools.mini.descriptors import DESCRIPTORS
from tools.mini.kinds import KINDS, build, load_kinds
from tools.mini.views import FOVY_DEG
from tools.mini.write_assets import IndexAsset, index_assets

__all__ = ["library_sheet", "write_library_sheets"]

#: On a plain sheet objects fill their tiles, as in training; on a library sheet none is cut off.
DISTANCE, LIBRARY_DISTANCE = 1.46, 1.54
SHEETS = 4
#: Azimuth and elevation in degrees of the last four columns of a library sheet.
SIDES = {"front": (0.0, 10.0), "side": (90.0, 10.0), "back": (180.0, 10.0), "overhead": (0.0, 70.0)}
_PAPER, _RULE, _INK, _PALE = (224, 227, 232), (205, 209, 216), (38, 42, 52), (112, 119, 133)
_TILE, _LABEL, _HEAD, _CAPTION, _GAP = 112, 124, 30, 20, 18


def tile(renderer: AssetRenderer, azimuth: float, elevation: float, side: int) -> NDArray[np.float32]:
    """``[side, side, 3]`` on grey."""
    renders = renderer(orbit_c2w(azimuth, elevation, DISTANCE), FOVY_DEG, side, side, shading="world")
    return renders.over(0.55)[0]


def row(name: str, side: int, seed: int) -> NDArray[np.float32]:
    """All tiles of one kind, side by side."""
    tiles = []
    for index in range(8):
        descriptor = DESCRIPTORS[(5 * index + seed) % len(DESCRIPTORS)]
        renderer = AssetRenderer(build(name, descriptor, seed + index))
        tiles.append(tile(renderer, 25.0, 15.0, side))
    renderer = AssetRenderer(build(name, DESCRIPTORS[seed % len(DESCRIPTORS)], seed))
    tiles += [tile(renderer, 45.0 * step, 12.0, side) for step in range(8)]
    tiles.append(tile(renderer, 0.0, 70.0, side))
    return np.concatenate(tiles, axis=1)


def library_sheet(assets: Sequence[IndexAsset]) -> Image.Image:
    """A labelled sheet of index assets, a row a kind, in the order in which the kinds come."""
    kinds = list(dict.fromkeys(asset.kind for asset in assets))
    columns = max(sum(asset.kind == kind for asset in assets) for kind in kinds)
    width = _LABEL + (columns + len(SIDES)) * _TILE + 2 * _GAP
    pitch = _TILE + _CAPTION
    sheet = Image.new("RGB", (width, _HEAD + len(kinds) * pitch + _GAP // 2), _PAPER)
    draw = ImageDraw.Draw(sheet)
    title, small = (ImageFont.load_default(size) for size in (19, 12))
    sides = _LABEL + columns * _TILE + _GAP
    for index, name in enumerate(SIDES):
        draw.text((sides + (index + 0.5) * _TILE, _HEAD - 6), name, _PALE, small, "ms")
    for number, kind in enumerate(kinds):
        top = _HEAD + number * pitch
        draw.line([(_GAP, top), (width - _GAP, top)], _RULE)
        draw.text((_GAP, top + 0.5 * pitch), kind, _INK, title, "ls")
        about = ", ".join(KINDS[kind].tags) + ("" if KINDS[kind].front else "\nno front")
        draw.multiline_text((_GAP, top + 0.5 * pitch + 8), about, _PALE, small)
        members = [asset for asset in assets if asset.kind == kind]
        for column, asset in enumerate(members):
            renderer = AssetRenderer(asset.model(), supersample=4, shading="world")
            _paste(sheet, renderer, (_LABEL + column * _TILE, top + 1), (25.0, 15.0))
            at = (_LABEL + (column + 0.5) * _TILE, top + pitch - 7)
            draw.text(at, asset.descriptor, _PALE, small, "ms")
            if column == 0:
                for index, view in enumerate(SIDES.values()):
                    _paste(sheet, renderer, (sides + index * _TILE, top + 1 + _CAPTION // 2), view)
    return sheet


def _paste(sheet: Image.Image, renderer: AssetRenderer, at: tuple[int, int], view: tuple[float, float]) -> None:
    paper = np.asarray(_PAPER, np.float32) / 255.0
    picture = renderer(orbit_c2w(*view, LIBRARY_DISTANCE), FOVY_DEG, _TILE, _TILE).over(paper)[0]
    sheet.paste(Image.fromarray(np.round(np.clip(picture, 0.0, 1.0) * 255.0).astype(np.uint8)), at)


def write_library_sheets(folder: Path, assets: Sequence[IndexAsset], sheets: int) -> list[Path]:
    """Write ``library-1.jpg`` and so on, with about as many kinds on each, and return the paths."""
    kinds = list(dict.fromkeys(asset.kind for asset in assets))
    paths = []
    for number, chosen in enumerate(np.array_split(np.array(kinds), min(sheets, len(kinds))), 1):
        names = set(chosen.tolist())
        sheet = library_sheet([asset for asset in assets if asset.kind in names])
        paths.append(folder / f"library-{number}.jpg")
        with atomic_path(paths[-1]) as temporary:
            sheet.save(temporary, "JPEG", quality=84, optimize=True, progressive=True, subsampling=1)
    return paths


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", help="names; all of them if none is given")
    parser.add_argument("--library", action="store_true", help="the index assets on labelled sheets")
    parser.add_argument("--out", type=Path, required=True, help="a picture; with --library a folder")
    parser.add_argument("--side", type=int, default=128, help="pixels of a tile")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    names = arguments.kinds or list(load_kinds())
    if arguments.library:
        write_library_sheets(arguments.out, [asset for asset in index_assets() if asset.kind in names], SHEETS)
        return
    sheet = np.concatenate([row(name, arguments.side, arguments.seed) for name in names], axis=0)
    Image.fromarray(np.round(np.clip(sheet, 0, 1) * 255).astype(np.uint8)).save(arguments.out)


if __name__ == "__main__":
    main()
