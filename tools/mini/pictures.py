"""Renders of the library on disk, and how they become training pictures.

A set of renders is a folder with ``rgba.npy`` (``[N, 64, 64, 4]`` uint8, premultiplied), ``labels.npy`` (``[N, 6]``
float32, columns below) and ``set.json``. Backgrounds and styles are put in when a batch is drawn.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tools.mini.views import bucket

__all__ = ["LABELS", "SIDE", "STYLE_COUNT", "PictureSet", "develop", "random_backgrounds"]

SIDE = 64
#: Columns of labels.npy. ``web`` is 1 for cameras of ``web_cameras``; ``instance`` numbers the objects of a set.
LABELS = ("kind", "descriptor", "azimuth", "elevation", "web", "instance")
STYLE_COUNT = 4


@dataclass(frozen=True)
class PictureSet:
    """A folder of renders, memory-mapped.

    Attributes:
        rgba: ``[N, 64, 64, 4]`` uint8. kind, descriptor, view: ``[N]`` int64. azimuth, elevation: ``[N]`` degrees.
        web: ``[N]`` bool. instance: ``[N]`` int64. kinds, descriptors: the names that the indices stand for.
        fronted: ``[N]`` bool, whether the kind has a front.
    """

    rgba: NDArray[np.uint8]
    kind: NDArray[np.int64]
    descriptor: NDArray[np.int64]
    view: NDArray[np.int64]
    azimuth: NDArray[np.float32]
    elevation: NDArray[np.float32]
    web: NDArray[np.bool_]
    instance: NDArray[np.int64]
    fronted: NDArray[np.bool_]
    kinds: tuple[str, ...]
    descriptors: tuple[str, ...]

    @staticmethod
    def open(folder: Path) -> PictureSet:
        """Open a set that ``render_library`` has finished.

        Raises:
            FileNotFoundError: it has not.
        """
        path = folder / "set.json"
        if not path.is_file():
            raise FileNotFoundError(f"no finished set of renders in {folder}; run python -m tools.mini.render_library")
        about = json.loads(path.read_text("utf-8"))
        columns = dict(zip(LABELS, np.load(folder / "labels.npy").T))
        kind = columns["kind"].astype(np.int64)
        return PictureSet(
            rgba=np.load(folder / "rgba.npy", mmap_mode="r"),
            kind=kind,
            descriptor=columns["descriptor"].astype(np.int64),
            view=bucket(columns["azimuth"], columns["elevation"]),
            azimuth=columns["azimuth"],
            elevation=columns["elevation"],
            web=columns["web"] > 0.5,
            instance=columns["instance"].astype(np.int64),
            fronted=np.asarray(about["fronted"])[kind],
            kinds=tuple(about["kinds"]),
            descriptors=tuple(about["descriptors"]),
        )

    def batch(self, rows: NDArray[np.int64]) -> Tensor:
        """``[B, 4, 64, 64]`` float premultiplied in [0, 1]."""
        order = np.argsort(rows)  # a memory map is read faster in order
        pixels = np.zeros((len(rows), SIDE, SIDE, 4), np.uint8)
        pixels[order] = self.rgba[rows[order]]
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255.0


def random_backgrounds(count: int, generator: torch.Generator) -> Tensor:
    """``[count, 3]`` plain backgrounds: mostly greys, some muted colours."""
    grey = 0.40 + 0.42 * torch.rand(count, 1, generator=generator)
    tint = (torch.rand(count, 3, generator=generator) - 0.5) * 0.2
    colored = torch.rand(count, 1, generator=generator) < 0.25
    return torch.where(colored, (grey + tint).clamp(0.1, 0.92), grey.expand(-1, 3))


def develop(rgba: Tensor, background: Tensor, style: Tensor) -> Tensor:
    """Pictures out of renders.

    Styles, by index of ``words.STYLES``: 0 plain; 1 a photo (plain as well); 2 a toy: saturated and bright, shadows
    lifted; 3 a clay model: colours half way to clay, with deeper shadows.

    Args:
        rgba: ``[B, 4, H, W]`` premultiplied. background: ``[B, 3]``. style: ``[B]`` int64.

    Returns:
        ``[B, 3, H, W]`` in [0, 1].
    """
    rgb, alpha = rgba[:, :3], rgba[:, 3:]
    luma = (rgb * torch.tensor([0.30, 0.59, 0.11], device=rgb.device).view(1, 3, 1, 1)).sum(1, keepdim=True)
    toy = (luma + 1.25 * (rgb - luma)).clamp(min=0.0) * 0.9 + 0.12 * alpha
    clay_tint = torch.tensor([0.72, 0.62, 0.54], device=rgb.device).view(1, 3, 1, 1)
    clay = (0.55 * rgb + 0.45 * luma * 1.25 * clay_tint) * 0.92
    kind = style.view(-1, 1, 1, 1)
    rgb = torch.where(kind == 2, toy, torch.where(kind == 3, clay, rgb))
    rgb = torch.minimum(rgb, alpha)
    return (rgb + (1.0 - alpha) * background[:, :, None, None]).clamp(0.0, 1.0)
