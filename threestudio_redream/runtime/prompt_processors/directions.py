"""Which way the camera looks, and the words for it.

Convention
----------
Azimuth and elevation in **degrees**; azimuth 0 looks at the object's front, 90 and -90 at its sides,
180 at its back. Directions are tried in the order side 0, front 1, back 2, overhead 3; a later match
overrides an earlier one, and side always matches. With the default thresholds (45, 45, 60):
azimuth 30 is front, 60 side, 170 and -170 back; elevation 61 is overhead whatever the azimuth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["DirectionConfig", "direction_indices", "shift_azimuth_deg", "view_directions"]

Condition = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass
class DirectionConfig:
    """One view direction.

    Attributes:
        name: ``side``, ``front``, ``back`` or ``overhead``.
        prompt, negative_prompt: from a prompt to the one for this direction.
        condition: (elevation, azimuth, camera distance), each ``[B]``, to ``[B]`` bool.
    """

    name: str
    prompt: Callable[[str], str]
    negative_prompt: Callable[[str], str]
    condition: Condition


def shift_azimuth_deg(azimuth: Tensor) -> Tensor:
    """The same angle in [-180, 180) degrees: 190 becomes -170."""
    return (azimuth + 180.0) % 360.0 - 180.0


def view_directions(
    front_threshold: float = 45.0,
    back_threshold: float = 45.0,
    overhead_threshold: float = 60.0,
    words_in_front: bool = False,
) -> list[DirectionConfig]:
    """The four directions in their order. Thresholds in degrees, exclusive.

    Args:
        words_in_front: "front view of a cat" instead of "a cat, front view".
    """

    def side(elevation: Tensor, azimuth: Tensor, distance: Tensor) -> Tensor:
        return torch.ones_like(elevation, dtype=torch.bool)

    def front(elevation: Tensor, azimuth: Tensor, distance: Tensor) -> Tensor:
        return shift_azimuth_deg(azimuth).abs() < front_threshold

    def back(elevation: Tensor, azimuth: Tensor, distance: Tensor) -> Tensor:
        return shift_azimuth_deg(azimuth).abs() > 180.0 - back_threshold

    def overhead(elevation: Tensor, azimuth: Tensor, distance: Tensor) -> Tensor:
        return elevation > overhead_threshold

    back_word = "backside" if words_in_front else "back"
    table: list[tuple[str, str, Condition]] = [
        ("side", "side", side),
        ("front", "front", front),
        ("back", back_word, back),
        ("overhead", "overhead", overhead),
    ]
    return [
        DirectionConfig(name, _wording(word, words_in_front), lambda prompt: prompt, condition)
        for name, word, condition in table
    ]


def direction_indices(
    directions: Sequence[DirectionConfig], elevation: Tensor, azimuth: Tensor, camera_distances: Tensor
) -> Tensor:
    """Index of the direction of each view.

    Args:
        elevation, azimuth: ``[B]`` degrees. camera_distances: ``[B]`` world units.

    Returns:
        ``[B]`` int64; 0 where nothing matches.
    """
    chosen = torch.zeros_like(elevation, dtype=torch.long)
    for index, direction in enumerate(directions):
        matches = direction.condition(elevation, azimuth, camera_distances)
        chosen = torch.where(matches, torch.full_like(chosen, index), chosen)
    return chosen


def _wording(word: str, in_front: bool) -> Callable[[str], str]:
    return lambda prompt: f"{word} view of {prompt}" if in_front else f"{prompt}, {word} view"
