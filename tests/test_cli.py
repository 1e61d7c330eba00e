"""The ``redream`` command: verbs, exit status, and what an error looks like."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import threestudio_redream
from threestudio_redream import cli
from threestudio_redream.doctor import Diagnosis, Finding
from threestudio_redream.doctor.machine import describe_machine
from threestudio_redream.errors import AssetError


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(words))
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, threestudio_redream.__version__ + "\n", "")


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert "doctor" in out


@pytest.mark.parametrize("words", [("no-such-verb",), ("doctor", "--no-such-option")])
def test_a_wrong_command_line_is_status_2(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    assert "no-such" in err


@pytest.fixture
def failing_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise AssetError("The file holds no triangles", received="a.glb", fix="Export the mesh again.")

    monkeypatch.setattr("threestudio_redream.doctor.diagnose", fail)


@pytest.mark.usefixtures("failing_doctor")
def test_a_named_error_is_one_message_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "doctor")
    assert (status, out) == (1, "")
    assert err == "redream: The file holds no triangles (got 'a.glb'). Export the mesh again.\n"


@pytest.mark.usefixtures("failing_doctor")
def test_debug_shows_where_a_named_error_came_from() -> None:
    with pytest.raises(AssetError):
        cli.main(["--debug", "doctor"])


def test_interruption_is_status_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("threestudio_redream.doctor.diagnose", interrupt)
    assert run(capsys, "doctor")[0] == 130


def fixed_diagnosis(status: str) -> Diagnosis:
    return Diagnosis(describe_machine(), (Finding("numba", status, required=True, cure="install it"),), ())


@pytest.mark.parametrize(("found", "exit_status"), [("found", 0), ("missing", 1), ("broken", 1)])
def test_doctor_status_follows_the_verdict(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, found: str, exit_status: int
) -> None:
    monkeypatch.setattr("threestudio_redream.doctor.diagnose", lambda **_: fixed_diagnosis(found))
    status, out, _ = run(capsys, "doctor", "--json")
    report = json.loads(out)
    assert status == exit_status
    assert report["ok"] is (exit_status == 0)
    assert report["components"][0] == {
        "name": "numba",
        "status": found,
        "purpose": "",
        "required": True,
        "version": "",
        "detail": "",
        "error": "",
        "where": "",
        "cure": "install it",
        "facts": {},
    }


def test_doctor_shows_a_page_to_people(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threestudio_redream.doctor.diagnose", lambda **_: fixed_diagnosis("missing"))
    status, out, _ = run(capsys, "doctor")
    assert status == 1
    assert "numba: install it" in out


def test_the_command_starts_without_heavy_packages(tmp_path: Path) -> None:
    code = (
        "import sys, threestudio_redream.cli as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numba', 'trimesh', 'skimage', 'scipy', 'pytorch_lightning', 'av', 'PIL'}\n"
        "sys.stderr.write('heavy: ' + ','.join(sorted(heavy & set(sys.modules))))\n"
    )
    root = str(Path(threestudio_redream.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env={"PYTHONPATH": root}
    )
    assert done.stderr == "heavy: "
