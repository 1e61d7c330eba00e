"""Scalars that change over training: the ``C()`` of the threestudio contract.

A schedule is a plain number, ``[start, v0, v1, end]``, ``[v0, v1, end]`` (start 0), or more knots:
``[s0, v0, v1, s1, v2, s2, ...]``. The value is constant outside and linear between the knots. The
type of the **last** number picks the clock: an int counts global steps, a float counts epochs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from omegaconf import ListConfig

from threestudio_redream.errors import ConfigError

__all__ = ["C", "largest_value"]


def C(value: Any, epoch: int, global_step: int) -> float:
    """Value of a schedule at ``(epoch, global_step)``; ``C([0, 1.0, 0.0, 100], 0, 25) -> 0.75``.

    Raises:
        ConfigError: if ``value`` is neither a number nor a well-formed list.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    knots, clock_is_steps = _knots(value)
    now = global_step if clock_is_steps else epoch
    previous_at, previous_value = knots[0]
    if now < previous_at:
        return previous_value
    for at, target in knots[1:]:
        if now < at:
            return previous_value + (target - previous_value) * (now - previous_at) / (at - previous_at)
        previous_at, previous_value = at, target
    return previous_value


def largest_value(value: Any) -> float:
    """The largest value a schedule ever takes (used by the ``cmaxgt0`` resolvers)."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return max(target for _, target in _knots(value)[0])


def _knots(value: Any) -> tuple[list[tuple[float, float]], bool]:
    fix = "Use a number, [start, v0, v1, end] or [s0, v0, v1, s1, v2, s2, ...]."
    if not isinstance(value, Sequence | ListConfig) or isinstance(value, str):
        raise ConfigError("A scheduled scalar is neither a number nor a list", received=value, fix=fix)
    numbers = list(value)
    if any(isinstance(x, bool) or not isinstance(x, int | float) for x in numbers):
        raise ConfigError("A schedule holds something that is not a number", received=numbers, fix=fix)
    if len(numbers) == 3:
        numbers = [0, *numbers]
    if len(numbers) < 4 or len(numbers) % 2:
        raise ConfigError("A schedule has the wrong length", received=numbers, fix=fix)
    knots = [(numbers[0], numbers[1])] + [(numbers[i + 1], numbers[i]) for i in range(2, len(numbers), 2)]
    if any(later[0] < earlier[0] for earlier, later in itertools.pairwise(knots)):
        raise ConfigError("The steps of a schedule go backwards", received=numbers, fix=fix)
    return knots, isinstance(numbers[-1], int)
