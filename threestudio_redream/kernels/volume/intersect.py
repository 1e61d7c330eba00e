"""Where a ray enters and leaves an axis-aligned box."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ray_aabb_intersect"]


def ray_aabb_intersect(
    rays_o: Tensor, rays_d: Tensor, aabb: Tensor, near: float = 0.0, far: float = 1e10
) -> tuple[Tensor, Tensor, Tensor]:
    """Entry and exit distance of rays through a box, by the slab method (Kay and Kajiya, 1986).

    Convention:
        Distances are in multiples of the direction's length (world units for unit directions). A ray
        from ``(3, 0, 0)`` along ``(-1, 0, 0)`` through the box from -1 to 1 gives ``t_min = 2``,
        ``t_max = 4``. A ray that starts inside has ``t_min = near``.

    Args:
        rays_o: ``[N, 3]`` float, origins in world units.
        rays_d: ``[N, 3]`` float, directions; components may be zero.
        aabb: ``[6]`` float, ``(min x, min y, min z, max x, max y, max z)``.
        near: smallest distance that counts. far: largest distance that counts.

    Returns:
        ``t_min`` ``[N]``, ``t_max`` ``[N]`` (both ``near`` for a miss, so that they stay finite) and
        ``hit`` ``[N]`` bool. A ray that only touches an edge, lies outside ``[near, far]``, has a
        NaN in it or no direction is a miss.
    """
    aabb = aabb.to(rays_o)
    low, high = aabb[:3], aabb[3:]
    parallel = rays_d == 0
    safe_d = torch.where(parallel, torch.ones_like(rays_d), rays_d)
    t_low, t_high = (low - rays_o) / safe_d, (high - rays_o) / safe_d
    entry, leave = torch.minimum(t_low, t_high), torch.maximum(t_low, t_high)
    # Parallel to a pair of faces: between them always, or never.
    between = (rays_o >= low) & (rays_o <= high)
    infinity = torch.full_like(entry, torch.inf)
    entry = torch.where(parallel, torch.where(between, -infinity, infinity), entry)
    leave = torch.where(parallel, torch.where(between, infinity, -infinity), leave)

    t_min = entry.amax(dim=-1).clamp(min=near)
    t_max = leave.amin(dim=-1).clamp(max=far)
    hit = (t_max > t_min) & ~parallel.all(dim=-1)
    miss = torch.full_like(t_min, near)
    return torch.where(hit, t_min, miss), torch.where(hit, t_max, miss), hit
