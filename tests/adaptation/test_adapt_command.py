"""``redream adapt`` from the command line to an unmodified diffusers pipeline."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from threestudio_redream import cli
from threestudio_redream.adaptation import standalone
from threestudio_redream.adaptation.files import LORA_FILE
from threestudio_redream.adaptation.view_tokens import VIEWS
from threestudio_redream.assets import write_sample

FAST = ["--steps", "4", "--batch-size", "2", "--views", "12", "--device", "cpu"]


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(["adapt", *map(str, arguments)])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("asset") / "waver.glb")


def test_a_prompt_becomes_an_adapter_that_diffusers_loads(tiny_model, tmp_path, capsys):
    from diffusers import StableDiffusionPipeline

    out = tmp_path / "adapter"
    status, said, progress = run(
        capsys, "--prompt", "a blue robot", "--model", tiny_model, "--out", out, *FAST, "--lr", "0.05", "-n", "2"
    )
    assert status == 0
    assert said.startswith(f"{out}: 4 steps, loss ")
    assert "before" in said
    assert "after" in said
    assert "adapting: step 4 of 4" in progress
    report = json.loads((out / "adaptation.json").read_text("utf-8"))
    assert report["prompt"] == "a blue robot"
    assert report["captions"] == ["a green robot", "a wooden robot"]
    assert report["references"]["resolution"] == 64  # the model's own
    assert set(report["view_accuracy"]) == {"before", "after"}
    card = (out / "README.md").read_text("utf-8")
    assert "pipeline.load_lora_weights" in card
    assert "wooden robot" in card
    assert "CC0" in (out / "ATTRIBUTION.md").read_text("utf-8")

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    noisy, steps, context = torch.randn(1, 4, 16, 16), torch.tensor([500]), torch.randn(1, 9, 16)
    with torch.no_grad():
        plain = pipeline.unet(noisy, steps, encoder_hidden_states=context).sample
        pipeline.load_lora_weights(out, weight_name=LORA_FILE)
        adapted = pipeline.unet(noisy, steps, encoder_hidden_states=context).sample
    assert not torch.equal(plain, adapted)
    for view in VIEWS:
        pipeline.load_textual_inversion(out / "view_tokens" / f"{view}.safetensors")
    table = pipeline.text_encoder.get_input_embeddings().weight
    back = pipeline.tokenizer.convert_tokens_to_ids("<back>")
    assert torch.equal(table[back], load_file(out / "view_tokens" / "back.safetensors")["<back>"])


def test_files_take_the_place_of_a_search(tiny_model, sample, tmp_path, capsys):
    out = tmp_path / "adapter"
    words = ["--asset", sample, "--asset", sample, "--caption", "a red cat", "--prompt", "a cat"]
    status, said, progress = run(capsys, *words, "--model", tiny_model, "--out", out, *FAST, "--json")
    assert (status, progress) == (0, "")
    found = json.loads(said)
    assert found["steps"] == 4
    assert found["assets"] == ["waver", "waver"]
    assert set(found["view_accuracy"]) == {"before", "after"}
    assert all((out / name).is_file() for name in found["files"])
    assert len(found["files"]) == 6
    assert json.loads((out / "adaptation.json").read_text("utf-8"))["captions"] == ["a red cat", "a cat"]
    assert "Licence unknown" in (out / "README.md").read_text("utf-8")


def test_settings_come_from_a_configuration_and_the_command_line_wins(tiny_model, sample, tmp_path, capsys):
    config = tmp_path / "run.yaml"
    config.write_text(
        "system:\n  references: {views_per_asset: 8, resolution: 32, front_threshold: 30}\n"
        "  adaptation: {enabled: true, steps: 9, batch_size: 2, rank: 2, learn_tokens: false}\n"
    )
    out = tmp_path / "adapter"
    words = ["--asset", sample, "--prompt", "a red cat", "--model", tiny_model, "--out", out, "--config", config]
    assert run(capsys, *words, "--steps", "2", "--device", "cpu")[0] == 0
    report = json.loads((out / "adaptation.json").read_text("utf-8"))
    assert (report["adaptation"]["steps"], report["rank"]) == (2, 2)
    assert (report["references"]["resolution"], report["references"]["front_threshold"]) == (32, 30.0)
    assert not (out / "view_tokens").exists()
    assert "view tokens" not in (out / "README.md").read_text("utf-8")


def test_an_interrupted_run_goes_on_and_ends_in_the_same_bits(tiny_model, sample, tmp_path, capsys, monkeypatch):
    words = ["--asset", sample, "--prompt", "a red cat", "--model", tiny_model, "--device", "cpu"]
    words += ["--steps", "6", "--batch-size", "2", "--views", "12"]
    config = tmp_path / "often.yaml"
    config.write_text("system: {adaptation: {save_every: 2, probe_every: 3}}\n")
    words += ["--config", config]
    assert run(capsys, *words, "--out", tmp_path / "whole")[0] == 0

    adapt = standalone.adapt
    steps = []

    def interrupted(*arguments, **keywords):
        def stop(done, total, left):
            steps.append(done)
            if done == 5:
                raise KeyboardInterrupt

        return adapt(*arguments, **{**keywords, "progress": stop})

    with monkeypatch.context() as patch:
        patch.setattr(standalone, "adapt", interrupted)
        status, _, said = run(capsys, *words, "--out", tmp_path / "cut")
    assert status == 130
    assert "the same command goes on" in said
    assert not (tmp_path / "cut" / LORA_FILE).exists()
    assert run(capsys, *words, "--out", tmp_path / "cut")[0] == 0
    for name in (LORA_FILE, *(f"view_tokens/{view}.safetensors" for view in VIEWS)):
        first, second = load_file(tmp_path / "whole" / name), load_file(tmp_path / "cut" / name)
        assert all(torch.equal(value, second[key]) for key, value in first.items())
    accuracies = [
        json.loads((tmp_path / folder / "adaptation.json").read_text("utf-8"))["view_accuracy"]
        for folder in ("whole", "cut")
    ]
    assert accuracies[0] == accuracies[1]
    status, _, said = run(capsys, *words, "--out", tmp_path / "cut", "--lr", "0.5")
    assert status == 1
    assert "another one" in said


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([], 2, "Give --prompt TEXT"),
        (["--prompt", "a cat", "--caption", "a cat"], 2, "more captions than files"),
        (["--asset", "x.glb"], 2, "Give one for each file"),
        (["--prompt", "a cat", "--device", "abacus"], 2, "cannot be used here"),
        (["--prompt", "a cat", "--config", "none.yaml"], 2, "does not exist"),
        (["--prompt", "qwertz uiop asdf"], 1, "--asset"),
        (["--asset", "missing.glb", "--prompt", "a cat"], 1, "not found"),
        (["--prompt", "a blue robot", "--index", "no/such/index"], 1, "no/such/index"),
    ],
)
def test_what_is_wrong_is_named(tiny_model, tmp_path, capsys, monkeypatch, words, status, said):
    monkeypatch.setenv("COLUMNS", "200")
    found, out, err = run(capsys, *words, "--model", tiny_model, "--out", tmp_path / "adapter", *FAST[:-2], *(
        [] if "--device" in words else FAST[-2:]
    ))  # fmt: skip
    assert (found, out) == (status, "")
    assert said in " ".join(err.split())
    assert not Path(tmp_path / "adapter").exists()
