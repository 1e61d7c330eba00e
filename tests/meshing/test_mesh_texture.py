"""Charts, UV rasterisation and baking."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threestudio_redream.errors import ConfigError, EmptySceneError, RedreamError
from threestudio_redream.meshing import Mesh, bake, unwrap, with_normals
from threestudio_redream.meshing.uv_raster import rasterise_uv, rasterise_uv_reference

SIZE = 256


def coverage(uvs, faces, size):
    """How many faces strictly contain each texel centre: an independent, slow count."""
    count = np.zeros((size, size), int)
    for triangle in uvs[faces].astype(np.float64) * size:
        low = np.maximum(np.floor(triangle.min(axis=0)).astype(int), 0)
        high = np.minimum(np.ceil(triangle.max(axis=0)).astype(int), size)
        y, x = np.mgrid[low[1] : high[1], low[0] : high[0]] + 0.5
        sides = []
        for k in range(3):
            (ax, ay), (bx, by) = triangle[k], triangle[(k + 1) % 3]
            sides.append((bx - ax) * (y - ay) - (by - ay) * (x - ax))
        sides = np.stack(sides)
        count[low[1] : high[1], low[0] : high[0]] += (sides > 1e-3).all(axis=0) | (sides < -1e-3).all(axis=0)
    return count


@pytest.fixture(scope="module")
def unwrapped(torus_mesh):
    return unwrap(torus_mesh, SIZE)


def test_charts_lie_in_the_texture_and_do_not_overlap(unwrapped):
    mesh, uvs, n_charts, fill = unwrapped
    assert uvs.shape == (len(mesh.vertices), 2)
    assert uvs.min() >= 0.0
    assert uvs.max() <= 1.0
    count = coverage(uvs, mesh.faces, SIZE)
    assert count.max() == 1
    assert fill == pytest.approx((count > 0).mean(), abs=0.05)
    assert fill > 0.3
    assert n_charts > 1


@pytest.mark.parametrize("size", [48, 100, 512])
def test_charts_fit_any_texture_size(torus_mesh, size):
    mesh, uvs, _, _ = unwrap(torus_mesh, size, padding=1)
    assert uvs.max() <= 1.0
    assert uvs.max() > 0.8  # and use it
    assert coverage(uvs, mesh.faces, size).max() <= 1


def test_charts_keep_their_distance(unwrapped):
    """Texels of two charts never touch: a bilinear look-up in one chart reads no texel inside another."""
    from scipy.ndimage import label
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    mesh, uvs = unwrapped.mesh, unwrapped.uvs
    edges = mesh.faces[:, [0, 1, 1, 2]].reshape(-1, 2)
    graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(len(uvs), len(uvs)))
    chart = connected_components(graph, directed=False)[1][mesh.faces[:, 0]]
    face = rasterise_uv(uvs, mesh.faces, SIZE, margin=0.0).face
    blobs, count = label(face >= 0, np.ones((3, 3)))
    for blob in range(1, count + 1):
        assert len(np.unique(chart[face[blobs == blob]])) == 1


def test_split_vertices_share_position_and_normal(torus_mesh, unwrapped):
    mesh = unwrapped.mesh
    np.testing.assert_array_equal(mesh.vertices[mesh.faces], torus_mesh.vertices[torus_mesh.faces])
    np.testing.assert_array_equal(mesh.normals[mesh.faces], torus_mesh.normals[torus_mesh.faces])
    assert len(mesh.vertices) > len(torus_mesh.vertices)
    _, place = np.unique(mesh.vertices, axis=0, return_inverse=True)
    place = place.ravel()
    first = np.zeros(place.max() + 1, int)
    first[place[::-1]] = np.arange(len(place))[::-1]
    np.testing.assert_array_equal(mesh.normals, mesh.normals[first[place]])


def test_unwrap_makes_normals_before_cutting(torus_mesh):
    bare = Mesh(torus_mesh.vertices, torus_mesh.faces, colors=np.abs(torus_mesh.vertices))
    mesh = unwrap(bare, 64, 1).mesh
    np.testing.assert_array_equal(mesh.normals[mesh.faces], with_normals(bare).normals[bare.faces])
    np.testing.assert_array_equal(mesh.colors, np.abs(mesh.vertices))


def test_faces_without_area_stay_next_to_their_neighbours(tetrahedron):
    """A vertex on an edge that only one side knows: the needle between them has no area and no chart."""
    vertices = np.concatenate([tetrahedron.vertices, [[0.5, 0.5, 0.0]]])
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 4, 3], [4, 2, 3], [1, 2, 4]])
    result = unwrap(Mesh(vertices, faces), 64)
    np.testing.assert_array_equal(result.mesh.vertices[result.mesh.faces], vertices.astype(np.float32)[faces])
    needle = result.uvs[result.mesh.faces[5]]
    others = result.uvs[result.mesh.faces[:5]].reshape(-1, 2)
    assert np.abs(needle - needle[0]).max() < 0.3
    assert np.linalg.norm(others - needle[0], axis=1).min() < 1e-6


def test_unwrap_errors(torus_mesh, tetrahedron):
    with pytest.raises(ConfigError, match=r"between 16 and 8192.*got 8.*1024"):
        unwrap(torus_mesh, 8)
    with pytest.raises(ConfigError, match=r"padding must lie between 0 and 8.*got 9.*Try 2"):
        unwrap(torus_mesh, 64, 9)
    with pytest.raises(EmptySceneError, match=r"without surface.*1 faces.*threshold"):
        unwrap(Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]])))
    many = np.concatenate([tetrahedron.vertices + np.float32([2 * k, 0, 0]) for k in range(300)])
    faces = np.concatenate([tetrahedron.faces + 4 * k for k in range(300)])
    with pytest.raises(RedreamError, match=r"do not fit a texture of 16.*'faces': 1200.*Raise texture_size"):
        unwrap(Mesh(many, faces), 16, 2)


def test_texel_convention():
    uvs = np.float32([[0.0, 0.5], [0.25, 0.5], [0.25, 0.75], [0.0, 0.75]])
    raster = rasterise_uv(uvs, np.array([[0, 1, 2], [0, 2, 3]]), 4, margin=0.0)
    assert np.argwhere(raster.face >= 0).tolist() == [[2, 0]]


def test_rasteriser_weights_give_back_the_texel_centre(unwrapped):
    mesh, uvs = unwrapped.mesh, unwrapped.uvs
    raster = rasterise_uv(uvs, mesh.faces, SIZE)
    rows, columns = np.nonzero(raster.distance == 0)
    weights = raster.weights[rows, columns]
    weights = np.concatenate([1 - weights.sum(1, keepdims=True), weights], axis=1)
    pixel = np.einsum("nk,nkc->nc", weights, uvs[mesh.faces[raster.face[rows, columns]]]) * SIZE
    np.testing.assert_allclose(pixel, np.stack([columns, rows], 1) + 0.5, atol=1e-3)
    np.testing.assert_array_equal(raster.distance == 0, coverage_or_edge(uvs, mesh.faces))


def coverage_or_edge(uvs, faces):
    return rasterise_uv_reference(uvs, faces, SIZE).distance == 0


def test_kernel_equals_reference(unwrapped, monkeypatch):
    mesh, uvs = unwrapped.mesh, unwrapped.uvs
    fast, slow = rasterise_uv(uvs, mesh.faces, 96), rasterise_uv_reference(uvs, mesh.faces, 96)
    np.testing.assert_array_equal(fast.face, slow.face)
    np.testing.assert_allclose(fast.distance, slow.distance, atol=1e-6)
    np.testing.assert_allclose(fast.weights, slow.weights, atol=1e-6)
    monkeypatch.setenv("REDREAM_KERNELS", "torch")  # numba switched off
    np.testing.assert_array_equal(rasterise_uv(uvs, mesh.faces, 96).face, slow.face)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-0.5, 1.5), min_size=12, max_size=12), st.sampled_from([0.0, 0.7, 1.5]))
def test_kernel_equals_reference_on_any_triangles(numbers, margin):
    uvs = np.round(np.array(numbers).reshape(6, 2) * 64) / 64  # exact ties, slivers and points included
    faces = np.array([[0, 1, 2], [3, 4, 5], [0, 0, 4]])
    fast, slow = rasterise_uv(uvs, faces, 16, margin), rasterise_uv_reference(uvs, faces, 16, margin)
    np.testing.assert_allclose(fast.distance, slow.distance, atol=1e-6)
    assert ((fast.face >= 0) == (slow.face >= 0)).all()
    assert (np.isfinite(fast.distance) == (fast.face >= 0)).all()
    assert fast.weights.min() >= 0.0
    assert fast.weights.sum(-1).max() <= 1.0 + 1e-6


@pytest.mark.parametrize("supersample", [1, 2])
def test_baked_colour_at_surface_points(solids, unwrapped, supersample):
    mesh, uvs = unwrapped.mesh, unwrapped.uvs
    texture = bake(mesh, uvs, solids.color, SIZE, supersample=supersample, chunk=10_000)
    assert texture.shape == (SIZE, SIZE, 3)
    assert texture.dtype == np.uint8
    index, weights = solids.surface_samples(mesh.vertices, mesh.faces, 20_000)
    points = solids.interpolate(mesh.vertices, mesh.faces, index, weights)
    seen = solids.bilinear(texture, solids.interpolate(uvs, mesh.faces, index, weights))
    error = np.abs(seen - solids.color(points)) * 255.0
    assert error.mean() < 1.0
    assert error.max() < 12.0  # chart borders included


def test_field_is_asked_only_on_the_surface_and_in_chunks(solids, unwrapped):
    sizes, seen = [], []

    def color(points):
        sizes.append(len(points))
        assert np.abs(solids.torus(points)).max() < 0.02
        return solids.color(points)

    bake(unwrapped.mesh, unwrapped.uvs, color, SIZE, chunk=5000, progress=seen.append)
    assert max(sizes) == 5000
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_unused_texels_copy_their_neighbours():
    triangle = Mesh(np.eye(3), np.array([[0, 1, 2]]))
    uvs = np.float32([[0.1, 0.1], [0.3, 0.1], [0.1, 0.3]])
    texture = bake(triangle, uvs, lambda p: np.tile([1.0, 0.5, -3.0], (len(p), 1)), 64)
    assert (texture == [255, 128, 0]).all()


def test_bake_of_a_full_texture_follows_v_downwards(quad):
    plain = Mesh(quad.vertices, quad.faces)
    texture = bake(plain, quad.uvs, lambda p: np.stack([0.5 + p[:, 1], 0.5 + p[:, 2], 0 * p[:, 0]], axis=1), 16)
    expected = np.round((np.arange(16) + 0.5) / 16 * 255)
    np.testing.assert_allclose(texture[3, :, 0], expected, atol=1)  # u runs along +y
    np.testing.assert_allclose(texture[:, 5, 1], expected[::-1], atol=1)  # v runs down, along -z


def test_bake_fills_a_face_smaller_than_a_texel():
    triangle = Mesh(np.eye(3), np.array([[0, 1, 2]]))
    uvs = np.float32([[0.5, 0.5], [0.501, 0.5], [0.5, 0.501]])
    assert (bake(triangle, uvs, np.ones_like, 16) == 255).all()


def test_bake_errors(solids, unwrapped):
    mesh, uvs = unwrapped.mesh, unwrapped.uvs
    with pytest.raises(ConfigError, match=r"supersample.*got 5"):
        bake(mesh, uvs, solids.color, SIZE, supersample=5)
    with pytest.raises(EmptySceneError, match=r"No texel.*'texture_size': 64.*unwrap"):
        bake(mesh, uvs + 9.0, solids.color, 64)
    with pytest.raises(EmptySceneError, match=r"colour field holds NaN.*diverged"):
        bake(mesh, uvs, lambda p: p * np.nan, 64)
    with pytest.raises(ConfigError, match=r"colour function must return the shape"):
        bake(mesh, uvs, lambda p: p[:, 0], 64)
