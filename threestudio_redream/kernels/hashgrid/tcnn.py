"""tiny-cuda-nn as a backend: optional, imported on first use, never required."""

from __future__ import annotations

import logging
from functools import lru_cache
from types import ModuleType
from typing import Any

from threestudio_redream.errors import RedreamError
from threestudio_redream.kernels.hashgrid.config import HashGridConfig

__all__ = ["make_tcnn_encoding", "tcnn_available"]

log = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def _import_tcnn() -> ModuleType | str:
    try:
        import tinycudann
    except Exception as error:  # a build for another GPU raises OSError, a missing GPU RuntimeError
        log.info("tiny-cuda-nn is not usable: %s", error)
        return f"{type(error).__name__}: {error}"
    return tinycudann


def tcnn_available() -> bool:
    """Whether tiny-cuda-nn imports. It does so only where a CUDA device is visible; failures are remembered."""
    return not isinstance(_import_tcnn(), str)


def make_tcnn_encoding(n_input_dims: int, config: HashGridConfig) -> Any:
    """A ``tinycudann.Encoding`` in float32 with the same parameter layout as :class:`HashGrid`.

    Raises:
        RedreamError: tiny-cuda-nn does not import.
    """
    import torch

    module = _import_tcnn()
    if isinstance(module, str):
        raise RedreamError(
            "backend='tcnn' needs tiny-cuda-nn, which did not import",
            received=module,
            fix="Build it from its repository (bindings/torch) with a CUDA compiler, or use backend='auto'.",
        )
    return module.Encoding(n_input_dims, config.to_mapping(), dtype=torch.float32)
