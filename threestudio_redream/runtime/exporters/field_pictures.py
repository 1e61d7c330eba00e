"""Pictures of a density field without a renderer of its system: unlit colours, from any camera."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from threestudio_redream.cameras import pixel_rays
from threestudio_redream.kernels.volume import OccupancyGrid
from threestudio_redream.runtime.renderers.compositing import composite

__all__ = ["FieldPictures"]

_STEPS = 512  # along the diagonal of the box
_CELLS = 64  # of the grid that skips empty space, per axis
_VISIBLE = 0.002  # opacity of a step
_RAYS, _POINTS = 2**14, 2**18  # at once


class FieldPictures:
    """Draws a field: a :data:`~threestudio_redream.meshing.pictures.ViewFn`.

    Args:
        bbox: ``[2, 3]`` tensor, world box of the field, on its device.
        density: points ``[N, 3]`` -> ``[N, 1]``, inverse world units.
        colour: points ``[N, 3]`` -> ``[N, 3]``, sRGB-encoded, in [0, 1].
    """

    def __init__(self, bbox: Tensor, density: Callable[[Tensor], Tensor], colour: Callable[[Tensor], Tensor]) -> None:
        self._bbox, self._density, self._colour = bbox.float(), density, colour
        self._step = float((self._bbox[1] - self._bbox[0]).norm()) / _STEPS
        self._grid = self._occupied()

    @torch.no_grad()
    def __call__(self, c2w: NDArray[np.float32], fovy_deg: float, side: int) -> NDArray[np.float32]:
        """``[B, side, side, 4]`` premultiplied colour and opacity in [0, 1]."""
        pictures = []
        for camera in c2w:
            rays = (
                torch.from_numpy(np.ascontiguousarray(part.reshape(-1, 3))).to(self._bbox)
                for part in pixel_rays(camera[None], fovy_deg, side, side)
            )
            parts = [self._draw(*pair) for pair in zip(*(part.split(_RAYS) for part in rays), strict=True)]
            pictures.append(torch.cat(parts).view(side, side, 4).float().cpu().numpy())
        return np.stack(pictures)

    def _draw(self, rays_o: Tensor, rays_d: Tensor) -> Tensor:
        def middles(starts: Tensor, ends: Tensor, which: Tensor) -> Tensor:
            return torch.addcmul(rays_o[which], rays_d[which], ((starts + ends) * 0.5)[:, None])

        which, starts, ends = self._grid.sampling(
            rays_o,
            rays_d,
            render_step_size=self._step,
            sigma_fn=lambda *samples: _in_parts(self._density, middles(*samples))[:, 0],
            alpha_thre=_VISIBLE,
        )
        if which.numel() == 0:
            return torch.zeros(len(rays_o), 4).to(rays_o)
        points = middles(starts, ends, which)
        density, colours = _in_parts(self._density, points)[:, 0], _in_parts(self._colour, points)
        composed = composite(starts, ends, which, len(rays_o), density, colours)
        return torch.cat([composed["comp_rgb_fg"], composed["opacity"]], dim=-1)

    @torch.no_grad()
    def _occupied(self) -> OccupancyGrid:
        """A grid of the cells that hold something, or touch one that does."""
        grid = OccupancyGrid(self._bbox.flatten(), resolution=_CELLS).to(self._bbox.device)
        places = (torch.arange(2 * _CELLS).to(self._bbox) + 0.5) / (2 * _CELLS)
        points = torch.stack(torch.meshgrid(places, places, places, indexing="ij"), dim=-1).reshape(-1, 3)
        density = _in_parts(self._density, torch.lerp(self._bbox[0], self._bbox[1], points))
        opacity = density.view(1, 1, *3 * [2 * _CELLS]).float() * self._step
        opacity = functional.max_pool3d(functional.max_pool3d(opacity, 2), 3, stride=1, padding=1)
        grid.occs.copy_(opacity.reshape(-1))
        grid.binaries.copy_((opacity > _VISIBLE)[0])
        return grid


def _in_parts(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    return torch.cat([function(part) for part in points.split(_POINTS)])
