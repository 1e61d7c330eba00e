"""torchvision that is absent, works, works after the shim's help, or is beyond it."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from threestudio_redream.runtime import torchvision_shim
from threestudio_redream.runtime.torchvision_shim import _Finder, ensure_torchvision, guard_torchvision

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Puts a torchvision of the given source first on the path; the real one, if any, comes back afterwards."""
    monkeypatch.setattr(torchvision_shim, "_library", None)
    monkeypatch.syspath_prepend(str(tmp_path))
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "torchvision"}

    def write(source: str) -> None:
        folder = tmp_path / "torchvision"
        folder.mkdir()
        (folder / "__init__.py").write_text(source, encoding="utf-8")

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    sys.modules.update(kept)


def test_one_guard_is_enough_and_importing_the_package_sets_it() -> None:
    assert sum(isinstance(finder, _Finder) for finder in sys.meta_path) == 1
    guard_torchvision()
    assert sum(isinstance(finder, _Finder) for finder in sys.meta_path) == 1


def test_a_module_that_was_imported_anew_adds_no_second_finder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    spec = importlib.util.spec_from_file_location(torchvision_shim.__name__, torchvision_shim.__file__)
    assert spec is not None
    assert spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    again.guard_torchvision()
    assert not any(isinstance(finder, again._Finder) for finder in sys.meta_path)
    sys.meta_path.insert(0, again._Finder())  # even then they do not ask each other for ever
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    assert importlib.util.find_spec("torchvision") is None


def test_absent(stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    assert ensure_torchvision() == "absent"
    assert "torchvision" not in sys.modules


def test_one_that_works_is_left_alone(stand_in: Callable[[str], None]) -> None:
    stand_in("loader = type(__spec__.loader).__name__")
    assert importlib.util.find_spec("torchvision") is not None
    assert "torchvision" not in sys.modules
    assert ensure_torchvision() == "native"
    assert ensure_torchvision() == "native"
    assert sys.modules["torchvision"].loader == "SourceFileLoader"  # as without a guard
    assert torchvision_shim._library is None


@pytest.mark.parametrize("failure", ["OSError('libcudart.so')", "RuntimeError('compiled for another CUDA')"])
def test_one_that_is_broken_otherwise_is_reported(
    stand_in: Callable[[str], None], caplog: pytest.LogCaptureFixture, failure: str
) -> None:
    stand_in(f"raise {failure}")
    with caplog.at_level(logging.WARNING):
        assert ensure_torchvision() == "broken"
    assert failure.partition("(")[0] in caplog.text
    assert "pip uninstall torchvision" in caplog.text
    assert "torchvision" not in sys.modules
    assert torchvision_shim._library is None


# What the real one does: a submodule describes operators that its compiled half has not registered.
_MISFIT = """
import torch, torchvision.extension
calls = globals().get("calls", 0) + 1

@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold):
    return dets.new_empty((0,))

@torch.library.register_fake("torchvision::qnms")
def qnms(dets, scores, iou_threshold):
    return dets.new_empty((0,))
"""
_CHECK = """
import sys
import threestudio_redream
assert "torch" not in sys.modules, "the guard loads nothing"
import torchvision  # as transformers would
assert torchvision.calls == 2
assert not [name for name in sys.modules if name.startswith("torchvision.") and name != "torchvision.extension"]
from threestudio_redream.runtime.torchvision_shim import ensure_torchvision
assert [ensure_torchvision(), ensure_torchvision()] == ["patched", "patched"]
import torch
schema = str(torch.ops.torchvision.qnms.default._schema)
assert schema == "torchvision::qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor", schema
try:
    torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
except NotImplementedError:
    pass
else:
    raise AssertionError("an operator without a compiled half gave a result")
del sys.modules["torchvision"]  # a second failure is not helped: nothing is declared twice
open(sys.argv[1], "a").write("raise RuntimeError('operator torchvision::roi_pool does not exist')")
assert ensure_torchvision() == "broken"
"""


def test_one_whose_compiled_half_does_not_fit_is_helped_once(tmp_path: Path) -> None:
    folder = tmp_path / "torchvision"
    folder.mkdir()
    (folder / "__init__.py").write_text(_MISFIT, encoding="utf-8")
    (folder / "extension.py").write_text("", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-B", "-c", _CHECK, str(folder / "__init__.py")],
        env={"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
