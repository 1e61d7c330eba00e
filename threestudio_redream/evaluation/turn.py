"""One object seen all around, and what can be said about it: kind, finish, fronts, likeness to prompt and asset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from threestudio_redream.assets import Asset
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.errors import ConfigError
from threestudio_redream.evaluation.janus import count_fronts
from threestudio_redream.mini.judge import Judge
from threestudio_redream.retrieval.types import Encoder

__all__ = ["Turn", "asset_masks", "clip_score", "judge_turn", "read_turn", "silhouette_iou"]

FRONT = 0


@dataclass(frozen=True)
class Turn:
    """Views from even azimuths, the first from the front.

    Attributes:
        rgb: ``[A, H, W, 3]`` float32 in [0, 1]. opacity: ``[A, H, W]`` float32 in [0, 1], or None.
    """

    rgb: Tensor
    opacity: Tensor | None = None


def read_turn(save: Path, views: int = 12) -> Turn:
    """Views of a run's last test, out of its ``save`` folder.

    threestudio spaces test azimuths with both ends, so the last frame repeats the first and is left out.

    Args:
        views: how many to take; the number of test views less one must be a multiple of it, else the nearest are taken.

    Raises:
        ConfigError: the run has no test views.
    """
    folders = sorted(save.glob("it*-test"), key=lambda path: int(path.name[2:-5]))
    frames = sorted(folders[-1].glob("*.png"), key=lambda path: int(path.stem)) if folders else []
    if len(frames) < 5:
        raise ConfigError("The run has no turn of test views", received=str(save), fix="Run launch.py --test.")
    count = min(views, len(frames) - 1)
    chosen = [frames[round(i * (len(frames) - 1) / count)] for i in range(count)]
    opacity = [Path(str(path.parent).replace("-test", "-opacity")) / path.name for path in chosen]
    rgb = torch.stack([_picture(path) for path in chosen])
    return Turn(rgb, torch.stack([_picture(p)[..., 0] for p in opacity]) if opacity[0].is_file() else None)


def _picture(path: Path) -> Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.asarray(image.convert("RGB"), np.float32) / 255.0)


def judge_turn(judge: Judge, views: Tensor, descriptor: str, kind: str) -> dict[str, Any]:
    """Verdict on views ``[A, H, W, 3]`` from even azimuths around one object.

    ``recognised``: at least half of the views, and their mean probability, name the kind. ``fronts`` and ``janus``:
    see :func:`~threestudio_redream.evaluation.janus.count_fronts`.
    """
    verdict = judge.judge(views)
    at = judge.kinds.index(kind)
    named = (verdict.kind.argmax(1) == at).float().mean()
    words = verdict.descriptor.mean(0)
    front = count_fronts(verdict.view[:, FRONT].numpy())
    return {
        "recognised": bool(named >= 0.5 and int(verdict.kind.mean(0).argmax()) == at),
        "views_naming_it": float(named),
        "descriptor_right": int(words.argmax()) == judge.descriptors.index(descriptor),
        "has_front": judge.fronted[at],
        "fronts": front.fronts,
        "front_share": front.share,
        "janus": front.janus if judge.fronted[at] else None,
    }


def clip_score(encoder: Encoder, views: Tensor, prompt: str) -> float:
    """Mean raw cosine of the prompt and views ``[A, H, W, 3]``, the CLIP score of the text-to-3D literature."""
    vectors = encoder.encode_images(views.clamp(0.0, 1.0).numpy())
    return float((vectors @ encoder.encode_texts([prompt])[0]).mean())


def asset_masks(
    asset: Asset, views: int, size: int, *, elevation_deg: float, distance: float, fovy_deg: float
) -> NDArray[np.bool_]:
    """``[A, S, S]`` silhouettes of an asset in the canonical frame, from the cameras of a turn."""
    from threestudio_redream.assets.rasteriser import AssetRenderer

    azimuths = [360.0 * i / views for i in range(views)]
    c2w = orbit_c2w(azimuths, [elevation_deg] * views, [distance] * views)
    alpha = AssetRenderer(asset, supersample=2)(c2w, np.full(views, fovy_deg), size, size).rgba[..., 3]
    return alpha > 0.5


def silhouette_iou(opacity: Tensor, masks: NDArray[np.bool_]) -> float:
    """Mean intersection over union of outlines, ``[A, S, S]`` both; 1 where both are empty.

    Raises:
        ConfigError: the shapes differ.
    """
    seen = opacity.numpy() > 0.5
    if seen.shape != masks.shape:
        raise ConfigError("Silhouettes of two sizes", received=(seen.shape, masks.shape), fix="Render both alike.")
    both, either = (seen & masks).sum(axis=(1, 2)), (seen | masks).sum(axis=(1, 2))
    return float(np.where(either > 0, both / np.maximum(either, 1), 1.0).mean())
