"""``kill -9`` at random moments of build, add, merge, remove and calibrate; and readers beside a busy writer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

from toy_index import ToyEncoder, stage_toys, toy_records, write_toy_index

from threestudio_redream.retrieval.index.reader import Index
from threestudio_redream.retrieval.index.writer import IndexWriter

ROOT = Path(__file__).resolve().parents[2]


def test_fifty_kills(tmp_path: Path) -> None:
    """After each: the index opens, is the one before or the one after, and the same command completes it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    driver = Path(__file__).with_name("kill_driver.py")
    done = subprocess.run(
        [sys.executable, str(driver), str(tmp_path), "50", "0"], capture_output=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    trials = json.loads(done.stdout)
    assert len(trials) == 50
    assert [trial for trial in trials if trial["problem"] or trial["left"] not in ("before", "after")] == []
    assert sum(trial["killed"] for trial in trials) >= 40  # the rest were done before their time was up
    assert set(Counter(trial["left"] for trial in trials)) == {"before", "after"}
    assert {trial["action"] for trial in trials} == {"build", "add", "merge", "remove", "calibrate"}


def test_readers_beside_a_writer_see_whole_generations(tmp_path: Path) -> None:
    write_toy_index(tmp_path, 12)
    allowed = {12, 16}
    seen: set[int] = set()
    failures: list[Exception] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                index = Index.open(tmp_path, ToyEncoder())
                ids = [record.asset_id for record in index.records()]
                assert len(set(ids)) == len(ids)
                assert len(index.search("a red robot", 20).results) == len(ids)
                seen.add(len(ids))
        except Exception as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    more = toy_records(4, 12)
    for _ in range(15):
        writer = IndexWriter(tmp_path)
        stage_toys(writer, more)
        writer.commit()
        writer.remove([record.asset_id for record in more])
    stop.set()
    reader.join()
    assert failures == []
    assert seen <= allowed
