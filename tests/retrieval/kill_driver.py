"""Kills writers at every kind of moment and looks at what is left. Run by ``test_index_kills.py`` as a script.

    python kill_driver.py FOLDER TRIALS SEED

A trial copies an index, forks, and has the child write to the copy: SIGKILL strikes before the n-th change of the
file system (an audit hook counts them), or at a random time. Another child then opens what is left, does the job
again, and compares. Children are forked from a process that has imported everything, so a trial takes milliseconds.
Prints one JSON list of trials: ``{"action", "moment", "killed", "left": "before"|"after", "problem": null|text}``.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from toy_index import ToyEncoder, stage_toys, toy_records, toy_spec, write_toy_index

from threestudio_redream.retrieval.index import calibration  # noqa: F401  imported before the forks
from threestudio_redream.retrieval.index.journal import STAGING
from threestudio_redream.retrieval.index.manifest import MANIFEST, read_manifest
from threestudio_redream.retrieval.index.reader import Index
from threestudio_redream.retrieval.index.spec import Calibration
from threestudio_redream.retrieval.index.verify import verify_index
from threestudio_redream.retrieval.index.writer import IndexWriter

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree", "shutil.copyfile"}


def build(folder: Path) -> None:
    """A resumable build of three shards: what is staged is not staged again."""
    writer = IndexWriter(folder, toy_spec())
    for shard in range(3):
        if f"shard-{shard}" not in writer.staged() and not (folder / MANIFEST).exists():
            stage_toys(writer, toy_records(4, 4 * shard), f"shard-{shard}")
    writer.commit()


def add(folder: Path) -> None:
    """New rows, some of them in place of old ones."""
    writer = IndexWriter(folder)
    stage_toys(writer, [*changed(toy_records(3, 6)), *toy_records(4, 12)], "more")
    writer.commit("replace")


def changed(records: list[Any]) -> list[Any]:
    from dataclasses import replace

    return [replace(record, caption="a changed cup") for record in records]


def merge(folder: Path) -> None:
    IndexWriter(folder).merge(folder.parent / "other")


def remove(folder: Path) -> None:
    present = {record.asset_id for record in Index.open(folder).records()}
    IndexWriter(folder).remove({"toy-00001", "toy-00009"} & present)


def calibrate(folder: Path) -> None:
    IndexWriter(folder).set_calibration(Calibration(0.25, 0.5, 1.0, 3, 4, "by hand"))


ACTIONS: dict[str, Callable[[Path], None]] = {f.__name__: f for f in (build, add, merge, remove, calibrate)}


def in_child(job: Callable[[], None]) -> tuple[int, str]:
    """Run a job in a forked child; returns its wait status and what it had to say."""
    receiver, sender = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(receiver)
        try:
            job()
            os._exit(0)
        except BaseException:
            os.write(sender, traceback.format_exc().encode()[-4000:])
            os._exit(1)
    os.close(sender)
    with os.fdopen(receiver, "rb") as pipe:
        said = pipe.read()
    return os.waitpid(pid, 0)[1], said.decode(errors="replace")


def watch_changes(folder: Path, moment: int = -1) -> Callable[[], int]:
    """Count the changes below a folder from now on, and die before number ``moment``; returns the counter."""
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in CHANGES) and str(folder) in str(arguments[0]):
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

    sys.addaudithook(hook)
    return lambda: count


def count_changes(action: str, folder: Path) -> int:
    """Do an action; returns how many changes it made."""

    def job() -> None:
        counter = watch_changes(folder)
        ACTIONS[action](folder)
        raise SystemExit(counter())

    _, said = in_child(job)
    return int(said.strip().rsplit(" ", 1)[-1])


def state(folder: Path) -> str:
    if not (folder / MANIFEST).exists():
        return "nothing"
    manifest = read_manifest(folder)
    return f"{manifest.content} {manifest.n_rejected} {manifest.calibration}"


def trial(root: Path, action: str, moment: int | float, states: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """``moment``: the number of a change, or seconds after the start."""
    folder = root / "trial"
    shutil.rmtree(folder, ignore_errors=True)
    if action != "build":
        shutil.copytree(root / "base", folder)

    def writer() -> None:
        if isinstance(moment, float):
            threading.Thread(target=lambda: (time.sleep(moment), os.kill(os.getpid(), signal.SIGKILL))).start()
        else:
            watch_changes(folder, moment)
        ACTIONS[action](folder)

    status, said = in_child(writer)
    result: dict[str, Any] = {"action": action, "moment": moment, "killed": os.WIFSIGNALED(status), "problem": None}
    if said:
        return {**result, "problem": said}
    before, after = states[action]
    left = state(folder)
    result["left"] = "before" if left == before else "after" if left == after else left

    def reader() -> None:
        if left != "nothing":
            Index.open(folder, ToyEncoder(), check="full").search("a red robot")
            problems = verify_index(folder, ToyEncoder())
            if problems:
                raise problems[0]
        ACTIONS[action](folder)
        if state(folder) != after:
            raise ValueError(f"resumed to {state(folder)} instead of {after}")
        problems = verify_index(folder, ToyEncoder())
        if problems or (folder / STAGING).exists():
            raise ValueError(f"{problems}, {list(folder.rglob('*'))}")

    _, said = in_child(reader)
    return {**result, "problem": said or None}


def main(root: Path, trials: int, seed: int) -> None:
    write_toy_index(root / "base", 12, parts=2)
    writer = IndexWriter(root / "other", toy_spec())
    stage_toys(writer, toy_records(8, 8))
    writer.commit()
    states, moments = {}, []
    for action in ACTIONS:
        folder = root / f"clean-{action}"
        if action != "build":
            shutil.copytree(root / "base", folder)
        before = state(folder)
        moments += [(action, moment) for moment in range(count_changes(action, folder))]
        states[action] = before, state(folder)
    choice = random.Random(seed)
    chosen: list[tuple[str, int | float]] = list(moments)
    if trials < len(moments):
        chosen = choice.sample(moments, trials - trials // 5)
        chosen += [(choice.choice(list(ACTIONS)), choice.uniform(0.0, 0.03)) for _ in range(trials // 5)]
    results = [trial(root, action, moment, states) for action, moment in chosen]
    sys.stdout.write(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
