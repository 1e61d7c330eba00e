"""redream-system from retrieval to test views, on a randomly initialised model and the shipped index."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from threestudio_redream.retrieval.index.reader import Index
from threestudio_redream.runtime.checkpoint import read_checkpoint
from threestudio_redream.runtime.device import set_device
from threestudio_redream.runtime.launch import main
from threestudio_redream.systems import preparation

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "custom_configs" / "redream.yaml")
VSD = str(ROOT / "custom_configs" / "baselines" / "prolificdreamer.yaml")
SMALL = [
    "use_timestamp=false",
    "tag=small",
    "data.eval_height=24",
    "data.eval_width=24",
    "data.n_val_views=2",
    "data.n_test_views=3",
    "system.references.views_per_asset=12",
    "system.adaptation.steps=3",
    "system.adaptation.batch_size=2",
    "system.adaptation.probe_every=2",
    "system.geometry.pos_encoding_config.n_levels=3",
    "system.geometry.pos_encoding_config.log2_hashmap_size=10",
    "system.renderer.num_samples_per_ray=16",
    "system.export_after_training=false",
    "trainer.val_check_interval=3",
    "checkpoint.every_n_train_steps=2",
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    set_device(None)


def launch(model, *arguments):
    names = [f"system.{part}.pretrained_model_name_or_path={model}" for part in ("guidance", "prompt_processor")]
    return main(["--config", CONFIG, "--gpu", "cpu", *SMALL, *names, *arguments])


def without(config, *keys):
    """A configuration's text without the lines of these keys."""
    return "".join(
        line for line in config.splitlines(True) if not line.strip().startswith(tuple(f"{k}:" for k in keys))
    )


def _words(capsys):
    out = capsys.readouterr()
    return " ".join((out.out + out.err).split())


def parameters(trial, step):
    return read_checkpoint(next((trial / "ckpts").glob(f"*step={step}.safetensors")))["state_dict"]


def test_a_run_leaves_its_artefacts(here, tiny_model):
    assert launch(tiny_model, "trainer.max_steps=4", "trainer.log_every_n_steps=1") == 0
    trial = here / "outputs/redream/small"
    save = trial / "save"
    found = json.loads((save / "retrieved" / "retrieved.json").read_text("utf-8"))
    assert found["prompt"] == "a blue robot"
    assert [row["name"].split()[-1] for row in found["references"]] == ["robot"] * 3
    assert len(list((save / "retrieved").glob("*.png"))) == 3
    assert "robot" in (save / "retrieved" / "ATTRIBUTION.md").read_text("utf-8")
    assert (save / "adapter" / "pytorch_lora_weights.safetensors").is_file()
    assert (save / "adapter" / "view_tokens" / "back.safetensors").is_file()
    assert len(list((save / "it4-test").glob("*.png"))) == 3
    first, last = parameters(trial, 2), parameters(trial, 4)
    moved = {key.split(".")[0] for key in first if not torch.equal(first[key].float(), last[key].float())}
    assert {"geometry", "guidance"} <= moved
    kinds = {".".join(key.split(".")[:2]) for key in first if key.startswith("guidance")}
    assert kinds == {"guidance.lora", "guidance.camera_embedding", "guidance.delta_products"}
    with (trial / "csv_logs" / "version_0" / "metrics.csv").open(encoding="utf-8") as file:
        header = file.readline()
    for name in ("loss_vsd", "loss_lora", "loss_prior_rgb", "loss_prior_mask", "grad_norm"):
        assert f"train/{name}" in header


def test_a_mesh_of_ones_own_takes_the_place_of_search(here, tiny_model):
    shutil.copy(next((ROOT / "retrieval_index" / "mini" / "assets").glob("teapot-red*.glb")), here / "scan.glb")
    own = ["system.retrieval.asset=scan.glb", "system.retrieval.asset_caption=a red teapot"]
    assert launch(tiny_model, "trainer.max_steps=3", *own, "data.eval_batch_size=2") == 0
    save = here / "outputs/redream/small/save"
    found = json.loads((save / "retrieved" / "retrieved.json").read_text("utf-8"))
    assert [(row["caption"], row["reliability"]) for row in found["references"]] == [("a red teapot", 1.0)]
    assert (save / "adapter" / "pytorch_lora_weights.safetensors").is_file()
    assert len(list((save / "it3-test").glob("*.png"))) == 3, "two views at a time, and every one is kept"
    assert Image.open(save / "it3-val.png").width == 2 * 24
    # Another front makes other renders, and so another adaptation.
    (here / "scan.glb.json").write_text('{"front": "-x"}')
    assert launch(tiny_model, "trainer.max_steps=1", "tag=turned", *own) == 0
    assert len(list((here / ".redream_cache" / "adaptation").glob("*/adaptation.json"))) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["system.adaptation.rank=8"], "adapter_rank"),
        (["system.prompt_processor.use_perp_neg=true"], "view_guidance_scale: null"),
        (["system.loss.lambda_prior_normal=1.0"], "return_comp_normal: true"),
        (["system.guidance.image_loss=true"], "lambda_image is missing"),
        (["trainer.accumulate_grad_batches=4"], "data.batch_size"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_retrieved(here, tiny_model, capsys, arguments, said):
    assert launch(tiny_model, "trainer.max_steps=1", *arguments) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (here / "outputs/redream/small/save/retrieved").exists()


def test_a_resumed_run_ends_with_the_same_bits(here, tiny_model):
    assert launch(tiny_model, "trainer.max_steps=4") == 0
    whole = parameters(here / "outputs/redream/small", 4)
    shutil.rmtree(here / ".redream_cache")
    assert launch(tiny_model, "trainer.max_steps=2", "tag=parts") == 0
    assert launch(tiny_model, "trainer.max_steps=4", "tag=parts", "resume=last") == 0
    parts = parameters(here / "outputs/redream/parts", 4)
    assert whole.keys() == parts.keys()
    for key in whole:
        assert torch.equal(whole[key], parts[key]), key


def test_the_adaptation_is_kept_by_its_content(here, tiny_model, monkeypatch):
    calls, adapt = [], preparation.adapt
    monkeypatch.setattr(preparation, "adapt", lambda *a, **k: calls.append(0) or adapt(*a, **k))
    assert launch(tiny_model, "trainer.max_steps=1") == 0
    first = parameters(here / "outputs/redream/small", 1)
    assert launch(tiny_model, "trainer.max_steps=1", "tag=again") == 0
    assert len(calls) == 1
    again = parameters(here / "outputs/redream/again", 1)
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert launch(tiny_model, "trainer.max_steps=1", "tag=other", "system.adaptation.lr=0.01") == 0
    assert len(calls) == 2
    kept = next((here / ".redream_cache" / "adaptation").glob("*/pytorch_lora_weights.safetensors"))
    for path in (here / ".redream_cache" / "adaptation").glob("*/pytorch_lora_weights.safetensors"):
        path.write_bytes(b"damaged")
    assert launch(tiny_model, "trainer.max_steps=1", "tag=mended") == 0
    assert len(calls) == 3
    mended = parameters(here / "outputs/redream/mended", 1)
    assert all(torch.equal(value, mended[key]) for key, value in first.items())
    assert kept.exists()


def test_without_assets_it_is_the_vsd_baseline_bit_by_bit(here, tiny_model, capsys):
    assert launch(tiny_model, "trainer.max_steps=3", "system.retrieval.enabled=false") == 0
    alone = parameters(here / "outputs/redream/small", 3)
    names = [f"system.{part}.pretrained_model_name_or_path={tiny_model}" for part in ("guidance", "prompt_processor")]
    small = [word for word in SMALL if "adaptation" not in word and "references" not in word]
    same = ["trainer.max_steps=3", "system.prompt_processor.prompt=a blue robot"]
    assert main(["--config", VSD, "--gpu", "cpu", *small, *names, *same]) == 0
    other = parameters(here / "outputs/prolificdreamer-mini/small", 3)
    for key, value in other.items():
        assert torch.equal(value, alone[key]), key
    # An asset that does not resemble the prompt is retrieved, named, and not used.
    name = next(r.asset_id for r in Index.open(ROOT / "retrieval_index/mini").records() if r.asset_id[:6] == "teapot")
    assert launch(tiny_model, "trainer.max_steps=3", "tag=wrong", f"system.retrieval.asset_ids=[{name}]") == 0
    assert "No asset resembles the prompt" in _words(capsys)
    fallen_back = parameters(here / "outputs/redream/wrong", 3)
    for key, value in alone.items():
        assert torch.equal(value, fallen_back[key]), key
    assert not (here / "outputs/redream/wrong/save/adapter").exists()


def test_a_guidance_that_cannot_be_adapted_is_named(here, tiny_model, capsys):
    sds = (Path(CONFIG).read_text("utf-8")).replace("redream-guidance", "redream-sds-guidance")
    sds = without(sds, "delta_every", "delta_until", "adapter_gate")
    (here / "sds.yaml").write_text(sds, encoding="utf-8")
    names = [f"system.{part}.pretrained_model_name_or_path={tiny_model}" for part in ("guidance", "prompt_processor")]
    more = ["trainer.max_steps=1", "system.loss.lambda_sds=1"]
    assert main(["--config", str(here / "sds.yaml"), "--gpu", "cpu", *SMALL, *names, *more]) == 2
    assert "cannot be adapted" in _words(capsys)
