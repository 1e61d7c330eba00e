"""Configuration and memory layout of the multi-resolution hash grid, with tiny-cuda-nn's semantics.

Source: Mueller et al., "Instant Neural Graphics Primitives with a Multiresolution Hash Encoding"
(SIGGRAPH 2022), section 3; the details the paper leaves open follow tiny-cuda-nn, so that configs and
parameter tensors can be exchanged with it.

Convention
----------
Level l has ``scale = base_resolution * per_level_scale**l - 1`` and ``resolution = ceil(scale) + 1``.
A coordinate x in [0, 1] lies at ``x * scale + 0.5`` cells. With base resolution 16 and level 0,
x = 0.2 is at 3.5: halfway between the grid points 3 and 4. Grid points are numbered x fastest.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from threestudio_redream.errors import ConfigError

__all__ = ["HASH_PRIMES", "HashGridConfig", "Level"]

HASH_PRIMES = (1, 2654435761, 805459861)
"""Factors of the spatial hash (paper, equation 4): ``xor_d(x_d * prime_d) mod size``."""

_MAX_RESOLUTION = 2**24  # beyond it float32 cannot tell neighbouring cells apart
_MAX_PARAMS = 2**31 - 1
_KINDS = {"HashGrid": "hash", "DenseGrid": "dense", "Hash": "hash", "Dense": "dense"}


@dataclass(frozen=True)
class Level:
    """One level: cells per unit length, grid points per axis, rows in the table, and the first of them."""

    scale: float
    resolution: int
    rows: int
    offset: int
    hashed: bool


@dataclass(frozen=True)
class HashGridConfig:
    """Shape of a hash grid. Field names and defaults are those of tiny-cuda-nn.

    Attributes:
        otype: ``HashGrid``, or ``DenseGrid`` for levels without a size limit, or ``Grid`` with the
            kind in the key ``type`` (``Hash`` or ``Dense``).
        n_levels: 1 to 64.
        n_features_per_level: 1, 2, 4 or 8 features per grid point.
        log2_hashmap_size: 3 to 30; a level with more grid points than this is hashed.
        base_resolution: grid points per axis on the coarsest level, at least 1.
        per_level_scale: growth of the resolution per level, at least 1.
        interpolation: ``Linear`` or ``Smoothstep`` (smooth first derivatives).
    """

    otype: str = "HashGrid"
    n_levels: int = 16
    n_features_per_level: int = 2
    log2_hashmap_size: int = 19
    base_resolution: int = 16
    per_level_scale: float = 2.0
    interpolation: str = "Linear"

    def __post_init__(self) -> None:
        _check("otype", self.otype, self.otype in _KINDS, "Use HashGrid or DenseGrid.")
        _check("n_levels", self.n_levels, _whole(self.n_levels, 1, 64), "Use 1 to 64.")
        _check(
            "n_features_per_level", self.n_features_per_level, self.n_features_per_level in (1, 2, 4, 8),
            "Use 1, 2, 4 or 8.",
        )  # fmt: skip
        _check("log2_hashmap_size", self.log2_hashmap_size, _whole(self.log2_hashmap_size, 3, 30), "Use 3 to 30.")
        _check("base_resolution", self.base_resolution, _whole(self.base_resolution, 1, 2**20), "Use 1 or more.")
        scale = self.per_level_scale
        scale_fits = isinstance(scale, (int, float)) and math.isfinite(scale) and 1 <= scale <= 2**20
        _check("per_level_scale", scale, scale_fits, "Use a number of at least 1; 2 doubles the resolution per level.")
        smooth = self.interpolation in ("Linear", "Smoothstep")
        _check("interpolation", self.interpolation, smooth, "Use Linear or Smoothstep.")

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> HashGridConfig:
        """From a config section in tiny-cuda-nn's keys; missing keys take the defaults.

        Raises:
            ConfigError: a key is unknown, or a value is out of range.
        """
        values = dict(config)
        kind = values.pop("type", None)
        if values.get("otype") == "Grid":
            values["otype"] = kind or "Hash"
        elif kind is not None and _KINDS.get(kind) != _KINDS.get(values.get("otype", "HashGrid")):
            raise ConfigError("Hash grid: the keys otype and type disagree", received=dict(config), fix="Drop type.")
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError("Unknown hash-grid key", received=key, fix=f"Known keys: {', '.join(known)}, type.")
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """The config as tiny-cuda-nn takes it."""
        values = dataclasses.asdict(self)
        return {**values, "otype": "Grid", "type": "Dense" if _KINDS[self.otype] == "dense" else "Hash"}

    @property
    def n_output_dims(self) -> int:
        return self.n_levels * self.n_features_per_level

    def levels(self, n_input_dims: int) -> tuple[Level, ...]:
        """The levels for 2-D or 3-D input, in memory order.

        Raises:
            ConfigError: not 2 or 3 dimensions, or the grid is too fine or too large.
        """
        _check("number of input dimensions", n_input_dims, n_input_dims in (2, 3), "Use 2 or 3.")
        found: list[Level] = []
        offset = 0
        growth = np.log2(np.float32(self.per_level_scale))
        for index in range(self.n_levels):
            # float32 throughout, since ceil() turns the last bit into a different number of rows
            factor = np.float32(np.exp2(np.float64(np.float32(index) * growth)))
            scale = factor * np.float32(self.base_resolution) - np.float32(1)
            resolution = math.ceil(float(scale)) + 1
            _check(
                "resolution of the finest level", resolution, resolution <= _MAX_RESOLUTION,
                "Lower per_level_scale, n_levels or base_resolution.",
            )  # fmt: skip
            points = resolution**n_input_dims
            rows = -(-points // 8) * 8
            if _KINDS[self.otype] == "hash":
                rows = min(rows, 2**self.log2_hashmap_size)
            found.append(Level(float(scale), resolution, rows, offset, hashed=points > rows))
            offset += rows
        _check(
            "number of parameters", offset * self.n_features_per_level,
            offset * self.n_features_per_level <= _MAX_PARAMS, "Lower log2_hashmap_size or use otype HashGrid.",
        )  # fmt: skip
        return tuple(found)

    def n_params(self, n_input_dims: int) -> int:
        """Length of the flat parameter tensor."""
        last = self.levels(n_input_dims)[-1]
        return (last.offset + last.rows) * self.n_features_per_level


def _whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _check(what: str, value: object, good: bool, fix: str) -> None:
    if not good:
        raise ConfigError(f"Hash grid: {what} is out of range", received=value, fix=fix)
