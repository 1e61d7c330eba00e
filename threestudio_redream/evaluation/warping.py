"""Warp consistency: does a point of the surface keep its colour from one view to the next?

Each view's surface, placed in space by its depth, is looked up in the next view. A field whose colour does not depend
on the view is consistent by construction, up to what resampling loses; what this sees is colour that changes with the
view, semi-transparent shells, and pictures that were painted one by one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from threestudio_redream.cameras import focal_length, orbit_c2w, pixel_rays
from threestudio_redream.errors import ConfigError

__all__ = ["warp_error"]


def warp_error(
    views: Tensor, opacity: Tensor, depth: Tensor, camera: Mapping[str, float], tolerance: float = 0.02
) -> tuple[float, float]:
    """Mean absolute difference of colour between each point of the surface and the same point in the next view.

    Convention: view ``i`` of ``A`` is seen from azimuth ``360 i / (A - 1)`` degrees. With a camera at distance 2 that
    looks at the front of a cube of side 1, the depth in the middle of the picture is 1.5.

    Args:
        views: ``[A, H, W, 3]`` in [0, 1]. opacity: ``[A, H, W]`` in [0, 1]; a point counts where both views have more
            than 0.5. depth: ``[A, H, W]`` in world units along unit rays. camera: ``elevation_deg``, ``distance``,
            ``fovy_deg``. tolerance: a point is hidden in the next view if that view sees something nearer or farther
            by more than this share of the camera's distance.

    Returns:
        The error in [0, 1], and the share of the surface's pixels that the next view sees too. The error is NaN if
        there are none.

    Raises:
        ConfigError: shapes that do not fit.
    """
    if views.ndim != 4 or len(views) < 2 or opacity.shape != views.shape[:3] or depth.shape != views.shape[:3]:
        raise ConfigError(
            "Views, opacity and depth do not fit together",
            received=(tuple(views.shape), tuple(opacity.shape), tuple(depth.shape)),
            fix="Give [A, H, W, 3], [A, H, W] and [A, H, W] with two views or more.",
        )
    count, height, width = views.shape[:3]
    azimuth = np.linspace(0.0, 360.0, count)
    c2w = orbit_c2w(azimuth, [camera["elevation_deg"]] * count, [camera["distance"]] * count)
    focal = float(focal_length(camera["fovy_deg"], height))
    error, seen, surface = 0.0, 0, 0
    for i in range(count - 1):
        mask = opacity[i] > 0.5
        surface += int(mask.sum())
        origin, direction = (
            torch.from_numpy(part)[0] for part in pixel_rays(c2w[i : i + 1], camera["fovy_deg"], height, width)
        )
        points = (origin + direction * depth[i, ..., None])[mask]
        following = torch.from_numpy(c2w[i + 1])
        local = (points - following[:3, 3]) @ following[:3, :3]
        away, ahead = local.norm(dim=-1), (-local[:, 2]).clamp(min=1e-6)
        place = torch.stack(
            [2 * focal * local[:, 0] / (ahead * width), -2 * focal * local[:, 1] / (ahead * height)], -1
        )

        def look_up(values: Tensor, place: Tensor = place) -> Tensor:
            return functional.grid_sample(values[None], place[None, None], align_corners=False)[0, :, 0].T

        there = look_up(
            torch.cat([views[i + 1], opacity[i + 1, ..., None], depth[i + 1, ..., None]], -1).permute(2, 0, 1)
        )
        same = (there[:, 3] > 0.5) & ((there[:, 4] - away).abs() < tolerance * camera["distance"])
        same &= (local[:, 2] < 0) & (place.abs() <= 1).all(-1)
        error += float((there[:, :3] - views[i][mask]).abs().mean(-1)[same].sum())
        seen += int(same.sum())
    return error / seen if seen else float("nan"), seen / surface if surface else 0.0
