"""``redream-score-distillation-system``: a field is pulled towards a prompt by one guidance. DreamFusion by config."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from threestudio_redream.errors import ConfigError, EmptySceneError
from threestudio_redream.runtime import BaseLift3DSystem, find, register
from threestudio_redream.runtime.rng import step_generator

__all__ = ["ScoreDistillationSystem", "regularisers"]

log = logging.getLogger("pytorch_lightning")

#: Streams of ``step_generator`` that belong to a training step; the data module's cameras use stream 1.
BACKGROUND_STREAM, GUIDANCE_STREAM = 3, 4


def regularisers(out: dict[str, Tensor]) -> dict[str, Tensor]:
    """The usual penalties on a render, by the name after ``lambda_``.

    ``sparsity``: ``mean sqrt(opacity^2 + 0.01)``. ``opaque``: binary entropy of the opacity, which makes pixels
    decide. ``orient``: normals that are seen from behind (Ref-NeRF, Verbin et al., 2022), if there are normals.
    ``z_variance``: spread of the density along rays that hit something.
    """
    opacity = out["opacity"]
    clamped = opacity.clamp(1e-3, 1.0 - 1e-3)
    terms = {
        "sparsity": (opacity.square() + 0.01).sqrt().mean(),
        "opaque": functional.binary_cross_entropy(clamped, clamped),
        "z_variance": out["z_variance"][opacity > 0.5].mean() if (opacity > 0.5).any() else opacity.sum() * 0.0,
    }
    if "normal" in out:
        facing = (out["normal"] * out["t_dirs"]).sum(-1, keepdim=True).clamp(min=0.0)
        terms["orient"] = (out["weights"].detach() * facing.square()).sum() / (opacity > 0.0).sum().clamp(min=1)
    return terms


@register("redream-score-distillation-system")
class ScoreDistillationSystem(BaseLift3DSystem):
    """Renders, asks the guidance, adds regularisers.

    Every ``loss_x`` the guidance returns, and every regulariser of :func:`regularisers` with a weight, counts with
    ``loss.lambda_x`` (a scheduled scalar). Backgrounds and the guidance's noise depend on the seed and the step alone.

    Keys:
        background_range: grey levels; each training image gets one of them behind the object. Empty: the background
            class decides.
        export_after_training: write a mesh when training ends.
    """

    @dataclass
    class Config(BaseLift3DSystem.Config):
        background_range: tuple = (0.42, 0.8)
        export_after_training: bool = True

    cfg: Config

    @property
    def export_after_training(self) -> bool:
        return self.cfg.export_after_training

    def configure(self) -> None:
        super().configure()
        with torch.random.fork_rng():  # whatever a guidance draws while it is built, all methods see the same rays
            self.guidance = find(self.cfg.guidance_type)(self.cfg.guidance)
            self.prompt_processor = find(self.cfg.prompt_processor_type)(self.cfg.prompt_processor)
        self.prompt_utils = self.prompt_processor()

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        return self.renderer(**batch)

    # ------------------------------------------------------------------ training
    def _generator(self, stream: int) -> torch.Generator:
        return step_generator(torch.initial_seed() & 0xFFFFFFFF, self.true_global_step, stream)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        if len(self.cfg.background_range):
            low, high = self.cfg.background_range
            grey = torch.rand(len(batch["elevation"]), 1, generator=self._generator(BACKGROUND_STREAM))
            batch["bg_color"] = (low + (high - low) * grey).expand(-1, 3).to(batch["rays_o"])
        out = self(batch)
        self.before_guidance(out, batch)
        said = self.guidance(
            out["comp_rgb"],
            self.prompt_utils,
            **batch,
            rgb_as_latents=False,
            generator=self._generator(GUIDANCE_STREAM),
        )
        terms = {name.removeprefix("loss_"): value for name, value in said.items() if name.startswith("loss_")}
        for name in said.keys() - {f"loss_{term}" for term in terms} - {"eval"}:
            self.log(f"train/{name}", float(said[name]))
        terms |= {name: value for name, value in regularisers(out).items() if f"lambda_{name}" in self.cfg.loss}
        terms |= self.extra_terms(out, batch)
        total = torch.zeros((), device=self.device)
        for name, value in terms.items():
            if f"lambda_{name}" not in self.cfg.loss:
                raise ConfigError(
                    f"system.loss.lambda_{name} is missing", fix="Add it to the configuration, 0 to switch it off."
                )
            self.log(f"train/loss_{name}", value.detach())
            total = total + value * self.C(self.cfg.loss[f"lambda_{name}"])
        if not torch.isfinite(total):
            raise EmptySceneError(
                f"The loss became {float(total.detach())} at step {self.true_global_step}",
                fix="Lower the learning rate or the guidance scale; the last checkpoint is intact.",
            )
        self.log("train/opacity", out["opacity"].detach().mean(), prog_bar=True)
        return {"loss": total}

    def before_guidance(self, out: dict[str, Tensor], batch: dict[str, Any]) -> None:
        """Add to the batch what the guidance should know. Override."""

    def extra_terms(self, out: dict[str, Tensor], batch: dict[str, Any]) -> dict[str, Tensor]:
        """Further loss terms by the name after ``lambda_``. Override."""
        return {}

    # ------------------------------------------------------------------ evaluation
    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        out = self(batch)
        self._views.append(out["comp_rgb"][0])

    def on_validation_epoch_start(self) -> None:
        self._views: list[Tensor] = []

    def on_validation_epoch_end(self) -> None:
        cells = [{"type": "rgb", "img": view, "kwargs": {"data_format": "HWC"}} for view in self._views]
        step = self.true_global_step
        self.save_image_grid(f"it{step}-val.png", cells, name="validation", step=step)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        out = self(batch)
        self.save_rgb_image(f"it{self.true_global_step}-test/{int(batch['index'][0])}.png", out["comp_rgb"][0])

    def on_test_epoch_end(self) -> None:
        step = self.true_global_step
        self.save_img_sequence(f"it{step}-test", f"it{step}-test", r"(\d+)\.png", save_format="mp4", fps=30)
