"""SDS, VSD, ReDream and its ablations on the mini lab, in one harness: same prompts, seeds, cameras, noise and judge.

    python benchmarks/mini_study.py                             12 prompts x 3 seeds of sds, vsd, redream
    python benchmarks/mini_study.py --arms no-delta no-adapter --prompts 6
    python benchmarks/mini_study.py --report                    only count what is there

Each run is one ``launch.py`` in a process of its own with one thread; ``--jobs`` of them go on side by side. A finished
run leaves ``result.json`` and is not repeated; a run that was stopped goes on at its last checkpoint. An arm is a
shipped configuration with overrides, all named in the table below and in the results.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from _common import ROOT, environment, write_results

from threestudio_redream.runtime.files import atomic_write_text

log = logging.getLogger("mini-study")

PROMPTS = ROOT / "benchmarks" / "mini_study_prompts.json"
REDREAM = "custom_configs/redream.yaml"
PRIOR_OFF = ("system.loss.lambda_prior_rgb=0", "system.loss.lambda_prior_mask=0")
DELTA_OFF = ("system.guidance.delta_every=0",)
ADAPTER_OFF = ("system.adaptation.enabled=false",)
#: Test views of every run: a turn of twelve, and the first again, as threestudio spaces them.
VIEWS = 12
COMMON = (
    f"data.n_test_views={VIEWS + 1}",
    "system.export_after_training=false",
    "trainer.max_steps=500",
    "trainer.val_check_interval=250",
)


@dataclass(frozen=True)
class Arm:
    """A configuration and its overrides. ``asset``: ``other`` picks an asset of another kind, ``second`` the next one
    of the same kind."""

    config: str
    overrides: tuple[str, ...] = ()
    asset: str = ""


ARMS: dict[str, Arm] = {
    "sds": Arm("custom_configs/baselines/dreamfusion.yaml"),
    "vsd": Arm("custom_configs/baselines/prolificdreamer.yaml"),
    "redream": Arm(REDREAM),
    "no-retrieval": Arm(REDREAM, ("system.retrieval.enabled=false",)),
    "no-adapter": Arm(REDREAM, ADAPTER_OFF),
    "no-prior": Arm(REDREAM, PRIOR_OFF),
    "no-delta": Arm(REDREAM, DELTA_OFF),
    "no-view-tokens": Arm(REDREAM, ("system.adaptation.learn_tokens=false",)),
    "prior-only": Arm(REDREAM, (*ADAPTER_OFF, *DELTA_OFF)),
    "adapter-only": Arm(REDREAM, (*PRIOR_OFF, *DELTA_OFF)),
    "second-asset": Arm(REDREAM, asset="second"),
    "wrong-class": Arm(REDREAM, asset="other"),
    "wrong-class-trusted": Arm(REDREAM, ("system.retrieval.gate=false",), asset="other"),
}
MAIN = ("sds", "vsd", "redream")
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Run:
    """One cell of the study."""

    arm: str
    descriptor: str
    kind: str
    seed: int

    @property
    def prompt(self) -> str:
        return f"{'an' if self.descriptor[0] in 'aeiou' else 'a'} {self.descriptor} {self.kind}"

    def folder(self, work: Path) -> Path:
        return work / self.arm / f"{self.descriptor}-{self.kind}-{self.seed}"


@cache
def nearest(prompt: str, which: str) -> Any:
    """The asset that silhouettes are compared with: the best for the prompt, or the arm's own choice."""
    from threestudio_redream.retrieval.retrieve import RetrievalConfig, retrieve

    found = retrieve(prompt, RetrievalConfig(count=3)).references
    if which == "second":
        return found[1]
    if which == "other":
        kind = prompt.split()[-1]
        other = "teapot" if kind != "teapot" else "robot"
        return retrieve(f"a {other}", RetrievalConfig(count=1)).references[0]
    return found[0]


def command(run: Run, work: Path, extra: Sequence[str]) -> list[str]:
    """The launch of one run."""
    arm, folder = ARMS[run.arm], run.folder(work)
    overrides = [*COMMON, *arm.overrides, *extra]
    if arm.asset:
        overrides.append(f"system.retrieval.asset_ids=[{nearest(run.prompt, arm.asset).record.asset_id}]")
    if arm.config == REDREAM:
        overrides.append(f"system.cache={work / 'adaptations'}")
    return [
        sys.executable, "launch.py", "--config", arm.config, "--gpu", "cpu", "use_timestamp=false", "resume=last",
        f"exp_root_dir={folder.parent}", "name=.", f"tag={folder.name}", f"seed={run.seed}",
        f"system.prompt_processor.prompt={run.prompt}", *overrides,
    ]  # fmt: skip


def execute(run: Run, work: Path, extra: Sequence[str], threads: int) -> None:
    """Launch, unless its result is there."""
    folder = run.folder(work)
    if (folder / "result.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    settings = {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    with (folder / "launch.log").open("ab") as sink:
        subprocess.run(
            command(run, work, extra), cwd=ROOT, check=True, env={**os.environ, **settings}, stdout=sink, stderr=sink
        )
    row = {"seconds": round(time.perf_counter() - started, 1), **judge(run, folder)}
    atomic_write_text(folder / "result.json", json.dumps(row, indent=1))
    for path in (folder / "ckpts").glob("*"):
        path.unlink()
    log.info("%s, %s, seed %d: %s", run.arm, run.prompt, run.seed, row)


@cache
def tools() -> tuple[Any, Any]:
    """The judge and the mini CLIP."""
    from threestudio_redream.mini.judge import Judge
    from threestudio_redream.retrieval.encoders import open_encoder

    return Judge.load(), open_encoder("mini")


def judge(run: Run, folder: Path) -> dict[str, Any]:
    """Everything that is said about one run, from its test views."""
    from threestudio_redream.evaluation.judging import judge_turn
    from threestudio_redream.evaluation.renders import open_renders
    from threestudio_redream.evaluation.shape import asset_masks, silhouette_iou
    from threestudio_redream.evaluation.text import clip_score

    rgb, opacity = open_renders(folder).turn(VIEWS)
    referee, encoder = tools()
    reference = nearest(run.prompt, ARMS[run.arm].asset)
    masks = asset_masks(reference.asset, VIEWS, rgb.shape[1], elevation_deg=15.0, distance=1.46, fovy_deg=40.0)
    assert opacity is not None
    return {
        **judge_turn(referee, rgb, run.descriptor, run.kind),
        "clip_score": clip_score(encoder, rgb, run.prompt),
        "asset": reference.record.asset_id,
        "iou_with_asset": silhouette_iou(opacity, masks),
        "opacity": float(opacity.mean()),
    }


def wilson(successes: int, count: int) -> list[float]:
    """95 % interval of a share."""
    if not count:
        return [0.0, 1.0]
    z, share = 1.96, successes / count
    middle, half = share + z * z / (2 * count), z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2))
    return [round((middle + sign * half) / (1 + z * z / count), 4) for sign in (-1, 1)]


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts of one arm. ``one_front``: there is a front, and no Janus; a body that looks alike from all sides has
    neither."""
    count = len(rows)

    def share(key: str) -> dict[str, Any]:
        hits = sum(row["fronts"] > 0 and not row["janus"] if key == "one_front" else bool(row[key]) for row in rows)
        return {"count": hits, "share": round(hits / count, 4), "interval_95": wilson(hits, count)}

    return {
        "runs": count,
        "janus": share("janus"),
        "one_front": share("one_front"),
        "recognised": share("recognised"),
        "descriptor_right": share("descriptor_right"),
        **{
            key: round(statistics.mean(row[key] for row in rows), 4)
            for key in ("clip_score", "iou_with_asset", "front_share", "views_naming_it", "seconds")
        },
    }


def report(work: Path) -> dict[str, Any]:
    """All arms with finished runs; arms are also compared on the cells they share with vsd and redream."""
    found: dict[str, dict[str, Any]] = {}
    for arm in ARMS:
        rows = {path.parent.name: json.loads(path.read_text("utf-8")) for path in work.glob(f"{arm}/*/result.json")}
        if rows:
            found[arm] = dict(sorted(rows.items()))
    summaries: dict[str, Any] = {}
    for arm, rows in found.items():
        summaries[arm] = summary(list(rows.values()))
        for base in ("vsd", "redream"):
            shared = sorted(set(rows) & set(found.get(base, {})))
            if arm != base and shared and len(shared) < len(found[base]):
                summaries[arm][f"{base}_on_the_same"] = summary([found[base][key] for key in shared])
    return {
        "arms": {arm: {"config": ARMS[arm].config, "overrides": list(ARMS[arm].overrides)} for arm in found},
        "summary": summaries,
        "runs": found,
    }


def cells(arms: Sequence[str], prompts: int, seeds: Sequence[int]) -> list[Run]:
    """All runs, the first seed of every arm first."""
    table = json.loads(PROMPTS.read_text("utf-8"))["prompts"][:prompts]
    return [Run(arm, row["descriptor"], row["kind"], seed) for seed in seeds for row in table for arm in arms]


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    log.setLevel(logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(MAIN))
    parser.add_argument("--prompts", type=int, default=12, help="the first so many")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "mini-study")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--name", default="mini_study", help="of the results")
    parser.add_argument("extra", nargs="*", help="overrides for every run, key=value (another --work, then)")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    if not arguments.report:
        runs = cells(arguments.arms, arguments.prompts, arguments.seeds)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            futures = [pool.submit(execute, run, work, arguments.extra, arguments.threads) for run in runs]
            for run, future in zip(runs, futures):
                try:
                    future.result()
                except Exception as cause:  # one failed run does not end a study of hours
                    log.error("%s, %s, seed %d failed: %s", run.arm, run.prompt, run.seed, cause)
    results = report(work)
    write_results(arguments.name, {"environment": environment(), "extra": arguments.extra, **results})
    for arm, row in results["summary"].items():
        shares = [row[key]["share"] for key in ("janus", "one_front", "recognised", "descriptor_right")]
        figures = (arm, row["runs"], *shares, row["clip_score"], row["iou_with_asset"], row["seconds"])
        log.info(
            "%-19s runs %3d  janus %.2f  one front %.2f  recognised %.2f  finish %.2f  clip %.3f  IoU %.3f  %.0f s",
            *figures,
        )


if __name__ == "__main__":
    main()
