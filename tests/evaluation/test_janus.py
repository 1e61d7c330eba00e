"""Counting fronts."""

import numpy as np
import pytest

from threestudio_redream.errors import ConfigError
from threestudio_redream.evaluation.janus import count_fronts


def turn(*fronts, views=12):
    values = np.full(views, 0.05)
    values[list(fronts)] = 0.9
    return values


def test_one_front_across_the_seam():
    result = count_fronts(turn(7, 0, 1, views=8))
    assert (result.fronts, result.janus) == (1, False)
    assert result.azimuth_deg == 0.0
    assert result.share == pytest.approx(3 / 8)


def test_face_and_back_face():
    result = count_fronts(turn(11, 0, 1, 5, 6, 7))
    assert result.fronts == 2
    assert result.janus


def test_longest_stretch_gives_the_azimuth():
    assert count_fronts(turn(2, 3, 4, 8)).azimuth_deg == 90.0


@pytest.mark.parametrize(("views", "narrow", "wide"), [(12, [6], [6, 7]), (36, [18, 19, 20, 21], [18, 19, 20, 21, 22])])
def test_a_second_front_spans_45_degrees_or_more(views, narrow, wide):
    front = [0, 1, views - 1] if views == 12 else [0, 1, 2, 3, 4, 33, 34, 35]
    flare, face = count_fronts(turn(*front, *narrow, views=views)), count_fronts(turn(*front, *wide, views=views))
    assert (flare.fronts, flare.janus) == (1, False)
    assert (face.fronts, face.janus) == (2, True)
    assert count_fronts(turn(*narrow, views=views)).fronts == 1  # alone, it is what there is


def test_a_single_doubtful_view_does_not_split_a_front():
    assert count_fronts(turn(0, 2)).fronts == 1
    assert count_fronts(turn(0, 1, 4, 5)).fronts == 2


def test_smeared_all_around_is_janus():
    assert count_fronts(np.full(12, 0.9)).janus
    assert count_fronts(turn(*range(8))).janus
    assert not count_fronts(turn(*range(7))).janus


def test_no_front():
    result = count_fronts(np.zeros(12))
    assert (result.fronts, result.share, result.janus) == (0, 0.0, False)
    assert np.isnan(result.azimuth_deg)


@pytest.mark.parametrize("shift", range(12))
def test_turning_the_object_changes_nothing_but_the_azimuth(shift):
    values = np.roll(turn(0, 1, 2, 6, 7), shift)
    result = count_fronts(values)
    assert result.fronts == 2
    assert result.azimuth_deg == pytest.approx((30 * (1 + shift)) % 360)


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((4, 2)), np.array([0.1, 0.2, 1.4, 0.0]), np.full(5, np.nan)])
def test_bad_input(bad):
    with pytest.raises(ConfigError) as error:
        count_fronts(bad)
    assert error.value.fix
