"""Several fields for one prompt: the particles of variational score distillation (Wang et al., 2023).

All particles share the guidance, whose LoRA learns the distribution of all their renders; each step draws one of them,
so K particles cost K fields of memory and no more time a step (and as many more steps).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime import Updateable, find

__all__ = ["Particle", "ParticleSet", "repulsion"]

PARTS = ("geometry", "material", "background", "renderer")
FEATURE_SIDE = 16


class Particle(nn.Module, Updateable):
    """One further field: the parts that a system has for its first."""

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.geometry = find(cfg.geometry_type)(cfg.geometry)
        self.material = find(cfg.material_type)(cfg.material)
        self.background = find(cfg.background_type)(cfg.background)
        self.renderer = find(cfg.renderer_type)(
            cfg.renderer, geometry=self.geometry, material=self.material, background=self.background
        )


class ParticleSet(nn.Module, Updateable):
    """The particles beside the first, as ``p1``, ``p2`` and so on.

    Raises:
        ConfigError: fewer than one particle in all.
    """

    def __init__(self, cfg: Any, count: int) -> None:
        super().__init__()
        if count < 1:
            raise ConfigError("There must be 1 particle or more", received=count, fix="system.particles: 1")
        for number in range(1, count):
            self.add_module(f"p{number}", Particle(cfg))

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, number: int) -> Particle:
        """Particle ``number``, from 1."""
        part = self._modules[f"p{number}"]
        assert isinstance(part, Particle)
        return part

    def start_as(self, geometry: nn.Module) -> None:
        """Give all of them the fields of the first: one that was converted from another run's."""
        for number in range(1, len(self) + 1):
            self[number].geometry.load_state_dict(geometry.state_dict())

    def optimizer_params(self, params: dict[str, Any]) -> dict[str, Any]:
        """``optimizer.params`` with the entries of the first particle repeated for all others."""
        more = {
            f"particles.p{number}.{path}": arguments
            for number in range(1, len(self) + 1)
            for path, arguments in params.items()
            if path.split(".")[0] in PARTS
        }
        return {**params, **more}


def repulsion(rgb: Tensor, other: Tensor) -> Tensor:
    """Likeness of two particles seen by the same cameras, to be made small.

    An RBF kernel on coarse renders whose bandwidth is their present distance, as the median heuristic of Stein
    variational gradient descent (Liu & Wang, 2016) for two particles: ``exp(-d^2 / h)`` with ``h`` the detached mean of
    ``d^2`` (at least 1e-3). The other particle is a constant.

    Args:
        rgb, other: ``[B, H, W, 3]``.

    Returns:
        scalar in (0, 1].
    """

    def features(images: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(images.permute(0, 3, 1, 2), FEATURE_SIDE).flatten(1)

    distance = (features(rgb) - features(other.detach())).square().mean(dim=1)
    return torch.exp(-distance / distance.detach().mean().clamp(min=1e-3)).mean()
