"""All figures about one result, with everything that decides them: models, hashes, versions, protocol.

A metric's name holds its backbone, ``clip_score[mini]`` or ``a_lpips[vgg]``: figures of different backbones do not
compare. What a source does not allow (no opacity maps, no asset, no mesh) is left out, and ``left_out`` says why.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from threestudio_redream.assets import Asset, load_asset, normalise
from threestudio_redream.errors import AssetError
from threestudio_redream.evaluation.appearance import (
    blurred,
    colour_distance,
    cropped,
    flattened,
    on_ground,
    sharpness,
)
from threestudio_redream.evaluation.consistency import a_lpips
from threestudio_redream.evaluation.lpips import LPIPS, open_lpips
from threestudio_redream.evaluation.renders import Renders
from threestudio_redream.evaluation.shape import asset_masks, chamfer_distance, silhouette_iou
from threestudio_redream.evaluation.text import (
    clip_score,
    r_precision,
    rivals,
    view_cosines,
    view_cs,
    view_entropy,
    view_probabilities,
)
from threestudio_redream.evaluation.warping import warp_error
from threestudio_redream.retrieval.encoders import open_encoder
from threestudio_redream.runtime.files import visible
from threestudio_redream.runtime.prompt_processors.cache import fingerprint_tensors

__all__ = ["NO_MESH", "ScoreConfig", "Scorer", "exported_mesh"]

PACKAGES = ("threestudio-redream", "torch", "transformers", "torchmetrics", "numpy", "pillow")
#: Side that pictures of the mini LPIPS and crops are brought to, if they are smaller.
SMALLEST = 32
NO_MESH = "there is no exported mesh"
NO_MAPS, UNSEEN = "there are no opacity maps", "nothing is more than half opaque"


@dataclass(frozen=True)
class ScoreConfig:
    """What is measured with.

    Attributes:
        encoder: a CLIP, named as for :func:`~threestudio_redream.retrieval.encoders.open_encoder`. lpips: ``vgg``,
            ``alex``, ``mini``, or empty for none. lpips_weights: the backbone's file; None looks in torch's hub folder.
        others: prompts of the set, for R-precision; none leaves it out.
        judge: ask the mini lab's judge; it knows the mini library's kinds alone.
    """

    encoder: str = "mini"
    lpips: str = "mini"
    lpips_weights: Path | None = None
    others: tuple[str, ...] = ()
    judge: bool = False


class Scorer:
    """Holds the models; call it once per result.

    Raises:
        ConfigError, RetrievalError: a model is not here.
    """

    def __init__(self, cfg: ScoreConfig) -> None:
        self.cfg = cfg
        self.encoder = open_encoder(cfg.encoder)
        self.lpips: LPIPS | None = open_lpips(cfg.lpips, cfg.lpips_weights) if cfg.lpips else None
        self.referee: Any = None
        if cfg.judge:
            from threestudio_redream.mini.judge import Judge

            self.referee = Judge.load()

    def models(self) -> dict[str, Any]:
        """Name and hash of every model."""
        found: dict[str, Any] = {"clip": {"name": self.cfg.encoder, "fingerprint": self.encoder.fingerprint}}
        if self.lpips is not None:
            found["lpips"] = {"net": self.lpips.name, "weights": fingerprint_tensors(self.lpips.state_dict())}
        if self.referee is not None:
            found["judge"] = {"weights": fingerprint_tensors(self.referee.state_dict())}
        return found

    def __call__(
        self, renders: Renders, prompt: str, *, asset: Asset | None = None, mesh: Asset | str = NO_MESH
    ) -> dict[str, Any]:
        """``{"prompt", "metrics", "left_out", "renders", "models", "versions"}``.

        Args:
            prompt: without view words. asset: the retrieved one, in the canonical frame. mesh: the exported result,
                or why there is none.
        """
        metrics: dict[str, Any] = {}
        left_out: dict[str, str] = {}
        self._text(renders, prompt, metrics, left_out)
        masks = None if renders.opacity is None else renders.opacity > 0.5
        metrics["sharpness"] = sharpness(renders.rgb, masks)
        camera = renders.about.get("camera")
        if renders.opacity is None or renders.depth is None or camera is None:
            left_out["warp"] = "there are no opacity and depth maps, or the camera is not known"
        else:
            error, seen = warp_error(renders.rgb, renders.opacity, renders.depth, camera)
            metrics |= {"warp/error": error, "warp/seen": seen} if seen else {"warp/seen": seen}
        if self.lpips is not None:
            self._consistency(renders, masks, metrics, left_out)
        self._asset(renders, masks, asset, mesh, metrics, left_out)
        if self.referee is not None:
            self._judge(renders, prompt, metrics, left_out)
        versions = {"python": platform.python_version()}
        for package in PACKAGES:
            try:
                versions[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                continue
        return {
            "prompt": prompt,
            "metrics": metrics,
            "left_out": left_out,
            "renders": {**renders.about, "views": len(renders.rgb), "size": list(renders.rgb.shape[1:3])},
            "models": self.models(),
            "versions": versions,
        }

    def _text(self, renders: Renders, prompt: str, metrics: dict[str, Any], left_out: dict[str, str]) -> None:
        name = self.cfg.encoder
        metrics[f"clip_score[{name}]"] = clip_score(self.encoder, renders.rgb, prompt)
        cosines = view_cosines(self.encoder, renders.rgb, prompt)
        metrics[f"view_cs[{name}]"] = view_cs(cosines, renders.azimuth_deg)
        metrics[f"view_entropy[{name}]"] = view_entropy(view_probabilities(cosines[: renders.around]))
        if rivals(prompt, self.cfg.others):
            metrics[f"r_precision[{name}]"] = r_precision(self.encoder, renders.rgb, prompt, self.cfg.others)
        else:
            left_out["r_precision"] = "no other prompts were given"

    def _consistency(
        self, renders: Renders, masks: Tensor | None, metrics: dict[str, Any], left_out: dict[str, str]
    ) -> None:
        assert self.lpips is not None
        name, views = f"a_lpips[{self.lpips.name}]", renders.rgb
        metrics[name] = a_lpips(self.lpips, views)
        metrics[f"{name}/blurred control"] = a_lpips(self.lpips, blurred(views))
        if masks is None or renders.opacity is None or not bool(masks.any()):
            left_out[f"{name}: crop, white ground, flat control"] = NO_MAPS if masks is None else UNSEEN
            return
        metrics[f"{name}/flat control"] = a_lpips(self.lpips, flattened(views, masks))
        if renders.ground is None:
            left_out[f"{name}/white ground"] = "the colour behind the object is not known"
        else:
            metrics[f"{name}/white ground"] = a_lpips(self.lpips, on_ground(views, renders.opacity, renders.ground))
        window = cropped(views, masks)
        if min(window.shape[1:3]) < SMALLEST:
            left_out[f"{name}/crop"] = f"the object is smaller than {SMALLEST} pixels"
        else:
            metrics[f"{name}/crop"] = a_lpips(self.lpips, window)

    def _asset(
        self,
        renders: Renders,
        masks: Tensor | None,
        asset: Asset | None,
        mesh: Asset | str,
        metrics: dict[str, Any],
        left_out: dict[str, str],
    ) -> None:
        if asset is None:
            left_out["asset: colour distance, chamfer"] = "no asset was given"
            return
        if isinstance(mesh, str):
            left_out["asset/chamfer"] = mesh
        else:
            metrics["asset/chamfer"] = chamfer_distance(normalise(mesh), asset)
        if masks is None:
            left_out["asset/colour distance"] = NO_MAPS
            return
        turn = renders.turn(12)
        assert turn.opacity is not None
        height, width = turn.rgb.shape[1:3]
        if bool((turn.opacity > 0.5).any()):
            rgb, covered = _asset_pictures(asset, len(turn.rgb), height)
            metrics["asset/colour distance"] = colour_distance(turn.rgb, turn.opacity > 0.5, rgb, covered)
        else:
            left_out["asset/colour distance"] = UNSEEN
        if camera := renders.about.get("camera"):
            azimuth_deg = renders.azimuth_deg[renders.chosen(12)]
            outlines = asset_masks(asset, azimuth_deg, height, width, **camera)
            metrics["asset/silhouette_iou"] = silhouette_iou(turn.opacity, outlines)
        else:
            left_out["asset/silhouette_iou"] = "the camera of the pictures is not known"

    def _judge(self, renders: Renders, prompt: str, metrics: dict[str, Any], left_out: dict[str, str]) -> None:
        from threestudio_redream.evaluation.judging import judge_turn

        words = prompt.lower().split()
        kinds = [kind for kind in self.referee.kinds if words and kind == words[-1]]
        finishes = [name for name in self.referee.descriptors if name in words]
        if not kinds or not finishes:
            left_out["judge"] = "the judge knows prompts like 'a red robot', of the mini library's words"
            return
        verdict = judge_turn(self.referee, renders.turn(12).rgb, finishes[0], kinds[0])
        metrics["judge"] = verdict


def exported_mesh(trial: Path, step: int) -> Asset | str:
    """The mesh that a run has exported at ``step``, or why there is none; with several, the first by name."""
    found = sorted(visible((trial / "save" / f"it{step}-export").glob("*.glb")))
    if not found:
        others = (trial / "save").glob("it*-export/*.glb")
        return f"the exported mesh is not of step {step}" if any(visible(others)) else NO_MESH
    try:
        return load_asset(found[0])
    except AssetError as error:
        return f"the exported mesh cannot be used: {error.problem}"


def _asset_pictures(asset: Asset, views: int, size: int) -> tuple[Tensor, Tensor]:
    """Pictures ``[A, S, S, 3]`` of an asset from even azimuths, and where it is."""
    from threestudio_redream.cameras import orbit_c2w
    from threestudio_redream.geometry.asset_prior import AssetViews

    azimuths = [360.0 * i / views for i in range(views)]
    c2w = torch.from_numpy(orbit_c2w(azimuths, [15.0] * views, [1.5] * views))
    fovy = torch.full((views,), 40.0).deg2rad()
    view = AssetViews([asset])(0, c2w, fovy, size, size, torch.zeros(1, 1, 1, 3))
    return view.rgb, view.mask[..., 0] > 0.5
