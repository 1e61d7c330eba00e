import numpy as np
import pytest

from threestudio_redream.errors import ConfigError, EmptySceneError
from threestudio_redream.meshing import Mesh, clean, decimate, is_watertight, marching_cubes, signed_volume, smooth
from threestudio_redream.meshing.topology import face_components


def test_floaters_go_and_the_body_stays(solids):
    def field(points):
        return np.maximum(solids.sphere(points), solids.sphere(points - np.float32([0.9, 0.9, 0.9]), 0.04))

    with_floater = solids.surface(field, 64)
    alone = solids.surface(solids.sphere, 64)
    assert len(with_floater.faces) == len(alone.faces)
    raw = marching_cubes(
        field(np.stack(np.meshgrid(*[np.linspace(-1, 1, 64)] * 3, indexing="ij"), -1).reshape(-1, 3)).reshape(
            64, 64, 64
        ),
        solids.BOX,
        0.0,
    )
    kept = clean(raw, 0.0)
    assert face_components(kept.faces, len(kept.vertices))[0] == 2


def test_soup_is_welded_and_degenerate_faces_go(tetrahedron):
    soup = tetrahedron.vertices[tetrahedron.faces].reshape(-1, 3)
    faces = np.arange(12).reshape(4, 3)
    faces = np.concatenate([faces, [[0, 0, 1]], faces[:1]])  # a face without area and a repeated one
    mesh = clean(Mesh(soup, faces, colors=soup.copy()), 0.0)
    assert mesh.vertices.shape == (4, 3)
    assert is_watertight(mesh.faces)
    assert signed_volume(mesh.vertices, mesh.faces) == pytest.approx(1 / 6)
    np.testing.assert_array_equal(mesh.colors, mesh.vertices)


def test_faces_that_look_at_each_other_cancel(tetrahedron):
    extra = np.array([[0, 1, 2], [2, 1, 0]], np.int32) + 4
    vertices = np.concatenate([tetrahedron.vertices, tetrahedron.vertices[:3] + 3.0])
    mesh = clean(Mesh(vertices, np.concatenate([tetrahedron.faces, extra]), normals=vertices), 0.0)
    assert len(mesh.faces) == 4
    assert len(mesh.vertices) == len(mesh.normals) == 4


@pytest.mark.parametrize("name", ["sphere", "torus", "cuboid"])
def test_decimation_keeps_shape_and_closedness(solids, name):
    full = solids.surface(getattr(solids, name), 96)
    small = decimate(full, 3000)
    assert 2900 <= len(small.faces) <= 3000
    assert is_watertight(small.faces)
    assert signed_volume(small.vertices, small.faces) == pytest.approx(
        signed_volume(full.vertices, full.faces), rel=0.01
    )
    assert decimate(small, 3000) is small


def test_errors(tetrahedron):
    with pytest.raises(ConfigError, match=r"must lie in \[0, 1\].*got 1.5.*floaters"):
        clean(tetrahedron, 1.5)
    with pytest.raises(ConfigError, match=r"at least 4 faces.*got 3.*Raise"):
        decimate(tetrahedron, 3)
    with pytest.raises(EmptySceneError, match=r"No face is left.*'faces': 1.*lower the threshold"):
        clean(Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]])))
    with pytest.raises(EmptySceneError, match="No face is left"):
        clean(Mesh(np.zeros((0, 3)), np.zeros((0, 3), int)))


def test_smoothing_takes_noise_off_and_keeps_the_volume():
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 48)] * 3, indexing="ij"), axis=-1)
    ball = marching_cubes((0.7 - np.linalg.norm(grid, axis=-1)).astype(np.float32), [[-1] * 3, [1] * 3], 0.0)
    noise = np.random.default_rng(0).normal(0, 0.01, ball.vertices.shape).astype(np.float32)
    rough = Mesh(ball.vertices + noise, ball.faces)
    smoothed = smooth(rough, 10)

    def roughness(mesh):
        return float(np.abs(np.linalg.norm(mesh.vertices, axis=1) - 0.7).mean())

    assert roughness(smoothed) < 0.45 * roughness(rough)
    assert signed_volume(smoothed.vertices, smoothed.faces) == pytest.approx(
        signed_volume(ball.vertices, ball.faces), rel=0.015
    )
    assert smoothed.normals is None
    assert smooth(rough, 0) is rough
    with pytest.raises(ConfigError, match="-1"):
        smooth(rough, -1)
