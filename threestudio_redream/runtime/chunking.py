"""Call a function on slices of its input, to bound memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from threestudio_redream.errors import ConfigError

__all__ = ["chunk_batch"]


def chunk_batch(function: Callable[..., Any], chunk_size: int, *args: Any, **kwargs: Any) -> Any:
    """``function(*args, **kwargs)``, at most ``chunk_size`` rows at a time.

    Args:
        function: returns a tensor, a tuple or list of tensors, or a dict of tensors, one row per row
            of the input. None in place of a tensor stays None.
        chunk_size: rows per call; 0 or less calls the function once.
        args, kwargs: tensors are sliced along their first axis, which must be as long in all of
            them; scalar tensors and other values go to every call as they are.

    Raises:
        ConfigError: if there is no tensor or their first axes differ.
    """
    tensors = [value for value in (*args, *kwargs.values()) if _has_rows(value)]
    rows = {tensor.shape[0] for tensor in tensors}
    if len(rows) != 1:
        raise ConfigError(
            "Only tensors with one common number of rows can be cut into chunks",
            received=[tuple(tensor.shape) for tensor in tensors],
            fix="Bind the other arguments first, for example with functools.partial.",
        )
    total = rows.pop()
    if chunk_size <= 0 or total <= chunk_size:  # no rows at all are one call, too
        return function(*args, **kwargs)

    parts = []
    for start in range(0, total, chunk_size):
        rows_now = slice(start, start + chunk_size)
        parts.append(
            function(
                *[value[rows_now] if _has_rows(value) else value for value in args],
                **{key: value[rows_now] if _has_rows(value) else value for key, value in kwargs.items()},
            )
        )
    return _joined(parts)


def _has_rows(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _joined(parts: list[Any]) -> Any:
    first = parts[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.cat(parts, dim=0)
    if isinstance(first, dict):
        return {key: _joined([part[key] for part in parts]) for key in first}
    if isinstance(first, tuple | list):
        return type(first)(_joined(list(column)) for column in zip(*parts, strict=True))
    raise ConfigError(
        "A function that is called in chunks must return tensors",
        received=type(first).__name__,
        fix="Return a tensor, or a tuple, list or dict of tensors.",
    )
