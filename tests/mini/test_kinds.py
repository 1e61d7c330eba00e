"""Every kind of object: sound geometry, a body that shows its paint from all sides, variety, and the same each time."""

from __future__ import annotations

import numpy as np
import pytest

from threestudio_redream.assets import Asset
from threestudio_redream.assets.rasteriser import AssetRenderer
from threestudio_redream.assets.surface import position_ids
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.errors import RegistryError
from tools.mini.descriptors import COLORS, DESCRIPTORS
from tools.mini.kinds import KINDS, Kind, build, kind, load_kinds
from tools.mini.kinds._skin import Skin, flesh, leaf
from tools.mini.modelling import Ball, Egg, Flat, Maker

NAMES = list(load_kinds())
MAGENTA = Flat((1.0, 0.0, 1.0))
SIDES = np.stack([orbit_c2w(azimuth, 15.0, 1.46) for azimuth in (0.0, 90.0, 180.0, 270.0)])
#: A television and a bus are mostly glass in front; nothing shows less of its body.
LEAST_BODY, MEAN_BODY = 0.15, 0.35
PIXELS = 40


def boundary_share(asset: Asset) -> float:
    """Share of edges without a counterpart: holes, of which solids that sit in others may have some."""
    _, place = position_ids(asset.vertices)
    faces = place[asset.faces].astype(np.int64)
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    count = len(asset.vertices)
    edges, forth = np.unique(np.minimum(start, end) * count + np.maximum(start, end), return_inverse=True)
    balance = np.bincount(forth.reshape(-1), np.where(start < end, 1.0, -1.0), len(edges))
    return float(np.abs(balance).sum() / len(start))


def magenta(name: str, seed: int) -> np.ndarray:
    """Share of the picture of an object that is its body, from four sides."""
    make = Maker(MAGENTA, seed)
    load_kinds()[name].model(make)
    rgba = AssetRenderer(make.asset(name), supersample=1)(SIDES, 40.0, PIXELS, PIXELS, shading="none").rgba
    body = (rgba[..., 0] > 0.9) & (rgba[..., 1] < 0.1) & (rgba[..., 2] > 0.9)
    return body.sum(axis=(1, 2)) / (rgba[..., 3] > 0.5).sum(axis=(1, 2))


def test_the_list_of_kinds() -> None:
    assert len(NAMES) >= 40
    assert sorted(NAMES) == NAMES
    nouns = [noun for entry in KINDS.values() for noun in (entry.name, *entry.synonyms)]
    assert len(set(nouns)) == len(nouns)
    assert all(entry.tags and entry.model.__doc__ for entry in KINDS.values())
    assert 0.8 * len(NAMES) < sum(entry.front for entry in KINDS.values()) < len(NAMES)


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_every_kind_is_sound(number: int) -> None:
    name = NAMES[number]
    assets = [build(name, DESCRIPTORS[(5 * number + 3 * seed) % len(DESCRIPTORS)], seed) for seed in (1, 2)]
    for asset in assets:
        assert asset.uvs is not None
        assert asset.colors is not None
        for values in (asset.vertices, asset.normals, asset.uvs, asset.colors):
            assert np.isfinite(values).all()
        assert 500 <= len(asset.faces) <= 5000
        assert asset.faces.min() == 0
        assert asset.faces.max() == len(asset.vertices) - 1
        assert asset.face_materials.max() < len(asset.materials)
        assert 0.0 <= asset.colors.min() <= asset.colors.max() <= 1.0
        assert np.linalg.norm(asset.vertices, axis=1).max() == pytest.approx(0.5, abs=1e-6)
        np.testing.assert_allclose(asset.vertices.max(axis=0) + asset.vertices.min(axis=0), 0.0, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(asset.normals, axis=1), 1.0, atol=1e-5)
        assert boundary_share(asset) < 0.04
    one, two = assets
    assert one.vertices.shape != two.vertices.shape or not np.allclose(one.vertices, two.vertices, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_the_body_shows_from_every_side(name: str) -> None:
    shares = magenta(name, 5)
    assert shares.min() > LEAST_BODY
    assert shares.mean() > MEAN_BODY


@pytest.mark.parametrize("name", ["cat", "mushroom", "television"])
def test_the_same_seed_builds_the_same_object(name: str) -> None:
    for descriptor in ("blue", "golden", "wooden"):
        one, two = build(name, descriptor, 9), build(name, descriptor, 9)
        for attribute in ("vertices", "faces", "normals", "uvs", "colors", "face_materials"):
            np.testing.assert_array_equal(getattr(one, attribute), getattr(two, attribute))
        assert [m.texture is None for m in one.materials] == [m.texture is None for m in two.materials]
    # Words and seeds each lead to a shape of their own.
    assert build(name, "blue", 9).vertices.shape != build(name, "red", 9).vertices.shape or not np.allclose(
        build(name, "blue", 9).vertices, build(name, "red", 9).vertices
    )


@pytest.mark.parametrize("descriptor", DESCRIPTORS)
def test_words_paint_the_body(descriptor: str) -> None:
    asset = build("mug", descriptor, 4)
    assert asset.name == f"{descriptor} mug"
    textured = [material for material in asset.materials if material.texture is not None]
    assert len(textured) == (descriptor not in COLORS and descriptor != "golden")
    if descriptor in COLORS:
        assert asset.colors is not None
        body = np.abs(asset.colors[:, :3] - np.asarray(COLORS[descriptor])).max(axis=1) < 0.2
        assert body.mean() > 0.3
    if textured:
        assert textured[0].texture is not None
        assert textured[0].texture.shape == (64, 64, 4)
        assert textured[0].texture[..., :3].std() > 10.0


@pytest.mark.parametrize("name", ["cat", "owl", "astronaut", "clock", "television", "telephone", "piano"])
def test_fronts_face_plus_x(name: str) -> None:
    """Convention: the dark or glassy parts by which people know the front are seen at azimuth 0, hardly at 180."""
    make = Maker(MAGENTA, 2)
    KINDS[name].model(make)
    rgba = AssetRenderer(make.asset(name), supersample=1)(SIDES, 40.0, PIXELS, PIXELS, shading="none").rgba
    accents = (rgba[..., 3] > 0.5) & ~((rgba[..., 0] > 0.9) & (rgba[..., 1] < 0.1) & (rgba[..., 2] > 0.9))
    front, _, back, _ = accents.sum(axis=(1, 2))
    assert front > 2 * back + 20


def test_faces_lie_on_the_skin() -> None:
    """``Skin.front`` finds the foremost point: on a ball of radius 1 at y = z = 0 that is x = 1."""
    skin = Skin(Ball((0, 0, 0), 1.0), Egg((0.2, 0, 0.6), (0.9, 0.5, 0.5)), smooth=0.1)
    points, normals = skin.front([0.0, 0.3, -0.3], [-0.4, 0.4, 0.4])
    np.testing.assert_allclose(skin.level(points), 0.0, atol=1e-3)
    assert (normals[:, 0] > 0.5).all()
    np.testing.assert_allclose(Skin(Ball((0, 0, 0), 1.0)).front([0.0], [0.0])[0], [(1, 0, 0)], atol=1e-3)
    body = flesh(skin.blobs, 0.1)
    assert np.abs(skin.level(body.vertices)).max() < 0.02
    patch = skin.patch(0.0, 0.5, 0.2, 0.2, 0.03)
    assert skin.level(patch.vertices).max() == pytest.approx(0.03, abs=0.01)
    ear = leaf(0.3, 0.6, 0.1)
    np.testing.assert_allclose(ear.high, (0.05, 0.15, 0.6), atol=0.02)


def test_named_errors() -> None:
    with pytest.raises(RegistryError) as caught:
        build("unicorn", "red", 1)
    assert "no such kind" in caught.value.problem
    assert caught.value.received == "unicorn"
    assert "cat" in caught.value.fix
    with pytest.raises(RegistryError) as caught:
        build("cat", "invisible", 1)
    assert "no such descriptor" in caught.value.problem
    assert caught.value.received == "invisible"
    assert "golden" in caught.value.fix
    before = KINDS["cat"]
    with pytest.raises(RegistryError) as caught:
        kind("cat", front=True, tags=("animal",))(lambda make: None)
    assert "same kind" in caught.value.problem
    assert caught.value.received == "cat"
    assert "another name" in caught.value.fix
    assert KINDS["cat"] is before
    assert isinstance(before, Kind)
