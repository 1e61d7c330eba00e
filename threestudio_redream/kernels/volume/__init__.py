"""Volume rendering of density fields: where to sample rays, and how samples become pixels.

Samples are *packed*: all samples of all rays in one row, sorted by ray and then by distance, with
``ray_indices`` naming the ray of each. Names follow nerfacc. Every fast path has a plain-torch
reference beside it; ``backend="auto"`` picks (see :mod:`.backends`).
"""

from __future__ import annotations

from threestudio_redream.kernels.volume.accumulate import accumulate_along_rays
from threestudio_redream.kernels.volume.backends import BACKENDS, resolve_backend
from threestudio_redream.kernels.volume.intersect import ray_aabb_intersect
from threestudio_redream.kernels.volume.march import march_rays
from threestudio_redream.kernels.volume.occupancy import OccupancyGrid
from threestudio_redream.kernels.volume.packing import ray_offsets
from threestudio_redream.kernels.volume.proposal import (
    importance_samples,
    pack_intervals,
    sample_pdf,
    uniform_samples,
)
from threestudio_redream.kernels.volume.weights import render_weight_from_density

__all__ = [
    "BACKENDS",
    "OccupancyGrid",
    "accumulate_along_rays",
    "importance_samples",
    "march_rays",
    "pack_intervals",
    "ray_aabb_intersect",
    "ray_offsets",
    "render_weight_from_density",
    "resolve_backend",
    "sample_pdf",
    "uniform_samples",
]
