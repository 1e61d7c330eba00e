from __future__ import annotations

import math
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from scenes import SMALL_GRID, SMALL_MLP
from torch import nn

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime import tcnn
from threestudio_redream.runtime.activations import get_activation, lin2srgb, trunc_exp
from threestudio_redream.runtime.chunking import chunk_batch
from threestudio_redream.runtime.device import set_device
from threestudio_redream.runtime.networks import (
    ProgressiveBandHashGrid,
    create_network_with_input_encoding,
    get_encoding,
    get_mlp,
)
from threestudio_redream.runtime.spherical_harmonics import spherical_harmonics

PROGRESSIVE = {**SMALL_GRID, "otype": "ProgressiveBandHashGrid", "start_level": 1, "start_step": 10, "update_steps": 5}


# ---------------------------------------------------------------------------------------- activations
@pytest.mark.parametrize(
    ("name", "at_half"),
    [
        (None, 0.5),
        ("none", 0.5),
        ("exp", math.exp(0.5)),
        ("Exponential", math.exp(0.5)),
        ("shifted_exp", math.exp(-0.5)),
        ("trunc_exp", math.exp(0.5)),
        ("shifted_trunc_exp", math.exp(-0.5)),
        ("softplus", math.log1p(math.exp(0.5))),
        ("shifted_softplus", math.log1p(math.exp(-0.5))),
        ("Sigmoid", 1 / (1 + math.exp(-0.5))),
        ("tanh", math.tanh(0.5)),
        ("ReLU", 0.5),
        ("LeakyReLU", 0.5),
        ("sine", math.sin(0.5)),
        ("squareplus", 0.5 * (0.5 + math.sqrt(4.25))),
        ("scale_-11_01", 0.75),
        ("lin2srgb", 0.7353569),
    ],
)
def test_activation_values(name: str | None, at_half: float) -> None:
    assert get_activation(name)(torch.tensor(0.5)).item() == pytest.approx(at_half, rel=1e-5)


def test_unknown_activation_names_near_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        get_activation("softpluss")
    assert "activation" in caught.value.problem
    assert caught.value.received == "softpluss"
    assert "softplus" in caught.value.fix


def test_trunc_exp_stays_finite_and_limits_its_gradient() -> None:
    x = torch.tensor([1.0, 20.0, 1e6], requires_grad=True)
    y = trunc_exp(x)
    y.sum().backward()
    assert torch.isfinite(y * 1e3).all()
    torch.testing.assert_close(x.grad, torch.tensor([math.e, math.exp(15), math.exp(15)]))
    small = torch.tensor([0.3, -2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(trunc_exp, small)
    assert torch.autograd.gradgradcheck(trunc_exp, small)


def test_lin2srgb_is_continuous_and_clamped() -> None:
    around = lin2srgb(torch.tensor([0.0031307, 0.0031309]))
    assert (around[1] - around[0]).abs() < 1e-5
    assert lin2srgb(torch.tensor([-1.0, 0.0, 1.0, 9.0])).tolist() == pytest.approx([0.0, 0.0, 1.0, 1.0])


# ------------------------------------------------------------------------------------------ encodings
def test_frequency_order_and_numbers() -> None:
    encoding = get_encoding(1, {"otype": "ProgressiveBandFrequency", "n_frequencies": 2})
    expected = [math.sin(0.5), math.cos(0.5), math.sin(1.0), math.cos(1.0)]
    assert encoding(torch.tensor([[0.5]]))[0].tolist() == pytest.approx(expected, rel=1e-6)
    wide = get_encoding(3, {"otype": "ProgressiveBandFrequency", "n_frequencies": 2})
    x = torch.rand(5, 3)
    assert wide.n_output_dims == 12
    torch.testing.assert_close(wide(x)[:, 6:9], torch.sin(2 * x))


def test_frequencies_fade_in() -> None:
    encoding = get_encoding(1, {"otype": "ProgressiveBandFrequency", "n_frequencies": 4, "n_masking_step": 100})
    x = torch.rand(3, 1)
    assert (encoding(x) == 0).all()
    encoding.do_update_step(0, 50)
    assert encoding.encoding.mask.tolist() == pytest.approx([1.0, 1.0, 0.0, 0.0])
    encoding.do_update_step(0, 63)
    assert encoding.encoding.mask.tolist() == pytest.approx([1.0, 1.0, (1 - math.cos(math.pi * 0.52)) / 2, 0.0])
    encoding.do_update_step(0, 1000)
    assert encoding.encoding.mask.tolist() == pytest.approx([1.0] * 4)
    assert not encoding.state_dict()


def test_harmonics_convention() -> None:
    up, right = spherical_harmonics(torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]), 2)
    assert up.tolist() == pytest.approx([0.2821, 0.0, 0.4886, 0.0], abs=1e-4)
    assert right.tolist() == pytest.approx([0.2821, 0.0, 0.0, -0.4886], abs=1e-4)


def test_harmonics_are_orthonormal() -> None:
    nodes, weights = np.polynomial.legendre.leggauss(12)  # exact for the products of all four bands
    phi = np.arange(16) * 2 * np.pi / 16
    z, p = (grid.ravel() for grid in np.meshgrid(nodes, phi, indexing="ij"))
    ring = np.sqrt(1 - z * z)
    directions = torch.tensor(np.stack([ring * np.cos(p), ring * np.sin(p), z], axis=1))
    area = torch.tensor(np.repeat(weights, 16) * 2 * np.pi / 16)
    values = spherical_harmonics(directions, 4)
    torch.testing.assert_close(
        values.T @ (area[:, None] * values), torch.eye(16, dtype=torch.float64), atol=1e-12, rtol=0
    )


def test_harmonics_encoding_maps_from_unit_cube() -> None:
    encoding = get_encoding(3, {"otype": "SphericalHarmonics", "degree": 3})
    directions = nn.functional.normalize(torch.randn(6, 3), dim=-1)
    torch.testing.assert_close(encoding(directions * 0.5 + 0.5), spherical_harmonics(directions, 3))
    assert encoding.n_output_dims == 9


@pytest.mark.parametrize(("dims", "degree"), [(3, 5), (3, 0), (2, 3)])
def test_harmonics_refuse_what_they_cannot(dims: int, degree: int) -> None:
    with pytest.raises(ConfigError, match="degree of 1 to 4") as caught:
        get_encoding(dims, {"otype": "SphericalHarmonics", "degree": degree})
    assert caught.value.received == {"n_input_dims": dims, "degree": degree}


def test_hash_grid_with_coordinates_in_front() -> None:
    plain, composed = (
        get_encoding(3, SMALL_GRID),
        get_encoding(3, OmegaConf.create({**SMALL_GRID, "include_xyz": True})),
    )
    composed.encoding.load_state_dict(plain.encoding.state_dict())
    x = torch.rand(7, 3)
    assert (plain.n_output_dims, composed.n_output_dims) == (8, 11)
    torch.testing.assert_close(composed(x)[:, :3], x * 2 - 1)
    torch.testing.assert_close(composed(x)[:, 3:], plain(x))
    assert sum(parameter.numel() for parameter in plain.parameters()) > 0


def test_hash_grid_opens_level_by_level() -> None:
    encoding = get_encoding(3, PROGRESSIVE)
    grid = encoding.encoding
    assert isinstance(grid, ProgressiveBandHashGrid)
    with torch.no_grad():
        for parameter in grid.parameters():
            parameter.fill_(1.0)
    x = torch.rand(5, 3)
    for step, levels in [(0, 1), (14, 1), (15, 2), (15, 2), (24, 3), (1000, 4), (0, 1)]:
        encoding.do_update_step(0, step)
        assert (encoding(x) != 0).all(dim=0).tolist() == [True] * (2 * levels) + [False] * (8 - 2 * levels), step
    assert not any("mask" in key for key in encoding.state_dict())


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({}, "no otype"),
        ({"otype": "Wavelet"}, "not available"),
        ({"otype": "ProgressiveBandFrequency"}, "n_frequencies"),
        ({k: v for k, v in PROGRESSIVE.items() if k != "start_step"}, "start_step"),
        ({**PROGRESSIVE, "update_steps": 0}, "update_steps"),
    ],
)
def test_encoding_errors(config: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        get_encoding(3, config)
    assert caught.value.fix
    assert caught.value.received is not ...


# ------------------------------------------------------------------------------------------- networks
@pytest.mark.parametrize("kind", ["VanillaMLP", "FullyFusedMLP", "CutlassMLP"])
def test_mlp_is_matrices_and_activations(kind: str) -> None:
    mlp = get_mlp(5, 2, {**SMALL_MLP, "otype": kind, "n_hidden_layers": 2, "output_activation": "sigmoid"})
    assert [tuple(parameter.shape) for parameter in mlp.parameters()] == [(16, 5), (16, 16), (2, 16)]
    first, second, last = mlp.parameters()
    x = torch.randn(9, 5)
    expected = torch.sigmoid(torch.relu(torch.relu(x @ first.T) @ second.T) @ last.T)
    torch.testing.assert_close(mlp(x), expected)
    assert mlp(x[:0]).shape == (0, 2)


def test_mlp_activation_is_a_choice() -> None:
    mlp = get_mlp(3, 1, {**SMALL_MLP, "activation": "Tanh"})
    first, last = mlp.parameters()
    x = torch.randn(4, 3)
    torch.testing.assert_close(mlp(x), torch.tanh(x @ first.T) @ last.T)
    assert "Tanh" in repr(mlp)


def test_mlp_computes_in_full_precision_under_autocast() -> None:
    mlp = get_mlp(3, 1, SMALL_MLP)
    x = torch.randn(4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = mlp(x)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, mlp(x))


@pytest.mark.parametrize("inside_out", [False, True])
def test_sphere_initialisation(inside_out: bool) -> None:
    config = {"otype": "SphereInitVanillaMLP", "n_neurons": 256, "n_hidden_layers": 3, "sphere_init_radius": 0.5}
    mlp = get_mlp(11, 1, {**config, "inside_out": inside_out})
    points = torch.rand(200, 3) * 2 - 1
    distance = mlp(torch.cat([points, torch.randn(200, 8)], dim=-1))[:, 0]
    expected = points.norm(dim=-1) - 0.5
    assert (distance - (-expected if inside_out else expected)).abs().mean() < 0.1


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"otype": "KAN"}, "no such network"),
        ({"n_neurons": 8}, "no otype"),
        ({"otype": "VanillaMLP", "n_neurons": 8, "n_hidden_layers": 0}, "n_hidden_layers"),
        ({"otype": "VanillaMLP", "n_hidden_layers": 1}, "n_neurons"),
        ({**SMALL_MLP, "activation": "spline"}, "activation"),
    ],
)
def test_mlp_errors(config: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        get_mlp(3, 1, config)
    assert caught.value.fix
    assert caught.value.received is not ...


def test_encoding_and_network_in_one_train() -> None:
    network = create_network_with_input_encoding(3, 2, OmegaConf.create(PROGRESSIVE), OmegaConf.create(SMALL_MLP))
    x = torch.rand(6, 3)
    network(x).square().sum().backward()
    assert network(x).shape == (6, 2)
    assert all(parameter.grad is not None for parameter in network.parameters())
    network.do_update_step(0, 1000)
    assert network.encoding.encoding.current_level == 4


# ----------------------------------------------------------------------------------- tiny-cuda-nn door
class _StandIn(types.ModuleType):
    """The two classes of tinycudann that are used, computing on whatever device there is."""

    class Encoding(nn.Module):
        def __init__(self, dims: int, config: dict[str, Any], dtype: torch.dtype) -> None:
            super().__init__()
            self.n_output_dims, self.dtype = dims * 2, dtype

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, x], dim=-1).to(self.dtype)

    class Network(nn.Module):
        def __init__(self, dims_in: int, dims_out: int, config: dict[str, Any]) -> None:
            super().__init__()
            self.config, self.dims_out = config, dims_out

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, : self.dims_out].half()


@pytest.fixture
def cuda_device(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, "tinycudann", None)  # importing it fails
    tcnn._module.cache_clear()
    set_device("cuda")
    yield monkeypatch
    set_device(None)
    tcnn._module.cache_clear()


def test_tiny_cuda_nn_serves_fused_networks_where_it_imports(cuda_device: pytest.MonkeyPatch) -> None:
    cuda_device.setitem(sys.modules, "tinycudann", _StandIn("tinycudann"))
    network = get_mlp(4, 2, {**SMALL_MLP, "otype": "FullyFusedMLP"})
    assert isinstance(network, tcnn.TcnnNetwork)
    assert network.network.config["otype"] == "FullyFusedMLP"
    assert network(torch.rand(3, 4)).dtype == torch.float32
    encoding = get_encoding(3, {"otype": "OneBlob", "n_bins": 4})
    assert isinstance(encoding.encoding, tcnn.TcnnEncoding)
    assert encoding(torch.rand(3, 3)).shape == (3, encoding.n_output_dims) == (3, 6)
    assert not isinstance(get_mlp(4, 2, SMALL_MLP), tcnn.TcnnNetwork)


def test_without_tiny_cuda_nn_torch_serves_on_cuda(cuda_device: pytest.MonkeyPatch, caplog: Any) -> None:
    with caplog.at_level("INFO", "pytorch_lightning"):
        assert not tcnn.usable()
        assert not isinstance(get_mlp(4, 2, {**SMALL_MLP, "otype": "FullyFusedMLP"}), tcnn.TcnnNetwork)
    assert "networks run in torch" in caplog.text


# ------------------------------------------------------------------------------------------- chunking
def test_chunks_give_what_one_call_gives() -> None:
    def function(x: torch.Tensor, *, scale: Any, y: torch.Tensor) -> dict[str, Any]:
        return {"sum": x * scale + y, "pair": (x, y[:, :1]), "nothing": None}

    x, y = torch.rand(10, 2), torch.rand(10, 2)
    whole = function(x, scale=2.0, y=y)
    for size in (0, 3, 10, 99):
        parts = chunk_batch(function, size, x, scale=torch.tensor(2.0), y=y)
        torch.testing.assert_close(parts["sum"], whole["sum"])
        torch.testing.assert_close(parts["pair"], whole["pair"])
        assert parts["nothing"] is None
    calls: list[int] = []
    assert chunk_batch(lambda t: calls.append(len(t)), 4, x) is None
    assert calls == [4, 4, 2]
    assert chunk_batch(lambda t: t, 4, x[:0]).shape == (0, 2)


@pytest.mark.parametrize("arguments", [(), (torch.rand(3), torch.rand(4))])
def test_chunks_need_rows_in_common(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError, match="common number of rows") as caught:
        chunk_batch(lambda *tensors: tensors[0], 2, *arguments)
    assert caught.value.received == [tuple(t.shape) for t in arguments]
    assert "partial" in caught.value.fix


def test_chunks_refuse_results_they_cannot_join() -> None:
    with pytest.raises(ConfigError, match="must return tensors") as caught:
        chunk_batch(lambda t: "text", 1, torch.rand(2))
    assert caught.value.received == "str"
    assert "Return a tensor" in caught.value.fix
