"""Where the time of one distillation step goes.

    python benchmarks/distillation_step.py                     the mini model: VSD, two particles, ReDream
    python benchmarks/distillation_step.py --full-size DIR     and Stable Diffusion 2.1's layout, minutes

Each row is a shipped configuration's system, data and guidance without the trainer around them, in a process of its
own, with timers on the parts. Figures are of the last quarter of the steps, when the occupancy grid has pruned. The two
losses go backward one after the other, so that the field's and the LoRA's share can be told apart. ``DIR`` holds
the randomly initialised model of ``python -m tools.full_size_layout DIR``; it is run in bfloat16 on renders of 64
pixels.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _common import ROOT, environment, write_results

from threestudio_redream.runtime.threads import let_threads_wait

let_threads_wait()  # as the launcher does

PARTS = {
    "data": "data",
    "field and renderer, forward": "render",
    "field and renderer, backward": "field backward",
    "occupancy grid": "grid update",
    "autoencoder": "vae",
    "UNet, both scores": "scores",
    "LoRA, forward": "lora",
    "LoRA, backward": "lora backward",
    "optimiser": "optimizer",
}
VSD, REDREAM = "baselines/prolificdreamer", "redream"
FULL_SIZE = ("data.width=[64,64]", "data.height=[64,64]", "system.guidance.weights_dtype=bfloat16")
#: Name: configuration, steps, overrides.
ROWS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "VSD": (VSD, 400, ()),
    "VSD, 2 particles, twice the steps": (VSD, 800, ("system.particles=2",)),
    "ReDream, a step in three with the delta term": (REDREAM, 299, ()),
    "VSD, full size": ("baselines/prolificdreamer-sd21", 4, FULL_SIZE),
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


def measure(row: str, overrides: list[str]) -> dict[str, Any]:
    """Train a row's steps; returns milliseconds over the last quarter."""
    import torch

    from threestudio_redream.runtime.config import load_config
    from threestudio_redream.runtime.memory import keep_freed_memory
    from threestudio_redream.runtime.registry import find
    from threestudio_redream.runtime.rng import step_generator
    from threestudio_redream.systems.regularisers import regularisers

    keep_freed_memory()
    torch.manual_seed(0)
    config, steps, own = ROWS[row]
    with tempfile.TemporaryDirectory() as scratch:
        arguments = [f"exp_root_dir={scratch}", "system.prompt_processor.prompt=a blue robot", *own, *overrides]
        cfg = load_config(ROOT / "custom_configs" / f"{config}.yaml", cli_args=arguments)
    module = find(cfg.data_type)(cfg.data)
    module.setup("fit")
    system = find(cfg.system_type)(cfg.system).train()
    optimizer = system.configure_optimizers()["optimizer"]
    timers, guidance, samples = Timers(), system.guidance, []
    fields = [system, *(system.particles[number] for number in range(1, 1 + len(system.particles)))]
    reference = find_reference(system) if config == REDREAM else None
    for label, owner, name in (
        ("vae", guidance.model, "encode"),
        ("vae", guidance.model, "decode"),
        ("scores", guidance, "residual"),
        ("lora", guidance, "lora_loss"),
    ):
        setattr(owner, name, timers.timed(label, getattr(owner, name)))

    def step(index: int) -> None:
        which = index % len(fields)
        batch = timers.timed("data", module.train_dataset.collate)([{"step": index}])
        batch["bg_color"] = torch.full((len(batch["elevation"]), 3), 0.6)
        for field in fields:  # as the system does
            timers.timed("grid update", field.renderer.do_update_step)(0, index)
        guidance.do_update_step(0, index)
        out = timers.timed("render", lambda: system(batch, which))()
        if reference is not None:
            batch["reference_rgb"] = reference(0, batch["c2w"], batch["fovy"], *out["comp_rgb"].shape[1:3],
                                               batch["bg_color"].view(-1, 1, 1, 3)).rgb  # fmt: skip
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
    # Only some steps update the grid or have a delta term; so the parts are means.
    parts = {key: [row.get(key, 0.0) for row in window] for key in {key for row in window for key in row}}
    return {
        "config": f"custom_configs/{config}.yaml",
        "overrides": [word for word in (*own, *overrides) if not word.startswith("model=")],  # a folder here
        "steps": steps,
        "ms_per_step_median": round(statistics.median(parts["step"]), 1),
        "ms_per_step_mean": round(statistics.mean(parts["step"]), 1),
        "samples": int(statistics.median(samples[-len(window) :])),
        "peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "parts_ms": {label: round(statistics.mean(parts[key]), 1) for label, key in PARTS.items() if key in parts},
    }


def find_reference(system: Any) -> Any:
    """The best asset for the configuration's prompt, as ``redream-system`` renders it."""
    from threestudio_redream.geometry.asset_prior import AssetViews
    from threestudio_redream.retrieval.retrieve import retrieve

    return AssetViews([retrieve(system.prompt_processor.prompt, system.retrieval_config).references[0].asset])


def in_process(row: str, overrides: list[str]) -> dict[str, Any]:
    """One row in a fresh process."""
    command = [sys.executable, __file__, "--row", row, *overrides]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.rsplit("\n", 1)[-1])
    sys.stderr.write(f"{row}: {result}\n")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full-size", type=Path, help="folder of the randomly initialised full-size model")
    parser.add_argument("--row", choices=list(ROWS), help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="key=value for every row")
    args = parser.parse_args()
    if args.row:
        sys.stdout.write("\n" + json.dumps(measure(args.row, args.overrides)))
        return
    rows = {}
    for name, (config, _, _) in ROWS.items():
        full = config.endswith("-sd21")
        if not full or args.full_size:
            rows[name] = in_process(name, [*args.overrides, *([f"model={args.full_size.resolve()}"] if full else [])])
    write_results("distillation_step", {"environment": environment(), "rows": rows})


if __name__ == "__main__":
    main()
