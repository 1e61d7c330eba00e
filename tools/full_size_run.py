"""The full-scale configurations on a model of full size, two steps each, on a CPU: what learns, and what it costs.

    python -m tools.full_size_run [--folder DIR] [--steps 2] [--configs redream-sd21 baselines/dreamfusion-sd21 ...]

The model is :mod:`tools.full_size_layout`'s (random weights, made on first use), so pictures mean nothing. Renders are
small; autoencoder and UNet work at their full 512 pixels. Each run is a process of its own. Raw figures go to
``benchmarks/results/full_size.json``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._common import ROOT, environment, write_results

__all__ = ["CONFIGS", "changed", "run_all", "run_config"]

log = logging.getLogger("full-size")

CONFIGS = ("redream-sd21", "baselines/prolificdreamer-sd21", "baselines/dreamfusion-sd21")
RENDER = 32
SMALL = (
    f"data.width=[{RENDER},{RENDER}]",
    f"data.height=[{RENDER},{RENDER}]",
    f"data.eval_width={RENDER}",
    f"data.eval_height={RENDER}",
    "data.n_test_views=2",
    "system.renderer.num_samples_per_ray=64",
    "system.export_after_training=false",
    "system.guidance.weights_dtype=bfloat16",
    "system.prompt_processor.prompt='a blue robot'",
    "system.prompt_processor.use_cache=false",
    "checkpoint.every_n_train_steps=1",
    "checkpoint.save_top_k=-1",
    "trainer.enable_progress_bar=false",
    "use_timestamp=false",
    "tag=two-steps",
)
SMALL_REDREAM = (
    f"system.retrieval.index={ROOT / 'retrieval_index' / 'mini'}",
    "system.references.views_per_asset=8",
    "system.adaptation.steps=2",
    "system.adaptation.warmup=1",
    "system.adaptation.caption_dropout=0",
    "system.adaptation.probe_every=0",
)


def run_config(name: str, model: Path, steps: int, work: Path, extra: Sequence[str] = ()) -> dict[str, Any]:
    """Run one configuration in a process of its own; returns what it cost and what changed."""
    arguments = [*SMALL, f"model={model.resolve()}", f"trainer.max_steps={steps}", f"exp_root_dir={work / 'runs'}"]
    if name.startswith("redream"):
        arguments += SMALL_REDREAM
    config = ROOT / "custom_configs" / f"{name}.yaml"
    report = work / "report.json"
    command = [sys.executable, "-m", "tools.full_size_run", "--child", str(report), str(config), *arguments, *extra]
    started = time.perf_counter()
    subprocess.run(command, check=True, cwd=work, env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"})
    figures: dict[str, Any] = json.loads(report.read_text("utf-8"))
    trial = next(path.parent for path in (work / "runs" / Path(name).name).rglob("ckpts"))
    return {
        "overrides": [*SMALL, *(SMALL_REDREAM[1:] if name.startswith("redream") else ()), *extra],
        "seconds": round(time.perf_counter() - started, 1),
        **figures,
        "changed": changed(trial, model, steps),
    }


def _child(report: Path, config: str, overrides: Sequence[str]) -> None:
    """One launch with a clock on its steps."""
    from threestudio_redream.runtime.launch import main as launch
    from threestudio_redream.systems.score_distillation import ScoreDistillationSystem

    began: list[float] = []
    ended: list[float] = []
    finish = ScoreDistillationSystem.on_train_batch_end

    def start_of_step(*_: Any) -> None:
        began.append(time.perf_counter())

    def end_of_step(*arguments: Any) -> None:
        ended.append(time.perf_counter())
        finish(*arguments)

    for hook, call in (("on_train_batch_start", start_of_step), ("on_train_batch_end", end_of_step)):
        setattr(ScoreDistillationSystem, hook, call)
    start = time.perf_counter()
    status = launch(["--config", config, "--gpu", "cpu", *overrides])
    if status:
        raise SystemExit(status)
    figures = {
        "seconds_before_first_step": round(began[0] - start, 1),
        "seconds_per_step": [round(last - first, 1) for first, last in zip(began, ended)],
        "peak_rss_gib": round(_peak_rss(), 2),
    }
    report.write_text(json.dumps(figures), encoding="utf-8")


def _peak_rss() -> float:
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def changed(trial: Path, model: Path, steps: int) -> dict[str, bool]:
    """What learned, by part. The parts are those whose gradients come by different ways.

    Args:
        trial: of a run that kept the checkpoint of every step. model: what it ran on.
    """
    from threestudio_redream.runtime.checkpoint import read_checkpoint

    first, last = (
        read_checkpoint(next((trial / "ckpts").glob(f"*step={step}.safetensors")))["state_dict"] for step in (1, steps)
    )
    moved = {key: not bool((first[key] == last[key]).all()) for key in first}
    parts = {
        "hash grid": "geometry.encoding",
        "density network": "geometry.density_network",
        "background": "background",
        "LoRA of the renders, A": "lora_A",
        "LoRA of the renders, B": "lora_B",
        "camera embedding": "guidance.camera_embedding.first.weight",
    }
    found = {part: [moved[key] for key in moved if word in key] for part, word in parts.items()}
    result = {part: all(values) for part, values in found.items() if values}
    adapter = trial / "save" / "adapter"
    if adapter.is_dir():
        result |= _adapter_changed(adapter, model)
    return result


def _adapter_changed(folder: Path, model: Path) -> dict[str, bool]:
    """The adapter's B began at 0, the view tokens as the mean of their words' embeddings."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    from threestudio_redream.adaptation.view_tokens import load_view_tokens

    lora: Mapping[str, Any] = load_file(folder / "pytorch_lora_weights.safetensors")
    ups = [bool(value.any()) for key, value in lora.items() if "lora_B" in key or "lora.up" in key]
    tokens = load_view_tokens(folder / "view_tokens")
    with safe_open(model / "text_encoder" / "model.safetensors", framework="pt") as file:
        table = file.get_tensor(next(key for key in file.keys() if key.endswith("token_embedding.weight"))).float()  # noqa: SIM118
    words = _word_rows(model, tuple(tokens))
    moved = [not bool((table[words[view]].mean(0) == vector).all()) for view, vector in tokens.items()]
    return {"adapter, B": bool(ups) and all(ups), "view tokens": any(moved)}


def _word_rows(model: Path, words: Sequence[str]) -> dict[str, list[int]]:
    from threestudio_redream.guidance.models import load_component

    tokenizer = load_component(str(model), "tokenizer", "transformers", "CLIPTokenizer")
    return {word: list(tokenizer(word, add_special_tokens=False)["input_ids"]) for word in words}


def run_all(model: Path, names: Sequence[str], steps: int) -> dict[str, Any]:
    """Run configurations one after the other; raises if a part of one did not learn."""
    from threestudio_redream.guidance.models import PARTS, missing_files
    from tools.full_size_layout import save_layout

    if missing_files(model, tuple(PARTS)):
        log.info("Making the model in %s", model)
        save_layout(model)
    results = {}
    for name in names:
        with tempfile.TemporaryDirectory(prefix="redream-full-size-") as work:
            log.info("%s: %d steps", name, steps)
            results[name] = run_config(name, model, steps, Path(work))
        row = results[name]
        log.info("%s: %s s per step, peak %s GiB", name, row["seconds_per_step"], row["peak_rss_gib"])
        still = [part for part, moved in row["changed"].items() if not moved]
        if still:
            raise RuntimeError(f"{name}: nothing was learnt by {', '.join(still)}")
    return results


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if sys.argv[1:2] == ["--child"]:
        _child(Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs" / "full-size" / "sd21-base")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--configs", nargs="+", default=list(CONFIGS))
    args = parser.parse_args()
    results = run_all(args.folder, args.configs, args.steps)
    packages = ("torch", "diffusers", "transformers", "peft", "pytorch-lightning", "numpy", "numba")
    path = write_results("full_size", {"environment": environment(packages), "results": results})
    log.info("Wrote %s", path)


if __name__ == "__main__":
    main()
