"""The generated robot."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from threestudio_redream.assets import load_asset, normalise, sample_asset, write_sample


def test_size_and_validity() -> None:
    asset = sample_asset()
    assert 3_000 <= len(asset.faces) <= 10_000
    assert asset.uvs is not None
    assert asset.uvs.min() >= 0.0
    assert asset.uvs.max() <= 1.0
    np.testing.assert_allclose(np.linalg.norm(asset.normals, axis=1), 1.0, atol=1e-5)
    texture = asset.materials[0].texture
    assert texture is not None
    assert texture.shape == (512, 512, 4)
    assert asset.info["warnings"] == []


def test_it_is_the_same_every_time() -> None:
    one, two = sample_asset(), sample_asset()
    np.testing.assert_array_equal(one.vertices, two.vertices)
    np.testing.assert_array_equal(one.materials[0].texture, two.materials[0].texture)


def test_faces_look_outward_and_agree_with_the_normals() -> None:
    asset = sample_asset()
    corners = asset.vertices.astype(np.float64)[asset.faces]
    vectors = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    solid = np.linalg.norm(vectors, axis=1) > 1e-9
    assert solid.mean() > 0.9
    agreement = np.einsum("fi,fi->f", vectors, asset.normals[asset.faces].mean(axis=1))
    assert (agreement[solid] > 0.0).all()


def test_it_has_a_front_and_no_mirror_symmetry() -> None:
    """The convention: front +z with the face on it, raised hand at x > 0, antenna ball at (0.27, 1.11)."""
    asset = sample_asset()
    top = asset.vertices[asset.vertices[:, 1] > 1.06]
    np.testing.assert_allclose(top.mean(axis=0)[:2], [0.27, 1.11], atol=0.02)
    assert asset.vertices[:, 0].max() > 0.6
    assert asset.vertices[:, 0].min() > -0.6
    mirrored = np.sort(-asset.vertices[:, 0])
    assert np.abs(np.sort(asset.vertices[:, 0]) - mirrored).max() > 0.1
    canonical = normalise(asset)
    assert canonical.vertices[:, 2].max() == np.float32(canonical.vertices[:, 2].max())
    assert canonical.vertices[asset.vertices[:, 1].argmax(), 2] > 0.4  # the antenna is up


def _color_at(point: list[float]) -> np.ndarray:
    """sRGB of the surface vertex nearest to a point."""
    asset = sample_asset()
    assert asset.uvs is not None
    assert asset.materials[0].texture is not None
    nearest = np.linalg.norm(asset.vertices - np.array(point), axis=1).argmin()
    u, v = asset.uvs[nearest]
    return asset.materials[0].texture[int(v * 512), int(u * 512), :3].astype(int)


def test_texture_regions_sit_where_they_belong() -> None:
    """A vertical or horizontal flip of the coordinates would put something else there."""
    red, teal, night = np.array([214, 62, 66]), np.array([38, 148, 156]), np.array([30, 36, 52])
    assert np.abs(_color_at([0.27, 1.18, 0.0]) - red).max() < 20  # ball
    assert np.abs(_color_at([0.0, 0.3, 0.0]) - teal).max() < 40  # top of the body
    assert np.abs(_color_at([0.0, 0.62, 0.26]) - night).max() < 20  # visor


def test_texture_stays_inside_its_regions() -> None:
    """Coordinates keep two pixels from the border of their region, so filtering cannot bleed."""
    from threestudio_redream.assets.sample import _REGIONS, _rect

    area = np.zeros((512, 512), int)
    for name, (left, top, width, height) in _REGIONS.items():
        area[top : top + height, left : left + width] += 1
        u, v, w, h = (512 * value for value in _rect(name))
        assert u >= left + 2
        assert v >= top + 2
        assert u + w <= left + width - 2
        assert v + h <= top + height - 2
    assert (area == 1).all()


def test_written_sample_loads_back(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "new" / "robot.glb")
    assert [entry.name for entry in path.parent.iterdir()] == ["robot.glb"]  # no temporary file is left
    asset, original = load_asset(path), sample_asset()
    np.testing.assert_array_equal(asset.vertices, original.vertices)
    np.testing.assert_array_equal(asset.faces, original.faces)
    np.testing.assert_array_equal(asset.materials[0].texture, original.materials[0].texture)
    assert asset.materials[0].base_color == (1.0, 1.0, 1.0, 1.0)
    assert path.stat().st_size < 400_000
