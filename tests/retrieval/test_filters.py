"""Filters: what is dropped, and that ordinary things are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from threestudio_redream.assets import normalise, sample_asset
from threestudio_redream.assets.types import Asset, Material
from threestudio_redream.errors import ConfigError
from threestudio_redream.retrieval.curation.duplicates import near_duplicates
from threestudio_redream.retrieval.curation.filters import FilterSettings, check_asset, geometry_problem, render_problem

BOX = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
QUADS = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))


def box(
    centre: tuple[float, ...] = (0, 0, 0), size: tuple[float, ...] = (1, 1, 1), inside_out: bool = False
) -> NDArray:
    """Triangles [12, 3, 3] of a closed box, counter-clockwise from outside."""
    corners = BOX * 0.5 * np.array(size) + np.array(centre)
    faces = np.array([(q[0], q[i], q[i + 1]) for q in QUADS for i in (1, 2)])
    return corners[faces[:, ::-1] if inside_out else faces]


def asset(*parts: NDArray) -> Asset:
    triangles = np.concatenate(parts).astype(np.float32)
    count = len(triangles)
    raw = Asset(
        name="x", vertices=triangles.reshape(-1, 3), faces=np.arange(3 * count, dtype=np.int32).reshape(-1, 3),
        normals=np.tile(np.float32([0, 0, 1]), (3 * count, 1)), uvs=None, colors=None,
        face_materials=np.zeros(count, np.int32), materials=(Material(),),
    )  # fmt: skip
    return normalise(raw, up="+z", front="+x")


def test_the_boxes_face_outwards() -> None:
    triangles = box()
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    assert ((normals * triangles.mean(axis=1)).sum(axis=1) > 0).all()


TABLE = (box((0, 0, 1), (2, 1, 0.1)), *(box((x, y, 0.5), (0.06, 0.06, 1)) for x in (-0.9, 0.9) for y in (-0.4, 0.4)))
GROUND = box((0, 0, -0.05), (6, 6, 0.1))


@pytest.mark.parametrize(
    "thing",
    [
        asset(box()),
        asset(box(size=(1, 0.04, 0.6))),
        asset(*TABLE),
        asset(GROUND, *TABLE),
        asset(box((-1, 0, 0)), box((1, 0, 0))),  # a pair
        asset(box(), box(inside_out=True, size=(0.9, 0.9, 0.9))),  # a hollow box with thick walls
        asset(box((0, 0, 0), (2, 2, 2)), *(box((x, 0, 1.3), (0.05, 0.05, 0.05)) for x in (-0.5, 0, 0.5, 0.8))),
        sample_asset(),
    ],
)
def test_ordinary_things_stay(thing: Asset) -> None:
    assert geometry_problem(thing) is None


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (asset(box()[:3]), "too few faces"),
        (asset(box(size=(1, 1, 0.02))), "flat"),
        (asset(box(size=(1, 0.02, 1))), "flat"),
        (asset(box(inside_out=True, size=(4, 5, 3))), "a room seen from inside"),
        (asset(box(inside_out=True, size=(4, 5, 3)), *TABLE), "a room seen from inside"),
        (asset(*(box((2 * x, 2 * y, 0)) for x in range(3) for y in range(2))), "6 separate objects"),
        (asset(GROUND, *(box((2 * x, 2 * y, 0.5)) for x in (-1, 0, 1) for y in (-1, 1))), "6 separate objects"),
    ],
)
def test_what_cannot_be_one_object_is_named(thing: Asset, words: str) -> None:
    assert words in str(geometry_problem(thing))


def test_faces_without_area_and_the_cap_on_faces() -> None:
    line = np.zeros((8, 3, 3))
    line[:, :, 0] = np.random.default_rng(0).random((8, 3))
    line[0, 0] = (0, 0, 1)
    thin = asset(line)
    assert "degenerate" in str(geometry_problem(replace(thin, faces=thin.faces[1:])))
    assert "too many faces" in str(geometry_problem(asset(box()), FilterSettings(max_faces=11)))
    assert geometry_problem(asset(box(size=(1, 1, 0.02))), FilterSettings(min_thickness=0.01)) is None


def test_the_answer_does_not_depend_on_the_random_state() -> None:
    thing = asset(*TABLE)
    first = geometry_problem(thing, FilterSettings(max_objects=0))
    np.random.seed(5)  # noqa: NPY002
    assert (
        geometry_problem(thing, FilterSettings(max_objects=0)) == first == "scene-like: 1 separate objects (at most 0)"
    )


def views(colour: float, side: int = 8, background: float = 0.5) -> NDArray[np.float32]:
    images = np.full((4, 32, 32, 3), background, np.float32)
    images[1:, 4 : 4 + side, 4 : 4 + side] = colour
    return images


def test_renders_that_show_something_pass() -> None:
    assert render_problem(views(0.9)) is None
    assert render_problem(views(0.2), background=0.5) is None
    assert render_problem(views(0.9, background=0.1), background=(0.1, 0.1, 0.1)) is None


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (views(0.9, side=0), "blank: it covers 0.00 %"),
        (views(0.9, side=3), "blank: it covers 0.88 %"),
        (views(0.515), "colour of the background"),
        (views(0.01), "near-black"),
        (views(np.nan), "not finite"),
    ],
)
def test_useless_renders_are_named(images: NDArray[np.float32], words: str) -> None:
    assert words in str(render_problem(images))
    assert words in str(check_asset(asset(box()), images))


def test_shapes_are_checked() -> None:
    for bad in (np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 4, 3), np.float32)):
        with pytest.raises(ConfigError) as caught:
            render_problem(bad)
        assert (caught.value.received, bool(caught.value.fix)) == (bad.shape, True)
    assert "flat" in str(check_asset(asset(box(size=(1, 1, 0.02))), views(0.9)))


def embeddings(count: int, dim: int = 64, seed: int = 0) -> NDArray[np.float32]:
    """Like CLIP's: unit length, with a direction that all share."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, dim)) + 1.5 * rng.standard_normal(dim)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_near_duplicates_point_at_the_row_that_is_kept() -> None:
    rows = embeddings(50)
    rows[7], rows[30], rows[41] = rows[3], 2.0 * rows[3], rows[12]
    rows[20] = rows[21] = 0.0
    rows[22] = np.nan
    assert near_duplicates(rows) == [(7, 3), (30, 3), (41, 12)]
    assert near_duplicates(np.repeat(rows[:, None], 8, axis=1).astype(np.float16)) == [(7, 3), (30, 3), (41, 12)]
    assert near_duplicates(rows[:0]) == []


def test_a_chain_of_similar_rows_does_not_swallow_itself() -> None:
    angles = np.deg2rad(np.arange(0.0, 30.0, 4.0))  # neighbours: cosine 0.9976; two apart: 0.990
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert near_duplicates(rows) == [(1, 0), (3, 2), (5, 4), (7, 6)]


def test_hashing_finds_what_comparing_all_pairs_finds() -> None:
    rng = np.random.default_rng(1)
    rows = np.concatenate([embeddings(3000), embeddings(3000)])
    rows[3000:] += 0.004 * rng.standard_normal(rows[3000:].shape).astype(np.float32)
    exact, hashed = near_duplicates(rows), near_duplicates(rows, exact_rows=0)
    assert exact == [(row, row - 3000) for row in range(3000, 6000)]
    assert set(hashed) <= set(exact)
    assert len(hashed) >= 0.98 * len(exact)


@pytest.mark.parametrize(("shape", "threshold"), [((4,), 0.9), ((4, 3), 0.0), ((4, 3), 1.5)])
def test_near_duplicates_check_their_arguments(shape: tuple[int, ...], threshold: float) -> None:
    with pytest.raises(ConfigError) as caught:
        near_duplicates(np.zeros(shape, np.float32), threshold)
    assert caught.value.received == (shape, threshold)
