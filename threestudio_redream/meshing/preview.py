"""Render a mesh in memory with the asset renderer, as its file would look after reloading."""

from __future__ import annotations

import numpy as np

from threestudio_redream.assets.types import Asset, Material
from threestudio_redream.meshing.frames import unit_normals
from threestudio_redream.meshing.types import FloatArray, Mesh, TexturedMesh

__all__ = ["as_asset", "mesh_depths", "mesh_masks"]


def as_asset(mesh: Mesh | TexturedMesh) -> Asset:
    """``mesh`` as an :class:`~threestudio_redream.assets.Asset` in the world frame, without a copy of its arrays."""
    texture, uvs, colors = None, None, None
    if isinstance(mesh, TexturedMesh):
        texture = np.concatenate([mesh.texture, np.full((*mesh.texture.shape[:2], 1), 255, np.uint8)], axis=2)
        uvs = mesh.uvs
    elif mesh.colors is not None:
        colors = np.concatenate([mesh.colors, np.ones((len(mesh.vertices), 1), np.float32)], axis=1)
    return Asset(
        name=getattr(mesh, "name", "mesh"),
        vertices=mesh.vertices,
        faces=mesh.faces,
        normals=unit_normals(mesh),
        uvs=uvs,
        colors=colors,
        face_materials=np.zeros(len(mesh.faces), np.int32),
        materials=(Material(texture=texture, wrap="clamp"),),
    )


def mesh_masks(mesh: Mesh, c2w: FloatArray, fovy_deg: float, height: int, width: int) -> FloatArray:
    """Anti-aliased silhouettes of ``mesh``, ``[B, H, W]`` in [0, 1], row 0 at the top."""
    from threestudio_redream.assets.rasteriser import AssetRenderer

    renderer = AssetRenderer(as_asset(mesh), supersample=2)
    return renderer(c2w, fovy_deg, height, width).mask[..., 0]


def mesh_depths(mesh: Mesh, c2w: FloatArray, fovy_deg: float, height: int, width: int) -> FloatArray:
    """Distance of ``mesh`` along the ray of each pixel centre, ``[B, H, W]`` world units, 0 where it is not hit."""
    from threestudio_redream.assets.rasteriser import AssetRenderer

    renderer = AssetRenderer(as_asset(mesh), supersample=1)
    return renderer(c2w, fovy_deg, height, width).depth[..., 0]
