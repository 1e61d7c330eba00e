"""Measure the mini Stable Diffusion with the independent judge, and write the raw figures and a grid of samples.

    python -m tools.mini.evaluate_diffusion

1. Composition: samples of (colour, kind) pairs that training never showed together.
2. The view bias: which side samples show without view words, and with each of them.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from threestudio_redream.mini import DIFFUSION
from threestudio_redream.mini.judge import Judge
from tools.mini.captions import prompt
from tools.mini.descriptors import COLORS, DESCRIPTORS
from tools.mini.results import write_results
from tools.mini.seeds import held_out_pairs
from tools.mini.views import VIEWS

__all__ = ["evaluate_composition", "evaluate_views", "sample", "sample_grid"]

log = logging.getLogger("mini-lab")

STEPS, SCALE = 30, 5.0


def load_pipeline(folder: Path) -> Any:
    """The pipeline with its DDIM sampler, silent."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample(pipeline: Any, prompts: list[str], seed: int, *, scale: float = SCALE, batch: int = 50) -> Tensor:
    """Images ``[N, 64, 64, 3]`` in [0, 1], the same for a seed whatever the batch size."""
    images = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        generators = [torch.Generator().manual_seed(seed * 1_000_003 + start + i) for i in range(len(part))]
        out = pipeline(part, num_inference_steps=STEPS, guidance_scale=scale, generator=generators, output_type="np")
        images.append(torch.from_numpy(out.images).float())
    return torch.cat(images)


def evaluate_composition(pipeline: Any, judge: Judge, count: int, seed: int = 1) -> dict[str, Any]:
    """Share of samples of held-out pairs whose object and colour the judge confirms."""
    pairs = held_out_pairs(judge.kinds, tuple(COLORS))
    chosen = [pairs[i % len(pairs)] for i in range(count)]
    verdict = judge.judge(sample(pipeline, [prompt(kind, color) for kind, color in chosen], seed))
    kinds = torch.tensor([judge.kinds.index(kind) for kind, _ in chosen])
    colors = torch.tensor([judge.descriptors.index(color) for _, color in chosen])
    right_kind, right_color = verdict.kind.argmax(1) == kinds, verdict.descriptor.argmax(1) == colors
    by_kind = {
        name: float(right_kind[kinds == i].float().mean()) for i, name in enumerate(judge.kinds) if (kinds == i).any()
    }
    by_color = {
        name: float(right_color[colors == i].float().mean())
        for i, name in enumerate(judge.descriptors)
        if (colors == i).any()
    }
    return {
        "samples": count,
        "held_out_pairs": len(pairs),
        "object_right": float(right_kind.float().mean()),
        "color_right": float(right_color.float().mean()),
        "both_right": float((right_kind & right_color).float().mean()),
        "unclear": float((verdict.kind.argmax(1) == len(judge.kinds)).float().mean()),
        "object_right_by_kind": by_kind,
        "color_right_by_color": by_color,
    }


def evaluate_views(pipeline: Any, judge: Judge, each: int, seed: int = 2) -> dict[str, Any]:
    """Which side is shown, by the words asked for, over kinds with a front."""
    kinds = [kind for kind, front in zip(judge.kinds, judge.fronted) if front]
    rng = np.random.default_rng(seed)
    figures: dict[str, Any] = {"samples_each": each}
    for words in (None, *range(4)):
        chosen = [kinds[i % len(kinds)] for i in range(each)]
        prompts = [prompt(kind, DESCRIPTORS[rng.integers(len(DESCRIPTORS))], view=words) for kind in chosen]
        verdict = judge.judge(sample(pipeline, prompts, seed))
        right = verdict.kind.argmax(1) == torch.tensor([judge.kinds.index(kind) for kind in chosen])
        shown = verdict.view.argmax(1)[right]
        shares = {name: float((shown == i).float().mean()) for i, name in enumerate(VIEWS)}
        label = "no view words" if words is None else f"{VIEWS[words]} view"
        figures[label] = {**shares, "recognised": float(right.float().mean())}
    return figures


def sample_grid(
    pipeline: Any, kinds: tuple[str, ...], seed: int = 3, *, columns: int = 8, rows: int = 8
) -> Image.Image:
    """Uncurated samples: kinds in alphabetical order, finishes in turn."""
    prompts = [prompt(kinds[i % len(kinds)], DESCRIPTORS[(5 * i) % len(DESCRIPTORS)]) for i in range(columns * rows)]
    images = sample(pipeline, prompts, seed)
    grid = images.view(rows, columns, 64, 64, 3).permute(0, 2, 1, 3, 4).reshape(rows * 64, columns * 64, 3)
    picture = Image.fromarray((grid * 255.0).round().byte().numpy())
    return picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST)


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=DIFFUSION)
    parser.add_argument("--judge", type=Path, default=None, help="folder of the judge; the shipped one if left out")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/mini_diffusion.json"))
    parser.add_argument("--grid", type=Path, default=Path("docs/images/mini-samples.png"))
    arguments = parser.parse_args()
    judge = Judge.load(arguments.judge) if arguments.judge else Judge.load()
    pipeline = load_pipeline(arguments.model)
    figures: dict[str, Any] = {
        "steps": STEPS,
        "guidance_scale": SCALE,
        "composition": evaluate_composition(pipeline, judge, arguments.samples),
        "views": evaluate_views(pipeline, judge, max(arguments.samples * 2 // 5, 1)),
    }
    arguments.grid.parent.mkdir(parents=True, exist_ok=True)
    sample_grid(pipeline, judge.kinds).save(arguments.grid, optimize=True)
    write_results(arguments.out, figures)
    for name in ("object_right", "color_right", "both_right"):
        log.info("%s %.3f", name, figures["composition"][name])
    for label, shares in figures["views"].items():
        log.info("%s: %s", label, shares)


if __name__ == "__main__":
    main()
