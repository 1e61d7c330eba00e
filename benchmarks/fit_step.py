"""Where the time of one fit-asset training step goes, before and after the occupancy grid has pruned.

    python benchmarks/fit_step.py [--steps 200] [--mesh FILE]

Runs the shipped configuration's system and data without the trainer around them, with timers on the
parts. ``other forward`` is what is left of the renderer's forward pass; parts of the backward pass are
not separated.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _common import environment, write_results

from threestudio_redream.runtime.threads import let_threads_wait

let_threads_wait()  # as the launcher does

ROOT = Path(__file__).resolve().parents[1]
WINDOWS = {"first steps": (5, 25), "pruned": (-40, None)}


class Timers:
    """Milliseconds per label and step; calls within one step add up."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def begin(self) -> None:
        self.steps.append(defaultdict(float))

    def timed(self, label: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            result = call(*args, **kwargs)
            self.steps[-1][label] += 1e3 * (time.perf_counter() - started)
            return result

        return wrapper


def measure(steps: int, mesh: str) -> dict[str, Any]:
    """Train ``steps`` steps; returns per-window medians in milliseconds."""
    import torch
    from torch.nn import functional

    from threestudio_redream.runtime.config import load_config
    from threestudio_redream.runtime.memory import keep_freed_memory
    from threestudio_redream.runtime.registry import find

    keep_freed_memory()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        cfg = load_config(
            ROOT / "custom_configs" / "fit-asset.yaml",
            cli_args=[f"system.asset.path={mesh}", f"exp_root_dir={scratch}"],
        )
    module = find(cfg.data_type)(cfg.data)
    module.setup("fit")
    system = find(cfg.system_type)(cfg.system).train()
    optimizer = system.configure_optimizers()["optimizer"]
    timers, samples = Timers(), []
    geometry, renderer = system.geometry, system.renderer
    geometry.encoding.forward = timers.timed("encoding", geometry.encoding.forward)
    geometry.forward = timers.timed("field", geometry.forward)
    renderer.estimator.sampling = timers.timed("march", renderer.estimator.sampling)
    weights = cfg.system.loss

    def step(index: int) -> None:
        batch = timers.timed("data", module.train_dataset.collate)([{"step": index}])
        timers.timed("grid update", renderer.do_update_step)(0, index)
        out = timers.timed("forward", lambda: renderer(**batch))()
        target = batch["rgb"] + (1.0 - batch["mask"]) * out["comp_rgb_bg"]
        loss = weights.lambda_rgb * functional.mse_loss(out["comp_rgb"], target)
        loss = loss + weights.lambda_mask * functional.mse_loss(out["opacity"], batch["mask"])
        timers.timed("backward", loss.backward)()
        timers.timed("optimizer", optimizer.step)()
        optimizer.zero_grad()
        samples.append(out["weights"].numel())

    for index in range(steps):
        timers.begin()
        timers.timed("step", step)(index)
    result: dict[str, Any] = {"rays": int(batch_rays(cfg)), "steps": steps}
    for name, (start, stop) in WINDOWS.items():
        window = timers.steps[start:stop]
        median = {
            key: statistics.median(row[key] for row in window) for key in sorted({k for row in window for k in row})
        }
        parts = {
            "data": median["data"],
            "grid update": median["grid update"],
            "march": median["march"],
            "encoding": median["encoding"],
            "networks": median["field"] - median["encoding"],
            "other forward": median["forward"] - median["field"] - median["march"],
            "backward": median["backward"],
            "optimizer": median["optimizer"],
        }
        result[name] = {
            "ms_per_step": round(median["step"], 2),
            "steps_per_s": round(1e3 / median["step"], 2),
            "samples": int(statistics.median(samples[start:stop])),
            "parts_ms": {key: round(value, 2) for key, value in parts.items()},
        }
    return result


def batch_rays(cfg: Any) -> int:
    """Rays of one training batch."""
    return cfg.data.views_per_batch * cfg.data.rays_per_view


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--mesh", default="sample")
    args = parser.parse_args()
    write_results(
        "fit_step", {"environment": environment(), "mesh": Path(args.mesh).name, **measure(args.steps, args.mesh)}
    )


if __name__ == "__main__":
    main()
