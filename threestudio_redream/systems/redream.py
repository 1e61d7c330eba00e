"""``redream-system``: retrieve, align, adapt, then distil with the assets as a prior (Seo et al., 2024)."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from threestudio_redream.adaptation.references import ReferenceConfig
from threestudio_redream.adaptation.training import Adaptation, AdaptationConfig
from threestudio_redream.adaptation.view_tokens import VIEWS
from threestudio_redream.assets import Asset
from threestudio_redream.errors import ConfigError
from threestudio_redream.geometry.asset_prior import AssetViews, ReferenceView, prior_losses
from threestudio_redream.geometry.fusion import FUSIONS, fuse
from threestudio_redream.geometry.latent_prior import latent_prior_loss
from threestudio_redream.geometry.occupancy_prior import OccupancyConfig, OccupancyPrior
from threestudio_redream.geometry.prior_match import MatchConfig, matched_factor
from threestudio_redream.guidance.models import resolve_model
from threestudio_redream.meshing import Mesh, write_glb
from threestudio_redream.retrieval.retrieve import RetrievalConfig, Retrieved, retrieve
from threestudio_redream.runtime import register
from threestudio_redream.runtime.prompt_processors.cache import fingerprint_path
from threestudio_redream.systems.preparation import adapt_to, save_retrieved, trusted
from threestudio_redream.systems.score_distillation import GUIDANCE_STREAM, ScoreDistillationSystem, settings

__all__ = ["PRIORS", "ReDreamSystem"]

log = logging.getLogger("pytorch_lightning")

#: Forms of the 3D prior; all but the last are losses on images.
PRIORS = ("prior_rgb", "prior_mask", "prior_normal", "prior_latent", "prior_occupancy")
OCCUPANCY_STREAM = 8


@register("redream-system")
class ReDreamSystem(ScoreDistillationSystem):
    """Score distillation with retrieved assets.

    The assets of the prompt pull the field towards them (the 3D prior), hold the guidance to them (its delta term) and
    correct its view bias (its adapter). Assets that do not resemble the prompt are not used; without any this is the
    guidance alone, and ``guidance.view_guidance_scale`` rests: nothing would hold together what so much of view words
    pulls apart.

    Forms of the 3D prior, each with its scheduled weight in ``loss``:
        lambda_prior_rgb, lambda_prior_mask: images of the asset from the batch's cameras.
        lambda_prior_normal: its normals; blind to colour. It needs ``geometry.normal_type: finite_difference`` and
            ``renderer.return_comp_normal: true``.
        lambda_prior_latent: the asset as a point in the 2D prior's latent space; measured like ``lambda_vsd``, so 1 is
            the product of both priors. See :mod:`threestudio_redream.geometry.latent_prior`.
        lambda_prior_occupancy: dense inside the asset, empty outside; blind to colour. See
            :mod:`threestudio_redream.geometry.occupancy_prior`.

    Keys:
        retrieval: see :class:`~threestudio_redream.retrieval.retrieve.RetrievalConfig`; ``enabled: false`` for none.
        references, adaptation: see :class:`ReferenceConfig` and :class:`AdaptationConfig`; with
            ``adaptation.enabled: false`` the 2D prior stays as it is.
        cache: folder of adaptations, kept by their content.
        fusion: ``none``: particle i follows asset i (modulo their number). ``fused``: all assets vote on one shape that
            every particle follows, see :func:`~threestudio_redream.geometry.fusion.fuse`; the adaptation still looks at
            each of them.
        prior_mixture: ``prior_latent`` pulls towards all assets by their responsibilities, not to the particle's own.
        occupancy: see :class:`~threestudio_redream.geometry.occupancy_prior.OccupancyConfig`.
        prior_match: ``{rho: ...}`` scales the forms on images together so that their gradient at the render is ``rho``
            (times the asset's reliability) as large as the guidance's; their weights then only set their shares. See
            :class:`~threestudio_redream.geometry.prior_match.MatchConfig`.
    """

    @dataclass
    class Config(ScoreDistillationSystem.Config):
        retrieval: dict = field(default_factory=dict)
        references: dict = field(default_factory=dict)
        adaptation: dict = field(default_factory=dict)
        cache: str = ".redream_cache/adaptation"
        fusion: str = "none"
        prior_mixture: bool = False
        occupancy: dict = field(default_factory=dict)
        prior_match: dict = field(default_factory=dict)

    cfg: Config

    def configure(self) -> None:
        super().configure()
        self._retrieval_on, retrieval = _switch(self.cfg.retrieval)
        self._adaptation_on, adaptation = _switch(self.cfg.adaptation)
        self.retrieval_config: RetrievalConfig = settings(RetrievalConfig, retrieval)
        self.reference_config: ReferenceConfig = settings(ReferenceConfig, self.cfg.references)
        self.adaptation_config: AdaptationConfig = settings(AdaptationConfig, adaptation)
        self.occupancy_config: OccupancyConfig = settings(OccupancyConfig, self.cfg.occupancy)
        self.match_config: MatchConfig = settings(MatchConfig, self.cfg.prior_match)
        self._check_config()
        self.retrieved: Retrieved | None = None
        self.adaptation: Adaptation | None = None
        self._assets: list[Asset] = []
        self._trust: list[float] = []
        self._asset_views: AssetViews | None = None
        self._occupancy: OccupancyPrior | None = None

    def _check_config(self) -> None:
        if self._adaptation_on:
            self._check_adapter()
        self._check_normals()
        if self.cfg.fusion not in FUSIONS:
            raise ConfigError(
                "Unknown fusion of assets", received=self.cfg.fusion, fix=f"Use one of {', '.join(FUSIONS)}."
            )
        known = {f"lambda_{name}" for name in PRIORS}
        if unknown := sorted(key for key in self.cfg.loss if str(key).startswith("lambda_prior_") and key not in known):
            raise ConfigError("Unknown form of the 3D prior", received=unknown, fix=f"Use {', '.join(sorted(known))}.")
        asked = [hasattr(self.guidance, name) for name in ("model", "sample_timesteps")]
        if "lambda_prior_latent" in self.cfg.loss and not all(asked):
            raise ConfigError(
                "prior_latent needs a guidance with a latent diffusion model",
                received=self.cfg.guidance_type,
                fix="Use redream-guidance, or drop system.loss.lambda_prior_latent.",
            )

    def _check_adapter(self) -> None:
        if not hasattr(self.guidance, "load_adapter"):
            raise ConfigError(
                "This guidance cannot be adapted",
                received=self.cfg.guidance_type,
                fix="Use redream-guidance, or set system.adaptation.enabled: false.",
            )
        wanted = (self.adaptation_config.rank, self.adaptation_config.alpha)
        made = (self.guidance.cfg.adapter_rank, self.guidance.cfg.adapter_alpha)
        if wanted != made:
            raise ConfigError(
                "The adaptation's rank and alpha are not those of the guidance's adapter",
                received={"adaptation": wanted, "guidance": made},
                fix="Give system.guidance.adapter_rank and adapter_alpha the same values as system.adaptation.rank and "
                "alpha.",
            )

    def _check_normals(self) -> None:
        """Before the assets are fetched; renderers and geometries of other extensions answer at the first step."""
        renderer, geometry = self.cfg.renderer.get("return_comp_normal"), self.cfg.geometry.get("normal_type")
        if "lambda_prior_normal" in self.cfg.loss and (renderer is False or geometry == "none"):
            raise _no_normals({"return_comp_normal": renderer, "normal_type": geometry})

    # ------------------------------------------------------------------ before the first step
    def on_fit_start(self) -> None:
        super().on_fit_start()
        with torch.random.fork_rng():  # the same rays with and without assets
            if self._retrieval_on:
                self._retrieve()
                self._initialise()
            if hasattr(self.guidance, "weigh_views"):
                self.guidance.weigh_views(bool(self._assets))
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
        if not used:
            log.warning(
                "No asset resembles the prompt (best score below %.3f): going on without assets.",
                self.retrieved.threshold,
            )
            return
        self._assets, self._trust = [reference.asset for reference in used], [r.reliability for r in used]
        if self.cfg.fusion == "fused" and len(used) > 1:
            self._fuse()
        self._asset_views = AssetViews(self._assets)
        if "lambda_prior_occupancy" in self.cfg.loss:
            self._occupancy = OccupancyPrior(self._assets, self.occupancy_config)

    def _fuse(self) -> None:
        fused = fuse(self._assets, self._trust)
        log.info("Fused %d assets into one of %d faces", len(self._assets), len(fused.faces))
        colours = None if fused.colors is None else fused.colors[:, :3]
        mesh = Mesh(fused.vertices, fused.faces, colors=colours)
        write_glb(Path(self.get_save_dir()) / "retrieved" / "fused.glb", mesh, name="fused")
        self._assets, self._trust = [fused], [max(self._trust)]

    def _initialise(self) -> None:
        """Give fields that start as an asset (``retrieved-asset-initializer``) theirs, so that none searches again."""
        for number, _ in self._each_particle():
            geometry = self._geometry(number)
            if getattr(geometry, "wants_asset", False):
                geometry.initialise(self._assets[number % len(self._assets)] if self._assets else None)

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
            facts=self._adaptation_facts(),
        )
        if found is None or folder is None:
            return
        self.adaptation = found
        if found.vectors is not None:
            self.prompt_processor.use_view_tokens(dict(zip(VIEWS, found.vectors.cpu())))
            self.prompt_utils = self.prompt_processor()
        shutil.copytree(folder, Path(self.get_save_dir()) / "adapter", dirs_exist_ok=True)

    def _adaptation_facts(self) -> dict[str, Any]:
        """What decides an adaptation beside assets, renders and settings: both models, as they are used."""
        cfg, style = self.guidance.cfg, self.guidance.model.style
        facts = {
            "model": self.prompt_processor.model_fingerprint(),
            "unet": fingerprint_path(resolve_model(cfg.pretrained_model_name_or_path)),
            "dtype": cfg.weights_dtype,
        }
        return facts | ({"style": style} if style else {})

    # ------------------------------------------------------------------ training
    def before_guidance(self, out: dict[str, Tensor], batch: dict[str, Any]) -> None:
        if self._asset_views is None:
            return
        view = self._reference(self._which(), out, batch)
        batch["reference_view"], batch["reference_rgb"] = view, view.rgb

    def extra_terms(
        self, out: dict[str, Tensor], batch: dict[str, Any], asked: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The 3D prior.

        Args:
            asked: the guidance's own terms, by the name after ``lambda_``; ``prior_match`` measures them.
        """
        terms = {name: out["opacity"].sum() * 0.0 for name in PRIORS if f"lambda_{name}" in self.cfg.loss}
        view = batch.get("reference_view")
        if view is None or not terms:
            return terms
        trust = self._trust[self._which() % len(self._trust)]
        ready = prior_losses(out, view, trust)
        if "prior_normal" in terms and "prior_normal" not in ready:
            raise _no_normals(sorted(out))
        if self._weight("prior_latent"):
            ready["prior_latent"] = self._latent_prior(out, batch, view, trust)
        if self._weight("prior_occupancy") and self._occupancy is not None:
            ready["prior_occupancy"] = trust * self._occupancy_prior()
        terms |= {name: value for name, value in ready.items() if name in terms}
        return terms if self.match_config.rho is None else self._matched(terms, out, asked, trust)

    def _weight(self, name: str) -> float:
        """The weight of a term at this step."""
        return self.C(self.cfg.loss.get(f"lambda_{name}", 0.0))

    def _latent_prior(self, out: dict[str, Tensor], batch: dict[str, Any], view: ReferenceView, trust: float) -> Tensor:
        references = view.rgb[None]
        if self.cfg.prior_mixture and len(self._assets) > 1:
            trust = sum(self._trust) / len(self._trust)
            references = torch.stack([self._reference(i, out, batch).rgb for i in range(len(self._assets))])
        generator = self._generator(GUIDANCE_STREAM)  # the guidance's own timesteps
        steps = self.guidance.sample_timesteps(len(view.rgb), "cpu", generator).to(view.rgb.device)
        loss = latent_prior_loss(
            self.guidance.model,
            out["comp_rgb"],
            references,
            steps,
            generator,
            gradient=getattr(self.guidance.cfg, "gradient", "encoder"),
            weighting=getattr(self.guidance.cfg, "weighting", "sds"),
        )
        return trust * loss

    def _occupancy_prior(self) -> Tensor:
        assert self._occupancy is not None
        geometry = self._geometry(self.active_particle)
        generator = self._generator(OCCUPANCY_STREAM)
        return self._occupancy(self._which(), geometry.forward_density, geometry.bbox, generator)

    def _matched(
        self, terms: dict[str, Tensor], out: dict[str, Tensor], asked: dict[str, Tensor] | None, trust: float
    ) -> dict[str, Tensor]:
        """The terms on images, scaled together: see ``prior_match``."""
        if asked is None:
            raise ConfigError(
                "prior_match needs a system that says what the guidance asked for",
                received=type(self).__name__,
                fix="Leave system.prior_match empty.",
            )
        nothing = out["opacity"].sum() * 0.0
        images = {name: value for name, value in terms.items() if name != "prior_occupancy"}
        prior = sum((self._weight(name) * value for name, value in images.items()), nothing)
        guidance = sum((self._weight(name) * value for name, value in asked.items()), nothing)
        factor = matched_factor(prior, guidance, out, trust * self.C(self.match_config.rho))
        self.log("train/prior_factor", factor)
        return terms | {name: factor * value for name, value in images.items()}

    def _geometry(self, particle: int) -> Any:
        return self.particles[particle].geometry if particle else self.geometry

    def _reference(self, which: int, out: dict[str, Tensor], batch: dict[str, Any]) -> ReferenceView:
        """An asset as the batch's cameras see it, on the ground of the render."""
        assert self._asset_views is not None
        height, width = batch["rays_o"].shape[1:3]
        ground = batch["bg_color"].view(-1, 1, 1, 3) if "bg_color" in batch else out["comp_rgb_bg"].detach()
        return self._asset_views(which, batch["c2w"], batch["fovy"], height, width, ground)

    def _which(self) -> int:
        """The asset of this step's particle: the best for the first, the next for the second, and so on."""
        return self.active_particle


def _no_normals(received: Any) -> ConfigError:
    return ConfigError(
        "prior_normal needs normals, and the renderer makes none",
        received=received,
        fix="Set system.renderer.return_comp_normal: true and system.geometry.normal_type: finite_difference.",
    )


def _switch(mapping: Any) -> tuple[bool, dict[str, Any]]:
    """Whether a block is on (``enabled``, on by default), and its other keys."""
    values = dict(mapping)
    return bool(values.pop("enabled", True)), values
