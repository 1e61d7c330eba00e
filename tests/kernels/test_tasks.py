"""Tasks on the kernel threads: all done, errors raised, threads and forks safe."""

from __future__ import annotations

import os
import threading
import time

import pytest

from threestudio_redream.kernels import jit, tasks
from threestudio_redream.kernels.tasks import run_tasks


@pytest.fixture(autouse=True)
def _default_threads():
    yield
    jit.set_threads(None)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 2, 37])
def test_each_task_runs_once(threads, count):
    jit.set_threads(threads)
    done: list[int] = []
    run_tasks(done.append, count)
    assert sorted(done) == list(range(count))


def test_two_threads_work_at_the_same_time():
    jit.set_threads(2)
    meeting = threading.Barrier(2, timeout=20)
    run_tasks(lambda number: meeting.wait(), 2)


@pytest.mark.parametrize("threads", [1, 2])
def test_first_error_is_raised_and_nothing_new_begins(threads):
    jit.set_threads(threads)
    begun: list[int] = []

    def fail(number: int) -> None:
        begun.append(number)
        time.sleep(0.01)
        raise ValueError(f"task {number}")

    with pytest.raises(ValueError, match="task"):
        run_tasks(fail, 100)
    assert len(begun) <= threads


def test_error_of_a_helper_is_raised():
    jit.set_threads(2)
    caller = threading.current_thread()
    meeting = threading.Barrier(2, timeout=20)

    def fail_elsewhere(number: int) -> None:
        meeting.wait()
        if threading.current_thread() is not caller:
            raise ValueError("helper")

    with pytest.raises(ValueError, match="helper"):
        run_tasks(fail_elsewhere, 2)


def test_tasks_may_start_tasks():
    jit.set_threads(2)
    done: list[int] = []
    run_tasks(lambda outer: run_tasks(lambda inner: done.append(10 * outer + inner), 3), 3)
    assert sorted(done) == [0, 1, 2, 10, 11, 12, 20, 21, 22]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_child_starts_its_own_threads():
    jit.set_threads(2)
    run_tasks(lambda number: None, 2)
    assert tasks._pool is not None
    child = os.fork()
    if child == 0:
        try:
            meeting = threading.Barrier(2, timeout=20)
            run_tasks(lambda number: meeting.wait(), 2)
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
