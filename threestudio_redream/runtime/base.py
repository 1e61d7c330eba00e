"""BaseObject, BaseModule and Updateable: what every configurable part derives from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from threestudio_redream.runtime.config import parse_structured
from threestudio_redream.runtime.device import get_device

__all__ = ["BaseModule", "BaseObject", "Updateable", "update_end_if_possible", "update_if_possible"]


class Updateable:
    """Receives the clock before (``update_step``) and after (``update_step_end``) every step.

    The walk visits public attributes, class properties included. One object can be reached on two
    paths, so an ``update_step`` must be idempotent. Attributes that start with ``_`` and objects
    inside lists or dicts are not visited.
    """

    def do_update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        for part in self._updateable_parts():
            part.do_update_step(epoch, global_step, on_load_weights=on_load_weights)
        self.update_step(epoch, global_step, on_load_weights=on_load_weights)

    def do_update_step_end(self, epoch: int, global_step: int) -> None:
        for part in self._updateable_parts():
            part.do_update_step_end(epoch, global_step)
        self.update_step_end(epoch, global_step)

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Override to react to the clock. With ``on_load_weights`` tensors may be on different devices."""

    def update_step_end(self, epoch: int, global_step: int) -> None:
        """Override to react after a step; ``global_step`` is then one higher than in ``update_step``."""

    def _updateable_parts(self) -> list[Updateable]:
        parts = []
        for name in self.__dir__():
            if name.startswith("_"):
                continue
            try:
                value = getattr(self, name)
            except Exception:  # a property that cannot be read yet is not a part
                continue
            if isinstance(value, Updateable) and value is not self:
                parts.append(value)
        return parts


def update_if_possible(module: Any, epoch: int, global_step: int) -> None:
    """Forward the clock to ``module`` if it is an :class:`Updateable`."""
    if isinstance(module, Updateable):
        module.do_update_step(epoch, global_step)


def update_end_if_possible(module: Any, epoch: int, global_step: int) -> None:
    """As :func:`update_if_possible`, after the step."""
    if isinstance(module, Updateable):
        module.do_update_step_end(epoch, global_step)


class BaseObject(Updateable):
    """A configurable part without parameters: parses ``cfg`` strictly, then calls ``configure``."""

    @dataclass
    class Config:
        pass

    cfg: Config

    def __init__(self, cfg: Mapping[str, Any] | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.cfg = parse_structured(self.Config, cfg)
        self.device = get_device()
        self.configure(*args, **kwargs)

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Override to build the object."""


class BaseModule(nn.Module, Updateable):
    """A configurable part with parameters.

    Keys:
        weights: ``path:module_name`` loads that module's parameters out of a checkpoint after ``configure``.
    """

    @dataclass
    class Config:
        weights: str | None = None

    cfg: Config

    def __init__(self, cfg: Mapping[str, Any] | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.cfg = parse_structured(self.Config, cfg)
        self.device = get_device()
        self.configure(*args, **kwargs)
        if self.cfg.weights is not None:
            from threestudio_redream.runtime.checkpoint import load_module_weights

            path, _, module_name = self.cfg.weights.rpartition(":")
            state, epoch, global_step = load_module_weights(path, module_name=module_name)
            self.load_state_dict(state)
            self.do_update_step(epoch, global_step, on_load_weights=True)
        # follows .to(device), so that parts can ask where they live
        self.register_buffer("_dummy", torch.zeros(0), persistent=False)

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Override to build the module."""
