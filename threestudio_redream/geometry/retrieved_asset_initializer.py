"""``retrieved-asset-initializer``: an implicit volume that starts as a retrieved asset instead of as a blob.

The hard form of the 3D prior, for comparison with the soft ones: the field is fitted to the asset once, before the
first training step, and nothing holds it there afterwards.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from omegaconf import OmegaConf
from torch import Tensor

from threestudio_redream.assets import Asset
from threestudio_redream.data.asset_views import AssetSource, open_asset
from threestudio_redream.errors import ConfigError
from threestudio_redream.geometry.asset_fit import FitConfig, fit_to_asset
from threestudio_redream.retrieval.retrieve import RetrievalConfig, retrieve
from threestudio_redream.runtime import find, parse_structured, register

if TYPE_CHECKING:
    from threestudio_redream.runtime.geometry.implicit_volume import ImplicitVolume
else:
    ImplicitVolume = find("implicit-volume")  # the host's

__all__ = ["RetrievedAssetInitializer"]

log = logging.getLogger("pytorch_lightning")


@register("retrieved-asset-initializer")
class RetrievedAssetInitializer(ImplicitVolume):
    """An implicit volume whose first state is fitted to an asset.

    Which asset: the one that ``redream-system`` has retrieved (each particle gets its own); else the file of ``asset``;
    else the best one for ``prompt``. ``asset`` and ``prompt`` win over the system's. A run that goes on from a
    checkpoint, or whose weights were loaded, is not fitted again.

    Keys beside those of ``implicit-volume`` (``n_feature_dims`` must be 3):
        asset: see :class:`~threestudio_redream.data.asset_views.AssetSource`, e.g. ``{path: chair.glb}``.
        prompt: text to search with, e.g. ``${system.prompt_processor.prompt}``.
        retrieval: see :class:`~threestudio_redream.retrieval.retrieve.RetrievalConfig`. choice: which of the assets
            found, 0 is the best.
        fit_steps: optimiser steps of the fit; 0 leaves the field as it is. fit: see
            :class:`~threestudio_redream.geometry.asset_fit.FitConfig`.
        cache: folder of fitted fields, kept by their content; empty for none.
    """

    @dataclass
    class Config(ImplicitVolume.Config):
        asset: dict = field(default_factory=dict)
        prompt: str = ""
        retrieval: dict = field(default_factory=dict)
        choice: int = 0
        fit_steps: int = 300
        fit: dict = field(default_factory=dict)
        cache: str = ".redream_cache/fields"

    cfg: Config
    initialised: Tensor

    def configure(self) -> None:
        super().configure()
        if self.cfg.n_feature_dims != 3:
            raise ConfigError(
                "A field that starts as an asset needs three feature channels, its colours",
                received=self.cfg.n_feature_dims,
                fix="Set geometry.n_feature_dims: 3, or geometry_type: implicit-volume.",
            )
        if self.cfg.fit_steps < 0 or self.cfg.choice < 0:
            raise ConfigError(
                "fit_steps and choice must be 0 or more",
                received=(self.cfg.fit_steps, self.cfg.choice),
                fix="300 and 0 are usual.",
            )
        self._fit_config: FitConfig = OmegaConf.to_object(parse_structured(FitConfig, self.cfg.fit))  # type: ignore[assignment]
        self._retrieval: RetrievalConfig = OmegaConf.to_object(  # type: ignore[assignment]
            parse_structured(RetrievalConfig, self.cfg.retrieval)
        )
        parse_structured(AssetSource, self.cfg.asset)  # a wrong key is found now
        # In the state, so that a checkpoint says that its field needs no start.
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool))
        self._settled = False

    @property
    def wants_asset(self) -> bool:
        """Whether the system should say which asset this field starts from."""
        return not (self.cfg.asset or self.cfg.prompt or self._settled or bool(self.initialised))

    def initialise(self, asset: Asset | None) -> None:
        """Fit the field to an asset in the canonical frame; with None it stays as it is, and no other is looked for."""
        self._settled = True
        self.initialised.fill_(True)
        if asset is None or not self.cfg.fit_steps:
            return
        cache = Path(self.cfg.cache) if self.cfg.cache else None
        facts = {each.name: getattr(self.cfg, each.name) for each in fields(ImplicitVolume.Config)}
        result = fit_to_asset(self, asset, self.cfg.fit_steps, self._fit_config, cache=cache, facts=facts)
        log.info("The field starts as '%s': %s", asset.name, result)

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        super().update_step(epoch, global_step, on_load_weights)
        if on_load_weights:
            self.initialised.fill_(True)
        if self._settled or not self.training:
            return
        if bool(self.initialised):
            self._settled = True
        else:
            self.initialise(self._own_asset())

    def _own_asset(self) -> Asset | None:
        """The asset that the configuration names.

        Raises:
            ConfigError: it names none, and no system has given one.
        """
        if self.cfg.asset:
            return open_asset(self.cfg.asset)
        if not self.cfg.prompt:
            raise ConfigError(
                "The field should start as an asset, but which one is not said",
                received={"asset": dict(self.cfg.asset), "prompt": self.cfg.prompt},
                fix="Set system.geometry.asset.path or system.geometry.prompt, or use redream-system with retrieval.",
            )
        found = retrieve(self.cfg.prompt, self._retrieval)
        used = [reference for reference in found.references if reference.reliability > 0.0]
        if not used:
            log.warning(
                "No asset resembles the prompt (best score below %.3f): the field starts as it is.", found.threshold
            )
            return None
        return used[self.cfg.choice % len(used)].asset
