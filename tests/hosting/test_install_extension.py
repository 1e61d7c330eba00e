"""``redream install-extension``."""

from __future__ import annotations

import ast
import io
import json
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from threestudio_redream import cli
from threestudio_redream.doctor import Diagnosis, render
from threestudio_redream.doctor.checkout import describe_checkout
from threestudio_redream.doctor.machine import describe_machine
from threestudio_redream.errors import ConfigError
from threestudio_redream.hosting import shim


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "threestudio").mkdir()
    (tmp_path / "threestudio" / "__init__.py").touch()
    (tmp_path / "launch.py").write_text('node_paths = ["custom"]\n', encoding="utf-8")
    return tmp_path


def redream(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(words))
    return int(stop.value.code or 0)


def test_install_is_idempotent_and_remove_undoes_it(checkout: Path) -> None:
    done = shim.install(checkout)
    assert (done.status, done.file) == ("written", checkout / "custom" / "threestudio_redream_shim.py")
    assert list((checkout / "custom").iterdir()) == [done.file]
    assert shim.install(checkout).status == "unchanged"
    done.file.write_text(f"{shim.MARK}\n# of an earlier version\n", encoding="utf-8")
    assert shim.install(checkout).status == "updated"
    assert done.file.read_text("utf-8") == shim.TEXT
    assert shim.remove(checkout).status == "removed"
    assert not list((checkout / "custom").iterdir())
    assert shim.remove(checkout).status == "absent"


def test_the_shim_is_python_that_hides_nothing() -> None:
    ast.parse(shim.TEXT)
    assert Path(shim.SHIM).stem != "threestudio_redream"
    assert shim.TEXT.startswith(shim.MARK)


@pytest.mark.parametrize("verb", [shim.install, shim.remove])
def test_a_foreign_file_is_left_alone(checkout: Path, verb: object) -> None:
    file = checkout / "custom" / shim.SHIM
    file.parent.mkdir()
    for content in (b"print('mine')\n", b"\xff\xfe", b"x" * (shim.MAX_BYTES + 1)):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match="has not written") as caught:
            verb(checkout)  # type: ignore[operator]
        assert str(file) in str(caught.value)
        assert "move or rename" in str(caught.value)
        assert file.read_bytes() == content


def test_links_are_not_followed(checkout: Path) -> None:
    target = checkout / "elsewhere.py"
    target.write_text(shim.TEXT, encoding="utf-8")
    (checkout / "custom").mkdir()
    (checkout / "custom" / shim.SHIM).symlink_to(target)
    with pytest.raises(ConfigError, match="has not written"):
        shim.remove(checkout)
    assert target.is_file()


def test_other_folders_are_refused(tmp_path: Path, checkout: Path) -> None:
    with pytest.raises(ConfigError, match=r"no checkout of threestudio: launch\.py and .*git clone"):
        shim.install(tmp_path / "nowhere")
    (checkout / "launch.py").write_text("print('old')\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"loads no extensions.*0\.2\.0"):
        shim.install(checkout)


def test_the_command_says_what_comes_next(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clone = checkout / "custom" / "threestudio-redream" / "threestudio_redream"
    clone.mkdir(parents=True)
    (clone / "__init__.py").touch()
    assert redream("install-extension", str(checkout)) == 0
    out = capsys.readouterr().out
    assert out.startswith("Written: ")
    assert f"{clone.parent} holds the package, too" in out
    assert "python launch.py --config" in out
    assert redream("install-extension", str(checkout), "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["status"] == "unchanged"
    assert said["clones"] == [str(clone.parent)]
    assert all(Path(config).is_file() for config in said["configs"])
    assert redream("install-extension", str(checkout), "--remove") == 0
    assert capsys.readouterr().out.startswith("Removed: ")
    assert redream("install-extension", str(checkout / "custom")) == 1
    assert "no checkout of threestudio" in capsys.readouterr().err


# --- what the doctor says of a checkout ---------------------------------------------------------------


def test_the_doctor_looks_at_a_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THREESTUDIO_DIR", raising=False)
    assert describe_checkout() is None
    (checkout / "threestudio" / "__init__.py").write_text('__modules__ = {}\n__version__ = "0.2.3"\n', encoding="utf-8")
    monkeypatch.setenv("THREESTUDIO_DIR", str(checkout))
    facts = describe_checkout()
    assert facts is not None
    assert (facts["version"], facts["commit"], facts["shim"]) == ("0.2.3", "", "absent")
    assert facts["cure"] == f"redream install-extension {checkout}"
    shim.install(checkout)
    facts = describe_checkout()
    assert facts is not None
    assert (facts["shim"], facts["cure"], facts["error"]) == ("in place", "", "")
    (checkout / "custom" / shim.SHIM).write_text(f"{shim.MARK}\n# of an earlier version\n", encoding="utf-8")
    assert (describe_checkout(checkout) or {})["shim"] == "outdated"


def test_a_clone_needs_no_shim(checkout: Path) -> None:
    clone = checkout / "custom" / "threestudio-redream" / "threestudio_redream"
    clone.mkdir(parents=True)
    (clone / "__init__.py").touch()
    facts = describe_checkout(checkout) or {}
    assert facts["clones"] == [str(clone.parent)]
    assert facts["cure"] == ""


def test_the_doctor_names_what_is_no_checkout(tmp_path: Path) -> None:
    facts = describe_checkout(tmp_path) or {}
    assert "no checkout of threestudio" in facts["error"]
    assert "git clone" in facts["cure"]


def test_the_commit_of_a_checkout_is_its_own(checkout: Path) -> None:
    def git(*words: str) -> str:
        command = ["git", "-C", str(checkout), "-c", "user.name=x", "-c", "user.email=x@y", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "one")
    assert (describe_checkout(checkout) or {})["commit"] == git("rev-parse", "--short", "HEAD")


def test_both_answers_of_the_doctor_hold_the_checkout(checkout: Path) -> None:
    diagnosis = Diagnosis(describe_machine(checkout), (), checkout=describe_checkout(checkout))
    assert diagnosis.as_dict()["checkout"]["path"] == str(checkout)
    stream = io.StringIO()
    render(diagnosis, Console(file=stream, width=200))
    assert f"shim absent. The cure: redream install-extension {checkout}" in stream.getvalue()
