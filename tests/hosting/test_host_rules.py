"""Versions, names, exporters and cameras inside upstream: the rules, without a host."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from dataclasses import dataclass

import pytest
import torch

from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.doctor.probes import PROBES
from threestudio_redream.errors import ConfigError, RegistryError
from threestudio_redream.hosting import exporter, gate, keys, names, placeholders
from threestudio_redream.hosting.cameras import check_cameras


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("threestudio")
    module.__modules__ = {}  # type: ignore[attr-defined]
    module.__version__ = "0.2.3"  # type: ignore[attr-defined]
    module.find = lambda name: module.__modules__[name]  # type: ignore[attr-defined]
    module.register = lambda name: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "threestudio", module)
    return module


def with_versions(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    def version(name: str) -> str:
        found = versions.get(name.replace("-", "_"), "999.0")
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)


# --- versions ---------------------------------------------------------------------------------------


def test_this_environment_passes(host: types.ModuleType) -> None:
    gate.check_host(host)


def test_all_shortcomings_come_in_one_error_with_one_cure(
    host: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_versions(monkeypatch, diffusers="0.19.3", peft=None, omegaconf="2.2.3", scipy="1.12.0", torch="2.13.0+cpu")
    with pytest.raises(gate.HostError) as caught:
        gate.check_host(host)
    text = str(caught.value)
    assert "diffusers 0.19.3 is older than 0.33: our LoRA adapters" in text
    assert "redream-vsd-guidance" in text
    assert "peft is not installed" in text
    assert "omegaconf 2.2.3 is older than 2.3" in text
    assert "scipy" not in text
    assert "torch 2" not in text
    assert "python -m pip install 'omegaconf>=2.3' 'diffusers>=0.33' 'peft>=0.15'" in text


@pytest.mark.parametrize(("version", "passes"), [("0.2.0", True), ("0.3", True), ("0.1.9", False), ("", False)])
def test_the_host_must_be_new_enough(host: types.ModuleType, version: str, passes: bool) -> None:
    host.__version__ = version  # type: ignore[attr-defined]
    if passes:
        gate.check_host(host)
    else:
        with pytest.raises(gate.HostError, match=r"threestudio 0\.2\.0 or newer.*git pull"):
            gate.check_host(host)


def test_release_numbers() -> None:
    assert gate._numbers("2.13.0+cpu") == (2, 13)
    assert gate._numbers("0.33.0.dev0") == (0, 33)
    assert gate._numbers("1.0rc2") == (1,)
    assert gate._numbers("0.9") < gate._numbers("0.33") < gate._numbers("1.0")
    assert gate._REASONS.keys() <= {probe.name for probe in PROBES}


# --- names ------------------------------------------------------------------------------------------


def _class(qualname: str, module: str) -> type:
    return type("Part", (), {"__module__": module, "__qualname__": qualname})


def test_registering_again_is_harmless_unless_it_is_somebody_elses(host: types.ModuleType) -> None:
    first, again = _class("Part", "ours"), _class("Part", "ours")
    names.register("redream-part")(first)
    assert names.register("redream-part")(again) is again
    assert names.find("redream-part") is again
    with pytest.raises(RegistryError, match=r"by ours\.Part .*redream-part.*_disabled"):
        names.register("redream-part")(_class("Part", "theirs"))


def test_an_unknown_name_lists_near_ones(host: types.ModuleType) -> None:
    names.register("redream-guidance")(_class("G", "ours"))
    with pytest.raises(RegistryError, match=r"redream-guidence.*Near names: redream-guidance"):
        names.find("redream-guidence")
    with pytest.raises(RegistryError, match="IMPORT FAILED"):
        names.find("xyz")


def test_placeholders_tell_the_reason_and_give_way(host: types.ModuleType) -> None:
    foreign, ours = _class("F", "theirs"), _class("O", "threestudio_redream.systems.redream")
    host.__modules__ |= {"a": foreign, "b": ours}  # type: ignore[attr-defined]
    reason = gate.HostError("The reason", fix="The cure.")
    placeholders.leave_placeholders(host, ["a", "b", "c"], reason)
    assert host.__modules__["a"] is foreign  # type: ignore[attr-defined]
    for name in ("b", "c"):
        cls = names.find(name)
        for act in (cls, lambda cfg, cls=cls: type("sub", (cls,), {})(cfg), cls.create_from):
            with pytest.raises(gate.HostError, match=rf"'{name}' is not available\. The reason\. The cure\."):
                act({})
    assert placeholders.reason_left(host, ["x", "c"]) is reason
    assert placeholders.reason_left(host, ["a", "x"]) is None
    assert names.register("c")(ours) is names.find("c")


# --- exporter ---------------------------------------------------------------------------------------


def test_each_exporter_gets_the_configurations_that_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    class Theirs:
        @dataclass
        class Config:
            fmt: str = "obj-mtl"
            save_name: str = "model"
            context_type: str = "gl"

    monkeypatch.setattr(exporter, "find", lambda name: Theirs)
    assert exporter.exporter_for("mesh-exporter", {}) == "mesh-exporter"
    assert exporter.exporter_for("mesh-exporter", {"fmt": "obj", "context_type": "cuda"}) == "mesh-exporter"
    assert exporter.exporter_for("mesh-exporter", {"fmt": "glb"}) == "redream-mesh-exporter"
    assert exporter.exporter_for("mesh-exporter", {"fmt": "obj-mtl", "resolution": 64}) == "redream-mesh-exporter"
    assert exporter.exporter_for("dummy-exporter", {"x": 1}) == "dummy-exporter"


# --- cameras ----------------------------------------------------------------------------------------


def test_distorted_cameras_of_a_batch_of_three_are_refused() -> None:
    sound = torch.from_numpy(orbit_c2w([0.0, 100.0, 200.0], [10.0, 20.0, 30.0], [1.5, 1.5, 1.5]))
    check_cameras({"c2w": sound})
    check_cameras({})
    check_cameras(None)
    wrong = sound.clone()
    right, back = wrong[:, :3, 0].clone(), wrong[:, :3, 2].clone()
    wrong[:, :3, 1] = torch.linalg.cross(back, right, dim=0)  # over the batch
    with pytest.raises(ConfigError, match=r"batches of 3 \(got 3\).*data\.batch_size"):
        check_cameras({"c2w": wrong})
    check_cameras({"c2w": wrong[:2]})  # two are never mixed up


# --- keys -------------------------------------------------------------------------------------------


def test_keys_of_our_own_runtime_are_left_out_with_a_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Theirs:
        @dataclass
        class Config:
            radius: float = 1.0
            grid_prune: bool = True

    monkeypatch.setattr(keys, "find", lambda name: Theirs)
    part = {"radius": 1.0, "grid_prune": False, "grid_decay": 0.9, "unheard_of": 1}
    system = {"renderer_type": "nerf-volume-renderer", "renderer": part}
    with caplog.at_level("WARNING", logger="pytorch_lightning"):
        keys.drop_own_keys(system, ["renderer"])
    assert part == {"radius": 1.0, "grid_prune": False, "unheard_of": 1}
    assert "system.renderer.grid_decay" in caplog.text
    foreign = {"renderer_type": "somebody's", "renderer": {"x": 1}}
    keys.drop_own_keys(foreign, ["renderer"])
    assert foreign["renderer"] == {"x": 1}
