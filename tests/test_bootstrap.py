"""Set-up: which torch is chosen, when nothing is to be done, and what a failure says. No pip runs here."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load_bootstrap():
    spec = importlib.util.spec_from_file_location("bootstrap_under_test", ROOT / "tools" / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Shell:
    """Stands in for ``subprocess.run``: records commands, fails those that contain a given word."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.failing: set[str] = set()
        self.torch_after_install = ""
        self.venv: Path = Path()

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess:
        line = " ".join(str(word) for word in command)
        self.commands.append(line)
        if any(word in line for word in self.failing):
            return subprocess.CompletedProcess(command, 1)
        if "-m venv" in line:
            python = load_bootstrap().venv_python(self.venv)
            python.parent.mkdir(parents=True, exist_ok=True)
            python.touch()
        return subprocess.CompletedProcess(command, 0)

    def pip(self) -> list[str]:
        """Arguments of every real pip call, without the interpreter, general options and folders."""
        calls = [line.partition("--no-input")[2].replace("--quiet", "").strip() for line in self.commands]
        return [call.replace(str(ROOT) + "/", "") for call in calls if call and "--dry-run" not in call]


@pytest.fixture
def boot(monkeypatch: pytest.MonkeyPatch):
    module = load_bootstrap()
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    return module


@pytest.fixture
def shell(boot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shell:
    fake = Shell()
    fake.venv = tmp_path / "env"
    monkeypatch.setattr(boot.subprocess, "run", fake)
    return fake


def setup(boot, shell: Shell, *words: str) -> int:
    shell.commands.clear()
    return boot.main(["--venv", str(shell.venv), *words])


def install_torch(shell: Shell, version: str) -> None:
    for old in shell.venv.glob("lib/python*/site-packages/torch-*"):
        old.rmdir()
    (shell.venv / "lib" / "python3.11" / "site-packages" / f"torch-{version}.dist-info").mkdir(parents=True)


REST = "install -c requirements/constraints.txt -e {}[{}]"


def test_a_fresh_machine_gets_the_cpu_build_from_the_configured_index(boot, shell: Shell) -> None:
    assert setup(boot, shell) == 0
    assert shell.pip() == [f"install --no-deps torch=={boot.cpu_pin(ROOT)}", REST.format(ROOT, "dev")]


def test_an_index_without_the_cpu_build_sends_us_to_pytorchs_own(boot, shell: Shell) -> None:
    shell.failing = {"--dry-run"}
    assert setup(boot, shell) == 0
    assert shell.pip()[0].endswith("+cpu --index-url https://download.pytorch.org/whl/cpu")


def test_macos_takes_the_plain_wheel(boot, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot.sys, "platform", "darwin")
    assert setup(boot, shell) == 0
    assert "+" not in shell.pip()[0]


@pytest.mark.parametrize(
    ("choice", "command"),
    [
        ("cuda", "install torch"),
        ("cu126", "install torch --index-url https://download.pytorch.org/whl/cu126"),
        ("rocm6.4", "install torch --index-url https://download.pytorch.org/whl/rocm6.4"),
    ],
)
def test_another_build_is_one_word(boot, shell: Shell, choice: str, command: str) -> None:
    assert setup(boot, shell, "--torch", choice) == 0
    assert shell.pip()[0] == command


def test_the_second_time_nothing_runs_at_all(boot, shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    setup(boot, shell)
    capsys.readouterr()
    assert setup(boot, shell) == 0
    assert shell.commands == []
    assert capsys.readouterr() == ("", "")


def test_choices_are_kept_until_others_are_given(boot, shell: Shell) -> None:
    setup(boot, shell, "--torch", "cuda", "--extras", "gpu-raster, cuda")
    assert setup(boot, shell) == 0
    assert shell.commands == []
    install_torch(shell, "2.14.1")
    assert setup(boot, shell, "--extras", "cuda") == 0
    assert shell.pip() == [REST.format(ROOT, "cuda,dev") + " torch==2.14.1"]  # torch stays as it is


def test_a_wrong_build_is_replaced(boot, shell: Shell) -> None:
    setup(boot, shell)
    install_torch(shell, boot.cpu_pin(ROOT))
    assert setup(boot, shell, "--torch", "cuda") == 0
    assert shell.pip()[:2] == ["uninstall -y torch", "install torch"]


def test_an_interrupted_set_up_goes_on(boot, shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    setup(boot, shell)
    install_torch(shell, boot.cpu_pin(ROOT))
    shell.failing = {"constraints.txt"}
    assert setup(boot, shell, "--extras", "cuda") == 1
    assert "set-up stopped: this step failed" in capsys.readouterr().err
    shell.failing = set()
    assert setup(boot, shell, "--extras", "cuda") == 0
    assert shell.pip() == [REST.format(ROOT, "cuda,dev") + f" torch=={boot.cpu_pin(ROOT)}"]


def test_the_stamp_changes_with_every_input(boot, tmp_path: Path) -> None:
    for name in boot.INPUTS:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("a")
    seen = {boot.fingerprint(tmp_path, "cpu", ["dev"]), boot.fingerprint(tmp_path, "cuda", ["dev"])}
    seen.add(boot.fingerprint(tmp_path, "cpu", ["dev", "cuda"]))
    for name in boot.INPUTS:
        (tmp_path / name).write_text("b")
        seen.add(boot.fingerprint(tmp_path, "cpu", ["dev"]))
    (tmp_path / "setup.py").unlink()
    seen.add(boot.fingerprint(tmp_path, "cpu", ["dev"]))
    assert len(seen) == 4 + len(boot.INPUTS)


@pytest.mark.parametrize("damage", ["", "{", "[1]"])
def test_a_damaged_stamp_means_set_up_again(boot, shell: Shell, damage: str) -> None:
    setup(boot, shell)
    (shell.venv / boot.STAMP).write_text(damage)
    assert setup(boot, shell) == 0
    assert len(shell.pip()) == 2


def test_an_environment_without_pip_is_completed_not_deleted(boot, shell: Shell) -> None:
    setup(boot, shell)
    (shell.venv / boot.STAMP).unlink()
    shell.failing = {"-m pip --version"}
    assert setup(boot, shell) == 0
    assert any("-m ensurepip" in line for line in shell.commands)
    assert not any("-m venv" in line for line in shell.commands)


def test_without_venv_support_the_message_names_the_package(
    boot, shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.failing = {"-m venv"}
    assert setup(boot, shell) == 1
    assert "apt install python3-venv" in capsys.readouterr().err


def test_an_unknown_build_is_refused(boot, shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    assert setup(boot, shell, "--torch", "gpu; rm") == 1
    assert shell.commands == []
    error = capsys.readouterr().err
    assert "got 'gpu; rm'" in error
    assert "use cpu, cuda" in error


def test_a_gpu_that_would_stay_idle_is_mentioned(
    boot, shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(boot.shutil, "which", lambda name: "/usr/bin/nvidia-smi" if name == "nvidia-smi" else None)
    setup(boot, shell)
    assert "make setup TORCH=cuda" in capsys.readouterr().out


def test_an_old_python_hands_over_or_says_what_is_needed(
    boot, shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(boot.sys, "version_info", (3, 8, 1))
    assert setup(boot, shell) == 1
    assert "Python 3.10 or newer is needed (got 3.8 at" in capsys.readouterr().err
    called: list[list[str]] = []
    monkeypatch.setattr(boot.shutil, "which", lambda name: f"/opt/{name}" if name == "python3.12" else None)
    monkeypatch.setattr(boot.subprocess, "call", lambda command: called.append(command) or 0)
    with pytest.raises(SystemExit) as stop:
        setup(boot, shell)
    assert stop.value.code == 0
    assert called[0][0] == "/opt/python3.12"


def test_an_old_python_can_read_the_script_far_enough_to_hand_over() -> None:
    """Red Hat 8's python3 is 3.6, which knows no ``from __future__ import annotations``."""
    tree = ast.parse((ROOT / "tools" / "bootstrap.py").read_text("utf-8"), feature_version=(3, 6))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AnnAssign | ast.NamedExpr)]
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.arg) and node.annotation]


def test_the_script_needs_nothing_but_the_standard_library() -> None:
    code = f"import runpy; runpy.run_path({str(ROOT / 'tools' / 'bootstrap.py')!r}, run_name='not_main')"
    subprocess.run([sys.executable, "-S", "-I", "-c", code], check=True)
