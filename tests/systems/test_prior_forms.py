"""The forms of the 3D prior, their strength, fused assets and fields that start as one, through the launcher."""

import csv
from pathlib import Path

import pytest
import torch

from threestudio_redream.assets import load_asset
from threestudio_redream.runtime.checkpoint import read_checkpoint
from threestudio_redream.runtime.device import set_device
from threestudio_redream.runtime.launch import main
from threestudio_redream.systems import redream

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "custom_configs" / "redream.yaml")
FAST = [
    "use_timestamp=false",
    "data.width=24",
    "data.height=24",
    "system.adaptation.enabled=false",
    "system.geometry.pos_encoding_config.n_levels=3",
    "system.geometry.pos_encoding_config.log2_hashmap_size=10",
    "system.renderer.num_samples_per_ray=16",
    "system.export_after_training=false",
    "system.report=false",
    "trainer.limit_val_batches=0",
    "trainer.limit_test_batches=0",
    "trainer.log_every_n_steps=1",
    "checkpoint.every_n_train_steps=2",
]
NORMALS = ["system.geometry.normal_type=finite_difference", "system.renderer.return_comp_normal=true"]
FORMS = [
    *NORMALS,
    "system.loss.lambda_prior_rgb=1000.0",
    "system.loss.lambda_prior_normal=1.0",
    "system.loss.lambda_prior_latent=1.0",
    "system.loss.lambda_prior_occupancy=10.0",
    "system.prior_mixture=true",
    "system.occupancy={points: 500, resolution: 24}",
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    set_device(None)


def launch(model, tag, steps, *arguments):
    names = [f"tag={tag}", f"model={model}", f"trainer.max_steps={steps}"]
    return main(["--config", CONFIG, "--gpu", "cpu", *FAST, *names, *arguments])


def parameters(tag, step):
    folder = Path("outputs/redream") / tag / "ckpts"
    return read_checkpoint(next(folder.glob(f"*step={step}.safetensors")))["state_dict"]


def logged(tag, name):
    with (Path("outputs/redream") / tag / "csv_logs/version_0/metrics.csv").open(encoding="utf-8") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def words(capsys):
    out = capsys.readouterr()
    return " ".join((out.out + out.err).split())


def test_every_form_acts_and_a_resumed_run_ends_with_the_same_bits(here, tiny_model):
    assert launch(tiny_model, "whole", 4, *FORMS) == 0
    for name in redream.PRIORS:
        assert len(logged("whole", f"train/loss_{name}")) == 4
        assert min(logged("whole", f"train/loss_{name}")) > 0.0
    assert launch(tiny_model, "parts", 2, *FORMS) == 0
    assert launch(tiny_model, "parts", 4, *FORMS, "resume=last") == 0
    whole, parts = parameters("whole", 4), parameters("parts", 4)
    assert whole.keys() == parts.keys()
    for key in whole:
        assert torch.equal(whole[key], parts[key]), key


def test_forms_whose_schedule_has_ended_leave_no_trace(here, tiny_model):
    ended = [f"system.loss.lambda_{name}=[0, 1000.0, 0.0, 0]" for name in redream.PRIORS]
    assert launch(tiny_model, "ended", 2, *NORMALS, *ended) == 0
    off = [*NORMALS, "system.loss.lambda_prior_rgb=0.0", "system.loss.lambda_prior_mask=0.0"]
    assert launch(tiny_model, "without", 2, *off) == 0
    matched = [*FORMS, "system.prior_match.rho=[0, 10.0, 0.0, 0]", "system.loss.lambda_prior_occupancy=0.0"]
    assert launch(tiny_model, "matched", 2, *matched) == 0
    expected = parameters("without", 2)
    for tag in ("ended", "matched"):
        found = parameters(tag, 2)
        for key in expected:
            assert torch.equal(expected[key], found[key]), (tag, key)


def test_the_matched_prior_is_as_strong_as_asked(here, tiny_model, monkeypatch):
    seen = []
    match = redream.matched_factor

    def watched(prior, guidance, out, rho):
        factor = match(prior, guidance, out, rho)
        sizes = [
            sum(float(part.square().sum()) for part in grads if part is not None) ** 0.5
            for grads in (
                torch.autograd.grad(loss, [out["comp_rgb"], out["opacity"]], retain_graph=True, allow_unused=True)
                for loss in (factor * prior, guidance)
            )
        ]
        seen.append((sizes[0] / sizes[1], rho, float(factor)))
        return factor

    monkeypatch.setattr(redream, "matched_factor", watched)
    assert launch(tiny_model, "matched", 2, "system.prior_match.rho=[0, 4.0, 2.0, 1]") == 0
    assert [rho for _, rho, _ in seen] == [4.0, 2.0]
    assert [ratio for ratio, _, _ in seen] == pytest.approx([4.0, 2.0], rel=1e-3)
    assert logged("matched", "train/prior_factor") == pytest.approx([factor for _, _, factor in seen], rel=1e-4)


def test_fused_assets_are_one(here, tiny_model, monkeypatch):
    rendered, views = [], redream.AssetViews
    monkeypatch.setattr(redream, "AssetViews", lambda assets: rendered.append(assets) or views(assets))
    assert launch(tiny_model, "fused", 1, "system.fusion=fused") == 0
    ((fused,),) = rendered
    file = load_asset(Path("outputs/redream/fused/save/retrieved/fused.glb"))
    assert len(file.faces) == len(fused.faces)
    # glTF's (x, y, z) is (y, z, x) of the world
    assert file.vertices[:, 1].max() == pytest.approx(fused.vertices[:, 2].max(), abs=1e-5)
    assert [name.rpartition("-")[0] for name in fused.name.split(" + ")] == [
        "robot-green",
        "robot-wooden",
        "robot-checkered",
    ]


def test_a_field_starts_as_the_asset_that_was_retrieved(here, tiny_model, monkeypatch, capsys):
    searches, retrieve = [], redream.retrieve
    monkeypatch.setattr(redream, "retrieve", lambda *a: searches.append(a) or retrieve(*a))
    hard = [
        "system.geometry_type=retrieved-asset-initializer",
        "system.geometry.fit_steps=12",
        "system.geometry.fit={views: 8, resolution: 32, views_per_step: 4, rays_per_view: 64, samples: 24}",
        "system.loss.lambda_prior_rgb=0.0",
        "system.loss.lambda_prior_mask=0.0",
    ]
    assert launch(tiny_model, "hard", 2, *hard, "system.particles=2") == 0
    said = words(capsys)
    assert "starts as 'robot-green-" in said
    assert "starts as 'robot-wooden-" in said
    assert len(searches) == 1
    assert len(list(Path(".redream_cache/fields").glob("*.safetensors"))) == 2
    assert bool(parameters("hard", 2)["geometry.initialised"])
    assert launch(tiny_model, "hard", 4, *hard, "system.particles=2", "resume=last") == 0
    assert "starts as" not in words(capsys)
    assert launch(tiny_model, "whole", 4, *hard, "system.particles=2") == 0
    assert "taken from" in words(capsys)
    whole, parts = parameters("whole", 4), parameters("hard", 4)
    for key in whole:
        assert torch.equal(whole[key], parts[key]), key


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["system.loss.lambda_prior_normal=1.0"], "prior_normal needs normals"),
        (["system.loss.lambda_prior_depth=1.0"], "Unknown form of the 3D prior (got ['lambda_prior_depth'])"),
        (["system.fusion=mean"], "Unknown fusion of assets (got 'mean')"),
        (["system.prior_match.rho=[1, 2]"], "A schedule has the wrong length"),
        (["system.occupancy.points=0"], "occupancy needs points >= 1"),
        (["system.geometry_type=retrieved-asset-initializer", "system.geometry.n_feature_dims=4"], "three feature"),
    ],
)
def test_what_cannot_be_is_named(here, tiny_model, capsys, arguments, said):
    assert launch(tiny_model, "wrong", 1, *arguments) == 2
    assert said in words(capsys)
