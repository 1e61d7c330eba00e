"""Form B of the prior: the retrieved asset as a point in the latent space of the 2D prior.

A diffusion model of a distribution that sits on one point ``z_ret`` knows the noise exactly,

    eps_ret(x_t) = (x_t - alpha_t z_ret) / sigma_t = eps + (alpha_t / sigma_t) (z - z_ret),

so score distillation with it is a pull ``w(t) (alpha_t / sigma_t) (z - z_ret)``, with ``w = sigma_t^2`` the weight
``alpha_t sigma_t``: a reconstruction in latent space, measured like ``loss_vsd`` and added to it without a new scale.
"""

from __future__ import annotations

import torch
from torch import Tensor

from threestudio_redream.guidance.latent_diffusion import LatentDiffusion
from threestudio_redream.guidance.losses import decoded_target, pixel_loss, timestep_weight
from threestudio_redream.runtime.guidance.base import sds_loss

__all__ = ["latent_prior_loss", "point_residual", "responsibilities"]


def responsibilities(noisy: Tensor, references: Tensor, alpha: Tensor, sigma: Tensor, together: bool = True) -> Tensor:
    """Which of N points noisy latents come from: ``softmax_n(-||x_t - alpha z_n||^2 / (2 sigma^2))``.

    Args:
        noisy: ``[B, ...]``. references: ``[N, B, ...]``. alpha, sigma: ``[B, 1, ...]``.
        together: the B pictures show one object, so they share an answer: their log-weights are summed. Otherwise
            each picture has its own, and front and back may be pulled to different assets.

    Returns:
        ``[N, B]``, summing to 1 over N.
    """
    away = (noisy - alpha * references).square() / (2.0 * sigma.square())
    weights = -away.flatten(2).sum(dim=2)
    if together:
        weights = weights.sum(dim=1, keepdim=True).expand(-1, weights.shape[1])
    return weights.softmax(dim=0)


def point_residual(
    latents: Tensor, noise: Tensor, references: Tensor, alpha: Tensor, sigma: Tensor, together: bool = True
) -> Tensor:
    """``eps_ret - eps`` of a prior that sits on N points with equal weights, at ``x_t = alpha z + sigma eps``.

    It is ``(alpha / sigma) (z - sum_n r_n z_n)``; with one point the noise drops out.

    Args:
        latents, noise: ``[B, ...]``. references: ``[N, B, ...]``. alpha, sigma: ``[B, 1, ...]``.
        together: see :func:`responsibilities`.
    """
    mean = references[0]
    if len(references) > 1:
        shares = responsibilities(alpha * latents + sigma * noise, references, alpha, sigma, together)
        mean = (shares.view(*shares.shape, *[1] * (latents.ndim - 1)) * references).sum(dim=0)
    return alpha / sigma * (latents - mean)


def latent_prior_loss(
    model: LatentDiffusion,
    images: Tensor,
    references: Tensor,
    steps: Tensor,
    generator: torch.Generator,
    *,
    gradient: str = "encoder",
    weighting: str = "sds",
    together: bool = True,
) -> Tensor:
    """A loss whose gradient pulls renders towards assets as score distillation with a point prior does.

    Args:
        images: ``[B, H, W, 3]`` renders in [0, 1] with a graph. references: ``[N, B, H, W, 3]``, the assets from the
            same cameras on the same ground.
        steps: ``[B]`` timesteps. generator: of the noise, on the CPU; it matters with several assets only.
        gradient: ``encoder`` or ``decoder``, as in the guidances. weighting: w(t), see :func:`timestep_weight`.
        together: see :func:`responsibilities`.
    """
    images = model.resized(images)
    with torch.set_grad_enabled(gradient == "encoder" and torch.is_grad_enabled()):
        latents = model.encode(images)
    alpha, sigma = model.alpha_sigma(steps)
    weight = timestep_weight(alpha, sigma, weighting)
    with torch.no_grad():
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        points = torch.stack([model.encode(model.resized(reference)) for reference in references])
        grad = weight * point_residual(latents, noise, points, alpha, sigma, together)
    if gradient == "decoder":
        target = decoded_target(model, images, latents, grad * sigma / (weight * alpha).clamp(min=1e-4))
        return pixel_loss(images, target, weight * alpha / sigma, model.downsampling)
    return sds_loss(latents, grad)
