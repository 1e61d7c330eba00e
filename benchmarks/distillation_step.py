"""Where the time of one distillation step goes, on the mini model.

    python benchmarks/distillation_step.py [--config FILE] [--steps 300] [key=value ...]

Runs a shipped configuration's system, data and guidance without the trainer around them, with timers on the parts.
The two losses go backward one after the other, so that the field's and the LoRA's share can be told apart.
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
PARTS = {
    "data": "data",
    "field and renderer, forward": "render",
    "field and renderer, backward": "field backward",
    "occupancy grid": "grid update",
    "VAE": "vae",
    "UNet, target": "target",
    "UNet, particles": "particles",
    "LoRA, forward": "lora",
    "LoRA, backward": "lora backward",
    "optimiser": "optimizer",
}


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


def measure(config: Path, steps: int, overrides: list[str]) -> dict[str, Any]:
    """Train ``steps`` steps; returns medians in milliseconds over the last quarter."""
    import torch

    from threestudio_redream.runtime.config import load_config
    from threestudio_redream.runtime.memory import keep_freed_memory
    from threestudio_redream.runtime.registry import find
    from threestudio_redream.runtime.rng import step_generator
    from threestudio_redream.systems.score_distillation import regularisers

    keep_freed_memory()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        cfg = load_config(config, cli_args=[f"exp_root_dir={scratch}", *overrides])
    module = find(cfg.data_type)(cfg.data)
    module.setup("fit")
    system = find(cfg.system_type)(cfg.system).train()
    optimizer = system.configure_optimizers()["optimizer"]
    timers, guidance, samples = Timers(), system.guidance, []
    for label, owner, name in (
        ("vae", guidance.model, "encode"),
        ("vae", guidance.model, "decode"),
        ("target", guidance, "target_noise"),
        ("particles", guidance, "particle_noise"),
        ("lora", guidance, "lora_loss"),
    ):
        setattr(owner, name, timers.timed(label, getattr(owner, name)))

    def step(index: int) -> None:
        batch = timers.timed("data", module.train_dataset.collate)([{"step": index}])
        batch["bg_color"] = torch.full((len(batch["elevation"]), 3), 0.6)
        timers.timed("grid update", system.renderer.do_update_step)(0, index)
        guidance.do_update_step(0, index)
        out = timers.timed("render", system)(batch)
        said = guidance(
            out["comp_rgb"], system.prompt_utils, **batch, rgb_as_latents=False, generator=step_generator(0, index, 4)
        )
        loss = said["loss_vsd"] + 0.5 * regularisers(out)["sparsity"]
        timers.timed("field backward", loss.backward)()
        timers.timed("lora backward", said["loss_lora"].backward)()
        timers.timed("optimizer", optimizer.step)()
        optimizer.zero_grad()
        samples.append(out["weights"].numel())

    for index in range(steps):
        timers.begin()
        timers.timed("step", step)(index)
    window = timers.steps[-max(steps // 4, 1) :]
    median = {key: statistics.median(row[key] for row in window) for key in window[-1]}
    return {
        "config": str(config.relative_to(ROOT)),
        "overrides": overrides,
        "steps": steps,
        "ms_per_step": round(median["step"], 1),
        "samples": int(statistics.median(samples[-len(window) :])),
        "parts_ms": {label: round(median.get(key, 0.0), 1) for label, key in PARTS.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "custom_configs" / "baselines" / "prolificdreamer.yaml")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    result = measure(args.config.resolve(), args.steps, args.overrides)
    write_results("distillation_step", {"environment": environment(), **result})


if __name__ == "__main__":
    main()
