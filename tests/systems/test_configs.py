"""Every shipped configuration runs: two steps, then test, on a CPU; every overlay fits what it is for.

There is no list of exceptions: a configuration is what has a ``system_type``, and what has none lies over one.
"""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from threestudio_redream.preflight import preflight
from threestudio_redream.runtime import find
from threestudio_redream.runtime.checkpoint import newest_checkpoint
from threestudio_redream.runtime.config import load_config
from threestudio_redream.runtime.device import set_device
from threestudio_redream.runtime.launch import main
from threestudio_redream.runtime.out_of_memory import advice
from threestudio_redream.runtime.schedule import C

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "custom_configs"
FILES = sorted(FOLDER.rglob("*.yaml"))
CONFIGS = [path for path in FILES if "system_type" in OmegaConf.load(path)]
OVERLAYS = [path for path in FILES if path not in CONFIGS]
FULL_SCALE = [path for path in CONFIGS if path.stem.endswith("-sd21")]
ABLATIONS, MEMORY, MIXING = (
    [path for path in OVERLAYS if path.parent.name == name] for name in ("ablations", "memory", "mixing")
)
REDREAM, REDREAM_SD21 = FOLDER / "redream.yaml", FOLDER / "redream-sd21.yaml"
MODEL_KEYS = ("pretrained_model_name_or_path", "particle_model_name_or_path")
QUICK = [
    "use_timestamp=false",
    "tag=smoke",
    "trainer.max_steps=2",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=2",
    "trainer.limit_predict_batches=0",  # two steps leave nothing to export
]
SMALL = [  # a full-scale configuration on a tiny model
    "data.width=[16,16]",
    "data.height=[16,16]",
    "data.eval_width=16",
    "data.eval_height=16",
    "system.prompt_processor.prompt='a red cat'",
    "system.guidance.weights_dtype=float32",
    "system.geometry.pos_encoding_config.log2_hashmap_size=12",
    "system.renderer.num_samples_per_ray=64",
]


def relative(path):
    return str(path.relative_to(FOLDER))


def short(config, model):
    """Overrides that a laptop can bear."""
    wanted = []
    if config in FULL_SCALE:
        wanted += [*SMALL, f"model={model}"]
    if OmegaConf.load(config).system_type == "redream-system":
        wanted += [
            "system.adaptation.steps=2",
            "system.adaptation.probe_every=0",
            "system.references.views_per_asset=8",
        ]
        if config in FULL_SCALE:
            wanted += ["system.retrieval.index=retrieval_index/mini", "system.references.resolution=64"]
    return wanted


def test_there_are_configurations_and_every_overlay_has_a_place():
    assert CONFIGS
    assert len(FULL_SCALE) == 3
    assert {path.stem for path in MEMORY} == {"8g", "12g", "24g"}
    assert ABLATIONS
    assert {path.stem for path in MIXING} == {"refine", "with-sds"}
    assert sorted(OVERLAYS) == sorted([*ABLATIONS, *MEMORY, *MIXING])


@pytest.mark.parametrize("config", CONFIGS, ids=relative)
def test_configuration_runs(config, tmp_path, monkeypatch, tiny_epsilon_model):
    monkeypatch.chdir(tmp_path)
    overrides = [*QUICK, *short(config, tiny_epsilon_model), f"exp_root_dir={tmp_path}"]
    try:
        assert main(["--config", str(config), "--gpu", "cpu", *overrides]) == 0
    finally:
        set_device(None)
    trial = next(path.parent for path in tmp_path.rglob("ckpts"))
    assert newest_checkpoint(trial / "ckpts").stem.endswith("step=2")
    assert (trial / "configs" / "parsed.yaml").is_file()


@pytest.mark.parametrize("overlay", MIXING, ids=relative)
def test_a_mixture_runs(overlay, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = [*QUICK, *short(REDREAM, None), f"exp_root_dir={tmp_path}", "trainer.log_every_n_steps=1"]
    added = []
    try:
        if overlay.stem == "refine":
            assert main(["--config", str(REDREAM), "--gpu", "cpu", *common, "checkpoint.every_n_train_steps=1"]) == 0
            added = [f"system.weights={newest_checkpoint(tmp_path / 'redream' / 'smoke' / 'ckpts')}"]
        else:
            added = ["system.guidances.0.weight=0.5"]
        files = ["--config", str(REDREAM), "--config", str(overlay)]
        assert main([*files, "--gpu", "cpu", *common, *added]) == 0
    finally:
        set_device(None)
    trial = tmp_path / f"redream-{overlay.stem}" / "smoke"
    header = next(trial.glob("csv_logs/version_*/metrics.csv")).read_text().splitlines()[0]
    assert ("loss_sds" in header) == (overlay.stem == "with-sds")


# ---------------------------------------------------------------------- models
def model_names(node, where=""):
    """Value of every key that names a model, by its place, as written in the file."""
    found = {}
    for key, value in node.items():
        if isinstance(value, dict):
            found |= model_names(value, f"{where}{key}.")
        elif key in MODEL_KEYS and value is not None:
            found[f"{where}{key}"] = value
    return found


@pytest.mark.parametrize("config", [path for path in CONFIGS if path.stem != "fit-asset"], ids=relative)
def test_a_model_is_named_in_one_place(config, tmp_path):
    written = model_names(OmegaConf.to_container(OmegaConf.load(config)))
    assert [value for value in written.values() if not value.startswith("${")] in (["mini"], ["sd21-base"])
    overrides = ["model=another/model", f"exp_root_dir={tmp_path}", "system.prompt_processor.prompt=x"]
    names = model_names(OmegaConf.to_container(load_config(config, cli_args=overrides).system))
    assert set(names.values()) == {"another/model"}
    assert len(names) == 2


# ---------------------------------------------------------------------- full scale
def test_the_baselines_of_full_scale_differ_in_the_objective_alone():
    def plain(path):
        cfg = OmegaConf.load(path)
        system = cfg.system
        for part in ("retrieval", "references", "adaptation", "guidance_type"):
            system.pop(part, None)
        for key in list(system.guidance):
            if key.startswith(("adapter_", "delta_", "lora_", "camera_", "particle_", "guidance_scale", "memory")):
                system.guidance.pop(key)
        for key in ("vsd", "lora", "sds", "prior_rgb", "prior_mask"):
            system.loss.pop(f"lambda_{key}", None)
        system.optimizer.params.pop("guidance", None)
        for key in ("name", "system_type"):
            cfg.pop(key)
        return OmegaConf.to_container(cfg)

    ours, *baselines = (plain(path) for path in (REDREAM_SD21, *(p for p in FULL_SCALE if p != REDREAM_SD21)))
    assert len(baselines) == 2
    for other in baselines:
        assert other == ours


def test_the_schedules_of_full_scale_turn_at_the_published_steps():
    cfg = OmegaConf.load(REDREAM_SD21)
    at = lambda key, step: C(OmegaConf.select(cfg, key), 0, step)  # noqa: E731
    top, opaque = "system.guidance.max_step_percent", "system.loss.lambda_opaque"
    prior, mask = "system.loss.lambda_prior_rgb", "system.loss.lambda_prior_mask"
    assert [at(top, step) for step in (0, 5000, 5001, 24999)] == [0.98, 0.98, 0.5, 0.5]
    assert [at(opaque, step) for step in (0, 10000, 10001)] == [0.0, 0.0, 1000.0]
    assert [at(prior, step) for step in (0, 2500, 3750, 5000, 9000)] == [1000.0, 1000.0, 500.0, 0.0, 0.0]
    assert [at(mask, step) for step in (0, 2500, 3750, 5000)] == [100.0, 100.0, 50.0, 0.0]
    data = find(cfg.data_type)({**cfg.data, "n_test_views": 2})
    data.setup("fit")
    sizes = []
    for step in (4999, 5000):
        data.train_dataset.update_step(0, step)
        sizes.append((data.train_dataset.width, data.train_dataset.height, data.train_dataset.batch_size))
    assert sizes == [(64, 64, 1), (512, 512, 1)]


# ---------------------------------------------------------------------- overlays
@pytest.mark.parametrize("preset", MEMORY, ids=relative)
@pytest.mark.parametrize("config", FULL_SCALE, ids=relative)
def test_a_memory_preset_fits_every_full_scale_configuration(config, preset, tmp_path, monkeypatch, tiny_epsilon_model):
    monkeypatch.chdir(tmp_path)
    few = [f"model={tiny_epsilon_model}", "system.prompt_processor.prompt=x", f"exp_root_dir={tmp_path}"]
    if config == REDREAM_SD21:
        few.append("system.retrieval.index=retrieval_index/mini")
    alone, cfg = load_config(config, cli_args=few), load_config(config, preset, cli_args=few)
    assert preflight(cfg)
    assert max(cfg.data["width"]) < max(alone.data["width"])
    assert cfg.system["renderer"]["num_samples_per_ray"] < alone.system["renderer"]["num_samples_per_ray"]
    assert not any("checkpointing" in line or "float16" in line for line in advice(cfg))
    try:
        set_device("cpu")
        system = find(cfg.system_type)(cfg.system)
    finally:
        set_device(None)
    model = system.guidance.model
    assert str(model.unet.dtype) == "torch.float16"
    assert model.vae.use_slicing
    assert model.vae.encoder.gradient_checkpointing
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.unet.modules())


def test_the_presets_are_in_order():
    sizes = {path.stem: OmegaConf.load(path) for path in MEMORY}
    work = {name: cfg.data.width[-1] ** 2 * cfg.system.renderer.num_samples_per_ray for name, cfg in sizes.items()}
    assert work["8g"] < work["12g"] < work["24g"]


@pytest.mark.parametrize("overlay", ABLATIONS, ids=relative)
def test_an_ablation_configures_redream(overlay, tmp_path, monkeypatch, tiny_model):
    monkeypatch.chdir(tmp_path)
    names = [f"model={tiny_model}", f"exp_root_dir={tmp_path}"]
    whole, cfg = load_config(REDREAM, cli_args=names), load_config(REDREAM, overlay, cli_args=names)
    assert cfg.name == f"redream-{overlay.stem}"
    assert cfg.system != whole.system
    preflight(cfg)
    try:
        set_device("cpu")
        system = find(cfg.system_type)(cfg.system)
    finally:
        set_device(None)
    changed = {
        "retrieval": not system._retrieval_on,
        "adaptation": not system._adaptation_on,
        "tokens": not system.adaptation_config.learn_tokens,
        "delta": system.guidance.cfg.delta_every == 0,
        "prior": not any(system.C(system.cfg.loss[f"lambda_prior_{name}"]) for name in ("rgb", "mask")),
        "assets": bool(system.retrieval_config.asset_ids),
    }
    expected = {
        "no-retrieval": {"retrieval"},
        "initialisation-only": {"adaptation", "delta"},
        "adaptation-only": {"delta", "prior"},
        "no-view-tokens": {"tokens"},
        "no-delta": {"delta"},
        "no-adaptation": {"adaptation"},
        "random-asset": {"assets"},
        "wrong-class-asset": {"assets"},
    }
    assert {name for name, value in changed.items() if value} == expected[overlay.stem]
    assert system.retrieval_config.gate
