"""Penalties on a render that know nothing of prompts or assets."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["NEEDS", "binary_entropy", "regularisers"]

#: Penalties that not every renderer has something for, and what gives it.
NEEDS = {
    "orient": "Normals need system.geometry.normal_type and a volume renderer.",
    "z_variance": "A volume renderer has it.",
}


def regularisers(out: dict[str, Tensor]) -> dict[str, Tensor]:
    """The usual penalties on a render, by the name after ``lambda_``.

    ``sparsity``: ``mean sqrt(opacity^2 + 0.01)``. ``opaque``: binary entropy of the opacity, which makes pixels
    decide. ``orient``: normals that are seen from behind (Ref-NeRF, Verbin et al., 2022), if there are normals.
    ``z_variance``: spread of the density along rays that hit something. The last two need a renderer that gives them
    what they look at, and are left out otherwise.
    """
    opacity = out["opacity"]
    terms = {
        "sparsity": (opacity.square() + 0.01).sqrt().mean(),
        "opaque": binary_entropy(opacity),
    }
    if "z_variance" in out:
        hit = opacity > 0.5
        terms["z_variance"] = out["z_variance"][hit].mean() if hit.any() else opacity.sum() * 0.0
    if "normal" in out:
        facing = (out["normal"] * out["t_dirs"]).sum(-1, keepdim=True).clamp(min=0.0)
        terms["orient"] = (out["weights"].detach() * facing.square()).sum() / (opacity > 0.0).sum().clamp(min=1)
    return terms


def binary_entropy(opacity: Tensor, target: Tensor | None = None) -> Tensor:
    """Mean cross entropy of opacities with ``target``, or with themselves; in float32, as the kernel refuses CUDA's
    autocast."""
    target = opacity if target is None else target
    # ops.binary_cross_entropy, written out for extensions, rounds otherwise: seeds would no longer give their results.
    with torch.autocast(opacity.device.type, enabled=False):
        mine, other = (values.float().clamp(1e-3, 1.0 - 1e-3) for values in (opacity, target))
        return functional.binary_cross_entropy(mine, other)
