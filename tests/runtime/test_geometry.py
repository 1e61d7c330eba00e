from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from scenes import SMALL_GRID, SMALL_MLP, Ball, bare_volume, small_volume

from threestudio_redream.errors import ConfigError, EmptySceneError
from threestudio_redream.meshing.topology import is_watertight, signed_volume
from threestudio_redream.runtime import find
from threestudio_redream.runtime.geometry.base import BaseExplicitGeometry, BaseGeometry, contract_to_unisphere
from threestudio_redream.runtime.geometry.implicit_volume import ImplicitVolume
from threestudio_redream.runtime.geometry.normals import finite_difference_normal
from threestudio_redream.runtime.geometry.surface import SurfaceMesh

BOX = torch.tensor([[-1.0] * 3, [1.0] * 3])


# ---------------------------------------------------------------------------------------- contraction
def test_bounded_contraction_is_the_box() -> None:
    box = torch.tensor([[-1.0, -2.0, 0.0], [1.0, 2.0, 4.0]])
    points = torch.tensor([[-1.0, -2.0, 0.0], [0.0, 0.0, 2.0], [1.0, 2.0, 4.0], [3.0, 0.0, 2.0]])
    expected = torch.tensor([[0.0] * 3, [0.5] * 3, [1.0] * 3, [2.0, 0.5, 0.5]])
    torch.testing.assert_close(contract_to_unisphere(points, box), expected)


def test_unbounded_contraction_convention() -> None:
    points = torch.tensor([[1.0, 0, 0], [2.0, 0, 0], [0.5, 0, 0], [0, -1e9, 0]])
    expected = torch.tensor([[0.75, 0.5, 0.5], [0.875, 0.5, 0.5], [0.625, 0.5, 0.5], [0.5, 0.0, 0.5]])
    torch.testing.assert_close(contract_to_unisphere(points, BOX, unbounded=True), expected)
    assert torch.equal(points[0], torch.tensor([1.0, 0, 0]))  # the input stays as it is


def test_unbounded_contraction_keeps_directions_and_order() -> None:
    direction = torch.nn.functional.normalize(torch.randn(1, 3, dtype=torch.float64), dim=-1)
    along = direction * torch.logspace(-3, 4, 200, dtype=torch.float64)[:, None]
    centred = contract_to_unisphere(along, BOX.double(), unbounded=True) - 0.5
    norm = centred.norm(dim=-1)
    assert (norm.diff() > 0).all()
    assert norm.max() < 0.5
    torch.testing.assert_close(centred / norm[:, None], direction.expand_as(centred))
    origin = torch.zeros(1, 3, requires_grad=True)
    contract_to_unisphere(origin, BOX, unbounded=True).sum().backward()
    assert torch.isfinite(origin.grad).all()


# -------------------------------------------------------------------------------------------- density
def test_registered_and_default_config() -> None:
    assert find("implicit-volume") is ImplicitVolume
    geometry = small_volume()
    assert geometry.bbox.tolist() == [[-1.0] * 3, [1.0] * 3]
    assert set(geometry.state_dict()) >= {"bbox", "density_network.layers.0.weight", "feature_network.layers.0.weight"}


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0,)])
def test_forward_keeps_leading_shape(shape: tuple[int, ...]) -> None:
    geometry = small_volume(n_feature_dims=4)
    points = torch.rand(*shape, 3) * 2 - 1
    output = geometry(points, output_normal=True)
    assert {key: tuple(value.shape) for key, value in output.items()} == {
        "density": (*shape, 1),
        "features": (*shape, 4),
        "normal": (*shape, 3),
        "shading_normal": (*shape, 3),
    }
    assert set(geometry(points)) == {"density", "features"}
    torch.testing.assert_close(geometry.forward_density(points), output["density"])
    torch.testing.assert_close(geometry.export(points)["features"], output["features"])
    field, deformation = geometry.forward_field(points)
    torch.testing.assert_close(field, output["density"])
    assert deformation is None
    torch.testing.assert_close(geometry.forward_level(field, 3.0), 3.0 - field)


def test_no_features() -> None:
    geometry = small_volume(n_feature_dims=0)
    assert set(geometry(torch.rand(3, 3))) == {"density"}
    assert geometry.export(torch.rand(3, 3)) == {}
    assert not hasattr(geometry, "feature_network")


def test_density_bias_numbers() -> None:
    point = torch.tensor([[0.0, 0.3, 0.0]])
    common = {"density_activation": "none", "density_blob_scale": 10.0, "density_blob_std": 0.5}
    assert bare_volume(density_bias="blob_magic3d", **common).forward_density(point).item() == pytest.approx(
        4.0, rel=1e-5
    )
    dreamfusion = 10.0 * math.exp(-0.5 * 0.09 / 0.25)
    assert bare_volume(density_bias="blob_dreamfusion", **common).forward_density(point).item() == pytest.approx(
        dreamfusion
    )
    assert bare_volume(density_bias=-1, **common).forward_density(point).item() == -1.0
    raw, activated = bare_volume(density_bias=0.5).get_activated_density(point, torch.zeros(1, 1))
    assert raw.item() == 0.5
    assert activated.item() == pytest.approx(math.log1p(math.exp(0.5)))


def test_blob_width_is_annealed() -> None:
    anneal = {"min_anneal_step": 10, "max_anneal_step": 20, "start_val": 0.2, "end_val": 0.4}
    geometry = bare_volume(density_activation="none", anneal_density_blob_std_config=anneal)
    for step, std in [(0, 0.2), (10, 0.2), (15, 0.3), (15, 0.3), (99, 0.4)]:
        geometry.do_update_step(0, step)
        expected = 10.0 * (1.0 - 0.1 / std)
        assert geometry.forward_density(torch.tensor([[0.1, 0, 0]])).item() == pytest.approx(expected, rel=1e-5)


def test_gradients_reach_every_parameter() -> None:
    geometry = small_volume(normal_type="pred")
    output = geometry(torch.rand(50, 3) * 2 - 1, output_normal=True)
    (output["density"].sum() + output["features"].sum() + output["normal"][:, 0].sum()).backward()
    for name, parameter in geometry.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


# -------------------------------------------------------------------------------------------- normals
@pytest.mark.parametrize("kind", ["finite_difference", "finite_difference_laplacian", "analytic"])
@pytest.mark.parametrize("bias", ["blob_magic3d", "blob_dreamfusion"])
def test_normals_are_unit_and_point_outwards(kind: str, bias: str) -> None:
    geometry = bare_volume(normal_type=kind, density_bias=bias, finite_difference_normal_eps=1e-3)
    direction = torch.nn.functional.normalize(torch.randn(40, 3), dim=-1)
    points = torch.cat([0.3 * direction, torch.tensor([[0.3, 0.0, 0.0], [1.0, 1.0, -1.0], [-1.0, 0.2, 1.0]])])
    normal = geometry(points, output_normal=True)["normal"]
    torch.testing.assert_close(normal.norm(dim=-1), torch.ones(43))
    assert ((normal * torch.nn.functional.normalize(points, dim=-1)).sum(dim=-1) > 0.99).all()
    torch.testing.assert_close(normal[40], torch.tensor([1.0, 0.0, 0.0]), atol=2e-2, rtol=0)


def test_normals_survive_tiny_density() -> None:
    geometry = bare_volume(density_bias=-60.0)  # softplus(-60) = 9e-27: its differences would round to zero
    with torch.no_grad():
        for parameter in geometry.density_network.parameters():
            parameter.normal_()
    normal = geometry(torch.rand(20, 3) * 1.8 - 0.9, output_normal=True)["normal"]
    torch.testing.assert_close(normal.norm(dim=-1), torch.ones(20))


def test_normal_types_agree_on_a_field_with_detail() -> None:
    points = torch.rand(100, 3) * 1.6 - 0.8
    geometry = small_volume(normal_type="analytic")
    exact = geometry(points, output_normal=True)["normal"]
    for kind in ("finite_difference", "finite_difference_laplacian"):
        geometry.cfg.normal_type = kind
        geometry.cfg.finite_difference_normal_eps = 1e-3
        geometry.do_update_step(0, 0)
        approximate = geometry(points, output_normal=True)["normal"]
        assert (exact * approximate).sum(dim=-1).median() > 0.99


def test_finite_differences_stay_inside_the_bound() -> None:
    asked: list[torch.Tensor] = []

    def field(points: torch.Tensor) -> torch.Tensor:
        asked.append(points)
        return -points.norm(dim=-1, keepdim=True)

    points = torch.tensor([[1.0, 1.0, 1.0], [-1.0, 1.0, 0.0], [0.5, 0.0, 0.0]])
    for central in (False, True):
        normal = finite_difference_normal(field, points, field(points), 0.01, bound=1.0, central=central)
        expected = torch.nn.functional.normalize(points, dim=-1)
        torch.testing.assert_close(normal, expected, atol=0.02, rtol=0)
        free = finite_difference_normal(field, points, field(points), 0.01, central=central)
        torch.testing.assert_close(free, expected, atol=0.02, rtol=0)
        assert asked[-3].abs().max() <= 1.0  # the bounded call
        assert asked[-1].abs().max() > 1.0  # the free one
    constant = finite_difference_normal(torch.ones_like, points, torch.ones(3, 1), 0.01)
    assert torch.equal(constant, torch.zeros(3, 3))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_analytic_normals_without_a_graph(context: Any) -> None:
    geometry = bare_volume(normal_type="analytic")
    points = torch.tensor([[0.0, 0.0, 0.4]])
    with context():
        output = geometry(points, output_normal=True)
        torch.testing.assert_close(output["normal"], torch.tensor([[0.0, 0.0, 1.0]]))
        assert not any(value.requires_grad for value in output.values())
    assert not points.requires_grad


def test_analytic_normals_train_the_field() -> None:
    geometry = small_volume(normal_type="analytic")
    points = torch.rand(30, 3, requires_grad=True)
    geometry(points * 1.0, output_normal=True)["normal"][:, 0].sum().backward()
    grid = next(geometry.encoding.parameters())
    assert grid.grad is not None
    assert grid.grad.abs().sum() > 0
    assert torch.isfinite(grid.grad).all()
    assert points.grad is not None


def test_predicted_normals_are_unit() -> None:
    normal = small_volume(normal_type="pred")(torch.rand(10, 3), output_normal=True)["normal"]
    torch.testing.assert_close(normal.norm(dim=-1), torch.ones(10))


@pytest.mark.parametrize("kind", ["none", None])
def test_normals_that_nobody_makes(kind: str | None) -> None:
    geometry = small_volume(normal_type=kind)
    assert "normal" not in geometry(torch.rand(2, 3))
    with pytest.raises(ConfigError, match="makes none") as caught:
        geometry(torch.rand(2, 3), output_normal=True)
    assert caught.value.received == kind
    assert "finite_difference" in caught.value.fix


def test_progressive_step_is_the_finest_open_cell() -> None:
    grid = {**SMALL_GRID, "otype": "ProgressiveBandHashGrid", "start_level": 2, "start_step": 0, "update_steps": 100}
    geometry = small_volume(pos_encoding_config=grid, finite_difference_normal_eps="progressive", radius=2.0)
    assert geometry.finite_difference_normal_eps == pytest.approx(2 * 2.0 / (4 * 1.5))
    for _ in range(2):
        geometry.do_update_step(0, 200)
        assert geometry.finite_difference_normal_eps == pytest.approx(2 * 2.0 / (4 * 1.5**3))
    with pytest.raises(ConfigError, match="ProgressiveBandHashGrid") as caught:
        small_volume(finite_difference_normal_eps="progressive")
    assert caught.value.received == "HashGrid"
    assert "0.01" in caught.value.fix


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"density_bias": "blob"}, "density_bias"),
        ({"density_bias": True}, "density_bias"),
        ({"normal_type": "smooth"}, "normal_type"),
        ({"finite_difference_normal_eps": 0}, "finite_difference_normal_eps"),
        ({"finite_difference_normal_eps": "auto"}, "finite_difference_normal_eps"),
        ({"anneal_density_blob_std_config": {"start_val": 1}}, "incomplete"),
        ({"radius": 0.0}, "radius"),
    ],
)
def test_config_errors(config: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        small_volume(**config)
    assert caught.value.received is not ...
    assert caught.value.fix


# --------------------------------------------------------------------------------------------- copies
def test_create_from_copies_the_field() -> None:
    source = small_volume(normal_type="pred")
    config = OmegaConf.create(
        {
            "pos_encoding_config": SMALL_GRID,
            "mlp_network_config": SMALL_MLP,
            "normal_type": "pred",
            "isosurface_threshold": 3,
        }
    )
    copy = ImplicitVolume.create_from(source, config)
    points = torch.rand(20, 3)
    for key, value in source(points, output_normal=True).items():
        torch.testing.assert_close(copy(points, output_normal=True)[key], value)
    assert copy.cfg.isosurface_threshold == 3
    shape_only = ImplicitVolume.create_from(source, config, copy_net=False)
    torch.testing.assert_close(shape_only.forward_density(points), source.forward_density(points))
    assert not torch.allclose(shape_only(points)["features"], source(points)["features"])


@pytest.mark.parametrize("target", [ImplicitVolume, BaseGeometry])
def test_create_from_foreign_geometry(target: type[BaseGeometry]) -> None:
    with pytest.raises(TypeError) as caught:
        target.create_from(Ball({}))
    assert caught.value.received == "Ball"
    assert "implicit-volume" in caught.value.fix


def test_bases() -> None:
    explicit = BaseExplicitGeometry({"radius": 2.0})
    assert explicit.bbox.tolist() == [[-2.0] * 3, [2.0] * 3]
    assert explicit.export() == {}


# ----------------------------------------------------------------------------------------- isosurface
def test_isosurface_of_a_ball() -> None:
    # Density 10 (1 - r / 0.5) is 5 at r = 0.25.
    geometry = bare_volume(density_activation="none", isosurface_threshold=5, isosurface_resolution=32)
    mesh = geometry.isosurface()
    assert mesh.v_pos.dtype == torch.float32
    assert mesh.t_pos_idx.dtype == torch.int64
    torch.testing.assert_close(mesh.v_pos.norm(dim=-1), torch.full((len(mesh.v_pos),), 0.25), atol=2e-3, rtol=0)
    numpy_mesh = mesh.to_mesh()
    assert is_watertight(numpy_mesh.faces)
    assert signed_volume(numpy_mesh.vertices, numpy_mesh.faces) == pytest.approx(4 / 3 * math.pi * 0.25**3, rel=0.02)
    assert ((mesh.v_nrm * mesh.v_pos).sum(dim=-1) / 0.25).min() > 0.95
    assert mesh.v_nrm is mesh.v_nrm
    assert not mesh.requires_grad
    # The second, tight pass searched a box of the ball, ten percent larger.
    assert mesh.extras["bbox"].abs().max().item() == pytest.approx(0.3, abs=0.03)


def test_isosurface_options() -> None:
    common = {"density_activation": "none", "isosurface_resolution": 24, "isosurface_chunk": 1000}
    once = bare_volume(isosurface_threshold=5.0, isosurface_coarse_to_fine=False, isosurface_method="mc-cpu", **common)
    mesh = once.isosurface()
    assert torch.equal(mesh.extras["bbox"], once.bbox)
    mesh.add_extra("name", "ball")
    assert mesh.extras["name"] == "ball"
    auto = bare_volume(isosurface_threshold="auto", **common).isosurface()
    # The mean of 10 (1 - r / 0.5) over the ball of radius 0.5 is 2.5, which is reached at r = 0.375.
    assert auto.v_pos.norm(dim=-1).mean().item() == pytest.approx(0.375, abs=0.03)


class _TwoBalls(Ball):
    """A ball of radius 0.5 at the origin and one of radius 0.12 near a corner."""

    def forward_density(self, points: torch.Tensor) -> torch.Tensor:
        big = 0.5 - points.norm(dim=-1, keepdim=True)
        small = 0.12 - (points - torch.tensor([0.8, 0.8, 0.8])).norm(dim=-1, keepdim=True)
        return torch.maximum(big, small)

    def forward_field(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.forward_density(points), torch.zeros_like(points)

    def forward_level(self, field: torch.Tensor, threshold: float) -> torch.Tensor:
        return threshold - field


@pytest.mark.parametrize(("limit", "reach"), [(0.2, 0.51), (0.01, 0.8), (10**3, 0.51), (1, 0.8)])
def test_loose_parts_are_dropped(limit: float, reach: float, caplog: Any) -> None:
    geometry = _TwoBalls({"isosurface_resolution": 33, "isosurface_outlier_n_faces_threshold": limit})
    with caplog.at_level("WARNING", "pytorch_lightning"):
        largest = geometry.isosurface().v_pos.abs().max().item()
    assert (largest > 0.7) == (reach > 0.7)
    assert "deformation" in caplog.text


def test_loose_parts_may_stay() -> None:
    geometry = _TwoBalls({"isosurface_resolution": 33, "isosurface_remove_outliers": False})
    assert geometry.isosurface().v_pos.abs().max() > 0.8


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"isosurface": False}, "switched off"),
        ({"isosurface_method": "dual"}, "isosurface method"),
        ({"isosurface_threshold": "mean"}, "isosurface_threshold"),
        ({"isosurface_outlier_n_faces_threshold": -1, "isosurface_threshold": 5.0}, "outlier"),
    ],
)
def test_isosurface_errors(config: dict[str, Any], problem: str) -> None:
    geometry = bare_volume(density_activation="none", isosurface_resolution=16, **config)
    with pytest.raises(ConfigError, match=problem) as caught:
        geometry.isosurface()
    assert caught.value.received is not ...
    assert caught.value.fix


@pytest.mark.parametrize("threshold", [1e6, "auto"])
def test_isosurface_of_nothing(threshold: Any) -> None:
    geometry = bare_volume(
        density_bias=-1.0, density_activation="relu", isosurface_resolution=16, isosurface_threshold=threshold
    )
    with pytest.raises(EmptySceneError) as caught:
        geometry.isosurface()
    assert caught.value.fix


def test_surface_mesh_carries_extras() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    mesh = SurfaceMesh(vertices, faces, note=1)
    assert mesh.extras == {"note": 1}
    assert (mesh.v_nrm[0] < 0).all()
