"""Camera batches: the dictionary every threestudio renderer and guidance is called with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from threestudio_redream.cameras import pixel_rays, projection_matrix

__all__ = ["camera_batch"]

NEAR, FAR = 0.01, 100.0


def camera_batch(
    c2w: ArrayLike,
    *,
    fovy_deg: ArrayLike,
    height: int,
    width: int,
    elevation_deg: ArrayLike,
    azimuth_deg: ArrayLike,
    distance: ArrayLike,
    light_positions: ArrayLike | None = None,
    normalize: bool = True,
) -> dict[str, Any]:
    """Rays, matrices and angles of B cameras as float32 tensors.

    Args:
        c2w: ``[B, 4, 4]`` by the convention of :mod:`threestudio_redream.cameras`.
        fovy_deg, elevation_deg, azimuth_deg: degrees, ``[B]`` or scalar. distance: ``[B]`` or scalar.
        light_positions: ``[B, 3]``; the cameras' own positions by default.
        normalize: unit ray directions.

    Returns:
        ``rays_o, rays_d [B,H,W,3]``; ``c2w, proj_mtx, mvp_mtx [B,4,4]``; ``camera_positions,
        light_positions [B,3]``; ``elevation, azimuth [B]`` in **degrees**; ``fovy [B]`` in **radians**;
        ``camera_distances [B]``; ``height, width`` as ints.
    """
    c2w = np.asarray(c2w, np.float32)
    count = c2w.shape[0]

    def per_camera(values: ArrayLike) -> torch.Tensor:
        return torch.from_numpy(np.broadcast_to(np.asarray(values, np.float32), (count,)).copy())

    fovy = per_camera(fovy_deg)
    projection = projection_matrix(fovy.numpy(), width / height, NEAR, FAR)
    rays_o, rays_d = pixel_rays(c2w, fovy.numpy(), height, width, normalize=normalize)
    positions = torch.from_numpy(c2w[:, :3, 3].copy())
    lights = positions.clone() if light_positions is None else torch.as_tensor(np.asarray(light_positions, np.float32))
    return {
        "rays_o": torch.from_numpy(rays_o),
        "rays_d": torch.from_numpy(rays_d),
        "mvp_mtx": torch.from_numpy((projection @ np.linalg.inv(c2w)).astype(np.float32)),
        "proj_mtx": torch.from_numpy(projection),
        "c2w": torch.from_numpy(c2w.copy()),
        "camera_positions": positions,
        "light_positions": lights,
        "elevation": per_camera(elevation_deg),
        "azimuth": per_camera(azimuth_deg),
        "camera_distances": per_camera(distance),
        "fovy": torch.deg2rad(fovy),
        "height": height,
        "width": width,
    }
