from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scenes import Ball, bare_volume, camera_batch, renderer_of, small_volume

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime import find
from threestudio_redream.runtime.backgrounds.solid_color import SolidColorBackground
from threestudio_redream.runtime.materials.base import BaseMaterial
from threestudio_redream.runtime.materials.diffuse_with_point_light import DiffuseWithPointLightMaterial
from threestudio_redream.runtime.materials.no_material import NoMaterial
from threestudio_redream.runtime.renderers.base import Rasterizer, Renderer
from threestudio_redream.runtime.renderers.compositing import composite, masked_mean
from threestudio_redream.runtime.renderers.nerf_volume_renderer import NeRFVolumeRenderer

ALWAYS = {"comp_rgb", "comp_rgb_fg", "comp_rgb_bg", "opacity", "depth", "z_variance"}
IN_TRAINING = {"weights", "t_points", "t_intervals", "t_dirs", "ray_indices", "points"}
WHITE = {"color": [1.0, 1.0, 1.0]}


# ----------------------------------------------------------------------------------------- structure
def test_registered_and_bases() -> None:
    assert find("nerf-volume-renderer") is NeRFVolumeRenderer
    renderer = Rasterizer({"radius": 2.0}, geometry=1, material=2, background=3)
    assert (renderer.geometry, renderer.material, renderer.background) == (1, 2, 3)
    assert renderer.bbox.tolist() == [[-2.0] * 3, [2.0] * 3]
    with pytest.raises(NotImplementedError):
        Renderer({}, geometry=1, material=2, background=3)()


def test_scene_is_hidden_from_the_module_tree() -> None:
    renderer = renderer_of(small_volume(), background=SolidColorBackground({"learned": True}))
    assert not list(renderer.parameters())
    assert not list(renderer.children()) or list(renderer.children()) == [renderer.estimator]
    keys = set(renderer.state_dict())
    assert keys == {"bbox"} | {f"estimator.{name}" for name in ("resolution", "aabbs", "occs", "binaries")}


def test_scene_can_be_replaced() -> None:
    renderer = renderer_of(Ball({})).eval()
    batch = camera_batch()
    before = renderer(**batch)["comp_rgb"]
    geometry, material = Ball({"ball_radius": 0.2}), NoMaterial({"color_activation": "exp"})
    background = SolidColorBackground(WHITE)
    renderer.set_geometry(geometry)
    renderer.set_material(material)
    renderer.set_background(background)
    assert (renderer.geometry, renderer.material, renderer.background) == (geometry, material, background)
    assert not torch.allclose(renderer(**batch)["comp_rgb"], before)


# -------------------------------------------------------------------------------------------- images
def test_output_in_evaluation() -> None:
    renderer = renderer_of(small_volume()).eval()
    out = renderer(**camera_batch(4, 6, azimuth=(0.0, 90.0)))
    assert set(out) == ALWAYS
    for key in ("comp_rgb", "comp_rgb_fg", "comp_rgb_bg"):
        assert out[key].shape == (2, 4, 6, 3)
    for key in ("opacity", "depth", "z_variance"):
        assert out[key].shape == (2, 4, 6, 1)
    assert all(torch.isfinite(value).all() for value in out.values())


def test_output_in_training() -> None:
    renderer = renderer_of(small_volume()).train()
    out = renderer(**camera_batch(4, 6, azimuth=(0.0, 90.0, 200.0)))
    assert set(out) == ALWAYS | IN_TRAINING | {"density", "features"}
    samples = out["ray_indices"].shape[0]
    assert samples > 0
    assert out["ray_indices"].dtype == torch.int64
    for key, channels in {
        "weights": 1,
        "t_points": 1,
        "t_intervals": 1,
        "density": 1,
        "t_dirs": 3,
        "points": 3,
    }.items():
        assert out[key].shape == (samples, channels), key
    assert all(torch.isfinite(value).all() for value in out.values())
    assert out["points"].abs().max() <= 1.0 + 1e-5


def test_opaque_ball_has_the_right_depth_normal_and_outline() -> None:
    renderer = renderer_of(Ball({}), background=SolidColorBackground(WHITE), return_comp_normal=True).eval()
    out = renderer(**camera_batch(33, 33))
    step = 2 * math.sqrt(3) / 128
    assert out["opacity"][0, 16, 16].item() == pytest.approx(1.0, abs=1e-4)
    assert out["depth"][0, 16, 16].item() == pytest.approx(1.5, abs=step)
    torch.testing.assert_close(out["comp_normal"][0, 16, 16], torch.tensor([1.0, 0.5, 0.5]), atol=1e-2, rtol=0)
    torch.testing.assert_close(out["comp_rgb"][0, 16, 16], torch.full((3,), 0.5), atol=1e-3, rtol=0)
    torch.testing.assert_close(out["comp_rgb"][0, 0, 0], torch.ones(3))
    assert out["comp_normal"][0, 0, 0].tolist() == [0.0] * 3
    # The outline is a circle: sin(angle) = 0.5 / 2 against 20 degrees half field of view.
    expected = math.pi * (math.tan(math.asin(0.25)) / math.tan(math.radians(20)) * 33 / 2) ** 2
    assert (out["opacity"] > 0.5).sum().item() == pytest.approx(expected, rel=0.08)


def test_transparent_ball_absorbs_as_the_formula_says() -> None:
    renderer = renderer_of(Ball({"inside": 1.5}), num_samples_per_ray=2048, prune_alpha_threshold=False).eval()
    out = renderer(**camera_batch(9, 9))
    assert out["opacity"][0, 4, 4].item() == pytest.approx(1 - math.exp(-1.5), abs=5e-3)
    # Distances in the ball are 1.5 + s with density exp(-1.5 s) cut at s = 1.
    s = torch.linspace(0, 1, 100001, dtype=torch.float64)
    p = 1.5 * torch.exp(-1.5 * s)
    mass = torch.trapezoid(p, s)
    mean = torch.trapezoid(p * s, s) / mass
    variance = torch.trapezoid(p * (s - mean) ** 2, s) / mass
    assert out["depth"][0, 4, 4].item() == pytest.approx((1.5 + mean.item()) * mass.item(), abs=5e-3)
    assert out["z_variance"][0, 4, 4].item() == pytest.approx(variance.item(), abs=2e-3)


def test_sides_of_the_camera() -> None:
    class Sided(Ball):
        """Red where y > 0, green where z > 0."""

        def forward(self, points: torch.Tensor, output_normal: bool = False) -> dict[str, torch.Tensor]:
            output = super().forward(points, output_normal)
            output["features"] = torch.stack([points[:, 1] > 0, points[:, 2] > 0, points[:, 0] > 9], dim=-1).float()
            return output

    renderer = renderer_of(Sided({}), NoMaterial({"color_activation": "none"})).eval()
    image = renderer(**camera_batch(17, 17))["comp_rgb"][0]  # from +x: right is +y, up is +z
    assert image[8, 10].tolist() == pytest.approx([1.0, 0.5, 0.0], abs=0.51)
    assert image[8, 10, 0] > 0.9
    assert image[8, 6, 0] < 0.1
    assert image[6, 8, 1] > 0.9
    assert image[10, 8, 1] < 0.1


@pytest.mark.parametrize("prune", [False, True])
@pytest.mark.parametrize("kind", ["finite_difference", "analytic"])
def test_chunks_change_nothing(prune: bool, kind: str) -> None:
    geometry = small_volume(normal_type=kind)
    batch = camera_batch(7, 5, azimuth=(10.0, 130.0))
    images = []
    for size in (160000, 512):
        renderer = renderer_of(
            geometry, return_comp_normal=True, eval_chunk_size=size, prune_alpha_threshold=prune
        ).eval()
        with torch.no_grad():
            images.append(renderer(**batch))
    for key, value in images[0].items():
        torch.testing.assert_close(images[1][key], value, atol=2e-6, rtol=1e-5, msg=key)
        assert not value.requires_grad


def test_estimators_and_pruning_agree() -> None:
    geometry = bare_volume(density_blob_scale=1000.0, density_blob_std=0.4, density_activation="relu")
    batch = camera_batch(9, 9)
    everything = renderer_of(geometry, grid_prune=False, num_samples_per_ray=1024).eval()(**batch)
    visible_only = renderer_of(geometry, num_samples_per_ray=1024).eval()(**batch)
    importance = renderer_of(
        geometry, estimator="importance", num_samples_per_ray=256, num_samples_per_ray_importance=128
    ).eval()
    pruned = renderer_of(geometry, num_samples_per_ray=1024, prune_alpha_threshold=False).train()
    pruned.update_step(0, 0)
    assert not pruned.estimator.binaries.all()
    pruned.eval()
    for other in (visible_only, importance(**batch), pruned(**batch)):
        for key in ("opacity", "comp_rgb", "depth"):
            # pixels on the outline see the thin outermost layer, which pruning is meant to drop
            assert (other[key] - everything[key]).abs().mean() < 0.01, key
    assert importance.estimator is None
    assert set(importance.state_dict()) == {"bbox"}


def test_importance_sampling_trains() -> None:
    geometry = small_volume()
    renderer = renderer_of(
        geometry, estimator="importance", num_samples_per_ray=16, num_samples_per_ray_importance=16
    ).train()
    out = renderer(**camera_batch(4, 4))
    out["comp_rgb"].sum().backward()
    assert all(parameter.grad is not None for parameter in geometry.parameters())
    assert set(out["ray_indices"].bincount().tolist()) <= {0, 32}


def test_nearest_and_farthest_planes() -> None:
    batch = camera_batch(9, 9)
    cut = renderer_of(Ball({}), near_plane=2.0).eval()(**batch)
    assert cut["depth"][0, 4, 4].item() == pytest.approx(2.0, abs=0.03)
    assert renderer_of(Ball({}), far_plane=1.4).eval()(**batch)["opacity"].max() == 0


# ------------------------------------------------------------------------------------------ material
class _Recorder(BaseMaterial):
    """Colours nothing, remembers what it was given."""

    def forward(self, **kwargs: Any) -> torch.Tensor:
        self.given = kwargs
        return torch.zeros_like(kwargs["positions"])


@pytest.mark.parametrize("mode", [True, False])
def test_what_the_material_receives(mode: bool) -> None:
    renderer = renderer_of(Ball({}), _Recorder({})).train(mode)
    batch = camera_batch(5, 5, azimuth=(0.0, 90.0))
    batch["light_positions"] = torch.tensor([[5.0, 0, 0], [0, 5.0, 0]])
    renderer(
        **batch,
        normal="a batch may hold pictures under the geometry's names",
        density="too",
        rgb=torch.rand(2, 5, 5, 3),
    )
    given = renderer.material.given
    count = given["positions"].shape[0]
    assert given["elevation"] is batch["elevation"]
    assert torch.is_tensor(given["density"])  # the geometry's
    assert given["viewdirs"].shape == given["light_positions"].shape == (count, 3)
    from_first = given["light_positions"][:, 0] == 5.0
    assert from_first.any()
    assert (given["viewdirs"][from_first, 0] < -0.9).all()
    assert (given["viewdirs"][~from_first, 1] < -0.9).all()


def test_light_at_the_camera_by_default() -> None:
    renderer = renderer_of(Ball({}), DiffuseWithPointLightMaterial({}).eval()).eval()
    batch = camera_batch(9, 9)
    torch.testing.assert_close(
        renderer(**batch)["comp_rgb"], renderer(**{**batch, "light_positions": None})["comp_rgb"]
    )
    assert renderer(**batch)["comp_rgb"][0, 4, 4].tolist() == pytest.approx([0.5] * 3, abs=0.01)


# ------------------------------------------------------------------------------------------- normals
def test_normals_are_made_only_for_a_consumer() -> None:
    batch = camera_batch(4, 4)
    asked: list[bool] = []

    class Counting(Ball):
        def forward(self, points: torch.Tensor, output_normal: bool = False) -> dict[str, torch.Tensor]:
            asked.append(output_normal)
            return super().forward(points, output_normal)

    for mode in (True, False):
        assert "comp_normal" not in renderer_of(Counting({})).train(mode)(**batch)
    assert asked == [False, False]
    shaded = renderer_of(Counting({}), DiffuseWithPointLightMaterial({}))
    assert set(shaded.train()(**batch)) >= {"normal", "shading_normal"}
    assert "comp_normal" not in shaded.train()(**batch)
    assert "comp_normal" in shaded.eval()(**batch)
    wanted = renderer_of(Counting({}), return_comp_normal=True, return_normal_perturb=True)
    out = wanted.train()(**batch)
    assert out["comp_normal"].shape == (1, 4, 4, 3)
    assert out["normal_perturb"].shape == out["normal"].shape
    assert not torch.equal(out["normal_perturb"], out["normal"])
    assert "normal_perturb" not in wanted.eval()(**batch)


# --------------------------------------------------------------------------------------- randomness
def test_jitter_follows_the_training_flag_itself() -> None:
    renderer = renderer_of(small_volume())
    batch = camera_batch(4, 4)
    renderer.train()
    assert renderer.randomized
    assert not torch.equal(renderer(**batch)["comp_rgb"], renderer(**batch)["comp_rgb"])
    renderer.eval()
    assert not renderer.randomized
    assert torch.equal(renderer(**batch)["comp_rgb"], renderer(**batch)["comp_rgb"])
    renderer.training = True  # what Lightning >= 2.2 does after validation
    assert renderer.randomized
    assert not torch.equal(renderer(**batch)["comp_rgb"], renderer(**batch)["comp_rgb"])
    assert not renderer_of(small_volume(), randomized=False).train().randomized


@pytest.mark.parametrize("estimator", ["occgrid", "importance"])
def test_a_seed_fixes_everything(estimator: str) -> None:
    renderer = renderer_of(small_volume(), estimator=estimator, num_samples_per_ray=64).train()
    batch = camera_batch(6, 6)

    def run() -> list[torch.Tensor]:
        torch.manual_seed(5)
        renderer._grid_step = -1
        renderer.update_step(0, 0)
        renderer.geometry.zero_grad()
        out = renderer(**batch)
        out["comp_rgb"].square().mean().backward()
        return [out["comp_rgb"].detach(), *[parameter.grad.clone() for parameter in renderer.geometry.parameters()]]

    assert all(torch.equal(first, second) for first, second in zip(run(), run(), strict=True))


# -------------------------------------------------------------------------------------- empty scenes
def test_empty_scene_is_background_and_trains_on(caplog: Any) -> None:
    background = SolidColorBackground({"color": [0.2, 0.4, 0.6], "learned": True})
    geometry = small_volume()
    renderer = renderer_of(geometry, DiffuseWithPointLightMaterial({}), background, return_comp_normal=True).train()
    renderer.estimator.binaries.fill_(False)
    batch = camera_batch(4, 5)
    with caplog.at_level("WARNING", "pytorch_lightning"):
        outs = [renderer(**batch) for _ in range(25)]
    assert caplog.text.count("Nothing to render") == 2  # at the 1st and the 10th
    out = outs[0]
    assert (out["opacity"] == 0).all()
    assert (out["depth"] == 0).all()
    assert (out["z_variance"] == 0).all()
    assert (out["comp_normal"] == 0).all()
    torch.testing.assert_close(out["comp_rgb"][0, 2, 2], torch.tensor([0.2, 0.4, 0.6]))
    assert out["weights"].shape == out["density"].shape == (0, 1)
    loss = out["comp_rgb"].mean() + out["opacity"].mean() + out["comp_normal"].mean()
    (loss + masked_mean(out["z_variance"], out["opacity"] > 0.5)).backward()
    assert torch.isfinite(loss)
    for name, parameter in geometry.named_parameters():
        assert parameter.grad is None or (parameter.grad == 0).all(), name
    assert background.env_color.grad.abs().sum() > 0


def test_empty_scene_in_evaluation_is_silent(caplog: Any) -> None:
    renderer = renderer_of(Ball({}), background=SolidColorBackground(WHITE)).eval()
    renderer.estimator.binaries.fill_(False)
    with caplog.at_level("WARNING"):
        assert (renderer(**camera_batch(4, 4))["comp_rgb"] == 1).all()
    assert not caplog.records


def test_rays_that_miss_everything() -> None:
    batch = camera_batch(4, 4)
    batch["rays_d"] = -batch["rays_d"]
    for estimator in ("occgrid", "importance"):
        out = renderer_of(Ball({}), estimator=estimator).train()(**batch)
        assert (out["opacity"] == 0).all()
        out["comp_rgb"].sum().backward()


def test_masked_mean() -> None:
    values = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    assert masked_mean(values, torch.tensor([True, False, True])).item() == 3.5
    empty = masked_mean(values, torch.zeros(3, dtype=torch.bool))
    empty.backward()
    assert empty.item() == 0.0
    assert values.grad.tolist() == [0.0] * 3


# --------------------------------------------------------------------------------------- compositing
def test_composite_numbers() -> None:
    # Ray 0: alpha 0.5 at distance 1 (red), then opaque at 3 (green). Ray 1: nothing. Ray 2: alpha 0.5 at 2 (red).
    starts, ends = torch.tensor([0.5, 2.5, 1.5]), torch.tensor([1.5, 3.5, 2.5])
    density = torch.tensor([math.log(2.0), 1e5, math.log(2.0)])
    color = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [1.0, 0, 0]])
    normal = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 0, -1.0]])
    out = composite(starts, ends, torch.tensor([0, 0, 2]), 3, density, color, normal)
    torch.testing.assert_close(out["weights"][:, 0], torch.tensor([0.5, 0.5, 0.5]))
    torch.testing.assert_close(out["opacity"][:, 0], torch.tensor([1.0, 0.0, 0.5]))
    torch.testing.assert_close(out["comp_rgb_fg"], torch.tensor([[0.5, 0.5, 0], [0, 0, 0], [0.5, 0, 0]]))
    torch.testing.assert_close(out["depth"][:, 0], torch.tensor([2.0, 0.0, 1.0]))
    torch.testing.assert_close(out["z_variance"][:, 0], torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(out["comp_normal"], torch.tensor([[1.0, 0.5, 0.5], [0, 0, 0], [0.25, 0.25, 0.0]]))


def test_composite_gradients() -> None:
    starts = torch.tensor([0.0, 0.5, 1.0, 0.2, 0.9], dtype=torch.float64)
    index = torch.tensor([0, 0, 0, 2, 2])
    density = torch.tensor([0.8, 2.0, 4.0, 1.0, 3.0], dtype=torch.float64, requires_grad=True)
    color = torch.rand(5, 2, dtype=torch.float64, requires_grad=True)
    normal = torch.nn.functional.normalize(torch.randn(5, 3, dtype=torch.float64), dim=-1).requires_grad_()

    def images(density: torch.Tensor, color: torch.Tensor, normal: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out = composite(starts, starts + 0.4, index, 3, density, color, normal)
        seen = [0, 2]  # a ray without samples has an undefined normal direction, times an opacity of 0
        return tuple(out[key][seen] for key in ("comp_rgb_fg", "opacity", "depth", "z_variance", "comp_normal"))

    assert torch.autograd.gradcheck(images, (density, color, normal))


def test_gradients_reach_field_and_background() -> None:
    geometry, background = small_volume(), SolidColorBackground({"learned": True})
    out = renderer_of(geometry, background=background).train()(**camera_batch(6, 6))
    (out["comp_rgb"].square().mean() + out["z_variance"].mean()).backward()
    for name, parameter in [*geometry.named_parameters(), *background.named_parameters()]:
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


# ---------------------------------------------------------------------------------- background colour
def test_background_color_can_be_given() -> None:
    renderer = renderer_of(Ball({}), background=SolidColorBackground(WHITE)).eval()
    batch = camera_batch(4, 4, azimuth=(0.0, 90.0))
    per_image = renderer(**batch, bg_color=torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]))
    assert per_image["comp_rgb"][0, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert per_image["comp_rgb"][1, 0, 0].tolist() == [0.0, 1.0, 0.0]
    assert per_image["comp_rgb_bg"][1, 0, 0].tolist() == [1.0] * 3
    picture = torch.rand(2, 4, 4, 3)
    torch.testing.assert_close(renderer(**batch, bg_color=picture)["comp_rgb"][:, 0, 0], picture[:, 0, 0])
    with pytest.raises(ConfigError, match="bg_color") as caught:
        renderer(**batch, bg_color=torch.rand(3))
    assert caught.value.received == (3,)
    assert "(2, 3)" in caught.value.fix


# -------------------------------------------------------------------------------------------- the grid
def test_grid_is_refreshed_in_training_only_and_once_per_step() -> None:
    renderer = renderer_of(Ball({}))
    calls: list[int] = []
    original = renderer.estimator.update_every_n_steps

    def counted(step: int, **kwargs: Any) -> bool:
        calls.append(step)
        return original(step, **kwargs)

    renderer.estimator.update_every_n_steps = counted
    renderer.eval().do_update_step(0, 0)
    renderer.train().do_update_step(0, 0, on_load_weights=True)
    assert not calls
    assert renderer.estimator.binaries.all()
    renderer.do_update_step(0, 0)
    renderer.do_update_step(0, 0)
    renderer.do_update_step(0, 1)
    assert calls == [0, 1]
    assert renderer.estimator.binaries.float().mean().item() == pytest.approx(math.pi / 6 * 0.125, rel=0.2)


def test_without_pruning_the_grid_stays_full() -> None:
    renderer = renderer_of(Ball({}), grid_prune=False).train()
    renderer.do_update_step(0, 0)
    assert renderer.estimator.binaries.all()
    assert (renderer.estimator.occs == 1).all()


def test_grid_survives_a_checkpoint() -> None:
    trained = renderer_of(Ball({})).train()
    trained.do_update_step(0, 0)
    fresh = renderer_of(trained.geometry)
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh.estimator.binaries, trained.estimator.binaries)
    batch = camera_batch(5, 5)
    assert torch.equal(fresh.eval()(**batch)["comp_rgb"], trained.eval()(**batch)["comp_rgb"])


@pytest.mark.parametrize(
    ("config", "problem", "received"),
    [
        ({"estimator": "proposal"}, "estimator", "proposal"),
        ({"num_samples_per_ray": 0}, "num_samples_per_ray", 0),
    ],
)
def test_config_errors(config: dict[str, Any], problem: str, received: Any) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        renderer_of(Ball({}), **config)
    assert caught.value.received == received
    assert caught.value.fix
