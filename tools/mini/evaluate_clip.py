"""Measure the mini CLIP on objects it has never seen, and write the raw figures.

    python -m tools.mini.evaluate_clip

Objects and finishes are named zero-shot: all (descriptor, kind) prompts compete, probabilities are summed over the
other word. The view is chosen among front, side and back prompts of the named object, for kinds with a front.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from threestudio_redream.assets.rasteriser import AssetRenderer
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.mini import CLIP
from tools.mini.kinds import build
from tools.mini.pictures import SIDE, PictureSet, develop, random_backgrounds
from tools.mini.results import write_results
from tools.mini.tokenizer import CONTEXT
from tools.mini.views import BACK, FOVY_DEG, OVERHEAD
from tools.mini.words import VIEW_PHRASES, article
from tools.mini.write_assets import index_assets

__all__ = ["MiniClip", "evaluate_clip"]

log = logging.getLogger("mini-lab")


class MiniClip:
    """Unit embeddings of a CLIPModel folder."""

    def __init__(self, folder: Path) -> None:
        from transformers import CLIPModel, CLIPTokenizer

        self.model = CLIPModel.from_pretrained(folder).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def images(self, pixels: Tensor) -> Tensor:
        """``[B, 3, 64, 64]`` in [0, 1] to ``[B, D]``."""
        parts = [self._vector(self.model.get_image_features(part * 2.0 - 1.0)) for part in pixels.split(128)]
        return torch.nn.functional.normalize(torch.cat(parts), dim=1)

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """``[len(texts), D]``."""
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt")
        return torch.nn.functional.normalize(self._vector(self.model.get_text_features(**tokens)), dim=1)

    @staticmethod
    def _vector(output: Any) -> Tensor:
        return output if isinstance(output, Tensor) else output.pooler_output


def evaluate_clip(folder: Path, renders: Path) -> dict[str, Any]:
    """All figures of one model folder on one set of renders."""
    clip, pictures = MiniClip(folder), PictureSet.open(renders)
    generator = torch.Generator().manual_seed(99)
    vectors = []
    for rows in np.array_split(np.arange(len(pictures.rgba)), max(len(pictures.rgba) // 256, 1)):
        background = random_backgrounds(len(rows), generator)
        pixels = develop(pictures.batch(rows), background, torch.zeros(len(rows), dtype=torch.int64))
        vectors.append(clip.images(pixels))
    image = torch.cat(vectors)
    scale = clip.model.logit_scale.detach().exp()

    kinds, words = pictures.kinds, pictures.descriptors
    prompts = clip.texts([article(f"{word} {kind}") for kind in kinds for word in words])
    joint = (scale * image @ prompts.T).softmax(1).view(len(image), len(kinds), len(words))
    kind, word = joint.sum(2).argmax(1).numpy(), joint.sum(1).argmax(1).numpy()
    views = clip.texts([f"{article(kind)}, {phrase}" for kind in kinds for phrase in VIEW_PHRASES[: BACK + 1]])
    views = views.view(len(kinds), BACK + 1, -1)
    view = torch.einsum("bd,bvd->bv", image, views[torch.from_numpy(kind)]).argmax(1).numpy()
    sided = pictures.fronted & (pictures.view != OVERHEAD)

    right = kind == pictures.kind
    return {
        "pictures": len(image),
        "object_accuracy": float(right.mean()),
        "descriptor_accuracy": float((word == pictures.descriptor).mean()),
        "view_accuracy": float((view == pictures.view)[sided].mean()),
        "views_judged": int(sided.sum()),
        "object_accuracy_by_kind": {name: float(right[pictures.kind == i].mean()) for i, name in enumerate(kinds)},
        "descriptor_accuracy_by_descriptor": {
            name: float((word == i)[pictures.descriptor == i].mean()) for i, name in enumerate(words)
        },
        "view_accuracy_by_view": {
            name: float((view == i)[sided & (pictures.view == i)].mean())
            for i, name in enumerate(("front", "side", "back"))
        },
        **_recall(clip),
    }


def _recall(clip: MiniClip) -> dict[str, Any]:
    """Text to image over the index assets: is the asset that a text describes the first one found?"""
    vectors, texts, names = [], [], []
    for kind, descriptor, seed in index_assets():
        renderer = AssetRenderer(build(kind, descriptor, seed), shading="world")
        views = np.stack([orbit_c2w(azimuth, 20.0, 1.46) for azimuth in np.arange(8) * 45.0])
        pixels = torch.from_numpy(renderer(views, FOVY_DEG, SIDE, SIDE).over(0.6)).permute(0, 3, 1, 2)
        vectors.append(torch.nn.functional.normalize(clip.images(pixels).mean(0), dim=0))
        texts.append(article(f"{descriptor} {kind}"))
        names.append((kind, descriptor))
    found = (clip.texts(texts) @ torch.stack(vectors).T).topk(5, dim=1).indices.numpy()
    first = found[:, 0] == np.arange(len(texts))
    wrong = [f"{texts[i]} -> {' '.join(reversed(names[found[i, 0]]))}" for i in np.flatnonzero(~first)]
    return {
        "index_assets": len(texts),
        "recall_at_1": float(first.mean()),
        "recall_at_5": float((found == np.arange(len(texts))[:, None]).any(1).mean()),
        "recall_misses": wrong,
    }


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=CLIP)
    parser.add_argument("--renders", type=Path, default=Path("outputs/mini-lab/renders/test"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/mini_clip.json"))
    arguments = parser.parse_args()
    figures = evaluate_clip(arguments.model, arguments.renders)
    write_results(arguments.out, figures)
    for name in ("object_accuracy", "descriptor_accuracy", "view_accuracy", "recall_at_1"):
        log.info("%s %.3f", name, figures[name])


if __name__ == "__main__":
    main()
