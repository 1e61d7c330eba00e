"""What hosted systems and prompt processors add to the host's own, with our runtime's classes as the host's."""

from __future__ import annotations

import importlib
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from threestudio_redream.errors import ConfigError, EmptySceneError
from threestudio_redream.runtime import base, system
from threestudio_redream.runtime.config import parse_structured
from threestudio_redream.runtime.rng import RngGuard


class TheirPromptProcessor:
    """As upstream's: parses, sets the device, configures; encoding would want a child process."""

    @dataclass
    class Config:
        prompt: str = ""
        spawn: bool = True
        their_own_key: int = 1

    def __init__(self, cfg: Any, *args: Any, **kwargs: Any) -> None:
        self.cfg = parse_structured(self.Config, cfg)
        self.device = torch.device("cpu")
        self.configure(*args, **kwargs)

    def prepare_text_embeddings(self) -> None:
        raise AssertionError("a child process would be started")


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module of ``hosting`` anew, with a stand-in for the module of upstream that it builds on."""

    def load(name: str, theirs: str, **attributes: Any) -> types.ModuleType:
        module = types.ModuleType(theirs)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, theirs, module)
        for parent in ("threestudio", "threestudio.systems", "threestudio.models.prompt_processors"):
            monkeypatch.setitem(sys.modules, parent, sys.modules.get(parent) or types.ModuleType(parent))
        full = f"threestudio_redream.hosting.{name}"
        monkeypatch.delitem(sys.modules, full, raising=False)
        made = importlib.import_module(full)
        monkeypatch.delitem(sys.modules, full)
        return made

    return load


@pytest.fixture
def lifted(hosted: Any) -> Any:
    made = hosted(
        "system",
        "threestudio.systems.base",
        BaseSystem=system.BaseSystem,
        BaseLift3DSystem=system.BaseLift3DSystem,
    )

    class Lifted(made.BaseLift3DSystem):
        export_after_training = True

        def configure(self) -> None:
            self.part = torch.nn.Linear(1, 1)

        def on_predict_start(self) -> None:
            self.said = [*getattr(self, "said", []), "exporter"]

        def on_predict_epoch_end(self) -> None:
            self.said.append("mesh")

    return Lifted


def test_the_mesh_is_written_after_training_and_only_then(lifted: Any, tmp_path: Path) -> None:
    made = lifted({})
    made.set_save_dir(tmp_path)
    made.on_test_end()
    assert not hasattr(made, "said")
    made.eval()
    made.on_fit_start()
    assert made.part.training
    made.on_test_end()
    assert made.said == ["exporter", "mesh"]


def test_an_empty_field_does_not_end_the_run(
    lifted: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any) -> None:
        raise EmptySceneError("Nothing is there", fix="Train for longer.")

    monkeypatch.setattr(lifted, "on_predict_epoch_end", fail)
    made = lifted({})
    made.on_fit_start()
    with caplog.at_level("ERROR", logger="pytorch_lightning"):
        made.on_test_end()
    assert "--export" in caplog.text
    assert "Nothing is there. Train for longer." in caplog.text


def test_parts_are_told_that_training_goes_on_after_a_validation(lifted: Any) -> None:
    made = lifted({})
    made.eval()
    made.on_validation_model_train()
    assert made.part.training


def test_random_states_are_kept_once(lifted: Any) -> None:
    made = lifted({})
    first = made.configure_callbacks()
    assert [type(callback) for callback in first] == [RngGuard]
    made._trainer = types.SimpleNamespace(callbacks=first)
    assert made.configure_callbacks() == []


def test_distorted_cameras_stop_the_step(lifted: Any) -> None:
    with pytest.raises(ConfigError, match="batches of 3"):
        lifted({}).preprocess_data({"c2w": torch.ones(3, 4, 4)}, "train")


def test_each_mesh_goes_to_the_saver_that_knows_it(lifted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from threestudio_redream.runtime.saving import SaverMixin

    class Theirs:
        def save_obj(self, filename: str, mesh: Any, **options: Any) -> str:
            return "theirs"

    monkeypatch.setattr(SaverMixin, "save_obj", lambda self, filename, mesh, **options: "ours")
    both = type("Both", (lifted.__mro__[2], Theirs), {})  # what a hosted system gains, over another saver
    assert both().save_obj("x", types.SimpleNamespace(v_pos=None)) == "theirs"
    assert both().save_obj("x", types.SimpleNamespace(vertices=None)) == "ours"


def test_prompts_are_encoded_here_and_device_and_keys_are_the_hosts(
    hosted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = hosted("prompts", "threestudio.models.prompt_processors.base", PromptProcessor=TheirPromptProcessor)

    class Lengths(made.PromptProcessor):
        def encode_prompts(self, prompts: list[str]) -> torch.Tensor:
            return torch.tensor([float(len(prompt)) for prompt in prompts]).view(-1, 1, 1)

    processor = Lengths({"prompt": "a robot", "their_own_key": 2})
    assert isinstance(processor, TheirPromptProcessor)
    assert isinstance(processor, base.BaseObject)
    assert processor.cfg.their_own_key == 2
    assert float(processor().text_embeddings) == len("a robot")
    assert processor().text_embeddings_vd.shape == (4, 1, 1)
