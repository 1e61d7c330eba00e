"""Putting models into the package, and their cards."""

from __future__ import annotations

import json

import pytest

from tools.mini import publish
from tools.mini.cards import card
from tools.mini.publish import copy_model


def model(folder):
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "unet" / "weights.safetensors").write_bytes(b"12345678")
    return folder


def test_a_folder_is_copied_whole_and_replaces_the_old_one(tmp_path):
    target = tmp_path / "package"
    (target / "old").mkdir(parents=True)
    assert copy_model(model(tmp_path / "trained"), target) == 10
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()) == [
        "model_index.json",
        "unet/weights.safetensors",
    ]


@pytest.mark.parametrize("name", ["model.bin", "weights.pt", "code.py", "x.pkl"])
def test_anything_but_weights_and_text_is_refused(tmp_path, name):
    source = model(tmp_path / "trained")
    (source / name).write_bytes(b"1")
    (tmp_path / "package").mkdir()
    with pytest.raises(SystemExit, match=name):
        copy_model(source, tmp_path / "package")
    assert (tmp_path / "package").is_dir()


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "trained").mkdir()
    with pytest.raises(SystemExit, match="empty"):
        copy_model(tmp_path / "trained", tmp_path / "package")


@pytest.mark.parametrize("name", ["judge", "clip", "stable-diffusion"])
def test_a_card_says_what_was_not_measured(name):
    text = card(name, {})
    assert "not measured" in text
    assert "licence" in text.lower()
    assert max(map(len, text.splitlines())) < 2000


def test_a_card_shows_the_raw_figures():
    figures = {
        "mini_diffusion": {
            "composition": {"samples": 500, "object_right": 0.913, "color_right": 0.877, "both_right": 0.85},
            "views": {"samples_each": 4, "back view": {"front": 0.7, "side": 0.1, "back": 0.2, "overhead": 0.0}},
        },
        "mini_models": {
            "stable-diffusion": {"steps": 1234, "megabytes": 21.5, "load_seconds": 0.2, "peak_rss_mb": 600}
        },
    }
    text = card("stable-diffusion", figures)
    for wanted in ("91.3 %", "87.7 %", "| back view | 70.0 % | 10.0 % | 20.0 % | 0.0 % |", "1234 steps", "21.5 MB"):
        assert wanted in text


def test_cards_are_written_beside_the_models(tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "RESULTS", tmp_path)
    monkeypatch.setattr(publish, "MODELS", {"judge": ("judge/judge", tmp_path / "judge")})
    (tmp_path / "judge").mkdir()
    (tmp_path / "mini_judge.json").write_text(json.dumps({"results": {"pictures": 10, "kind": 0.5}}))
    publish.write_cards()
    assert "kind 50.0 %" in (tmp_path / "judge" / "README.md").read_text()


def test_a_published_model_does_not_say_where_it_was_trained(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"_name_or_path": "/somewhere", "width": 4}', encoding="utf-8")
    publish.copy_model(tmp_path / "model", tmp_path / "published")
    assert json.loads((tmp_path / "published" / "config.json").read_text("utf-8")) == {"width": 4}
