"""Camera mathematics in numpy: the one place where axes, angles and matrices are defined.

Convention
----------
* World: right-handed, **+z up**. An object in the canonical frame is centred at the origin and its
  **front faces +x**.
* Azimuth (degrees): 0 looks at the object from +x (at its front), 90 from +y, 180 from -x.
  Elevation (degrees): positive is above the horizon.
  ``camera_positions(0, 0, 2.0) -> [2, 0, 0]``; ``camera_positions(90, 0, 2.0) -> [0, 2, 0]``;
  ``camera_positions(0, 90, 2.0) -> [0, 0, 2]``.
* Camera-to-world ``c2w``: columns are right, up, backward, position (OpenGL): the camera looks
  along its own -z. At azimuth 0, elevation 0: right = +y, up = +z, backward = +x.
* Field of view: vertical, in **degrees** wherever a name ends in ``_deg``, else radians.
* Pixels: row 0 is the top; the ray of pixel (i, j) passes through its centre (i + 0.5, j + 0.5).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["camera_positions", "focal_length", "look_at", "orbit_c2w", "pixel_rays", "projection_matrix"]

Array = NDArray[np.float32]


def camera_positions(azimuth_deg: ArrayLike, elevation_deg: ArrayLike, distance: ArrayLike) -> Array:
    """Camera centres on an orbit around the origin.

    Args:
        azimuth_deg, elevation_deg: degrees, broadcastable to ``[B]``.
        distance: distance to the origin in world units, broadcastable to ``[B]``.

    Returns:
        ``[B, 3]`` float32 (``[3]`` for scalars).
    """
    azimuth, elevation, radius = np.broadcast_arrays(
        np.deg2rad(np.asarray(azimuth_deg, np.float64)),
        np.deg2rad(np.asarray(elevation_deg, np.float64)),
        np.asarray(distance, np.float64),
    )
    horizontal = radius * np.cos(elevation)
    stacked = np.stack(
        [horizontal * np.cos(azimuth), horizontal * np.sin(azimuth), radius * np.sin(elevation)], axis=-1
    )
    return stacked.astype(np.float32)


def look_at(position: ArrayLike, target: ArrayLike = (0.0, 0.0, 0.0), up: ArrayLike = (0.0, 0.0, 1.0)) -> Array:
    """Camera-to-world matrices of cameras at ``position`` that look at ``target``.

    A camera exactly above or below its target, where ``up`` gives no direction, takes +y as its
    right-hand side (the limit of the orbit at azimuth 0).

    Args:
        position: ``[..., 3]``. target: ``[..., 3]``. up: ``[..., 3]``, need not be orthogonal.

    Returns:
        ``[..., 4, 4]`` float32, orthonormal to 1e-6 at any batch size.
    """
    position = np.asarray(position, np.float64)
    target, up = np.broadcast_to(target, position.shape), np.broadcast_to(up, position.shape)
    backward = position - target
    backward = backward / np.maximum(np.linalg.norm(backward, axis=-1, keepdims=True), 1e-12)
    right = np.cross(up, backward, axis=-1)
    length = np.linalg.norm(right, axis=-1, keepdims=True)
    right = np.where(length > 1e-9, right / np.maximum(length, 1e-12), np.array([0.0, 1.0, 0.0]))
    true_up = np.cross(backward, right, axis=-1)
    c2w = np.zeros((*position.shape[:-1], 4, 4))
    c2w[..., :3, 0], c2w[..., :3, 1], c2w[..., :3, 2], c2w[..., :3, 3] = right, true_up, backward, position
    c2w[..., 3, 3] = 1.0
    return c2w.astype(np.float32)


def orbit_c2w(azimuth_deg: ArrayLike, elevation_deg: ArrayLike, distance: ArrayLike) -> Array:
    """``look_at`` the origin from :func:`camera_positions`: ``[B, 4, 4]`` (``[4, 4]`` for scalars)."""
    return look_at(camera_positions(azimuth_deg, elevation_deg, distance))


def focal_length(fovy_deg: ArrayLike, height: int) -> Array:
    """Focal length in pixels for a vertical field of view in degrees: ``height / (2 tan(fovy/2))``."""
    return np.asarray(0.5 * height / np.tan(0.5 * np.deg2rad(np.asarray(fovy_deg, np.float64))), np.float32)


def pixel_rays(
    c2w: ArrayLike, fovy_deg: ArrayLike, height: int, width: int, *, normalize: bool = True
) -> tuple[Array, Array]:
    """World-space rays through every pixel centre.

    Args:
        c2w: ``[B, 4, 4]``. fovy_deg: degrees, scalar or ``[B]``.
        normalize: unit directions; otherwise directions whose camera-space z is -1.

    Returns:
        ``rays_o, rays_d``, each ``[B, H, W, 3]`` float32.
    """
    c2w = np.asarray(c2w, np.float32)
    focal = np.broadcast_to(focal_length(fovy_deg, height), c2w.shape[:1]).reshape(-1, 1, 1)
    column = (np.arange(width, dtype=np.float32) + 0.5 - 0.5 * width)[None, None, :]
    row = (np.arange(height, dtype=np.float32) + 0.5 - 0.5 * height)[None, :, None]
    shape = (c2w.shape[0], height, width)
    local = np.stack(
        [
            np.broadcast_to(column / focal, shape),
            np.broadcast_to(-row / focal, shape),
            np.full(shape, -1.0, np.float32),
        ],
        axis=-1,
    )
    rays_d = np.einsum("bhwi,bji->bhwj", local, c2w[:, :3, :3])
    if normalize:
        rays_d = rays_d / np.linalg.norm(rays_d, axis=-1, keepdims=True)
    rays_o = np.broadcast_to(c2w[:, None, None, :3, 3], rays_d.shape)
    return np.ascontiguousarray(rays_o, np.float32), np.ascontiguousarray(rays_d, np.float32)


def projection_matrix(fovy_deg: ArrayLike, aspect: float, near: float = 0.1, far: float = 1000.0) -> Array:
    """OpenGL-style projection with **y flipped** (row 0 at the top), as threestudio's batches carry it.

    Returns:
        ``[B, 4, 4]`` float32 (``[4, 4]`` for a scalar fov): clip = P @ camera.
    """
    tangent = np.tan(0.5 * np.deg2rad(np.asarray(fovy_deg, np.float64)))
    matrix = np.zeros((*tangent.shape, 4, 4))
    matrix[..., 0, 0] = 1.0 / (tangent * aspect)
    matrix[..., 1, 1] = -1.0 / tangent
    matrix[..., 2, 2] = -(far + near) / (far - near)
    matrix[..., 2, 3] = -2.0 * far * near / (far - near)
    matrix[..., 3, 2] = -1.0
    return matrix.astype(np.float32)
