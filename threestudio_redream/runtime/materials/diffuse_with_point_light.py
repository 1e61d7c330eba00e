"""``diffuse-with-point-light-material``: Lambert shading, randomly simplified (DreamFusion, Poole et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.activations import get_activation
from threestudio_redream.runtime.materials.base import BaseMaterial
from threestudio_redream.runtime.registry import register

__all__ = ["DiffuseWithPointLightMaterial"]


@register("diffuse-with-point-light-material")
class DiffuseWithPointLightMaterial(BaseMaterial):
    """``albedo * (ambient + diffuse * max(normal . light, 0))``, or parts of it.

    In training each call shades the whole batch one way, drawn from torch's global generator:
    ``albedo`` alone (always in the first ``ambient_only_steps`` steps, later with probability
    ``1 - diffuse_prob``), else ``textureless`` (white albedo) with ``textureless_prob``, else
    ``diffuse``. In evaluation it is ``diffuse``, unless still within ``ambient_only_steps`` or
    ``ambient_only_on_test``.

    Convention: a surface that looks straight at the light and has albedo 0.5 is
    ``0.5 * (0.1 + 0.9) = 0.5`` with the default lights; one that looks away is ``0.05``.

    Keys:
        ambient_light_color, diffuse_light_color: strength of the lights, red, green and blue.
        ambient_only_steps, ambient_only_on_test: when only the albedo is shown, see above.
        diffuse_prob, textureless_prob: see above. albedo_activation: from features to albedo, by name.
        soft_shading: in training draw the strength d of the diffuse light from [0, 1], ambient is 1 - d.
    """

    @dataclass
    class Config(BaseMaterial.Config):
        ambient_light_color: tuple[float, float, float] = (0.1, 0.1, 0.1)
        diffuse_light_color: tuple[float, float, float] = (0.9, 0.9, 0.9)
        ambient_only_steps: int = 1000
        diffuse_prob: float = 0.75
        textureless_prob: float = 0.5
        albedo_activation: str = "sigmoid"
        soft_shading: bool = False
        ambient_only_on_test: bool = False

    cfg: Config
    requires_normal: bool = True
    ambient_light_color: Tensor
    diffuse_light_color: Tensor

    def configure(self) -> None:
        self.albedo_activation = get_activation(self.cfg.albedo_activation)
        for name in ("ambient_light_color", "diffuse_light_color"):
            self.register_buffer(name, torch.tensor(tuple(getattr(self.cfg, name)), dtype=torch.float32))
        self.ambient_only = False

    def forward(
        self,
        features: Tensor,
        positions: Tensor,
        shading_normal: Tensor,
        light_positions: Tensor,
        ambient_ratio: float | None = None,
        shading: str | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Shade points.

        Args:
            features: ``[..., F]``, the first three are the albedo before its activation.
            positions, light_positions: ``[..., 3]``, world units. shading_normal: ``[..., 3]``, unit.
            ambient_ratio: strength of white ambient light in [0, 1], the rest is diffuse; None takes
                the configured lights.
            shading: ``albedo``, ``textureless`` or ``diffuse``; None draws as described above.

        Returns:
            ``[..., 3]`` colour.

        Raises:
            ConfigError: if ``shading`` is none of these.
        """
        albedo = self.albedo_activation(features[..., :3])
        ambient, diffuse = self._lights(ambient_ratio)
        if shading is None:
            shading = self._draw_shading()
        if shading == "albedo":
            return albedo
        if shading not in ("textureless", "diffuse"):
            raise ConfigError("There is no such shading", received=shading, fix="Use albedo, textureless or diffuse.")
        to_light = functional.normalize(light_positions - positions, dim=-1)
        facing = (shading_normal * to_light).sum(dim=-1, keepdim=True).clamp(min=0.0)
        light = facing * diffuse + ambient
        if shading == "textureless":
            return light + 0.0 * albedo  # the feature network keeps a gradient, which distributed training wants
        return albedo.clamp(0.0, 1.0) * light

    def export(self, features: Tensor, **kwargs: Any) -> dict[str, Any]:
        """``albedo`` ``[..., 3]`` in [0, 1], without light."""
        return {"albedo": self.albedo_activation(features[..., :3]).clamp(0.0, 1.0)}

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        self.ambient_only = global_step < self.cfg.ambient_only_steps

    def _lights(self, ambient_ratio: float | None) -> tuple[Tensor, Tensor]:
        if ambient_ratio is None and self.training and self.cfg.soft_shading:
            ambient_ratio = 1.0 - _random()
        if ambient_ratio is None:
            return self.ambient_light_color, self.diffuse_light_color
        white = torch.ones_like(self.ambient_light_color)
        return ambient_ratio * white, (1.0 - ambient_ratio) * white

    def _draw_shading(self) -> str:
        if not self.training:
            return "albedo" if self.ambient_only or self.cfg.ambient_only_on_test else "diffuse"
        if self.ambient_only or _random() > self.cfg.diffuse_prob:
            return "albedo"
        return "textureless" if _random() < self.cfg.textureless_prob else "diffuse"


def _random() -> float:
    """Uniform in [0, 1) from torch's CPU generator, whose state checkpoints keep."""
    return float(torch.rand(()))
