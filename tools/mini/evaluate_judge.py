"""Measure the judge on objects that it has never seen, and write the raw figures.

python -m tools.mini.evaluate_judge
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from threestudio_redream.mini.judge import Judge
from tools.mini.pictures import PictureSet, develop, random_backgrounds
from tools.mini.results import write_results
from tools.mini.train_judge import broken_pictures

__all__ = ["evaluate_judge"]

log = logging.getLogger("mini-lab")


def evaluate_judge(judge: Judge, renders: Path, style: int = 0) -> dict[str, Any]:
    """Accuracies on a set of renders, and how often broken versions of them are called unclear."""
    pictures = PictureSet.open(renders)
    generator = torch.Generator().manual_seed(77)
    counts = {"kind": 0, "descriptor": 0, "view": 0, "broken_called_unclear": 0}
    sided, by_view = 0, np.zeros((4, 4), int)
    for rows in np.array_split(np.arange(len(pictures.rgba)), max(len(pictures.rgba) // 256, 1)):
        background = random_backgrounds(len(rows), generator)
        pixels = develop(pictures.batch(rows), background, torch.full((len(rows),), style))
        verdict = judge.judge(pixels.permute(0, 2, 3, 1))
        counts["kind"] += int((verdict.kind.argmax(1).numpy() == pictures.kind[rows]).sum())
        counts["descriptor"] += int((verdict.descriptor.argmax(1).numpy() == pictures.descriptor[rows]).sum())
        front = pictures.fronted[rows]
        view, true = verdict.view.argmax(1).numpy()[front], pictures.view[rows][front]
        counts["view"] += int((view == true).sum())
        np.add.at(by_view, (true, view), 1)
        sided += int(front.sum())
        broken = judge.judge(broken_pictures(pixels, generator).permute(0, 2, 3, 1))
        counts["broken_called_unclear"] += int((broken.kind.argmax(1) == len(judge.kinds)).sum())
    total = len(pictures.rgba)
    return {
        "pictures": total,
        **{name: value / (sided if name == "view" else total) for name, value in counts.items()},
        "view_confusion_true_by_judged": by_view.tolist(),
    }


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=None, help="folder of the judge; the shipped one if left out")
    parser.add_argument("--renders", type=Path, default=Path("outputs/mini-lab/renders/test"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/mini_judge.json"))
    arguments = parser.parse_args()
    figures = evaluate_judge(Judge.load(arguments.model) if arguments.model else Judge.load(), arguments.renders)
    write_results(arguments.out, figures)
    log.info("%s", figures)


if __name__ == "__main__":
    main()
