"""Render a turntable of an asset into a folder: PNGs, cameras, a contact sheet. ``redream render`` calls this."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from threestudio_redream.assets.loading import load_asset
from threestudio_redream.assets.normalise import normalise
from threestudio_redream.assets.raster_settings import check_integer
from threestudio_redream.assets.rasteriser import MAX_SIDE, AssetRenderer, Backend, Renders
from threestudio_redream.assets.types import Asset
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.files import atomic_path, atomic_write_text

__all__ = ["framing_distance", "render_to_folder"]

MAX_VIEWS = 1024
_MARGIN = 1.05
_SHEET_TILE = 256  # pixels; larger views are scaled down for the contact sheet
_SHEET_SIDE = 4096
_SCHEMA = "redream-cameras/1"
_CONVENTION = (
    "world: right-handed, +z up, object front +x; c2w columns: right, up, backward, position (OpenGL); "
    "fovy_deg: vertical, degrees; image row 0 is the top; depth: world units along the unit ray; "
    "normal: world space, stored as 0.5 + 0.5 n"
)


def framing_distance(radius: float, fovy_deg: float) -> float:
    """Camera distance at which a sphere around the origin fills a square image but for a 5 % margin.

    Convention: ``framing_distance(0.5, 60.0) -> 1.05``, since ``0.5 / sin(30 degrees) = 1``.
    """
    return _MARGIN * radius / math.sin(0.5 * math.radians(fovy_deg))


def _to_bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.rint(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)


def _write_png(path: Path, values: NDArray[np.float32]) -> None:
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(_to_bytes(values)).save(temporary, "PNG")


def _write_npy(path: Path, values: NDArray[np.float32]) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, values, allow_pickle=False)


def _straight(rgba: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colour no longer multiplied by alpha, as PNG wants it."""
    alpha = rgba[..., 3:]
    return np.concatenate([rgba[..., :3] / np.maximum(alpha, 1e-6), alpha], axis=-1)


def _thumbnail(image: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    from PIL import Image

    if image.shape[0] <= side:
        return image
    return np.asarray(Image.fromarray(_to_bytes(image)).resize((side, side), Image.Resampling.BOX), np.float32) / 255.0


def _sheet(tiles: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Tiles in reading order on a grid as square as their number allows; white where there is none."""
    columns = math.ceil(math.sqrt(len(tiles)))
    rows, side = math.ceil(len(tiles) / columns), tiles[0].shape[0]
    sheet = np.ones((rows * side, columns * side, 3), np.float32)
    for index, tile in enumerate(tiles):
        y, x = index // columns * side, index % columns * side
        sheet[y : y + side, x : x + side] = tile
    return sheet


def _check_background(background: ArrayLike | None) -> NDArray[np.float32] | None:
    if background is None:
        return None
    colour = np.asarray(background, np.float32)
    if colour.shape not in ((), (1,), (3,)) or not ((colour >= 0.0) & (colour <= 1.0)).all():
        raise ConfigError(
            "The background is not a colour",
            received=background,
            fix="Give None for transparent, one number, or three, from 0 to 1.",
        )
    return colour


def render_to_folder(
    asset: Asset | str | Path,
    out: str | Path,
    *,
    views: int = 8,
    size: int = 512,
    elevation_deg: float = 15.0,
    fovy_deg: float = 40.0,
    distance: float | None = None,
    background: ArrayLike | None = None,
    shading: str = "none",
    supersample: int = 3,
    masks: bool = False,
    depths: bool = False,
    normals: bool = False,
    sheet: bool = True,
    up: str = "+y",
    front: str | None = None,
    backend: Backend = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Render an asset from equally spaced azimuths and write the images and their cameras.

    Files: ``view_000.png`` ... (RGBA with straight alpha, or RGB over ``background``); on request
    ``mask_000.png`` (8-bit), ``depth_000.npy`` (float32 ``[H, W]``, 0 where empty) and
    ``normal_000.png`` (``0.5 + 0.5 n``; grey where empty); ``sheet.png``; and, last of all,
    ``cameras.json``. Each file appears complete or not at all.

    Convention: the first view has azimuth 0 and looks at the front (+x); azimuths grow towards +y.
    With 4 views the second sees the object from +y, its left side.

    Args:
        asset: an asset in the canonical frame, used as it is; or a file, which is loaded and normalised.
        out: folder; made if needed, other files in it are left alone.
        views: number of images, 1 to 1024. size: their side in pixels, 1 to 4096.
        elevation_deg, fovy_deg: degrees. distance: of the camera to the origin; None frames the asset.
        background: None (transparent), a number, or an sRGB-encoded colour; values in [0, 1].
        shading: ``none``, ``headlight`` or ``world``. supersample: samples per pixel side.
        up, front: axes of a file, as in :func:`.normalise`.
        progress: called with (views done, views in all).

    Returns:
        What was done, ready for JSON: ``out, views, size, distance, files, cameras, sheet, asset,
        warnings, seconds``.

    Raises:
        AssetError: the file cannot be used. ConfigError: an argument is out of range.
    """
    started = time.perf_counter()
    views, size = check_integer("number of views", views, MAX_VIEWS), check_integer("image size", size, MAX_SIDE)
    colour = _check_background(background)
    if not -90.0 <= elevation_deg <= 90.0:
        raise ConfigError("The elevation is out of range", received=elevation_deg, fix="Use degrees from -90 to 90.")
    if not 0.0 < fovy_deg < 180.0:
        raise ConfigError("The field of view is out of range", received=fovy_deg, fix="Use degrees between 0 and 180.")
    if not isinstance(asset, Asset):
        asset = normalise(load_asset(asset), up=up, front=front)
    if distance is None:
        radius = float(np.linalg.norm(asset.vertices.astype(np.float64), axis=1).max())
        distance = framing_distance(radius, fovy_deg)
    if not (math.isfinite(distance) and distance > 0.0):
        raise ConfigError("The camera distance is out of range", received=distance, fix="Use a positive number.")
    renderer = AssetRenderer(asset, supersample=supersample, shading=shading, backend=backend)

    out = Path(out)
    azimuths = [360.0 * index / views for index in range(views)]
    records: list[dict[str, Any]] = []
    files: list[str] = []
    tiles: list[NDArray[np.float32]] = []
    tile = max(1, min(_SHEET_TILE, size, _SHEET_SIDE // math.ceil(math.sqrt(views))))
    for index, azimuth in enumerate(azimuths):
        c2w = orbit_c2w(azimuth, elevation_deg, distance)
        render = renderer(c2w, fovy_deg, size, size)
        names = _write_view(out, index, render, colour, masks, depths, normals)
        records.append(
            {"azimuth_deg": azimuth, "elevation_deg": elevation_deg, "distance": distance}
            | {"fovy_deg": fovy_deg, "c2w": c2w.tolist(), "files": names}
        )
        files += names.values()
        if sheet:
            tiles.append(_thumbnail(render.over(1.0 if colour is None else colour)[0], tile))
        if progress is not None:
            progress(index + 1, views)
    if sheet:
        _write_png(out / "sheet.png", _sheet(tiles))
    cameras = {"schema": _SCHEMA, "convention": _CONVENTION, "size": size, "shading": shading, "views": records}
    atomic_write_text(out / "cameras.json", json.dumps(cameras, indent=1) + "\n")
    return {
        "out": str(out),
        "views": views,
        "size": size,
        "distance": distance,
        "files": files,
        "cameras": "cameras.json",
        "sheet": "sheet.png" if sheet else None,
        "asset": {"name": asset.name, "vertices": len(asset.vertices), "faces": len(asset.faces)},
        "warnings": list(asset.info.get("warnings", [])),
        "seconds": round(time.perf_counter() - started, 3),
    }


def _write_view(
    out: Path, index: int, render: Renders, background: NDArray | None, masks: bool, depths: bool, normals: bool
) -> dict[str, str]:
    """Write the images of one view; returns their names by kind."""
    names = {"image": f"view_{index:03d}.png"}
    image = _straight(render.rgba[0]) if background is None else render.over(background)[0]
    _write_png(out / names["image"], image)
    if masks:
        names["mask"] = f"mask_{index:03d}.png"
        _write_png(out / names["mask"], render.mask[0, ..., 0])
    if depths:
        names["depth"] = f"depth_{index:03d}.npy"
        _write_npy(out / names["depth"], render.depth[0, ..., 0])
    if normals:
        names["normal"] = f"normal_{index:03d}.png"
        _write_png(out / names["normal"], 0.5 + 0.5 * render.normal[0])
    return names
