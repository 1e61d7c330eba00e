"""``redream eval``: a mesh, a run, and sources that are refused, by the command that users have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from threestudio_redream.assets import load_asset, normalise
from threestudio_redream.cli import app
from threestudio_redream.evaluation.renders import Protocol, Renders, open_renders
from threestudio_redream.evaluation.scoring import ScoreConfig, Scorer, exported_mesh

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
        "  background_type: solid-color-background\n  background:\n    color: [0.6, 0.6, 0.6]\n"
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
    white = open_renders(ROBOT, protocol=Protocol(views=13, size=64, distance=1.46, background=1.0))
    expected = Scorer(ScoreConfig())(white, "a green robot")["metrics"][name]
    assert found[f"{name}/white ground"] == pytest.approx(expected, rel=2e-3), "as if it had been made on white"
    assert found[f"{name}/white ground"] != pytest.approx(found[name], rel=2e-3)
    assert found["asset/silhouette_iou"] > 0.95
    assert row["renders"]["views"] == 13
    assert row["renders"]["step"] == 5
    assert set(row["models"]) == {"clip", "lpips", "judge"}
    assert len(row["models"]["clip"]["fingerprint"]) == 64


def test_white_ground_needs_to_know_the_ground(trial: Path, tmp_path: Path) -> None:
    unknown = tmp_path / "run"
    shutil.copytree(trial, unknown)
    config = unknown / "configs" / "parsed.yaml"
    config.write_text(config.read_text().replace("solid-color", "neural-environment-map"))
    _, rows, _ = run(unknown)
    assert "a_lpips[mini]/white ground" not in rows[0]["metrics"]
    assert "not known" in rows[0]["left_out"]["a_lpips[mini]/white ground"]
    _, told, _ = run(unknown, "--ground", 0.6)
    _, known, _ = run(trial)
    assert told[0]["metrics"] == known[0]["metrics"]


def test_outlines_are_compared_from_where_the_pictures_were_taken() -> None:
    """Of 120 views, twelve even ones are up to 1.5 degrees off; and a picture need not be square."""
    robot = normalise(load_asset(ROBOT))
    scorer = Scorer(ScoreConfig(lpips=""))
    exact, renders = (open_renders(ROBOT, protocol=Protocol(views=n, size=128, distance=1.46)) for n in (121, 120))
    even, iou = (scorer(r, "a robot", asset=robot)["metrics"]["asset/silhouette_iou"] for r in (exact, renders))
    assert iou == pytest.approx(even, abs=0.001)  # 0.0035 lower if they were taken for even
    assert renders.opacity is not None
    assert renders.depth is not None
    low = Renders(renders.rgb[:, 8:-8], renders.opacity[:, 8:-8], {"kind": "mesh"}, renders.depth[:, 8:-8])
    assert "asset/colour distance" in scorer(low, "a robot", asset=robot)["metrics"]
    camera = {**renders.about["camera"], "fovy_deg": 2 * np.rad2deg(np.arctan(np.tan(np.deg2rad(20)) * 112 / 128))}
    known = Renders(low.rgb, low.opacity, {"kind": "mesh", "camera": camera})
    assert scorer(known, "a robot", asset=robot)["metrics"]["asset/silhouette_iou"] == pytest.approx(iou, abs=0.01)


@pytest.mark.parametrize("prompt", ["", "    prompt: lib:green_robot\n", "    prompt: [1]\n"])
def test_a_run_is_not_scored_by_the_name_of_its_folder(trial: Path, tmp_path: Path, prompt: str) -> None:
    unknown = tmp_path / "run"
    shutil.copytree(trial, unknown)
    config = unknown / "configs" / "parsed.yaml"
    config.write_text(config.read_text().replace("    prompt: a green robot\n", prompt))
    code, rows, _ = run(unknown, "--lpips", "none")
    assert code == 1
    assert "What should this show?" in rows[0]["error"]["message"]


def test_a_field_that_dissolved_is_scored_as_far_as_it_can_be(trial: Path, tmp_path: Path) -> None:
    faint = tmp_path / "run"
    shutil.copytree(trial, faint)
    for path in (faint / "save" / "it5-opacity").glob("*.png"):
        Image.fromarray((np.asarray(Image.open(path)) * 0.3).astype(np.uint8)).save(path)
    code, rows, _ = run(faint, "--asset", ROBOT)
    assert code == 0
    assert rows[0]["left_out"]["asset/colour distance"] == "nothing is more than half opaque"
    assert rows[0]["metrics"]["asset/silhouette_iou"] == 0.0
    assert "clip_score[mini]" in rows[0]["metrics"]


@pytest.mark.parametrize("text", ["A  Green robot.\na red cat\n", "\ufeffa green robot\na red cat\n"])
def test_the_prompt_in_another_spelling_is_no_rival(trial: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "prompts.txt").write_text(text, "utf-8")
    _, rows, _ = run(trial, "--lpips", "none", "--others", tmp_path / "prompts.txt")
    assert rows[0]["metrics"]["r_precision[mini]"] == 1.0
    (tmp_path / "prompts.txt").write_text("A green robot\n", "utf-8")
    _, rows, _ = run(trial, "--lpips", "none", "--others", tmp_path / "prompts.txt")
    assert "r_precision" in rows[0]["left_out"]


def test_a_place_for_the_figures_is_looked_at_before_they_are_made(trial: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path, tmp_path / "file" / "figures.json"):
        done = CliRunner().invoke(app, ["eval", str(trial), "--out", str(place)])
        assert done.exit_code == 2
        assert "--out" in done.output


def test_the_mesh_is_that_of_the_views(trial: Path, tmp_path: Path) -> None:
    assert not isinstance(exported_mesh(trial, 5), str)
    assert exported_mesh(trial, 7) == "the exported mesh is not of step 7"
    assert exported_mesh(tmp_path, 5) == "there is no exported mesh"
    damaged = tmp_path / "run"
    shutil.copytree(trial, damaged)
    mesh = damaged / "save" / "it5-export" / "model.glb"
    mesh.write_bytes(mesh.read_bytes()[:200])
    _, rows, _ = run(damaged, "--asset", ROBOT, "--lpips", "none")
    assert rows[0]["left_out"]["asset/chamfer"].startswith("the exported mesh cannot be used: ")


@pytest.mark.parametrize("content", [None, b"a red cat\xff\xfe\n", b"x" * (2**20 + 1)])
def test_a_file_of_prompts_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    done = CliRunner().invoke(app, ["eval", str(ROBOT), "--prompt", "a robot", "--others", str(path)])
    assert done.exit_code == 2
    assert "--others" in done.output


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
