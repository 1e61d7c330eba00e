"""``solid-color-background``: one colour, fixed, learned or random."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.backgrounds.base import BaseBackground, randomly_recolored
from threestudio_redream.runtime.registry import register

__all__ = ["SolidColorBackground"]


@register("solid-color-background")
class SolidColorBackground(BaseBackground):
    """The same colour in every direction.

    Keys:
        n_output_dims: channels of the colour.
        color: ``n_output_dims`` numbers, or one for all channels. learned: make it a parameter.
        random_aug, random_aug_prob: in training, with this probability, a random colour per image.
    """

    @dataclass
    class Config(BaseBackground.Config):
        n_output_dims: int = 3
        color: tuple = (1.0, 1.0, 1.0)
        learned: bool = False
        random_aug: bool = False
        random_aug_prob: float = 0.5

    cfg: Config
    env_color: Tensor

    def configure(self) -> None:
        color = torch.tensor([float(channel) for channel in self.cfg.color])
        if color.numel() not in (1, self.cfg.n_output_dims):
            raise ConfigError(
                f"background.color needs 1 or {self.cfg.n_output_dims} numbers",
                received=tuple(self.cfg.color),
                fix="Give one number per channel, or change n_output_dims.",
            )
        if self.cfg.learned:
            self.env_color = nn.Parameter(color)
        else:
            self.register_buffer("env_color", color)

    def forward(self, dirs: Tensor) -> Tensor:
        color = self.env_color.to(dirs).expand(*dirs.shape[:-1], self.cfg.n_output_dims)
        if self.training and self.cfg.random_aug:
            color = randomly_recolored(color, self.cfg.random_aug_prob)
        return color
