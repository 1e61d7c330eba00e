"""Configurations and the mini index are found wherever the user stands, and a wheel carries them."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from threestudio_redream import shipped as module
from threestudio_redream.cli import app
from threestudio_redream.retrieval.retrieve import index_folder
from threestudio_redream.shipped import FOLDERS, shipped

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_found_from_everywhere(elsewhere):
    assert shipped("custom_configs/redream.yaml") == ROOT / "custom_configs" / "redream.yaml"
    assert index_folder("retrieval_index/mini") == ROOT / "retrieval_index" / "mini"


def test_the_users_own_come_first(elsewhere):
    mine = Path("custom_configs") / "redream.yaml"
    mine.parent.mkdir()
    mine.write_text("name: mine\n")
    assert shipped(mine) == mine
    assert shipped("custom_configs/baselines/dreamfusion.yaml").is_absolute(), (
        "other files of the folder are still ours"
    )


def test_a_wheels_copy_comes_before_what_lies_beside_it(elsewhere, monkeypatch):
    package = elsewhere / "site-packages" / "threestudio_redream"
    for home in (package / "shipped", package.parent):
        (home / "custom_configs").mkdir(parents=True)
        (home / "custom_configs" / "redream.yaml").write_text("")
    monkeypatch.setattr(module, "_PACKAGE", package)
    assert shipped("custom_configs/redream.yaml") == package / "shipped" / "custom_configs" / "redream.yaml"


@pytest.mark.parametrize(
    "path", ["README.md", "threestudio_redream/cli.py", "custom_configs/../README.md", "custom_configs/no.yaml", ""]
)
def test_nothing_else_is_looked_for(elsewhere, path):
    assert shipped(path) == Path(path)


def test_absolute_paths_are_left_alone(elsewhere):
    assert shipped(elsewhere / "custom_configs" / "redream.yaml") == elsewhere / "custom_configs" / "redream.yaml"


def test_the_commands_find_them(elsewhere):
    runner = CliRunner()
    for words in (["index", "info", "retrieval_index/mini"], ["bench", "--plan", "-m", "redream", "--prompts", "1"]):
        done = runner.invoke(app, words)
        assert done.exit_code == 0, done.output
    assert runner.invoke(app, ["launch", "--help"]).exit_code == 0
    done = subprocess.run(
        [sys.executable, "-m", "threestudio_redream.cli", "launch", "--config", "custom_configs/no.yaml"],
        cwd=elsewhere,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "does not exist (got 'custom_configs/no.yaml')" in done.stderr


def test_a_build_holds_every_shipped_file(tmp_path):
    pytest.importorskip("setuptools")
    build = ["build_py", "--build-lib", str(tmp_path)]
    subprocess.run([sys.executable, "setup.py", "-q", *build], cwd=ROOT, check=True, capture_output=True, timeout=300)
    target = tmp_path / "threestudio_redream" / "shipped"
    assert sorted(path.name for path in target.iterdir()) == sorted(FOLDERS)
    for folder in ("custom_configs", "retrieval_index/mini"):
        ours, copies = (
            {p.relative_to(at) for p in at.rglob("*") if p.is_file()} for at in (ROOT / folder, target / folder)
        )
        assert copies == {path for path in ours if not any(part.startswith(".") for part in path.parts)}
