"""``redream-system``: retrieve, align, adapt, then distil with the assets as a prior (Seo et al., 2024)."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from threestudio_redream.adaptation.references import ReferenceConfig
from threestudio_redream.adaptation.training import Adaptation, AdaptationConfig
from threestudio_redream.adaptation.view_tokens import VIEWS
from threestudio_redream.errors import ConfigError
from threestudio_redream.geometry.asset_prior import AssetViews, ReferenceView, prior_losses
from threestudio_redream.retrieval.retrieve import RetrievalConfig, Retrieved, retrieve
from threestudio_redream.runtime import parse_structured, register
from threestudio_redream.systems.preparation import adapt_to, save_retrieved, trusted
from threestudio_redream.systems.score_distillation import ScoreDistillationSystem

__all__ = ["ReDreamSystem"]

log = logging.getLogger("pytorch_lightning")


@register("redream-system")
class ReDreamSystem(ScoreDistillationSystem):
    """Score distillation with retrieved assets.

    The assets of the prompt pull the field towards their renders (``loss.lambda_prior_rgb``, ``_mask``, ``_normal``,
    scheduled), hold the guidance to them (its delta term) and correct its view bias (its adapter). Assets that do not
    resemble the prompt are not used; without any this is the guidance alone.

    Keys:
        retrieval: see :class:`~threestudio_redream.retrieval.retrieve.RetrievalConfig`; ``enabled: false`` for none.
        references, adaptation: see :class:`ReferenceConfig` and :class:`AdaptationConfig`; with
            ``adaptation.enabled: false`` the 2D prior stays as it is.
        cache: folder of adaptations, kept by their content.
    """

    @dataclass
    class Config(ScoreDistillationSystem.Config):
        retrieval: dict = field(default_factory=dict)
        references: dict = field(default_factory=dict)
        adaptation: dict = field(default_factory=dict)
        cache: str = ".redream_cache/adaptation"

    cfg: Config

    def configure(self) -> None:
        super().configure()
        self._retrieval_on, retrieval = _switch(self.cfg.retrieval)
        self._adaptation_on, adaptation = _switch(self.cfg.adaptation)
        self.retrieval_config: RetrievalConfig = _settings(RetrievalConfig, retrieval)
        self.reference_config: ReferenceConfig = _settings(ReferenceConfig, self.cfg.references)
        self.adaptation_config: AdaptationConfig = _settings(AdaptationConfig, adaptation)
        if self._adaptation_on and not hasattr(self.guidance, "load_adapter"):
            raise ConfigError(
                "This guidance cannot be adapted",
                received=self.cfg.guidance_type,
                fix="Use redream-guidance, or set system.adaptation.enabled: false.",
            )
        self.retrieved: Retrieved | None = None
        self.adaptation: Adaptation | None = None
        self._asset_views: AssetViews | None = None

    # ------------------------------------------------------------------ before the first step
    def on_fit_start(self) -> None:
        super().on_fit_start()
        with torch.random.fork_rng():  # the same rays with and without assets
            if self._retrieval_on:
                self._retrieve()
            if self._adaptation_on and trusted(self.retrieved):
                self._adapt()

    def _retrieve(self) -> None:
        self.retrieved = retrieve(self.prompt_processor.prompt, self.retrieval_config)
        save_retrieved(self.retrieved, Path(self.get_save_dir()) / "retrieved")
        for reference in self.retrieved.references:
            log.info(
                "Retrieved %s (%s): similarity %.3f, reliability %.2f",
                reference.record.name,
                reference.record.licence or "licence unknown",
                reference.score_image,
                reference.reliability,
            )
        used = trusted(self.retrieved)
        if used:
            self._asset_views = AssetViews([reference.asset for reference in used])
        else:
            log.warning(
                "No asset resembles the prompt (best score below %.3f): going on without assets.",
                self.retrieved.threshold,
            )

    def _adapt(self) -> None:
        encoder = self.prompt_processor.open_encoder()
        found, folder = adapt_to(
            trusted(self.retrieved),
            self.guidance.model,
            self.guidance.switched,
            encoder,
            self.reference_config,
            self.adaptation_config,
            cache=Path(self.cfg.cache),
            facts={"model": self.prompt_processor.model_fingerprint()},
        )
        if found is None or folder is None:
            return
        self.adaptation = found
        if found.vectors is not None:
            self.prompt_processor.use_view_tokens(dict(zip(VIEWS, found.vectors.cpu())))
            self.prompt_utils = self.prompt_processor()
        shutil.copytree(folder, Path(self.get_save_dir()) / "adapter", dirs_exist_ok=True)

    # ------------------------------------------------------------------ training
    def extra_terms(self, out: dict[str, Tensor], batch: dict[str, Any]) -> dict[str, Tensor]:
        view = batch.get("reference_view")
        used = trusted(self.retrieved)
        if view is None or not used:
            names = ("prior_rgb", "prior_mask", "prior_normal")
            return {name: out["opacity"].sum() * 0.0 for name in names if f"lambda_{name}" in self.cfg.loss}
        terms = prior_losses(out, view, used[self._which() % len(used)].reliability)
        return {name: value for name, value in terms.items() if f"lambda_{name}" in self.cfg.loss}

    def before_guidance(self, out: dict[str, Tensor], batch: dict[str, Any]) -> None:
        if self._asset_views is None:
            return
        height, width = batch["rays_o"].shape[1:3]
        ground = batch["bg_color"].view(-1, 1, 1, 3) if "bg_color" in batch else out["comp_rgb_bg"].detach()
        view: ReferenceView = self._asset_views(self._which(), batch["c2w"], batch["fovy"], height, width, ground)
        batch["reference_view"], batch["reference_rgb"] = view, view.rgb

    def _which(self) -> int:
        """The asset of this step's particle: the best for the first, the next for the second, and so on."""
        return self.active_particle


def _switch(mapping: Any) -> tuple[bool, dict[str, Any]]:
    """Whether a block is on (``enabled``, on by default), and its other keys."""
    values = dict(mapping)
    return bool(values.pop("enabled", True)), values


def _settings(kind: type, mapping: Any) -> Any:
    """A dataclass from configuration, checked."""
    return OmegaConf.to_object(parse_structured(kind, mapping))
