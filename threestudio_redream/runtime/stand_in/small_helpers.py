"""Helpers of a few lines that code for threestudio imports."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.device import cleanup

__all__ = ["ToDTypeWrapper", "enable_gradient", "find_last_path", "finish_with_cleanup", "tv_loss"]

F = TypeVar("F", bound=Callable[..., Any])


def enable_gradient(model: nn.Module, enabled: bool = True) -> None:
    """Switch the gradients of all parameters of ``model`` on or off."""
    for parameter in model.parameters():
        parameter.requires_grad_(enabled)


def finish_with_cleanup(func: F) -> F:
    """Decorator: cached accelerator memory is given back after every call."""

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        cleanup()
        return result

    return wrapper  # type: ignore[return-value]


def find_last_path(path: str | None) -> str | None:
    """``path`` with its ``LAST`` filled in: the last name, in alphabetical order, that begins as the text before it.

    ``outputs/run/a_cat@LAST/ckpts/last.safetensors`` names the newest trial of that tag. Blanks count as underscores,
    as in the tags of trials. Without ``LAST`` the path comes back as it is.

    Raises:
        ConfigError: nothing begins so, or the file does not exist there.
    """
    if path is None or "LAST" not in path:
        return path
    before, _, after = path.replace(" ", "_").partition("LAST")
    start = Path(before + "_")  # a name even where the text ends with a slash
    prefix = start.name[:-1]
    found = sorted(entry for entry in start.parent.glob("*") if entry.name.startswith(prefix))
    chosen = f"{found[-1]}{after}" if found else ""
    if not chosen or not Path(chosen).exists():
        raise ConfigError(
            "No file fits this path",
            received=path,
            fix=f"{chosen} does not exist." if chosen else f"{start.parent} holds nothing that begins so.",
        )
    return chosen


def tv_loss(x: Tensor) -> Tensor:
    """Twice the sum of the mean squared differences of neighbours, downwards and to the right.

    Args:
        x: pictures or grids of features ``[B, C, H, W]``, H and W at least 2.

    Returns:
        A scalar.
    """
    return 2.0 * (x.diff(dim=2).square().mean() + x.diff(dim=3).square().mean())


class ToDTypeWrapper(nn.Module):
    """``module(x)``, converted to ``dtype``."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x).to(self.dtype)
