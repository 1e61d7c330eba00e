"""Multi-resolution hash grid: numba kernels on the CPU, tiny-cuda-nn on CUDA, a torch reference everywhere."""

from __future__ import annotations

from threestudio_redream.kernels.hashgrid.config import HashGridConfig, Level
from threestudio_redream.kernels.hashgrid.module import HashGrid
from threestudio_redream.kernels.hashgrid.progressive import ProgressiveBandHashGrid
from threestudio_redream.kernels.hashgrid.reference import encode_reference

__all__ = ["HashGrid", "HashGridConfig", "Level", "ProgressiveBandHashGrid", "encode_reference"]
