"""Bring an asset into the canonical frame: centred, front +x, up +z, inside a sphere."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.types import Asset
from threestudio_redream.errors import AssetError, ConfigError

__all__ = ["Axis", "axis_rotation", "normalise"]

Axis = Literal["+x", "-x", "+y", "-y", "+z", "-z"]

#: Front that goes with an up axis unless the caller knows better: glTF for +y, Blender for +z.
_DEFAULT_FRONT: dict[str, Axis] = {"x": "+z", "y": "+z", "z": "-y"}


def _axis_vector(axis: str) -> NDArray[np.float64]:
    if axis not in ("+x", "-x", "+y", "-y", "+z", "-z"):
        raise ConfigError("an axis is unknown", received=axis, fix="Use one of +x, -x, +y, -y, +z, -z")
    vector = np.zeros(3)
    vector["xyz".index(axis[1])] = 1.0 if axis[0] == "+" else -1.0
    return vector


def axis_rotation(up: str = "+y", front: str | None = None) -> NDArray[np.float64]:
    """``[3, 3]`` rotation that takes ``front`` to +x and ``up`` to +z.

    ``axis_rotation("+y", "+z") @ [1, 2, 3] -> [3, 1, 2]``: glTF's (x, y, z) becomes (z, x, y).

    Args:
        up, front: axes of the file, e.g. ``"+y"``. Without ``front``: +z for y up (glTF) and x up,
            -y for z up (Blender).

    Raises:
        ConfigError: an unknown axis, or ``front`` along ``up``.
    """
    vertical = _axis_vector(up)
    forward = _axis_vector(front if front is not None else _DEFAULT_FRONT[up[1]])
    if abs(float(vertical @ forward)) > 0.5:
        raise ConfigError(
            "the front of an asset cannot lie along its up axis", received=(up, front), fix="Name another front"
        )
    return np.stack([forward, np.cross(vertical, forward), vertical])


def normalise(
    asset: Asset, *, up: str = "+y", front: str | None = None, radius: float = 0.5, yaw_deg: float = 0.0
) -> Asset:
    """Turn, centre and scale an asset.

    Convention
    ----------
    The result lies in the world of :mod:`threestudio_redream.cameras`: front +x, up +z. Its centre, the
    centre of the axis-aligned bounding box in the axes of the file, is the origin, and the vertex
    farthest from it is at ``radius``. A glTF box from (0, 0, 0) to (2, 4, 4) has its centre at (1, 2, 2)
    and corners 3 away: the corner (2, 4, 4) goes to (1/3, 1/6, 1/3), since (x, y, z) becomes (z, x, y).
    A positive yaw turns the object counter-clockwise seen from above: with 90, what pointed to +x
    points to +y, the side that azimuth 90 looks at.

    Args:
        up: axis of the file that points up; +y for glTF, and the usual one for OBJ. CAD, scans and
            printing (STL, PLY, OFF) often use ``"+z"``; the files do not say.
        front: axis of the file that the object faces, see :func:`axis_rotation`.
        radius: in world units.
        yaw_deg: degrees about +z, after the axes.

    Returns:
        A new asset; ``info["to_canonical"]`` is the ``[4, 4]`` matrix, nested lists, that was applied.

    Raises:
        AssetError: zero extent. ConfigError: axes that make no frame, or a radius that is not positive.
    """
    if not (np.isfinite(radius) and radius > 0.0 and np.isfinite(yaw_deg)):
        raise ConfigError(
            "the radius must be positive and the yaw finite", received=(radius, yaw_deg), fix="Use radius 0.5"
        )
    vertices = asset.vertices.astype(np.float64)
    centre = 0.5 * (vertices.min(axis=0) + vertices.max(axis=0))
    reach = float(np.linalg.norm(vertices - centre, axis=1).max())
    if not reach > 0.0:
        raise AssetError("all vertices of the asset coincide", received=centre.tolist(), fix="Load another file")
    cos, sin = np.cos(np.deg2rad(yaw_deg)), np.sin(np.deg2rad(yaw_deg))
    rotation = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]) @ axis_rotation(up, front)
    scale = radius / reach

    matrix = np.eye(4)
    matrix[:3, :3] = scale * rotation
    matrix[:3, 3] = -scale * rotation @ centre
    previous = np.array(asset.info.get("to_canonical", np.eye(4)))
    return replace(
        asset,
        vertices=((vertices - centre) @ rotation.T * scale).astype(np.float32),
        normals=(asset.normals.astype(np.float64) @ rotation.T).astype(np.float32),
        info={**asset.info, "to_canonical": (matrix @ previous).tolist()},
    )
