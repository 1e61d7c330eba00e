"""Stops a run that has become pointless, says what happened, and keeps what is needed to find out why."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from threestudio_redream.errors import ConfigError, EmptySceneError
from threestudio_redream.runtime.files import atomic_write_text

__all__ = ["GuardConfig", "SceneGuard"]


@dataclass
class GuardConfig:
    """When a run is given up.

    Attributes:
        empty_below, full_above: mean opacity of the renders that counts as an empty scene, or as a fog that fills the
            picture. patience: steps of a particle in a row that this is borne; 0 never gives up.
    """

    empty_below: float = 0.003
    full_above: float = 0.995
    patience: int = 100

    def __post_init__(self) -> None:
        if not 0.0 <= self.empty_below < self.full_above <= 1.0 or self.patience < 0:
            raise ConfigError(
                "guard needs 0 <= empty_below < full_above <= 1 and patience >= 0",
                received=(self.empty_below, self.full_above, self.patience),
                fix="0.003, 0.995 and 100 are usual.",
            )


class SceneGuard:
    """Looks at every step's loss and opacity."""

    def __init__(self, cfg: GuardConfig) -> None:
        self.cfg = cfg
        self._bad: dict[int, int] = {}

    def check(
        self,
        step: int,
        terms: Mapping[str, Tensor],
        total: Tensor,
        opacity: float,
        save: Callable[[str], Path],
        particle: int = 0,
    ) -> None:
        """Raise if the run should end.

        Args:
            terms: the loss terms by name. total: their weighted sum. opacity: mean of the renders.
            save: writes the step's renders to a file of the given stem and returns its folder.
            particle: which one the step was of; each has its own count of empty steps.

        Raises:
            EmptySceneError: the loss is not finite, or nothing (or only fog) has been visible for ``patience`` steps.
        """
        if not bool(total.isfinite()):
            values = {name: float(value.detach()) for name, value in terms.items()}
            wrong = sorted(name for name, value in values.items() if not math.isfinite(value))
            folder = self._keep(step, values, opacity, save)
            raise EmptySceneError(
                f"The loss became {float(total.detach())} at step {step} (terms: {', '.join(wrong) or 'their sum'})",
                fix=f"Lower the learning rate or the guidance scale; the last checkpoint is intact, see {folder}.",
            )
        bad = opacity < self.cfg.empty_below or opacity > self.cfg.full_above
        self._bad[particle] = steps = self._bad.get(particle, 0) + 1 if bad else 0
        if self.cfg.patience and steps >= self.cfg.patience:
            values = {name: float(value.detach()) for name, value in terms.items()}
            folder = self._keep(step, values, opacity, save)
            what, fix = ("Nothing is visible any more", "Lower lambda_sparsity") if opacity < 0.5 else (
                "Fog fills the whole picture", "Raise lambda_sparsity"
            )  # fmt: skip
            raise EmptySceneError(
                f"{what}: the opacity has been {opacity:.4f} or alike for {steps} steps (step {step})",
                fix=f"{fix}, or try another seed; see {folder}. With system.guard.patience: 0 it goes on anyway.",
            )

    def _keep(self, step: int, values: dict[str, float], opacity: float, save: Callable[[str], Path]) -> Path:
        folder = save(f"it{step}-stopped")
        shown = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        text = json.dumps({"step": step, "opacity": opacity, "terms": shown}, indent=1)
        atomic_write_text(folder / f"it{step}-stopped.json", text)
        return folder
