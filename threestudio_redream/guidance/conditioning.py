"""What a model is told about each view, and how its answers become one guided prediction.

Classifier-free guidance (Ho & Salimans, 2022) has two answers per picture: the prompt and nothing. A third one, the
prompt without its view words, lets view words be weighed apart, which a model that hardly heeds them needs. Perp-Neg
(Armandpour et al., 2023) has four: the prompt, nothing, and two views that this one is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from threestudio_redream.errors import ConfigError
from threestudio_redream.guidance.latent_diffusion import Guess, LatentDiffusion
from threestudio_redream.runtime.guidance.base import perpendicular_component
from threestudio_redream.runtime.schedule import C

__all__ = ["Condition", "GuidanceScales", "check_view_scale", "condition_of", "guided"]


@dataclass(frozen=True)
class Condition:
    """Text embeddings of ``B`` views, in blocks of ``B``.

    Attributes:
        embeddings: ``[kB, N, F]``: conditional, unconditional; then with a view scale the conditional ones without
            view words, or with Perp-Neg the first and the second negatives.
        weights: ``[B, 2]`` of the negatives, zero or below; None without them.
        view_scale: guidance scale of the view words; None is that of the prompt.
    """

    embeddings: Tensor
    weights: Tensor | None = None
    view_scale: float | None = None

    @property
    def blocks(self) -> int:
        """Answers per picture: 2, 3 with a view scale, 4 with Perp-Neg."""
        if self.weights is not None:
            return 4
        return 2 if self.view_scale is None else 3

    def twice(self) -> Condition:
        """The same about two batches of pictures, one after the other."""
        parts = [part for block in self.embeddings.chunk(self.blocks) for part in (block, block)]
        weights = None if self.weights is None else self.weights.repeat(2, 1)
        return Condition(torch.cat(parts), weights, self.view_scale)

    def combine(self, output: Tensor, scale: float) -> Tensor:
        """One prediction ``[B, 4, h, w]`` from the model's answers ``[kB, 4, h, w]``.

        ``u + scale ((c - u) + sum_i w_i perp_i)``, ``perp_i`` being the part of ``n_i - u`` orthogonal to ``c - u``;
        with a view scale ``u + scale (p - u) + view_scale (c - p)``, ``p`` being the prompt without view words.
        """
        if self.view_scale is not None:
            conditional, unconditional, plain = output.chunk(3)
            return unconditional + scale * (plain - unconditional) + self.view_scale * (conditional - plain)
        conditional, unconditional, *negatives = output.chunk(self.blocks)
        towards = conditional - unconditional
        direction = towards
        for number, negative in enumerate(negatives):
            assert self.weights is not None
            weight = self.weights[:, number].view(-1, 1, 1, 1).to(output)
            direction = direction + weight * perpendicular_component(negative - unconditional, towards)
        return unconditional + scale * direction


def check_view_scale(view_scale: float | None, view_dependent: bool, prompt_utils: Any) -> None:
    """Raise ConfigError for a view scale without view-dependent prompting, or with Perp-Neg."""
    if view_scale is not None and (not view_dependent or getattr(prompt_utils, "use_perp_neg", False)):
        raise ConfigError(
            "view_guidance_scale needs view-dependent prompting, and none of Perp-Neg",
            received=view_scale,
            fix="Set view_dependent_prompting: true and use_perp_neg: false, or view_guidance_scale: null.",
        )


def condition_of(
    prompt_utils: Any, where: tuple[Tensor, Tensor, Tensor], view_dependent: bool, view_scale: float | None = None
) -> Condition:
    """Ask a prompt processor's output about cameras: elevation, azimuth (degrees) and distance, ``[B]`` each.

    Perp-Neg is used if the prompt processor says so (``use_perp_neg``).

    Raises:
        ConfigError: Perp-Neg or a view scale without view-dependent prompting, or both of them.
    """
    check_view_scale(view_scale, view_dependent, prompt_utils)
    if view_scale is not None:
        with_words = prompt_utils.get_text_embeddings(*where, True)
        plain = prompt_utils.get_text_embeddings(*where, False)[: len(where[0])]
        return Condition(torch.cat([with_words, plain]), view_scale=view_scale)
    if not getattr(prompt_utils, "use_perp_neg", False):
        return Condition(prompt_utils.get_text_embeddings(*where, view_dependent))
    embeddings, weights = prompt_utils.get_text_embeddings_perp_neg(*where, view_dependent)
    count = len(where[0])
    main, negatives = embeddings[: 2 * count], embeddings[2 * count :]
    return Condition(torch.cat([main, negatives[0::2], negatives[1::2]]), weights.to(embeddings.device))


class GuidanceScales:
    """Guidance scales that follow the training clock. Mix in before :class:`GuidanceClock`.

    ``cfg`` needs ``guidance_scale`` (scheduled) and ``view_guidance_scale`` (scheduled, or None). Call
    :meth:`set_guidance_scales` in ``configure``.
    """

    cfg: Any
    guidance_scale: float
    view_guidance_scale: float | None
    _views_weighed = True

    def weigh_views(self, on: bool) -> None:
        """Whether ``view_guidance_scale`` acts; without, view words weigh as the rest of the prompt."""
        self._views_weighed = on
        self.set_guidance_scales()

    def set_guidance_scales(self, epoch: int = 0, global_step: int = 0) -> None:
        """Set both scales for a step.

        Raises:
            ConfigError: a schedule that is none.
        """
        view = self.cfg.view_guidance_scale if self._views_weighed else None
        self.guidance_scale = float(C(self.cfg.guidance_scale, epoch, global_step))
        self.view_guidance_scale = None if view is None else float(C(view, epoch, global_step))

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        super().update_step(epoch, global_step, on_load_weights)  # type: ignore[misc]
        self.set_guidance_scales(epoch, global_step)


@torch.no_grad()
def guided(model: LatentDiffusion, noisy: Tensor, steps: Tensor, condition: Condition, scale: float) -> Guess:
    """The guided prediction about noisy latents ``[B, 4, h, w]`` at timesteps ``[B]``."""
    times = condition.blocks
    output = model.predict(noisy.repeat(times, 1, 1, 1), steps.repeat(times), condition.embeddings)
    return model.read(condition.combine(output, scale), noisy, steps)
