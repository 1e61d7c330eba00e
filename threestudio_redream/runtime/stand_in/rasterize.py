"""``NVDiffRasterizerContext``: differentiable rasterisation of meshes, where nvdiffrast is installed.

nvdiffrast draws on CUDA only, and this package has no differentiable rasteriser of its own. So the context is an error
when it is made, not when the module is imported: an extension that only may rasterise still loads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from threestudio_redream.errors import ConfigError

__all__ = ["NVDiffRasterizerContext"]


class NVDiffRasterizerContext:
    """One drawing context.

    Args:
        context_type: ``cuda`` or ``gl``. device: a CUDA device.

    Raises:
        ConfigError: another type, or nvdiffrast does not import.
    """

    def __init__(self, context_type: str, device: torch.device) -> None:
        if context_type not in ("cuda", "gl"):
            raise ConfigError(
                "Unknown type of rasteriser context", received=context_type, fix="Use cuda; gl needs a display or EGL."
            )
        try:
            import nvdiffrast.torch as nvdiffrast
        except ImportError as cause:
            raise ConfigError(
                f"Rasterising a mesh needs CUDA and the package nvdiffrast, which did not import: {cause}",
                received=context_type,
                fix="Install it from github.com/NVlabs/nvdiffrast (it is not on PyPI), or distil a field through "
                "nerf-volume-renderer, which runs everywhere.",
            ) from cause
        self.device, self._library = device, nvdiffrast
        make = nvdiffrast.RasterizeCudaContext if context_type == "cuda" else nvdiffrast.RasterizeGLContext
        self.ctx = make(device=device)

    def vertex_transform(self, verts: Tensor, mvp_mtx: Tensor) -> Tensor:
        """Clip-space positions ``[B, V, 4]`` of ``verts`` ``[V, 3]`` under ``mvp_mtx`` ``[B, 4, 4]``."""
        return torch.nn.functional.pad(verts, (0, 1), value=1.0) @ mvp_mtx.transpose(1, 2)

    def rasterize(self, pos: Tensor, tri: Tensor, resolution: int | tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Barycentrics, depth and face + 1 ``[B, H, W, 4]`` of ``pos`` ``[B, V, 4]``, and their derivatives."""
        return self._library.rasterize(self.ctx, pos.float(), tri.int(), resolution, grad_db=True)

    def rasterize_one(self, pos: Tensor, tri: Tensor, resolution: int | tuple[int, int]) -> tuple[Tensor, Tensor]:
        """:meth:`rasterize` of one view ``pos`` ``[V, 4]``, without the axis of views."""
        rast, derivatives = self.rasterize(pos[None], tri, resolution)
        return rast[0], derivatives[0]

    def antialias(self, color: Tensor, rast: Tensor, pos: Tensor, tri: Tensor) -> Tensor:
        """``color`` ``[B, H, W, C]`` with smoothed silhouettes, through which ``pos`` gets its gradient."""
        return self._library.antialias(color.float(), rast, pos.float(), tri.int())

    def interpolate(
        self, attr: Tensor, rast: Tensor, tri: Tensor, rast_db: Tensor | None = None, diff_attrs: Any = None
    ) -> tuple[Tensor, Tensor]:
        """Values ``[B, H, W, C]`` of vertex attributes ``[B, V, C]`` at the pixels, and their derivatives."""
        return self._library.interpolate(attr.float(), rast, tri.int(), rast_db=rast_db, diff_attrs=diff_attrs)

    def interpolate_one(
        self, attr: Tensor, rast: Tensor, tri: Tensor, rast_db: Tensor | None = None, diff_attrs: Any = None
    ) -> tuple[Tensor, Tensor]:
        """:meth:`interpolate` of attributes ``[V, C]`` that all views share."""
        return self.interpolate(attr[None], rast, tri, rast_db, diff_attrs)
