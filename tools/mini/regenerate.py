"""Make the whole mini lab again from nothing: renders, judge, autoencoder, CLIP, Stable Diffusion.

    python -m tools.mini.regenerate                      the shipped schedule
    python -m tools.mini.regenerate --schedule short     about two hours on two cores

Every step continues where it was stopped and is skipped when it is done. Nothing in the package changes until
``python -m tools.mini.publish`` is run.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from pathlib import Path

from tools.mini import render_library, train_autoencoder, train_clip, train_diffusion, train_judge

__all__ = ["SCHEDULES", "regenerate", "steps"]

log = logging.getLogger("mini-lab")

SCHEDULES = ("full", "short")


def steps(work: Path, schedule: str) -> dict[str, Callable[[], object]]:
    """What is done, in order. Each is safe to repeat."""
    renders = work / "renders"

    def render() -> None:
        for name, plan in render_library.PLANS.items():
            render_library.render_set(renders / name, name, plan)

    return {
        "renders": render,
        "judge": lambda: train_judge.train_judge(renders / "judge", work / "judge", train_judge.PLANS[schedule]),
        "autoencoder": lambda: train_autoencoder.make_autoencoder(renders / "train", work / "autoencoder", schedule),
        "clip": lambda: train_clip.train_clip(
            (renders / "train", renders / "clip"), work / "clip", train_clip.PLANS[schedule]
        ),
        "diffusion": lambda: train_diffusion.train_diffusion(
            renders / "train",
            work / "autoencoder" / "vae",
            work / "clip" / "clip",
            work / "diffusion",
            train_diffusion.PLANS[schedule],
        ),
    }


def regenerate(work: Path, schedule: str, only: list[str]) -> None:
    """Run the steps, or those named in ``only``."""
    table = steps(work, schedule)
    if unknown := set(only) - set(table):
        raise SystemExit(f"no such step: {sorted(unknown)}; there are {list(table)}")
    for name, step in table.items():
        if only and name not in only:
            continue
        started = time.perf_counter()
        step()
        log.info("%s: done in %.0f s", name, time.perf_counter() - started)


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("outputs/mini-lab"))
    parser.add_argument("--schedule", choices=SCHEDULES, default="full")
    parser.add_argument("--only", nargs="*", default=[], help="names of steps")
    arguments = parser.parse_args()
    regenerate(arguments.work, arguments.schedule, arguments.only)


if __name__ == "__main__":
    main()
