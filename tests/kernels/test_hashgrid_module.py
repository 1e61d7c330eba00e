"""HashGrid as a module: backends, parameters, errors, tiny-cuda-nn through a stand-in."""

from __future__ import annotations

import copy
import subprocess
import sys
import types

import pytest
import torch

from threestudio_redream.errors import ConfigError, RedreamError
from threestudio_redream.kernels.hashgrid import HashGrid, HashGridConfig, ProgressiveBandHashGrid, encode_reference
from threestudio_redream.kernels.hashgrid import tcnn as tcnn_module

CONFIG = {"otype": "HashGrid", "n_levels": 3, "log2_hashmap_size": 9, "base_resolution": 4, "per_level_scale": 1.7}


def points(count: int = 50, dims: int = 3) -> torch.Tensor:
    return torch.rand(count, dims, generator=torch.Generator().manual_seed(0))


def test_parameters_and_shapes():
    grid = HashGrid(3, CONFIG, seed=1)
    assert grid.n_output_dims == 6
    assert grid.params.shape == (HashGridConfig.from_mapping(CONFIG).n_params(3),)
    assert 0.99e-4 < grid.params.abs().max() <= 1e-4
    assert abs(grid.params.mean()) < 1e-5
    assert list(grid.state_dict()) == ["params"]
    assert grid(points()).shape == (50, 6)
    assert "n_levels=3" in repr(grid)


def test_seed_decides_parameters_without_touching_the_generator():
    before = torch.random.get_rng_state()
    one, two, other = HashGrid(3, CONFIG, seed=1), HashGrid(3, CONFIG, seed=1), HashGrid(3, CONFIG, seed=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.params, two.params)
    assert not torch.equal(one.params, other.params)
    torch.manual_seed(5)
    first = HashGrid(3, CONFIG)
    torch.manual_seed(5)
    assert torch.equal(HashGrid(3, CONFIG).params, first.params)


def test_auto_follows_environment_and_dtype(monkeypatch):
    grid = HashGrid(3, CONFIG)
    assert grid._resolve("cpu") == "numba"
    assert grid._resolve("mps") == "torch"
    monkeypatch.setenv("REDREAM_KERNELS", "torch")
    assert grid._resolve("cpu") == "torch"
    monkeypatch.delenv("REDREAM_KERNELS")
    assert grid.double()._resolve("cpu") == "torch"
    assert grid(points()).dtype == torch.float64


def test_input_of_another_precision_is_converted():
    grid = HashGrid(3, CONFIG, seed=1)
    x = points().half()
    assert grid(x).dtype == torch.float32
    torch.testing.assert_close(grid(x), grid(x.float()))


def test_works_in_inference_mode_and_on_strided_input():
    grid = HashGrid(3, CONFIG, seed=1)
    wide = torch.rand(40, 6)
    with torch.inference_mode():
        found = grid(wide[:, ::2])
    torch.testing.assert_close(found, grid(wide[:, ::2].contiguous()).detach())


def test_copies_and_checkpoints_are_independent():
    grid = HashGrid(3, CONFIG, seed=1)
    twin = copy.deepcopy(grid)
    other = HashGrid(3, CONFIG, seed=2)
    other.load_state_dict(grid.state_dict())
    with torch.no_grad():
        expected = grid(points()).clone()
        grid.params.zero_()
    torch.testing.assert_close(twin(points()), expected)
    torch.testing.assert_close(other(points()), expected)


def test_trains():
    grid = HashGrid(2, {**CONFIG, "n_features_per_level": 4}, seed=1)
    optimizer = torch.optim.Adam(grid.parameters(), lr=0.05, eps=1e-15)
    x = points(400, 2)
    target = torch.sin(7 * x[:, :1])
    for _ in range(60):
        optimizer.zero_grad()
        loss = (grid(x).sum(-1, keepdim=True) - target).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.02 * target.square().mean()


@pytest.mark.parametrize("shape", [(3,), (5, 2), (2, 5, 3)])
def test_wrong_shapes(shape):
    with pytest.raises(ConfigError) as caught:
        HashGrid(3, CONFIG)(torch.zeros(shape))
    assert "[N, 3]" in caught.value.problem
    assert caught.value.received == shape
    assert "Flatten" in caught.value.fix


def test_unknown_backend():
    with pytest.raises(ConfigError) as caught:
        HashGrid(3, CONFIG, backend="cuda")
    assert "backend" in caught.value.problem
    assert caught.value.received == "cuda"
    assert "numba" in caught.value.fix


def test_numba_insists_on_float32():
    with pytest.raises(ConfigError) as caught:
        HashGrid(3, CONFIG, backend="numba").double()(points())
    assert "float32" in caught.value.problem
    assert caught.value.received == "torch.float64 on cpu"
    assert "auto" in caught.value.fix


def test_importing_the_package_loads_no_numba():
    code = "import sys, threestudio_redream.kernels.hashgrid; assert 'numba' not in sys.modules; print('ok')"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert shown.stdout == "ok\n"


# --- tiny-cuda-nn: a stand-in with its Encoding interface -----------------------------------------


@pytest.fixture
def fake_tcnn(monkeypatch):
    """A module that answers as tinycudann would, computing with the reference; ``seen`` records its inputs."""
    seen = []

    class Encoding(torch.nn.Module):
        def __init__(self, n_input_dims, encoding_config, dtype=None):
            super().__init__()
            assert dtype == torch.float32
            self.config = HashGridConfig.from_mapping(encoding_config)
            self.levels = self.config.levels(n_input_dims)
            extra = 8 if encoding_config["n_levels"] == 7 else 0
            self.params = torch.nn.Parameter(torch.zeros(self.config.n_params(n_input_dims) + extra))

        def forward(self, x):
            seen.append(x.detach())
            features = encode_reference(x, self.params, self.levels, self.config.n_features_per_level)
            return torch.nn.functional.pad(features, (0, 2))  # padded to a multiple of 8

    module = types.ModuleType("tinycudann")
    module.Encoding, module.seen = Encoding, seen
    monkeypatch.setitem(sys.modules, "tinycudann", module)
    tcnn_module._import_tcnn.cache_clear()
    yield module
    tcnn_module._import_tcnn.cache_clear()


def test_tcnn_shares_the_parameters(fake_tcnn):
    grid, plain = HashGrid(3, CONFIG, backend="tcnn", seed=1), HashGrid(3, CONFIG, backend="torch", seed=1)
    x = points() * 2 - 0.5
    found, expected = grid(x), plain(x)
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(grid.params.grad, plain.params.grad)
    assert fake_tcnn.seen[0].min() == 0
    assert fake_tcnn.seen[0].max() == 1
    assert list(grid.state_dict()) == ["params"]
    assert len(list(grid.parameters())) == 1
    torch.testing.assert_close(copy.deepcopy(grid)(x), expected)


def test_auto_takes_tcnn_on_cuda_only(fake_tcnn, monkeypatch):
    grid = HashGrid(3, CONFIG)
    assert grid._resolve("cuda") == "tcnn"
    assert grid._resolve("cpu") == "numba"
    monkeypatch.setenv("REDREAM_KERNELS", "torch")
    assert grid._resolve("cuda") == "torch"


def test_tcnn_with_another_layout_is_refused(fake_tcnn):
    with pytest.raises(RedreamError) as caught:
        HashGrid(3, {**CONFIG, "n_levels": 7}, backend="tcnn")(points())
    assert "differently" in caught.value.problem
    assert "parameters instead of" in caught.value.received
    assert "backend='torch'" in caught.value.fix


def test_without_tcnn(monkeypatch):
    monkeypatch.setitem(sys.modules, "tinycudann", None)
    tcnn_module._import_tcnn.cache_clear()
    grid = HashGrid(3, CONFIG)
    assert grid._resolve("cuda") == "torch"
    grid.backend = "tcnn"
    with pytest.raises(RedreamError) as caught:
        grid(points())
    tcnn_module._import_tcnn.cache_clear()
    assert "tiny-cuda-nn" in caught.value.problem
    assert "ModuleNotFoundError" in caught.value.received
    assert "CUDA compiler" in caught.value.fix


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_equals_the_cpu():
    grid = HashGrid(3, CONFIG, seed=1)
    expected = grid(points())
    torch.testing.assert_close(grid.cuda()(points().cuda()).cpu(), expected, atol=1e-7, rtol=1e-3)


# --- coarse to fine -------------------------------------------------------------------------------

SCHEDULE = {**CONFIG, "otype": "ProgressiveBandHashGrid", "start_level": 1, "start_step": 10, "update_steps": 5}


@pytest.mark.parametrize(("step", "level"), [(0, 1), (10, 1), (14, 1), (15, 2), (20, 3), (1000, 3)])
def test_levels_open_on_schedule(step, level):
    grid = ProgressiveBandHashGrid(3, SCHEDULE, seed=1)
    grid.update_step(0, step)
    assert grid.current_level == grid.level_at(step) == level
    y = grid(points())
    assert (y[:, : 2 * level] != 0).any(dim=0).all()
    assert (y[:, 2 * level :] == 0).all()
    torch.testing.assert_close(y[:, : 2 * level], grid.encoding(points())[:, : 2 * level])


def test_closed_levels_get_no_gradient_and_steps_may_go_back():
    grid = ProgressiveBandHashGrid(3, SCHEDULE, seed=1)
    grid.update_step(0, 1000)
    y = grid(points())
    grid.update_step(0, 0, on_load_weights=True)  # a checkpoint of an earlier step
    y.sum().backward()  # the graph of the later step is still whole
    assert grid.encoding.params.grad[grid.encoding.levels[2].offset * 2 :].abs().sum() > 0
    grid.encoding.params.grad = None
    grid(points()).sum().backward()
    assert grid.encoding.params.grad[grid.encoding.levels[1].offset * 2 :].abs().sum() == 0
    assert list(grid.state_dict()) == ["encoding.params"]


@pytest.mark.parametrize(
    ("key", "value"), [("start_level", 4), ("start_step", -1), ("update_steps", 0), ("update_steps", None)]
)
def test_bad_schedules(key, value):
    with pytest.raises(ConfigError) as caught:
        ProgressiveBandHashGrid(3, {**SCHEDULE, key: value})
    assert key in caught.value.problem
    assert caught.value.received == value
    assert "whole number" in caught.value.fix
