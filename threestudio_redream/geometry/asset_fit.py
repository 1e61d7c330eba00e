"""Fit a field to renders of an asset: what :mod:`threestudio_redream.systems.fit_asset` does, without a trainer."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from threestudio_redream.assets import Asset
from threestudio_redream.data.asset_views import AssetViewsDataModule
from threestudio_redream.errors import CheckpointError, ConfigError, EmptySceneError
from threestudio_redream.runtime import find
from threestudio_redream.runtime.checkpoint import read_checkpoint, write_checkpoint
from threestudio_redream.runtime.prompt_processors.cache import fingerprint_tensors
from threestudio_redream.runtime.rng import step_generator

__all__ = ["FitConfig", "asset_fingerprint", "fit_to_asset"]

log = logging.getLogger("pytorch_lightning")

STREAM = 7


@dataclass
class FitConfig:
    """How a field is fitted to an asset of radius 0.5.

    Attributes:
        views, resolution: renders that it is fitted to, and pixels of a side. views_per_step, rays_per_view: of them in
            a step; the latter a square number.
        samples: along a ray. lambda_rgb, lambda_mask: factors of the mean squares.
        encoding_lr, network_lr: of Adam, for the encoding and for everything else; both fall to a twentieth.
        color_activation: from the field's features to colour, as the material's.
        seed: of rays and grounds.
    """

    views: int = 60
    resolution: int = 128
    views_per_step: int = 8
    rays_per_view: int = 256
    samples: int = 96
    lambda_rgb: float = 10.0
    lambda_mask: float = 5.0
    encoding_lr: float = 0.03
    network_lr: float = 0.01
    color_activation: str = "sigmoid"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.views < 1 or self.views_per_step < 1 or self.samples < 1:
            raise ConfigError(
                "fit needs views, views_per_step and samples of 1 or more",
                received=(self.views, self.views_per_step, self.samples),
                fix="60, 8 and 96 are usual.",
            )


def asset_fingerprint(asset: Asset) -> str:
    """SHA-256 over the asset's geometry and materials."""
    arrays = {
        name: torch.from_numpy(getattr(asset, name))
        for name in ("vertices", "faces", "uvs", "colors", "face_materials")
        if getattr(asset, name) is not None
    }
    facts = []
    for number, material in enumerate(asset.materials):
        if material.texture is not None:
            arrays[f"texture {number}"] = torch.tensor(material.texture)
        facts.append([material.base_color, material.alpha_mode, material.alpha_cutoff, material.wrap])
    return hashlib.sha256(f"{fingerprint_tensors(arrays)}{json.dumps(facts)}".encode()).hexdigest()


def fit_to_asset(
    geometry: Any, asset: Asset, steps: int, cfg: FitConfig, *, cache: Path | None = None, facts: Any = None
) -> str:
    """Train all parameters of a field until it looks like an asset, or take them from an earlier fit.

    The same field, asset and settings give the same parameters, whatever else has drawn random numbers; those go on
    afterwards as if nothing had happened.

    Args:
        geometry: an implicit volume with three feature channels, which are colours before ``color_activation``.
        asset: in the canonical frame. cache: folder of fitted parameters, each named after what decided it: the asset,
            the settings, the parameters at the start and ``facts``, the settings of the field.

    Returns:
        the fit in words, for a log.

    Raises:
        EmptySceneError: the loss is not finite.
    """
    parameters = {name: value.detach() for name, value in geometry.named_parameters()}
    facts = [asset_fingerprint(asset), fingerprint_tensors(parameters), steps, asdict(cfg), facts]
    file = None
    if cache is not None:
        file = cache / f"{hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:16]}.safetensors"
    if file is not None and file.is_file():
        try:
            return _load(geometry, file)
        except CheckpointError as cause:
            log.warning("The kept fit cannot be used and is made anew: %s", cause)
    devices = [geometry.bbox.device] if geometry.bbox.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(cfg.seed)
        result = _fit(geometry, asset, steps, cfg)
    if file is not None:
        write_checkpoint(file, {"parameters": parameters, "result": result})
    return result


def _load(geometry: Any, file: Path) -> str:
    tree = read_checkpoint(file)
    own, kept = dict(geometry.named_parameters()), tree.get("parameters")
    if not isinstance(kept, dict) or {k: v.shape for k, v in kept.items()} != {k: v.shape for k, v in own.items()}:
        raise CheckpointError("The file holds no fit of this field", received=str(file), fix="It can be deleted.")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(kept[name])
    return f"{tree['result']}, taken from {file}"


def _fit(geometry: Any, asset: Asset, steps: int, cfg: FitConfig) -> str:
    from threestudio_redream.assets.rasteriser import AssetRenderer
    from threestudio_redream.systems.fit_asset import psnr, silhouette_iou

    values = {"n_train_views": cfg.views, "train_resolution": cfg.resolution, "n_val_views": 4, "val_resolution": 64}
    values |= {"views_per_batch": cfg.views_per_step, "rays_per_view": cfg.rays_per_view}
    views = AssetViewsDataModule(values, AssetRenderer(asset, supersample=2))
    views.setup("fit")
    renderer = _renderer(geometry, cfg)
    device = geometry.bbox.device
    fast = list(geometry.encoding.parameters())
    known = {id(parameter) for parameter in fast}
    rest = [parameter for parameter in geometry.parameters() if id(parameter) not in known]
    groups = [{"params": fast, "lr": cfg.encoding_lr}, {"params": rest, "lr": cfg.network_lr}]
    optimizer = torch.optim.Adam([group for group in groups if group["params"]], betas=(0.9, 0.99), eps=1e-15)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.05 ** (1.0 / max(steps, 1)))
    training = geometry.training
    geometry.train()
    for step in range(steps):
        batch = views.train_dataset.sample(step_generator(cfg.seed, step, STREAM), step)
        batch = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
        renderer.update_step(0, step)
        out = renderer(**batch)
        target = batch["rgb"] + (1.0 - batch["mask"]) * out["comp_rgb_bg"]
        loss = cfg.lambda_rgb * functional.mse_loss(out["comp_rgb"], target)
        loss = loss + cfg.lambda_mask * functional.mse_loss(out["opacity"], batch["mask"])
        if not bool(loss.isfinite()):
            raise EmptySceneError(
                f"The fit to the asset failed: its loss became {float(loss)} at step {step}",
                fix="Lower geometry.fit.encoding_lr and network_lr.",
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        decay.step()
        if step % 100 == 99:
            log.info("Fitting the field to the asset: step %d of %d, loss %.4f", step + 1, steps, float(loss.detach()))
    optimizer.zero_grad(set_to_none=True)
    scores = []
    renderer.eval()
    geometry.eval()
    with torch.no_grad():
        for number in range(len(views.val_dataset)):
            item = views.val_dataset[number]
            item = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in item.items()}
            out = renderer(**item)
            target = item["rgb"] + (1.0 - item["mask"]) * out["comp_rgb_bg"]
            scores.append((psnr(out["comp_rgb"], target), silhouette_iou(out["opacity"], item["mask"])))
    geometry.train(training)
    quality, overlap = (sum(column) / len(scores) for column in zip(*scores))
    return f"PSNR {quality:.1f} dB and silhouette IoU {overlap:.3f} on {len(scores)} other views"


def _renderer(geometry: Any, cfg: FitConfig) -> Any:
    """A renderer of its own, so that the run's starts with its own state; any host has these classes."""
    background = {"color": [0.5, 0.5, 0.5], "random_aug": True, "random_aug_prob": 1.0}
    settings = {"radius": geometry.cfg.radius, "num_samples_per_ray": cfg.samples, "prune_alpha_threshold": False}
    renderer = find("nerf-volume-renderer")(
        settings,
        geometry=geometry,
        material=find("no-material")({"n_output_dims": 3, "color_activation": cfg.color_activation}),
        background=find("solid-color-background")(background),
    )
    for part in (renderer, renderer.background):
        part.to(geometry.bbox.device).train()
    return renderer
