"""Rasterise an asset from any camera: RGBA, depth and normals, headless, on the CPU by default.

Convention
----------
* Cameras are those of :mod:`threestudio_redream.cameras`: ``c2w`` columns are right, up, backward,
  position; ``fovy_deg`` is vertical, in degrees; row 0 is the top. A sphere of radius 0.5 at the
  origin seen from distance 2 has depth 1.5 in its centre.
* Colour is sRGB-encoded and premultiplied by alpha; filtering, shading and anti-aliasing average
  encoded values, while factor, texture and vertex colour are multiplied in linear light.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from threestudio_redream.assets.raster_pack import BLEND, Packed, pack
from threestudio_redream.assets.shading import shading_code
from threestudio_redream.assets.types import Asset
from threestudio_redream.cameras import focal_length
from threestudio_redream.errors import ConfigError

__all__ = ["BLEND_LAYERS", "MAX_SIDE", "MAX_SUPERSAMPLE", "AssetRenderer", "Backend", "Renders", "render_asset"]

Array = NDArray[np.float32]
Backend = Literal["auto", "numba", "numpy", "moderngl"]
BACKENDS = ("auto", "numba", "numpy", "moderngl")

MAX_SIDE = 4096
MAX_SUPERSAMPLE = 8
#: Blended surfaces kept per sample; farther ones are dropped.
BLEND_LAYERS = 4
_NEAR = 1e-4  # of the asset's bounding radius
_CACHED_RENDERERS = 4

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Renders:
    """Images of one asset from ``B`` cameras, float32, row 0 at the top.

    Attributes:
        rgba: ``[B, H, W, 4]`` in [0, 1]: sRGB-encoded colour premultiplied by alpha; alpha is the
            covered share of the pixel times the opacity of what covers it.
        depth: ``[B, H, W, 1]`` distance from the camera centre along the ray, in world units, of the
            covered sample nearest to the pixel centre; 0 where nothing is hit. Never averaged.
        normal: ``[B, H, W, 3]`` world-space unit normal of the same sample, on the side of the
            surface that the camera sees; 0 where nothing is hit.
    """

    rgba: Array
    depth: Array
    normal: Array

    @property
    def mask(self) -> Array:
        """``[B, H, W, 1]`` anti-aliased opacity in [0, 1]: the alpha channel of ``rgba``."""
        return self.rgba[..., 3:]

    def over(self, background: ArrayLike) -> Array:
        """Colour in front of a background: ``[B, H, W, 3]``.

        Args:
            background: sRGB-encoded, broadcastable to ``[B, H, W, 3]``: a number, a colour, an image.
        """
        return np.asarray(self.rgba[..., :3] + (1.0 - self.mask) * np.asarray(background, np.float32), np.float32)


def _check_size(name: str, value: int, limit: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= limit:
        raise ConfigError(f"The {name} is out of range", received=value, fix=f"Use an integer from 1 to {limit}.")
    return int(value)


def _check_cameras(c2w: ArrayLike, fovy_deg: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``[B, 4, 4]`` and ``[B]`` float64, or a :class:`ConfigError`."""
    matrices = np.asarray(c2w, np.float64)
    if matrices.ndim == 2:
        matrices = matrices[None]
    if matrices.ndim != 3 or matrices.shape[1:] != (4, 4) or len(matrices) == 0:
        raise ConfigError("c2w has the wrong shape", received=np.shape(c2w), fix="Give [4, 4] or [B, 4, 4], B >= 1.")
    if not np.isfinite(matrices).all():
        raise ConfigError("c2w holds values that are not finite", received=matrices, fix="Check the camera positions.")
    rotation = matrices[:, :3, :3]
    error = np.abs(rotation.transpose(0, 2, 1) @ rotation - np.eye(3)).max()
    if error > 1e-3 or (np.linalg.det(rotation) < 0).any():
        raise ConfigError(
            "The rotation of c2w is not orthonormal and right-handed",
            received=float(error),
            fix="Build cameras with threestudio_redream.cameras.look_at or orbit_c2w; c2w must not hold a scale.",
        )
    try:
        fov = np.broadcast_to(np.asarray(fovy_deg, np.float64), (len(matrices),))
    except ValueError as cause:
        raise ConfigError(
            "fovy_deg does not fit c2w", received=np.shape(fovy_deg), fix=f"Give one number or {len(matrices)} of them."
        ) from cause
    if not ((fov > 0.0) & (fov < 180.0)).all():
        raise ConfigError(
            "The field of view is out of range", received=fov.tolist(), fix="Use degrees between 0 and 180."
        )
    return matrices, fov


def _choose_backend(backend: str) -> str:
    if backend not in BACKENDS:
        raise ConfigError("The render backend is unknown", received=backend, fix=f"Use one of {', '.join(BACKENDS)}.")
    if backend != "auto":
        return backend
    if importlib.util.find_spec("numba") is not None:
        return "numba"
    log.warning("numba is not installed: assets are rendered by the numpy reference, which is far slower")
    return "numpy"


class AssetRenderer:
    """Renders one asset again and again; textures, mips and buffers are prepared once.

    Args:
        asset: the mesh. Its arrays are copied where that helps, never changed.
        supersample: samples per pixel side; 1 switches anti-aliasing off.
        shading: ``none`` (base colour), ``headlight`` or ``world``; see :mod:`.shading`.
        backend: ``numba``, ``numpy`` (the slow reference), ``moderngl`` (extra ``gpu-raster``), or
            ``auto``: numba where it is installed, else numpy.
        cull_backfaces: honour single-sided materials. Off by default: a wall that is there from one
            side and not from the other cannot be fitted by a radiance field.

    Raises:
        ConfigError: for an unknown backend or shading, or a supersample outside 1..8.
        MissingExtraError: when moderngl is asked for and absent.

    Transparency: MASK materials are tested per sample against the unfiltered alpha; of BLEND
    materials the nearest four surfaces per sample are composited in exact order.
    """

    def __init__(
        self,
        asset: Asset,
        *,
        supersample: int = 3,
        shading: str = "none",
        backend: Backend = "auto",
        cull_backfaces: bool = False,
    ) -> None:
        self.supersample = _check_size("supersample factor", supersample, MAX_SUPERSAMPLE)
        self.shading = shading
        self._shading = shading_code(shading)
        self.backend = _choose_backend(backend)
        self.cull_backfaces = bool(cull_backfaces)
        self.packed: Packed = pack(asset)
        used = self.packed.attributes[self.packed.faces[:, :3].reshape(-1), :3]
        radius = 0.5 * float(np.linalg.norm(used.max(0).astype(np.float64) - used.min(0))) if len(used) else 0.0
        self.near = max(_NEAR * radius, 1e-12)
        self._layers = BLEND_LAYERS if (self.packed.materials[self.packed.faces[:, 3], 0] == BLEND).any() else 0

    def __call__(self, c2w: ArrayLike, fovy_deg: ArrayLike, height: int, width: int) -> Renders:
        """Render from ``c2w`` (``[B, 4, 4]`` or ``[4, 4]``) with ``fovy_deg`` (degrees, one or ``[B]``).

        Raises:
            ConfigError: for cameras that are not finite or not orthonormal, a field of view outside
                (0, 180) degrees, or a size outside 1..4096.
        """
        height, width = _check_size("image height", height, MAX_SIDE), _check_size("image width", width, MAX_SIDE)
        matrices, fov = _check_cameras(c2w, fovy_deg)
        shape = (len(matrices), height, width)
        rgba, depth, normal = (np.zeros((*shape, channels), np.float32) for channels in (4, 1, 3))
        focal = 0.5 * height * self.supersample / np.tan(0.5 * np.deg2rad(fov))
        from threestudio_redream.assets.rasteriser_numba import Settings, render_views, view_array
        views=np.stack([view_array(m[:3,:3],m[:3,3],f,(height*self.supersample,width*self.supersample)) for m,f in zip(matrices,focal)])
        render_views(self.packed, views, Settings(self.supersample, self._layers, self.cull_backfaces, self._shading, self.near), rgba, depth, normal)
        return Renders(rgba, depth, normal)
