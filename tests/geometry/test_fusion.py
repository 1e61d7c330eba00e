"""Several assets as one, and the colours that it is painted with."""

import numpy as np
import pytest
from numpy.linalg import norm

from threestudio_redream.assets import Asset, Material, normalise, sample_asset
from threestudio_redream.assets.rasteriser import render_asset
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.errors import AssetError, ConfigError, EmptySceneError
from threestudio_redream.geometry.fusion import fuse
from threestudio_redream.geometry.surface_colours import sample_surface
from threestudio_redream.meshing import is_watertight, silhouette_iou

RED, BLUE = (0.8, 0.1, 0.1, 1.0), (0.1, 0.1, 0.8, 1.0)


def painted(vertices, faces, colour=(1.0, 1.0, 1.0, 1.0), **material):
    vertices, faces = np.asarray(vertices, np.float32), np.asarray(faces, np.int32)
    up = np.tile(np.array([0.0, 0.0, 1.0], np.float32), (len(vertices), 1))
    materials = (Material(base_color=colour, **material),)
    return Asset("mesh", vertices, faces, up, None, None, np.zeros(len(faces), np.int32), materials)


def ball(radius, colour=RED, centre=(0.0, 0.0, 0.0)):
    import trimesh

    made = trimesh.creation.icosphere(3, radius)
    return painted(made.vertices + np.asarray(centre), made.faces, colour)


def masks(asset):
    c2w = orbit_c2w([0, 45, 90, 200, 300], [10, 30, -10, 50, 5], [1.5] * 5)
    return render_asset(asset, c2w, 45.0, 64, 64, supersample=2).mask[..., 0]


def test_identical_assets_keep_their_silhouette_and_their_colours():
    asset = normalise(sample_asset())
    fused = fuse([asset, asset], resolution=96)
    assert silhouette_iou(masks(fused), masks(asset)) > 0.95
    assert is_watertight(fused.faces)
    cameras = orbit_c2w([0, 90, 180], [10] * 3, [1.5] * 3)
    seen, wanted = (render_asset(each, cameras, 40.0, 64, 64).over(0.6) for each in (fused, asset))
    assert np.abs(seen - wanted).mean() < 0.03


def test_two_spheres_meet_half_way_and_votes_can_weigh():
    small, large = ball(0.3), ball(0.5)
    radii = norm(fuse([small, large], resolution=64).vertices, axis=1)
    assert radii.min() > 0.38
    assert radii.max() < 0.42
    heavier = norm(fuse([small, large], [3.0, 1.0], resolution=64).vertices, axis=1).mean()
    assert 0.29 < heavier < 0.38


def test_the_majority_decides():
    lonely = ball(0.15, centre=(0.0, 0.0, 0.35))
    fused = fuse([ball(0.25), ball(0.25), lonely], resolution=64)
    assert fused.vertices[:, 2].max() < 0.28
    assert norm(fused.vertices, axis=1).mean() == pytest.approx(0.25, abs=0.01)


def test_colours_are_those_of_the_first_asset_close_by():
    near, far = ball(0.4, RED), ball(0.43, BLUE)
    colours = fuse([near, far], resolution=48).colors[:, :3]
    assert np.abs(colours - RED[:3]).max() < 0.01
    # The first is on the left and reaches no further than the middle; what the others vote for is the second's colour.
    left, both = ball(0.2, RED, (0.0, -0.3, 0.0)), ball(0.2, BLUE, (0.0, 0.3, 0.0))
    fused = fuse([left, both, both], resolution=48)
    assert fused.vertices[:, 1].min() > 0.0
    assert np.abs(fused.colors[:, :3] - BLUE[:3]).max() < 0.01


def test_what_encloses_nothing_in_common_is_named():
    sheet = painted([[0, -0.4, -0.3], [0, 0.4, -0.3], [0, 0.4, 0.3], [0, -0.4, 0.3]], [[0, 1, 2], [0, 2, 3]])
    with pytest.raises(EmptySceneError, match="fusion: none"):
        fuse([sheet, sheet], resolution=32)
    with pytest.raises(ConfigError, match="positive weight"):
        fuse([ball(0.3)], [0.0])
    with pytest.raises(ConfigError, match="positive weight"):
        fuse([])


def test_surface_colours_multiply_factor_texture_and_vertex_colour_in_linear_light():
    corners = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    faces = [[0, 1, 2], [0, 2, 3]]
    texture = np.zeros((2, 2, 4), np.uint8)
    texture[...] = [[[128] * 3 + [255], [0, 255, 0, 255]], [[0, 0, 255, 255], [255] * 4]]
    asset = painted(corners, faces, (0.5, 0.5, 0.5, 1.0), texture=texture, wrap="clamp")
    # uv (0, 0) is the top left texel; v points down, and here y is v.
    asset = Asset(**{**vars(asset), "uvs": asset.vertices[:, :2].copy()})
    points, colours = sample_surface(asset, 4000)
    assert np.abs(points[:, 2]).max() == 0.0
    assert points[:, :2].mean(0) == pytest.approx([0.5, 0.5], abs=0.02)
    for column, row, wanted in ((0, 0, [0.2370] * 3), (1, 0, [0, 0.5, 0]), (0, 1, [0, 0, 0.5]), (1, 1, [0.5] * 3)):
        mine = (points[:, 0] > 0.5) == bool(column)
        mine &= (points[:, 1] > 0.5) == bool(row)
        assert mine.sum() > 900
        assert np.abs(colours[mine] - wanted).max() < 2e-3
    shades = np.array([[0, 0, 0, 1], [1, 0, 0, 1], [1, 0, 0, 1], [0, 0, 0, 1]], np.float32)
    plain = Asset(**{**vars(painted(corners, faces)), "colors": shades})
    points, colours = sample_surface(plain, 2000)
    assert np.corrcoef(points[:, 0], colours[:, 0])[0, 1] > 0.99
    assert np.abs(colours[:, 1:]).max() < 1e-9


def test_transparent_places_have_no_colour():
    texture = np.full((1, 2, 4), 255, np.uint8)
    texture[0, 0, 3] = 0
    asset = painted([[0, 0, 0], [1, 0, 0], [1, 1, 0]], [[0, 1, 2]], texture=texture, alpha_mode="MASK", wrap="clamp")
    asset = Asset(**{**vars(asset), "uvs": asset.vertices[:, :2].copy()})
    points, _ = sample_surface(asset, 1000)
    assert 0 < len(points) < 1000
    assert points[:, 0].min() >= 0.5
    with pytest.raises(AssetError, match="no surface"):
        sample_surface(painted([[0, 0, 0], [1, 0, 0], [2, 0, 0]], [[0, 1, 2]]), 10)
