import numpy as np
import pytest
from scipy.spatial import cKDTree

from threestudio_redream.errors import ConfigError, EmptySceneError
from threestudio_redream.meshing import (
    clean,
    fill_voids,
    gradient_normal_fn,
    is_watertight,
    marching_cubes,
    sample_grid,
    signed_volume,
    vertex_normals,
    with_normals,
)
from threestudio_redream.meshing.topology import face_components
from threestudio_redream.meshing.types import Mesh

VOLUME = {"sphere": 4 / 3 * np.pi * 0.5**3, "torus": 2 * np.pi**2 * 0.55 * 0.22**2, "cuboid": 1.2 * 0.8 * 0.6}


def test_convention_numbers(solids):
    mesh = marching_cubes(sample_grid(solids.sphere, solids.BOX, 65), solids.BOX, 0.0)
    assert signed_volume(mesh.vertices, mesh.faces) == pytest.approx(0.5236, rel=0.01)
    np.testing.assert_allclose(mesh.vertices[mesh.vertices[:, 2].argmax()], [0, 0, 0.5], atol=0.021 * 2 / 64)


@pytest.mark.parametrize("name", ["sphere", "torus", "cuboid"])
def test_volume_orientation_and_distance_to_truth(solids, name):
    field = getattr(solids, name)
    mesh = solids.surface(field, 72)
    assert signed_volume(mesh.vertices, mesh.faces) == pytest.approx(VOLUME[name], rel=0.01)
    assert is_watertight(mesh.faces)
    index, weights = solids.surface_samples(mesh.vertices, mesh.faces, 4000)
    points = solids.interpolate(mesh.vertices, mesh.faces, index, weights)
    assert np.abs(field(points)).mean() < 1e-3  # mesh to truth: the fields are distances
    rng = np.random.default_rng(1)
    shell = rng.uniform(-1, 1, (200_000, 3))
    truth = shell[np.abs(field(shell)) < 2e-3]
    assert len(truth) > 200
    assert cKDTree(points).query(truth)[0].max() < 0.12  # truth to mesh: no part is missing
    outwards = np.einsum(
        "ij,ij->i", vertex_normals(mesh.vertices, mesh.faces), gradient_normal_fn(field, 1e-3)(mesh.vertices)
    )
    assert np.median(outwards) > 0.99


def test_box_need_not_be_cubic(solids):
    box = [[-1.0, -0.8, -0.3], [1.0, 0.9, 0.4]]
    mesh = clean(marching_cubes(sample_grid(solids.torus, box, 90), box, 0.0))
    assert signed_volume(mesh.vertices, mesh.faces) == pytest.approx(VOLUME["torus"], rel=0.01)


def test_object_that_touches_the_box_is_closed_on_it(solids):
    box = [[0.0, -1.0, -1.0], [1.0, 1.0, 1.0]]
    mesh = clean(marching_cubes(sample_grid(solids.sphere, box, 65), box, 0.0))
    assert is_watertight(mesh.faces)
    assert signed_volume(mesh.vertices, mesh.faces) == pytest.approx(VOLUME["sphere"] / 2, rel=0.01)
    assert mesh.vertices[:, 0].min() == 0.0


def test_full_grid_becomes_the_box(solids):
    mesh = clean(marching_cubes(np.ones((9, 9, 9), np.float32), solids.BOX, 0.5))
    assert is_watertight(mesh.faces)
    assert signed_volume(mesh.vertices, mesh.faces) == pytest.approx(8.0, rel=0.01)


def test_infinite_levels_are_only_very_large():
    level = np.full((9, 9, 9), -np.inf, np.float32)
    level[3:6, 3:6, 3:6] = np.inf
    mesh = marching_cubes(level, [[0, 0, 0], [8, 8, 8]], 0.0)
    assert signed_volume(mesh.vertices, mesh.faces) > 8.0


@pytest.mark.parametrize(
    ("level", "threshold", "error", "text"),
    [
        (
            np.full((4, 4, 4), 0.25),
            1.0,
            EmptySceneError,
            r"No part.*'min level': 0.25, 'max level': 0.25, 'threshold': 1.0.*Lower the threshold below 0.25",
        ),
        (np.full((4, 4, 4), np.nan), 1.0, EmptySceneError, r"holds NaN.*64 of 64 nodes.*diverged"),
        (np.zeros((4, 4)), 1.0, ConfigError, r"grid \[X, Y, Z\].*\(4, 4\).*sample_grid"),
        (np.zeros((4, 4, 4)), np.nan, ConfigError, r"must be finite.*nan.*auto"),
    ],
)
def test_errors(solids, level, threshold, error, text):
    with pytest.raises(error, match=text):
        marching_cubes(level, solids.BOX, threshold)


def test_hollows_are_filled_and_the_outside_stays_as_it_was(solids):
    def hollow(points):
        radius = np.linalg.norm(points, axis=1)
        island = 0.1 - radius
        return np.maximum(np.minimum(0.6 - radius, radius - 0.35), island)

    level = sample_grid(hollow, solids.BOX, 48)
    before = clean(marching_cubes(level, solids.BOX, 0.0), 0.0)
    after = clean(marching_cubes(fill_voids(level, 0.0), solids.BOX, 0.0), 0.0)
    assert face_components(before.faces, len(before.vertices))[0] == 3
    assert face_components(after.faces, len(after.vertices))[0] == 1
    outer = before.vertices[np.linalg.norm(before.vertices, axis=1) > 0.5]
    np.testing.assert_array_equal(np.unique(outer, axis=0), np.unique(after.vertices, axis=0))


def test_a_hollow_with_an_opening_is_left_alone(solids):
    def bowl(points):
        radius = np.linalg.norm(points, axis=1)
        return np.minimum(np.minimum(0.6 - radius, radius - 0.35), 0.3 - points[:, 2])

    level = sample_grid(bowl, solids.BOX, 32)
    assert fill_voids(level, 0.0) is level


def test_area_weighted_normals_of_a_tetrahedron(tetrahedron):
    normals = vertex_normals(tetrahedron.vertices, tetrahedron.faces)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(normals[0], -np.ones(3) / np.sqrt(3), rtol=1e-6)


def test_vertex_without_a_face_gets_plus_z():
    normals = vertex_normals(np.zeros((4, 3), np.float32), np.array([[0, 1, 2]], np.int32))
    np.testing.assert_array_equal(normals, np.tile([0, 0, 1], (4, 1)))


def test_field_normals_and_their_fallback(solids):
    mesh = solids.surface(solids.sphere, 32)
    exact = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    field = with_normals(mesh, gradient_normal_fn(solids.sphere, 0.02), chunk=100).normals
    np.testing.assert_allclose(field, exact, atol=2e-3)
    top = gradient_normal_fn(solids.sphere, 0.01)(np.float32([[0, 0, 0.5]]))
    np.testing.assert_allclose(top, [[0, 0, 1]], atol=1e-4)
    inwards = with_normals(mesh, lambda p: np.where(p[:, :1] > 0, -p, 0 * p)).normals  # wrong side, or nothing
    np.testing.assert_array_equal(inwards, vertex_normals(mesh.vertices, mesh.faces))


def test_finite_difference_step_must_be_positive(solids):
    with pytest.raises(ConfigError, match=r"must be positive.*got 0.*one grid cell"):
        gradient_normal_fn(solids.sphere, 0)


def test_normals_survive_in_mesh_type(tetrahedron):
    mesh = with_normals(tetrahedron)
    assert isinstance(mesh, Mesh)
    assert mesh.normals.shape == mesh.vertices.shape
