"""``neural-environment-map-background``: a small network from direction to colour."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from threestudio_redream.runtime.activations import get_activation
from threestudio_redream.runtime.backgrounds.base import BaseBackground, randomly_recolored
from threestudio_redream.runtime.networks import get_encoding, get_mlp
from threestudio_redream.runtime.registry import register

__all__ = ["NeuralEnvironmentMapBackground"]


@register("neural-environment-map-background")
class NeuralEnvironmentMapBackground(BaseBackground):
    """A learned colour per direction. Directions need not have length 1.

    Keys:
        n_output_dims: channels of the colour. color_activation: from the network's output to colour, by name.
        dir_encoding_config, mlp_network_config: encoding of the direction, and the network behind it.
        eval_color: fixed colour in evaluation instead of the learned one.
        random_aug, random_aug_prob: in training, with this probability, a random colour per image.
    """

    @dataclass
    class Config(BaseBackground.Config):
        n_output_dims: int = 3
        color_activation: str = "sigmoid"
        dir_encoding_config: dict = field(default_factory=lambda: {"otype": "SphericalHarmonics", "degree": 3})
        mlp_network_config: dict = field(
            default_factory=lambda: {
                "otype": "VanillaMLP",
                "activation": "ReLU",
                "n_neurons": 16,
                "n_hidden_layers": 2,
            }
        )
        random_aug: bool = False
        random_aug_prob: float = 0.5
        eval_color: tuple[float, float, float] | None = None

    cfg: Config

    def configure(self) -> None:
        self.color_activation = get_activation(self.cfg.color_activation)
        self.encoding = get_encoding(3, self.cfg.dir_encoding_config)
        self.network = get_mlp(self.encoding.n_output_dims, self.cfg.n_output_dims, self.cfg.mlp_network_config)

    def forward(self, dirs: Tensor) -> Tensor:
        shape = (*dirs.shape[:-1], self.cfg.n_output_dims)
        if not self.training and self.cfg.eval_color is not None:
            return torch.tensor(tuple(self.cfg.eval_color)).to(dirs).expand(shape)
        unit = functional.normalize(dirs, dim=-1) * 0.5 + 0.5  # encodings want [0, 1]
        color = self.color_activation(self.network(self.encoding(unit.reshape(-1, 3)))).view(shape)
        if self.training and self.cfg.random_aug:
            color = randomly_recolored(color, self.cfg.random_aug_prob)
        return color
