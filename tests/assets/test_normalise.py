"""The canonical frame, with the numbers of the Convention blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from asset_files import TETRA, TETRA_FACES
from hypothesis import given, settings
from hypothesis import strategies as st

from threestudio_redream.assets import Asset, Material, normalise
from threestudio_redream.assets.normalise import axis_rotation
from threestudio_redream.errors import AssetError, ConfigError


def asset(vertices: object) -> Asset:
    points = np.asarray(vertices, np.float32)
    normals = np.tile(np.float32([0, 0, 1]), (len(points), 1))
    return Asset("a", points, TETRA_FACES.astype(np.int32), normals, None, None, np.zeros(4, np.int32), (Material(),))


BOX = [[x, y, z] for x in (0, 2) for y in (0, 4) for z in (0, 4)]


def test_the_number_of_the_convention() -> None:
    """A glTF box from (0, 0, 0) to (2, 4, 4): the corner (2, 4, 4) goes to (1/3, 1/6, 1/3)."""
    result = normalise(asset(BOX))
    np.testing.assert_allclose(result.vertices[-1], [1 / 3, 1 / 6, 1 / 3], atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(result.vertices, axis=1), 0.5, atol=1e-7)


def test_gltf_axes() -> None:
    np.testing.assert_array_equal(axis_rotation("+y", "+z") @ [1, 2, 3], [3, 1, 2])
    front_of_gltf = normalise(asset([*BOX, [1, 2, 9]])).vertices[-1]
    assert front_of_gltf.argmax() == 0
    # The normal +z of glTF is the front: +x.
    np.testing.assert_array_equal(normalise(asset(BOX)).normals[0], [1, 0, 0])


@pytest.mark.parametrize(
    ("up", "front", "expected"),
    [
        ("+y", None, [3, 1, 2]),
        ("+z", None, [-2, 1, 3]),
        ("+z", "+x", [1, 2, 3]),
        ("-y", "+z", [3, -1, -2]),
        ("+x", None, [3, -2, 1]),
        ("-z", "+y", [2, 1, -3]),
    ],
)
def test_other_axes(up: str, front: str | None, expected: list[int]) -> None:
    rotation = axis_rotation(up, front)
    np.testing.assert_array_equal(rotation @ [1, 2, 3], expected)
    assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_yaw_turns_counter_clockwise_from_above() -> None:
    points = [[0, 0, 3], [0, 0, -3], [1, 0, 0], [-1, 0, 0]]
    plain, turned = normalise(asset(points)), normalise(asset(points), yaw_deg=90.0)
    np.testing.assert_allclose(plain.vertices[0], [0.5, 0, 0], atol=1e-7)
    np.testing.assert_allclose(turned.vertices[0], [0, 0.5, 0], atol=1e-7)
    np.testing.assert_allclose(turned.normals[0], [0, 1, 0], atol=1e-7)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(1e-6, 1e6),
    up=st.sampled_from(["+y", "-y", "+z", "+x"]),
    yaw=st.floats(-720, 720),
    radius=st.floats(0.01, 10),
)
def test_centre_reach_and_matrix(seed: int, scale: float, up: str, yaw: float, radius: float) -> None:
    points = np.random.default_rng(seed).normal(size=(20, 3)) * scale
    before = asset(points)
    after = normalise(before, up=up, yaw_deg=yaw, radius=radius)
    assert np.linalg.norm(after.vertices, axis=1).max() == pytest.approx(radius, rel=1e-5)
    unturned = normalise(before, up=up, radius=radius).vertices
    np.testing.assert_allclose(unturned.min(0) + unturned.max(0), 0.0, atol=1e-5 * radius)
    matrix = np.array(after.info["to_canonical"])
    moved = before.vertices @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(after.vertices, moved, atol=2e-5 * radius)
    np.testing.assert_allclose(np.linalg.norm(after.normals, axis=1), 1.0, atol=1e-5)


def test_normalising_again_changes_nothing_and_keeps_the_whole_matrix() -> None:
    once = normalise(asset(BOX))
    twice = normalise(once, up="+z", front="+x")
    np.testing.assert_allclose(twice.vertices, once.vertices, atol=1e-7)
    np.testing.assert_allclose(twice.info["to_canonical"], once.info["to_canonical"], atol=1e-7)


def test_the_input_is_left_alone() -> None:
    before = replace(asset(BOX), info={"warnings": []})
    normalise(before)
    assert before.info == {"warnings": []}
    assert before.vertices.max() == 4.0


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"up": "y"}, "y"),
        ({"up": "+y", "front": "forward"}, "forward"),
        ({"up": "+y", "front": "-y"}, ("+y", "-y")),
        ({"radius": 0.0}, (0.0, 0.0)),
        ({"radius": float("nan")}, None),
        ({"yaw_deg": float("inf")}, (0.5, float("inf"))),
    ],
)
def test_bad_arguments(arguments: dict, received: object) -> None:
    with pytest.raises(ConfigError) as caught:
        normalise(asset(BOX), **arguments)
    assert received is None or caught.value.received == received
    assert caught.value.problem
    assert caught.value.fix


def test_a_point_cannot_be_scaled() -> None:
    with pytest.raises(AssetError, match="coincide") as caught:
        normalise(asset(TETRA * 0 + 3))
    assert caught.value.received == [3.0, 3.0, 3.0]
    assert caught.value.fix
