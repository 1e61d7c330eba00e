"""What a trial folder says of the code that ran."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from threestudio_redream import __version__
from threestudio_redream.runtime import trial

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def _repository(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x", "--allow-empty"]):
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)
    done = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _package_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "__file__", str(folder / "threestudio_redream" / "runtime" / "trial.py"))


@needs_git
def test_a_repository_around_the_installation_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    (project / "secret.py").parent.mkdir()
    (project / "secret.py").write_text("password = 1\n")
    _repository(project)
    (project / "secret.py").write_text("password = 2\n")
    _package_at(project / ".venv" / "lib" / "site-packages", monkeypatch)
    assert trial.code_version() == __version__
    trial.snapshot_code(tmp_path / "code")
    assert not (tmp_path / "code" / "uncommitted.patch").exists()
    record = json.loads((tmp_path / "code" / "environment.json").read_text("utf-8"))
    assert record["commit"] is None
    assert record["packages"]["threestudio-redream"] == __version__
    assert record["python"] == sys.version.split()[0]


@needs_git
def test_our_own_checkout_is_recorded_whatever_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "notes.txt").write_bytes(b"caf\xe9\n")
    commit = _repository(clone)
    _package_at(clone, monkeypatch)
    assert trial.code_version() == commit[:12]
    (clone / "notes.txt").write_bytes(b"caf\xe9s\n")
    assert trial.code_version() == commit[:12] + "+"
    trial.snapshot_code(tmp_path / "code")
    assert "+caf\ufffds" in (tmp_path / "code" / "uncommitted.patch").read_text("utf-8")
