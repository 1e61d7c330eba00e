"""``redream eval``: a mesh, a run, and sources that are refused, by the command that users have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from threestudio_redream.assets import load_asset
from threestudio_redream.cli import app
from threestudio_redream.evaluation.renders import Protocol, open_renders
from threestudio_redream.evaluation.scoring import ScoreConfig, Scorer

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "retrieval_index" / "mini" / "assets"
ROBOT = next(ASSETS.glob("robot-green*.glb"))
CAT = next(ASSETS.glob("cat-*.glb"))


def run(*words: object) -> tuple[int, list[dict], str]:
    done = CliRunner().invoke(app, ["eval", *map(str, words), "--json"])
    return done.exit_code, json.loads(done.stdout) if done.stdout.startswith("[") else [], done.output


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose field would be the green robot."""
    folder = tmp_path_factory.mktemp("trial") / "a_green_robot"
    renders = open_renders(ROBOT, protocol=Protocol(views=13, size=64, distance=1.46, background=0.6))
    assert renders.opacity is not None
    for kind, stack in (("test", renders.rgb), ("opacity", renders.opacity)):
        (folder / "save" / f"it5-{kind}").mkdir(parents=True)
        for number, picture in enumerate(stack):
            pixels = (picture.numpy() * 255.0).round().astype(np.uint8)
            Image.fromarray(pixels).save(folder / "save" / f"it5-{kind}" / f"{number}.png")
    assert renders.depth is not None
    (folder / "save" / "it5-depth").mkdir()
    for number, depth in enumerate(renders.depth.numpy()):
        pixels = (depth / (2 * 1.46) * 65535.0).round().astype(np.uint16)
        Image.fromarray(pixels).save(folder / "save" / "it5-depth" / f"{number}.png")
    (folder / "save" / "it5-export").mkdir()
    shutil.copy(ROBOT, folder / "save" / "it5-export" / "model.glb")
    (folder / "configs").mkdir()
    (folder / "configs" / "parsed.yaml").write_text(
        "data:\n  n_test_views: 13\n  eval_camera_distance: 1.46\n  eval_fovy_deg: 40.0\n"
        "system:\n  prompt_processor:\n    prompt: a green robot\n"
    )
    return folder


def test_a_run_is_scored_with_its_own_prompt(trial: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    (tmp_path / "prompts.txt").write_text("a green robot\na red cat\na blue car\n")
    code, rows, _ = run(trial, "--asset", ROBOT, "--judge", "--out", out, "--others", tmp_path / "prompts.txt")
    assert code == 0
    assert json.loads(out.read_text()) == rows
    row = rows[0]
    assert (row["source"], row["prompt"]) == ("a_green_robot", "a green robot")
    assert row["left_out"] == {}
    found = row["metrics"]
    assert found["r_precision[mini]"] == 1.0
    assert found["asset/chamfer"] < 0.01  # the exported mesh is the asset
    assert found["asset/colour distance"] < 0.2
    assert found["judge"]["recognised"]
    assert found["judge"]["fronts"] == 1
    assert found["judge"]["descriptor_right"]
    assert 0.8 < found["view_entropy[mini]"] < 1.1
    name = "a_lpips[mini]"
    assert 0.0 < found[f"{name}/blurred control"] < found[name]
    assert {f"{name}/{form}" for form in ("flat control", "white ground", "crop")} <= set(found)
    assert row["renders"]["views"] == 13
    assert row["renders"]["step"] == 5
    assert set(row["models"]) == {"clip", "lpips", "judge"}
    assert len(row["models"]["clip"]["fingerprint"]) == 64


def test_a_mesh_of_any_system_is_scored(tmp_path: Path) -> None:
    scorer = Scorer(ScoreConfig(lpips=""))
    renders = open_renders(CAT, protocol=Protocol(views=9, size=64, background=0.6))
    cat, robot = (scorer(renders, text)["metrics"]["clip_score[mini]"] for text in ("a cat", "a robot"))
    assert cat > robot
    row = scorer(renders, "a cat", asset=load_asset(CAT))
    assert row["left_out"]["asset/chamfer"] == "there is no exported mesh"
    assert "judge" not in row["metrics"]
    code, rows, _ = run(CAT, "--prompt", "a cat", "--protocol", "mini", "--lpips", "none")
    assert code == 0
    assert rows[0]["renders"]["views"] == 121
    assert rows[0]["metrics"]["clip_score[mini]"] == pytest.approx(cat, abs=0.05)


def test_what_is_refused_is_a_row_and_never_a_score(trial: Path, tmp_path: Path) -> None:
    broken, mesh = tmp_path / "broken", tmp_path / "mesh.glb"
    shutil.copytree(trial, broken)
    (broken / "save" / "it5-test" / "3.png").unlink()
    mesh.write_bytes(ROBOT.read_bytes()[:50])
    code, rows, _ = run(broken, mesh, tmp_path / "nothing", trial, "--prompt", "a robot", "--lpips", "none")
    assert code == 1
    assert [row.get("error", {}).get("kind") for row in rows] == ["missing", "mesh", "missing", None]
    assert all("metrics" not in row for row in rows[:3])
    assert "clip_score[mini]" in rows[3]["metrics"]
    done = CliRunner().invoke(app, ["eval", str(mesh), "--lpips", "none"])
    assert done.exit_code == 1
    assert "What should this show?" in done.output


def test_prompts_that_the_judge_does_not_know_are_left_out(trial: Path) -> None:
    scorer = Scorer(ScoreConfig(lpips="", judge=True))
    row = scorer(open_renders(trial), "an astronaut riding a horse")
    assert "judge" not in row["metrics"]
    assert "judge" in row["left_out"]


def test_the_table_is_readable(trial: Path) -> None:
    done = CliRunner().invoke(app, ["eval", str(trial), "--lpips", "none"])
    assert done.exit_code == 0
    assert "a_green_robot: a green robot, 13 views" in done.output
    assert "clip_score[mini]" in done.output
    assert "left out: no other prompts were given" in done.output
