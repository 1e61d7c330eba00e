"""Files of upstream threestudio itself, unchanged, on this runtime; THREESTUDIO_DIR names a checkout of it."""

import ast
import importlib
import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from foreign import workspace

from threestudio_redream.runtime import registry
from threestudio_redream.runtime.checkpoint import newest_checkpoint, read_checkpoint
from threestudio_redream.runtime.extensions import load_custom_modules
from threestudio_redream.runtime.launch import main
from threestudio_redream.runtime.stand_in import table

BASELINE = Path(__file__).resolve().parents[2] / "custom_configs" / "baselines" / "dreamfusion.yaml"
CHECKOUT = Path(os.environ.get("THREESTUDIO_DIR") or "no-checkout")
pytestmark = [
    pytest.mark.skipif(not CHECKOUT.is_dir(), reason="needs a checkout of upstream threestudio in THREESTUDIO_DIR"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of others' code
]

#: File of upstream -> the name that it registers.
COPIED = {
    "models/guidance/stable_diffusion_guidance.py": "stable-diffusion-guidance",
    "models/guidance/stable_diffusion_vsd_guidance.py": "stable-diffusion-vsd-guidance",
    "models/geometry/implicit_sdf.py": "implicit-sdf",
    "models/geometry/volume_grid.py": "volume-grid",
    "models/prompt_processors/stable_diffusion_prompt_processor.py": "stable-diffusion-prompt-processor",
    "systems/dreamfusion.py": "dreamfusion-system",
    "systems/prolificdreamer.py": "prolificdreamer-system",
}
SMALL = [
    "--gpu",
    "cpu",
    "use_timestamp=false",
    "tag=run",
    "trainer.precision=32",
    "data.n_test_views=2",
    "data.eval_height=16",
    "data.eval_width=16",
    "system.prompt_processor.prompt='a red cat'",
    "system.renderer.num_samples_per_ray=32",
    "system.guidance.half_precision_weights=false",
]


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A working folder that knows no checkout."""
    monkeypatch.delenv("THREESTUDIO_DIR")
    with workspace(tmp_path, monkeypatch) as folder:
        yield folder


def models(path, *also):
    return [f"system.{part}.pretrained_model_name_or_path={path}" for part in ("guidance", "prompt_processor", *also)]


def copied(folder, *names):
    for name in names:
        shutil.copy(CHECKOUT / "threestudio" / name, folder / "custom")
    return {outcome.path.name: outcome.error for outcome in load_custom_modules()}


def config(name):
    return str(CHECKOUT / "configs" / name)


def test_copies_load_and_register(host):
    assert set(copied(host, *COPIED).values()) == {None}
    for file, name in COPIED.items():
        assert registry.find(name).__module__ == Path(file).stem, "the copy, not an alias"


def test_a_copy_that_needs_another_module_of_upstream_says_so(host):
    (error,) = copied(host, "models/geometry/tetrahedra_sdf_grid.py").values()
    assert "threestudio.models.geometry.implicit_sdf" in error
    assert "THREESTUDIO_DIR" in error


def test_sds_guidance_drives_our_system(host, tiny_epsilon_model):
    copied(host, "models/guidance/stable_diffusion_guidance.py")
    values = yaml.safe_load(BASELINE.read_text(encoding="utf-8"))
    values["system"] |= {
        "guidance_type": "stable-diffusion-guidance",
        "guidance": {"pretrained_model_name_or_path": str(tiny_epsilon_model)},
        "view_scores": {"every": 0},
    }
    Path("sds.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    size = ["data.width=16", "data.height=16", "system.export_after_training=false", "trainer.max_steps=3"]
    assert main(["--config", "sds.yaml", *SMALL, *size]) == 0
    assert newest_checkpoint(Path("outputs/dreamfusion-mini/run/ckpts")).stem == "epoch=0-step=3"


def test_a_geometry_of_upstream_in_our_baseline(host):
    copied(host, "models/geometry/volume_grid.py")
    values = yaml.safe_load(BASELINE.read_text(encoding="utf-8"))
    values["system"] |= {
        "geometry_type": "volume-grid",
        "geometry": {"radius": 0.55, "grid_size": [24, 24, 24], "n_feature_dims": 3},
        "view_scores": {"every": 0},
    }
    values["system"]["optimizer"]["params"] = {"geometry.grid": {"lr": 0.01}}
    Path("grid.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    size = [
        "data.width=32",
        "data.height=32",
        "trainer.max_steps=3",
        "system.exporter={resolution: 24, texture_size: 64}",
    ]
    ours = [argument for argument in SMALL if "half_precision" not in argument]
    assert main(["--config", "grid.yaml", *ours, *size]) == 0
    assert list(Path("outputs").rglob("model.glb")), "and its surface is exported"


def test_everything_is_upstreams_and_sds_runs(host, tiny_epsilon_model):
    copied(host, *COPIED)
    values = yaml.safe_load(Path(config("dreamfusion-sd.yaml")).read_text(encoding="utf-8"))
    values["system"] |= {
        "geometry_type": "volume-grid",
        "geometry": {"radius": 2.0, "grid_size": [16, 16, 16], "n_feature_dims": 3},
        "material_type": "no-material",
        "material": {"n_output_dims": 3, "color_activation": "sigmoid"},
    }
    values["system"]["optimizer"]["params"] = {"geometry.grid": {"lr": 0.01}}
    values["system"]["loss"]["lambda_orient"] = 0.0
    Path("grid.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    size = ["data.width=16", "data.height=16", "trainer.max_steps=3"]
    assert main(["--config", "grid.yaml", *SMALL, *models(tiny_epsilon_model), *size]) == 0
    state = read_checkpoint(newest_checkpoint(Path("outputs/dreamfusion-sd/run/ckpts")))["state_dict"]
    assert "geometry.grid" in state


def test_vsd_runs_with_the_checkout_as_source(tmp_path, monkeypatch, tiny_epsilon_model):
    import torch
    from diffusers import UNet2DConditionModel

    shutil.copytree(tiny_epsilon_model, tmp_path / "model")
    torch.manual_seed(0)
    unet = UNet2DConditionModel(  # VSD's camera embedding is 1280 wide: four times the first block
        sample_size=64,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(320, 64),
        layers_per_block=1,
        cross_attention_dim=16,
        norm_num_groups=8,
    )
    unet.save_pretrained(tmp_path / "model" / "unet")
    size = ["data.width=[16,16]", "data.height=[16,16]", "trainer.max_steps=1"]
    lora = f"system.guidance.pretrained_model_name_or_path_lora={tmp_path / 'model'}"
    with workspace(tmp_path, monkeypatch):
        arguments = ["--config", config("prolificdreamer.yaml"), *SMALL, *models(tmp_path / "model"), lora, *size]
        assert main(arguments) == 0
        state = read_checkpoint(newest_checkpoint(Path("outputs/prolificdreamer/run/ckpts")))["state_dict"]
    moved = [value for key, value in state.items() if "lora_layers" in key and key.endswith("up.weight")]
    assert moved
    assert any(value.abs().max() > 0 for value in moved)


# --- the whole of it --------------------------------------------------------------------------------


def modules():
    root = CHECKOUT / "threestudio"
    for path in sorted(root.rglob("*.py")) if root.is_dir() else ():
        parts = path.relative_to(CHECKOUT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def is_absent(module):
    return any(module == known or module.startswith(f"{known}.") for known in table.ABSENT)


def test_the_table_knows_every_module_and_every_name_that_is_imported():
    unknown = [module for module, _ in modules() if module not in table.PROVIDED and not is_absent(module)]
    assert not unknown
    for module, path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            wanted = getattr(node, "module", None) or ""
            if not isinstance(node, ast.ImportFrom) or node.level or not wanted.startswith("threestudio."):
                continue
            for name in (alias.name for alias in node.names):
                here = table.PROVIDED.get(wanted, {})
                known = name == "*" or name in here or f"{wanted}:{name}" in table.ABSENT_NAMES
                typing = wanted == "threestudio.utils.typing"
                child = f"{wanted}.{name}"
                assert known or typing or is_absent(wanted) or child in table.PROVIDED, (module, wanted, name)


def test_every_registered_name_is_here_or_known(host):
    for module, path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for item in getattr(node, "decorator_list", []):
                if isinstance(item, ast.Call) and ast.unparse(item.func).endswith("register"):
                    name = ast.literal_eval(item.args[0])
                    known = table.REGISTERED_UPSTREAM.get(name)
                    assert name in registry.registered_names() or f"threestudio.{known[0]}" == module, name


@pytest.mark.parametrize("module", [name for name in table.ABSENT if "GAN" not in name])
def test_an_absent_module_comes_from_the_checkout_or_lacks_a_package(module, tmp_path, monkeypatch):
    if module == "threestudio.scripts":
        pytest.skip("a folder of programs")
    missing = None
    with workspace(tmp_path, monkeypatch):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            missing = error
        for name in [name for name in sys.modules if name.startswith("threestudio.")]:
            del sys.modules[name]
    if missing is not None and missing.name is None:  # ours
        assert any(f"'{name.replace(':', '.')}'" in str(missing) for name in table.ABSENT_NAMES)
    elif missing is not None:
        assert missing.name.split(".")[0] not in ("threestudio", "threestudio_redream", "extern")
