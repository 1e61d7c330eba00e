"""Put trained models into the package, with their model cards.

    python -m tools.mini.publish --work outputs/mini-lab

Copies the judge, the CLIP and the Stable Diffusion folder to ``threestudio_redream/mini``, refuses anything but
safetensors, JSON and text, and checks the size budget. ``--cards`` only writes the cards again, from the raw figures in
``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from threestudio_redream.mini import CLIP, DIFFUSION, JUDGE
from tools.mini.cards import card
from tools.mini.results import write_results

__all__ = ["BUDGET_BYTES", "copy_model", "measure_loading", "publish"]

log = logging.getLogger("mini-lab")

BUDGET_BYTES = 40 * 10**6
SUFFIXES = {".safetensors", ".json", ".txt", ".md"}
RESULTS = Path("benchmarks/results")
#: name -> (where training leaves it, where the package has it)
MODELS = {
    "judge": ("judge/judge", JUDGE),
    "clip": ("clip/clip", CLIP),
    "stable-diffusion": ("diffusion/pipeline", DIFFUSION),
}
_LOAD = {
    "clip": "from transformers import CLIPModel\nCLIPModel.from_pretrained(p)",
    "stable-diffusion": "from diffusers import StableDiffusionPipeline\nStableDiffusionPipeline.from_pretrained(p)",
    "judge": "from pathlib import Path\nfrom threestudio_redream.mini.judge import Judge\nJudge.load(Path(p))",
}


def copy_model(source: Path, target: Path) -> int:
    """Replace ``target`` by a copy of ``source``; returns its bytes.

    Raises:
        SystemExit: the folder holds a file of another kind.
    """
    files = sorted(path for path in source.rglob("*") if path.is_file())
    foreign = [path.name for path in files if path.suffix not in SUFFIXES]
    if not files or foreign:
        raise SystemExit(f"{source} is empty or holds files that may not be shipped: {foreign}")
    fresh = target.with_name(target.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    for path in files:
        to = fresh / path.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
        if path.name == "config.json":  # diffusers notes where a part was loaded from
            said = json.loads(to.read_text("utf-8"))
            if said.pop("_name_or_path", None) is not None:
                to.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return sum(path.stat().st_size for path in files)


def measure_loading(name: str, folder: Path) -> dict[str, float]:
    """Seconds and peak memory of loading a model in a fresh process, imports apart."""
    imports, _, load = _LOAD[name].rpartition("\n")
    code = (
        f"import resource, time, sys\np = sys.argv[1]\n{imports}\nbefore = time.perf_counter()\n{load}\n"
        "print(time.perf_counter() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    runs = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
        seconds, peak = done.stdout.split()[-2:]
        runs.append((float(seconds), float(peak) * (1.0 if sys.platform == "darwin" else 1024.0)))
    return {"load_seconds": round(min(runs)[0], 3), "peak_rss_mb": round(min(run[1] for run in runs) / 1e6)}


def last_row(log_csv: Path) -> dict[str, float]:
    """The last line of a training log."""
    rows = list(csv.DictReader(log_csv.open(encoding="utf-8")))
    return {name: float(value) for name, value in rows[-1].items()}


def publish(work: Path, names: Sequence[str] = tuple(MODELS)) -> None:
    """Copy, measure, and write cards; models that are not named stay as they are.

    Raises:
        SystemExit: together they are larger than the budget.
    """
    report = RESULTS / "mini_models.json"
    facts: dict[str, Any] = json.loads(report.read_text("utf-8"))["results"] if report.is_file() else {}
    for name in names:
        source, target = MODELS[name]
        size = copy_model(work / source, target)
        training = {"steps": int(last_row(work / source.split("/")[0] / "log.csv")["step"])}
        if name == "stable-diffusion":
            training["autoencoder_steps"] = int(last_row(work / "autoencoder" / "log.csv")["step"])
            training["decoder_steps"] = int(last_row(work / "autoencoder" / "polish" / "log.csv")["step"])
        facts[name] = {"megabytes": round(size / 1e6, 1), **training, **measure_loading(name, target)}
        log.info("%s: %s", name, facts[name])
    total = sum(facts[name]["megabytes"] for name in facts)
    if total > BUDGET_BYTES / 1e6:
        raise SystemExit(f"{total:.1f} MB are more than the {BUDGET_BYTES / 1e6:.0f} MB the package may hold")
    write_results(report, facts)
    write_cards()


def write_cards() -> None:
    """``README.md`` of every model folder, from the raw figures that exist."""
    figures = {path.stem: json.loads(path.read_text("utf-8"))["results"] for path in RESULTS.glob("mini_*.json")}
    for name, (_, target) in MODELS.items():
        if target.is_dir():
            (target / "README.md").write_text(card(name, figures), encoding="utf-8")


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("outputs/mini-lab"))
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=list(MODELS), help="only these")
    parser.add_argument("--cards", action="store_true", help="only write the cards again")
    arguments = parser.parse_args()
    if arguments.cards:
        write_cards()
    else:
        publish(arguments.work, arguments.models)


if __name__ == "__main__":
    main()
