"""BaseObject, BaseModule, Updateable, optimizers and systems, piece by piece."""

import ctypes
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from threestudio_redream.errors import CheckpointError, ConfigError
from threestudio_redream.runtime.base import (
    BaseModule,
    BaseObject,
    Updateable,
    update_end_if_possible,
    update_if_possible,
)
from threestudio_redream.runtime.checkpoint import write_checkpoint
from threestudio_redream.runtime.config import load_config
from threestudio_redream.runtime.device import cleanup
from threestudio_redream.runtime.optim import get_parameters, parse_optimizer, parse_scheduler
from threestudio_redream.runtime.system import BaseLift3DSystem, BaseSystem


class Clock(BaseObject):
    @dataclass
    class Config(BaseObject.Config):
        start: int = 0

    def configure(self, extra=None):
        self.extra, self.seen = extra, []

    def update_step(self, epoch, global_step, on_load_weights=False):
        self.seen.append(("step", epoch, global_step, on_load_weights))

    def update_step_end(self, epoch, global_step):
        self.seen.append(("end", epoch, global_step))


class Holder(BaseModule):
    def configure(self):
        self.part = Clock({"start": 1}, extra="x")
        self._hidden = Clock()
        self.inside = [Clock()]
        self.layer = nn.Linear(2, 2)

    @property
    def shown(self):
        return self.part

    @property
    def unreadable(self):
        raise RuntimeError("not yet")


def test_clock_reaches_public_attributes_and_properties_only():
    holder = Holder()
    assert holder.part.extra == "x"
    update_if_possible(holder, 1, 5)
    update_end_if_possible(holder, 1, 6)
    # once as attribute and once as property: update_step must be idempotent
    assert holder.part.seen == [("step", 1, 5, False)] * 2 + [("end", 1, 6)] * 2
    assert holder._hidden.seen == holder.inside[0].seen == []
    update_if_possible("not updateable", 0, 0)
    update_end_if_possible(None, 0, 0)
    assert isinstance(holder, Updateable)
    assert "_dummy" not in holder.state_dict()


def test_strict_config_of_objects():
    with pytest.raises(ConfigError, match=r"Clock\.Config has no key 'stat'.*start"):
        Clock({"stat": 1})


def test_module_weights_are_loaded_after_configure(tmp_path):
    holder = Holder()
    state = {f"geometry.{key}": value + 1.0 for key, value in holder.state_dict().items()}
    path = tmp_path / "x.safetensors"
    write_checkpoint(path, {"epoch": 3, "global_step": 12, "state_dict": state})
    loaded = Holder({"weights": f"{path}:geometry"})
    assert torch.equal(loaded.layer.weight, holder.layer.weight * 0 + state["geometry.layer.weight"])
    assert ("step", 3, 12, True) in loaded.part.seen
    with pytest.raises(CheckpointError, match="no such module"):
        Holder({"weights": f"{path}:material"})


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.geometry = nn.Sequential(nn.Linear(2, 2))
        self.scale = nn.Parameter(torch.ones(1))
        self.text = "x"


def test_optimizer_groups():
    config = OmegaConf.create(
        {
            "name": "AdamW",
            "args": {"betas": [0.9, 0.99], "eps": 1e-15},
            "params": {"geometry.0": {"lr": 0.1}, "scale": {"lr": 0.2}},
        }
    )
    optimizer = parse_optimizer(config, Model())
    assert [(g["name"], g["lr"], len(g["params"]), g["betas"]) for g in optimizer.param_groups] == [
        ("geometry.0", 0.1, 2, (0.9, 0.99)),
        ("scale", 0.2, 1, (0.9, 0.99)),
    ]
    everything = parse_optimizer(OmegaConf.create({"name": "SGD", "args": {"lr": 0.1}}), Model())
    assert len(everything.param_groups[0]["params"]) == 3
    for bad in ("Adamm", "Optimizer2", "lr_scheduler"):
        with pytest.raises(ConfigError, match=bad):
            parse_optimizer(OmegaConf.create({"name": bad}), Model())
    with pytest.raises(ConfigError, match="geometry, material"):
        get_parameters(_two(), "absent")
    with pytest.raises(ConfigError, match="without parameters"):
        get_parameters(Model(), "text")
    with pytest.raises(ConfigError, match="apex"):
        parse_optimizer(OmegaConf.create({"name": "FusedAdam"}), Model())


def _two():
    return nn.ModuleDict({"geometry": nn.Linear(1, 1), "material": nn.Linear(1, 1)})


def test_schedulers():
    optimizer = torch.optim.SGD(Model().parameters(), lr=1.0)
    single = {"name": "ExponentialLR", "interval": "step", "args": {"gamma": 0.5}}
    result = parse_scheduler(OmegaConf.create(single), optimizer)
    assert result["interval"] == "step"
    optimizer.step()
    result["scheduler"].step()
    assert optimizer.param_groups[0]["lr"] == 0.5
    warm = {"name": "LinearLR", "args": {"start_factor": 0.1, "total_iters": 2}}
    optimizer = torch.optim.SGD(Model().parameters(), lr=1.0)
    sequence = parse_scheduler(
        OmegaConf.create(
            {
                "name": "SequentialLR",
                "milestones": [2],
                "schedulers": [warm, {"name": "ExponentialLR", "args": {"gamma": 0.5}}],
            }
        ),
        optimizer,
    )
    assert sequence["interval"] == "epoch"
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        sequence["scheduler"].step()
    assert rates == pytest.approx([0.1, 0.55, 1.0, 0.5])
    optimizer = torch.optim.SGD(Model().parameters(), lr=1.0)
    chained = parse_scheduler(
        OmegaConf.create(
            {"name": "ChainedScheduler", "schedulers": [{"name": "ExponentialLR", "args": {"gamma": 0.5}}] * 2}
        ),
        optimizer,
    )
    optimizer.step()
    chained["scheduler"].step()
    assert optimizer.param_groups[0]["lr"] == 0.25
    with pytest.raises(ConfigError, match="interval"):
        parse_scheduler(OmegaConf.create({"name": "ExponentialLR", "interval": "day"}), optimizer)
    with pytest.raises(ConfigError, match="NoSuchLR"):
        parse_scheduler(OmegaConf.create({"name": "NoSuchLR"}), optimizer)


def test_base_system_contract(tmp_path, caplog):
    class System(BaseSystem):
        def configure(self):
            self.layer = nn.Linear(1, 1)

    system = System({})
    assert (system.true_global_step, system.true_current_epoch, system.resumed) == (0, 0, False)
    system.set_resume_status(2, 30)
    assert (system.true_current_epoch, system.true_global_step) == (2, 30)
    assert system.C([0, 0.0, 1.0, 60]) == 0.5
    with pytest.raises(ConfigError, match="optimizer is empty"):
        system.configure_optimizers()
    with pytest.raises(NotImplementedError, match="on_validation_epoch_end"):
        system.on_validation_epoch_end()
    path = tmp_path / "x.safetensors"
    write_checkpoint(
        path,
        {"epoch": 0, "global_step": 1, "state_dict": {"layer.weight": torch.full((1, 1), 7.0), "gone": torch.ones(1)}},
    )
    loaded = System({"weights": str(path)})
    assert loaded.layer.weight.item() == 7.0


LIFT = """
name: convert
tag: t
use_timestamp: false
exp_root_dir: {root}
system:
  geometry_type: implicit-volume
  geometry:
    radius: 1.0
    n_feature_dims: 3
    pos_encoding_config:
      {{otype: HashGrid, n_levels: 4, n_features_per_level: 2,
       log2_hashmap_size: 8, base_resolution: 4, per_level_scale: 1.5}}
    mlp_network_config:
      {{otype: VanillaMLP, activation: ReLU, output_activation: none, n_neurons: 8, n_hidden_layers: 1}}
  material_type: no-material
  material: {{n_output_dims: 3, color_activation: sigmoid}}
  background_type: solid-color-background
  renderer_type: nerf-volume-renderer
"""


def test_geometry_is_converted_from_an_earlier_run(tmp_path):
    trial = tmp_path / "convert" / "t"
    cfg = load_config(LIFT.format(root=tmp_path), from_string=True)
    first = BaseLift3DSystem(cfg.system)
    with torch.no_grad():
        for parameter in first.geometry.parameters():
            parameter.uniform_(-1, 1)
    write_checkpoint(
        trial / "ckpts" / "epoch=0-step=1.safetensors", {"epoch": 0, "global_step": 1, "state_dict": first.state_dict()}
    )
    (trial / "configs").mkdir()
    (trial / "configs" / "parsed.yaml").write_text(OmegaConf.to_yaml(cfg))
    system = BaseLift3DSystem(
        {**cfg.system, "geometry_convert_from": str(trial), "geometry_convert_inherit_texture": True}
    )
    points = torch.rand(50, 3) - 0.5
    torch.testing.assert_close(system.geometry(points)["density"], first.geometry(points)["density"])
    with pytest.raises(ConfigError, match="geometry_convert_from"):
        BaseLift3DSystem({**cfg.system, "geometry_convert_from": str(tmp_path / "absent.safetensors")})


def test_cleanup_is_harmless_on_a_cpu():
    cleanup()


def test_allocator_setting_is_safe_in_a_process_of_its_own():
    code = "import torch; from threestudio_redream.runtime.memory import keep_freed_memory as k\n"
    code += "ok = k(); [torch.ones(2_000_000).sum() for _ in range(50)]; print(ok)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    assert result.stdout.strip() == str(hasattr(libc, "mallopt"))
