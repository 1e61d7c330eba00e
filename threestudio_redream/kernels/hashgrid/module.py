"""The hash grid as a torch module, with its backends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from threestudio_redream.errors import ConfigError, RedreamError
from threestudio_redream.kernels.hashgrid.config import HashGridConfig
from threestudio_redream.kernels.hashgrid.cpu import CpuGrid, zeros_in_large_pages
from threestudio_redream.kernels.hashgrid.function import encode_cpu
from threestudio_redream.kernels.hashgrid.reference import clamped, encode_reference
from threestudio_redream.kernels.hashgrid.tcnn import make_tcnn_encoding, tcnn_available
from threestudio_redream.kernels.jit import kernel_choice, use_numba

__all__ = ["HashGrid"]


class HashGrid(nn.Module):
    """Multi-resolution hash encoding with tiny-cuda-nn's configuration and parameter layout.

    Args:
        n_input_dims: 2 or 3.
        config: :class:`HashGridConfig` or a mapping with tiny-cuda-nn's keys.
        backend: ``auto`` takes tiny-cuda-nn on CUDA where it imports, the numba kernels on the CPU,
            and the torch reference elsewhere, for every call anew (the module may be moved);
            ``numba``, ``torch`` or ``tcnn`` insist. ``REDREAM_KERNELS=torch`` makes ``auto`` take
            the reference everywhere.
        seed: makes the initial parameters reproducible; otherwise torch's generator decides.

    Attributes:
        params: flat float32 parameter, level after level, x fastest, the features of a grid point
            together; uniform in [-1e-4, 1e-4] at the start.
        n_output_dims: ``n_levels * n_features_per_level``.

    Example:
        >>> grid = HashGrid(3, {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 15})
        >>> grid(torch.rand(10, 3)).shape
        torch.Size([10, 8])

    Raises:
        ConfigError: the configuration is out of range, or the backend unknown.
    """

    def __init__(
        self,
        n_input_dims: int,
        config: HashGridConfig | Mapping[str, Any],
        *,
        backend: str = "auto",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if backend not in ("auto", "numba", "torch", "tcnn"):
            raise ConfigError("Unknown hash-grid backend", received=backend, fix="Use auto, numba, torch or tcnn.")
        self.config = config if isinstance(config, HashGridConfig) else HashGridConfig.from_mapping(config)
        self.backend = backend
        self.n_input_dims, self.n_output_dims = n_input_dims, self.config.n_output_dims
        self.levels = self.config.levels(n_input_dims)
        self._cpu = CpuGrid(self.config, n_input_dims)
        self._tcnn: list[Any] = []  # in a list, so that its copy of the parameters stays out of ours
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        values = torch.from_numpy(zeros_in_large_pages(self.config.n_params(n_input_dims)))
        self.params = nn.Parameter(values.uniform_(-1e-4, 1e-4, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        """Encode positions.

        Args:
            x: ``[N, D]`` in [0, 1], any float dtype (computed in that of ``params``). Values outside
                are clamped and get no gradient; a NaN makes the features of its point NaN.

        Returns:
            ``[N, n_output_dims]`` in the dtype of ``params``, the coarsest level first.

        Raises:
            ConfigError: ``x`` has another shape, or the backend cannot run on its device.
        """
        if x.ndim != 2 or x.shape[1] != self.n_input_dims:
            raise ConfigError(
                f"The hash grid takes positions [N, {self.n_input_dims}]",
                received=tuple(x.shape),
                fix="Flatten the leading dimensions first.",
            )
        x = x.to(self.params.dtype)
        backend = self._resolve(x.device.type)
        if backend == "numba":
            return encode_cpu(x, self.params, self._cpu)
        if backend == "tcnn":
            return self._encode_tcnn(x)
        smooth = self.config.interpolation == "Smoothstep"
        return encode_reference(x, self.params, self.levels, self.config.n_features_per_level, smooth)

    def extra_repr(self) -> str:
        return f"{self.n_input_dims}, {self.config}, backend={self.backend!r}"

    def _resolve(self, device: str) -> str:
        single = self.params.dtype == torch.float32
        if self.backend == "auto":
            if single and use_numba(device):
                return "numba"
            return (
                "tcnn" if single and device == "cuda" and kernel_choice() != "torch" and tcnn_available() else "torch"
            )
        if self.backend == "numba" and not (single and device == "cpu"):
            raise ConfigError(
                "The numba hash grid runs in float32 on the CPU",
                received=f"{self.params.dtype} on {device}",
                fix="Use backend='auto'.",
            )
        return self.backend

    def _encode_tcnn(self, x: Tensor) -> Tensor:
        if not self._tcnn:
            encoding = make_tcnn_encoding(self.n_input_dims, self.config)
            if encoding.params.numel() != self.params.numel():
                raise RedreamError(
                    "tiny-cuda-nn lays this grid out differently",
                    received=f"{encoding.params.numel()} parameters instead of {self.params.numel()}",
                    fix="Use backend='torch', and report the configuration.",
                )
            self._tcnn.append(encoding)
        encoding = self._tcnn[0]
        encoding.params = self.params
        return encoding(clamped(x))[:, : self.n_output_dims].to(self.params.dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tcnn": []}  # native handles can be neither copied nor saved
