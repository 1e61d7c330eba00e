"""What a camera sees, by intersecting every ray with every triangle: slow, and free of rasteriser tricks.

Möller and Trumbore, "Fast, minimum storage ray-triangle intersection", 1997, in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.types import Asset, Material
from threestudio_redream.cameras import pixel_rays

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Hits:
    """Nearest hit per ray: ``face [N]`` (-1 for none), ``distance [N]``, ``weights [N, 3]``."""

    face: NDArray[np.int64]
    distance: Floats
    weights: Floats


def intersect(origins: Floats, directions: Floats, triangles: Floats) -> Hits:
    """Nearest hits of ``[N, 3]`` unit rays with ``[F, 3, 3]`` triangles, either side."""
    edge1, edge2 = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    face = np.full(len(origins), -1)
    distance = np.full(len(origins), np.inf)
    weights = np.zeros((len(origins), 3))
    rays = np.arange(len(origins))
    for start in range(0, len(origins), 512):
        rows = rays[start : start + 512]
        o, d = origins[rows, None], directions[rows, None]
        p = np.cross(d, edge2[None])
        determinant = (edge1 * p).sum(-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            s = o - triangles[None, :, 0]
            u = (s * p).sum(-1) / determinant
            q = np.cross(s, edge1[None])
            v = (d * q).sum(-1) / determinant
            t = (edge2 * q).sum(-1) / determinant
            u, v, t = np.nan_to_num(u, nan=-1.0), np.nan_to_num(v, nan=-1.0), np.nan_to_num(t, nan=-1.0)
            inside = (u >= 0) & (v >= 0) & (u + v <= 1)
        t = np.where((determinant != 0) & inside & (t > 0), t, np.inf)
        nearest = t.argmin(1)
        index = np.arange(len(rows))
        hit = np.isfinite(t[index, nearest])
        face[rows[hit]] = nearest[hit]
        distance[rows] = t[index, nearest]
        chosen_u, chosen_v = u[index, nearest], v[index, nearest]
        weights[rows[hit]] = np.stack([1 - chosen_u - chosen_v, chosen_u, chosen_v], -1)[hit]
    return Hits(face, distance, weights)


def embree_distance(asset: Asset, origins: Floats, directions: Floats) -> Floats:
    """The same distances from embree, through trimesh; infinite where nothing is hit."""
    import trimesh
    from trimesh.ray.ray_pyembree import RayMeshIntersector

    mesh = trimesh.Trimesh(asset.vertices, asset.faces, process=False)
    located, rays, _ = RayMeshIntersector(mesh).intersects_location(origins, directions, multiple_hits=False)
    distance = np.full(len(origins), np.inf)
    distance[rays] = np.linalg.norm(located - origins[rays], axis=1)
    return distance


def bilinear(material: Material, uv: Floats) -> Floats:
    """RGBA ``[N, 4]`` in [0, 1] of the texture at ``uv [N, 2]``, one texel at a time."""
    assert material.texture is not None
    height, width = material.texture.shape[:2]
    result = np.zeros((len(uv), 4))
    for n, (u, v) in enumerate(uv):
        x, y = u * width - 0.5, v * height - 0.5
        left, top = int(np.floor(x)), int(np.floor(y))
        for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            share = (1 - abs(x - column)) * (1 - abs(y - row))
            if material.wrap == "repeat":
                texel = material.texture[row % height, column % width]
            else:
                texel = material.texture[min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
            result[n] += share * texel / 255.0
    return result


def base_colors(asset: Asset, hits: Hits) -> Floats:
    """``[N, 4]`` opaque base colour of the hits: texture or factor, times vertex colour; 0 for none.

    For textures without a factor, and vertex colours on white: products are taken nowhere.
    """
    result = np.zeros((len(hits.face), 4))
    for n in np.nonzero(hits.face >= 0)[0]:
        corners, weights = asset.faces[hits.face[n]], hits.weights[n]
        material = asset.materials[asset.face_materials[hits.face[n]]]
        rgb = np.asarray(material.base_color[:3])
        if material.texture is not None and asset.uvs is not None:
            rgb = bilinear(material, (weights @ asset.uvs[corners])[None])[0, :3]
        if asset.colors is not None:
            rgb = weights @ asset.colors[corners, :3].astype(np.float64)
        result[n] = (*rgb, 1.0)
    return result


def rays(c2w: NDArray[np.float32], fovy_deg: float, height: int, width: int) -> tuple[Floats, Floats]:
    """Origins and unit directions ``[H W, 3]`` of one camera, float64."""
    rays_o, rays_d = pixel_rays(c2w[None], fovy_deg, height, width)
    directions = rays_d.reshape(-1, 3).astype(np.float64)
    return rays_o.reshape(-1, 3).astype(np.float64), directions / np.linalg.norm(directions, axis=1, keepdims=True)
