"""What happens before distillation: retrieve assets, render them, adapt the prior. Each stage is kept by its content.

The folder of a stage is named after a hash of everything that decides its result, so a second run with the same
prompt, index, model and settings finds it done, and a run that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from threestudio_redream.adaptation.files import REPORT, load_adaptation, save_adaptation
from threestudio_redream.adaptation.references import ReferenceConfig, render_references
from threestudio_redream.adaptation.training import NAME, Adaptation, AdaptationConfig, adapt
from threestudio_redream.adaptation.view_tokens import TokenizedEncoder
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.errors import RedreamError
from threestudio_redream.geometry.asset_prior import AssetViews
from threestudio_redream.guidance.adapters import SwitchedUNet
from threestudio_redream.guidance.latent_diffusion import LatentDiffusion
from threestudio_redream.retrieval.curation.attribution import write_attribution
from threestudio_redream.retrieval.retrieve import Reference, Retrieved
from threestudio_redream.retrieval.types import AssetRecord
from threestudio_redream.runtime.files import atomic_write_text

__all__ = ["adapt_to", "content_key", "save_retrieved", "trusted"]

log = logging.getLogger("pytorch_lightning")


def content_key(*parts: Any) -> str:
    """A name of 16 hex digits for plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def trusted(retrieved: Retrieved | None) -> tuple[Reference, ...]:
    """The assets that resemble the prompt enough to be used."""
    return () if retrieved is None else tuple(r for r in retrieved.references if r.reliability > 0.0)


def save_retrieved(retrieved: Retrieved, folder: Path) -> None:
    """``retrieved.json``, ``ATTRIBUTION.md`` and a picture of every asset."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_text(folder / "retrieved.json", json.dumps(retrieved.to_json(), indent=1, allow_nan=False))
    used = trusted(retrieved)
    write_attribution(folder, [reference.record for reference in used])
    views = AssetViews([reference.asset for reference in retrieved.references], supersample=3)
    c2w, fovy = torch.from_numpy(orbit_c2w([30.0], [15.0], [1.5])), torch.deg2rad(torch.tensor([40.0]))
    grey = torch.full((1, 1, 1, 3), 0.75)
    for number, reference in enumerate(retrieved.references):
        rgb = views(number, c2w, fovy, 256, 256, grey).rgb[0]
        picture = Image.fromarray((rgb * 255.0).round().byte().numpy())
        picture.save(folder / f"{number + 1}-{reference.record.asset_id}.png")


def _decides(record: AssetRecord) -> list[Any]:
    """What of an asset's row decides its renders and their names: another front makes another adaptation."""
    return [record.asset_id, record.sha256, record.caption, record.up, record.front, record.front_deg]


def adapt_to(
    references: tuple[Reference, ...],
    model: LatentDiffusion,
    switched: SwitchedUNet,
    encoder: TokenizedEncoder,
    views: ReferenceConfig,
    cfg: AdaptationConfig,
    *,
    cache: Path,
    facts: Mapping[str, Any],
) -> tuple[Adaptation | None, Path | None]:
    """Adapt to the assets whose front is known, or take the adaptation that is there.

    Args:
        facts: what else decides the result: the models' fingerprints, the adapter's type.

    Returns:
        what was learnt and its folder; None twice if no asset has a known front.
    """
    useful = [reference for reference in references if reference.front_known]
    if not useful:
        log.warning("No retrieved asset has a known front: the prior is not adapted.")
        return None, None
    names = [_decides(reference.record) for reference in useful]
    folder = cache / content_key(names, asdict(views), asdict(cfg), dict(facts))
    if (folder / REPORT).is_file():
        try:
            found = load_adaptation(folder, rank=cfg.rank, alpha=cfg.alpha)
            switched.load(NAME, found.lora)
            log.info("Adaptation: taken from %s", folder)
            return found, folder
        except RedreamError as cause:
            log.warning("The kept adaptation cannot be used and is made anew: %s", cause)
            shutil.rmtree(folder)
    renders = render_references([r.asset for r in useful], [r.record.caption for r in useful], views, seed=cfg.seed)
    held_out = render_references(
        [r.asset for r in useful], [r.record.caption for r in useful], views, seed=cfg.seed + 1_000_003
    )
    found = adapt(model, switched, encoder, renders, cfg, folder=folder, held_out=held_out, facts=facts)
    save_adaptation(
        found, folder, rank=cfg.rank, alpha=cfg.alpha, facts={"assets": [r.record.asset_id for r in useful], **facts}
    )
    found = load_adaptation(
        folder, rank=cfg.rank, alpha=cfg.alpha
    )  # alpha / rank rounds: now it is what a resume reads
    switched.load(NAME, found.lora)
    return found, folder
