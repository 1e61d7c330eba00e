"""Build an index from a source, or add one to an index: ingest, render, embed, index.

>>> from threestudio_redream.retrieval.build.run import BuildSettings, SourceSpec, build_index
>>> build_index(SourceSpec("my-library"), "indexes/my-library", BuildSettings())  # doctest: +SKIP

Each step can be run by itself, each can be repeated, and a kill costs one chunk of assets at most.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

from threestudio_redream.errors import ConfigError
from threestudio_redream.executors import Executor, InlineExecutor, WorkerDiedError
from threestudio_redream.retrieval.build.assemble import assemble
from threestudio_redream.retrieval.build.chunks import BLAME, load_blame, run_shard
from threestudio_redream.retrieval.build.ingest import ingest
from threestudio_redream.retrieval.build.plan import BuildSettings, Plan, SourceSpec, work_folder
from threestudio_redream.retrieval.index.manifest import MANIFEST, read_manifest
from threestudio_redream.retrieval.views import ViewSpec
from threestudio_redream.runtime.files import atomic_write_text
from threestudio_redream.runtime.locks import require_locks

__all__ = ["STEPS", "BuildSettings", "Progress", "SourceSpec", "build_index", "settings_of_index"]

STEPS = ("ingest", "render", "embed", "index")
#: Called with (step, chunks done, chunks in all, seconds left or None).
Progress = Callable[[str, int, int, "float | None"], None]
_SHARDS_PER_WORKER = 4  # evens out shards of different cost
_MAX_RESTARTS = 20
_POLL_S = 0.5


def build_index(
    source: SourceSpec,
    out: str | Path,
    settings: BuildSettings,
    *,
    steps: Sequence[str] = STEPS,
    shard: tuple[int, int] | None = None,
    executor: Executor | None = None,
    threads: int = 1,
    work: str | Path | None = None,
    keep_work: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Build an index, or go on where an interrupted build stopped; assets of an existing index stay in it.

    Args:
        source: where the assets come from. out: folder of the index. settings: what shapes its content.
        steps: some of ``ingest``, ``render``, ``embed``, ``index``, done in this order.
        shard: ``(i, n)``: of the chunks, do only those of shard i of n, and leave the index alone: for machines that
            share the work folder. A plan is made if there is none; ``steps=["index"]`` afterwards puts all together.
        executor: runs the shards; default: one after the other in this process.
        threads: of torch in each worker; results are equal to the last bit for an equal number.
        work: work folder, default :func:`.build_plan.work_folder`. keep_work: do not delete it at the end.
        progress: see :data:`Progress`.

    Returns:
        A summary for JSON: ``index, assets, added, unchanged, rejected, reasons, content, seconds``; without the step
        ``index`` only ``chunks, chunks_done, unchanged, seconds``.

    Raises:
        ConfigError: an unknown step or shard, or an encoder that cannot be opened. SourceError: the source cannot be
            read. IndexMismatchError: the index was made with other settings. RetrievalError: chunks are missing.
        WorkerDiedError: workers die and no single asset is to blame.
    """
    require_locks()
    started, out = time.perf_counter(), Path(out)
    steps = _check_steps(steps, shard)
    folder = Path(work) if work is not None else work_folder(out)
    report = progress or (lambda *_: None)
    if (out / MANIFEST).is_file():
        _require_same_kind(out, settings)
    plan = _plan(source, settings, folder, out, steps, shard)
    report("ingest", 1, 1, 0.0)

    work_steps = tuple(step for step in steps if step in ("render", "embed"))
    if work_steps and plan.chunks:
        with _watch(plan, work_steps[-1], report):
            if shard is not None:
                run_shard(str(folder), *shard, work_steps, threads)
            else:
                _run_all(plan, executor or InlineExecutor(), work_steps, threads)
    if "index" not in steps:
        done = sum(plan.is_done(chunk) for chunk in plan.chunks)
        return {
            "work": str(folder),
            "chunks": len(plan.chunks),
            "chunks_done": done,
            "unchanged": plan.unchanged,
            "seconds": round(time.perf_counter() - started, 3),
        }
    report("index", 0, 1, None)
    manifest, added, rejected = assemble(plan, out)
    report("index", 1, 1, 0.0)
    if not keep_work:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "index": str(out),
        "assets": manifest.rows,
        "added": added,
        "unchanged": plan.unchanged,
        "rejected": len(rejected),
        "reasons": dict(Counter(str(row.get("stage", "")) for row in rejected)),
        "content": manifest.content,
        "seconds": round(time.perf_counter() - started, 3),
    }


def settings_of_index(index: str | Path, settings: BuildSettings) -> BuildSettings:
    """``settings`` with what new vectors must share with those of an index: encoder, cameras, number format.

    Raises:
        RetrievalError: there is no index. IndexDamagedError: its manifest cannot be used.
    """
    spec = read_manifest(index).spec
    return replace(
        settings,
        encoder=spec.encoder.name,
        dtype=spec.dtype,
        views=ViewSpec.from_json(spec.cameras) if spec.views_per_asset else None,
    )


def _check_steps(steps: Sequence[str], shard: tuple[int, int] | None) -> tuple[str, ...]:
    unknown = [step for step in steps if step not in STEPS]
    if unknown or not steps:
        raise ConfigError("There is no such step of a build", received=list(steps), fix=f"Use some of {STEPS}.")
    if shard is not None and not 0 <= shard[0] < shard[1]:
        raise ConfigError(
            "The shard must be at least 0 and below the number of shards",
            received=shard,
            fix="With --num-shards 4 the shards are 0, 1, 2 and 3.",
        )
    return tuple(step for step in STEPS if step in steps and not (shard is not None and step == "index"))


def _require_same_kind(out: Path, settings: BuildSettings) -> None:
    """Find out before the work is done that it could not be added."""
    from threestudio_redream.retrieval.build.assemble import spec_of
    from threestudio_redream.retrieval.encoders import open_encoder

    read_manifest(out).spec.require_same(
        spec_of(open_encoder(settings.encoder, texts_only=True), settings), "this build"
    )


def _plan(
    source: SourceSpec,
    settings: BuildSettings,
    folder: Path,
    out: Path,
    steps: tuple[str, ...],
    shard: tuple[int, int] | None,
) -> Plan:
    """Make the plan, or take the one that another step or shard has made."""
    if "ingest" in steps and (shard is None or not (folder / "plan.json").is_file()):
        return ingest(source, settings, folder, out)
    plan = Plan.load(folder)
    if (plan.source, plan.settings) != (source, settings):
        raise ConfigError(
            "The work folder belongs to a build with other settings or another source",
            received=str(folder),
            fix="Use the same options for all steps and shards, or run the step `ingest` again.",
        )
    return plan


def _run_all(plan: Plan, executor: Executor, steps: tuple[str, ...], threads: int) -> None:
    """All shards; an asset on which workers keep dying is left out after two deaths."""
    (plan.folder / BLAME).unlink(missing_ok=True)
    _trying(plan)
    share = _SHARDS_PER_WORKER if executor.name != "slurm" else 1
    count = max(1, min(len(plan.chunks), executor.workers * share))
    jobs = [(str(plan.folder), index, count, steps, threads) for index in range(count)]
    for restart in range(_MAX_RESTARTS + 1):
        try:
            for _ in executor.run(run_shard, jobs):
                pass
        except WorkerDiedError:
            suspects = _trying(plan)
            if not suspects or restart == _MAX_RESTARTS:
                raise
            blame = Counter(load_blame(plan.folder))
            blame.update(suspects)
            atomic_write_text(plan.folder / BLAME, json.dumps(blame))
        else:
            return


def _trying(plan: Plan) -> list[str]:
    """Ids of the assets that dead workers were busy with; forgets them."""
    found = []
    for path in sorted((plan.folder / "chunks").glob("*.trying")):
        found.append(path.read_text("utf-8"))
        path.unlink()
    return found


@contextmanager
def _watch(plan: Plan, step: str, report: Progress) -> Any:
    """Report progress from what lies in the work folder, whoever puts it there."""
    folder, stop = plan.folder / "chunks", Event()
    started, total = time.monotonic(), len(plan.chunks)

    def count() -> int:
        if step == "embed":
            return sum(plan.is_done(chunk) for chunk in plan.chunks)
        names = {path.name.removesuffix(".renders") for path in folder.glob("*")}
        return sum(chunk.key in names for chunk in plan.chunks)

    first = count()

    def look() -> None:
        while not stop.wait(_POLL_S):
            done = count()
            rate = (done - first) / (time.monotonic() - started)
            report(step, done, total, (total - done) / rate if rate else None)

    report(step, first, total, None)
    watcher = Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
    report(step, count(), total, 0.0)
