"""From a score residual in latent space to a loss on renders, shared by all score distillation guidances."""

from __future__ import annotations

import torch
from torch import Tensor

from threestudio_redream.errors import ConfigError
from threestudio_redream.guidance.latent_diffusion import LatentDiffusion

__all__ = ["GRADIENTS", "WEIGHTINGS", "check_gradient", "decoded_target", "image_loss", "pixel_loss", "timestep_weight"]

GRADIENTS = ("encoder", "decoder")
WEIGHTINGS = ("sds", "uniform", "fantasia3d")


def timestep_weight(alpha: Tensor, sigma: Tensor, weighting: str) -> Tensor:
    """w(t): ``sds`` is sigma_t^2, ``uniform`` 1, ``fantasia3d`` alpha_t sigma_t^2 (Chen et al., 2023).

    Raises:
        ConfigError: for another name.
    """
    if weighting == "sds":
        return sigma**2
    if weighting == "uniform":
        return torch.ones_like(sigma)
    if weighting == "fantasia3d":
        return alpha * sigma**2
    raise ConfigError("Unknown weighting of timesteps", received=weighting, fix=f"Use one of {', '.join(WEIGHTINGS)}.")


def check_gradient(way: str) -> None:
    """Raise ConfigError unless ``way`` is one of ``GRADIENTS``."""
    if way not in GRADIENTS:
        raise ConfigError("Unknown way for the gradient", received=way, fix=f"Use one of {', '.join(GRADIENTS)}.")


def pixel_loss(images: Tensor, target: Tensor, weight: Tensor, downsampling: int) -> Tensor:
    """``0.5 sum(weight (images - target)^2) / B``, divided by the colour values there are for each latent one.

    That way it weighs as much as the same loss on latents, whatever the autoencoder.

    Args:
        images: ``[B, H, W, 3]`` with a graph. target: the same shape, a constant. weight: ``[B, 1, 1, 1]``.
        downsampling: pixels along the side of a latent, which has four channels.
    """
    per_latent = downsampling**2 * 3 / 4
    return 0.5 * (weight * (images - target.detach()).square()).sum() / (images.shape[0] * per_latent)


def image_loss(
    model: LatentDiffusion, images: Tensor, latents: Tensor, grad: Tensor, weight: Tensor, alpha: Tensor, sigma: Tensor
) -> Tensor:
    """The image-space term of HiFA (Zhu et al., 2024): ``0.5 sum(w(t) (images - D(z_hat))^2) / B``.

    ``z_hat = z - grad sigma / (w alpha)`` is the clean estimate that the residual stands for.

    Args:
        images: ``[B, H, W, 3]`` with a graph. latents, grad: ``[B, 4, h, w]``. weight, alpha, sigma: ``[B, 1, 1, 1]``.
    """
    with torch.no_grad():
        wanted = model.decode(latents - grad * sigma / (weight * alpha).clamp(min=1e-4))
    return pixel_loss(images, wanted, weight, model.downsampling)


@torch.no_grad()
def decoded_target(model: LatentDiffusion, images: Tensor, latents: Tensor, shift: Tensor) -> Tensor:
    """Where a render should go if its latents should go to ``latents - shift``: ``images + (D(z - shift) - D(z))``.

    The difference of two decodings keeps what the autoencoder loses out of the gradient, so a shift of 0 is a fixed
    point.

    Args:
        images: ``[B, H, W, 3]`` in [0, 1]. latents, shift: ``[B, 4, h, w]``.
    """
    wanted, now = model.decode(torch.cat([latents - shift, latents])).chunk(2)
    return images.detach() + (wanted - now)
