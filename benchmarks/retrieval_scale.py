"""Caption search in a large index: ours against FAISS (flat, float16, HNSW, IVF), ScaNN and torch, in one run.

    python benchmarks/retrieval_scale.py                      # 800,000 x 768: about 12 GB of disk, a quarter of an hour
    python benchmarks/retrieval_scale.py --rows 20000 --name retrieval_scale_small
    python benchmarks/retrieval_scale.py --engines ours,faiss-hnsw --threads 2

Vectors are synthetic but CLIP-like: a common mean direction, clusters of very different sizes, a power-law spectrum,
unit length; queries are noisier relatives of rows. Their clusters overlap strongly, so the recall of approximate
searches is a pessimistic figure. Recall@10 is against exact search over the original float32 vectors. Each engine
builds, and then opens and searches, in processes of its own: opening times include no import, memory is what the
process had at its peak beyond the imports, split into mapped files and the rest. ``ours`` also re-scores a pool of
100 and reads the records of its hits; ``ours-rows`` gives row numbers like the libraries.

``two_stage`` is the whole warm retrieval (caption pool of 100, ranking by 8 views each) of an index of
``--two-stage-rows`` assets without the text encoder; its second stage does not depend on the number of rows.
Writes ``benchmarks/results/<name>.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import ROOT, environment, versions, write_results
from retrieval_scale_peers import BLOCK, ENGINES, SHARED_FOLDER, RandomEncoder, record

K = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=800_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engines", default=",".join(ENGINES), help="comma-separated; default: all")
    parser.add_argument("--two-stage-rows", type=int, default=20_000)
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds for one step of one engine")
    parser.add_argument("--folder", type=Path, help="for the files; default: a temporary one, deleted afterwards")
    parser.add_argument("--name", default="retrieval_scale")
    parser.add_argument("--step", nargs=2, metavar=("ENGINE", "STEP"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        engine, step = options.step
        sys.stdout.write("\n" + json.dumps(STEPS[step](engine, options)))
        return
    temporary = None if options.folder else tempfile.mkdtemp(prefix="retrieval-scale-")
    options.folder = options.folder or Path(temporary)
    try:
        results = run(options)
    finally:
        if temporary:
            shutil.rmtree(temporary)
    packages = sorted({package for engine in ENGINES.values() for package in engine.PACKAGES})
    settings = {name: getattr(options, name) for name in ("rows", "dim", "queries", "threads", "two_stage_rows")}
    path = write_results(options.name, {"environment": environment(packages), "settings": settings, **results})
    sys.stdout.write(f"{path}\n")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Make the data, and take every engine through its steps."""
    started = time.perf_counter()
    make_data(options)
    results: dict[str, Any] = {"data_s": round(time.perf_counter() - started, 1), "engines": {}, "skipped": {}}
    for name in options.engines.split(","):
        built = in_process(name, "build", options)
        found = built if "reason" in built else in_process(name, "search", options)
        if "reason" in found:
            results["skipped"][name] = found["reason"]
        else:
            results["engines"][name] = {**built, **found}
        sys.stderr.write(f"{name}: {json.dumps(results['engines'].get(name, found))}\n")
    results["two_stage"] = in_process("ours", "two_stage", options)
    return results


def make_data(options: argparse.Namespace) -> None:
    """``vectors.npy`` float32, ``queries.npy``, and ``truth.npy``, the exact best rows ``[Q, 10]``."""
    folder, random = options.folder, np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    dim, clusters = options.dim, max(2, options.rows // 40)
    scale = (np.arange(1, dim + 1) ** -0.4).astype(np.float32)
    mean = unit(random.standard_normal(dim).astype(np.float32))
    centres = unit(random.standard_normal((clusters, dim), np.float32) * scale)
    weights = random.dirichlet(np.full(clusters, 0.3))
    path = folder / "vectors.npy"
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (options.rows, dim))
    for start in range(0, options.rows, BLOCK):
        count = min(BLOCK, options.rows - start)
        members = centres[random.choice(clusters, count, p=weights)]
        noise = unit(random.standard_normal((count, dim), np.float32) * scale)
        vectors[start : start + count] = unit(1.2 * mean + members + 0.9 * noise)
    rows = np.sort(random.choice(options.rows, options.queries, replace=False))
    noise = unit(random.standard_normal((options.queries, dim), np.float32) * scale)
    queries = unit(vectors[rows] + 0.5 * noise)
    best = np.zeros((options.queries, 0), np.int64)
    scores = np.zeros((options.queries, 0), np.float32)
    for start in range(0, options.rows, BLOCK):
        block = queries @ vectors[start : start + BLOCK].T
        joined = np.concatenate([scores, block], 1)
        ids = np.concatenate([best, np.arange(start, start + block.shape[1])[None].repeat(options.queries, 0)], 1)
        order = np.argsort(-joined, 1, kind="stable")[:, :K]
        scores, best = np.take_along_axis(joined, order, 1), np.take_along_axis(ids, order, 1)
    vectors.flush()
    np.save(folder / "queries.npy", queries)
    np.save(folder / "truth.npy", best)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def in_process(engine: str, step: str, options: argparse.Namespace) -> dict[str, Any]:
    """One step of one engine in a fresh process; ``{"reason": ...}`` if it did not work."""
    environment = {
        **os.environ,
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), str(options.threads)),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    flags = ("rows", "dim", "queries", "threads", "two_stage_rows", "folder")
    arguments = [f"--{flag.replace('_', '-')}={getattr(options, flag)}" for flag in flags]
    command = [sys.executable, __file__, *arguments, "--step", engine, step]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=options.timeout, check=False)
    except subprocess.TimeoutExpired:
        return {"reason": f"{step} took more than {options.timeout:g} s"}
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"{step} ended with {done.returncode}"]
        return {"reason": lines[-1][:300]}
    return json.loads(done.stdout.decode().rsplit("\n", 1)[-1])


def make_engine(name: str, options: argparse.Namespace) -> Any:
    return ENGINES[name](options.folder / SHARED_FOLDER.get(name, name))


def build_step(name: str, options: argparse.Namespace) -> dict[str, Any]:
    engine = make_engine(name, options)
    before = memory()
    started = time.perf_counter()
    engine.build(np.load(options.folder / "vectors.npy", mmap_mode="r", allow_pickle=False))
    elapsed = time.perf_counter() - started
    files = [path for path in engine.folder.rglob("*") if path.is_file()]
    return {
        "build_s": round(elapsed, 2),
        "build_peak_mib": round(memory()["VmHWM"] - before["VmRSS"]),
        "disk_mib": round(sum(path.stat().st_size for path in files) / 2**20, 1),
        "files": len(files),
        "versions": versions(engine.PACKAGES),
    }


def search_step(name: str, options: argparse.Namespace) -> dict[str, Any]:
    engine = make_engine(name, options)
    queries = np.load(options.folder / "queries.npy", allow_pickle=False)
    truth = np.load(options.folder / "truth.npy", allow_pickle=False)
    before = memory()
    started = time.perf_counter()
    engine.open()
    opened = time.perf_counter() - started
    started = time.perf_counter()
    engine.search(queries[0], K, engine.EFFORTS[0])
    first = time.perf_counter() - started
    settings = []
    for effort in engine.EFFORTS:
        for query in queries[:5]:
            engine.search(query, K, effort)
        times, hits = [], 0
        for query, best in zip(queries, truth):
            started = time.perf_counter()
            found = engine.search(query, K, effort)
            times.append((time.perf_counter() - started) * 1e3)
            hits += len(set(found) & set(best.tolist()))
        p50, p99 = np.percentile(times, [50, 99])
        settings.append(
            {
                "effort": effort,
                "p50_ms": round(float(p50), 3),
                "p99_ms": round(float(p99), 3),
                "recall_at_10": round(hits / truth.size, 4),
            }
        )
    after = memory()
    return {
        "open_s": round(opened, 4),
        "first_query_ms": round(first * 1e3, 1),
        "rss_mib": round(after["VmRSS"] - before["VmRSS"]),
        "rss_anonymous_mib": round(after["RssAnon"] - before["RssAnon"]),
        "settings": settings,
    }


def two_stage_step(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Whole warm retrievals over an index with views."""
    from threestudio_redream.retrieval.index.manifest import IndexSpec
    from threestudio_redream.retrieval.index.reader import Index
    from threestudio_redream.retrieval.index.writer import IndexWriter

    rows, views = min(options.two_stage_rows, options.rows), 8
    vectors = np.load(options.folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
    folder, random = options.folder / "two-stage", np.random.default_rng(0)
    writer = IndexWriter(folder, IndexSpec.of(RandomEncoder(options.dim), views_per_asset=views))
    for start in range(0, rows, 4096):
        text = np.array(vectors[start : min(rows, start + 4096)])
        noise = unit(random.standard_normal((len(text), views, options.dim), np.float32))
        records = [record(start + i) for i in range(len(text))]
        writer.write_part(records, text, unit(text[:, None] + 0.5 * noise), name=f"part-{start:09d}")
    writer.commit()
    index = Index.open(folder)
    queries = np.load(options.folder / "queries.npy", allow_pickle=False)
    for query in queries[:5]:
        index.search(query, 3, pool=100)
    timings = [index.search(query, 3, pool=100).timings_ms for query in queries]
    stages = {name: [timing[name] for timing in timings] for name in ("captions", "views")}
    return {
        "rows": rows,
        "pool": 100,
        "views": views,
        **{f"{name}_p50_ms": round(float(np.median(times)), 3) for name, times in stages.items()},
    }


def memory() -> dict[str, float]:
    """Fields of ``/proc/self/status`` in MiB; zeros where there is none."""
    fields = dict.fromkeys(("VmHWM", "VmRSS", "RssAnon", "RssFile"), 0.0)
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return fields
    for line in lines:
        name, _, rest = line.partition(":")
        if name in fields:
            fields[name] = int(rest.split()[0]) / 1024
    return fields


STEPS = {"build": build_step, "search": search_step, "two_stage": two_stage_step}

if __name__ == "__main__":
    main()
