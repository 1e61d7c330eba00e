"""What a newcomer's walk reads off the quickstart."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import newcomer  # noqa: E402

PAGE = (ROOT / newcomer.PAGE).read_text("utf-8")


def test_every_command_of_the_page_is_walked_but_for_the_way_without_make():
    lines = newcomer.commands(PAGE)
    assert lines[0] == "make run"
    assert sum(line.startswith("redream ") for line in lines) >= 4
    assert not any(line.startswith((".venv", "python3 -m venv", "1.", " ")) for line in lines)
    assert not any("#" in line for line in lines)


def test_the_newest_trial_takes_the_place_of_the_placeholder(tmp_path):
    assert newcomer.newest_trial(tmp_path) == ""
    for name in ("a_cat@1", "a_dog@2"):
        (tmp_path / "outputs" / "redream" / name).mkdir(parents=True)
    assert newcomer.newest_trial(tmp_path) == "outputs/redream/a_dog@2"


def test_a_walk_stops_at_the_first_failure(tmp_path, monkeypatch):
    page = "```\nredream one\n```\n```\nredream two   # comment\n```\n"
    (tmp_path / "docs").mkdir()
    (tmp_path / newcomer.PAGE).write_text(page)
    monkeypatch.setattr(newcomer, "commands", lambda text: ["echo $HOME", "false", "true"])
    rows = newcomer.walk(tmp_path, tmp_path / "home")
    assert [(row["command"], row["status"]) for row in rows] == [("echo $HOME", 0), ("false", 1)]


@pytest.mark.parametrize("name", ["redream", "make", "python"])
def test_output_blocks_are_no_commands(name):
    assert newcomer.commands(f"```\n{name}d by\n1. green robot\n```\n") == []
