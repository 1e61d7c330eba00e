"""Analytic solids, a bilinear texture reader and small meshes shared by the tests of this folder."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from threestudio_redream.meshing import Mesh, TexturedMesh, clean, decimate, marching_cubes, sample_grid, with_normals

BOX = [[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]


def sphere(points, radius=0.5):
    """Level > 0 inside, in world units (minus the signed distance)."""
    return radius - np.linalg.norm(points, axis=1)


def torus(points, major=0.55, minor=0.22):
    ring = np.linalg.norm(points[:, :2], axis=1) - major
    return minor - np.hypot(ring, points[:, 2])


def cuboid(points, half=(0.6, 0.4, 0.3)):
    q = np.abs(points) - np.asarray(half, np.float32)
    return -(np.linalg.norm(np.maximum(q, 0.0), axis=1) + np.minimum(q.max(axis=1), 0.0))


def color(points):
    """A smooth sRGB colour of position, different everywhere."""
    return 0.5 + 0.4 * np.sin(4.0 * points + np.array([0.0, 1.0, 2.0], np.float32))


def surface(level_fn, resolution=64, threshold=0.0, faces=None):
    mesh = clean(marching_cubes(sample_grid(level_fn, BOX, resolution), BOX, threshold))
    return mesh if faces is None else decimate(mesh, faces)


def surface_samples(vertices, faces, count, seed=0):
    """Random points on the faces (by area): face index ``[N]`` and barycentric weights ``[N, 3]``."""
    rng = np.random.default_rng(seed)
    corners = vertices[faces].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    return rng.choice(len(faces), count, p=area / area.sum()), rng.dirichlet([1.0, 1.0, 1.0], count)


def interpolate(values, faces, index, weights):
    return np.einsum("nk,nkc->nc", weights, values[faces[index]].astype(np.float64))


def bilinear(texture, uvs):
    """GL_LINEAR with clamping, image convention; colours in [0, 1]."""
    size = len(texture)
    position = np.asarray(uvs) * size - 0.5
    low = np.floor(position).astype(int)
    share = position - low
    total = 0.0
    for dx in (0, 1):
        for dy in (0, 1):
            column, row = np.clip(low[:, 0] + dx, 0, size - 1), np.clip(low[:, 1] + dy, 0, size - 1)
            weight = (share[:, 0] if dx else 1 - share[:, 0]) * (share[:, 1] if dy else 1 - share[:, 1])
            total = total + weight[:, None] * texture[row, column] / 255.0
    return total


@pytest.fixture(scope="session")
def solids():
    """The helpers above as one namespace."""
    return SimpleNamespace(
        BOX=BOX,
        sphere=sphere,
        torus=torus,
        cuboid=cuboid,
        color=color,
        surface=surface,
        surface_samples=surface_samples,
        interpolate=interpolate,
        bilinear=bilinear,
    )


@pytest.fixture(scope="session")
def tetrahedron() -> Mesh:
    """Corners 0, x, y, z with outward faces: volume 1/6."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    return Mesh(vertices, np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32))


@pytest.fixture(scope="session")
def torus_mesh() -> Mesh:
    """About 1,500 faces with normals."""
    return with_normals(surface(torus, 48, faces=1500))


@pytest.fixture(scope="session")
def quad() -> TexturedMesh:
    """A textured unit square in the world plane x = 0, seen from +x: u runs along +y, v down along -z."""
    vertices = np.array([[0, -0.5, 0.5], [0, 0.5, 0.5], [0, 0.5, -0.5], [0, -0.5, -0.5]], np.float32)
    faces = np.array([[0, 2, 1], [0, 3, 2]], np.int32)
    uvs = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    texture = np.zeros((16, 16, 3), np.uint8)
    texture[:8, :8], texture[:8, 8:], texture[8:, :8], texture[8:, 8:] = (
        (250, 10, 10),
        (10, 250, 10),
        (10, 10, 250),
        128,
    )
    return TexturedMesh(vertices, faces, np.tile(np.float32([1, 0, 0]), (4, 1)), uvs, texture, "quad")
