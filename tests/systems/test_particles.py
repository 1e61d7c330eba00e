"""Several fields at once, several guidances at once, and what is watched while they train."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from threestudio_redream.errors import ConfigError, EmptySceneError
from threestudio_redream.runtime.checkpoint import read_checkpoint
from threestudio_redream.runtime.device import set_device
from threestudio_redream.runtime.launch import main
from threestudio_redream.systems.guard import GuardConfig, SceneGuard
from threestudio_redream.systems.mixing import MixedGuidances
from threestudio_redream.systems.particles import repulsion
from threestudio_redream.systems.view_scores import ViewScoreConfig, ViewScores

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "custom_configs" / "baselines" / "prolificdreamer.yaml")
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
    "trainer.val_check_interval=3",
    "trainer.log_every_n_steps=1",
    "checkpoint.every_n_train_steps=2",
    "checkpoint.save_top_k=3",
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    set_device(None)


def launch(model, *arguments):
    names = [f"system.{part}.pretrained_model_name_or_path={model}" for part in ("guidance", "prompt_processor")]
    return main(["--config", CONFIG, "--gpu", "cpu", *SMALL, *names, *arguments])


def parameters(trial, step):
    return read_checkpoint(next((trial / "ckpts").glob(f"*step={step}.safetensors")))["state_dict"]


def logged(trial):
    with (trial / "csv_logs" / "version_0" / "metrics.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_particle_learns_and_leaves_pictures_and_a_mesh(here, tiny_model):
    few = ["trainer.max_steps=6", "system.particles=3", "system.export_after_training=true"]
    small = ["system.exporter.resolution=24", "system.exporter.texture_size=64", "system.exporter.target_faces=500"]
    assert launch(tiny_model, *few, *small, "system.loss.lambda_repulsion=1.0") == 0
    trial = here / "outputs/prolificdreamer-mini/small"
    for folder in ("", "p1/", "p2/"):
        assert len(list((trial / f"save/it6-test/{folder}").glob("*.png"))) == 3
        assert (trial / f"save/it6-export/{folder}model.glb").stat().st_size > 0
    assert (trial / "save/it6-test/p1.mp4").is_file()
    first, last = parameters(trial, 2), parameters(trial, 6)
    for name in ("geometry", "particles.p1.geometry", "particles.p2.geometry"):
        own = [key for key in first if key.startswith(f"{name}.encoding")]
        assert own
        assert any(not torch.equal(first[key], last[key]) for key in own), name
    # they start as different fields
    table = next(key for key in first if key.startswith("geometry.encoding"))
    assert not torch.equal(first[table], first[f"particles.p1.{table}"])
    opacity = np.asarray(Image.open(trial / "save/it6-opacity/0.png"))
    assert opacity.ndim == 2 or (opacity[..., 0] == opacity[..., 1]).all()


def test_one_particle_is_the_system_without_particles(here, tiny_model):
    assert launch(tiny_model, "trainer.max_steps=2") == 0
    assert not any(key.startswith("particles") for key in parameters(here / "outputs/prolificdreamer-mini/small", 2))


def test_particles_resume_with_the_same_bits(here, tiny_model):
    assert launch(tiny_model, "trainer.max_steps=4", "system.particles=2") == 0
    whole = parameters(here / "outputs/prolificdreamer-mini/small", 4)
    assert launch(tiny_model, "trainer.max_steps=2", "system.particles=2", "tag=parts") == 0
    assert launch(tiny_model, "trainer.max_steps=4", "system.particles=2", "tag=parts", "resume=last") == 0
    parts = parameters(here / "outputs/prolificdreamer-mini/parts", 4)
    assert all(torch.equal(value, parts[key]) for key, value in whole.items())


def test_particles_start_as_the_field_that_was_converted(here, tiny_model):
    assert launch(tiny_model, "trainer.max_steps=2", "tag=source") == 0
    source = here / "outputs/prolificdreamer-mini/source"
    still = [f"system.optimizer.params[{part}].lr=0.0" for part in ("geometry.encoding", "geometry.density_network")]
    more = ["trainer.max_steps=1", "checkpoint.every_n_train_steps=1", "tag=copies", "system.particles=2"]
    assert launch(tiny_model, *more, *still, f"system.geometry_convert_from={source}") == 0
    first, copies = parameters(source, 2), parameters(here / "outputs/prolificdreamer-mini/copies", 1)
    table = next(key for key in first if key.startswith("geometry.encoding"))
    assert torch.equal(copies[table], first[table])
    assert torch.equal(copies[f"particles.p1.{table}"], first[table])


def test_repulsion_pushes_renders_apart():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.rand(2, 2, 32, 32, 3, generator=generator)
    one.requires_grad_(True)
    before = (one - other).square().mean().item()
    assert repulsion(other, other).item() == 1.0
    repulsion(one, other).backward()
    with torch.no_grad():
        assert (one - 100.0 * one.grad - other).square().mean().item() > before


def sds(model, **keys):
    return {"type": "redream-sds-guidance", "pretrained_model_name_or_path": str(model), **keys}


def test_mixed_guidances_add_up(tiny_model):
    calls = []

    class Probe:
        def __call__(self, rgb, prompts, generator=None, **batch):
            calls.append((prompts, float(torch.rand((), generator=generator))))
            more = {"timesteps": torch.tensor([1, 2]), "eval": {}, "kind": "probe", "latents": None}
            return {"loss_sds": rgb.sum(), "grad_norm": torch.tensor([2.0]), **more}

    mixed = MixedGuidances([sds(tiny_model, weight=[0, 1.0, 3.0, 10], name="a"), sds(tiny_model, weight=0.5, name="b")])
    mixed._entries = {name: (Probe(), weight, None) for name, (_, weight, _) in mixed._entries.items()}
    mixed.do_update_step(0, 5)
    rgb = torch.ones(1, 2, 2, 3, requires_grad=True)
    total, figures = mixed(rgb, "prompts", {"lambda_sds": 2.0}, lambda n: torch.Generator().manual_seed(n))
    assert total.item() == pytest.approx((2.0 + 0.5) * 2.0 * 12.0)
    total.backward()
    assert torch.equal(rgb.grad, torch.full_like(rgb, 5.0))
    assert figures == {"a/loss_sds": 12.0, "a/grad_norm": 2.0, "b/loss_sds": 12.0, "b/grad_norm": 2.0}
    assert calls[0][1] != calls[1][1]  # each its own noise


def test_a_second_guidance_trains_with_its_own_parameters(here, tiny_model):
    vsd = f"{{type: redream-vsd-guidance, name: second, weight: 0.5, pretrained_model_name_or_path: {tiny_model}}}"
    plain = f"{{type: redream-sds-guidance, weight: 0.1, pretrained_model_name_or_path: {tiny_model}}}"
    mixed = [f"system.guidances=[{vsd}, {plain}]", "system.optimizer.params.guidances.lr=0.01"]
    assert launch(tiny_model, "trainer.max_steps=4", *mixed) == 0
    trial = here / "outputs/prolificdreamer-mini/small"
    first, last = parameters(trial, 2), parameters(trial, 4)
    own = [key for key in first if key.startswith("guidances.second.lora")]
    assert own
    assert any(not torch.equal(first[key], last[key]) for key in own)
    row = logged(trial)[0]
    assert {
        "train/second/loss_lora",
        "train/redream-sds-guidance/loss_sds",
        "grad_norm/geometry.encoding",
    } <= row.keys()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"type": "redream-sds-guidance"}], "needs type and weight"),
        ([{"weight": 1.0}], "needs type and weight"),
        ([{"type": "no-such-guidance", "weight": 1.0}], "no-such-guidance"),
    ],
)
def test_bad_entries_are_named(entries, message):
    with pytest.raises(Exception, match=message):
        MixedGuidances(entries)


def test_two_guidances_of_one_name_are_refused(tiny_model):
    with pytest.raises(ConfigError, match="one name"):
        MixedGuidances([sds(tiny_model, weight=1.0), sds(tiny_model, weight=1.0)])


def test_view_scores_tell_a_sound_turn_from_two_faces():
    from threestudio_redream.assets import load_asset, normalise
    from threestudio_redream.assets.rasteriser import AssetRenderer
    from threestudio_redream.cameras import orbit_c2w
    from threestudio_redream.retrieval.index.reader import Index

    index = Index.open(ROOT / "retrieval_index/mini")
    record = next(r for r in index.records() if "television" in r.name)
    renderer = AssetRenderer(normalise(load_asset(index.asset_path(record)), yaw_deg=-record.front_deg), supersample=2)
    azimuths = np.arange(8) * 45.0
    rgba = renderer(orbit_c2w(azimuths, [15.0] * 8, [1.46] * 8), np.full(8, 40.0), 64, 64).rgba
    images = torch.from_numpy(rgba[..., :3] + (1.0 - rgba[..., 3:]) * 0.6)
    sound = ViewScores(ViewScoreConfig(every=1), record.caption)
    assert sound.figures() == {}
    sound.look(images, torch.from_numpy(azimuths))
    assert sound.figures()["front_margin"] > 0.5
    assert set(sound.figures()) == {*(f"front_{45 * i:03d}" for i in range(8)), "front_margin"}
    janus = ViewScores(ViewScoreConfig(every=1), record.caption)
    janus.look(images[[0, 1, 2, 3, 0, 5, 6, 7]], torch.from_numpy(azimuths) - 360.0)
    assert abs(janus.figures()["front_margin"]) < 0.05
    assert [sound.due(step) for step in (0, 1)] == [True, True]


def test_view_scores_are_logged(here, tiny_model):
    assert launch(tiny_model, "trainer.max_steps=4", "system.view_scores.every=1") == 0
    assert any(key.startswith("train/front_") for key in logged(here / "outputs/prolificdreamer-mini/small")[-1])


def test_the_guard_gives_up_empty_scenes_and_keeps_the_evidence(tmp_path):
    guard = SceneGuard(GuardConfig(patience=3))

    def save(stem):
        (tmp_path / f"{stem}.png").write_bytes(b"")
        return tmp_path

    terms, fine = {"sds": torch.tensor(1.0)}, torch.tensor(1.0)
    for step, opacity in enumerate((0.0, 0.0, 0.2, 0.0, 0.0)):
        guard.check(step, terms, fine, opacity, save)
    with pytest.raises(EmptySceneError, match="Nothing is visible any more") as caught:
        guard.check(5, terms, fine, 0.0, save)
    assert "lambda_sparsity" in str(caught.value)
    assert (tmp_path / "it5-stopped.json").is_file()
    assert (tmp_path / "it5-stopped.png").is_file()
    with pytest.raises(EmptySceneError, match=r"became nan at step 7 \(terms: sds\)"):
        guard.check(7, {"sds": torch.tensor(float("nan")), "ok": fine}, torch.tensor(float("nan")), 0.5, save)
    assert "nan" in (tmp_path / "it7-stopped.json").read_text("utf-8")
    of_two = SceneGuard(GuardConfig(patience=3))
    for step in range(4):
        of_two.check(step, terms, fine, 0.2 if step % 2 else 0.0, save, step % 2)  # the other one is sound
    with pytest.raises(EmptySceneError, match="for 3 steps"):
        of_two.check(4, terms, fine, 0.0, save, 0)
    patient = SceneGuard(GuardConfig(patience=0))
    for step in range(5):
        patient.check(step, terms, fine, 1.0, save)


@pytest.mark.parametrize("keys", [{"empty_below": 0.9, "full_above": 0.5}, {"patience": -1}, {"full_above": 2.0}])
def test_bad_guards_are_named(keys):
    with pytest.raises(ConfigError, match="guard needs"):
        GuardConfig(**keys)
