"""Rasterise an asset from any camera: RGBA, depth and normals, headless, on the CPU by default.

Convention
----------
* Cameras are those of :mod:`threestudio_redream.cameras`: ``c2w`` columns are right, up, backward,
  position; ``fovy_deg`` is vertical, in degrees; row 0 is the top. A unit square in the plane x = 0,
  seen by ``orbit_c2w(0, 0, 2)``, has depth 2 in its centre and normal ``(1, 0, 0)``.
* Colour is sRGB-encoded and premultiplied by alpha. Texture filters, light and anti-aliasing work on
  encoded values; factor, texture and vertex colour are multiplied in linear light.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from threestudio_redream.assets.raster_pack import BLEND, MODE, Packed, pack
from threestudio_redream.assets.raster_settings import Settings, check_cameras, check_integer, view_arrays
from threestudio_redream.assets.shading import shading_code
from threestudio_redream.assets.types import Asset
from threestudio_redream.errors import ConfigError
from threestudio_redream.kernels.jit import use_numba

__all__ = ["BLEND_LAYERS", "MAX_SIDE", "MAX_SUPERSAMPLE", "AssetRenderer", "Backend", "Renders", "render_asset"]

Array = NDArray[np.float32]
Backend = Literal["auto", "numba", "numpy", "moderngl"]

MAX_SIDE = 4096
MAX_SUPERSAMPLE = 8
#: Blended surfaces kept per sample; farther ones are dropped.
BLEND_LAYERS = 4
_NEAR = 1e-4  # of the asset's bounding radius
_CACHED_RENDERERS = 4

_cache: OrderedDict[tuple[int, str, bool], tuple[weakref.ref[Asset], AssetRenderer]] = OrderedDict()
_cache_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class Renders:
    """Images of one asset from ``B`` cameras, float32, row 0 at the top.

    Attributes:
        rgba: ``[B, H, W, 4]`` in [0, 1]: sRGB-encoded colour premultiplied by alpha; alpha is the
            covered share of the pixel times the opacity of what covers it.
        depth: ``[B, H, W, 1]`` distance from the camera centre along the unit ray, in world units, of
            the covered sample nearest to the pixel centre; 0 where nothing is hit. Never averaged.
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


def _choose_backend(backend: str) -> str:
    if backend not in get_args(Backend):
        raise ConfigError(
            "The render backend is unknown", received=backend, fix=f"Use one of {', '.join(get_args(Backend))}."
        )
    if backend == "auto":
        return "numba" if use_numba() else "numpy"
    return backend


class AssetRenderer:
    """Renders one asset again and again; textures, mip levels and buffers are prepared once.

    Args:
        asset: the mesh. Its arrays must not change afterwards.
        supersample: samples per pixel side, 1 to 8; 1 switches anti-aliasing off.
        shading: ``none`` (base colour), ``headlight`` or ``world``; see :mod:`.shading`.
        backend: ``numba``, ``numpy`` (the slow reference), ``moderngl`` (extra ``gpu-raster``), or
            ``auto``: numba where the numba kernels are in use, else numpy.
        cull_backfaces: honour single-sided materials. Off by default: a wall that is there from one
            side and not from the other cannot be fitted by a radiance field.

    Transparency: MASK materials are tested per sample against the unfiltered alpha; of BLEND
    materials the nearest four surfaces per sample are composited, in exact order.

    Raises:
        ConfigError: for an unknown backend or shading, or a supersample outside 1..8.
        MissingExtraError: when moderngl is asked for and absent.
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
        self.supersample = check_integer("supersample factor", supersample, MAX_SUPERSAMPLE)
        shading_code(shading)
        self.shading = shading
        self.backend = _choose_backend(backend)
        self.cull_backfaces = bool(cull_backfaces)
        self.packed: Packed = pack(asset, fast=use_numba())
        used = self.packed.attributes[self.packed.faces[:, :3].reshape(-1), :3].astype(np.float64)
        self.near = max(_NEAR * 0.5 * float(np.linalg.norm(np.ptp(used, axis=0))) if len(used) else 0.0, 1e-12)
        self._layers = BLEND_LAYERS if (self.packed.materials[self.packed.faces[:, 3], MODE] == BLEND).any() else 0
        self._render_views = self._load()

    def _load(self) -> Callable[[NDArray[np.float64], Settings, Array, Array, Array], None]:
        packed = self.packed
        if self.backend == "moderngl":
            from threestudio_redream.assets.gpu_rasteriser import GpuRasteriser

            return GpuRasteriser(packed).render_views
        if self.backend == "numba":
            from threestudio_redream.assets import rasteriser_numba as module
        else:
            from threestudio_redream.assets import rasteriser_numpy as module  # type: ignore[no-redef]
        return lambda *arguments: module.render_views(packed, *arguments)

    def __call__(
        self,
        c2w: ArrayLike,
        fovy_deg: ArrayLike,
        height: int,
        width: int,
        *,
        supersample: int | None = None,
        shading: str | None = None,
    ) -> Renders:
        """Render from one or several cameras.

        Args:
            c2w: ``[B, 4, 4]`` or ``[4, 4]``. fovy_deg: vertical field of view in degrees, one or ``[B]``.
            height, width: of the images in pixels, 1 to 4096.
            supersample, shading: instead of those given to the constructor.

        Raises:
            ConfigError: for cameras that are not finite or not orthonormal, a field of view outside
                (0, 180) degrees, or a size outside 1..4096.
        """
        height = check_integer("image height", height, MAX_SIDE)
        width = check_integer("image width", width, MAX_SIDE)
        samples = self.supersample if supersample is None else supersample
        settings = Settings(
            supersample=check_integer("supersample factor", samples, MAX_SUPERSAMPLE),
            layers=self._layers,
            cull=self.cull_backfaces,
            shading=shading_code(self.shading if shading is None else shading),
            near=self.near,
        )
        matrices, fov = check_cameras(c2w, fovy_deg)
        views = view_arrays(matrices, fov, height, width, settings.supersample)
        shape = (len(views), height, width)
        rgba, depth, normal = (np.zeros((*shape, channels), np.float32) for channels in (4, 1, 3))
        self._render_views(views, settings, rgba, depth, normal)
        return Renders(rgba, depth, normal)


def _cached_renderer(asset: Asset, backend: Backend, cull_backfaces: bool) -> AssetRenderer:
    key = (id(asset), _choose_backend(backend), bool(cull_backfaces))
    with _cache_lock:
        entry = _cache.get(key)
        if entry is not None and entry[0]() is asset:
            _cache.move_to_end(key)
            return entry[1]
    renderer = AssetRenderer(asset, backend=backend, cull_backfaces=cull_backfaces)
    with _cache_lock:
        _cache[key] = (weakref.ref(asset), renderer)
        dead = [other for other, (reference, _) in _cache.items() if reference() is None]
        for other in dead + list(_cache)[: max(len(_cache) - len(dead) - _CACHED_RENDERERS, 0)]:
            _cache.pop(other, None)
    return renderer


def render_asset(
    asset: Asset,
    c2w: ArrayLike,
    fovy_deg: ArrayLike,
    height: int,
    width: int,
    *,
    supersample: int = 3,
    shading: str = "none",
    backend: Backend = "auto",
    cull_backfaces: bool = False,
) -> Renders:
    """Render an asset in one call; arguments, results and errors are those of :class:`AssetRenderer`.

    The renderers of the last few assets are kept, so calling this in a loop does not prepare textures
    again. The arrays of an asset must not change between calls.
    """
    renderer = _cached_renderer(asset, backend, cull_backfaces)
    return renderer(c2w, fovy_deg, height, width, supersample=supersample, shading=shading)
