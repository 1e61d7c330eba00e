"""Does a diffusion model know from where it sees? Asked without another network.

A diffusion model is a classifier: among several captions the right one lets it remove noise best (Li et al., 2023).
Here the captions differ in their view words alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from threestudio_redream.adaptation.references import References
from threestudio_redream.adaptation.view_tokens import VIEWS
from threestudio_redream.guidance.latent_diffusion import LatentDiffusion

__all__ = ["view_accuracy"]

#: Shares of the schedule at which the noise hides details but not the layout.
TIMES = (0.45, 0.6, 0.75)


@torch.no_grad()
def view_accuracy(
    model: LatentDiffusion,
    references: References,
    embed: Callable[[Sequence[str], str], Tensor],
    *,
    pictures: int = 24,
    seed: int = 0,
) -> float:
    """Share of renders whose own view word explains them best, over all views equally.

    Args:
        embed: captions and a view word to text embeddings ``[B, N, F]``.
        pictures: how many renders are asked about. The adapters that act at the time of the call take part.
    """
    generator = torch.Generator().manual_seed(seed)
    images, rows = references.draw(pictures, generator)
    device = model.alphas_cumprod.device
    latents = model.encode(model.resized(images.to(device)))  # as in training
    captions = [references.captions[i] for i in references.asset[rows]]
    contexts = {name: embed(captions, name) for name in references.views}
    errors = torch.zeros(len(contexts), pictures)
    for share in TIMES:
        steps = torch.full((pictures,), int(share * len(model.alphas_cumprod)), device=device)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        noisy = model.add_noise(latents, noise, steps)
        for i, context in enumerate(contexts.values()):
            guess = model.read(model.predict(noisy, steps, context), noisy, steps)
            errors[i] += (guess.noise - noise).square().mean(dim=(1, 2, 3)).cpu()
    names = list(contexts)
    told = np.array([VIEWS.index(names[i]) for i in errors.argmin(0).tolist()])
    right = told == references.view[rows]
    return float(np.mean([right[references.view[rows] == i].mean() for i in np.unique(references.view[rows])]))
