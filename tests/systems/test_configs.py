"""Every shipped configuration runs: two steps, then test, on a CPU. No exceptions list."""

from pathlib import Path

import pytest

from threestudio_redream.runtime.checkpoint import newest_checkpoint
from threestudio_redream.runtime.device import set_device
from threestudio_redream.runtime.launch import main

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "custom_configs").rglob("*.yaml"))
QUICK = [
    "use_timestamp=false",
    "tag=smoke",
    "trainer.max_steps=2",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=2",
    "trainer.limit_predict_batches=0",  # two steps leave nothing to export
]


def test_there_are_configurations():
    assert CONFIGS


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: str(path.relative_to(ROOT / "custom_configs")))
def test_configuration_runs(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = []
    if "system_type: redream-system" in config.read_text("utf-8"):
        short = ["system.adaptation.steps=2", "system.adaptation.probe_every=0", "system.references.views_per_asset=8"]
    try:
        assert main(["--config", str(config), "--gpu", "cpu", *QUICK, *short, f"exp_root_dir={tmp_path}"]) == 0
    finally:
        set_device(None)
    trial = next(path.parent for path in tmp_path.rglob("ckpts"))
    assert newest_checkpoint(trial / "ckpts").stem.endswith("step=2")
    assert (trial / "configs" / "parsed.yaml").is_file()
