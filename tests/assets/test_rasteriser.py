"""Geometry: conventions, agreement with ray casting and with the numpy reference, edges of all kinds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raster_scenes import FILL_FOV, FRONT, globe, make, noise_texture, plain_texture, soup, square
from raycast_oracle import base_colors, embree_distance, intersect, rays

from threestudio_redream.assets.rasteriser import AssetRenderer, render_asset
from threestudio_redream.assets.types import Material
from threestudio_redream.cameras import look_at, orbit_c2w

SMOOTH = plain_texture([[(10, 200, 30), (250, 40, 90)], [(60, 90, 250), (200, 220, 10)]])
CAMERAS = orbit_c2w([30.0, 200.0, 90.0], [20.0, -40.0, 85.0], [2.0, 1.5, 0.3])  # the last one inside


def iou(first, second) -> float:
    return float((first & second).sum() / max((first | second).sum(), 1))


def compare_with_rays(asset, c2w, fov, height, width):
    """Render at one sample per pixel and compare mask and depth with ray casting; returns both."""
    render = render_asset(asset, c2w, fov, height, width, supersample=1)
    origins, directions = rays(c2w, fov, height, width)
    hits = intersect(origins, directions, asset.vertices[asset.faces].astype(np.float64))
    seen, expected = render.mask[0].ravel() > 0, hits.face >= 0
    assert iou(seen, expected) >= 0.999
    both = seen & expected
    depth = render.depth[0].ravel()
    error = np.abs(depth[both] - hits.distance[both]) / hits.distance[both]
    assert error.max() <= 1e-5
    assert (depth[~seen] == 0).all()
    return render, hits, both


def test_convention_numbers():
    render = render_asset(square(side=1.0), FRONT, 40.0, 33, 33)
    assert render.rgba.shape == (1, 33, 33, 4)
    assert render.depth[0, 16, 16, 0] == pytest.approx(2.0, abs=1e-6)
    np.testing.assert_allclose(render.normal[0, 16, 16], [1, 0, 0], atol=1e-6)
    behind = render_asset(square(), orbit_c2w(180.0, 0.0, 2.0), 40.0, 33, 33)
    np.testing.assert_allclose(behind.normal[0, 16, 16], [-1, 0, 0], atol=1e-6)
    # Depth runs along the ray, not along the optical axis: the corner is farther than the centre.
    corner = render_asset(square(), FRONT, FILL_FOV, 64, 64, supersample=1).depth[0, 0, 0, 0]
    edge = 0.5 - 0.5 / 64
    assert corner == pytest.approx(np.sqrt(4 + 2 * edge**2), abs=1e-6)


def test_image_axes_and_texture_orientation():
    quarters = plain_texture([[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (255, 255, 255)]])
    texture = quarters.repeat(8, 0).repeat(8, 1)
    image = render_asset(square(Material(texture=texture)), FRONT, FILL_FOV, 16, 16).rgba[0]
    for (row, column), rgb in {(3, 3): "100", (3, 12): "010", (12, 3): "001", (12, 12): "111"}.items():
        np.testing.assert_allclose(image[row, column, :3], [float(c) for c in rgb], atol=1e-5)
    high = make([[0, 0, 0.2], [0, 0.1, 0.4], [0, -0.1, 0.4]], [[0, 1, 2]])  # above the horizon: upper half
    right = make([[0, 0.2, 0], [0, 0.4, 0.1], [0, 0.4, -0.1]], [[0, 1, 2]])  # at +y: right half
    assert render_asset(high, FRONT, 40.0, 32, 32).mask[0, 16:].max() == 0
    assert render_asset(right, FRONT, 40.0, 32, 32).mask[0, :, :16].max() == 0


def test_mask_over_and_premultiplied_colour():
    render = render_asset(square(Material(base_color=(0.8, 0.4, 0.2, 1.0)), side=0.5), FRONT, FILL_FOV, 15, 15)
    np.testing.assert_array_equal(render.mask, render.rgba[..., 3:])
    partly = (render.mask > 0.1) & (render.mask < 0.9)
    assert partly.any()
    np.testing.assert_allclose(render.rgba[..., :3], render.mask * [0.8, 0.4, 0.2], atol=1e-6)
    over = render.over([0.0, 0.5, 1.0])
    np.testing.assert_allclose(over, render.rgba[..., :3] + (1 - render.mask) * [0.0, 0.5, 1.0], atol=1e-6)
    assert over.dtype == np.float32
    assert over.shape == (1, 15, 15, 3)


def test_anti_aliased_coverage_is_the_covered_area():
    # At 16 pixels the square covers 10.4 pixels per side; 8x8 samples know that to one part in 8.
    render = render_asset(square(side=0.65), FRONT, FILL_FOV, 16, 16, supersample=8)
    assert render.mask.sum() == pytest.approx(10.4**2, rel=0.02)
    values = np.unique(np.round(render.mask * 64))
    assert len(values) > 2
    crisp = render_asset(square(side=0.65), FRONT, FILL_FOV, 16, 16, supersample=1)
    assert set(np.unique(crisp.mask)) == {0.0, 1.0}


def test_depth_and_normal_are_not_averaged_over_the_background():
    render = render_asset(square(side=0.65), FRONT, FILL_FOV, 16, 16)
    covered = render.mask[..., 0] > 0
    assert (render.depth[covered] >= 2.0 - 1e-6).all()
    np.testing.assert_allclose(np.linalg.norm(render.normal[covered], axis=-1), 1.0, atol=1e-6)
    assert (render.depth[~covered] == 0).all()
    assert (render.normal[~covered] == 0).all()


@pytest.mark.parametrize(("azimuth", "elevation", "distance"), [(30, 20, 2.0), (200, -35, 1.2), (0, 90, 1.5)])
def test_globe_against_ray_casting(azimuth, elevation, distance):
    asset = globe(10, (Material(texture=noise_texture(3, 4)),))
    c2w = orbit_c2w(azimuth, elevation, distance)
    render, hits, both = compare_with_rays(asset, c2w, 50.0, 64, 72)
    _, directions = rays(c2w, 50.0, 64, 72)
    facing = -(render.normal[0].reshape(-1, 3) * directions).sum(-1)
    assert (facing[both] >= -1e-6).all()
    # Where the texture is seen at a slant it is filtered, and rays know nothing of filters.
    magnified = both & (facing > 0.3)
    assert magnified.sum() > 0.8 * both.sum()
    colors = base_colors(asset, hits)
    np.testing.assert_allclose(render.rgba[0].reshape(-1, 4)[magnified], colors[magnified], atol=1e-4)


def test_triangle_soup_against_ray_casting():
    asset = soup(60, seed=3)
    render, hits, both = compare_with_rays(asset, CAMERAS[0], 50.0, 48, 48)
    np.testing.assert_allclose(render.rgba[0].reshape(-1, 4)[both], base_colors(asset, hits)[both], atol=1e-4)


def test_camera_inside_the_mesh():
    render, _, _ = compare_with_rays(globe(10), look_at((0.1, 0.05, 0.0), (1.0, 0.0, 0.3)), 100.0, 32, 48)
    assert (render.mask == 1.0).all()
    assert (render.depth > 0).all()


def test_triangles_across_the_eye_plane():
    floor = make([[-9, -9, -0.3], [9, -9, -0.3], [9, 9, -0.3], [-9, 9, -0.3]], [[0, 1, 2], [0, 2, 3]])
    render, _, _ = compare_with_rays(floor, look_at((0.0, 0.0, 0.0), (1.0, 0.1, -0.2)), 80.0, 40, 40)
    assert 0.5 < render.mask.mean() < 0.9
    compare_with_rays(soup(80, seed=5), look_at((0.02, 0.01, 0.03), (1.0, 0.4, 0.2)), 90.0, 32, 32)


@pytest.mark.parametrize("backend", ["auto", "numpy"])
def test_a_plane_through_the_eye_has_no_area(backend):
    floor = make([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], [[0, 1, 2], [0, 2, 3]])
    cameras = orbit_c2w(np.arange(24) * 15.0 + 7.0, 0.0, 2.0)  # the middle row of samples lies in the plane
    assert not render_asset(floor, cameras, 40.0, 15, 15, supersample=1, backend=backend).mask.any()


def test_everything_behind_the_camera_is_empty():
    render = render_asset(globe(6), look_at((2.0, 0.0, 0.0), (4.0, 0.0, 0.0)), 40.0, 16, 16)
    assert not render.rgba.any()
    assert not render.depth.any()


def test_against_embree():
    pytest.importorskip("embreex", reason="embreex is not installed")
    pytest.importorskip("trimesh.ray.ray_pyembree", reason="trimesh finds no embree")
    asset = globe(24)
    render = render_asset(asset, CAMERAS[0], 40.0, 96, 96, supersample=1)
    origins, directions = rays(CAMERAS[0], 40.0, 96, 96)
    distance = embree_distance(asset, origins, directions)
    seen, expected = render.mask[0].ravel() > 0, np.isfinite(distance)
    assert iou(seen, expected) >= 0.999
    both = seen & expected
    np.testing.assert_allclose(render.depth[0].ravel()[both], distance[both], rtol=1e-5)


def test_shared_edges_have_no_cracks_and_no_overlaps():
    rng = np.random.default_rng(1)
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9), indexing="ij"), -1)
    grid[1:-1, 1:-1] += rng.uniform(-0.08, 0.08, (7, 7, 2))
    points = grid.reshape(-1, 2)
    row, column = np.meshgrid(np.arange(8), np.arange(8), indexing="ij")
    a = (row * 9 + column).ravel()
    faces = np.concatenate([np.stack([a, a + 9, a + 1], -1), np.stack([a + 1, a + 9, a + 10], -1)])
    vertices = np.column_stack([0.1 * rng.random(len(points)), points])
    glass = Material(base_color=(1.0, 1.0, 1.0, 0.5), alpha_mode="BLEND")
    for camera in (FRONT, orbit_c2w(17.0, 9.0, 2.0)):
        solid = render_asset(make(vertices, faces), camera, 20.0, 64, 64)
        assert (solid.mask == 1.0).all()
        # Where two triangles both claimed a sample, half-transparent glass would be 0.75.
        blended = render_asset(make(vertices, faces, (glass,)), camera, 20.0, 64, 64)
        np.testing.assert_allclose(blended.mask, 0.5, atol=1e-6)


def test_diagonal_through_pixel_centres_is_drawn_once():
    glass = square(Material(base_color=(1.0, 1.0, 1.0, 0.5), alpha_mode="BLEND"))
    np.testing.assert_allclose(render_asset(glass, FRONT, FILL_FOV, 16, 16, supersample=1).mask, 0.5, atol=1e-6)


SCENES = {
    "plain": lambda: globe(8),
    "texture": lambda: globe(8, (Material(texture=noise_texture(48, 37), base_color=(0.9, 0.7, 1.0, 0.8)),)),
    "clamp": lambda: soup(40, seed=1, materials=(Material(texture=noise_texture(16, 16), wrap="clamp"),)),
    "colors": lambda: soup(40, seed=2),
    "mask": lambda: soup(40, seed=3, materials=(Material(texture=noise_texture(8, 8), alpha_mode="MASK"),)),
    "blend": lambda: soup(40, seed=4, materials=(Material(texture=noise_texture(8, 8), alpha_mode="BLEND"),)),
    "mixed": lambda: replace(
        globe(
            8,
            (
                Material(texture=noise_texture(20, 20, 1), alpha_mode="BLEND"),
                Material(base_color=(0.1, 0.9, 0.4, 1.0), double_sided=False),
                Material(base_color=(0.5, 0.2, 0.1, 0.4), alpha_mode="BLEND"),
            ),
        ),
        face_materials=(np.arange(256) % 3).astype(np.int32),
    ),
}


@pytest.mark.parametrize("shading", ["none", "headlight", "world"])
@pytest.mark.parametrize("name", list(SCENES))
def test_numpy_reference_gives_the_same_images(name, shading):
    pytest.importorskip("numba", reason="numba is not installed")
    for supersample, cull in ((1, False), (2, True)):
        images = [
            AssetRenderer(SCENES[name](), backend=backend, cull_backfaces=cull)(
                CAMERAS, [40.0, 60.0, 90.0], 14, 19, supersample=supersample, shading=shading
            )
            for backend in ("numba", "numpy")
        ]
        assert images[0].mask.max() > 0
        for field in ("rgba", "depth", "normal"):
            np.testing.assert_allclose(getattr(images[0], field), getattr(images[1], field), rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1e-6, 1e-3, 1.0, 1e4]), st.integers(1, 3))
def test_no_crash_and_same_image_for_any_soup(seed, scale, supersample):
    rng = np.random.default_rng(seed)
    corners = rng.normal(0, 1, (12, 3, 3)) * rng.choice([1e-4, 0.1, 1.0, 30.0], (12, 1, 1))
    corners[0, 1] = corners[0, 0]  # no area
    corners[1, 2] = 0.5 * (corners[1, 0] + corners[1, 1])  # no area, three distinct corners
    asset = make(corners.reshape(-1, 3) * scale, np.arange(36))
    camera = look_at(rng.normal(0, 1, 3) * scale, rng.normal(0, 1, 3) * scale)
    one, two = (
        render_asset(asset, camera, 70.0, 9, 11, supersample=supersample, backend=backend)
        for backend in ("auto", "numpy")
    )
    for field, unit in (("rgba", 1.0), ("depth", scale), ("normal", 1.0)):
        image = getattr(one, field)
        assert np.isfinite(image).all()
        np.testing.assert_allclose(image, getattr(two, field), rtol=1e-4, atol=1e-5 * unit)


def test_back_faces_are_culled_only_on_request():
    wall = square(Material(double_sided=False))
    behind = orbit_c2w(180.0, 0.0, 2.0)
    assert AssetRenderer(wall)(behind, 40.0, 8, 8).mask.max() == 1
    assert AssetRenderer(wall, cull_backfaces=True)(behind, 40.0, 8, 8).mask.max() == 0
    assert AssetRenderer(wall, cull_backfaces=True)(FRONT, 40.0, 8, 8).mask.max() == 1
    assert AssetRenderer(square(), cull_backfaces=True)(behind, 40.0, 8, 8).mask.max() == 1


def test_normals_of_either_winding_and_without_length():
    flipped = square(normals=np.tile(np.array([-1, 0, 0], np.float32), (4, 1)))
    missing = square(normals=np.zeros((4, 3), np.float32))
    for asset in (flipped, missing):
        np.testing.assert_allclose(render_asset(asset, FRONT, 40.0, 9, 9).normal[0, 4, 4], [1, 0, 0], atol=1e-6)
    # A smooth normal that points away at the silhouette is turned until it grazes.
    away = square(normals=np.tile(np.array([0.1, 0.995, 0], np.float32), (4, 1)))
    camera = orbit_c2w(-60.0, 0.0, 2.0)
    normal = render_asset(away, camera, 10.0, 9, 9).normal[0, 4, 4]
    towards = np.array([np.cos(np.pi / 3), -np.sin(np.pi / 3), 0])
    assert normal @ towards == pytest.approx(0.0, abs=1e-3)
    assert normal @ [0, 1, 0] > 0


def test_an_asset_without_faces_renders_nothing():
    empty = make(np.zeros((3, 3)), np.zeros((0, 3)))
    assert not render_asset(empty, FRONT, 40.0, 8, 8).rgba.any()
    assert not render_asset(empty, FRONT, 40.0, 8, 8, backend="numpy").rgba.any()
