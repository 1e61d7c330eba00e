"""What all rasterisers are told about a job beside the packed asset: settings and checked cameras."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from threestudio_redream.errors import ConfigError

__all__ = ["Settings", "check_cameras", "check_integer", "sample_order", "view_arrays"]


_IDENTITY = np.eye(3)


@dataclass(frozen=True)
class Settings:
    """What stays the same over the views of one asset.

    Attributes:
        supersample: samples per pixel side.
        layers: blended surfaces to keep per sample; 0 if nothing is blended.
        cull: honour single-sided materials.
        shading: index in ``SHADINGS``.
        near: nothing closer to the eye plane is drawn, in world units.
    """

    supersample: int
    layers: int
    cull: bool
    shading: int
    near: float


def check_integer(name: str, value: int, limit: int) -> int:
    """``value`` as an int if it lies in 1..limit.

    Raises:
        ConfigError: otherwise.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= limit:
        raise ConfigError(f"The {name} is out of range", received=value, fix=f"Use an integer from 1 to {limit}.")
    return int(value)


def check_cameras(c2w: ArrayLike, fovy_deg: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cameras as ``[B, 4, 4]`` and fields of view in degrees as ``[B]``, both float64.

    Raises:
        ConfigError: for a wrong shape, values that are not finite, a rotation that is not orthonormal
            (to 1e-3) or mirrors, or a field of view outside (0, 180) degrees.
    """
    matrices = np.asarray(c2w, np.float64)
    if matrices.ndim == 2:
        matrices = matrices[None]
    if matrices.ndim != 3 or matrices.shape[1:] != (4, 4) or len(matrices) == 0:
        raise ConfigError(
            "c2w has the wrong shape", received=np.shape(c2w), fix="Give [4, 4], or [B, 4, 4] with B >= 1."
        )
    if not np.isfinite(matrices).all():
        raise ConfigError("c2w holds values that are not finite", received=matrices, fix="Check the camera positions.")
    rotation = matrices[:, :3, :3]
    error = np.abs(rotation.transpose(0, 2, 1) @ rotation - _IDENTITY).max()
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


def view_arrays(
    c2w: NDArray[np.float64], fovy_deg: NDArray[np.float64], height: int, width: int, supersample: int
) -> NDArray[np.float64]:
    """Cameras as rows of 15 floats: right, up, backward, centre, focal length, image centre (x, y).

    Convention: lengths on the image are in samples. ``height=4, width=6, supersample=2`` gives the
    image centre ``(6, 4)``, and a field of view of 90 degrees the focal length 4.

    Args:
        c2w: ``[B, 4, 4]``. fovy_deg: ``[B]`` degrees.

    Returns:
        ``[B, 15]`` float64.
    """
    rows = np.zeros((len(c2w), 15))
    rows[:, :9] = c2w[:, :3, :3].transpose(0, 2, 1).reshape(-1, 9)
    rows[:, 9:12] = c2w[:, :3, 3]
    rows[:, 12] = 0.5 * height * supersample / np.tan(0.5 * np.deg2rad(fovy_deg))
    rows[:, 13:] = 0.5 * width * supersample, 0.5 * height * supersample
    return rows


@functools.lru_cache(maxsize=16)
def sample_order(supersample: int) -> NDArray[np.int64]:
    """Samples of a pixel by their distance to its centre, ties in reading order."""
    offsets = np.arange(supersample) - 0.5 * (supersample - 1)
    return np.argsort((offsets[:, None] ** 2 + offsets[None, :] ** 2).ravel(), kind="stable").astype(np.int64)
