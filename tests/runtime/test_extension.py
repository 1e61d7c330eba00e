"""A third-party extension, written from the contract alone, on our runtime."""

import csv
import importlib
import shutil
import sys
from pathlib import Path

import pytest

from threestudio_redream.runtime import registry, stand_in
from threestudio_redream.runtime.checkpoint import newest_checkpoint, read_checkpoint
from threestudio_redream.runtime.device import set_device
from threestudio_redream.runtime.host import upstream
from threestudio_redream.runtime.launch import main

SOURCE = Path(__file__).parent / "extensions" / "threestudio-balloon"
NAMES = ("balloon-geometry", "colour-guidance", "blow-system")


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.delenv("THREESTUDIO_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SOURCE, tmp_path / "custom" / SOURCE.name)
    yield tmp_path
    set_device(None)
    for name in NAMES:
        registry._classes.pop(name, None)
    for name in [n for n in sys.modules if n.startswith("threestudio-balloon")]:
        del sys.modules[name]
    stand_in.uninstall()


def test_extension_trains_validates_tests_resumes_and_exports(workspace):
    config = "custom/threestudio-balloon/configs/balloon.yaml"
    assert main(["--config", config, "--gpu", "0", "--train"]) == 0
    trial = Path("outputs/balloon/red_balloon")
    with open(trial / "csv_logs/version_0/metrics.csv") as file:
        losses = [float(row["train/loss_colour"]) for row in csv.DictReader(file) if row["train/loss_colour"]]
    assert losses[-1] < 0.5 * losses[0]
    assert (trial / "save/it20-test.mp4").is_file()
    assert len(list((trial / "save").glob("it10-*.png"))) == 3
    assert (trial / "code/custom/threestudio-balloon/system/blow.py").is_file()
    state = read_checkpoint(newest_checkpoint(trial / "ckpts"))["state_dict"]
    assert "geometry.size" in state
    assert state["geometry.size"] > 0.4
    assert not any(key.startswith("renderer.geometry") for key in state)
    parsed = str(trial / "configs/parsed.yaml")
    assert main(["--config", parsed, "resume=last", "trainer.max_steps=25"]) == 0
    assert newest_checkpoint(trial / "ckpts").stem == "epoch=0-step=25"
    assert (
        main(["--config", parsed, "--export", "resume=last", "system.exporter={resolution: 32, texture_size: 128}"])
        == 0
    )
    from threestudio_redream.assets import load_asset

    asset = load_asset(trial / "save/it25-export/model.glb")
    assert len(asset.faces) > 100


def test_stand_in_modules_resolve_to_the_runtime(workspace):
    stand_in.install()
    for module_name, names in stand_in.PROVIDED.items():
        module = importlib.import_module(module_name)
        for name in names:
            assert getattr(module, name) is not None, f"{module_name}.{name}"
    import threestudio
    from threestudio.systems.base import BaseLift3DSystem as theirs

    from threestudio_redream.runtime import BaseLift3DSystem as ours

    assert theirs is ours
    assert upstream() is None
    assert threestudio.find("no-material").__name__ == "NoMaterial"


def test_what_is_missing_is_named(workspace):
    stand_in.install()
    import threestudio.utils.misc

    with pytest.raises(ModuleNotFoundError, match=r"threestudio\.models\.estimators.*stand-in.*nerfacc"):
        importlib.import_module("threestudio.models.estimators")
    with pytest.raises(ImportError):
        from threestudio.utils.misc import an_absent_name  # noqa: F401
    with pytest.raises(AttributeError, match="stand-in"):
        _ = threestudio.utils.misc.an_absent_name


def test_hook_does_nothing_where_threestudio_is_the_host(workspace, monkeypatch):
    import types

    host = types.ModuleType("threestudio")
    host.register = host.find = lambda name: None
    monkeypatch.setitem(sys.modules, "threestudio", host)
    stand_in.install()
    assert stand_in.hook._finder not in sys.meta_path
    assert upstream() is host
