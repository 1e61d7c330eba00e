"""Small fully connected networks with threestudio's configuration keys."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.activations import get_activation

__all__ = ["SphereInitVanillaMLP", "VanillaMLP"]


class _Activation(nn.Module):
    def __init__(self, name: str | None) -> None:
        super().__init__()
        self.function, self.name = get_activation(name), name

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return str(self.name)


class _MLP(nn.Module):
    """``n_hidden_layers`` hidden layers of ``n_neurons``, then a linear layer and ``output_activation``.

    Input ``[N, dim_in]``, output ``[N, dim_out]``, computed in float32 even under autocast.
    """

    def __init__(self, dim_in: int, dim_out: int, config: dict[str, Any]) -> None:
        super().__init__()
        width, depth = (_positive(config, key) for key in ("n_neurons", "n_hidden_layers"))
        layers: list[nn.Module] = []
        for index in range(depth):
            dims = (dim_in if index == 0 else width, width)
            layers += [self._linear(*dims, config, is_first=index == 0), self._activation(config)]
        layers.append(self._linear(width, dim_out, config, is_last=True))
        self.layers = nn.Sequential(*layers)
        self.n_input_dims, self.n_output_dims = dim_in, dim_out
        self.output_activation = get_activation(config.get("output_activation"))

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return self.output_activation(self.layers(x.float()))
        return self.output_activation(self.layers(x))

    def _linear(
        self, dim_in: int, dim_out: int, config: dict[str, Any], *, is_first: bool = False, is_last: bool = False
    ) -> nn.Module:
        raise NotImplementedError

    def _activation(self, config: dict[str, Any]) -> nn.Module:
        raise NotImplementedError


class VanillaMLP(_MLP):
    """Linear layers without bias; ``activation`` (default ReLU) between them."""

    def _linear(
        self, dim_in: int, dim_out: int, config: dict[str, Any], *, is_first: bool = False, is_last: bool = False
    ) -> nn.Module:
        return nn.Linear(dim_in, dim_out, bias=False)

    def _activation(self, config: dict[str, Any]) -> nn.Module:
        name = config.get("activation", "ReLU")
        return nn.ReLU(inplace=True) if str(name).lower() == "relu" else _Activation(name)


class SphereInitVanillaMLP(_MLP):
    """A network that starts as the signed distance to a sphere (SAL, Atzmon and Lipman 2020, theorem 1).

    The first three inputs must be the point in [-1, 1] (``include_xyz``); the others start without
    influence. Softplus with beta 100, biases, weight normalisation.

    Keys: ``sphere_init_radius``; ``inside_out`` (default false) makes the outside negative.
    """

    def _linear(
        self, dim_in: int, dim_out: int, config: dict[str, Any], *, is_first: bool = False, is_last: bool = False
    ) -> nn.Module:
        layer = nn.Linear(dim_in, dim_out)
        if is_last:
            sign = -1.0 if config.get("inside_out", False) else 1.0
            nn.init.constant_(layer.bias, -sign * float(config.get("sphere_init_radius", 0.5)))
            nn.init.normal_(layer.weight, mean=sign * math.sqrt(math.pi / dim_in), std=1e-4)
        else:
            nn.init.zeros_(layer.bias)
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / dim_out))
            if is_first:
                with torch.no_grad():
                    layer.weight[:, 3:] = 0.0
        return weight_norm(layer)

    def _activation(self, config: dict[str, Any]) -> nn.Module:
        return nn.Softplus(beta=100)


def _positive(config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"A network needs {key} of 1 or more", received=value, fix=f"Set {key}: in its config.")
    return value
