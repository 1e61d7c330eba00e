"""Train the mini CLIP, a ``transformers.CLIPModel``, on renders and captions with view words.

    python -m tools.mini.train_clip

Two stages. The first is CLIP's own loss. A model trained that way only finds a red tractor nearer to "a red robot" than
a blue robot is, for in its batches all wrong pairs are equally wrong. To people the object comes first, so the second
stage counts pairs of the same kind as a little right.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.mini.captions import clip_caption
from tools.mini.pictures import SIDE, STYLE_COUNT, PictureSet, develop, random_backgrounds
from tools.mini.tokenizer import CONTEXT, learn_tokenizer, save_tokenizer
from tools.mini.training import Plan, train
from tools.mini.views import VIEWS
from tools.mini.words import corpus

__all__ = ["IMAGE_MEAN", "IMAGE_STD", "clip_config", "save_clip", "train_clip"]

log = logging.getLogger("mini-lab")

PLANS = {
    "full": Plan(steps=7000, lr=1.2e-3, warmup=300, weight_decay=0.05, betas=(0.9, 0.98), ema=0.998, seed=21),
    "short": Plan(steps=2400, lr=1.2e-3, warmup=150, weight_decay=0.05, betas=(0.9, 0.98), ema=0.995, seed=21),
}
#: Length of the second stage as a share of the first, its learning rate likewise.
KIN_STEPS, KIN_RATE = 0.35, 0.4
#: What a pair of the same kind counts in the second stage, where the right one counts 1.
KIN_WEIGHT = 0.15
BATCH = 96
#: Share of a batch that comes from the pictures taken evenly from all sides.
EVEN_SHARE = 0.6
#: Of the label heads' cross entropies beside CLIP's own.
LABEL_WEIGHT = 0.5
IMAGE_MEAN, IMAGE_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def clip_config(tokenizer: Any, *, width: int = 128, layers: int = 4) -> Any:
    """A ``transformers.CLIPConfig``: ViT with 8 px patches on 64 px, text transformer of half its depth."""
    from transformers import CLIPConfig

    return CLIPConfig(
        projection_dim=128,
        logit_scale_init_value=2.6592,
        vision_config={
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "projection_dim": 128,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 32,
            "image_size": SIDE,
            "patch_size": 8,
            "hidden_act": "gelu",
        },
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 512,
            "projection_dim": 128,
            "num_hidden_layers": max(layers // 2, 1),
            "num_attention_heads": 4,
            "max_position_embeddings": CONTEXT,
            "hidden_act": "gelu",
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
    )


def _shifted(image: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrored, moved by up to 4 pixels and zoomed a little, so that a patch grid is not learned by heart."""
    count = len(image)
    zoom = 0.85 + 0.3 * torch.rand(count, generator=generator)
    move = (torch.rand(count, 2, generator=generator) - 0.5) * 0.25
    theta = torch.zeros(count, 2, 3)
    mirrored = torch.rand(count, generator=generator) < 0.5
    theta[:, 0, 0], theta[:, 1, 1] = torch.where(mirrored, -zoom, zoom), zoom
    theta[:, :, 2] = move
    grid = functional.affine_grid(theta, list(image.shape), align_corners=False)
    return functional.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


class LabelHeads(nn.Module):
    """Linear readers of kind, descriptor and view from image features; they help the training and are not shipped."""

    def __init__(self, width: int, kinds: int, descriptors: int) -> None:
        super().__init__()
        self.sizes = (kinds, descriptors, len(VIEWS))
        self.linear = nn.Linear(width, sum(self.sizes))

    def loss(self, features: Tensor, labels: tuple[Tensor, Tensor, Tensor], sided: Tensor) -> Tensor:
        """Sum of the cross entropies; the view's counts only where ``sided`` (bool ``[B]``)."""
        kind, descriptor, view = self.linear(features.float()).split(self.sizes, dim=1)
        seen = functional.cross_entropy(view, labels[2], reduction="none") * sided
        return (
            functional.cross_entropy(kind, labels[0], label_smoothing=0.05)
            + functional.cross_entropy(descriptor, labels[1], label_smoothing=0.05)
            + seen.sum() / sided.sum().clamp(min=1)
        )


def train_clip(
    renders: tuple[Path, Path],
    folder: Path,
    plan: Plan,
    *,
    width: int = 128,
    layers: int = 4,
    until: int | None = None,
) -> nn.Module:
    """Train and save ``folder/clip``; the second stage keeps its state in ``folder/kin``.

    The loss is CLIP's symmetric cross entropy, except that pairs of a batch that show the same object and descriptor
    (and view, where the caption may name it) are left out of each other's negatives. Linear heads on the image features
    learn the labels at the same time, which takes the tower to the same accuracy in fewer steps.

    Args:
        renders: the web-like set and the one taken evenly from all sides.
    """
    from transformers import CLIPModel

    tokenizer = learn_tokenizer(corpus())
    torch.manual_seed(plan.seed)
    config = clip_config(tokenizer, width=width, layers=layers)
    model = CLIPModel(config)
    # The fused kernel's backward pass takes twice the time of plain matrices in bfloat16 on a CPU.
    model.set_attn_implementation("eager")
    sets = [PictureSet.open(path) for path in renders]
    even = round(EVEN_SHARE * BATCH)
    heads = LabelHeads(config.projection_dim, len(sets[0].kinds), len(sets[0].descriptors))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))

    def loss_fn(step: int, generator: torch.Generator, kin: float = 0.0) -> tuple[Tensor, dict[str, float]]:
        kind, descriptor, view, sided, rgba = _draw(sets, (BATCH - even, even), generator)
        style = torch.randint(0, STYLE_COUNT, (BATCH,), generator=generator)
        image = develop(rgba, random_backgrounds(BATCH, generator), style)
        image = _shifted(image, generator)
        image = image + 0.04 * torch.rand(BATCH, 1, 1, 1, generator=generator) * torch.randn(
            image.shape, generator=generator
        )
        rng = np.random.default_rng(int(torch.randint(0, 2**62, (1,), generator=generator)))
        texts = [
            clip_caption(rng, sets[0].kinds[k], sets[0].descriptors[d], int(v))
            for k, d, v in zip(kind, descriptor, view)
        ]
        tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16):
            out = model(
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
                pixel_values=(image - mean) / std,
            )
        logits = out.logits_per_image.float()
        same = np.logical_and.reduce([column[:, None] == column[None] for column in (kind, descriptor, view)])
        np.fill_diagonal(same, False)
        # Equal texts are right answers too.
        equal = np.array([[first == second for second in texts] for first in texts])
        np.fill_diagonal(equal, False)
        logits = logits.masked_fill(torch.from_numpy(same | equal), -1e4)
        target = soft_targets(kind, same | equal, kin)
        contrast = 0.5 * (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target.T))
        labels = (torch.from_numpy(kind), torch.from_numpy(descriptor), torch.from_numpy(view))
        # transformers 5 puts the projected features there, before they are normalised.
        label_loss = heads.loss(out.vision_model_output.pooler_output, labels, torch.from_numpy(sided))
        right = (logits.argmax(1) == torch.arange(BATCH)).float().mean()
        figures = {"contrast": float(contrast.detach()), "labels": float(label_loss.detach()), "top1": float(right)}
        return contrast + LABEL_WEIGHT * label_loss, figures

    modules: dict[str, nn.Module] = {"clip": model, "heads": heads}
    average = train(plan, modules, loss_fn, folder, until=until)
    for name, module in modules.items():
        module.load_state_dict(average[name].state_dict())
    second = replace(plan, steps=round(KIN_STEPS * plan.steps), lr=KIN_RATE * plan.lr, seed=plan.seed + 1)
    kin_loss = partial(loss_fn, kin=KIN_WEIGHT)
    average = train(second, modules, kin_loss, folder / "kin", until=until)
    save_clip(average["clip"], tokenizer, folder / "clip")
    return average["clip"]


def soft_targets(kind: np.ndarray, left_out: np.ndarray, kin: float) -> Tensor:
    """``[B, B]`` rows that sum to 1: the pair itself counts 1 and others of its kind ``kin``, before they are scaled.

    Args:
        kind: ``[B]``. left_out: ``[B, B]`` bool, symmetric; pairs that are neither right nor wrong.
    """
    related = kin * ((kind[:, None] == kind[None]) & ~left_out).astype(np.float32)
    np.fill_diagonal(related, 1.0)
    return torch.from_numpy(related / related.sum(axis=1, keepdims=True))


def _draw(
    sets: list[PictureSet], counts: tuple[int, int], generator: torch.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Tensor]:
    """Kind, descriptor, view, whether it has sides (``[B]``) and premultiplied pixels of a mixed batch."""
    columns: list[tuple[np.ndarray, ...]] = []
    pixels = []
    for pictures, count in zip(sets, counts):
        rows = torch.randint(0, len(pictures.rgba), (count,), generator=generator).numpy()
        columns.append((pictures.kind[rows], pictures.descriptor[rows], pictures.view[rows], pictures.fronted[rows]))
        pixels.append(pictures.batch(rows))
    kind, descriptor, view, sided = (np.concatenate(parts) for parts in zip(*columns))
    return kind, descriptor, view, sided, torch.cat(pixels)


def save_clip(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model, tokenizer and preprocessing as ``CLIPModel.from_pretrained`` and its kin expect them."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    preprocessing = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": SIDE},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": SIDE, "width": SIDE},
        "do_rescale": True,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": True,
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
        "do_convert_rgb": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=1), encoding="utf-8")


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renders", type=Path, default=Path("outputs/mini-lab/renders"), help="folder of all sets")
    parser.add_argument("--out", type=Path, default=Path("outputs/mini-lab/clip"))
    parser.add_argument("--schedule", choices=list(PLANS), default="full")
    arguments = parser.parse_args()
    sets = (arguments.renders / "train", arguments.renders / "clip")
    train_clip(sets, arguments.out, PLANS[arguments.schedule])


if __name__ == "__main__":
    main()
