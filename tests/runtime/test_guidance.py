from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime import BaseModule
from threestudio_redream.runtime.guidance.base import (
    BaseGuidance,
    GuidanceClock,
    clip_gradient,
    perpendicular_component,
    sds_loss,
)


def test_target_trick_has_the_wanted_gradient() -> None:
    latents = torch.randn(3, 4, 2, 2, requires_grad=True)
    grad = torch.randn(3, 4, 2, 2)
    loss = sds_loss(latents, grad)
    loss.backward()
    torch.testing.assert_close(latents.grad, grad / 3)
    torch.testing.assert_close(loss.detach(), 0.5 * grad.square().sum() / 3)


def test_target_trick_drops_nan() -> None:
    latents = torch.zeros(1, 2, requires_grad=True)
    sds_loss(latents, torch.tensor([[torch.nan, 2.0]])).backward()
    assert latents.grad.tolist() == [[0.0, 2.0]]


def test_target_trick_checks_shapes() -> None:
    with pytest.raises(ConfigError, match="shape of the latents") as caught:
        sds_loss(torch.zeros(1, 2), torch.zeros(2))
    assert caught.value.received == ((1, 2), (2,))
    assert caught.value.fix


def test_clipping() -> None:
    grad = torch.tensor([torch.nan, -5.0, 0.5])
    assert clip_gradient(grad, 1.0).tolist() == [0.0, -1.0, 0.5]
    assert clip_gradient(grad, None).tolist() == [0.0, -5.0, 0.5]


def test_perpendicular_component() -> None:
    x, y = torch.tensor([1.0, 1.0]).view(1, 2, 1, 1), torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
    assert perpendicular_component(x, y).flatten().tolist() == [0.0, 1.0]
    torch.testing.assert_close(perpendicular_component(x, torch.zeros_like(y)), x)
    images, others = torch.randn(2, 5, 4, 3, 3)
    rest = perpendicular_component(images, others)
    assert (rest * others).flatten(1).sum(dim=1).abs().max() < 1e-4
    assert rest.shape == images.shape


class Pull(BaseGuidance):
    """Score distillation towards grey, with the clock of the base class."""

    def __call__(self, rgb: torch.Tensor, prompt_utils: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        t = self.sample_timesteps(rgb.shape[0], rgb.device)
        grad = clip_gradient(rgb - 0.5, self.grad_clip_val)
        return {"loss_sds": sds_loss(rgb, grad), "grad_norm": grad.norm(), "min_step": self.min_step, "t": t}


def test_guidance_as_a_system_calls_it() -> None:
    guidance = Pull({})
    rgb = torch.rand(2, 4, 4, 3, requires_grad=True)
    batch = {"elevation": torch.zeros(2), "azimuth": torch.zeros(2), "camera_distances": torch.ones(2), "index": 3}
    out = guidance(rgb, None, **batch, rgb_as_latents=False)
    out["loss_sds"].backward()
    torch.testing.assert_close(rgb.grad, (rgb.detach() - 0.5) / 2)
    assert out["t"].shape == (2,)


def test_base_guidance_is_abstract() -> None:
    with pytest.raises(NotImplementedError):
        BaseGuidance({})(torch.zeros(1, 2, 2, 3), None, torch.zeros(1), torch.zeros(1), torch.ones(1))


def test_schedules_are_read_again_at_every_step() -> None:
    guidance = Pull(
        OmegaConf.create(
            {"max_step_percent": [100, 0.98, 0.5, 200], "min_step_percent": 0.02, "grad_clip": [0, 1.0, 3.0, 100]}
        )
    )
    assert (guidance.min_step, guidance.max_step, guidance.grad_clip_val) == (20, 980, 1.0)
    for _ in range(2):
        guidance.do_update_step(0, 150)
        assert (guidance.min_step, guidance.max_step, guidance.grad_clip_val) == (20, 740, 3.0)
    guidance.do_update_step(0, 50)
    assert (guidance.max_step, guidance.grad_clip_val) == (980, 2.0)


def test_timesteps_are_uniform_and_inclusive() -> None:
    guidance = Pull({"min_step_percent": 0.1, "max_step_percent": 0.104})
    drawn = guidance.sample_timesteps(2000, "cpu")
    assert drawn.dtype == torch.int64
    assert drawn.unique().tolist() == [100, 101, 102, 103, 104]
    full = Pull({"min_step_percent": 0.0, "max_step_percent": 1.0})
    assert (full.min_step, full.max_step) == (0, 999)
    generator = torch.Generator().manual_seed(1)
    first = guidance.sample_timesteps(9, "cpu", generator)
    assert torch.equal(guidance.sample_timesteps(9, "cpu", generator.manual_seed(1)), first)


def test_annealing_takes_one_timestep_that_falls() -> None:
    guidance = Pull({"sqrt_anneal": True, "trainer_max_steps": 400})
    seen = []
    for step in (0, 100, 400, 500):
        guidance.do_update_step(0, step)
        assert guidance.min_step == guidance.max_step
        seen.append(guidance.min_step)
    assert seen == [980, 500, 20, 20]


@pytest.mark.parametrize("bounds", [(0.5, 0.2), (-0.1, 0.5), (0.1, 1.5)])
def test_bounds_must_make_sense(bounds: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="in order") as caught:
        Pull({"min_step_percent": bounds[0], "max_step_percent": bounds[1]})
    assert caught.value.received == bounds
    assert "0.98" in caught.value.fix


class Trained(GuidanceClock, BaseModule):
    """A guidance with parameters, as VSD is."""

    @dataclass
    class Config(BaseModule.Config):
        min_step_percent: Any = 0.02
        max_step_percent: Any = 0.98
        grad_clip: Any = None
        sqrt_anneal: bool = False
        trainer_max_steps: int = 100

    cfg: Config

    def configure(self) -> None:
        self.layer = nn.Linear(2, 2)
        self.set_num_train_timesteps(500)


def test_clock_mixes_into_modules() -> None:
    guidance = Trained({"max_step_percent": 0.5})
    guidance.do_update_step(0, 3)
    assert (guidance.min_step, guidance.max_step, guidance.grad_clip_val) == (10, 250, None)
    assert set(guidance.state_dict()) == {"layer.weight", "layer.bias"}
