"""The inside of an asset, against solid angles and by hand."""

from dataclasses import replace

import numpy as np
import pytest

from threestudio_redream.assets import Asset, Material, normalise, sample_asset
from threestudio_redream.errors import ConfigError
from threestudio_redream.geometry import asset_volume as module
from threestudio_redream.geometry.asset_volume import asset_volume


def mesh(vertices, faces):
    vertices, faces = np.asarray(vertices, np.float32), np.asarray(faces, np.int32)
    flat = np.tile(np.array([0.0, 0.0, 1.0], np.float32), (len(vertices), 1))
    return Asset("mesh", vertices, faces, flat, None, None, np.zeros(len(faces), np.int32), (Material(),))


def ball(radius=0.4, centre=(0.0, 0.0, 0.0), subdivisions=3):
    import trimesh

    made = trimesh.creation.icosphere(subdivisions, radius)
    return mesh(made.vertices + np.asarray(centre), made.faces)


def turned(asset, which):
    faces = asset.faces.copy()
    faces[which] = faces[which][:, ::-1]
    return replace(asset, faces=faces)


def winding_numbers(asset, points):
    """Generalised winding numbers as sums of solid angles (van Oosterom & Strackee, 1983)."""
    a, b, c = (asset.vertices.astype(np.float64)[asset.faces[:, i]] - points[:, None] for i in range(3))
    la, lb, lc = (np.linalg.norm(v, axis=-1) for v in (a, b, c))
    below = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    return np.arctan2((a * np.cross(b, c)).sum(-1), below).sum(-1) / (2.0 * np.pi)


def some_nodes(volume, count, seed=0):
    """Random nodes as indices ``[count, 3]``, and where they are."""
    index = np.random.default_rng(seed).integers(0, len(volume.occupancy), (count, 3))
    return tuple(index.T), -volume.radius + index * volume.cell


def test_a_ball_is_full_and_far_from_its_surface_in_the_middle():
    for asset in (ball(), turned(ball(), slice(None))):
        volume = asset_volume(asset, 48)
        assert volume.oriented
        at = [round((x + volume.radius) / volume.cell) for x in (0.3, 0.0, 0.0)]
        assert volume.occupancy[tuple(at)] == 1.0
        assert volume.distance[tuple(at)] == pytest.approx(0.1, abs=1.5 * volume.cell)  # the node is half a cell off
        index, points = some_nodes(volume, 2000)
        away = np.linalg.norm(points, axis=1) - 0.4
        sure = np.abs(away) > volume.cell
        assert np.array_equal(volume.occupancy[index][sure], (away < 0)[sure].astype(np.float32))
        assert np.abs(volume.distance[index] - np.abs(away)).max() < 1.2 * volume.cell
    assert 0.4 < volume.radius < 0.5


def test_it_is_the_solid_that_winding_numbers_say_also_where_parts_overlap():
    first, second = ball(0.3, (0.1, 0.0, 0.0)), ball(0.3, (-0.1, 0.05, 0.0))
    faces = np.concatenate([first.faces, second.faces + len(first.vertices)])
    pair = mesh(np.concatenate([first.vertices, second.vertices]), faces)
    for asset, largest in ((normalise(sample_asset()), 1), (pair, 2)):
        volume = asset_volume(asset, 40)
        assert volume.oriented
        index, points = some_nodes(volume, 300)
        wanted = winding_numbers(asset, points)
        assert round(wanted.max()) == largest
        assert ((volume.occupancy[index] > 0.5) == (wanted > 0.5)).all()


def test_a_mesh_with_a_hole_is_nearly_what_winding_numbers_say():
    whole = ball(subdivisions=3)
    open_top = replace(whole, faces=whole.faces[whole.vertices[whole.faces].mean(1)[:, 2] < 0.25])
    open_top = replace(open_top, face_materials=np.zeros(len(open_top.faces), np.int32))
    volume = asset_volume(open_top, 40)
    assert volume.oriented
    index, points = some_nodes(volume, 1500)
    wanted = winding_numbers(open_top, points)
    assert ((volume.occupancy[index] > 0.5) == (wanted > 0.5)).mean() > 0.97
    assert np.abs(volume.occupancy[index] - np.clip(wanted, 0, 1)).mean() < 0.05


def test_without_a_consistent_orientation_inside_is_what_cannot_be_seen():
    asset = normalise(sample_asset())
    mixed = turned(asset, np.random.default_rng(0).random(len(asset.faces)) < 0.5)
    right, volume = asset_volume(asset, 40), asset_volume(mixed, 40)
    assert not volume.oriented
    inside, told = right.occupancy > 0.5, volume.occupancy > 0.5
    assert (inside & told).sum() / (inside | told).sum() > 0.9


def test_a_sheet_has_no_inside_but_a_surface():
    sheet = mesh([[0, -0.4, -0.3], [0, 0.4, -0.3], [0, 0.4, 0.3], [0, -0.4, 0.3]], [[0, 1, 2], [0, 2, 3]])
    volume = asset_volume(sheet, 33, radius=0.5)
    assert volume.occupancy.max() < 0.5
    assert volume.distance[16, 16, 16] == 0.0
    assert volume.distance[0, 16, 16] == pytest.approx(0.5, abs=1.1 * volume.cell)


def test_portions_do_not_matter(monkeypatch):
    asset = ball()
    whole = asset_volume(asset, 24)
    monkeypatch.setattr(module, "_PAIRS", 7)
    parts = asset_volume(asset, 24)
    assert np.array_equal(whole.occupancy, parts.occupancy)
    assert np.array_equal(whole.surface, parts.surface)


@pytest.mark.parametrize("resolution", [7, 513])
def test_a_bad_resolution_is_named(resolution):
    with pytest.raises(ConfigError, match=str(resolution)):
        asset_volume(ball(), resolution)
