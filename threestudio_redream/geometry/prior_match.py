"""The 3D prior as strong as the 2D prior says it should be: by the size of gradients instead of by a fixed factor.

The scale of a distillation gradient depends on the model, the guidance scale and the timestep; that of a reconstruction
on how far it has come. ``lambda`` such that ``|grad L_ret| = rho |grad L_guidance|`` takes both out. The sizes are
taken where the images are made, not at the parameters: the graph of the field is not walked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from threestudio_redream.runtime.schedule import C

__all__ = ["MatchConfig", "image_gradient_norm", "matched_factor"]

#: What a renderer makes of a field, as far as losses on images look at it.
IMAGES = ("comp_rgb", "opacity", "comp_normal")


@dataclass
class MatchConfig:
    """How strong the prior is.

    Attributes:
        rho: scheduled size of the prior's gradient, relative to the guidance's; empty leaves it to the weights in
            ``system.loss``. ``[0, 10.0, 0.0, 300]`` starts ten times as strong and is gone at step 300.
    """

    rho: Any = None

    def __post_init__(self) -> None:
        if self.rho is not None:
            C(self.rho, 0, 0)  # a schedule that is none is found now


def image_gradient_norm(loss: Tensor, out: Mapping[str, Tensor]) -> Tensor:
    """Euclidean norm of a loss's gradient with respect to a renderer's images, a scalar without a graph.

    The colour in front of the ground, the opacity and the normals are the coordinates: what ``comp_rgb`` owes to the
    opacity counts with the opacity.
    """
    if not loss.requires_grad:
        return loss.new_zeros(())
    images = [out[name] for name in IMAGES if name in out and out[name].requires_grad]
    found = torch.autograd.grad(loss, images, retain_graph=True, allow_unused=True)
    return torch.stack([loss.new_zeros(()), *(part.norm() for part in found if part is not None)]).norm()


def matched_factor(prior: Tensor, guidance: Tensor, out: Mapping[str, Tensor], rho: float) -> Tensor:
    """What to multiply ``prior`` with so that its gradient is ``rho`` times as large as that of ``guidance``.

    Both are weighted sums of losses on the images of ``out``. 0 where the prior has no gradient, or ``rho`` is 0.
    """
    if rho == 0.0:
        return prior.new_zeros(())
    own = image_gradient_norm(prior, out)
    return torch.where(own > 0.0, rho * image_gradient_norm(guidance, out) / own.clamp(min=1e-30), own)
