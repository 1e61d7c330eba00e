"""A field that starts as an asset: the fit, its cache, and what it leaves alone."""

from pathlib import Path

import pytest
import torch

from threestudio_redream.assets import normalise, sample_asset
from threestudio_redream.errors import ConfigError
from threestudio_redream.geometry import asset_fit
from threestudio_redream.geometry.asset_fit import FitConfig, asset_fingerprint, fit_to_asset
from threestudio_redream.runtime import find
from threestudio_redream.runtime.checkpoint import read_checkpoint
from threestudio_redream.runtime.device import set_device
from threestudio_redream.runtime.launch import main

ROOT = Path(__file__).resolve().parents[2]
FIELD = {
    "radius": 0.55,
    "normal_type": "none",
    "density_blob_std": 0.28,
    "pos_encoding_config": {
        "otype": "HashGrid",
        "n_levels": 4,
        "n_features_per_level": 2,
        "log2_hashmap_size": 12,
        "base_resolution": 8,
        "per_level_scale": 1.5,
    },
}
FIT = {"views": 10, "resolution": 48, "views_per_step": 4, "rays_per_view": 100, "samples": 32}


@pytest.fixture(scope="module")
def asset():
    return normalise(sample_asset())


@pytest.fixture(autouse=True)
def _cpu():
    set_device("cpu")
    yield
    set_device(None)


def make(**keys):
    torch.manual_seed(3)
    field = find("retrieved-asset-initializer")({**FIELD, "fit": FIT, "fit_steps": 5, "cache": "", **keys})
    return field.train()


def parameters(field):
    return {name: value.detach().clone() for name, value in field.named_parameters()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def test_it_looks_like_the_asset_afterwards(asset):
    field = make()
    words = fit_to_asset(field, asset, 100, FitConfig(**FIT))
    overlap = float(words.partition("IoU ")[2].split()[0])
    quality = float(words.split()[1])
    before = fit_to_asset(make(), asset, 0, FitConfig(**FIT))
    assert overlap > 0.8
    assert overlap > float(before.partition("IoU ")[2].split()[0]) + 0.2
    assert quality > float(before.split()[1]) + 2.0
    assert all(value.grad is None for value in field.parameters())


def test_the_first_training_step_finds_it_fitted_and_nothing_else_changed():
    field = make(asset={"path": "sample"})
    start, state = parameters(field), torch.get_rng_state()
    field.eval().do_update_step(0, 0)
    assert same(start, parameters(field))  # only training needs a start
    field.train().do_update_step(0, 0)
    fitted = parameters(field)
    assert not same(start, fitted)
    assert torch.equal(torch.get_rng_state(), state)
    assert field.training
    field.do_update_step(0, 1)
    assert same(fitted, parameters(field))
    torch.rand(5)
    again = make(asset={"path": "sample"})
    torch.rand(11)
    again.do_update_step(0, 0)
    assert same(fitted, parameters(again))


def test_a_field_from_a_checkpoint_or_with_loaded_weights_is_left_alone():
    field = make(asset={"path": "sample"})
    field.do_update_step(0, 0)
    resumed = make(asset={"path": "sample"})
    resumed.load_state_dict(field.state_dict())
    resumed.do_update_step(0, 7)
    assert same(parameters(field), parameters(resumed))
    loaded = make(asset={"path": "sample"})
    start = parameters(loaded)
    loaded.do_update_step(0, 0, on_load_weights=True)
    loaded.do_update_step(0, 0)
    assert same(start, parameters(loaded))


def test_fits_are_kept_by_what_decided_them(asset, tmp_path, monkeypatch):
    calls, fit = [], asset_fit._fit
    monkeypatch.setattr(asset_fit, "_fit", lambda *a: calls.append(a) or fit(*a))
    first, second = make(cache=str(tmp_path)), make(cache=str(tmp_path))
    first.initialise(asset)
    second.initialise(asset)
    assert same(parameters(first), parameters(second))
    assert len(calls) == 1
    for keys in ({"fit_steps": 6}, {"fit": {**FIT, "seed": 1}}, {"density_bias": 0.5}):
        make(cache=str(tmp_path), **keys).initialise(asset)
    torch.manual_seed(4)
    other = find("retrieved-asset-initializer")({**FIELD, "fit": FIT, "fit_steps": 5, "cache": str(tmp_path)})
    other.train().initialise(asset)  # another start
    assert len(calls) == 5
    for file in tmp_path.glob("*.safetensors"):
        file.write_bytes(b"damaged")
    third = make(cache=str(tmp_path))
    third.initialise(asset)
    assert len(calls) == 6
    assert same(parameters(first), parameters(third))


def test_an_asset_is_known_by_its_content(asset):
    from dataclasses import replace

    assert asset_fingerprint(asset) == asset_fingerprint(normalise(sample_asset()))
    texture = asset.materials[0].texture.copy()
    texture[0, 0, 0] ^= 1
    painted = replace(asset, materials=(replace(asset.materials[0], texture=texture),))
    for other in (painted, normalise(sample_asset(), yaw_deg=90.0), replace(asset, faces=asset.faces[::-1].copy())):
        assert asset_fingerprint(other) != asset_fingerprint(asset)


def test_the_best_asset_for_a_prompt_and_what_happens_without_one(monkeypatch, caplog):
    import logging

    logging.getLogger("pytorch_lightning").propagate = True
    caplog.set_level(logging.INFO, "pytorch_lightning")
    field = make(prompt="a blue robot", choice=1)
    assert not field.wants_asset
    field.do_update_step(0, 0)
    assert "starts as 'robot-wooden" in caplog.text
    blank = make(prompt="qwertz uiop asdf")
    start = parameters(blank)
    blank.do_update_step(0, 0)
    assert "No asset resembles the prompt" in caplog.text
    assert same(start, parameters(blank))
    nameless = make()
    assert nameless.wants_asset
    with pytest.raises(ConfigError, match=r"geometry\.asset\.path"):
        nameless.do_update_step(0, 0)
    told = make()
    told.initialise(None)
    assert not told.wants_asset
    told.do_update_step(0, 0)
    assert same(start, parameters(told))


def test_bad_settings_are_named():
    for keys, message in (
        ({"n_feature_dims": 4}, "three feature"),
        ({"fit_steps": -1}, "fit_steps"),
        ({"fit": {"view": 3}}, "view"),
        ({"asset": {"file": "x"}}, "file"),
        ({"retrieval": {"indx": "x"}}, "indx"),
        ({"fit": {"samples": 0}}, "samples"),
    ):
        with pytest.raises(ConfigError, match=message):
            make(**keys)


def test_any_system_can_use_it_and_a_resumed_run_ends_with_the_same_bits(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        "--config",
        str(ROOT / "custom_configs/baselines/dreamfusion.yaml"),
        "--gpu",
        "cpu",
        f"model={tiny_model}",
        "use_timestamp=false",
        "data.width=16",
        "data.height=16",
        "system.geometry_type=retrieved-asset-initializer",
        "system.geometry.asset.path=sample",
        "system.geometry.fit_steps=5",
        f"system.geometry.fit={FIT}",
        "system.renderer.num_samples_per_ray=16",
        "system.export_after_training=false",
        "system.report=false",
        "trainer.limit_val_batches=0",
        "trainer.limit_test_batches=0",
        "checkpoint.every_n_train_steps=1",
    ]
    fits, fit = [], asset_fit._fit
    monkeypatch.setattr(asset_fit, "_fit", lambda *a: fits.append(a) or fit(*a))
    assert main([*words, "tag=whole", "trainer.max_steps=2"]) == 0
    assert main([*words, "tag=parts", "trainer.max_steps=1", "system.geometry.cache=''"]) == 0
    assert len(fits) == 2
    assert main([*words, "tag=parts", "trainer.max_steps=2", "system.geometry.cache=''", "resume=last"]) == 0
    assert len(fits) == 2
    ends = [
        read_checkpoint(next(path.glob("*step=2.safetensors")))["state_dict"]
        for path in sorted(tmp_path.glob("outputs/*/*/ckpts"))
    ]
    assert len(ends) == 2
    assert same(*ends)
