"""kill -9 while the prior is adapted, while the field is distilled, and while its views are written: the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from threestudio_redream.runtime.checkpoint import read_checkpoint
from threestudio_redream.runtime.device import set_device
from threestudio_redream.runtime.launch import main

ROOT = Path(__file__).resolve().parents[2]
STEPS = 8
SMALL = [
    "use_timestamp=false",
    "tag=run",
    "data.eval_height=48",
    "data.eval_width=48",
    "data.n_val_views=2",
    "data.n_test_views=24",
    "system.references.views_per_asset=12",
    "system.adaptation.steps=40",
    "system.adaptation.batch_size=2",
    "system.adaptation.save_every=2",
    "system.adaptation.probe_every=0",
    "system.geometry.pos_encoding_config.n_levels=3",
    "system.geometry.pos_encoding_config.log2_hashmap_size=10",
    "system.renderer.num_samples_per_ray=16",
    "system.exporter.resolution=24",
    "system.exporter.texture_size=64",
    "system.exporter.target_faces=500",
    f"trainer.max_steps={STEPS}",
    "trainer.val_check_interval=8",
    "checkpoint.every_n_train_steps=2",
]
TRIAL = Path("outputs/redream/run")


@pytest.fixture(scope="module")
def whole(tiny_model, tmp_path_factory):
    """What a run leaves that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.chdir(folder)
    assert main(words(tiny_model)) == 0
    monkeypatch.undo()
    set_device(None)
    return result(folder)


def words(model, *more):
    names = [f"system.{part}.pretrained_model_name_or_path={model}" for part in ("guidance", "prompt_processor")]
    return ["--config", str(ROOT / "custom_configs" / "redream.yaml"), "--gpu", "cpu", *SMALL, *names, *more]


def result(folder):
    """Parameters of the last step, and the bytes of the views and of the mesh."""
    trial = folder / TRIAL
    state = read_checkpoint(next((trial / "ckpts").glob(f"*step={STEPS}.safetensors")))["state_dict"]
    names = [f"it{STEPS}-test/{index}.png" for index in range(24)] + [f"it{STEPS}-export/model.glb"]
    return state, {name: (trial / "save" / name).read_bytes() for name in names}


def adapting(folder):
    return list((folder / ".redream_cache" / "adaptation").glob("*/adaptation-state.safetensors"))


def distilling(folder):
    return list((folder / TRIAL / "ckpts").glob("*step=2*.safetensors"))


def rendering(folder):
    return len(list((folder / TRIAL / "save" / f"it{STEPS}-test").glob("*.png"))) >= 2


@pytest.mark.parametrize("stage", [adapting, distilling, rendering])
def test_a_killed_run_ends_with_the_same_bits(tiny_model, whole, tmp_path, monkeypatch, stage):
    command = [sys.executable, str(ROOT / "launch.py"), *words(tiny_model)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while not stage(tmp_path):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = (tmp_path / TRIAL / "save" / f"it{STEPS}-export" / "model.glb").exists()
    assert not finished
    monkeypatch.chdir(tmp_path)
    assert main(words(tiny_model, "resume=last")) == 0
    set_device(None)
    state, files = result(tmp_path)
    assert state.keys() == whole[0].keys()
    assert all(torch.equal(value, whole[0][key]) for key, value in state.items())
    assert files == whole[1]
    assert not list((tmp_path / TRIAL).rglob(".*")), "half-written files were left behind"
