"""A field pulled towards a prompt, on a randomly initialised model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from threestudio_redream.runtime.checkpoint import read_checkpoint
from threestudio_redream.runtime.data.random_camera import RandomCameraDataModule
from threestudio_redream.runtime.device import set_device
from threestudio_redream.runtime.launch import main
from threestudio_redream.systems.regularisers import regularisers
from threestudio_redream.systems.score_distillation import ScoreDistillationSystem, depth_map, overhead_batch

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "custom_configs" / "baselines" / "dreamfusion.yaml")
SMALL = [
    "use_timestamp=false",
    "tag=small",
    "data.eval_height=24",
    "data.eval_width=24",
    "data.n_val_views=2",
    "data.n_test_views=3",
    "system.geometry.pos_encoding_config.n_levels=3",
    "system.geometry.pos_encoding_config.log2_hashmap_size=10",
    "system.renderer.num_samples_per_ray=16",
    "system.export_after_training=false",
    "system.guidance.guidance_scale=2",
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


def _words(capsys):
    out = capsys.readouterr()
    return " ".join((out.out + out.err).split())


def parameters(trial, step):
    state = read_checkpoint(next((trial / "ckpts").glob(f"*step={step}.safetensors")))
    return state["state_dict"]


def test_a_run_moves_the_field_and_leaves_pictures(here, tiny_model):
    assert launch(tiny_model, "trainer.max_steps=4") == 0
    trial = here / "outputs/dreamfusion-mini/small"
    assert len(list((trial / "save" / "it4-test").glob("*.png"))) == 3
    assert (trial / "save" / "it4-test.mp4").stat().st_size > 0
    views = [Image.open(trial / "save" / name / "0.png") for name in ("it4-test", "it4-overhead")]
    assert views[0].size == views[1].size == (24, 24)
    assert views[0].tobytes() != views[1].tobytes()
    depth = np.asarray(Image.open(trial / "save" / "it4-depth" / "1.png"))
    assert depth.dtype == np.uint16
    assert 0.1 < depth[12, 12] / 65535 < 0.6  # the camera's distance is one half
    assert (trial / "save" / "it3-val.png").is_file()
    first, last = parameters(trial, 2), parameters(trial, 4)
    moved = [key for key in first if not torch.equal(first[key].float(), last[key].float())]
    assert any("encoding" in key for key in moved)
    assert any("feature_network" in key for key in moved)
    assert not any(key.startswith(("guidance", "prompt")) for key in first)  # frozen models are not in checkpoints


def test_a_depth_map_is_in_units_of_twice_the_distance():
    opacity = torch.tensor([1.0, 0.5, 0.0]).view(1, 1, 3, 1)
    out = {"opacity": opacity, "depth": opacity * 1.2}
    found = depth_map(out, {"camera_distances": torch.tensor([1.5])})
    np.testing.assert_array_equal(found, np.uint16([[[26214, 26214, 0]]]))


def test_the_overhead_view_is_the_same_camera_raised():
    given = {"n_test_views": 5, "eval_height": 6, "eval_width": 8, "eval_camera_distance": 2.5, "eval_fovy_deg": 35.0}
    low, high = (RandomCameraDataModule({**given, "eval_elevation_deg": angle}) for angle in (10.0, 75.0))
    for module in (low, high):
        module.setup("test")
    items = [{"index": 1}, {"index": 3}]
    raised = overhead_batch(low.test_dataset.collate(items))
    expected = high.test_dataset.collate(items)
    assert raised.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(torch.as_tensor(raised[key]), torch.as_tensor(value))


def test_a_resumed_run_ends_with_the_same_bits(here, tiny_model):
    assert launch(tiny_model, "trainer.max_steps=4") == 0
    whole = parameters(here / "outputs/dreamfusion-mini/small", 4)
    assert launch(tiny_model, "trainer.max_steps=2", "tag=parts") == 0
    assert launch(tiny_model, "trainer.max_steps=4", "tag=parts", "resume=last") == 0
    parts = parameters(here / "outputs/dreamfusion-mini/parts", 4)
    assert whole.keys() == parts.keys()
    for key in whole:
        assert torch.equal(whole[key], parts[key]), key


def test_a_loss_without_a_weight_is_an_error(here, tiny_model, capsys):
    config = (Path(CONFIG).read_text("utf-8")).replace("    lambda_sds: 1.0\n", "")
    (here / "no-weight.yaml").write_text(config, encoding="utf-8")
    names = [f"system.{part}.pretrained_model_name_or_path={tiny_model}" for part in ("guidance", "prompt_processor")]
    assert main(["--config", str(here / "no-weight.yaml"), "--gpu", "cpu", *SMALL, *names, "trainer.max_steps=1"]) == 2
    assert "lambda_sds is missing" in _words(capsys)


def test_a_loss_that_is_not_finite_stops_the_run(here, tiny_model, monkeypatch, capsys):
    nan = torch.full((), float("nan"))
    monkeypatch.setattr("threestudio_redream.guidance.sds.sds_loss", lambda latents, grad: latents.sum() * nan)
    monkeypatch.setattr("threestudio_redream.guidance.sds.pixel_loss", lambda images, *_: images.sum() * nan)
    assert launch(tiny_model, "trainer.max_steps=1") == 2
    said = _words(capsys)
    assert "The loss became nan at step 0" in said
    assert "Lower the learning rate" in said


def test_regularisers():
    opacity = torch.tensor([0.0, 0.5, 1.0, 1.0]).view(1, 2, 2, 1)
    out = {"opacity": opacity, "z_variance": torch.tensor([9.0, 9.0, 0.1, 0.3]).view(1, 2, 2, 1)}
    terms = regularisers(out)
    assert terms["z_variance"].item() == pytest.approx(0.2)
    assert terms["sparsity"].item() == pytest.approx(float((opacity**2 + 0.01).sqrt().mean()))
    halves = regularisers({**out, "opacity": torch.full_like(opacity, 0.5)})["opaque"]
    assert halves.item() == pytest.approx(0.6931, abs=1e-3)
    assert halves > terms["opaque"]
    assert "orient" not in terms
    assert set(regularisers({"opacity": opacity})) == {"sparsity", "opaque"}  # a rasteriser's


def test_a_penalty_that_the_renderer_has_nothing_for_is_named(here, tiny_model, capsys):
    few = ["trainer.max_steps=1", "system.geometry.normal_type=none", "system.renderer.return_comp_normal=false"]
    assert launch(tiny_model, *few, "system.loss.lambda_orient=1.0") == 2
    said = _words(capsys)
    assert "lambda_orient has a weight" in said
    assert "normal_type" in said


def test_opacities_are_judged_in_full_precision_under_autocast():
    out = {"opacity": torch.full((1, 2, 2, 1), 0.3), "z_variance": torch.zeros(1, 2, 2, 1)}
    plain = regularisers(out)["opaque"]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = regularisers(out)["opaque"]
    assert mixed.dtype is torch.float32
    assert torch.equal(mixed, plain)


def test_normals_seen_from_behind_are_penalised():
    out = {
        "opacity": torch.ones(1, 1, 1, 1),
        "z_variance": torch.zeros(1, 1, 1, 1),
        "normal": torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]]),
        "t_dirs": torch.tensor([[1.0, 0, 0], [1.0, 0, 0]]),
        "weights": torch.tensor([[0.25], [0.75]]),
    }
    assert regularisers(out)["orient"].item() == pytest.approx(0.25)


def test_backgrounds_follow_the_configured_range():
    assert ScoreDistillationSystem.Config().background_range == (0.42, 0.8)
