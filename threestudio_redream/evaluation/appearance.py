"""What pictures of an object look like, and what its colours owe to another's: sharpness, controls, colour leak.

Foreground masks ``[A, H, W]`` are opacities above one half.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from threestudio_redream.errors import ConfigError

__all__ = ["blurred", "colour_distance", "cropped", "flattened", "on_ground", "sharpness"]

_LUMA = (0.299, 0.587, 0.114)


def sharpness(views: Tensor, masks: Tensor | None = None) -> float:
    """Variance of the Laplacian of luminance, within the masks if there are any, mean over the views.

    Args:
        views: ``[A, H, W, 3]`` in [0, 1]. masks: ``[A, H, W]`` bool; their outlines (one pixel) do not count, views
            whose mask is empty neither.
    """
    luma = (views * views.new_tensor(_LUMA)).sum(-1)[:, None]
    kernel = views.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]
    edges = functional.conv2d(luma, kernel)[:, 0]
    if masks is None:
        return float(edges.flatten(1).var(dim=1, unbiased=False).mean())
    inside = -functional.max_pool2d(-masks[:, None].float(), 3, 1)[:, 0] > 0.5  # eroded, without the border
    found = [row[keep].var(unbiased=False) for row, keep in zip(edges, inside) if keep.any()]
    return float(torch.stack(found).mean()) if found else 0.0


def blurred(views: Tensor, sigma: float = 2.0) -> Tensor:
    """Views ``[A, H, W, 3]`` under a Gaussian of ``sigma`` pixels, borders reflected: the control for smoothing."""
    radius = max(1, round(3.0 * sigma))
    place = torch.arange(-radius, radius + 1, dtype=views.dtype)
    weights = torch.exp(-0.5 * (place / sigma).square())
    weights = (weights / weights.sum()).view(1, 1, -1)
    image = views.permute(0, 3, 1, 2)
    for axis in (2, 3):
        moved = image.movedim(axis, -1)
        rows = moved.reshape(-1, 1, moved.shape[-1])
        rows = functional.conv1d(functional.pad(rows, (radius, radius), mode="reflect"), weights)
        image = rows.view(moved.shape).movedim(-1, axis)
    return image.permute(0, 2, 3, 1)


def flattened(views: Tensor, masks: Tensor) -> Tensor:
    """The silhouettes, filled with the object's mean colour: the control for having no features at all."""
    if not masks.any():
        raise ConfigError("No view shows the object", received=int(masks.sum()), fix="Check the opacity maps.")
    return torch.where(masks[..., None], views[masks].mean(0), views)


def on_ground(views: Tensor, opacity: Tensor, ground: float | Sequence[float], shown: float = 1.0) -> Tensor:
    """The same views before another ground.

    Args:
        opacity: ``[A, H, W]``. ground: grey or colour that the views were made on. shown: the new grey.
    """
    return (views + (1.0 - opacity[..., None]) * (shown - views.new_tensor(ground))).clamp(0.0, 1.0)


def cropped(views: Tensor, masks: Tensor) -> Tensor:
    """The smallest square around the object in all views (one window for the whole turn), ``[A, S, S, 3]``.

    Raises:
        ConfigError: no view shows the object.
    """
    rows, columns = masks.any(0).any(1).nonzero().flatten(), masks.any(0).any(0).nonzero().flatten()
    if not len(rows):
        raise ConfigError("No view shows the object", received=int(masks.sum()), fix="Check the opacity maps.")
    height, width = masks.shape[1:]
    side = min(int(max(rows[-1] - rows[0], columns[-1] - columns[0])) + 1, height, width)

    def start(first: Tensor, last: Tensor, size: int) -> int:
        return min(max((int(first) + int(last) + 1 - side) // 2, 0), size - side)

    top, left = start(rows[0], rows[-1], height), start(columns[0], columns[-1], width)
    return views[:, top : top + side, left : left + side]


def colour_distance(views: Tensor, masks: Tensor, others: Tensor, other_masks: Tensor, bins: int = 8) -> float:
    """How different two objects' colours are: total variation between histograms of their foregrounds, 0 to 1.

    Against the retrieved asset, a low value is colour leak (unless the prompt asks for the asset's colours).

    Args:
        views, others: ``[A, H, W, 3]``. bins: per channel.

    Raises:
        ConfigError: one of them is not visible.
    """

    def histogram(images: Tensor, keep: Tensor) -> Tensor:
        pixels = images[keep]
        if not len(pixels):
            raise ConfigError("No view shows the object", received=int(keep.sum()), fix="Check the opacity maps.")
        cells = (pixels.clamp(0.0, 1.0) * bins).long().clamp(max=bins - 1)
        flat = (cells[:, 0] * bins + cells[:, 1]) * bins + cells[:, 2]
        return torch.bincount(flat, minlength=bins**3).double() / len(pixels)

    return float(0.5 * (histogram(views, masks) - histogram(others, other_masks)).abs().sum())
