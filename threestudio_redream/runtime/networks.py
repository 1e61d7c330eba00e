"""Encodings and networks by configuration: ``get_encoding``, ``get_mlp`` and both in one.

On a CPU (and wherever tiny-cuda-nn does not import) everything is computed by this package. On CUDA
with tiny-cuda-nn, its fused networks serve ``FullyFusedMLP`` and ``CutlassMLP`` and its encodings
serve the types that we do not have; the parameters of a fused network are laid out differently, so
a checkpoint with one needs tiny-cuda-nn again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from threestudio_redream.errors import ConfigError
from threestudio_redream.kernels.hashgrid import HashGrid
from threestudio_redream.runtime import tcnn
from threestudio_redream.runtime.activations import get_activation
from threestudio_redream.runtime.base import Updateable
from threestudio_redream.runtime.config import config_to_primitive
from threestudio_redream.runtime.encodings import CompositeEncoding, ProgressiveBandFrequency, ProgressiveBandHashGrid
from threestudio_redream.runtime.mlps import SphereInitVanillaMLP, VanillaMLP
from threestudio_redream.runtime.spherical_harmonics import SphericalHarmonics

__all__ = [
    "CompositeEncoding",
    "NetworkWithInputEncoding",
    "ProgressiveBandFrequency",
    "ProgressiveBandHashGrid",
    "SphereInitVanillaMLP",
    "SphericalHarmonics",
    "VanillaMLP",
    "create_network_with_input_encoding",
    "get_activation",
    "get_encoding",
    "get_mlp",
]

_ENCODINGS: dict[str, Callable[[int, dict[str, Any]], nn.Module]] = {
    "HashGrid": HashGrid,
    "DenseGrid": HashGrid,
    "Grid": HashGrid,
    "ProgressiveBandHashGrid": ProgressiveBandHashGrid,
    "ProgressiveBandFrequency": ProgressiveBandFrequency,
    "SphericalHarmonics": SphericalHarmonics,
}
_FUSED = ("FullyFusedMLP", "CutlassMLP")
_MLPS: dict[str, Callable[[int, int, dict[str, Any]], nn.Module]] = {
    "VanillaMLP": VanillaMLP,
    "SphereInitVanillaMLP": SphereInitVanillaMLP,
    **dict.fromkeys(_FUSED, VanillaMLP),
}


def get_encoding(n_input_dims: int, config: Any) -> CompositeEncoding:
    """Build the encoding ``config["otype"]``.

    Args:
        n_input_dims: dimensions of the input, which must lie in [0, 1].
        config: mapping with ``otype``, optionally ``include_xyz``, and the keys of the encoding.

    Returns:
        A module from ``[N, n_input_dims]`` to ``[N, n_output_dims]``; the attribute says how many.

    Raises:
        ConfigError: if the type is unknown or a key is wrong.
    """
    options = _options(config, "encoding")
    kind, include_xyz = options["otype"], bool(options.pop("include_xyz", False))
    if kind in _ENCODINGS:
        return CompositeEncoding(_ENCODINGS[kind](n_input_dims, options), include_xyz)
    if tcnn.usable():
        return CompositeEncoding(tcnn.TcnnEncoding(n_input_dims, options), include_xyz)
    raise ConfigError(
        "This encoding is not available here",
        received=kind,
        fix=f"Use one of {', '.join(_ENCODINGS)}; others need CUDA and tiny-cuda-nn.",
    )


def get_mlp(n_input_dims: int, n_output_dims: int, config: Any) -> nn.Module:
    """Build the network ``config["otype"]`` from ``[N, n_input_dims]`` to ``[N, n_output_dims]``.

    Args:
        config: mapping with ``otype`` (VanillaMLP, SphereInitVanillaMLP, FullyFusedMLP, CutlassMLP),
            ``n_neurons``, ``n_hidden_layers``, ``activation``, ``output_activation``.

    Raises:
        ConfigError: if the type is unknown or a key is wrong.
    """
    options = _options(config, "network")
    kind = options["otype"]
    if kind not in _MLPS:
        raise ConfigError("There is no such network", received=kind, fix=f"Use one of {', '.join(_MLPS)}.")
    if kind in _FUSED and tcnn.usable():
        return tcnn.TcnnNetwork(n_input_dims, n_output_dims, options)
    return _MLPS[kind](n_input_dims, n_output_dims, options)


class NetworkWithInputEncoding(nn.Module, Updateable):
    """``network(encoding(x))``."""

    def __init__(self, encoding: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.encoding, self.network = encoding, network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.encoding(x))


def create_network_with_input_encoding(
    n_input_dims: int, n_output_dims: int, encoding_config: Any, network_config: Any
) -> NetworkWithInputEncoding:
    """``get_encoding`` and ``get_mlp`` joined: ``[N, n_input_dims]`` in [0, 1] to ``[N, n_output_dims]``."""
    encoding = get_encoding(n_input_dims, encoding_config)
    return NetworkWithInputEncoding(encoding, get_mlp(encoding.n_output_dims, n_output_dims, network_config))


def _options(config: Any, what: str) -> dict[str, Any]:
    options = config_to_primitive(config)
    if not isinstance(options, dict) or not options.get("otype"):
        raise ConfigError(f"The {what} config has no otype", received=options, fix="Add otype: to it.")
    return dict(options)
