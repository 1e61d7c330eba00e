"""v_ret: the pull of a particle towards its retrieved asset (Seo et al., 2024, section 4.2; form A of docs/method.md).

A Gaussian around renders of the asset makes the prior's velocity the gradient of an image reconstruction: colour and
mask of the particle against those of the asset, from the same camera, in front of the same ground.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from threestudio_redream.assets import Asset
from threestudio_redream.errors import ConfigError

__all__ = ["AssetViews", "ReferenceView", "prior_losses"]


@dataclass(frozen=True)
class ReferenceView:
    """A retrieved asset as the cameras of a batch see it.

    Attributes:
        rgb: ``[B, H, W, 3]`` in [0, 1], in front of the batch's ground. mask: ``[B, H, W, 1]``.
        normal: ``[B, H, W, 3]`` world-space unit normals, 0 where nothing is hit.
    """

    rgb: Tensor
    mask: Tensor
    normal: Tensor


class AssetViews:
    """Renders assets from the cameras of training batches.

    Args:
        assets: in the canonical frame. supersample: of the renders.
    """

    def __init__(self, assets: Sequence[Asset], supersample: int = 2) -> None:
        from threestudio_redream.assets.rasteriser import AssetRenderer

        if not assets:
            raise ConfigError("There is no asset to render", received=0, fix="Retrieve some, or switch the prior off.")
        self._renderers = [AssetRenderer(asset, supersample=supersample) for asset in assets]

    def __len__(self) -> int:
        return len(self._renderers)

    def __call__(self, which: int, c2w: Tensor, fovy: Tensor, height: int, width: int, ground: Tensor) -> ReferenceView:
        """Asset ``which`` (modulo their number).

        Args:
            c2w: ``[B, 4, 4]``. fovy: ``[B]`` radians. ground: colour behind it, broadcastable to ``[B, H, W, 3]``.
        """
        renderer = self._renderers[which % len(self._renderers)]
        renders = renderer(c2w.detach().cpu().numpy(), np.rad2deg(fovy.detach().cpu().numpy()), height, width)
        rgba = torch.from_numpy(renders.rgba).to(ground)
        return ReferenceView(
            rgba[..., :3] + (1.0 - rgba[..., 3:]) * ground, rgba[..., 3:], torch.from_numpy(renders.normal).to(ground)
        )


def prior_losses(out: Mapping[str, Tensor], reference: ReferenceView, trust: float = 1.0) -> dict[str, Tensor]:
    """Terms by the name after ``lambda_``.

    ``prior_rgb``: mean squared error of the colours. ``prior_mask``: of the opacity against the mask.
    ``prior_normal``: one minus the cosine of the normals, where both have some and if the renderer gives them; it is
    blind to colour.

    Args:
        out: of the renderer; ``comp_rgb [B, H, W, 3]``, ``opacity [B, H, W, 1]``, maybe ``comp_normal``: unit normals
            moved to [0, 1] and then scaled by the opacity.
        trust: factor on all of them, the asset's reliability.
    """
    terms = {
        "prior_rgb": functional.mse_loss(out["comp_rgb"], reference.rgb),
        "prior_mask": functional.mse_loss(out["opacity"], reference.mask),
    }
    if "comp_normal" in out:
        unscaled = out["comp_normal"] / out["opacity"].clamp(min=1e-5)
        normal = functional.normalize(unscaled * 2.0 - 1.0, dim=-1)
        seen = reference.mask * out["opacity"].detach()
        wrong = 1.0 - (normal * reference.normal).sum(-1, keepdim=True)
        terms["prior_normal"] = (seen * wrong).sum() / seen.sum().clamp(min=1.0)
    return {name: trust * value for name, value in terms.items()}
