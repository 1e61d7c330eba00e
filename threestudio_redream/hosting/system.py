"""Upstream's systems with what ours rely on: our savers and exporter, exact randomness, and guards.

Our launcher does some things that upstream's does not: it exports when training ends, keeps random states in the
checkpoint, and switches renderers back to training after a validation. Here the system itself does them.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from threestudio_redream.errors import RedreamError
from threestudio_redream.hosting.cameras import check_cameras
from threestudio_redream.hosting.exporter import exporter_for
from threestudio_redream.hosting.keys import drop_own_keys
from threestudio_redream.runtime.host import resolve
from threestudio_redream.runtime.rng import RngGuard
from threestudio_redream.runtime.saving import SaverMixin

__all__ = ["BaseLift3DSystem", "BaseSystem"]

log = logging.getLogger("pytorch_lightning")

if TYPE_CHECKING:  # the same methods, by the contract
    from threestudio_redream.runtime.system import BaseLift3DSystem as _Lift3D
    from threestudio_redream.runtime.system import BaseSystem as _System
else:
    _System = resolve("threestudio.systems.base:BaseSystem")
    _Lift3D = resolve("threestudio.systems.base:BaseLift3DSystem")


class _Hosted(SaverMixin):
    """What both systems gain. Stands before upstream's class in the order of bases."""

    _fitted = False

    # ------------------------------------------------------------------ guards
    def on_fit_start(self) -> None:
        super().on_fit_start()  # type: ignore[misc]
        self._fitted = True
        self.train()  # type: ignore[attr-defined]  # Lightning >= 2.2 does not: renderers would not know of the fit

    def on_validation_model_train(self) -> None:
        self.train()  # type: ignore[attr-defined]  # else rays are not jittered any more after the first validation

    def preprocess_data(self, batch: Any, stage: str) -> None:
        check_cameras(batch)
        super().preprocess_data(batch, stage)  # type: ignore[misc]

    def configure_callbacks(self) -> list[Any]:
        """Random states in checkpoints, once for a trainer."""
        present = self.trainer.callbacks if self._trainer is not None else []  # type: ignore[attr-defined]
        return [] if any(isinstance(callback, RngGuard) for callback in present) else [RngGuard()]

    # ------------------------------------------------------------------ savers
    def save_obj(self, filename: str, mesh: Any, *arguments: Any, **options: Any) -> Any:
        """A mesh of ours, or one of upstream's exporter."""
        if hasattr(mesh, "v_pos"):
            return super(SaverMixin, self).save_obj(filename, mesh, *arguments, **options)  # type: ignore[misc]
        return super().save_obj(filename, mesh, *arguments, **options)


class BaseSystem(_Hosted, _System):
    """Upstream's BaseSystem, hosted."""


class BaseLift3DSystem(_Hosted, _Lift3D):
    """Upstream's BaseLift3DSystem, hosted."""

    def configure(self) -> None:
        self.cfg.exporter_type = exporter_for(self.cfg.exporter_type, self.cfg.exporter)
        drop_own_keys(self.cfg)
        super().configure()

    def on_test_end(self) -> None:
        super().on_test_end()
        if self._fitted and getattr(self, "export_after_training", False):
            try:
                self.on_predict_start()
                self.on_predict_epoch_end()
            except RedreamError as cause:  # the run is done; its pictures and checkpoints stand
                log.error("No mesh was exported, which --export with resume=... can do later: %s", cause)
