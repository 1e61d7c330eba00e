"""Configuration and layout of the hash grid."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threestudio_redream.errors import ConfigError
from threestudio_redream.kernels.hashgrid import HashGridConfig


@pytest.mark.parametrize(
    ("per_level_scale", "count"), [(1.447269237440378, 12_599_920), (1.381912879967776, 12_196_240)]
)
def test_parameter_counts_of_tiny_cuda_nn(per_level_scale, count):
    assert HashGridConfig(per_level_scale=per_level_scale).n_params(3) == count


def test_levels_follow_the_rules():
    levels = HashGridConfig(n_levels=3, log2_hashmap_size=13, base_resolution=16, per_level_scale=1.5).levels(3)
    assert [level.scale for level in levels] == [15.0, 23.0, 35.0]
    assert [level.resolution for level in levels] == [16, 24, 36]
    assert [level.rows for level in levels] == [4096, 8192, 8192]
    assert [level.offset for level in levels] == [0, 4096, 12288]
    assert [level.hashed for level in levels] == [False, True, True]


def test_rows_are_rounded_up_to_eight():
    (level,) = HashGridConfig(n_levels=1, base_resolution=5).levels(2)
    assert (level.resolution, level.rows, level.hashed) == (5, 32, False)


def test_dense_levels_have_no_limit():
    config = HashGridConfig(otype="DenseGrid", n_levels=2, log2_hashmap_size=3, base_resolution=8, per_level_scale=2.0)
    assert [(level.rows, level.hashed) for level in config.levels(3)] == [(512, False), (4096, False)]


@pytest.mark.parametrize(
    ("section", "otype"),
    [
        ({"otype": "Grid", "type": "Hash"}, "Hash"),
        ({"otype": "Grid"}, "Hash"),
        ({"otype": "Grid", "type": "Dense"}, "Dense"),
        ({"otype": "HashGrid", "type": "Hash"}, "HashGrid"),
        ({"otype": "DenseGrid"}, "DenseGrid"),
        ({}, "HashGrid"),
    ],
)
def test_kinds_of_grid(section, otype):
    config = HashGridConfig.from_mapping({**section, "n_levels": 2})
    assert config.otype == otype
    again = HashGridConfig.from_mapping(config.to_mapping())
    assert [again.levels(3), again.n_levels] == [config.levels(3), 2]


def test_unknown_key():
    with pytest.raises(ConfigError) as caught:
        HashGridConfig.from_mapping({"otype": "HashGrid", "n_level": 16})
    assert "Unknown" in caught.value.problem
    assert caught.value.received == "n_level"
    assert "n_levels" in caught.value.fix


def test_contradicting_kind():
    with pytest.raises(ConfigError) as caught:
        HashGridConfig.from_mapping({"otype": "HashGrid", "type": "Dense"})
    assert "disagree" in caught.value.problem
    assert caught.value.received == {"otype": "HashGrid", "type": "Dense"}
    assert caught.value.fix == "Drop type."


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("otype", "TiledGrid"),
        ("n_levels", 0),
        ("n_levels", True),
        ("n_levels", 2.5),
        ("n_features_per_level", 3),
        ("log2_hashmap_size", 31),
        ("base_resolution", 0),
        ("per_level_scale", 0.5),
        ("per_level_scale", float("nan")),
        ("per_level_scale", "2"),
        ("interpolation", "Nearest"),
    ],
)
def test_values_out_of_range(key, value):
    with pytest.raises(ConfigError) as caught:
        HashGridConfig(**{key: value})
    assert key in caught.value.problem
    assert caught.value.received is value
    assert caught.value.fix.startswith("Use ")


@pytest.mark.parametrize(
    ("config", "dims", "problem"),
    [
        (HashGridConfig(), 4, "input dimensions"),
        (HashGridConfig(n_levels=32), 3, "finest level"),
        (HashGridConfig(otype="DenseGrid"), 3, "number of parameters"),
    ],
)
def test_grids_that_cannot_be_laid_out(config, dims, problem):
    with pytest.raises(ConfigError) as caught:
        config.levels(dims)
    assert problem in caught.value.problem
    assert isinstance(caught.value.received, int)
    assert caught.value.fix


@given(
    n_levels=st.integers(1, 12),
    log2=st.integers(3, 19),
    base=st.integers(1, 40),
    scale=st.floats(1.0, 2.0),
    dims=st.sampled_from([2, 3]),
)
def test_layout_is_contiguous_and_rows_are_addressable(n_levels, log2, base, scale, dims):
    config = HashGridConfig(
        n_levels=n_levels, log2_hashmap_size=log2, base_resolution=base, per_level_scale=float(scale)
    )
    end = 0
    for level in config.levels(dims):
        assert level.offset == end
        assert level.rows % 8 == 0
        assert level.rows <= 2**log2
        assert level.hashed == (level.resolution**dims > level.rows)
        if level.hashed:  # the kernels mask instead of dividing
            assert level.rows == 2**log2
        else:  # one subtraction wraps the furthest corner, one past the edge on every axis
            furthest = sum(level.resolution * level.resolution**d for d in range(dims))
            assert furthest < 2 * level.rows
        end += level.rows
    assert config.n_params(dims) == end * config.n_features_per_level


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        HashGridConfig().n_levels = 3  # type: ignore[misc]
