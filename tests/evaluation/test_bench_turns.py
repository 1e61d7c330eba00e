"""The turn of a run as one picture."""

import numpy as np
import pytest
from PIL import Image

from threestudio_redream.evaluation.bench.turns import SIDE, TURN, VIEWS, keep_turn, read_turn, turn_of, view_of_turn


@pytest.fixture
def run(tmp_path):
    views = tmp_path / "save" / "it9-test"
    views.mkdir(parents=True)
    for i in range(37):
        Image.fromarray(np.full((10, 10, 3), 7 * (i % 36), np.uint8)).save(views / f"{i}.png")
    return tmp_path


def test_views_stand_in_the_order_of_the_turn(run):
    assert keep_turn(run)
    data = read_turn(run / TURN)
    shades = [float(view_of_turn(data, view).mean()) * 255 for view in range(VIEWS)]
    np.testing.assert_allclose(shades, 21 * np.arange(VIEWS), atol=3)
    assert view_of_turn(data, 0).shape == (SIDE, SIDE, 3)


def test_a_turn_is_made_once(run):
    data = turn_of(run)
    for path in (run / "save" / "it9-test").iterdir():
        path.unlink()
    assert turn_of(run) == data


@pytest.mark.parametrize("harm", ["few", "damaged"])
def test_half_a_turn_is_none(run, harm):
    views = run / "save" / "it9-test"
    if harm == "few":
        for i in range(VIEWS, 37):
            (views / f"{i}.png").unlink()
    else:
        (views / "3.png").write_bytes(b"no picture")
    assert not keep_turn(run)
    assert turn_of(run) is None
    assert not (run / TURN).exists()


def test_other_files_are_no_turns(tmp_path):
    path = tmp_path / TURN
    assert read_turn(path) is None
    for content in (b"", b"RIFF", b"x" * 2**21):
        path.write_bytes(content)
        assert read_turn(path) is None
    Image.new("RGB", (8, 8)).save(path, "WEBP")
    assert read_turn(path) is None
    Image.new("RGB", (VIEWS * SIDE, SIDE)).save(path, "PNG")
    assert read_turn(path) is None
