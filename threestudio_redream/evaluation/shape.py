"""How near a result's shape is to the retrieved asset's: outlines, and surfaces."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from threestudio_redream.assets import Asset
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.errors import ConfigError
from threestudio_redream.meshing import silhouette_iou as overlap

__all__ = ["asset_masks", "chamfer_distance", "silhouette_iou"]


def asset_masks(
    asset: Asset,
    azimuth_deg: ArrayLike,
    height: int,
    width: int,
    *,
    elevation_deg: float,
    distance: float,
    fovy_deg: float,
) -> NDArray[np.bool_]:
    """``[A, H, W]`` silhouettes of an asset in the canonical frame, seen from the azimuths ``[A]``."""
    from threestudio_redream.assets.rasteriser import AssetRenderer

    azimuths = np.asarray(azimuth_deg, np.float64)
    views = len(azimuths)
    c2w = orbit_c2w(azimuths, [elevation_deg] * views, [distance] * views)
    alpha = AssetRenderer(asset, supersample=2)(c2w, np.full(views, fovy_deg), height, width).rgba[..., 3]
    return alpha > 0.5


def silhouette_iou(opacity: Tensor, masks: NDArray[np.bool_]) -> float:
    """Intersection over union of outlines, ``[A, H, W]`` both, mean over the views; 1 where both are empty.

    Raises:
        ConfigError: the shapes differ.
    """
    if tuple(opacity.shape) != masks.shape:
        raise ConfigError(
            "Silhouettes of two sizes", received=(tuple(opacity.shape), masks.shape), fix="Render both alike."
        )
    return float(np.mean([overlap(seen, mask) for seen, mask in zip(opacity.numpy() > 0.5, masks)]))


def chamfer_distance(one: Asset, other: Asset, points: int = 10_000, seed: int = 0) -> float:
    """Mean distance from each surface to the other, in world units, both ways and averaged.

    Both meshes are taken as they are: normalise them first, to radius 0.5. Points are drawn by area; with the default
    number, equal surfaces are about 0.004 apart.

    Raises:
        ConfigError: a mesh without area.
    """
    from scipy.spatial import cKDTree
    from trimesh import Trimesh
    from trimesh.sample import sample_surface

    clouds = []
    for number, asset in enumerate((one, other)):
        mesh = Trimesh(asset.vertices, asset.faces, process=False)
        if not mesh.area > 0.0:
            raise ConfigError("A mesh has no surface", received=float(mesh.area), fix="Look at the exported mesh.")
        clouds.append(np.asarray(sample_surface(mesh, points, seed=seed + number)[0]))
    there = cKDTree(clouds[1]).query(clouds[0])[0].mean()
    back = cKDTree(clouds[0]).query(clouds[1])[0].mean()
    return float(0.5 * (there + back))
