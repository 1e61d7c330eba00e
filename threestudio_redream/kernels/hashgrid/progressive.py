"""Coarse-to-fine training: the levels of a hash grid switched on one after another."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from threestudio_redream.errors import ConfigError
from threestudio_redream.kernels.hashgrid.module import HashGrid

__all__ = ["ProgressiveBandHashGrid"]

log = logging.getLogger(__name__)
_SCHEDULE = ("start_level", "start_step", "update_steps")


class ProgressiveBandHashGrid(nn.Module):
    """A :class:`HashGrid` whose finer levels give zeros (and get no gradient) until their step comes.

    At step s the levels below ``start_level + max(s - start_step, 0) // update_steps`` are on.

    Args:
        n_input_dims: 2 or 3.
        config: the grid's keys and ``start_level`` (levels on from the start, 0 to n_levels),
            ``start_step`` and ``update_steps`` (steps between two levels, at least 1). ``otype`` is
            ignored: the grid is hashed.
        backend, seed: as in :class:`HashGrid`.

    Raises:
        ConfigError: a schedule key is missing or out of range, or the grid's configuration is.
    """

    mask: Tensor

    def __init__(
        self, n_input_dims: int, config: Mapping[str, Any], *, backend: str = "auto", seed: int | None = None
    ) -> None:
        super().__init__()
        grid = {key: value for key, value in dict(config).items() if key not in (*_SCHEDULE, "otype", "type")}
        self.encoding = HashGrid(n_input_dims, {"otype": "HashGrid", **grid}, backend=backend, seed=seed)
        self.n_input_dims, self.n_output_dims = n_input_dims, self.encoding.n_output_dims
        self.n_level = self.encoding.config.n_levels
        self.n_features_per_level = self.encoding.config.n_features_per_level
        limits = {"start_level": self.n_level, "start_step": 2**63, "update_steps": 2**63}
        for key in _SCHEDULE:
            value = config.get(key)
            least = 1 if key == "update_steps" else 0
            if not isinstance(value, int) or not least <= value <= limits[key]:
                raise ConfigError(
                    f"ProgressiveBandHashGrid: {key} is missing or out of range",
                    received=value,
                    fix=f"Give a whole number from {least}" + (f" to {self.n_level}." if key == "start_level" else "."),
                )
        self.start_level, self.start_step = config["start_level"], config["start_step"]
        self.update_steps = config["update_steps"]
        self.current_level = -1
        self.register_buffer("mask", torch.zeros(self.n_output_dims), persistent=False)
        self.update_step(0, 0)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, D]`` in [0, 1] to ``[N, n_output_dims]``, zero in the levels not yet on."""
        return self.encoding(x) * self.mask

    def level_at(self, global_step: int) -> int:
        """How many levels are on at a step."""
        opened = max(global_step - self.start_step, 0) // self.update_steps
        return min(self.start_level + opened, self.n_level)

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Set the levels that are on at ``global_step``; called by the system before every step."""
        level = self.level_at(global_step)
        if level != self.current_level:
            log.debug("hash grid: %d of %d levels at step %d", level, self.n_level, global_step)
            self.current_level = level
            on = torch.arange(self.n_output_dims) < level * self.n_features_per_level
            self.mask = on.to(self.mask)  # a new tensor: a graph may hold the old one
