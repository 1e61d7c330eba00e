"""``redream-fit-asset-system``: fit a radiance field to renders of a mesh, then export it.

This is the retrieved-asset initialiser on which the method stands (a radiance field that repeats
the asset), usable alone for any mesh file.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from threestudio_redream.errors import ConfigError, EmptySceneError
from threestudio_redream.runtime import BaseLift3DSystem, register
from threestudio_redream.runtime.files import visible
from threestudio_redream.systems.regularisers import binary_entropy

__all__ = ["FitAssetSystem", "psnr", "silhouette_iou"]

log = logging.getLogger("pytorch_lightning")


def psnr(image: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels, peak 1: ``-10 log10(mse)``."""
    return float(-10.0 * torch.log10(functional.mse_loss(image, target).clamp_min(1e-12)))


def silhouette_iou(opacity: Tensor, mask: Tensor, threshold: float = 0.5) -> float:
    """Intersection over union of two coverage images in [0, 1] after thresholding; 1 if both are empty."""
    a, b = opacity > threshold, mask > threshold
    union = (a | b).sum()
    return float((a & b).sum() / union) if union > 0 else 1.0


@register("redream-fit-asset-system")
class FitAssetSystem(BaseLift3DSystem):
    """Colour and silhouette reconstruction of one asset.

    Writes validation pictures while it trains, a turntable, ``metrics.json`` with PSNR and IoU on
    views that were never trained on, and through the exporter a textured mesh that is loaded again
    and scored on the same views.

    Keys:
        asset: see :class:`~threestudio_redream.data.asset_views.AssetSource`; ``data.asset`` repeats it.
        export_after_training: write a mesh when training ends.
    """

    @dataclass
    class Config(BaseLift3DSystem.Config):
        asset: dict = field(default_factory=dict)
        export_after_training: bool = True

    cfg: Config

    @property
    def export_after_training(self) -> bool:
        return self.cfg.export_after_training

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        return self.renderer(**batch)

    # ------------------------------------------------------------------ training
    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        out = self(batch)
        target = batch["rgb"] + (1.0 - batch["mask"]) * out["comp_rgb_bg"]
        losses = {
            "rgb": functional.mse_loss(out["comp_rgb"], target),
            "mask": functional.mse_loss(out["opacity"], batch["mask"]),
        }
        if self.C(self.cfg.loss.get("lambda_opaque", 0.0)) > 0:
            losses["opaque"] = binary_entropy(out["opacity"])
        total = torch.zeros((), device=target.device)
        for name, value in losses.items():
            weight = self.cfg.loss.get(f"lambda_{name}")
            if weight is None:
                raise ConfigError(
                    f"system.loss.lambda_{name} is missing", fix="Add it to the configuration, 0 to switch it off."
                )
            self.log(f"train/loss_{name}", value)
            total = total + value * self.C(weight)
        if not torch.isfinite(total):
            raise EmptySceneError(
                f"The loss became {float(total)} at step {self.true_global_step}",
                fix="Lower the learning rate; the last checkpoint is intact.",
            )
        self.log("train/psnr", -10.0 * torch.log10(losses["rgb"].detach().clamp_min(1e-12)), prog_bar=True)
        return {"loss": total}

    # ------------------------------------------------------------------ evaluation
    def on_validation_epoch_start(self) -> None:
        self._scores: list[dict[str, float]] = []

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        out, target = self._evaluate(batch)
        if batch_idx == 0:
            self._save_comparison(f"it{self.true_global_step}-val.png", out, target, batch["mask"])

    def on_validation_epoch_end(self) -> None:
        scores = self._mean_scores()
        self.log_dict({f"val/{key}": value for key, value in scores.items()})
        log.info("Step %d: held-out %s", self.true_global_step, _describe(scores))

    def on_test_epoch_start(self) -> None:
        self._scores = []

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        index, folder = int(batch["index"][0]), f"it{self.true_global_step}"
        if batch["held_out"]:
            out, target = self._evaluate(batch)
            self._save_comparison(f"{folder}-held-out/{index}.png", out, target, batch["mask"])
        else:
            out = self(batch)
            self.save_rgb_image(f"{folder}-test/{index}.png", out["comp_rgb"][0])

    def on_test_epoch_end(self) -> None:
        step = self.true_global_step
        self.save_img_sequence(f"it{step}-test", f"it{step}-test", r"(\d+)\.png", save_format="mp4", fps=30)
        scores = self._mean_scores()
        self._metrics = {"step": step, "n_views": len(self._scores), "field": scores}
        self.save_json("metrics.json", self._metrics)
        log.info("Field, %d held-out views: %s", len(self._scores), _describe(scores))

    def _evaluate(self, batch: dict[str, Any]) -> tuple[dict[str, Any], Tensor]:
        out = self(batch)
        target = batch["rgb"] + (1.0 - batch["mask"]) * out["comp_rgb_bg"]
        self._scores.append(
            {"psnr": psnr(out["comp_rgb"], target), "iou": silhouette_iou(out["opacity"], batch["mask"])}
        )
        return out, target

    def _mean_scores(self) -> dict[str, float]:
        keys = self._scores[0] if self._scores else ()
        return {key: float(np.mean([score[key] for score in self._scores])) for key in keys}

    def _save_comparison(self, filename: str, out: dict[str, Any], target: Tensor, mask: Tensor) -> None:
        cells = [
            {"type": "rgb", "img": target[0]},
            {"type": "rgb", "img": out["comp_rgb"][0]},
            {"type": "grayscale", "img": mask[0, ..., 0], "kwargs": {"cmap": None, "data_range": (0, 1)}},
            {"type": "grayscale", "img": out["opacity"][0, ..., 0], "kwargs": {"cmap": None, "data_range": (0, 1)}},
        ]
        if "comp_normal" in out:
            cells.append({"type": "rgb", "img": out["comp_normal"][0]})
        self.save_image_grid(filename, cells, name="validation", step=self.true_global_step)

    # ------------------------------------------------------------------ export
    def on_predict_epoch_end(self) -> None:
        super().on_predict_epoch_end()
        folder = Path(self.get_save_path(f"it{self.true_global_step}-export/."))
        meshes = sorted(visible(folder.glob("*.glb")))
        if meshes:
            scores = self._score_mesh(meshes[0])
            self._metrics = {**getattr(self, "_metrics", {"step": self.true_global_step}), "mesh": scores}
            self.save_json("metrics.json", self._metrics)
            log.info("Exported mesh, loaded again, same views: %s", _describe(scores))

    def _score_mesh(self, path: Path) -> dict[str, float]:
        """Render an exported file from the held-out cameras and compare with the asset's renders."""
        from threestudio_redream.assets import load_asset
        from threestudio_redream.assets.normalise import axis_rotation
        from threestudio_redream.assets.rasteriser import AssetRenderer

        asset = load_asset(path)
        turn = axis_rotation("+y", "+z").T.astype(np.float32)  # the axes of glTF; scale and place are right already
        renderer = AssetRenderer(replace(asset, vertices=asset.vertices @ turn, normals=asset.normals @ turn))
        views = self.trainer.datamodule.val_dataset.sets[-1]  # type: ignore[attr-defined]
        height, width = views.rgba.shape[1:3]
        renders = renderer(views.c2w, views.fovy_deg, height, width)
        truth = torch.from_numpy(views.rgba.astype(np.float32) / 255.0)
        image = torch.from_numpy(renders.rgba)
        white = [t[..., :3] + 1.0 - t[..., 3:] for t in (image, truth)]
        pairs = range(len(truth))
        return {
            "psnr": float(np.mean([psnr(white[0][i], white[1][i]) for i in pairs])),
            "iou": float(np.mean([silhouette_iou(image[i, ..., 3], truth[i, ..., 3]) for i in pairs])),
        }


def _describe(scores: dict[str, float]) -> str:
    return ", ".join(f"PSNR {v:.2f} dB" if k == "psnr" else f"{k} {v:.4f}" for k, v in scores.items())
