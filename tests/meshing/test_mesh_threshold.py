import math

import numpy as np
import pytest

from threestudio_redream.errors import ConfigError, EmptySceneError
from threestudio_redream.meshing import choose_threshold, sample_grid, silhouette_iou
from threestudio_redream.meshing.silhouettes import checked_silhouettes, projection_scorer
from threestudio_redream.meshing.threshold import density_candidates


def hump(peak):
    """IoU as a function of the threshold with its maximum 1 at ``peak``."""
    return lambda value: 1.0 / (1.0 + math.log(value / peak) ** 2)


def test_sweep_without_refinement_takes_the_best_candidate():
    found = choose_threshold([30.0, 1.0, 10.0, 3.0, 3.0], lambda t: t, hump(4.0), refine=0)
    assert found.threshold == 3.0
    assert [row[0] for row in found.table] == [1.0, 3.0, 10.0, 30.0]
    assert found.iou == dict(found.table)[3.0]


def test_refinement_narrows_down_and_never_gets_worse():
    previous = 0.0
    for refine in (0, 1, 2, 4, 8, 12):
        found = choose_threshold([0.1, 1.0, 10.0, 100.0], lambda t: t, hump(4.0), refine=refine)
        assert found.iou >= previous
        assert len(found.table) == (4 if refine == 0 else 4 + refine + 1)
        previous = found.iou
    assert found.threshold == pytest.approx(4.0, rel=0.03)
    assert found == choose_threshold([0.1, 1.0, 10.0, 100.0], lambda t: t, hump(4.0), refine=12)


def test_candidates_may_be_negative_and_the_best_may_be_the_first():
    found = choose_threshold([-1.0, 0.0, 1.0], lambda t: t, lambda t: 1.0 / (2.0 + t), refine=3)
    assert found.threshold == -1.0
    assert choose_threshold(
        [-1.0, 0.0, 1.0], lambda t: t, lambda t: 1.0 - (t - 0.2) ** 2, refine=8
    ).threshold == pytest.approx(0.2, abs=0.05)


def test_ties_go_to_the_middle():
    assert choose_threshold([1.0, 2.0, 3.0, 4.0, 5.0], lambda t: t, lambda t: 0.9, refine=0).threshold == 3.0


def test_empty_meshes_count_as_zero():
    def mesh_at(threshold):
        if threshold > 2.0:
            raise EmptySceneError("gone")
        return threshold

    found = choose_threshold([1.0, 3.0], mesh_at, lambda t: 0.5, refine=0)
    assert found.table == ((1.0, 0.5), (3.0, 0.0))


def test_errors():
    with pytest.raises(ConfigError, match=r"at least one finite candidate.*\[\].*numbers"):
        choose_threshold([], lambda t: t, lambda t: 1.0)
    with pytest.raises(ConfigError, match=r"finite candidate.*nan"):
        choose_threshold([1.0, math.nan], lambda t: t, lambda t: 1.0)
    with pytest.raises(EmptySceneError, match=r"No threshold gives.*\(1.0, 0.0\).*Check that the field"):
        choose_threshold([1.0, 2.0], lambda t: t, lambda t: 0.0)
    with pytest.raises(EmptySceneError, match=r"transparent everywhere.*'max density': 0.0.*Train"):
        density_candidates(np.zeros((4, 4, 4), np.float32), [[0, 0, 0], [1, 1, 1]], 0.1)
    with pytest.raises(ConfigError, match=r"as many matrices.*\(2, 4, 4\), \(1, 4, 4\).*one camera"):
        checked_silhouettes((np.zeros((2, 4, 4)), np.zeros((1, 4, 4)), 40.0))


def test_candidates_span_what_can_be_seen():
    level = np.full((4, 4, 4), 50.0, np.float32)
    values = density_candidates(level, [[0, 0, 0], [1, 1, 1]], 0.1, count=5)
    assert values[0] == pytest.approx(math.log(2) / math.sqrt(3))
    assert values[-1] == pytest.approx(45.0)
    np.testing.assert_allclose(np.diff(np.log(values)), np.log(values[1] / values[0]))
    assert density_candidates(level * 10, [[0, 0, 0], [1, 1, 1]], 0.1)[-1] == pytest.approx(100.0)


def test_soft_iou_numbers():
    assert silhouette_iou([[1.0, 0.0]], [[1.0, 1.0]]) == 0.5
    assert silhouette_iou([[0.5, 0.5]], [[1.0, 0.0]]) == pytest.approx(1 / 3)
    assert silhouette_iou(np.zeros(3), np.zeros(3)) == 1.0


def test_projection_finds_the_density_at_the_edge_of_what_is_visible(solids):
    def density(points):
        """A soft ball: rays at radius r are half absorbed at r = 0.5 and more inside."""
        return 60.0 / (1.0 + np.exp(30.0 * (np.linalg.norm(points, axis=1) - 0.5)))

    level = sample_grid(density, solids.BOX, 64)
    found = choose_threshold(
        density_candidates(level, solids.BOX, 2 / 63), lambda t: t, projection_scorer(level, solids.BOX)
    )
    assert found.iou > 0.98
    assert found.iou > max(iou for threshold, iou in found.table if threshold > 30.0)
