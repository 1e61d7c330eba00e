"""Real spherical harmonics of directions, the usual encoding of a view or environment direction."""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from threestudio_redream.errors import ConfigError

__all__ = ["SphericalHarmonics", "spherical_harmonics"]

MAX_DEGREE = 4


def spherical_harmonics(directions: Tensor, degree: int) -> Tensor:
    """Orthonormal real harmonics of the bands 0 to ``degree - 1``, with the Condon-Shortley sign.

    Convention: within band l the order runs from m = -l to l, the polar axis is z. For the direction
    +z and degree 2: ``(0.2821, 0, 0.4886, 0)``; for +x: ``(0.2821, 0, 0, -0.4886)``.

    Args:
        directions: ``[N, 3]`` float, unit vectors in world axes. degree: 1 to 4.

    Returns:
        ``[N, degree**2]``. The mean of a product of two different columns over the sphere is 0, of a
        column with itself ``1 / (4 pi)``.
    """
    x, y, z = directions.unbind(dim=-1)
    columns = [torch.full_like(x, 0.5 / sqrt(pi))]
    if degree > 1:
        one = sqrt(3 / (4 * pi))
        columns += [-one * y, one * z, -one * x]
    if degree > 2:
        two = sqrt(15 / (4 * pi))
        columns += [
            two * x * y,
            -two * y * z,
            sqrt(5 / (16 * pi)) * (3 * z * z - 1),
            -two * x * z,
            0.5 * two * (x * x - y * y),
        ]
    if degree > 3:
        outer, middle, inner = sqrt(35 / (32 * pi)), sqrt(105 / (4 * pi)), sqrt(21 / (32 * pi))
        columns += [
            outer * y * (y * y - 3 * x * x),
            middle * x * y * z,
            inner * y * (1 - 5 * z * z),
            sqrt(7 / (16 * pi)) * z * (5 * z * z - 3),
            inner * x * (1 - 5 * z * z),
            0.5 * middle * z * (x * x - y * y),
            outer * x * (3 * y * y - x * x),
        ]
    return torch.stack(columns, dim=-1)


class SphericalHarmonics(nn.Module):
    """Encoding ``{"otype": "SphericalHarmonics", "degree": 1..4}`` of a direction mapped to [0, 1].

    Input ``[N, 3]`` is ``(direction + 1) / 2``, as tiny-cuda-nn has it; output ``[N, degree**2]``.

    Raises:
        ConfigError: if the input has not 3 dimensions or the degree is out of range.
    """

    def __init__(self, n_input_dims: int, config: dict[str, Any]) -> None:
        super().__init__()
        self.degree = int(config.get("degree", MAX_DEGREE))
        if n_input_dims != 3 or not 1 <= self.degree <= MAX_DEGREE:
            raise ConfigError(
                f"SphericalHarmonics encodes 3 dimensions with a degree of 1 to {MAX_DEGREE}",
                received={"n_input_dims": n_input_dims, "degree": self.degree},
                fix="Use degree 3 for backgrounds, 4 for view directions.",
            )
        self.n_input_dims, self.n_output_dims = n_input_dims, self.degree**2

    def forward(self, x: Tensor) -> Tensor:
        return spherical_harmonics(x * 2.0 - 1.0, self.degree)
