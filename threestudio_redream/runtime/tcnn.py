"""The door to tiny-cuda-nn: used on CUDA where it imports, never required."""

from __future__ import annotations

import functools
import importlib
import logging
from typing import Any

import torch
from torch import Tensor, nn

from threestudio_redream.runtime.device import get_device

__all__ = ["TcnnEncoding", "TcnnNetwork", "usable"]

log = logging.getLogger("pytorch_lightning")


def usable() -> bool:
    """Whether new modules belong to a CUDA device and tiny-cuda-nn imports."""
    return get_device().type == "cuda" and _module() is not None


@functools.cache
def _module() -> Any | None:
    try:
        return importlib.import_module("tinycudann")
    except Exception as error:  # a build for another GPU raises more than ImportError
        log.info("tiny-cuda-nn is not used (%s: %s); networks run in torch", type(error).__name__, error)
        return None


class TcnnEncoding(nn.Module):
    """``tinycudann.Encoding`` in float32: ``[N, n_input_dims]`` to ``[N, n_output_dims]``."""

    def __init__(self, n_input_dims: int, config: dict[str, Any]) -> None:
        super().__init__()
        module: Any = _module()
        with torch.device(get_device()):
            self.encoding = module.Encoding(n_input_dims, config, dtype=torch.float32)
        self.n_input_dims, self.n_output_dims = n_input_dims, int(self.encoding.n_output_dims)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoding(x)


class TcnnNetwork(nn.Module):
    """``tinycudann.Network``, its half-precision output turned to float32."""

    def __init__(self, n_input_dims: int, n_output_dims: int, config: dict[str, Any]) -> None:
        super().__init__()
        module: Any = _module()
        with torch.device(get_device()):
            self.network = module.Network(n_input_dims, n_output_dims, config)
        self.n_input_dims, self.n_output_dims = n_input_dims, n_output_dims

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x).float()
