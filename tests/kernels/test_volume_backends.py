"""Choice of the implementation, and the adaptors to nerfacc against a stand-in for it."""

from __future__ import annotations

import sys
import types

import pytest
import torch

from threestudio_redream.errors import ConfigError, MissingExtraError
from threestudio_redream.kernels.volume import (
    OccupancyGrid,
    accumulate_along_rays,
    backends,
    march,
    march_rays,
    render_weight_from_density,
    resolve_backend,
    weights,
)


class OnDevice:
    """Stands for a tensor on a device that this machine may lack."""

    def __init__(self, device: str, dtype: torch.dtype = torch.float32) -> None:
        self.device, self.dtype = torch.device(device), dtype


@pytest.fixture
def fresh():
    """Forget what was found out about nerfacc, before and after."""
    caches = (backends._nerfacc_failure, backends._nerfacc_failure_logged)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def test_the_cpu_uses_numba_unless_told_otherwise(monkeypatch):
    assert resolve_backend("auto", torch.zeros(1)) == "numba"
    monkeypatch.setenv("REDREAM_KERNELS", "torch")
    assert resolve_backend("auto", torch.zeros(1)) == "torch"
    assert resolve_backend("numba", torch.zeros(1)) == "numba"
    assert resolve_backend("torch", torch.zeros(1)) == "torch"


def test_without_numba_everything_runs_in_torch(monkeypatch):
    monkeypatch.setattr(backends, "use_numba", lambda device: False)
    monkeypatch.setattr(weights.kernels, "weights_forward", None)
    grid = OccupancyGrid([-1, -1, -1, 1, 1, 1], resolution=4)
    grid.binaries.fill_(True)
    origins, directions = torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([[-1.0, 0.0, 0.0]])
    rays, starts, ends = grid.sampling(origins, directions, render_step_size=0.1)
    got, _, _ = render_weight_from_density(starts, ends, torch.ones_like(starts), rays, 1)
    opacity = accumulate_along_rays(got, None, rays, 1)
    assert opacity.item() == pytest.approx(1 - 2.718281828**-2, abs=1e-5)


@pytest.mark.parametrize(
    ("backend", "device", "dtype", "problem"),
    [
        ("numba", "cuda", torch.float32, "CPU tensors only (got 'cuda')"),
        ("nerfacc", "cpu", torch.float32, "float32 CUDA tensors only (got 'torch.float32 on cpu')"),
        ("nerfacc", "cuda", torch.float64, "float32 CUDA tensors only (got 'torch.float64 on cuda')"),
        ("tcnn", "cpu", torch.float32, "Unknown volume backend (got 'tcnn')"),
    ],
)
def test_a_backend_that_cannot_serve_is_named(backend, device, dtype, problem):
    with pytest.raises(ConfigError) as caught:
        resolve_backend(backend, OnDevice(device, dtype))
    assert problem in str(caught.value)
    assert "auto" in caught.value.fix


@pytest.mark.usefixtures("fresh")
def test_a_missing_nerfacc_is_an_error_only_when_asked_for(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "nerfacc", None)
    monkeypatch.setattr(torch, "tensor", lambda *a, **k: torch.as_tensor(a[0]))  # there may be no CUDA
    monkeypatch.setattr(torch, "zeros", lambda *a, **k: torch.full((a[0],), 0))
    with caplog.at_level("INFO"):
        assert resolve_backend("auto", OnDevice("cuda")) == "torch"
        assert resolve_backend("auto", OnDevice("cuda")) == "torch"
    assert caplog.text.count("nerfacc is not used") == 1
    with pytest.raises(MissingExtraError) as caught:
        resolve_backend("nerfacc", OnDevice("cuda"))
    assert caught.value.package == "nerfacc"
    assert "pip install 'threestudio-redream[cuda]'" in str(caught.value)
    assert "ModuleNotFoundError" in str(caught.value)


@pytest.mark.parametrize("device", ["mps", "cpu"])
def test_other_devices_never_ask_for_nerfacc(monkeypatch, device):
    monkeypatch.setattr(backends, "_nerfacc_failure", None)
    assert resolve_backend("auto", OnDevice(device)) == ("torch" if device == "mps" else "numba")
    assert resolve_backend("auto", OnDevice("cuda", torch.float64)) == "torch"


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("right", [True, False])
def test_nerfacc_is_trusted_only_if_its_answer_is_right(monkeypatch, right):
    fake = types.ModuleType("nerfacc")
    fake.render_weight_from_density = lambda starts, ends, sigmas, ray_indices, n_rays: tuple(  # type: ignore[attr-defined]
        output * (1.0 if right else 0.9)
        for output in render_weight_from_density(starts, ends, sigmas, ray_indices, n_rays, backend="torch")
    )
    monkeypatch.setitem(sys.modules, "nerfacc", fake)
    real_tensor, real_zeros = torch.tensor, torch.zeros
    monkeypatch.setattr(torch, "tensor", lambda *a, **k: real_tensor(*a))
    monkeypatch.setattr(torch, "zeros", lambda *a, **k: real_zeros(*a, dtype=k.get("dtype")))
    if right:
        assert resolve_backend("auto", OnDevice("cuda")) == "nerfacc"
        assert resolve_backend("nerfacc", OnDevice("cuda")) == "nerfacc"
        return
    assert resolve_backend("auto", OnDevice("cuda")) == "torch"
    with pytest.raises(MissingExtraError, match="wrong weights"):
        resolve_backend("nerfacc", OnDevice("cuda"))


def test_the_adaptors_speak_the_language_of_nerfacc(monkeypatch):
    calls = {}

    def traverse_grids(rays_o, rays_d, binaries, aabbs, *, near_planes, far_planes, step_size, cone_angle):
        calls["march"] = (near_planes.tolist(), far_planes.tolist(), step_size, cone_angle)
        intervals = types.SimpleNamespace(
            vals=torch.tensor([1.0, 2.0, 3.0]),
            is_left=torch.tensor([True, True, False]),
            is_right=torch.tensor([False, True, True]),
        )
        return intervals, types.SimpleNamespace(ray_indices=torch.tensor([0, 0], dtype=torch.int32)), None

    fake, grid = types.ModuleType("nerfacc"), types.ModuleType("nerfacc.grid")
    fake.render_weight_from_density = lambda *args, **kwargs: ("weights", args, kwargs)  # type: ignore[attr-defined]
    grid.traverse_grids = traverse_grids  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nerfacc", fake)
    monkeypatch.setitem(sys.modules, "nerfacc.grid", grid)
    for module in (march, weights):
        monkeypatch.setattr(module, "resolve_backend", lambda backend, like: "nerfacc")

    rays, starts, ends = march_rays(
        torch.zeros(1, 3),
        torch.ones(1, 3),
        torch.ones(1, 2, 2, 2, dtype=torch.bool),
        torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]]),
        t_first=torch.tensor([0.25]),
        far_plane=9.0,
        step_size=0.5,
    )
    assert calls["march"] == ([0.25], [9.0], 0.5, 0.0)
    assert rays.dtype == torch.int64
    assert (rays.tolist(), starts.tolist(), ends.tolist()) == ([0, 0], [1.0, 2.0], [2.0, 3.0])

    _, args, kwargs = render_weight_from_density(starts, ends, torch.ones(2), rays, 1)
    assert len(args) == 3
    assert kwargs["ray_indices"] is rays
    assert kwargs["n_rays"] == 1


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_samples_and_weights_of_the_cpu():
    generator = torch.Generator().manual_seed(0)
    origins = torch.randn(200, 3, generator=generator) * 1.5
    directions = torch.nn.functional.normalize(torch.rand(200, 3, generator=generator) - 0.5 - origins, dim=1)
    grid = OccupancyGrid([-1, -1, -1, 1, 1, 1], resolution=8)
    grid.binaries.copy_(torch.rand(1, 8, 8, 8, generator=generator) < 0.5)
    expected = grid.sampling(origins, directions, render_step_size=0.05)
    got = grid.cuda().sampling(origins.cuda(), directions.cuda(), render_step_size=0.05, backend="torch")
    for a, b in zip(got, expected):
        torch.testing.assert_close(a.cpu(), b)
    sigmas = torch.rand(len(expected[0]), generator=generator)
    cpu, _, _ = render_weight_from_density(expected[1], expected[2], sigmas, expected[0], 200)
    for backend in ("torch", "auto"):
        cuda, _, _ = render_weight_from_density(got[1], got[2], sigmas.cuda(), got[0], 200, backend=backend)
        torch.testing.assert_close(cuda.cpu(), cpu)
