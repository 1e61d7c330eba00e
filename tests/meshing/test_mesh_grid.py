import numpy as np
import pytest

from threestudio_redream.errors import ConfigError, EmptySceneError
from threestudio_redream.meshing import marching_cubes, sample_grid
from threestudio_redream.meshing.grid import checked_bbox, evaluate, grid_shape


class Counting:
    """Wraps a field and remembers how many points each call had."""

    def __init__(self, field):
        self.field, self.sizes = field, []

    def __call__(self, points):
        assert points.dtype == np.float32
        self.sizes.append(len(points))
        return self.field(points)


def test_nodes_lie_where_the_convention_says(solids):
    levels = sample_grid(lambda p: p @ np.float32([1, 10, 100]), solids.BOX, 9)
    assert levels.shape == (9, 9, 9)
    assert levels[0, 4, 8] == pytest.approx(-1 + 0 + 100)
    assert levels[8, 0, 4] == pytest.approx(1 - 10 + 0)


def test_shape_follows_the_longest_side():
    assert grid_shape([[-1, -1, 0], [1, 1, 1]], 65) == (65, 65, 33)
    assert grid_shape([[0, 0, 0], [1, 1, 0.001]], 64) == (64, 64, 4)


def test_dense_grid_is_evaluated_in_bounded_chunks(solids):
    field, seen = Counting(solids.sphere), []
    sample_grid(field, solids.BOX, 20, chunk=1000, progress=seen.append)
    assert max(field.sizes) == 1000
    assert sum(field.sizes) == 20**3
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("name", ["sphere", "torus", "cuboid"])
def test_coarse_to_fine_gives_the_same_surface(solids, name, stride):
    field = Counting(getattr(solids, name))
    sparse = sample_grid(field, solids.BOX, 50, stride=stride, band=(0.0, 0.05))
    dense = sample_grid(field.field, solids.BOX, 50)
    assert sum(field.sizes) < 0.75 * dense.size
    for threshold in (0.0, 0.03, 0.05):
        ours, truth = (marching_cubes(level, solids.BOX, threshold) for level in (sparse, dense))
        np.testing.assert_array_equal(ours.vertices, truth.vertices)
        np.testing.assert_array_equal(ours.faces, truth.faces)


def test_coarse_to_fine_follows_a_wire_that_falls_between_the_coarse_nodes(solids):
    def field(points):
        wire = 0.04 - np.maximum(np.abs(points[:, 1] - 0.085), np.abs(points[:, 2] - 0.085))
        return np.maximum(solids.sphere(points, 0.4), np.minimum(wire, 0.95 - np.abs(points[:, 0])))

    sparse = sample_grid(field, solids.BOX, 49, stride=8, band=(0.0, 0.0))
    dense = sample_grid(field, solids.BOX, 49)
    coarse_only = dense[::8, ::8, ::8]
    assert not (coarse_only[-1] > 0).any()  # the coarse grid does not see the end of the wire
    assert (dense[40] > 0).any()
    np.testing.assert_array_equal(
        marching_cubes(sparse, solids.BOX, 0.0).vertices, marching_cubes(dense, solids.BOX, 0.0).vertices
    )


def test_band_may_depend_on_the_coarse_levels(solids):
    seen = []

    def band(coarse):
        seen.append(coarse.shape)
        return 0.0, 0.0

    sample_grid(solids.sphere, solids.BOX, 34, stride=4, band=band)
    assert seen == [(10, 10, 10)]


def test_evaluate_accepts_columns_and_bounds_infinities():
    value = evaluate(lambda p: np.where(p[:, :1] > 0, np.inf, -np.inf), np.float32([[1, 0, 0], [-1, 0, 0]]))
    assert value.tolist() == [np.finfo(np.float32).max, -np.finfo(np.float32).max]


def test_evaluate_reports_every_chunk():
    seen = []
    evaluate(lambda p: p, np.zeros((5, 3), np.float32), 3, chunk=2, on_chunk=seen.append)
    assert seen == [2, 4, 5]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda f: evaluate(lambda p: p, f, what="density"),
            ConfigError,
            r"density function.*\(4,\).*\(4, 3\).*one row per",
        ),
        (lambda f: evaluate(lambda p: p[:, 0], f, chunk=0), ConfigError, r"at least one point.*got 0.*default"),
        (
            lambda f: evaluate(lambda p: p[:, 0] * np.nan, f),
            EmptySceneError,
            r"level field holds NaN.*4 of 4.*diverged",
        ),
        (
            lambda f: sample_grid(lambda p: p, [[0, 0, 0], [1, 1, 0]], 16),
            ConfigError,
            r"bounding box.*\[1.0, 1.0, 0.0\].*lower",
        ),
        (lambda f: sample_grid(lambda p: p, [[0, 0, 0], [1, 1, 1]], 4), ConfigError, r"between 8 and 1024.*got 4.*192"),
        (
            lambda f: sample_grid(lambda p: p, [[0, 0, 0], [1, 1, 1]], 16, stride=2),
            ConfigError,
            r"with a band.*'stride': 2.*band=",
        ),
        (
            lambda f: sample_grid(lambda p: p, [[0, 0, 0], [1, 1, 1]], 16, stride=0),
            ConfigError,
            r"stride must be 1.*'stride': 0",
        ),
    ],
)
def test_errors_say_what_was_wrong(call, error, text):
    with pytest.raises(error, match=text):
        call(np.zeros((4, 3), np.float32))


def test_bbox_must_be_finite():
    with pytest.raises(ConfigError, match="bounding box"):
        checked_bbox([[0, 0, 0], [1, 1, np.inf]])
