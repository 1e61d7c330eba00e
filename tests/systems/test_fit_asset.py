import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from threestudio_redream.assets import load_asset
from threestudio_redream.data.asset_views import AssetViewsDataModule
from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.checkpoint import newest_checkpoint, read_checkpoint
from threestudio_redream.runtime.device import set_device
from threestudio_redream.runtime.launch import main
from threestudio_redream.systems.fit_asset import psnr, silhouette_iou

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "custom_configs" / "fit-asset.yaml")
SMALL = [
    "use_timestamp=false",
    "tag=small",
    "data.n_train_views=24",
    "data.train_resolution=64",
    "data.val_resolution=48",
    "data.n_val_views=4",
    "data.n_test_views=4",
    "data.eval_height=40",
    "data.eval_width=40",
    "data.views_per_batch=8",
    "data.rays_per_view=64",
    "system.geometry.pos_encoding_config.n_levels=6",
    "system.geometry.pos_encoding_config.log2_hashmap_size=13",
    "system.renderer.num_samples_per_ray=64",
    "system.exporter.resolution=48",
    "system.exporter.texture_size=256",
    "trainer.max_steps=60",
    "trainer.val_check_interval=25",
    "checkpoint.every_n_train_steps=20",
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    set_device(None)


def _launch(*arguments):
    return main(["--config", CONFIG, "--gpu", "cpu", *SMALL, *arguments])


def test_a_short_fit_leaves_every_artefact(here):
    assert _launch("system.exporter.fmt='glb,obj-mtl'") == 0
    trial = here / "outputs/fit-asset/small"
    metrics = json.loads((trial / "save/metrics.json").read_text())
    assert metrics["n_views"] == 4
    assert metrics["field"]["psnr"] > 17.0
    assert metrics["field"]["iou"] > 0.85
    assert metrics["mesh"]["iou"] > 0.7
    assert (trial / "save/it60-test.mp4").is_file()
    assert len(list((trial / "save/it60-test").glob("*.png"))) == 4
    export = trial / "save/it60-export"
    assert {p.suffix for p in export.iterdir()} == {".glb", ".obj", ".mtl", ".png", ".json"}
    for name in ("model.glb", "model.obj"):
        asset = load_asset(export / name)
        assert asset.materials[0].texture.shape == (256, 256, 4)
    state = read_checkpoint(newest_checkpoint(trial / "ckpts"))["state_dict"]
    assert "renderer.estimator.occs" in state
    assert "renderer.bbox" in state


def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(here):
    # the shipped decay depends on max_steps, which differs here
    quick = ["system.export_after_training=false", "trainer.limit_test_batches=1", "system.scheduler.args.gamma=0.97"]
    assert _launch("tag=whole", "trainer.max_steps=30", *quick) == 0
    assert _launch("tag=parts", "trainer.max_steps=17", *quick) == 0
    torch.manual_seed(12345)
    parsed = "outputs/fit-asset/parts/configs/parsed.yaml"
    assert main(["--config", parsed, "--gpu", "cpu", "resume=last", "trainer.max_steps=30", *quick]) == 0
    whole, parts = (read_checkpoint(newest_checkpoint(f"outputs/fit-asset/{tag}/ckpts")) for tag in ("whole", "parts"))
    assert whole["state_dict"].keys() == parts["state_dict"].keys()
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, parts["state_dict"][key]), key
    for first, second in zip(whole["optimizer_states"], parts["optimizer_states"]):
        for index, moments in first["state"].items():
            for key, value in moments.items():
                assert torch.equal(value, second["state"][index][key]), (index, key)


def test_kill_at_a_random_step_loses_one_interval_at_most(here):
    interval = 5
    command = [sys.executable, str(ROOT / "launch.py"), "--config", CONFIG, "--gpu", "cpu", *SMALL]
    command += [
        "tag=killed",
        "trainer.max_steps=100000",
        f"checkpoint.every_n_train_steps={interval}",
        "trainer.log_every_n_steps=1",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=here, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ckpts = here / "outputs/fit-asset/killed/ckpts"
    deadline = time.monotonic() + 120
    while not list(ckpts.glob("epoch*.safetensors")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(random.Random().uniform(0.1, 1.0))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    saved = newest_checkpoint(ckpts)
    step = read_checkpoint(saved)["global_step"]
    steps_on_disk = [
        int(p.stem.split("step=")[1]) for p in ckpts.glob("epoch*.safetensors") if not p.name.startswith(".")
    ]
    assert max(steps_on_disk) - step < interval  # nothing finished was broken
    assert step % interval == 0
    assert step > 0
    parsed = "outputs/fit-asset/killed/configs/parsed.yaml"
    more = [f"trainer.max_steps={step + 3}", "system.export_after_training=false", "trainer.limit_test_batches=1"]
    assert main(["--config", parsed, "--gpu", "cpu", "resume=last", *more]) == 0
    assert read_checkpoint(newest_checkpoint(ckpts))["global_step"] == step + 3
    assert not list(ckpts.glob(".*"))


def test_training_rays_hit_what_the_views_show():
    module = AssetViewsDataModule(
        {
            "n_train_views": 6,
            "train_resolution": 32,
            "views_per_batch": 3,
            "rays_per_view": 16,
            "n_val_views": 2,
            "val_resolution": 16,
            "n_test_views": 2,
            "eval_height": 8,
            "eval_width": 8,
        }
    )
    module.setup()
    views = module.train_dataset.views
    batch = module.train_dataset.collate([{"step": 3}])
    assert batch["rays_o"].shape == batch["rays_d"].shape == batch["rgb"].shape == (3, 4, 4, 3)
    assert batch["mask"].shape == (3, 4, 4, 1)
    # project a point of each ray back: it must land on the centre of the pixel whose colour is given
    points = (batch["rays_o"] + 1.3 * batch["rays_d"]).reshape(3, 16, 3)
    for i in range(3):
        view = int(np.flatnonzero(np.isclose(views.c2w, batch["c2w"][i].numpy()).all((1, 2)))[0])
        local = (points[i].numpy() - views.c2w[view, :3, 3]) @ views.c2w[view, :3, :3]
        focal = 16 / np.tan(np.deg2rad(20.0))
        columns, rows = local[:, 0] / -local[:, 2] * focal + 16, -local[:, 1] / -local[:, 2] * focal + 16
        np.testing.assert_allclose(columns % 1, 0.5, atol=1e-3)
        colours = views.rgba[view, rows.astype(int), columns.astype(int)] / 255.0
        np.testing.assert_allclose(batch["rgb"][i].reshape(-1, 3), colours[:, :3], atol=1e-6)
        np.testing.assert_allclose(batch["mask"][i].reshape(-1), colours[:, 3], atol=1e-6)
    items = list(module.test_dataloader())
    assert [bool(item["held_out"]) for item in items] == [False, False, True, True]
    assert items[0]["rgb"].shape == (1, 8, 8, 3)
    assert items[2]["rgb"].shape == (1, 16, 16, 3)


def test_bad_data_settings_are_named():
    with pytest.raises(ConfigError, match="square number"):
        AssetViewsDataModule({"rays_per_view": 5})
    with pytest.raises(ConfigError, match="near_object_fraction"):
        AssetViewsDataModule({"near_object_fraction": 2.0})


def test_missing_file_and_missing_weight_are_named(here, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert _launch("system.asset.path=absent.glb") == 2
    assert "absent.glb" in capsys.readouterr().err
    assert _launch("system.loss={lambda_mask: null}") == 2
    assert "lambda_mask" in capsys.readouterr().err


def test_scores():
    image = torch.zeros(1, 2, 2, 3)
    assert psnr(image, image + 0.1) == pytest.approx(20.0, abs=1e-4)
    assert psnr(image, image) >= 120.0
    mask = torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert silhouette_iou(mask, torch.tensor([1.0, 0.0, 0.0, 0.0])) == pytest.approx(0.5)
    assert silhouette_iou(mask * 0, mask * 0) == 1.0
