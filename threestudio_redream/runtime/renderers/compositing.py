"""From samples along rays to pixels: weights, then weighted sums of colour, distance and normal."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from threestudio_redream.kernels.volume import accumulate_along_rays, ray_offsets, render_weight_from_density

__all__ = ["composite", "masked_mean"]


def composite(
    t_starts: Tensor,
    t_ends: Tensor,
    ray_indices: Tensor,
    n_rays: int,
    density: Tensor,
    color: Tensor,
    normal: Tensor | None = None,
) -> dict[str, Tensor]:
    """Emission-absorption compositing of packed samples.

    Convention: distances are along unit ray directions, in world units. ``comp_rgb_fg`` is
    premultiplied: a ray through an opaque red surface at distance 2 gives ``(1, 0, 0)``, depth 2,
    opacity 1; half-transparent, ``(0.5, 0, 0)``, depth 1, opacity 0.5.

    Args:
        t_starts, t_ends: ``[M]``, intervals of the samples. ray_indices: ``[M]`` int64, sorted.
        density: ``[M]``, at the middles. color: ``[M, C]``. normal: ``[M, 3]`` unit vectors or None.

    Returns:
        Per sample ``weights`` ``[M, 1]``; per ray ``comp_rgb_fg`` ``[R, C]``, ``opacity`` ``[R, 1]``,
        ``depth`` ``[R, 1]`` (weighted by opacity), ``z_variance`` ``[R, 1]`` (variance of the distance,
        0 where opacity <= 0.5; HiFA, Zhu et al. 2024) and, with normals, ``comp_normal`` ``[R, 3]`` in [0, 1],
        scaled by opacity. Rays without samples are 0 everywhere. All of them are finite, and
        differentiable even when there is no sample at all.
    """
    offsets = ray_offsets(ray_indices, n_rays)
    along: dict[str, Any] = {"ray_indices": ray_indices, "n_rays": n_rays, "offsets": offsets}
    weights, _, _ = render_weight_from_density(t_starts, t_ends, density, **along)
    middles = ((t_starts + t_ends) * 0.5)[:, None]

    opacity = accumulate_along_rays(weights, None, **along)
    channels = color.shape[-1]
    parts = [color, middles] if normal is None else [color, middles, normal]
    sums = accumulate_along_rays(weights, torch.cat(parts, dim=-1), **along)
    depth = sums[:, channels : channels + 1]

    visible = opacity.clamp(min=1e-5)
    z_mean = depth / visible
    squared = accumulate_along_rays(weights, (middles - z_mean[ray_indices]).square(), **along)
    output = {
        "weights": weights[:, None],
        "comp_rgb_fg": sums[:, :channels],
        "opacity": opacity,
        "depth": depth,
        "z_variance": torch.where(opacity > 0.5, squared / visible, torch.zeros_like(squared)),
    }
    if normal is not None:
        direction = functional.normalize(sums[:, channels + 1 :], dim=-1)
        output["comp_normal"] = (direction + 1.0) * 0.5 * opacity
    return output


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` where ``mask`` is True, and 0 (not NaN) with zero gradient where nothing is.

    The loss on ``z_variance`` wants ``masked_mean(out["z_variance"], out["opacity"] > 0.5)``.

    Args:
        values: any shape. mask: bool, same shape.
    """
    chosen = torch.where(mask, values, torch.zeros_like(values))
    return chosen.sum() / mask.sum().clamp(min=1)
