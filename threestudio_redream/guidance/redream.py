"""``redream-guidance``: VSD whose target is adapted to the retrieved assets and held to them (Seo et al., 2024).

What VSD says about a render is compared with what it says about the retrieved asset seen by the same camera, under
the same timestep and noise: the delta regulariser of ReDream, section 4.3. The target is the pretrained model with a
LoRA that was trained on renders of the assets (Eq. 5); it acts where the layout is decided and fades out where texture
is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from threestudio_redream.errors import ConfigError
from threestudio_redream.guidance.vsd import Question, VSDGuidance
from threestudio_redream.runtime import register
from threestudio_redream.runtime.schedule import C

__all__ = ["DELTA_FORMS", "VIEW_ADAPTER", "ReDreamGuidance", "adapter_gate"]

VIEW_ADAPTER = "views"
DELTA_FORMS = ("difference", "control_variate")


def adapter_gate(steps: Tensor, low: float, high: float) -> Tensor:
    """Strength of the adapter by timestep ``[B]``: 0 up to ``low``, 1 from ``high`` on, linear between.

    With ``low == high`` it is a switch; with both 0 the adapter always acts fully.
    """
    steps = steps.float()
    if high <= low:
        return (steps >= high).float()
    return ((steps - low) / (high - low)).clamp(0.0, 1.0)


@register("redream-guidance")
class ReDreamGuidance(VSDGuidance):
    """VSD with an adapted target and the delta regulariser.

    Keys beside those of :class:`VSDGuidance`:
        adapter_rank, adapter_alpha: of the LoRA that corrects the view bias. It does nothing until weights are loaded.
        adapter_scale: scheduled factor on it; 0 is the pretrained model.
        adapter_gate: timesteps between which it fades in, see :func:`adapter_gate`; ``[0, 0]`` is always.
        delta_every: the regulariser acts on every n-th step; 0 never. The paper says three.
        delta_until: first step without it; None is never.
        delta_form: ``difference`` subtracts the asset's residual, as published. ``control_variate`` subtracts as much
            of it as explains the render's residual, a coefficient fitted over the last steps.
        delta_with_particles: the asset's residual has the particles' term, too (else it is that of DDS, Hertz et al.
            2023).
    """

    @dataclass
    class Config(VSDGuidance.Config):
        adapter_rank: int = 4
        adapter_alpha: float | None = None
        adapter_scale: Any = 1.0
        adapter_gate: tuple[int, int] = (250, 500)
        delta_every: int = 3
        delta_until: int | None = None
        delta_form: str = "difference"
        delta_with_particles: bool = True

    cfg: Config

    delta_products: Tensor
    #: How fast the fitted coefficient forgets, per step.
    FORGET = 0.05

    def configure(self) -> None:
        super().configure()
        cfg = self.cfg
        if cfg.delta_form not in DELTA_FORMS:
            raise ConfigError(
                "Unknown form of the delta term", received=cfg.delta_form, fix=f"Use one of {', '.join(DELTA_FORMS)}."
            )
        if cfg.delta_every < 0:
            raise ConfigError(
                "delta_every must be 0 or more", received=cfg.delta_every, fix="3 is published, 0 is off."
            )
        low, high = cfg.adapter_gate
        if not 0 <= low <= high <= len(self.model.alphas_cumprod):
            raise ConfigError(
                "adapter_gate must hold two timesteps in order", received=(low, high), fix="[250, 500] is usual."
            )
        self.switched.add(
            VIEW_ADAPTER, rank=cfg.adapter_rank, alpha=cfg.adapter_alpha, trainable=False, seed=cfg.seed + 1
        )
        self.adapter_scale = float(C(cfg.adapter_scale, 0, 0))
        self._delta_due = False
        # Running <render, asset> and <asset, asset> of the two residuals.
        self.register_buffer("delta_products", torch.zeros(2))

    def load_adapter(self, tensors: Mapping[str, Tensor]) -> None:
        """Use the weights of a trained adapter, named as by :meth:`SwitchedUNet.parameters`.

        Raises:
            ConfigError: they belong to another rank or model.
        """
        self.switched.load(VIEW_ADAPTER, tensors)

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        super().update_step(epoch, global_step, on_load_weights)
        self.adapter_scale = float(C(self.cfg.adapter_scale, epoch, global_step))
        until = self.cfg.delta_until
        self._delta_due = (
            self.cfg.delta_every > 0
            and global_step % self.cfg.delta_every == 0
            and (until is None or global_step < until)
        )

    # ------------------------------------------------------------------ the two scores
    def target_scales(self, question: Question) -> dict[str, Tensor]:
        """The view adapter, gated by the timestep."""
        scale = self.adapter_scale * adapter_gate(question.steps, *self.cfg.adapter_gate)
        return {VIEW_ADAPTER: scale} if bool(scale.any()) else {}

    def residual(self, latents: Tensor, question: Question, extra: dict[str, Any]) -> Tensor:
        """As :meth:`VSDGuidance.residual`; less that of ``extra["reference_rgb"]`` when the regulariser acts.

        ``reference_rgb``: ``[B, H, W, 3]`` in [0, 1], the retrieved asset from the same cameras on the same ground.
        """
        if not self._delta_due or extra.get("reference_rgb") is None:
            return super().residual(latents, question, extra)
        reference = self.model.encode(self.model.resized(extra["reference_rgb"]))
        if self.cfg.delta_with_particles:
            both = super().residual(torch.cat([latents, reference]), question.twice(), extra)
            said, about_asset = both.chunk(2)
        else:
            said = super().residual(latents, question, extra)
            about_asset = self.target_noise(reference, question) - question.noise
        return said - self._share(said, about_asset) * about_asset

    def _share(self, said: Tensor, about_asset: Tensor) -> float | Tensor:
        if self.cfg.delta_form == "difference":
            return 1.0
        now = torch.stack([(said * about_asset).sum(), about_asset.square().sum()])
        self.delta_products.lerp_(now, self.FORGET if bool(self.delta_products.any()) else 1.0)
        return (self.delta_products[0] / self.delta_products[1].clamp(min=1e-12)).clamp(0.0, 1.0)
