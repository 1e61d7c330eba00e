"""The modelling kit: solids are closed and face outward, normals break at creases, paint lands where it should."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from threestudio_redream.errors import ConfigError, EmptySceneError
from tools.mini.modelling import (
    Ball,
    Bone,
    Egg,
    Flat,
    Gradient,
    Maker,
    Metal,
    Picture,
    Solid,
    Texture,
    blend,
    box,
    cone,
    cylinder,
    disc,
    ellipsoid,
    extrude,
    join,
    loft,
    pair,
    plate,
    revolve,
    sweep,
    torus,
)
from tools.mini.modelling.normals import creased
from tools.mini.modelling.paint import shade

RED, BLUE = (0.8, 0.1, 0.1), (0.1, 0.2, 0.8)
STAR = [(0.5 * r * np.sin(a), 0.5 * r * np.cos(a)) for a, r in zip(np.arange(10) * np.pi / 5, [1.0, 0.4] * 5)]
STAR_AREA = 5 * 0.5 * 0.2 * np.sin(np.pi / 5)


def volume(solid: Solid) -> float:
    """Signed: negative if the faces look inward."""
    a, b, c = (solid.vertices[solid.faces[:, i]] for i in range(3))
    return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6.0)


def open_edges(solid: Solid) -> int:
    """Edges without a counterpart in the other direction, after vertices at one place are merged."""
    _, place = np.unique(np.round(solid.vertices, 9), axis=0, return_inverse=True)
    faces = place.reshape(-1)[solid.faces]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    edges = Counter(map(tuple, np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).tolist()))
    return sum(count != edges[b, a] for (a, b), count in edges.items())


def maker(body: Flat | Texture | None = None) -> Maker:
    return Maker(body or Flat(RED), 0)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: box(1.0, 2.0, 3.0), 6.0),
        (lambda: box(1.0, 1.0, 1.0, 0.5, steps=8), 4.0 / 3.0 * np.pi * 0.125),  # all bevel: a ball
        (lambda: box(1.0, 2.0, 3.0, 0.1), 5.9),
        (lambda: ellipsoid(0.5, 1.0, 1.5, segments=48), 4.0 / 3.0 * np.pi * 0.75),
        (lambda: cylinder(0.5, 2.0, segments=48), 0.5 * np.pi),
        (lambda: cylinder(0.5, 2.0, 0.1, segments=48), 0.5 * np.pi - 0.025),
        (lambda: disc(0.5, 2.0, segments=48), 0.5 * np.pi),
        (lambda: cone(0.5, 1.2, segments=48), 0.1 * np.pi),
        (lambda: cone(0.5, 1.2, 0.25, segments=48), 0.175 * np.pi),
        (lambda: torus(1.0, 0.2, segments=48, sides=24), 2.0 * np.pi**2 * 0.04),
        (lambda: sweep([(0, 0, 0), (0, 0, 1.0), (0, 0, 2.0)], 0.2, sides=32), 0.08 * np.pi + 0.0335),
        (lambda: sweep([(0, 0, 0), (0, 0, 2.0)], 0.2, sides=32, flat=0.5), 0.04 * np.pi + 0.0168),
        (lambda: extrude(STAR, 0.3), 0.3 * STAR_AREA),
        (lambda: extrude(STAR[::-1], 0.3), 0.3 * STAR_AREA),
        (lambda: extrude([(0, 0), (1, 0), (1, 1), (0, 1)], 0.4, 0.05), 0.4 - 0.0097),
        (lambda: loft([[(0, 0, z), (1, 0, z), (1, 1, z), (0, 1, z)] for z in (0.0, 1.0, 2.0)]), 2.0),
        (lambda: revolve([(0, 0), (0.5, 0), (0.5, 1), (0.4, 1), (0.4, 0.1), (0, 0.1)], 48), np.pi * 0.106),
        pytest.param(lambda: blend([Ball((0, 0, 0), 0.5)], cells=30), 4.0 / 3.0 * np.pi * 0.125),
        pytest.param(
            lambda: blend([Egg((0, 0, 0), (0.6, 0.4, 0.3), 30.0)], cells=30),
            4.0 / 3.0 * np.pi * 0.072,
        ),
        pytest.param(lambda: blend([Bone((0, 0, 0), (1, 0, 0), 0.3)], cells=30), np.pi * 0.126),
        (lambda: pair(box(1, 1, 1).moved(0, 2, 0)), 2.0),
        (lambda: box(1, 2, 3).scaled(-1.0, 1.0, 2.0), 12.0),
        (lambda: box(1, 2, 3).mirrored().turned("x", 33).pointed((1, 2, 3)), 6.0),
        (lambda: box(1, 1, 2).tapered(0.0), 2.0 / 3.0),
    ],
)
def test_solids_are_closed_and_face_outward(make: Callable[[], Solid], expected: float) -> None:
    solid = make()
    assert open_edges(solid) == 0
    assert volume(solid) == pytest.approx(expected, rel=0.03)


def test_open_solids_have_the_holes_that_they_should() -> None:
    assert open_edges(revolve([(0.5, 0), (0.5, 1)], 16)) == 32  # two rims
    slice_ = revolve([(0.0, 0), (0.5, 0), (0.5, 1), (0.0, 1)], 16, degrees=180)
    assert slice_.low[1] == pytest.approx(0.0, abs=1e-9)
    assert len(slice_.faces) == 15 * 4
    assert open_edges(loft([[(0, 0, z), (1, 0, z), (0, 1, z)] for z in (0, 1)], capped=False)) == 6
    assert open_edges(plate(1.0, 1.0)) == 4


def test_placing() -> None:
    """Conventions: turned("z", 90) takes +x to +y; bent tips the top of a stalk towards +x; pointed aims +z."""
    arrow = Solid(np.array([(1.0, 0, 0), (0, 0, 1.0), (0, 1, 0.0)]), np.array([[0, 1, 2]]))
    np.testing.assert_allclose(arrow.turned("z", 90).vertices[0], (0, 1, 0), atol=1e-12)
    np.testing.assert_allclose(arrow.turned("x", 90).vertices[2], (0, 0, 1), atol=1e-12)
    np.testing.assert_allclose(arrow.turned("y", 90).vertices[1], (1, 0, 0), atol=1e-12)
    np.testing.assert_allclose(arrow.pointed((0, -2, 0)).vertices[1], (0, -1, 0), atol=1e-12)
    np.testing.assert_allclose(arrow.moved(1, 2, 3).vertices[0], (2, 2, 3))
    stalk = cylinder(0.05, np.pi, segments=8).bent(90)
    top = stalk.vertices[-8:].mean(axis=0)
    np.testing.assert_allclose(top - stalk.vertices[:8].mean(axis=0), (2.0, 0.0, 2.0), atol=0.02)
    still = box(1, 1, 1)
    assert still.bent(0.0) is still
    assert box(1, 1, 1).warped(lambda p: p * 2.0).high.tolist() == [1.0, 1.0, 1.0]
    assert (box(1, 1, 1).low == -box(1, 1, 1).high).all()


def test_joining_keeps_texture_coordinates_only_if_all_have_them() -> None:
    both = join(plate(1, 1), plate(2, 2))
    assert both.uvs is not None
    assert both.uvs.shape == (8, 2)
    assert join(plate(1, 1), box(1, 1, 1)).uvs is None
    assert both.faces.max() == 7
    slab = plate(1.0, 2.0, 0.1)
    assert slab.uvs is not None
    assert volume(slab) > 0.0


def test_blobs_melt_into_each_other() -> None:
    """Two balls 0.9 apart: apart when hard, joined by a neck when soft; the far ends stay where they are."""
    balls = [Ball((0, 0, 0), 0.4), Ball((0.9, 0, 0), 0.4)]

    def neck(smooth: float) -> int:
        solid = blend(balls, smooth, cells=40)
        assert solid.low[0] == pytest.approx(-0.4, abs=0.02)
        assert solid.high[0] == pytest.approx(1.3, abs=0.02)
        return int((np.abs(solid.vertices[:, 0] - 0.45) < 0.03).sum())

    assert neck(0.01) == 0
    assert neck(0.4) > 8


def test_bounds_of_blobs_hold_them() -> None:
    for blob in (Ball((1, 2, 3), 0.5), Egg((1, 0, 0), (0.5, 0.2, 0.1), 40.0), Bone((0, 0, 0), (1, 1, 0), 0.2, 0.4)):
        solid = blend([blob], 0.0, cells=24)
        low, high = blob.bounds()
        assert (solid.low >= low - 0.01).all()
        assert (solid.high <= high + 0.01).all()
        assert np.abs(blob.distance(solid.vertices)).max() < 0.02


def _creased_plainly(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], degrees: float
) -> list[list[NDArray[np.float64]]]:
    """Normals by corner, face by face, as the definition has it."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    area = np.cross(b - a, c - a)
    unit = area / np.linalg.norm(area, axis=1, keepdims=True)
    corners = []
    for face, row in enumerate(faces):
        normals = []
        for vertex in row:
            around = [
                other
                for other in np.flatnonzero((faces == vertex).any(axis=1))
                if other == face or unit[face] @ unit[other] > np.cos(np.deg2rad(degrees))
            ]
            total = area[around].sum(axis=0)
            normals.append(total / np.linalg.norm(total))
        corners.append(normals)
    return corners


@pytest.mark.parametrize("degrees", [10.0, 40.0, 80.0])
def test_normals_follow_their_definition(degrees: float) -> None:
    solid = cylinder(0.5, 0.8, 0.15, segments=14).tapered(0.4)
    source, faces, normals = creased(solid.vertices, solid.faces, degrees)
    np.testing.assert_array_equal(source[faces], solid.faces)
    assert (np.diff(source) >= 0).all()
    expected = np.array(_creased_plainly(solid.vertices, solid.faces, degrees))
    np.testing.assert_allclose(normals[faces], expected, atol=1.0 / 64.0)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-9)


def test_sharp_and_smooth_edges() -> None:
    cube, ball = box(1, 1, 1), ellipsoid(0.5, segments=24)
    assert len(creased(cube.vertices, cube.faces, 40.0)[0]) == 24 + 2  # four a side; the caps have a centre
    _, faces, normals = creased(cube.vertices, cube.faces, 40.0)
    np.testing.assert_allclose(np.abs(normals[faces]).max(axis=2), 1.0)
    assert len(creased(ball.vertices, ball.faces, 40.0)[0]) == len(np.unique(ball.faces))
    # By face: what is joined gets what each would get alone.
    both = join(cube, ball)
    angles = np.repeat([40.0, 1.0], [len(cube.faces), len(ball.faces)])
    joined = creased(both.vertices, both.faces, angles)
    alone = creased(cube.vertices, cube.faces, 40.0), creased(ball.vertices, ball.faces, 1.0)
    np.testing.assert_array_equal(joined[0], np.concatenate([alone[0][0], alone[1][0] + len(cube.vertices)]))
    np.testing.assert_array_equal(joined[2], np.concatenate([alone[0][2], alone[1][2]]))


def test_a_model_is_centred_and_of_radius_one_half() -> None:
    make = maker()
    make.add(box(2.0, 1.0, 1.0).moved(5.0, 6.0, 7.0))
    make.add(ellipsoid(0.1).moved(5.0, 6.0, 9.0), paint=make.dark)
    asset = make.asset("thing")
    assert asset.name == "thing"
    assert np.linalg.norm(asset.vertices, axis=1).max() == pytest.approx(0.5)
    np.testing.assert_allclose(asset.vertices.max(axis=0) + asset.vertices.min(axis=0), 0.0, atol=1e-6)
    assert asset.colors is not None
    dark = asset.colors[asset.vertices[:, 2] > 0.3]
    np.testing.assert_allclose(dark[:, :3], np.broadcast_to(make.dark.color, (len(dark), 3)), atol=1e-6)


def test_faces_without_area_are_left_out() -> None:
    """The rounded end of a tube is a ring of radius zero: its triangles have no normal and show nothing."""
    tube = sweep([(0, 0, 0), (0, 0, 1)], 0.1, sides=8)
    make = maker()
    make.add(tube)
    make.add(box(1, 1, 1), paint=make.dark)
    asset = make.asset("tube")
    assert len(asset.faces) == len(tube.faces) - 4 * 8 + 16
    np.testing.assert_allclose(np.linalg.norm(asset.normals, axis=1), 1.0, atol=1e-6)


def test_paints() -> None:
    up, down = np.array([[0, 0, 1.0]]), np.array([[0, 0, -1.0]])
    points = np.array([(0, 0, 2.0), (0, 0, 3.0), (5, 0, 4.0)])
    np.testing.assert_allclose(Gradient(RED, BLUE).colors(points, points)[[0, 2]], [RED, BLUE])
    np.testing.assert_allclose(Gradient(RED, BLUE).colors(points, points)[1], np.mean([RED, BLUE], axis=0))
    metal = Metal((0.1, 0.1, 0.1), (0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
    assert metal.colors(up, up).mean() > metal.colors(down, down).mean()
    np.testing.assert_array_equal(metal.colors(up * 9.0, up), metal.colors(up, up))  # by normal alone
    assert shade((0.4, 0.4, 0.4), 0.5) == pytest.approx((0.2, 0.2, 0.2))
    assert shade((0.4, 0.4, 0.4), 1.5) == pytest.approx((0.7, 0.7, 0.7))


def test_bands_of_a_texture_are_level() -> None:
    """Rows of the image run down the sides: v depends on the height alone and grows downwards by 1 a period."""
    rows = np.zeros((4, 4, 3), np.uint8)
    make = maker(Texture(rows, 0.25))
    make.add(box(1, 1, 1))
    asset = make.asset("box")
    assert asset.uvs is not None
    side = np.abs(asset.normals[:, 2]) < 0.5
    np.testing.assert_allclose(asset.uvs[side, 1], -asset.vertices[side, 2] / 0.25, atol=1e-6)
    assert (asset.face_materials == 1).all()
    assert asset.materials[1].wrap == "repeat"


def test_a_picture_stands_upright() -> None:
    """Its left edge is at -y, its top at +z; two solids with one picture share a material."""
    picture = Picture(np.zeros((4, 4, 3), np.uint8))
    make = maker()
    make.add(plate(1.0, 1.0), paint=picture)
    make.add(plate(0.5, 0.5).moved(0.1), paint=picture)
    asset = make.asset("screen")
    assert asset.uvs is not None
    corner = np.argmin(asset.vertices[:, 1] - asset.vertices[:, 2])
    np.testing.assert_allclose(asset.uvs[corner], (0.0, 0.0))
    np.testing.assert_allclose(asset.normals, np.tile((1.0, 0, 0), (8, 1)), atol=1e-7)
    assert len(asset.materials) == 2
    assert asset.materials[1].wrap == "clamp"


def test_the_rng_makes_the_choices() -> None:
    one, two = maker(), maker()
    draws = [(m.vary(1.0, 2.0), m.chance(0.5), m.pick(("a", "b", "c"))) for m in (one, two)]
    assert draws[0] == draws[1]
    assert 1.0 <= draws[0][0] <= 2.0
    assert maker().chance(1.0)
    assert not maker().chance(0.0)


def test_named_errors() -> None:
    with pytest.raises(ConfigError) as caught:
        maker().add(box(1, 1, 1), paint=Picture(np.zeros((2, 2, 3), np.uint8)))
    assert "texture coordinates" in caught.value.problem
    assert caught.value.received == (10, 3)
    assert "plate" in caught.value.fix
    with pytest.raises(ConfigError) as caught:
        maker().add()
    assert "Nothing was added" in caught.value.problem
    assert caught.value.received == ()
    assert "at least one" in caught.value.fix
    with pytest.raises(EmptySceneError) as empty:
        maker().asset("nothing")
    assert "no shape" in empty.value.problem
    assert empty.value.received == "nothing"
    assert "Add a solid" in empty.value.fix
