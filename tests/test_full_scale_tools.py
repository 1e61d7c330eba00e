"""The tools behind docs/full-scale.md: the layout is the published one, and their checks can fail."""

import json

import pytest
import torch

from threestudio_redream.runtime.checkpoint import write_checkpoint
from tools.cuda_memory import GIB, Count, count
from tools.full_size_layout import BASE, TEXT, V_768, build_unet, build_vae
from tools.full_size_run import CONFIGS, changed


def millions(module):
    return round(sum(weight.numel() for weight in module.parameters()) / 1e6, 2)


def test_the_layout_has_the_published_sizes():
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        assert millions(build_unet()) == 865.91
        assert millions(build_vae()) == 83.65
        assert millions(CLIPTextModel(CLIPTextConfig(**TEXT))) == 340.39
        large = build_unet(V_768)
    assert large.config.sample_size == 96
    assert large.config.upcast_attention
    assert (BASE["prediction_type"], V_768["prediction_type"]) == ("epsilon", "v_prediction")


def test_a_count_is_of_what_lives_at_once():
    def call():
        first = torch.zeros(1024, 256)  # 1 MiB
        second = first + 1.0
        del first
        view = second.view(-1)
        return (view * 2.0).sum()

    assert round(count(call) * GIB / 2**20, 3) == 2.0
    with Count() as counting:
        kept = torch.zeros(1024, 256)
    assert counting.live == counting.peak == kept.nbytes


def test_a_count_with_inputs_leaves_out_what_was_there():
    known, foreign = torch.zeros(1024), torch.zeros(2048)
    with Count([known]) as counting:
        _ = known + 0.0, foreign[0] + 0.0
    assert counting.live - foreign.nbytes < 4096 + 64
    assert counting.peak >= foreign.nbytes + known.nbytes


@pytest.fixture
def trial(tmp_path):
    """``trial(stuck)``: a run of two steps in which everything moved but the parameters named."""

    def make(stuck=()):
        names = (
            "geometry.encoding.params",
            "geometry.density_network.weight",
            "background.network.weight",
            "guidance.lora.a|lora_A|particles|weight",
            "guidance.lora.b|lora_A|particles|weight",
            "guidance.lora.a|lora_B|particles|weight",
            "guidance.camera_embedding.first.weight",
        )
        for step in (1, 2):
            state = {name: torch.full((3,), 0.0 if name in stuck else float(step)) for name in names}
            write_checkpoint(tmp_path / "ckpts" / f"epoch=0-step={step}.safetensors", {"state_dict": state})
        return tmp_path

    return make


def test_what_learned_is_told_from_what_did_not(trial, tmp_path):
    assert all(changed(trial(), tmp_path, 2).values())
    half = changed(trial(("guidance.lora.b|lora_A|particles|weight",)), tmp_path, 2)
    assert [part for part, moved in half.items() if not moved] == ["LoRA of the renders, A"]
    assert len(half) == 6
    still = changed(trial(("background.network.weight", "guidance.camera_embedding.first.weight")), tmp_path, 2)
    assert [part for part, moved in still.items() if not moved] == ["background", "camera embedding"]


def test_the_recorded_runs_are_of_these_configurations():
    from benchmarks._common import RESULTS

    recorded = json.loads((RESULTS / "full_size.json").read_text("utf-8"))["results"]
    assert set(recorded) == set(CONFIGS)
    assert all(all(row["changed"].values()) for row in recorded.values())
    assert {"adapter, B", "view tokens"} <= set(recorded["redream-sd21"]["changed"])
    estimates = json.loads((RESULTS / "cuda_memory_estimate.json").read_text("utf-8"))["rows"]
    for row in estimates:
        if row["preset"] != "none":
            assert row["needed_gib"] < float(row["preset"].removesuffix("g")), row
