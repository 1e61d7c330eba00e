"""``no-material``: features are colours, through an activation and perhaps a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.activations import get_activation
from threestudio_redream.runtime.materials.base import BaseMaterial
from threestudio_redream.runtime.networks import get_mlp
from threestudio_redream.runtime.registry import register

__all__ = ["NoMaterial"]


@register("no-material")
class NoMaterial(BaseMaterial):
    """Colour without light.

    Keys:
        n_output_dims: channels of the colour (3; 4 for latents). color_activation: from features to colour, by name.
        input_feature_dims, mlp_network_config: both or neither: a network from features to colour.
        requires_normal: have the geometry make normals, for normal images and normal losses.
    """

    @dataclass
    class Config(BaseMaterial.Config):
        n_output_dims: int = 3
        color_activation: str = "sigmoid"
        input_feature_dims: int | None = None
        mlp_network_config: dict | None = None
        requires_normal: bool = False

    cfg: Config

    def configure(self) -> None:
        self.requires_normal = self.cfg.requires_normal
        self.color_activation = get_activation(self.cfg.color_activation)
        channels, network = self.cfg.input_feature_dims, self.cfg.mlp_network_config
        self.use_network = channels is not None and network is not None
        if channels is not None and network is not None:
            self.network = get_mlp(channels, self.cfg.n_output_dims, network)

    def forward(self, features: Tensor, **kwargs: Any) -> Tensor:
        """``features`` ``[..., F]`` to colour ``[..., n_output_dims]``.

        Raises:
            ConfigError: if the number of feature channels does not fit.
        """
        expected = self.cfg.input_feature_dims if self.use_network else self.cfg.n_output_dims
        if features.shape[-1] != expected:
            raise ConfigError(
                f"no-material needs {expected} feature channels",
                received=features.shape[-1],
                fix="Set geometry.n_feature_dims to that number, or give the material a network.",
            )
        if self.use_network:
            flat = self.network(features.reshape(-1, features.shape[-1]))
            features = flat.view(*features.shape[:-1], self.cfg.n_output_dims)
        return self.color_activation(features)

    def export(self, features: Tensor, **kwargs: Any) -> dict[str, Any]:
        """``albedo`` ``[..., 3]`` in [0, 1]: the first three channels of the colour."""
        color = self(features).clamp(0.0, 1.0)
        if color.shape[-1] < 3:
            raise ConfigError(
                "A texture needs 3 colour channels", received=color.shape[-1], fix="Set n_output_dims: 3."
            )
        return {"albedo": color[..., :3]}
