"""Small assets whose renders can be worked out by hand; shared by the rasteriser tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from threestudio_redream.assets.types import Asset, Material
from threestudio_redream.cameras import orbit_c2w

PLAIN = (Material(),)
#: Looks at the origin from (2, 0, 0): image right is +y, image up is +z.
FRONT = orbit_c2w(0.0, 0.0, 2.0)
#: At this field of view the square of :func:`square` fills the image exactly.
FILL_FOV = float(np.rad2deg(2.0 * np.arctan(0.25)))


def make(vertices: Any, faces: Any, materials: Any = PLAIN, **fields: Any) -> Asset:
    """An asset with area-weighted normals unless ``normals`` is given."""
    vertices, faces = np.asarray(vertices, np.float32), np.asarray(faces, np.int32).reshape(-1, 3)
    corners = vertices[faces].astype(np.float64)
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros(vertices.shape)
    for k in range(3):
        np.add.at(normals, faces[:, k], flat)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    defaults: dict[str, Any] = {
        "normals": normals.astype(np.float32),
        "uvs": None,
        "colors": None,
        "face_materials": np.zeros(len(faces), np.int32),
    }
    return Asset(name="test", vertices=vertices, faces=faces, materials=tuple(materials), **(defaults | fields))


def square(material: Material | None = None, x: float = 0.0, side: float = 1.0, **fields: Any) -> Asset:
    """A square in the plane ``x``, facing +x; its texture is upright for a camera in front."""
    h = 0.5 * side
    vertices = [[x, -h, h], [x, h, h], [x, h, -h], [x, -h, -h]]
    uvs = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    return make(vertices, [[0, 2, 1], [0, 3, 2]], (material or Material(),), **({"uvs": uvs} | fields))


def stack(*assets: Asset) -> Asset:
    """Several assets as one; all must have uvs, none vertex colours."""
    faces, owners, materials = [], [], []
    vertex_count = 0
    for asset in assets:
        faces.append(asset.faces + vertex_count)
        owners.append(asset.face_materials + len(materials))
        materials += asset.materials
        vertex_count += len(asset.vertices)
    return replace(
        assets[0],
        vertices=np.concatenate([asset.vertices for asset in assets]),
        normals=np.concatenate([asset.normals for asset in assets]),
        uvs=np.concatenate([asset.uvs for asset in assets]),
        faces=np.concatenate(faces).astype(np.int32),
        face_materials=np.concatenate(owners).astype(np.int32),
        materials=tuple(materials),
    )


def globe(rings: int = 12, materials: Any = PLAIN, **fields: Any) -> Asset:
    """A sphere of radius 0.5 with latitude-longitude uvs and smooth normals."""
    polar, around = np.meshgrid(
        np.linspace(0, np.pi, rings + 1), np.linspace(0, 2 * np.pi, 2 * rings + 1), indexing="ij"
    )
    unit = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], -1).reshape(-1, 3)
    uvs = np.stack([around / (2 * np.pi), polar / np.pi], -1).reshape(-1, 2)
    row, column = np.meshgrid(np.arange(rings), np.arange(2 * rings), indexing="ij")
    a = (row * (2 * rings + 1) + column).ravel()
    c = a + 2 * rings + 1
    faces = np.concatenate([np.stack([a, c, a + 1], -1), np.stack([a + 1, c, c + 1], -1)])
    smooth = {"normals": unit.astype(np.float32), "uvs": uvs.astype(np.float32)}
    return make(0.5 * unit, faces, materials, **(smooth | fields))


def soup(count: int, seed: int = 0, **fields: Any) -> Asset:
    """Triangles in all sizes and directions inside the unit cube, with uvs and vertex colours."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-0.5, 0.5, (count, 1, 3)) + rng.normal(0, 0.15, (count, 3, 3))
    random = {
        "uvs": rng.uniform(-1, 2, (3 * count, 2)).astype(np.float32),
        "colors": rng.random((3 * count, 4)).astype(np.float32),
    }
    return make(corners.reshape(-1, 3), np.arange(3 * count), **(random | fields))


def noise_texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 4)).astype(np.uint8)


def plain_texture(rows: Any) -> np.ndarray:
    """``[H, W, 4]`` uint8 from rows of RGB or RGBA tuples in 0..255."""
    array = np.asarray(rows, np.uint8)
    if array.shape[2] == 3:
        array = np.concatenate([array, np.full((*array.shape[:2], 1), 255, np.uint8)], -1)
    return array
