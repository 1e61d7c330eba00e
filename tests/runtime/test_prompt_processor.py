from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime import PromptProcessor, PromptProcessorOutput
from threestudio_redream.runtime.prompt_processors import base as module
from threestudio_redream.runtime.prompt_processors import cache as cache_module
from threestudio_redream.runtime.prompt_processors.base import hash_prompt
from threestudio_redream.runtime.prompt_processors.cache import EmbeddingCache, fingerprint_path, fingerprint_tensors
from threestudio_redream.runtime.prompt_processors.directions import (
    direction_indices,
    shift_azimuth_deg,
    view_directions,
)


def _encode(table: nn.Embedding, prompts: list[str]) -> torch.Tensor:
    ids = torch.tensor([[*prompt.encode()[:16].ljust(16)] for prompt in prompts])
    mixed = table(ids) + 0.01 * torch.tensor([len(prompt) for prompt in prompts])[:, None, None]
    return mixed + torch.tensor([sum(prompt.encode()) % 97 for prompt in prompts])[:, None, None] / 97.0


class TunedProcessor(PromptProcessor):
    """The newer hook, around a text encoder of one byte table that can be tuned."""

    calls = 0

    def configure(self) -> None:
        self.table = nn.Embedding(256, 5, _weight=torch.linspace(0, 1, 1280).view(256, 5).clone())
        super().configure()

    def encode_prompts(self, prompts: list[str]) -> torch.Tensor:
        type(self).calls += 1
        return _encode(self.table, prompts)

    def model_fingerprint(self) -> str:
        return fingerprint_tensors(self.table.state_dict())


class SpawnedProcessor(PromptProcessor):
    """The hook of upstream's subclasses."""

    calls: ClassVar[list[list[str]]] = []

    @staticmethod
    def spawn_func(pretrained_model_name_or_path: str, prompts: list[str], cache_dir: str) -> None:
        SpawnedProcessor.calls.append(list(prompts))
        table = nn.Embedding(256, 5, _weight=torch.linspace(0, 1, 1280).view(256, 5).clone())
        for prompt, embedding in zip(prompts, _encode(table, prompts), strict=True):
            path = Path(cache_dir) / f"{hash_prompt(pretrained_model_name_or_path, prompt)}.pt"
            torch.save(embedding.detach(), path)  # noqa: TID251  the format of upstream's hook


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    TunedProcessor.calls = 0
    SpawnedProcessor.calls = []


def _views(*pairs: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    elevation, azimuth = (torch.tensor(column) for column in zip(*pairs))
    return elevation, azimuth, torch.full_like(elevation, 2.0)


# ----------------------------------------------------------------------------------------- directions
def test_direction_convention() -> None:
    angles = [0.0, 30.0, 45.0, 60.0, -60.0, 135.0, 170.0, -170.0, 190.0, 330.0, 720.0]
    expected = [1, 1, 0, 0, 0, 0, 2, 2, 2, 1, 1]
    elevation = torch.zeros(len(angles))
    assert direction_indices(view_directions(), elevation, torch.tensor(angles), elevation).tolist() == expected
    above = direction_indices(
        view_directions(), torch.tensor([61.0, 60.0, 89.0]), torch.tensor([30.0, 30.0, 170.0]), torch.ones(3)
    )
    assert above.tolist() == [3, 1, 3]


def test_azimuth_is_shifted_to_half_a_turn() -> None:
    shifted = shift_azimuth_deg(torch.tensor([190.0, -190.0, 180.0, -180.0, 0.0, 540.0]))
    assert shifted.tolist() == [-170.0, 170.0, -180.0, -180.0, 0.0, -180.0]


def test_thresholds_are_configurable() -> None:
    directions = view_directions(front_threshold=90.0, back_threshold=10.0, overhead_threshold=30.0)
    elevation, azimuth, distance = _views((0.0, 80.0), (0.0, 169.0), (0.0, 171.0), (31.0, 0.0))
    assert direction_indices(directions, elevation, azimuth, distance).tolist() == [1, 0, 2, 3]


def test_later_matches_override() -> None:
    directions = view_directions()
    directions[0].condition = lambda e, a, d: torch.zeros_like(e, dtype=torch.bool)
    elevation, azimuth, distance = _views((0.0, 90.0))
    assert direction_indices(directions, elevation, azimuth, distance).tolist() == [0]


# ---------------------------------------------------------------------------------------------- texts
def test_prompts_by_direction() -> None:
    processor = TunedProcessor({"prompt": "a cat"})
    assert processor.prompts_vd == ["a cat, side view", "a cat, front view", "a cat, back view", "a cat, overhead view"]
    assert processor.direction2idx == {"side": 0, "front": 1, "back": 2, "overhead": 3}
    before = TunedProcessor({"prompt": "a cat", "view_dependent_prompt_front": True, "prompt_back": "a tail"})
    assert before.prompts_vd == ["side view of a cat", "front view of a cat", "a tail", "overhead view of a cat"]


@pytest.mark.parametrize("prompt", ["", "  "])
def test_an_empty_prompt_is_refused(prompt: str) -> None:
    with pytest.raises(ConfigError, match="The prompt is empty"):
        TunedProcessor({"prompt": prompt})


def test_library(tmp_path: Path) -> None:
    (tmp_path / "load").mkdir()
    entries = ["a blue poison-dart frog", "a red frog", "a castle", 7]
    (tmp_path / "load" / "prompt_library.json").write_text(json.dumps({"dreamfusion": entries}))
    assert TunedProcessor({"prompt": "lib:blue_FROG"}).prompt == "a blue poison-dart frog"
    for prompt, problem, fix in [
        ("lib:frog", "2 prompts", "a red frog"),
        ("lib:dragon", "0 prompts", "Write the prompt"),
    ]:
        with pytest.raises(ConfigError, match=problem) as caught:
            TunedProcessor({"prompt": prompt})
        assert caught.value.received == prompt
        assert fix in caught.value.fix


@pytest.mark.parametrize("content", [None, "{", "[]", '{"dreamfusion": 3}', '{"other": []}', "[" * 100000])
def test_damaged_library(content: str | None, tmp_path: Path) -> None:
    (tmp_path / "load").mkdir()
    if content is not None:
        (tmp_path / "load" / "prompt_library.json").write_text(content)
    with pytest.raises(ConfigError, match="library") as caught:
        TunedProcessor({"prompt": "lib:frog"})
    assert caught.value.received is not ...
    assert "working folder" in caught.value.fix


def test_oversized_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "load").mkdir()
    (tmp_path / "load" / "prompt_library.json").write_text(json.dumps({"dreamfusion": ["a frog"]}))
    monkeypatch.setattr(module, "MAX_LIBRARY_BYTES", 10)
    with pytest.raises(ConfigError, match="larger than 10 bytes"):
        TunedProcessor({"prompt": "lib:frog"})


def test_debiasing_is_a_hook() -> None:
    with pytest.raises(ConfigError, match="exclude each other") as caught:
        TunedProcessor({"use_prompt_debiasing": True, "prompt_side": "x"})
    assert caught.value.received["side"] == "x"

    class Debiased(TunedProcessor):
        def get_debiased_prompt(self, prompt: str) -> list[str]:
            return [f"{prompt} {index}" for index in range(4)]

    assert Debiased({"prompt": "a cat", "use_prompt_debiasing": True}).prompts_vd[2] == "a cat 2, back view"


# ----------------------------------------------------------------------------------------- embeddings
@pytest.mark.parametrize("kind", [TunedProcessor, SpawnedProcessor])
@pytest.mark.parametrize("use_cache", [True, False])
def test_embeddings_of_either_hook(kind: Any, use_cache: bool) -> None:
    processor = kind({"prompt": "a cat", "negative_prompt": "ugly", "use_cache": use_cache, "spawn": True})
    out = processor()
    assert isinstance(out, PromptProcessorOutput)
    table = nn.Embedding(256, 5, _weight=torch.linspace(0, 1, 1280).view(256, 5).clone())
    torch.testing.assert_close(out.text_embeddings, _encode(table, ["a cat"]))
    torch.testing.assert_close(out.uncond_text_embeddings, _encode(table, ["ugly"]))
    torch.testing.assert_close(out.text_embeddings_vd, _encode(table, processor.prompts_vd))
    torch.testing.assert_close(out.uncond_text_embeddings_vd, _encode(table, ["ugly"] * 4))
    assert out.text_embeddings.shape == (1, 16, 5)
    assert (out.prompt, out.prompts_vd) == ("a cat", processor.prompts_vd)
    assert not out.text_embeddings_vd.requires_grad
    assert Path(processor._cache_dir).exists() == use_cache
    if kind is SpawnedProcessor:
        assert SpawnedProcessor.calls == [["a cat", "ugly", *processor.prompts_vd]]


def test_cache_saves_work_but_never_lies() -> None:
    first = TunedProcessor({"prompt": "a cat"})
    second = TunedProcessor({"prompt": "a cat"})
    assert TunedProcessor.calls == 1
    torch.testing.assert_close(first().text_embeddings, second().text_embeddings)
    TunedProcessor({"prompt": "a dog"})
    assert TunedProcessor.calls == 2
    with torch.no_grad():
        second.table.weight.add_(1.0)
    second.load_text_embeddings()  # the encoder has another content under the same name
    assert TunedProcessor.calls == 3
    torch.testing.assert_close(second().text_embeddings, first().text_embeddings + 1.0)


def test_upstream_hook_is_cached_too() -> None:
    for _ in range(2):
        SpawnedProcessor({"prompt": "a cat", "pretrained_model_name_or_path": "some/model"})
    assert len(SpawnedProcessor.calls) == 1
    SpawnedProcessor({"prompt": "a cat", "pretrained_model_name_or_path": "other/model"})
    assert len(SpawnedProcessor.calls) == 2
    assert not list(Path().rglob("*.pt"))


@pytest.mark.parametrize("damage", ["truncate", "foreign", "nan", "big"])
def test_damaged_cache_is_made_again(damage: str, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    processor = TunedProcessor({"prompt": "a cat"})
    cache = EmbeddingCache(processor._cache_dir, processor.model_fingerprint())
    path = cache.path("a cat")
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:20])
    elif damage == "foreign":
        path.write_bytes(b"\x80\x04not a tensor")
    elif damage == "nan":
        cache.store("a cat", torch.full((16, 5), torch.nan))
    else:
        monkeypatch.setattr(cache_module, "MAX_FILE_BYTES", 10)
    with caplog.at_level("WARNING", "pytorch_lightning"):
        again = TunedProcessor({"prompt": "a cat"})
    assert TunedProcessor.calls == 2
    assert "not usable" in caplog.text
    torch.testing.assert_close(again().text_embeddings, processor().text_embeddings)


def test_fingerprints(tmp_path: Path) -> None:
    assert fingerprint_path("org/name") == "org/name"
    assert fingerprint_path("") == ""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"abc")
    before = fingerprint_path(str(folder))
    assert before == fingerprint_path(str(folder))
    (folder / "weights.bin").write_bytes(b"abcd")
    assert fingerprint_path(str(folder)) != before
    assert fingerprint_path(str(folder / "weights.bin")) != fingerprint_path(str(folder))
    tensors = {"a": torch.arange(4.0), "b": torch.zeros(0)}
    assert fingerprint_tensors(tensors) == fingerprint_tensors(dict(reversed(tensors.items())))
    assert fingerprint_tensors(tensors) != fingerprint_tensors({**tensors, "a": torch.arange(4.0) + 1e-7})
    assert fingerprint_tensors({"a": torch.zeros(4)}) != fingerprint_tensors({"a": torch.zeros(2, 2)})


def test_local_model_folder_is_part_of_the_key(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for content in (b"one", b"three", b"three"):
        if not (folder / "w").exists() or (folder / "w").read_bytes() != content:
            (folder / "w").write_bytes(content)
        SpawnedProcessor({"pretrained_model_name_or_path": str(folder)})
    assert len(SpawnedProcessor.calls) == 2


class _NoHook(PromptProcessor):
    pass


class _Forgetful(PromptProcessor):
    @staticmethod
    def spawn_func(pretrained_model_name_or_path: str, prompts: list[str], cache_dir: str) -> None:
        pass


class _Wrong(PromptProcessor):
    @staticmethod
    def spawn_func(pretrained_model_name_or_path: str, prompts: list[str], cache_dir: str) -> None:
        for prompt in prompts:
            path = Path(cache_dir) / f"{hash_prompt(pretrained_model_name_or_path, prompt)}.pt"
            torch.save({"x": 1}, path)  # noqa: TID251  the format of upstream's hook


class _Flat(PromptProcessor):
    def encode_prompts(self, prompts: list[str]) -> torch.Tensor:
        return torch.zeros(len(prompts), 3)


@pytest.mark.parametrize(
    ("kind", "problem", "fix"),
    [
        (_NoHook, "cannot encode text", "encode_prompts"),
        (_Forgetful, "no embedding", "hash_prompt"),
        (_Wrong, "not a tensor", "tensor"),
        (_Flat, "finite embeddings", "one embedding per prompt"),
    ],
)
def test_hooks_that_do_not_deliver(kind: Any, problem: str, fix: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        kind({})
    assert caught.value.received is not ...
    assert fix in caught.value.fix


def test_hash_is_the_one_of_the_contract() -> None:
    assert hash_prompt("model", "a prompt") == hashlib.md5(b"model-a prompt").hexdigest()


# ------------------------------------------------------------------------------------ choice by camera
def test_conditional_embeddings_come_first() -> None:
    out = TunedProcessor({"prompt": "a cat", "negative_prompt": "ugly"})()
    chosen = out.get_text_embeddings(*_views((0.0, 0.0), (0.0, 180.0), (80.0, 0.0)))
    assert chosen.shape == (6, 16, 5)
    torch.testing.assert_close(chosen[:3], out.text_embeddings_vd[[1, 2, 3]])
    torch.testing.assert_close(chosen[3:], out.uncond_text_embeddings_vd[[1, 2, 3]])
    same = out.get_text_embeddings(*_views((0.0, 0.0), (0.0, 180.0)), view_dependent_prompting=False)
    torch.testing.assert_close(
        same, torch.cat([out.text_embeddings.expand(2, -1, -1), out.uncond_text_embeddings.expand(2, -1, -1)])
    )


def test_perp_neg_interpolates_views() -> None:
    out = TunedProcessor({"prompt": "a cat", "negative_prompt": "ugly", "use_perp_neg": True})()
    assert out.use_perp_neg
    side, front, back, overhead = out.text_embeddings_vd
    views = _views((0.0, 0.0), (0.0, -45.0), (0.0, 90.0), (0.0, 135.0), (0.0, 180.0), (70.0, 20.0))
    embeddings, weights = out.get_text_embeddings_perp_neg(*views)
    assert embeddings.shape == (24, 16, 5)
    assert weights.shape == (6, 2)
    positive, unconditional, negative = embeddings[:6], embeddings[6:12], embeddings[12:].view(6, 2, 16, 5)
    expected = [front, 0.5 * front + 0.5 * side, side, 0.5 * side + 0.5 * back, back, overhead]
    torch.testing.assert_close(positive, torch.stack(expected))
    torch.testing.assert_close(unconditional, out.uncond_text_embeddings_vd[[1, 0, 0, 0, 2, 3]])
    torch.testing.assert_close(negative[1], torch.stack([front, side]))
    torch.testing.assert_close(negative[3], torch.stack([side, front]))
    torch.testing.assert_close(negative[5], out.uncond_text_embeddings_vd[[3, 3]])
    # a exp(-b r) + c with the default numbers, worked out by hand
    assert weights[0].tolist() == pytest.approx([-(4 * math.exp(-0.5) - 2.426), -(4 - 2.426)], abs=1e-5)
    assert weights[3].tolist() == pytest.approx([-(math.exp(-0.25) - 0.606), -(math.exp(-0.25) + 0.967)], abs=1e-5)
    assert weights[5].tolist() == [0.0, 0.0]


def test_perp_neg_needs_directions() -> None:
    out = TunedProcessor({})()
    with pytest.raises(ConfigError, match="Perp-Neg") as caught:
        out.get_text_embeddings_perp_neg(*_views((0.0, 0.0)), view_dependent_prompting=False)
    assert caught.value.received is False
    assert "view_dependent_prompting" in caught.value.fix
