"""Optimizers and schedulers from configuration.

``optimizer.params`` maps attribute paths (``geometry.encoding``) to arguments; what is not listed is
not optimised. A path without parameters is an error instead of silently training nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.adan import Adan

__all__ = [
    "get_parameters",
    "get_scheduler",
    "getattr_recursive",
    "parse_optimizer",
    "parse_scheduler",
    "parse_scheduler_to_instance",
]


def get_parameters(model: nn.Module, path: str) -> list[nn.Parameter]:
    """Parameters below an attribute path such as ``"geometry.encoding"``.

    Raises:
        ConfigError: if the path does not exist or is neither a module nor a parameter.
    """
    part: Any = model
    for name in path.split("."):
        if not hasattr(part, name):
            children = [child for child, _ in part.named_children()] if isinstance(part, nn.Module) else []
            raise ConfigError(
                f"optimizer.params names '{path}', but '{name}' does not exist",
                received=path,
                fix=f"Existing parts there: {', '.join(children) or 'none'}.",
            )
        part = getattr(part, name)
    if isinstance(part, nn.Module):
        return list(part.parameters())
    if isinstance(part, nn.Parameter):
        return [part]
    raise ConfigError("optimizer.params names something without parameters", received=path, fix="Name a module.")


def parse_optimizer(config: Any, model: nn.Module) -> Optimizer:
    """Build the optimizer ``config.name`` (a ``torch.optim`` class, ``Adan``, or ``FusedAdam`` of apex).

    Args:
        config: keys ``name``, ``args`` and optionally ``params``: {attribute path: arguments}.
    """
    if config.get("params"):
        groups: Any = [
            {"params": get_parameters(model, path), "name": path, **(arguments or {})}
            for path, arguments in config.params.items()
        ]
    else:
        groups = model.parameters()
    arguments = config.get("args") or {}
    if config.name == "FusedAdam":
        try:
            from apex.optimizers import FusedAdam
        except ImportError as cause:
            raise ConfigError(
                f"The optimizer FusedAdam needs NVIDIA apex, which did not import: {cause}",
                received=config.name,
                fix="Use AdamW, or build apex from its sources.",
            ) from cause
        return FusedAdam(groups, **arguments)
    optimizer: Any = Adan if config.name == "Adan" else getattr(torch.optim, config.name, None)
    if not (isinstance(optimizer, type) and issubclass(optimizer, Optimizer)):
        raise ConfigError(
            "There is no such optimizer", received=config.name, fix="Use a class of torch.optim, e.g. AdamW."
        )
    build: Any = optimizer
    return build(groups, **{k: tuple(v) if k == "betas" else v for k, v in arguments.items()})


def parse_scheduler(config: Any, optimizer: Optimizer) -> dict[str, Any]:
    """Build a Lightning scheduler entry ``{"scheduler", "interval"}``.

    ``name`` is a class of ``torch.optim.lr_scheduler``; ``SequentialLR`` and ``ChainedScheduler``
    take a list ``schedulers`` (and ``milestones``). ``interval`` is ``step`` or ``epoch``.
    """
    interval = config.get("interval", "epoch")
    if interval not in ("step", "epoch"):
        raise ConfigError("scheduler.interval is unknown", received=interval, fix="Use step or epoch.")
    return {"scheduler": parse_scheduler_to_instance(config, optimizer), "interval": interval}


def parse_scheduler_to_instance(config: Any, optimizer: Optimizer) -> Any:
    """The scheduler alone, without Lightning's entry around it; ``config`` as for :func:`parse_scheduler`."""
    if config.name in ("SequentialLR", "Sequential"):
        parts = [parse_scheduler_to_instance(part, optimizer) for part in config.schedulers]
        return lr_scheduler.SequentialLR(optimizer, parts, milestones=list(config.milestones))
    if config.name == "ChainedScheduler":
        return lr_scheduler.ChainedScheduler(
            [parse_scheduler_to_instance(part, optimizer) for part in config.schedulers]
        )
    return get_scheduler(config.name)(optimizer, **(config.get("args") or {}))


def get_scheduler(name: str) -> Any:
    """The class ``name`` of ``torch.optim.lr_scheduler``."""
    scheduler = getattr(lr_scheduler, name, None)
    if scheduler is None:
        raise ConfigError("There is no such scheduler", received=name, fix="Use a class of torch.optim.lr_scheduler.")
    return scheduler


def getattr_recursive(m: Any, attr: str) -> Any:
    """What lies at the attribute path ``attr``, e.g. ``"geometry.encoding"``."""
    for name in attr.split("."):
        m = getattr(m, name)
    return m
