"""The turn that is scored: every expected view, of this run or mesh, with something on it; or a named refusal.

Scores of missing, blank or left-over renders look like scores. So nothing is scored unless the whole turn is there.

Conventions: view ``i`` of ``A`` is seen from azimuth ``360 i / (A - 1)`` degrees, as threestudio spaces its test views:
the last one repeats the first. Folders may hold open turns, ``360 i / A`` degrees. Azimuth 0 is the front.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from threestudio_redream.errors import AssetError, RedreamError
from threestudio_redream.evaluation.pictures import (
    FORMATS,
    PICTURE,
    RendersError,
    check_pictures,
    content_digest,
    open_pictures,
)

__all__ = ["PROTOCOLS", "Protocol", "Renders", "open_renders"]

MAX_CONFIG = 2**22
_TEST = re.compile(r"it(\d{1,12})-test")
_CHECKPOINT = re.compile(r".*step=(\d{1,12})\.(safetensors|ckpt)")


@dataclass(frozen=True)
class Protocol:
    """How a mesh is looked at; runs come with their own cameras.

    Attributes:
        views: with both ends of the turn. size: pixels. elevation_deg, fovy_deg, distance: of the camera; the object
            has radius 0.5. background: grey behind it, in [0, 1].
    """

    views: int = 120
    size: int = 512
    elevation_deg: float = 15.0
    fovy_deg: float = 40.0
    distance: float = 1.6
    background: float = 1.0


PROTOCOLS = {"paper": Protocol(), "mini": Protocol(views=121, size=128, distance=1.46, background=0.6)}


@dataclass(frozen=True)
class Renders:
    """A turn of checked pictures.

    Attributes:
        rgb: ``[A, H, W, 3]`` float32 in [0, 1]. opacity: ``[A, H, W]`` float32 in [0, 1], or None. depth: ``[A, H, W]``
            in world units along unit rays, 0 where nothing is seen; or None.
        about: where they come from: ``kind`` (run, folder, mesh), ``step`` of a run, ``protocol``, ``sha256``;
            ``camera`` with ``elevation_deg``, ``distance`` and ``fovy_deg`` where they are known.
        ground: colour behind the object, in [0, 1], where it is known.
        closed: the last view is the first one again.
    """

    rgb: Tensor
    opacity: Tensor | None
    about: Mapping[str, Any]
    depth: Tensor | None = None
    ground: tuple[float, float, float] | None = None
    closed: bool = True

    @property
    def around(self) -> int:
        """Number of views without the repeated end."""
        return len(self.rgb) - self.closed

    @property
    def azimuth_deg(self) -> NDArray[np.float64]:
        """``[A]``, from 0 to 360; an open turn ends before."""
        return np.linspace(0.0, 360.0, len(self.rgb), endpoint=self.closed)

    def turn(self, count: int = 12) -> Renders:
        """An open turn of the views nearest to ``count`` even azimuths, the first from the front.

        Its azimuths are only nearly even if ``count`` does not divide the number of views: see :meth:`chosen`.
        """
        chosen = self.chosen(count)
        opacity, depth = (None if part is None else part[chosen] for part in (self.opacity, self.depth))
        return Renders(self.rgb[chosen], opacity, self.about, depth, self.ground, closed=False)

    def chosen(self, count: int = 12) -> list[int]:
        """Which views :meth:`turn` takes; their azimuths are ``azimuth_deg[chosen]``."""
        count = min(count, self.around)
        return [round(i * self.around / count) for i in range(count)]


def open_renders(
    source: Path,
    *,
    count: int | None = None,
    protocol: Protocol = PROTOCOLS["paper"],
    ground: float | None = None,
    closed: bool = True,
) -> Renders:
    """Pictures of a run (its trial folder), of a folder of numbered pictures, or of a mesh.

    Args:
        count: expected views; None takes those that are there in a folder, and what the configuration of a run says.
            protocol: for a mesh.
        ground: grey behind the object, in [0, 1]. None: the protocol's behind meshes and transparent pictures, that of
            the run's configuration, or unknown.
        closed: whether the last picture of a folder is the first one again.

    Raises:
        RendersError: see :class:`~threestudio_redream.evaluation.pictures.RendersError` for its kinds.
    """
    grey = protocol.background if ground is None else ground
    if source.is_file():
        return _of_mesh(source, replace(protocol, background=grey))
    if not source.is_dir():
        raise RendersError(
            "There is nothing to score here",
            kind="missing",
            received=str(source),
            fix="Name a run, a folder or a mesh.",
        )
    if (source / "save").is_dir():
        found = _of_run(source, count)
        return found if ground is None else replace(found, ground=(ground,) * 3)
    stack, digest = open_pictures(source, count)
    about = {"kind": "folder", "sha256": digest}
    if stack.shape[3] == 3 or bool((stack[..., 3] == 1.0).all()):  # many programs write an alpha that says nothing
        return Renders(stack[..., :3], None, about, ground=None if ground is None else (ground,) * 3, closed=closed)
    opacity = stack[..., 3]
    rgb = stack[..., :3] * opacity[..., None] + (1.0 - opacity[..., None]) * grey
    return Renders(rgb, opacity, about, ground=(grey,) * 3, closed=closed)


def _of_run(trial: Path, count: int | None) -> Renders:
    found = {int(match[1]): path for path in (trial / "save").iterdir() if (match := _TEST.fullmatch(path.name))}
    again = "Render them: launch.py --config configs/parsed.yaml --test resume=last."
    if not found:
        raise RendersError("The run has no test views", kind="missing", received=str(trial), fix=again)
    step = max(found)
    _refuse_stale(trial, step, found[step], again)
    configured, ground = _settings(trial, "data"), _run_ground(trial)
    expected = count if count is not None else _expected_views(trial, configured)
    if expected is None:
        raise RendersError(
            "The run does not say how many views it should have",
            kind="count",
            received=str(trial),
            fix="Say it with --views, or restore its configs/parsed.yaml.",
        )
    stack, digest = open_pictures(found[step], expected)
    rgb = stack[..., :3]
    about = {"kind": "run", "step": step, **_camera(configured), "sha256": digest}
    opacity = trial / "save" / f"it{step}-opacity"
    if not opacity.is_dir():
        return Renders(rgb, None, about, ground=ground)
    maps = open_pictures(opacity, len(rgb), blank=False)[0][..., 0]
    if maps.shape != rgb.shape[:3]:
        raise RendersError(
            "Opacity maps and pictures have two sizes",
            kind="resolution",
            received=(tuple(maps.shape), tuple(rgb.shape)),
            fix=again,
        )
    depth = _depth_maps(trial / "save" / f"it{step}-depth", maps.shape, about)
    return Renders(rgb, maps, about, depth, ground)


def _depth_maps(folder: Path, shape: Sequence[int], about: Mapping[str, Any]) -> Tensor | None:
    """Distances that a run has saved in units of its camera's; None if there are none, or not of all views."""
    paths = [folder / f"{i}.png" for i in range(shape[0])]
    if "camera" not in about or not all(path.is_file() for path in paths):
        return None
    maps = np.zeros(tuple(shape), np.float32)
    for found, path in zip(maps, paths):
        try:
            with Image.open(path, formats=FORMATS) as image:
                if image.size != (shape[2], shape[1]) or not image.mode.startswith("I"):
                    raise ValueError(f"it is {image.mode} {image.size}, not 16 bits of {tuple(shape[1:])}")
                found[:] = np.asarray(image, np.float32) / 65535.0
        except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as cause:
            raise RendersError(
                f"A depth map cannot be read: {cause}",
                kind="unreadable",
                received=path.name,
                fix="Render the views again, or delete the folder of depth maps.",
            ) from cause
    return torch.from_numpy(maps * np.float32(2.0 * about["camera"]["distance"]))


def _refuse_stale(trial: Path, step: int, folder: Path, fix: str) -> None:
    """The run must not have gone on after its views were made."""
    pictures = [path.stat().st_mtime for path in folder.iterdir() if PICTURE.fullmatch(path.name)]
    for path in (trial / "ckpts").glob("*"):
        match = _CHECKPOINT.fullmatch(path.name)
        if match is None or path.is_symlink():
            continue
        if int(match[1]) > step:
            raise RendersError(
                f"The views are of step {step}, but the run has gone on to step {match[1]}",
                kind="stale",
                received=folder.name,
                fix=fix,
            )
        if pictures and path.stat().st_mtime > min(pictures) + 1.0:
            raise RendersError(
                f"The views are older than a checkpoint of the run ({path.name}): they may be of an earlier run",
                kind="stale",
                received=folder.name,
                fix=fix,
            )


def _settings(trial: Path, part: str) -> dict[str, Any]:
    """A part of the run's configuration, or all of it, as far as it can be read."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    path = trial / "configs" / "parsed.yaml"
    try:
        if path.stat().st_size > MAX_CONFIG:
            return {}
        config = OmegaConf.create(path.read_text("utf-8"))
        value = OmegaConf.select(config, part) if part else config
        value = OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else None
    except (OSError, ValueError, RecursionError, OmegaConfBaseException, YAMLError):
        return {}
    return value if isinstance(value, dict) else {}


def _expected_views(trial: Path, configured: Mapping[str, Any]) -> int | None:
    """``data.n_test_views`` of a run, or what its kind of data module has where the configuration is silent."""
    expected = configured.get("n_test_views")
    if expected is not None:
        return expected if type(expected) is int else None
    from threestudio_redream.runtime.registry import find

    try:
        kind = find(str(_settings(trial, "").get("data_type")))
        default = getattr(get_type_hints(kind).get("cfg"), "n_test_views", None)
    except (RedreamError, ImportError, NameError, TypeError, LookupError):
        return None
    return default if type(default) is int else None


def _run_ground(trial: Path) -> tuple[float, float, float] | None:
    """Colour behind the object in a run's test views, if it is one, fixed and known."""
    system = _settings(trial, "system")
    keys = system.get("background", {})
    if system.get("background_type") != "solid-color-background" or not isinstance(keys, dict) or keys.get("learned"):
        return None
    color = keys.get("color", [1.0] * 3)
    if not isinstance(color, list) or not all(isinstance(value, int | float) for value in color):
        return None
    color = [float(value) for value in color] * (3 if len(color) == 1 else 1)
    return (color[0], color[1], color[2]) if len(color) == 3 and all(0.0 <= v <= 1.0 for v in color) else None


def _camera(configured: Mapping[str, Any]) -> dict[str, Any]:
    """Of the test views; nothing unless all of it is known."""
    names = {"elevation_deg": "eval_elevation_deg", "distance": "eval_camera_distance", "fovy_deg": "eval_fovy_deg"}
    camera = {name: {"elevation_deg": 15.0, "distance": 1.5, "fovy_deg": 70.0}[name] for name in names}
    camera |= {name: configured[key] for name, key in names.items() if key in configured}
    known = "n_test_views" in configured and all(isinstance(value, int | float) for value in camera.values())
    return {"camera": {name: float(value) for name, value in camera.items()}} if known else {}


def _of_mesh(path: Path, protocol: Protocol) -> Renders:
    from threestudio_redream.assets import load_asset, normalise
    from threestudio_redream.assets.rasteriser import AssetRenderer
    from threestudio_redream.cameras import orbit_c2w

    try:
        asset = normalise(load_asset(path))
    except AssetError as cause:
        raise RendersError(
            f"The mesh cannot be scored: {cause.problem}", kind="mesh", received=path.name, fix=cause.fix
        ) from cause
    views = protocol.views
    c2w = orbit_c2w(np.linspace(0.0, 360.0, views), [protocol.elevation_deg] * views, [protocol.distance] * views)
    shot = AssetRenderer(asset)(c2w, np.full(views, protocol.fovy_deg), protocol.size, protocol.size)
    rgba = shot.rgba
    rgb = rgba[..., :3] + (1.0 - rgba[..., 3:]) * protocol.background
    pictures = [picture.clip(0.0, 1.0).astype(np.float32) for picture in rgb]
    checked = check_pictures(iter(pictures), [f"view {i}" for i in range(views)], True)
    camera = {name: getattr(protocol, name) for name in ("elevation_deg", "distance", "fovy_deg")}
    about = {"kind": "mesh", "protocol": asdict(protocol), "camera": camera, "sha256": content_digest([path])}
    opacity, depth = (torch.from_numpy(part.astype(np.float32)) for part in (rgba[..., 3], shot.depth[..., 0]))
    return Renders(checked, opacity, about, depth, (protocol.background,) * 3)
