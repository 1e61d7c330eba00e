"""Samples of a latent diffusion model by DDIM (Song et al., 2021), deterministic but for the starting noise."""

from __future__ import annotations

import torch
from torch import Tensor

from threestudio_redream.guidance.latent_diffusion import LatentDiffusion

__all__ = ["sample_latents"]


@torch.no_grad()
def sample_latents(
    model: LatentDiffusion, embeddings: Tensor, noise: Tensor, *, steps: int = 25, guidance_scale: float = 5.0
) -> Tensor:
    """Latents ``[B, 4, h, w]`` from noise of the same shape.

    Args:
        embeddings: ``[2B, N, F]``, conditional ones first. steps: evenly spaced from the last timestep ("trailing",
            Lin et al., 2024). The adapters that act at the time of the call take part.
    """
    total = len(model.alphas_cumprod)
    times = [round(total * (steps - i) / steps) - 1 for i in range(steps)]
    latents = noise
    for now, after in zip(times, [*times[1:], None]):
        at = torch.full((len(latents),), now, device=latents.device)
        guess = model.guided(latents, at, embeddings, guidance_scale)
        if after is None:
            return guess.clean
        alpha, sigma = model.alpha_sigma(torch.full_like(at, after))
        latents = alpha * guess.clean + sigma * guess.noise
    return latents
