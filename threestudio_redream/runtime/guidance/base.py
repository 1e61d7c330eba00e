"""What a guidance is, and the small pieces every score-distillation guidance shares.

The functions and :class:`GuidanceClock` need no base class of this package, so a guidance that must
also run inside upstream threestudio can use them with upstream's BaseObject or BaseModule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.base import BaseObject
from threestudio_redream.runtime.ops import perpendicular_component
from threestudio_redream.runtime.prompt_processors.output import PromptProcessorOutput
from threestudio_redream.runtime.schedule import C, largest_value

__all__ = ["BaseGuidance", "GuidanceClock", "clip_gradient", "perpendicular_component", "sds_loss"]


def sds_loss(latents: Tensor, grad: Tensor) -> Tensor:
    """A loss whose gradient with respect to ``latents`` is ``grad / batch size``.

    The "target" trick: ``0.5 * sum((latents - target)^2) / B`` with ``target = latents - grad`` held
    constant. Its value is ``0.5 * sum(grad^2) / B``, which says nothing about progress.

    Args:
        latents: ``[B, ...]`` float, with a graph. grad: same shape; NaN counts as 0, infinities as
            the largest finite number.

    Returns:
        A scalar.

    Raises:
        ConfigError: if the shapes differ.
    """
    if latents.shape != grad.shape:
        raise ConfigError(
            "The gradient does not have the shape of the latents",
            received=(tuple(latents.shape), tuple(grad.shape)),
            fix="Pass one gradient per latent.",
        )
    target = (latents - torch.nan_to_num(grad)).detach()
    return 0.5 * (latents - target).square().sum() / latents.shape[0]


def clip_gradient(grad: Tensor, limit: float | None) -> Tensor:
    """NaN to 0, then every element to ``[-limit, limit]``; None does not limit."""
    grad = torch.nan_to_num(grad)
    return grad if limit is None else grad.clamp(-limit, limit)


class GuidanceClock:
    """Timestep range and gradient limit that follow the training clock.

    Mix in before the base class: ``class Mine(GuidanceClock, BaseModule)``. ``cfg`` needs ``min_step_percent``,
    ``max_step_percent`` and ``grad_clip`` (scheduled scalars; None means no limit), ``sqrt_anneal`` and
    ``trainer_max_steps``. Call :meth:`set_num_train_timesteps` in ``configure``.

    Attributes:
        min_step, max_step: inclusive range of timesteps. grad_clip_val: limit, or None.
    """

    cfg: Any
    num_train_timesteps: int = 1000
    min_step: int = 20
    max_step: int = 980
    grad_clip_val: float | None = None

    def set_num_train_timesteps(self, count: int) -> None:
        """Say how many timesteps the diffusion model has, and set the range for step 0."""
        self.num_train_timesteps = count
        GuidanceClock.update_step(self, 0, 0)

    def set_min_max_steps(self, min_step_percent: float = 0.02, max_step_percent: float = 0.98) -> None:
        """Set the range as shares of all timesteps: 0.02 of 1000 is timestep 20.

        Raises:
            ConfigError: unless ``0 <= min <= max <= 1``.
        """
        if not 0.0 <= min_step_percent <= max_step_percent <= 1.0:
            raise ConfigError(
                "min_step_percent and max_step_percent must be in order and in [0, 1]",
                received=(min_step_percent, max_step_percent),
                fix="0.02 and 0.98 are usual.",
            )
        self.min_step = int(self.num_train_timesteps * min_step_percent)
        self.max_step = min(int(self.num_train_timesteps * max_step_percent), self.num_train_timesteps - 1)

    def sample_timesteps(
        self, batch_size: int, device: torch.device | str, generator: torch.Generator | None = None
    ) -> Tensor:
        """``[batch_size]`` int64, uniform over ``min_step`` to ``max_step``, both included."""
        return torch.randint(self.min_step, self.max_step + 1, (batch_size,), device=device, generator=generator)

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        if self.cfg.grad_clip is not None:
            self.grad_clip_val = C(self.cfg.grad_clip, epoch, global_step)
        low = C(self.cfg.min_step_percent, epoch, global_step)
        if self.cfg.sqrt_anneal:  # one timestep that falls with the root of progress (HiFA, Zhu et al. 2024)
            done = min(global_step / self.cfg.trainer_max_steps, 1.0) ** 0.5
            low = high = low + (largest_value(self.cfg.max_step_percent) - low) * (1.0 - done)
        else:
            high = C(self.cfg.max_step_percent, epoch, global_step)
        self.set_min_max_steps(low, high)


class BaseGuidance(GuidanceClock, BaseObject):
    """Base of guidances without parameters; one with parameters mixes GuidanceClock into BaseModule.

    Called as ``guidance(rgb, prompt_utils, **batch, rgb_as_latents=False)``. Swallow the keys you do
    not need. Returned keys: ``loss_x`` is weighted by ``loss.lambda_x`` and summed; ``grad_norm``, ``min_step``,
    ``max_step`` and other scalars are logged; ``eval`` holds images for ``guidance_evaluation_save``.
    """

    @dataclass
    class Config(BaseObject.Config):
        guidance_scale: float = 100.0
        min_step_percent: Any = 0.02
        max_step_percent: Any = 0.98
        grad_clip: Any = None
        sqrt_anneal: bool = False
        trainer_max_steps: int = 25000
        view_dependent_prompting: bool = True

    cfg: Config

    def configure(self, *args: Any, **kwargs: Any) -> None:
        self.set_num_train_timesteps(self.num_train_timesteps)

    def __call__(
        self,
        rgb: Tensor,
        prompt_utils: PromptProcessorOutput,
        elevation: Tensor,
        azimuth: Tensor,
        camera_distances: Tensor,
        rgb_as_latents: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Losses for a batch of renders.

        Args:
            rgb: ``[B, H, W, 3]`` in [0, 1] (or latents ``[B, H, W, 4]`` with ``rgb_as_latents``).
            elevation, azimuth: ``[B]`` degrees. camera_distances: ``[B]`` world units.
        """
        raise NotImplementedError
