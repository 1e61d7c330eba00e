"""``redream-score-distillation-system``: a field is pulled towards a prompt by one guidance. DreamFusion by config."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from torch import Tensor

from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.errors import ConfigError, RedreamError
from threestudio_redream.guidance.conditioning import check_view_scale
from threestudio_redream.runtime import BaseLift3DSystem, find, parse_structured, register
from threestudio_redream.runtime.data.batch import camera_batch
from threestudio_redream.runtime.optim import parse_optimizer, parse_scheduler
from threestudio_redream.runtime.rng import step_generator
from threestudio_redream.systems.guard import GuardConfig, SceneGuard
from threestudio_redream.systems.loss_weights import check_loss_weights
from threestudio_redream.systems.mixing import MixedGuidances, figures_of
from threestudio_redream.systems.particles import ParticleSet, repulsion
from threestudio_redream.systems.regularisers import NEEDS, regularisers
from threestudio_redream.systems.view_scores import ViewScoreConfig, ViewScores

__all__ = ["ScoreDistillationSystem", "depth_map", "overhead_batch", "settings"]

log = logging.getLogger("pytorch_lightning")

#: Streams of ``step_generator`` that belong to a training step; the data module's cameras use stream 1.
BACKGROUND_STREAM, GUIDANCE_STREAM, PARTICLE_STREAM, MIXED_STREAM = 3, 4, 6, 16


def depth_map(out: dict[str, Tensor], batch: dict[str, Any]) -> NDArray[np.uint16]:
    """``[B, H, W]`` distances along the rays, 65535 for twice the camera's distance, 0 where nothing is seen.

    Of what is half transparent, the mean distance.
    """
    opacity = out["opacity"][..., 0]
    share = out["depth"][..., 0] / opacity.clamp(min=1e-3) / (2.0 * batch["camera_distances"].view(-1, 1, 1))
    return torch.where(opacity > 1e-3, share, 0.0).clamp(0.0, 1.0).mul(65535.0).round().cpu().numpy().astype(np.uint16)


def overhead_batch(batch: dict[str, Any], elevation_deg: float = 75.0) -> dict[str, Any]:
    """The cameras of ``batch`` raised to ``elevation_deg``, at their own azimuth, distance and field of view."""
    azimuth, distance = batch["azimuth"].cpu().numpy(), batch["camera_distances"].cpu().numpy()
    elevation = np.full_like(azimuth, elevation_deg)
    raised = camera_batch(
        orbit_c2w(azimuth, elevation, distance),
        fovy_deg=torch.rad2deg(batch["fovy"]).cpu().numpy(),
        height=int(batch["height"]),
        width=int(batch["width"]),
        elevation_deg=elevation,
        azimuth_deg=azimuth,
        distance=distance,
    )
    device = batch["rays_d"].device
    moved = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in raised.items()}
    return {**batch, **moved}


@register("redream-score-distillation-system")
class ScoreDistillationSystem(BaseLift3DSystem):
    """Renders, asks the guidance, adds regularisers.

    Every ``loss_x`` the guidance returns, and every one of the :mod:`~threestudio_redream.systems.regularisers` with a
    weight, counts with ``loss.lambda_x`` (a scheduled scalar); the latter are ``sparsity``, ``opaque``, ``orient`` and
    ``z_variance``.
    Backgrounds and the guidance's noise depend on the seed and the step alone.

    Keys:
        background_range: grey levels; each training image gets one of them behind the object. Empty: the background
            class decides.
        export_after_training: write a mesh when training ends.
        guidances: further ones on the same render, see :class:`~threestudio_redream.systems.mixing.MixedGuidances`.
        particles: fields that are distilled at once; each step draws one, so K of them want K times the steps. With
            several, ``loss.lambda_repulsion`` keeps them apart (a second render a step), and pictures and meshes are
            written for each, the second's under ``p1`` and so on.
        view_scores: see :class:`~threestudio_redream.systems.view_scores.ViewScoreConfig`.
        report: write ``report.html`` into the trial folder after tests and export.
        guard: when a run is given up, see :class:`~threestudio_redream.systems.guard.GuardConfig`.
    """

    @dataclass
    class Config(BaseLift3DSystem.Config):
        background_range: tuple = (0.42, 0.8)
        export_after_training: bool = True
        guidances: list = field(default_factory=list)
        particles: int = 1
        view_scores: dict = field(default_factory=dict)
        guard: dict = field(default_factory=dict)
        report: bool = True

    cfg: Config

    @property
    def export_after_training(self) -> bool:
        return self.cfg.export_after_training

    def configure(self) -> None:
        super().configure()
        check_loss_weights(self.cfg.loss)
        with torch.random.fork_rng():  # whatever a guidance draws while it is built, all methods see the same rays
            self.guidance = find(self.cfg.guidance_type)(self.cfg.guidance)
            self.prompt_processor = find(self.cfg.prompt_processor_type)(self.cfg.prompt_processor)
            self.guidances = MixedGuidances(self.cfg.guidances)
            self.particles = ParticleSet(self.cfg, self.cfg.particles)
            if self.cfg.geometry_convert_from and not self.cfg.weights and not self.resumed:
                self.particles.start_as(self.geometry)
        self.prompt_utils = self.prompt_processor()
        self._check_guidance()
        self._guard = SceneGuard(settings(GuardConfig, self.cfg.guard))
        watch: ViewScoreConfig = settings(ViewScoreConfig, self.cfg.view_scores)
        self._view_scores = ViewScores(watch, self.prompt_processor.prompt) if watch.every else None

    def _check_guidance(self) -> None:
        """What a guidance of ours asks of the rest, before hours are spent on what comes first."""
        names: tuple[str, ...] = getattr(self.guidance, "loss_names", tuple)()
        if missing := [name for name in names if f"lambda_{name}" not in self.cfg.loss]:
            raise _no_weight(missing[0])
        view_scale = getattr(self.guidance, "view_guidance_scale", None)
        if view_scale is not None:
            check_view_scale(view_scale, self.guidance.cfg.view_dependent_prompting, self.prompt_utils)

    def on_fit_start(self) -> None:
        if self.trainer.accumulate_grad_batches != 1:
            raise ConfigError(
                "Gradients of several batches are not added up: cameras, noise and schedules count optimiser steps",
                received=f"trainer.accumulate_grad_batches={self.trainer.accumulate_grad_batches}",
                fix="Leave it at 1; data.batch_size is the number of cameras of a step.",
            )
        super().on_fit_start()

    def configure_optimizers(self) -> Any:
        if not len(self.particles) or not self.cfg.optimizer.get("params"):
            return super().configure_optimizers()
        chosen: Any = self.cfg.optimizer.copy()
        chosen["params"] = self.particles.optimizer_params(dict(chosen["params"]))
        optimizer = parse_optimizer(chosen, self)
        if self.cfg.scheduler is None:
            return {"optimizer": optimizer}
        return {"optimizer": optimizer, "lr_scheduler": parse_scheduler(self.cfg.scheduler, optimizer)}

    def forward(self, batch: dict[str, Any], particle: int = 0) -> dict[str, Any]:
        renderer = self.particles[particle].renderer if particle else self.renderer
        return renderer(**batch)

    # ------------------------------------------------------------------ training
    def _generator(self, stream: int) -> torch.Generator:
        return step_generator(torch.initial_seed() & 0xFFFFFFFF, self.true_global_step, stream)

    @property
    def active_particle(self) -> int:
        """The particle of this training step."""
        if not len(self.particles):
            return 0
        return int(torch.randint(0, 1 + len(self.particles), (), generator=self._generator(PARTICLE_STREAM)))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        if len(self.cfg.background_range):
            low, high = self.cfg.background_range
            grey = torch.rand(len(batch["elevation"]), 1, generator=self._generator(BACKGROUND_STREAM))
            batch["bg_color"] = (low + (high - low) * grey).expand(-1, 3).to(batch["rays_o"])
        out = self(batch, self.active_particle)
        self.before_guidance(out, batch)
        said = self.guidance(
            out["comp_rgb"],
            self.prompt_utils,
            **batch,
            rgb_as_latents=False,
            generator=self._generator(GUIDANCE_STREAM),
        )
        terms = {name.removeprefix("loss_"): value for name, value in said.items() if name.startswith("loss_")}
        for name, figure in figures_of(said).items():
            if not name.startswith("loss_"):
                self.log(f"train/{name}", figure)
        asked = dict(terms)
        terms |= self._penalties(out)
        terms |= self._repulsion(out, batch)
        terms |= self.extra_terms(out, batch, asked)
        total = torch.zeros((), device=self.device)
        for name, value in terms.items():
            if f"lambda_{name}" not in self.cfg.loss:
                raise _no_weight(name)
            self.log(f"train/loss_{name}", value.detach())
            total = total + value * self.C(self.cfg.loss[f"lambda_{name}"])
        if len(self.guidances):
            terms["guidances"], figures = self.guidances(
                out["comp_rgb"],
                self.prompt_utils,
                self.cfg.loss,
                lambda number: self._generator(MIXED_STREAM + number),
                **batch,
            )
            total = total + terms["guidances"]
            self.log_dict({f"train/{name}": value for name, value in figures.items()})
        self._watch(out, batch, terms, total)
        return {"loss": total}

    def _penalties(self, out: dict[str, Tensor]) -> dict[str, Tensor]:
        found = regularisers(out)
        for name in NEEDS:
            if name not in found and self.C(self.cfg.loss.get(f"lambda_{name}", 0.0)) != 0.0:
                raise ConfigError(
                    f"lambda_{name} has a weight, and the renderer does not give what it looks at",
                    received=f"{self.cfg.renderer_type} gives {sorted(out)}",
                    fix=f"Set system.loss.lambda_{name}: 0. {NEEDS[name]}",
                )
        return {name: value for name, value in found.items() if f"lambda_{name}" in self.cfg.loss}

    def _repulsion(self, out: dict[str, Tensor], batch: dict[str, Any]) -> dict[str, Tensor]:
        if "lambda_repulsion" not in self.cfg.loss:
            return {}
        if not len(self.particles):
            return {"repulsion": out["comp_rgb"].sum() * 0.0}
        generator, count = self._generator(PARTICLE_STREAM), 1 + len(self.particles)
        mine = int(torch.randint(0, count, (), generator=generator))
        other = (mine + int(torch.randint(1, count, (), generator=generator))) % count
        with torch.no_grad(), torch.random.fork_rng():
            theirs = self(batch, other)["comp_rgb"]
        return {"repulsion": repulsion(out["comp_rgb"], theirs)}

    def _watch(self, out: dict[str, Tensor], batch: dict[str, Any], terms: dict[str, Tensor], total: Tensor) -> None:
        step, opacity = self.true_global_step, float(out["opacity"].detach().mean())
        self.log("train/opacity", opacity, prog_bar=True)
        if self._view_scores is not None and self._view_scores.due(step):
            self._view_scores.look(out["comp_rgb"], batch["azimuth"])
            figures = self._view_scores.figures()
            self.log_dict({f"train/{name}": value for name, value in figures.items() if name != "front_margin"})
            if "front_margin" in figures:
                self.log("train/front_margin", figures["front_margin"], prog_bar=True)

        def save(stem: str) -> Path:
            images = out["comp_rgb"].detach().nan_to_num().clamp(0.0, 1.0)
            cells = [{"type": "rgb", "img": image, "kwargs": {"data_format": "HWC"}} for image in images]
            return Path(self.save_image_grid(f"{stem}.png", cells)).parent

        self._guard.check(step, terms, total, opacity, save, self.active_particle)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        if self.true_global_step % max(int(getattr(self.trainer, "log_every_n_steps", 10)), 1):
            return
        for group in optimizer.param_groups:
            gradients = [p.grad.norm() for p in group["params"] if p.grad is not None]
            if gradients:
                self.log(f"grad_norm/{group.get('name', 'all')}", torch.stack(gradients).norm())

    def before_guidance(self, out: dict[str, Tensor], batch: dict[str, Any]) -> None:
        """Add to the batch what the guidance should know. Override."""

    def extra_terms(
        self, out: dict[str, Tensor], batch: dict[str, Any], asked: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Further loss terms by the name after ``lambda_``; ``asked`` are the guidance's own. Override."""
        return {}

    # ------------------------------------------------------------------ evaluation
    def _each_particle(self) -> list[tuple[int, str]]:
        """Numbers of the particles and the folder of each below a stage's own."""
        return [(0, ""), *((number, f"p{number}/") for number in range(1, 1 + len(self.particles)))]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        for number, _ in self._each_particle():
            self._views.setdefault(number, []).extend(self(batch, number)["comp_rgb"])

    def on_validation_epoch_start(self) -> None:
        self._views: dict[int, list[Tensor]] = {}

    def on_validation_epoch_end(self) -> None:
        cells = [
            [{"type": "rgb", "img": view, "kwargs": {"data_format": "HWC"}} for view in views]
            for views in self._views.values()
        ]
        step = self.true_global_step
        grid: Any = cells[0] if len(cells) == 1 else cells
        self.save_image_grid(f"it{step}-val.png", grid, name="validation", step=step)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        step, views = self.true_global_step, batch["index"].tolist()
        for number, folder in self._each_particle():
            out = self(batch, number)
            depth = depth_map(out, batch) if "depth" in out else None
            for i, view in enumerate(views):
                name = f"{folder}{view}.png"
                self.save_rgb_image(f"it{step}-test/{name}", out["comp_rgb"][i])
                self.save_grayscale_image(f"it{step}-opacity/{name}", out["opacity"][i, :, :, 0], (0.0, 1.0), None)
                if depth is not None:
                    self.save_image(f"it{step}-depth/{name}", depth[i])
            if 0 in views and "fovy" in batch:  # the turn of the test views shows nothing from above
                above = self(overhead_batch(batch), number)["comp_rgb"][views.index(0)]
                self.save_rgb_image(f"it{step}-overhead/{folder}0.png", above)

    def on_test_epoch_end(self) -> None:
        step = self.true_global_step
        for _, folder in self._each_particle():
            name = f"it{step}-test/{folder}".rstrip("/")
            self.save_img_sequence(name, name, r"(\d+)\.png", save_format="mp4", fps=30)

    def on_test_end(self) -> None:
        super().on_test_end()
        self._report()

    # ------------------------------------------------------------------ export
    def on_predict_epoch_end(self) -> None:
        super().on_predict_epoch_end()
        for number, folder in self._each_particle()[1:]:
            part = self.particles[number]
            exporter = find(self.cfg.exporter_type)(
                self.cfg.exporter, geometry=part.geometry, material=part.material, background=part.background
            )
            for output in exporter():
                saver = getattr(self, f"save_{output.save_type}")
                saver(f"it{self.true_global_step}-export/{folder}{output.save_name}", **output.params)

    def on_predict_end(self) -> None:
        super().on_predict_end()
        self._report()

    def _report(self) -> None:
        if not self.cfg.report or self._save_dir is None:
            return
        from threestudio_redream.evaluation.report import write_report

        try:
            log.info("Report: %s", write_report(Path(self._save_dir).parent))
        except (OSError, RedreamError) as cause:  # a run is not lost for its report
            log.warning("The report could not be written: %s", cause)


def _no_weight(name: str) -> ConfigError:
    return ConfigError(f"system.loss.lambda_{name} is missing", fix="Add it to the configuration, 0 to switch it off.")


def settings(kind: type, mapping: Any) -> Any:
    """A dataclass from configuration, checked."""
    return OmegaConf.to_object(parse_structured(kind, mapping))
