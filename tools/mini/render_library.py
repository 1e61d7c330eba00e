"""Render sets of training pictures from thousands of generated objects.

    python -m tools.mini.render_library --out outputs/mini-lab/renders

Four sets with disjoint objects: ``train`` (autoencoder, diffusion, CLIP), ``clip`` (CLIP alone, seen evenly from all
sides), ``judge`` (the independent classifier) and ``test`` (never trained on). Repeating the command continues where it
stopped and does nothing when all is there.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from tools.mini.descriptors import DESCRIPTORS
from tools.mini.kinds import build, load_kinds
from tools.mini.pictures import LABELS, SIDE
from tools.mini.seeds import instance_seed
from tools.mini.views import FOVY_DEG, even_cameras, web_cameras

__all__ = ["PLANS", "render_set"]

log = logging.getLogger("mini-lab")

#: set -> (instances of each kind and descriptor, web cameras, even cameras) of each instance
PLANS: dict[str, tuple[int, int, int]] = {
    "train": (10, 8, 3),
    "clip": (10, 0, 6),
    "judge": (4, 0, 8),
    "test": (2, 0, 6),
}
SUPERSAMPLE = 3


def _pair(
    folder: str, purpose: str, kind: str, descriptor: str, plan: tuple[int, int, int], first: int, number: int
) -> int:
    """Render all views of one kind with one descriptor into the set's files, from row ``first`` on."""
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")
    from threestudio_redream.assets.rasteriser import AssetRenderer
    from threestudio_redream.cameras import orbit_c2w

    rgba = np.load(Path(folder) / "rgba.npy", mmap_mode="r+")
    labels = np.load(Path(folder) / "labels.npy", mmap_mode="r+")
    names, row = list(load_kinds()), first
    instances, web, even = plan
    for index in range(instances):
        seed = instance_seed(purpose, kind, index)
        renderer = AssetRenderer(build(kind, descriptor, seed), supersample=SUPERSAMPLE, shading="world")
        rng = np.random.default_rng([seed, DESCRIPTORS.index(descriptor), 1])
        cameras = [np.concatenate(parts) for parts in zip(web_cameras(rng, web), even_cameras(rng, even))]
        azimuth, elevation, distance = cameras
        views = np.stack([orbit_c2w(*camera) for camera in zip(azimuth, elevation, distance)])
        count = len(views)
        images = renderer(views, FOVY_DEG, SIDE, SIDE).rgba
        rgba[row : row + count] = np.round(images * 255.0).astype(np.uint8)
        values = (names.index(kind), DESCRIPTORS.index(descriptor), azimuth, elevation, np.arange(count) < web)
        for column, value in enumerate((*values, number * instances + index)):
            labels[row : row + count, column] = value
        row += count
    rgba.flush()
    labels.flush()
    return number


def render_set(
    folder: Path,
    purpose: str,
    plan: tuple[int, int, int],
    *,
    kinds: list[str] | None = None,
    workers: int | None = None,
) -> None:
    """Render one set, or what is missing of it.

    Args:
        folder: of the set. purpose: names the seeds, see :func:`instance_seed`. plan: as in :data:`PLANS`.
    """
    table = load_kinds()
    kinds = list(table) if kinds is None else kinds
    pairs = [(kind, descriptor) for kind in kinds for descriptor in DESCRIPTORS]
    rows = plan[0] * (plan[1] + plan[2])
    about = {
        "kinds": list(table),
        "descriptors": list(DESCRIPTORS),
        "fronted": [entry.front for entry in table.values()],
        "plan": list(plan),
        "chosen": kinds,
    }
    folder.mkdir(parents=True, exist_ok=True)
    finished, journal = folder / "set.json", folder / "done.txt"
    if finished.is_file() and json.loads(finished.read_text("utf-8")) == about:
        log.info("%s: complete", folder)
        return
    stamp = folder / "plan.json"
    if not stamp.is_file() or json.loads(stamp.read_text("utf-8")) != about:
        journal.unlink(missing_ok=True)
        finished.unlink(missing_ok=True)
        for name, shape, dtype in (
            ("rgba.npy", (len(pairs) * rows, SIDE, SIDE, 4), np.uint8),
            ("labels.npy", (len(pairs) * rows, len(LABELS)), np.float32),
        ):
            np.lib.format.open_memmap(folder / name, "w+", dtype, shape).flush()
        stamp.write_text(json.dumps(about), encoding="utf-8")
    done = set(journal.read_text("utf-8").split()) if journal.is_file() else set()
    todo = [number for number in range(len(pairs)) if str(number) not in done]
    started = time.perf_counter()
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(_pair, str(folder), purpose, *pairs[number], plan, number * rows, number) for number in todo
        ]
        for count, job in enumerate(jobs, 1):
            with journal.open("a", encoding="utf-8") as file:
                file.write(f"{job.result()}\n")
            if count % 40 == 0 or count == len(jobs):
                rate = count * rows / (time.perf_counter() - started)
                left = (len(jobs) - count) * rows / rate
                log.info("%s: %d of %d pairs, %.0f pictures/s, %.0f s left", purpose, count, len(jobs), rate, left)
    finished.write_text(json.dumps(about), encoding="utf-8")


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/mini-lab/renders"))
    parser.add_argument("--sets", nargs="*", choices=list(PLANS), default=list(PLANS))
    parser.add_argument("--workers", type=int, default=None)
    arguments = parser.parse_args()
    for name in arguments.sets:
        render_set(arguments.out / name, name, PLANS[name], workers=arguments.workers)


if __name__ == "__main__":
    main()
