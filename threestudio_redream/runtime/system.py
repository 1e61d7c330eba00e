"""BaseSystem and BaseLift3DSystem: the LightningModules a threestudio configuration names."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch.nn import functional

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.base import Updateable, update_end_if_possible, update_if_possible
from threestudio_redream.runtime.checkpoint import load_module_weights, newest_checkpoint
from threestudio_redream.runtime.config import load_config, parse_structured
from threestudio_redream.runtime.device import cleanup, get_device
from threestudio_redream.runtime.optim import parse_optimizer, parse_scheduler
from threestudio_redream.runtime.registry import find
from threestudio_redream.runtime.saving import SaverMixin
from threestudio_redream.runtime.schedule import C

__all__ = ["BaseLift3DSystem", "BaseSystem"]

log = logging.getLogger("pytorch_lightning")


class BaseSystem(pl.LightningModule, Updateable, SaverMixin):
    """Order of construction: loggers, ``configure``, optional ``weights``, ``post_configure``.

    Everything trainable must exist after ``configure``: parameters created later are neither
    optimised nor restorable. Each batch passes through ``preprocess_data``, then the clock goes to
    the dataset and to every part (children first), then the step runs.

    Keys:
        loggers: ``wandb: {enable: true, project: ..., name: ...}`` for Weights & Biases; CSV and TensorBoard are on.
        loss: ``lambda_x`` weighs the loss term ``x``; each a scheduled scalar.
        optimizer: ``name`` (of ``torch.optim``, e.g. ``AdamW``), ``args``, and ``params``: attribute paths such as
            ``geometry.encoding`` with arguments of their own; with it, only what is listed is trained.
        scheduler: of the learning rate: ``name`` (of ``torch.optim.lr_scheduler``), ``args``, ``interval``.
        weights: checkpoint whose parameters are loaded before the start. weights_ignore_modules: parts of it that are
            left out.
        cleanup_after_validation_step, cleanup_after_test_step: return cached GPU memory after every picture.
    """

    @dataclass
    class Config:
        loggers: dict = field(default_factory=dict)
        loss: dict = field(default_factory=dict)
        optimizer: dict = field(default_factory=dict)
        scheduler: dict | None = None
        weights: str | None = None
        weights_ignore_modules: list[str] | None = None
        cleanup_after_validation_step: bool = False
        cleanup_after_test_step: bool = False

    cfg: Config

    def __init__(self, cfg: Any, resumed: bool = False) -> None:
        super().__init__()
        self.cfg = parse_structured(self.Config, cfg)
        self._resumed = resumed
        self._resumed_eval: tuple[int, int] | None = None
        self.create_loggers(self.cfg.loggers)
        self.configure()
        if self.cfg.weights is not None:
            self.load_weights(self.cfg.weights, self.cfg.weights_ignore_modules)
        self.post_configure()

    def configure(self) -> None:
        """Build every part. Override."""

    def post_configure(self) -> None:
        """Runs after ``weights`` were loaded. Override."""

    def load_weights(self, weights: str, ignore_modules: list[str] | None = None) -> None:
        """Load parameters from a checkpoint; keys that do not fit are listed in the log."""
        state, epoch, global_step = load_module_weights(weights, ignore_modules=ignore_modules)
        missing, unexpected = self.load_state_dict(state, strict=False)
        if missing or unexpected:
            log.warning(
                "Weights from %s: %d keys missing %s, %d not used %s",
                weights,
                len(missing),
                missing[:5],
                len(unexpected),
                unexpected[:5],
            )
        self.do_update_step(epoch, global_step, on_load_weights=True)

    # ------------------------------------------------------------------ clock
    @property
    def resumed(self) -> bool:
        """Whether the run continues from a checkpoint."""
        return self._resumed

    def set_resume_status(self, current_epoch: int, global_step: int) -> None:
        """Give test, validate and export the clock of the checkpoint they load."""
        self._resumed_eval = (current_epoch, global_step)

    @property
    def true_current_epoch(self) -> int:
        return self._resumed_eval[0] if self._resumed_eval else self.current_epoch

    @property
    def true_global_step(self) -> int:
        """Global step that is right in every stage; use it for file names and ``C``."""
        return self._resumed_eval[1] if self._resumed_eval else self.global_step

    def C(self, value: Any) -> float:
        """Value of a scheduled scalar now."""
        return C(value, self.true_current_epoch, self.true_global_step)

    # ------------------------------------------------------------------ optimisation
    def configure_optimizers(self) -> Any:
        if not self.cfg.optimizer:
            raise ConfigError("system.optimizer is empty", received={}, fix="Give at least name and args.")
        optimizer = parse_optimizer(self.cfg.optimizer, self)
        result: dict[str, Any] = {"optimizer": optimizer}
        if self.cfg.scheduler is not None:
            result["lr_scheduler"] = parse_scheduler(self.cfg.scheduler, optimizer)
        return result

    def on_validation_model_train(self) -> None:
        # Lightning >= 2.2 restores only the flag of each module; parts that override train() need the call
        self.train()

    # ------------------------------------------------------------------ batches
    def preprocess_data(self, batch: Any, stage: str) -> None:
        """Change the batch before anything sees it. Override."""

    def _before_batch(self, batch: Any, stage: str, loader: Any) -> None:
        self.preprocess_data(batch, stage)
        self.dataset = loader.dataset
        update_if_possible(self.dataset, self.true_current_epoch, self.true_global_step)
        self.do_update_step(self.true_current_epoch, self.true_global_step)

    def _after_batch(self, loader: Any, clean: bool = False) -> None:
        self.dataset = loader.dataset
        update_end_if_possible(self.dataset, self.true_current_epoch, self.true_global_step)
        self.do_update_step_end(self.true_current_epoch, self.true_global_step)
        if clean:
            cleanup()

    def on_train_batch_start(self, batch: Any, batch_idx: int, unused: int = 0) -> Any:
        self._before_batch(batch, "train", self.trainer.train_dataloader)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._after_batch(self.trainer.train_dataloader)

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._before_batch(batch, "validation", self.trainer.val_dataloaders)

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._after_batch(self.trainer.val_dataloaders, self.cfg.cleanup_after_validation_step)

    def on_validation_epoch_end(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} must override on_validation_epoch_end (it may do nothing)")

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._before_batch(batch, "test", self.trainer.test_dataloaders)

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._after_batch(self.trainer.test_dataloaders, self.cfg.cleanup_after_test_step)

    def on_predict_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._before_batch(batch, "predict", self.trainer.predict_dataloaders)

    def on_predict_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._after_batch(self.trainer.predict_dataloaders, self.cfg.cleanup_after_test_step)


class BaseLift3DSystem(BaseSystem):
    """A system with geometry, material, background and renderer, built in this order.

    Guidance and prompt processor are left to the subclass, which should build them in its
    ``configure`` as well if they hold parameters.

    Keys:
        geometry_type, geometry: registered name of the field or shape, and its keys.
        geometry_convert_from: trial folder or checkpoint of an earlier run whose geometry this one starts from.
            geometry_convert_inherit_texture: take over its colours, too. geometry_convert_override: keys of the earlier
            geometry to change while it is opened.
        material_type, material: what turns features and light into colour.
        background_type, background: what stands behind the object.
        renderer_type, renderer: what makes pictures.
        guidance_type, guidance: what says how the pictures should change.
        prompt_processor_type, prompt_processor: what turns the prompt into embeddings.
        exporter_type, exporter: what writes the mesh.
    """

    @dataclass
    class Config(BaseSystem.Config):
        geometry_type: str = ""
        geometry: dict = field(default_factory=dict)
        geometry_convert_from: str | None = None
        geometry_convert_inherit_texture: bool = False
        geometry_convert_override: dict = field(default_factory=dict)
        material_type: str = ""
        material: dict = field(default_factory=dict)
        background_type: str = ""
        background: dict = field(default_factory=dict)
        renderer_type: str = ""
        renderer: dict = field(default_factory=dict)
        guidance_type: str = ""
        guidance: dict = field(default_factory=dict)
        prompt_processor_type: str = ""
        prompt_processor: dict = field(default_factory=dict)
        exporter_type: str = "mesh-exporter"
        exporter: dict = field(default_factory=dict)

    cfg: Config

    def configure(self) -> None:
        convert_from = self.cfg.geometry_convert_from
        if convert_from and not self.cfg.weights and not self.resumed:
            self.geometry = self._converted_geometry(convert_from)
        else:
            self.geometry = find(self.cfg.geometry_type)(self.cfg.geometry)
        self.material = find(self.cfg.material_type)(self.cfg.material)
        self.background = find(self.cfg.background_type)(self.cfg.background)
        self.renderer = find(self.cfg.renderer_type)(
            self.cfg.renderer, geometry=self.geometry, material=self.material, background=self.background
        )

    def _converted_geometry(self, source: str) -> Any:
        """Build this geometry from the one of an earlier run (its configuration lies beside its ckpts folder)."""
        path = Path(source)
        if path.is_dir():
            path = newest_checkpoint(path / "ckpts") or path
        config_file = path.parent.parent / "configs" / "parsed.yaml"
        if not path.is_file() or not config_file.is_file():
            raise ConfigError(
                "system.geometry_convert_from is not a checkpoint inside a trial folder",
                received=source,
                fix="Give TRIAL/ckpts/last.safetensors, or the trial folder, with its configs/parsed.yaml in place.",
            )
        log.info("Initialising geometry from %s", path)
        earlier = load_config(config_file).system
        geometry_cfg = {**earlier.geometry, **self.cfg.geometry_convert_override}
        previous = find(earlier.geometry_type)(geometry_cfg)
        state, epoch, global_step = load_module_weights(path, module_name="geometry")
        previous.load_state_dict(state, strict=False)
        previous.do_update_step(epoch, global_step, on_load_weights=True)
        return find(self.cfg.geometry_type).create_from(
            previous.to(get_device()), self.cfg.geometry, copy_net=self.cfg.geometry_convert_inherit_texture
        )

    def on_fit_start(self) -> None:
        if self._save_dir is None:
            log.warning("The save folder is not set: no picture of this run will be saved")
        else:
            log.info("Results will be saved to %s", self._save_dir)

    def on_test_end(self) -> None:
        if self._save_dir is not None:
            log.info("Test results saved to %s", self._save_dir)

    # ------------------------------------------------------------------ export
    def on_predict_start(self) -> None:
        self.exporter = find(self.cfg.exporter_type)(
            self.cfg.exporter, geometry=self.geometry, material=self.material, background=self.background
        )

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        if self.exporter.cfg.save_video:
            self.test_step(batch, batch_idx)

    def on_predict_epoch_end(self) -> None:
        if self.exporter.cfg.save_video:
            self.on_test_epoch_end()
        for output in self.exporter():
            saver: Callable[..., str] | None = getattr(self, f"save_{output.save_type}", None)
            if saver is None:
                raise ConfigError("The exporter wants a saver that does not exist", received=f"save_{output.save_type}")
            saver(f"it{self.true_global_step}-export/{output.save_name}", **output.params)

    def on_predict_end(self) -> None:
        if self._save_dir is not None:
            log.info("Exported assets saved to %s", self._save_dir)

    def guidance_evaluation_save(self, comp_rgb: Any, guidance_eval_out: dict[str, Any]) -> None:
        """Save the pictures a guidance offers under ``eval``: noisy, one-step, original, final."""
        size = comp_rgb.shape[1]

        def rows(images: Any) -> Any:
            resized = functional.interpolate(
                images.permute(0, 3, 1, 2), (size, size), mode="bilinear", align_corners=False
            )
            return resized.permute(0, 2, 3, 1).reshape(-1, size, 3)

        columns = [comp_rgb.reshape(-1, *comp_rgb.shape[2:])]
        columns += [rows(guidance_eval_out[key]) for key in ("imgs_noisy", "imgs_1step", "imgs_1orig", "imgs_final")]
        self.save_image_grid(
            f"it{self.true_global_step}-train.png",
            [{"type": "rgb", "img": column, "kwargs": {"data_format": "HWC"}} for column in columns],
            name="train_step",
            step=self.true_global_step,
            texts=guidance_eval_out["texts"],
        )
