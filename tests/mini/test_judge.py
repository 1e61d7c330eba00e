"""The judge: what it gives, what it refuses, and folders that are damaged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from threestudio_redream.errors import ConfigError
from threestudio_redream.mini.judge import Judge

KINDS, DESCRIPTORS, FRONTED = ["cat", "mug", "vase"], ["red", "wooden"], [True, True, False]
WIDTHS = (8, 16, 8, 24)


@pytest.fixture
def judge() -> Judge:
    torch.manual_seed(1)
    return Judge(KINDS, DESCRIPTORS, FRONTED, WIDTHS).eval()


def test_a_verdict_holds_probabilities(judge: Judge) -> None:
    images = torch.rand(5, 64, 64, 3)
    verdict = judge.judge(images)
    assert [tuple(table.shape) for table in (verdict.kind, verdict.descriptor, verdict.view)] == [
        (5, 4),
        (5, 2),
        (5, 4),
    ]
    for table in (verdict.kind, verdict.descriptor, verdict.view):
        torch.testing.assert_close(table.sum(1), torch.ones(5))
        assert not table.requires_grad
    kind, descriptor, view = judge(images.permute(0, 3, 1, 2))
    torch.testing.assert_close(verdict.kind, kind.softmax(1))
    torch.testing.assert_close(verdict.descriptor, descriptor.softmax(1))
    torch.testing.assert_close(verdict.view, view.softmax(1))
    assert kind.requires_grad  # so that it can be trained


def test_pictures_of_any_size_are_brought_to_64_px_by_area(judge: Judge) -> None:
    images = torch.rand(2, 64, 64, 3)
    expected = judge.judge(images).kind
    larger = images.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    torch.testing.assert_close(judge.judge(larger).kind, expected, atol=1e-5, rtol=1e-4)
    small, wide = judge.judge(torch.rand(1, 16, 16, 3)), judge.judge(torch.rand(1, 32, 96, 3))
    assert small.kind.shape == wide.kind.shape == (1, 4)


def test_values_out_of_range_are_clamped_and_half_precision_is_accepted(judge: Judge) -> None:
    images = torch.rand(2, 64, 64, 3) * 3.0 - 1.0
    torch.testing.assert_close(judge.judge(images).kind, judge.judge(images.clamp(0.0, 1.0)).kind)
    assert judge.judge(images.half()).kind.dtype == torch.float32


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (64, 64, 3), (1, 64, 64, 4)])
def test_other_shapes_are_refused(judge: Judge, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        judge.judge(torch.rand(shape))
    assert caught.value.problem == "The judge wants [B, H, W, 3]"
    assert caught.value.received == shape
    assert caught.value.fix == "Put channels last."


def test_a_saved_judge_comes_back_in_eval_mode(judge: Judge, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "judge"
    judge.train().save(folder)
    loaded = Judge.load(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["judge.json", "judge.safetensors"]
    assert (loaded.kinds, loaded.descriptors, loaded.fronted) == (tuple(KINDS), tuple(DESCRIPTORS), tuple(FRONTED))
    assert loaded.widths == WIDTHS
    assert not loaded.training
    images = torch.rand(2, 64, 64, 3)
    torch.testing.assert_close(loaded.judge(images).kind, judge.eval().judge(images).kind)


def _about(**change: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        about = json.loads((folder / "judge.json").read_text("utf-8"))
        (folder / "judge.json").write_text(json.dumps({**about, **change}), encoding="utf-8")

    return spoil


def _replace(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def _drop_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "judge.safetensors")
    del tensors["to_view.bias"]
    save_file(tensors, folder / "judge.safetensors")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "judge.json").unlink(), "No such file"),
        (lambda folder: (folder / "judge.safetensors").unlink(), "judge.safetensors"),
        (_replace("judge.json", b"{"), "cannot be loaded"),
        (_replace("judge.json", b"\xff\xfe"), "decode"),
        (_replace("judge.json", b"[1, 2]"), "cannot be loaded"),
        (_replace("judge.json", b"{}"), "kinds"),
        (_about(kinds=None), "cannot be loaded"),
        (_about(kinds=["x"] * 10_001), "too large"),
        (_about(widths=[8, 16, 8, 100_000]), "too large"),
        (_about(widths=[8, 16]), "too large"),
        (_about(widths=["8", "16", "8", "24"]), "cannot be loaded"),
        (_about(widths=[-8, 16, 8, 24]), "cannot be loaded"),
        (_about(kinds=["cat", "mug"]), "size mismatch"),
        (_drop_a_tensor, "to_view.bias"),
        (_replace("judge.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}"), "cannot be loaded"),
        (_replace("judge.safetensors", b""), "cannot be loaded"),
    ],
)
def test_a_damaged_folder_is_named_with_the_way_out(
    judge: Judge, tmp_path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    judge.save(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ConfigError) as caught:
        Judge.load(tmp_path)
    assert caught.value.problem.startswith("The judge cannot be loaded: ")
    assert words in caught.value.problem
    assert caught.value.received == str(tmp_path)
    assert caught.value.fix == "Restore the folder, or train it again: python -m tools.mini.train_judge."


def test_importing_the_package_of_the_models_loads_none_of_them() -> None:
    code = (
        "import sys, threestudio_redream.mini as mini\n"
        "assert {mini.DIFFUSION.parent, mini.CLIP.parent, mini.JUDGE.parent} == {mini.JUDGE.parent}\n"
        "sys.exit(', '.join({'torch', 'diffusers', 'transformers', 'safetensors'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
