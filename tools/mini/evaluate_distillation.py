"""Score distillation with the mini Stable Diffusion, judged: in 2D (pixels or latents) and on hash-grid fields.

    python -m tools.mini.evaluate_distillation 2d
    python -m tools.mini.evaluate_distillation 3d

In 3D each prompt is one run of ``launch.py`` with the DreamFusion baseline; the judge looks at its test views. The
Janus rate of that baseline is what retrieval and adaptation have to lower.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from threestudio_redream.evaluation.judging import judge_turn
from threestudio_redream.evaluation.renders import open_renders
from threestudio_redream.mini.judge import Judge
from threestudio_redream.runtime.rng import step_generator
from tools.mini.results import write_results

__all__ = ["PROMPTS", "PROMPTS_3D", "distil_2d"]

log = logging.getLogger("mini-lab")
ROOT = Path(__file__).resolve().parents[2]
CONFIG = "custom_configs/baselines/dreamfusion.yaml"

#: (descriptor, kind), fixed before the first run.
PROMPTS: tuple[tuple[str, str], ...] = (
    ("red", "cat"), ("blue", "robot"), ("green", "car"), ("yellow", "duck"), ("wooden", "chair"),
    ("pink", "pig"), ("striped", "fish"), ("golden", "teapot"), ("purple", "television"), ("brown", "dog"),
    ("orange", "house"), ("dotted", "mushroom"), ("blue", "elephant"), ("stone", "castle"), ("checkered", "sofa"),
    ("green", "frog"), ("red", "train"), ("yellow", "mug"), ("purple", "owl"), ("orange", "backpack"),
)  # fmt: skip
PROMPTS_3D = PROMPTS[:10]


class _FixedPrompts:
    """Embeddings of one prompt per picture, as a guidance asks for them."""

    def __init__(self, conditional: Tensor, unconditional: Tensor) -> None:
        self._pairs = torch.cat([conditional, unconditional])

    def get_text_embeddings(self, *_: Any) -> Tensor:
        return self._pairs


def distil_2d(
    guidance: Any, embeddings: Tensor, unconditional: Tensor, *, space: str, steps: int, lr: float, seed: int = 0
) -> Tensor:
    """Turn noise into pictures by SDS alone.

    Args:
        guidance: ``redream-sds-guidance``. embeddings: ``[B, N, F]`` of the prompts. unconditional: ``[1, N, F]``.
        space: ``latents`` or ``pixels``, what is optimised.

    Returns:
        ``[B, 64, 64, 3]`` in [0, 1].
    """
    count, model = len(embeddings), guidance.model
    side = model.image_size()
    generator = torch.Generator().manual_seed(seed)
    prompts = _FixedPrompts(embeddings, unconditional.expand(count, -1, -1))
    if space == "latents":
        small = side // model.downsampling
        values = torch.randn(count, small, small, 4, generator=generator)
    else:
        values = torch.randn(count, side, side, 3, generator=generator) * 0.2
    values.requires_grad_(True)
    optimizer = torch.optim.Adam([values], lr=lr, betas=(0.9, 0.99))
    zeros = torch.zeros(count)
    for step in range(steps):
        guidance.set_min_max_steps(0.02, 0.98 if step < steps // 2 else 0.6)
        picture = values if space == "latents" else torch.sigmoid(values)
        said = guidance(
            picture,
            prompts,
            zeros,
            zeros,
            zeros,
            rgb_as_latents=space == "latents",
            generator=step_generator(seed, step),
        )
        optimizer.zero_grad()
        said["loss_sds"].backward()
        optimizer.step()
    with torch.no_grad():
        return model.decode(values.permute(0, 3, 1, 2)) if space == "latents" else torch.sigmoid(values)


def evaluate_2d(judge: Judge, arguments: argparse.Namespace) -> dict[str, Any]:
    """SDS on latents and on pixels for all prompts."""
    from threestudio_redream.guidance.sds import SDSGuidance
    from threestudio_redream.prompt_processors.stable_diffusion import StableDiffusionPromptProcessor
    from tools.mini.captions import prompt

    texts = [prompt(kind, descriptor) for descriptor, kind in PROMPTS]
    processor = StableDiffusionPromptProcessor({"prompt": texts[0], "pretrained_model_name_or_path": arguments.model})
    embeddings, empty = processor.encode_prompts(texts), processor.encode_prompts([""])
    figures: dict[str, Any] = {"prompts": texts}
    rows = []
    for space, gradient, lr in (("latents", "encoder", 0.03), ("pixels", "decoder", 0.05), ("pixels", "encoder", 0.05)):
        guidance = SDSGuidance(
            {"pretrained_model_name_or_path": arguments.model, "guidance_scale": 5.0, "gradient": gradient}
        )
        started = time.perf_counter()
        pictures = distil_2d(guidance, embeddings, empty, space=space, steps=arguments.steps or 300, lr=lr)
        verdict = judge.judge(pictures)
        kinds = torch.tensor([judge.kinds.index(kind) for _, kind in PROMPTS])
        words = torch.tensor([judge.descriptors.index(word) for word, _ in PROMPTS])
        right = verdict.kind.argmax(1) == kinds
        figures[space if space == "latents" else f"{space}, {gradient}"] = {
            "seconds": round(time.perf_counter() - started, 1),
            "object_right": int(right.sum()),
            "descriptor_right": int((verdict.descriptor.argmax(1) == words).sum()),
            "of": len(PROMPTS),
            "missed": [text for text, good in zip(texts, right.tolist()) if not good],
        }
        log.info("%s, %s: %s", space, gradient, list(figures.values())[-1])
        rows.append(pictures.permute(1, 0, 2, 3).reshape(64, -1, 3))
    _save(torch.cat(rows), arguments.grid or ROOT / "docs/images/mini-sds-2d.png")
    return figures


def evaluate_3d(judge: Judge, arguments: argparse.Namespace) -> dict[str, Any]:
    """One launch per prompt; finished runs are not repeated."""
    figures: dict[str, Any] = {"config": arguments.config, "extra": arguments.extra, "runs": {}}
    rows = []
    for descriptor, kind in PROMPTS_3D:
        text = f"a {descriptor} {kind}" if descriptor[0] not in "aeiou" else f"an {descriptor} {kind}"
        folder = arguments.work / f"{descriptor}-{kind}"
        started = time.perf_counter()
        if not list(folder.glob("save/it*-test/119.png")):
            command = [
                sys.executable, "launch.py", "--config", arguments.config, "--train", "use_timestamp=false",
                f"exp_root_dir={folder.parent}", "name=.", f"tag={folder.name}", "system.export_after_training=false",
                f"system.prompt_processor.prompt={text}", *arguments.extra,
            ]  # fmt: skip
            subprocess.run(command, cwd=ROOT, check=True)
        views = open_renders(folder).turn(12).rgb
        figures["runs"][text] = {
            **judge_turn(judge, views, descriptor, kind),
            "seconds": round(time.perf_counter() - started, 1),
        }
        log.info("%s: %s", text, figures["runs"][text])
        rows.append(views[:: 3 if len(views) < 12 else 2].permute(1, 0, 2, 3).reshape(views.shape[1], -1, 3))
    runs = figures["runs"].values()
    fronted = [run for run in runs if run["has_front"]]
    figures["recognised"] = sum(run["recognised"] for run in runs)
    figures["of"] = len(figures["runs"])
    figures["janus_rate"] = sum(run["janus"] for run in fronted) / max(len(fronted), 1)
    _save(torch.cat(rows), arguments.grid or ROOT / "docs/images/mini-sds-3d.png")
    return figures


def _save(picture: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((picture * 255.0).round().byte().numpy()).save(path, optimize=True)


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["2d", "3d"])
    parser.add_argument("--model", default="mini", help="for 2d: mini, or a folder")
    parser.add_argument("--judge", type=Path, default=None)
    parser.add_argument("--steps", type=int, default=None, help="for 2d")
    parser.add_argument("--config", default=CONFIG, help="for 3d")
    parser.add_argument("--work", type=Path, default=Path("outputs/mini-lab/sds"), help="for 3d: folder of the runs")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--grid", type=Path, default=None)
    parser.add_argument("extra", nargs="*", help="for 3d: overrides for launch.py, key=value")
    arguments = parser.parse_args()
    judge = Judge.load(arguments.judge) if arguments.judge else Judge.load()
    figures = evaluate_2d(judge, arguments) if arguments.what == "2d" else evaluate_3d(judge, arguments)
    write_results(arguments.out or ROOT / f"benchmarks/results/mini_sds_{arguments.what}.json", figures)


if __name__ == "__main__":
    main()
