"""The numba door: lazy, cached, safe under threads and fork."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest

from threestudio_redream.errors import ConfigError, RedreamError
from threestudio_redream.kernels import jit
from threestudio_redream.kernels.jit import LazyKernel, njit, prange

ROOT = Path(__file__).parents[2]


@njit
def add_one(value):
    return value + 1


@njit(parallel=True)
def add_one_to_all(values, out):
    for i in prange(values.shape[0]):
        out[i] = add_one(values[i])


def run_python(tmp_path: Path, code: str, **environment: str) -> str:
    """Run a script (numba needs its kernels in a file) and return what it printed."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(code))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path / "cache"), **environment}
    done = subprocess.run(
        [sys.executable, str(script)], check=False, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def _default_threads():
    yield
    jit.set_threads(None)


def test_kernel_equals_python_function():
    values, out, plain = np.arange(1000.0), np.zeros(1000), np.zeros(1000)
    add_one_to_all(values, out)
    add_one_to_all.py_func(values, plain)
    np.testing.assert_array_equal(out, values + 1)
    np.testing.assert_array_equal(plain, out)


def test_decorator_keeps_name_and_doc_and_compiles_nothing():
    def documented(x):
        """Twice."""
        return 2 * x

    kernel = njit(documented)
    assert (kernel.__name__, kernel.__doc__, kernel._dispatcher) == ("documented", "Twice.", None)
    assert kernel.py_func is documented


def test_helper_of_another_file_is_refused(monkeypatch):
    foreign = LazyKernel(jit.prange)  # any function of another file
    monkeypatch.setitem(add_one_to_all.py_func.__globals__, "add_one", foreign)
    with pytest.raises(RedreamError) as caught:
        LazyKernel(add_one_to_all.py_func)(np.zeros(1), np.zeros(1))
    assert "cache cannot watch" in caught.value.problem
    assert caught.value.received == jit.__file__
    assert "Move the helper" in caught.value.fix


def test_compiles_without_cache_where_no_folder_is_writable(monkeypatch):
    asked = []

    def fake_njit(*, cache=False, **options):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(jit, "_numba", types.SimpleNamespace(njit=fake_njit, prange=range))
    assert LazyKernel(add_one.py_func)(1) == 2
    assert asked == [True, False]


@pytest.mark.parametrize(
    ("value", "expected"), [("torch", False), ("numba", True), ("auto", True), (" AUTO ", True), ("", True)]
)
def test_environment_chooses_kernels(monkeypatch, value, expected):
    monkeypatch.setenv("REDREAM_KERNELS", value)
    assert jit.use_numba("cpu") is expected
    assert jit.use_numba("cuda") is False


def test_unknown_choice_is_an_error(monkeypatch):
    monkeypatch.setenv("REDREAM_KERNELS", "fast")
    with pytest.raises(ConfigError) as caught:
        jit.use_numba()
    assert "REDREAM_KERNELS" in caught.value.problem
    assert caught.value.received == "fast"
    assert "auto, numba or torch" in caught.value.fix


def test_without_numba(monkeypatch):
    monkeypatch.setattr(jit, "_numba", None)
    monkeypatch.setattr(jit, "_import_failure", None)
    monkeypatch.setitem(sys.modules, "numba", None)
    assert not jit.numba_available()
    assert not jit.use_numba()
    monkeypatch.setenv("REDREAM_KERNELS", "numba")
    for call in (jit.use_numba, lambda: LazyKernel(add_one.py_func)(1), jit.get_threads):
        with pytest.raises(RedreamError) as caught:
            call()
        assert "numba" in caught.value.problem
        assert "ModuleNotFoundError" in caught.value.received
        assert "pip install" in caught.value.fix


def test_threads_follow_setter_then_environment(monkeypatch):
    most = jit._require_numba().config.NUMBA_NUM_THREADS
    monkeypatch.setenv("NUMBA_NUM_THREADS", str(most))
    assert jit.get_threads() == most
    jit.set_threads(1)
    assert jit.get_threads() == 1
    jit.set_threads(None)
    monkeypatch.delenv("NUMBA_NUM_THREADS")
    monkeypatch.setenv("OMP_NUM_THREADS", "1,4")
    assert jit.get_threads() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert jit.get_threads() == most


@pytest.mark.parametrize("count", [0, -1, 10**6])
def test_impossible_thread_counts(count):
    with pytest.raises(ConfigError) as caught:
        jit.set_threads(count)
    assert "threads" in caught.value.problem
    assert caught.value.received == count
    assert "NUMBA_NUM_THREADS" in caught.value.fix


KERNEL = """
    import sys
    import numpy as np
    from threestudio_redream.kernels import jit
    from threestudio_redream.kernels.jit import njit, prange
    assert "numba" not in sys.modules and "torch" not in sys.modules

    @njit(parallel=True)
    def double(values, out):
        for i in prange(values.shape[0]):
            out[i] = 2 * values[i]

    values = np.arange(50_000.0)

    def check():
        out = np.zeros_like(values)
        double(values, out)
        assert (out == 2 * values).all()

    check()
"""


def test_kernel_survives_threads_and_forks_and_is_cached(tmp_path):
    # 20 children forked while two threads keep launching: OpenMP would kill the children, an
    # unguarded work queue would abort the parent
    code = (
        KERNEL
        + """
    import numba, os, threading
    assert numba.threading_layer() == "workqueue"
    threads = [threading.Thread(target=lambda: [check() for _ in range(500)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        child = os.fork()
        if child == 0:
            check()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    for thread in threads:
        thread.join()
    print(sum(double.dispatcher.stats.cache_hits.values()))
    """
    )
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    assert run_python(tmp_path, code) == "0\n"
    assert run_python(tmp_path, code) == "1\n"


def test_chosen_threading_layer_is_kept(tmp_path):
    code = """
    from threestudio_redream.kernels import jit
    assert jit.numba_available()
    import numba
    print(numba.config.THREADING_LAYER, jit.get_threads())
    """
    assert run_python(tmp_path, code, NUMBA_THREADING_LAYER="omp", NUMBA_NUM_THREADS="1") == "omp 1\n"
