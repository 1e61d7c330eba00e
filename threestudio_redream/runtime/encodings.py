"""Encodings of points in [0, 1]: frequencies, hash grids that open level by level, raw coordinates beside them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from threestudio_redream.errors import ConfigError
from threestudio_redream.kernels import hashgrid
from threestudio_redream.runtime.base import Updateable

__all__ = ["CompositeEncoding", "ProgressiveBandFrequency", "ProgressiveBandHashGrid"]


class ProgressiveBandFrequency(nn.Module, Updateable):
    """sin and cos of ``2^k x`` for k = 0 to ``n_frequencies - 1``, faded in over ``n_masking_step`` steps.

    The fading window is that of Nerfies (Park et al. 2021, eq. 8). ``n_masking_step`` 0 shows all
    frequencies at once.

    Convention: output order is frequency, then sin before cos, then input dimension. For x = (0.5),
    two frequencies: ``(sin 0.5, cos 0.5, sin 1, cos 1)``.
    """

    mask: Tensor
    bands: Tensor

    def __init__(self, n_input_dims: int, config: dict[str, Any]) -> None:
        super().__init__()
        self.n_frequencies = int(_required(config, "n_frequencies"))
        self.n_masking_step = int(config.get("n_masking_step", 0))
        self.n_input_dims, self.n_output_dims = n_input_dims, n_input_dims * 2 * self.n_frequencies
        self.register_buffer("bands", 2.0 ** torch.arange(self.n_frequencies), persistent=False)
        self.register_buffer("mask", self._mask_at(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        angles = x[:, None, :] * self.bands[:, None]  # [N, K, D]
        waves = torch.stack([angles.sin(), angles.cos()], dim=2) * self.mask[:, None, None]
        return waves.flatten(1)

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        self.mask = self._mask_at(global_step).to(self.mask)  # a new tensor: a graph may hold the old one

    def _mask_at(self, step: int) -> Tensor:
        if self.n_masking_step <= 0:
            return torch.ones(self.n_frequencies)
        progress = step / self.n_masking_step * self.n_frequencies - torch.arange(self.n_frequencies)
        return (1.0 - torch.cos(math.pi * progress.clamp(0.0, 1.0))) / 2.0


class ProgressiveBandHashGrid(hashgrid.ProgressiveBandHashGrid, Updateable):
    """The coarse-to-fine hash grid, on the clock of the system."""

    def level_at(self, global_step: int) -> int:
        """How many levels are on at a step."""
        opened = max(global_step - self.start_step, 0) // self.update_steps
        return min(self.start_level + opened, self.n_level)


class CompositeEncoding(nn.Module, Updateable):
    """An encoding, with the coordinates themselves, scaled from [0, 1] to [-1, 1], in front if ``include_xyz``."""

    def __init__(self, encoding: nn.Module, include_xyz: bool = False) -> None:
        super().__init__()
        self.encoding, self.include_xyz = encoding, include_xyz
        self.n_input_dims: int = encoding.n_input_dims  # type: ignore[assignment]
        extra = self.n_input_dims if include_xyz else 0
        self.n_output_dims: int = encoding.n_output_dims + extra  # type: ignore[operator,assignment]

    def forward(self, x: Tensor, *args: Any) -> Tensor:
        encoded = self.encoding(x, *args)
        return torch.cat([x * 2.0 - 1.0, encoded], dim=-1) if self.include_xyz else encoded


def _required(config: dict[str, Any], key: str) -> Any:
    if config.get(key) is None:
        raise ConfigError(
            f"The encoding {config.get('otype')} needs the key '{key}'", received=config, fix=f"Add {key}: to it."
        )
    return config[key]
