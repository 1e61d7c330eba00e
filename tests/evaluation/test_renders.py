"""What may be scored: whole turns of a run, a folder, a mesh. Everything else is refused, each with its own reason."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from threestudio_redream.evaluation.renders import Protocol, Renders, RendersError, open_renders

ROOT = Path(__file__).resolve().parents[2]
VIEWS, SIDE = 7, 16


def picture(path: Path, number: int, side: int = SIDE) -> None:
    pixels = np.random.default_rng(number).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def trial(tmp_path: Path) -> Path:
    """A run of 500 steps, as the launcher leaves it."""
    run = tmp_path / "a_robot"
    for folder in ("configs", "ckpts", "save/it200-test", "save/it500-test", "save/it500-opacity"):
        (run / folder).mkdir(parents=True)
    (run / "configs" / "parsed.yaml").write_text(f"data:\n  n_test_views: {VIEWS}\n")
    (run / "ckpts" / "epoch=0-step=400.safetensors").write_bytes(b"x")
    (run / "ckpts" / "epoch=0-step=500.safetensors").write_bytes(b"x")
    (run / "ckpts" / "last.safetensors").symlink_to("epoch=0-step=500.safetensors")
    for i in range(VIEWS):
        picture(run / "save" / "it500-test" / f"{i}.png", i)
        picture(run / "save" / "it500-opacity" / f"{i}.png", 100 + i)
    picture(run / "save" / "it200-test" / "0.png", 9)
    return run


def test_depth_maps_are_read_in_world_units(trial: Path) -> None:
    assert open_renders(trial).depth is None
    folder = trial / "save" / "it500-depth"
    folder.mkdir()
    for i in range(VIEWS):
        Image.fromarray(np.full((SIDE, SIDE), 13107 * (i % 5), np.uint16)).save(folder / f"{i}.png")
    depth = open_renders(trial).depth
    assert depth is not None
    np.testing.assert_allclose(depth[:5, 0, 0].numpy(), [0.0, 0.6, 1.2, 1.8, 2.4], rtol=1e-5)  # distance 1.5
    picture(folder / "2.png", 1)
    error = refusal(trial)
    assert (error.kind, "2.png" in str(error)) == ("unreadable", True)
    (folder / "2.png").unlink()
    assert open_renders(trial).depth is None


def refusal(source: Path, **options: object) -> RendersError:
    with pytest.raises(RendersError) as caught:
        open_renders(source, **options)  # type: ignore[arg-type]
    assert caught.value.fix
    return caught.value


def test_a_run_is_read_whole(trial: Path) -> None:
    renders = open_renders(trial)
    assert renders.rgb.shape == (VIEWS, SIDE, SIDE, 3)
    assert renders.opacity is not None
    assert renders.opacity.shape == (VIEWS, SIDE, SIDE)
    with Image.open(trial / "save" / "it500-test" / "3.png") as image:
        np.testing.assert_allclose(renders.rgb[3].numpy() * 255.0, np.asarray(image), atol=1e-4)
    assert renders.about["step"] == 500
    assert renders.azimuth_deg.tolist() == [0.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0]
    rgb, opacity = renders.turn(3)
    assert opacity is not None
    np.testing.assert_array_equal(rgb.numpy(), renders.rgb[[0, 2, 4]].numpy())
    before = renders.about["sha256"]
    picture(trial / "save" / "it500-test" / "3.png", 77)
    assert open_renders(trial).about["sha256"] != before


def test_a_missing_view_is_named(trial: Path) -> None:
    (trial / "save" / "it500-test" / "4.png").unlink()
    error = refusal(trial)
    assert (error.kind, error.received) == ("missing", [4])


def test_no_views_at_all(trial: Path, tmp_path: Path) -> None:
    for path in trial.glob("save/*-test/*"):
        path.unlink()
    assert refusal(trial).kind == "missing"
    for path in trial.glob("save/*-test"):
        path.rmdir()
    assert "no test views" in refusal(trial).problem
    assert refusal(tmp_path / "nothing").kind == "missing"


def test_left_over_views_are_a_wrong_count(trial: Path) -> None:
    picture(trial / "save" / "it500-test" / "7.png", 7)
    error = refusal(trial)
    assert (error.kind, error.received) == ("count", [7])


def test_views_of_an_earlier_step_are_stale(trial: Path) -> None:
    (trial / "ckpts" / "epoch=0-step=600.safetensors").write_bytes(b"x")
    error = refusal(trial)
    assert error.kind == "stale"
    assert "step 600" in error.problem


def test_views_of_an_earlier_run_are_stale(trial: Path) -> None:
    later = time.time() + 60.0
    os.utime(trial / "ckpts" / "epoch=0-step=400.safetensors", (later, later))
    error = refusal(trial)
    assert error.kind == "stale"
    assert "earlier run" in error.problem


@pytest.mark.parametrize(("colour", "word"), [((0, 0, 0), "all black"), ((150, 150, 150), "of one colour")])
def test_blank_views_are_refused(trial: Path, colour: tuple[int, int, int], word: str) -> None:
    Image.new("RGB", (SIDE, SIDE), colour).save(trial / "save" / "it500-test" / "2.png")
    error = refusal(trial)
    assert error.kind == "blank"
    assert word in error.problem
    assert error.received[0] == "2.png"  # type: ignore[index]


def test_a_full_opacity_map_is_no_blank_view(trial: Path) -> None:
    Image.new("RGB", (SIDE, SIDE), (255, 255, 255)).save(trial / "save" / "it500-opacity" / "2.png")
    renders = open_renders(trial)
    assert renders.opacity is not None
    assert float(renders.opacity[2].min()) == 1.0


def test_sizes_must_agree(trial: Path) -> None:
    picture(trial / "save" / "it500-test" / "5.png", 5, side=SIDE * 2)
    assert refusal(trial).kind == "resolution"
    for i in range(VIEWS):
        picture(trial / "save" / "it500-test" / f"{i}.png", i, side=SIDE * 2)
    error = refusal(trial)
    assert error.kind == "resolution"
    assert "Opacity" in error.problem


def test_a_damaged_picture_is_named(trial: Path) -> None:
    path = trial / "save" / "it500-test" / "1.png"
    path.write_bytes(path.read_bytes()[:60])
    error = refusal(trial)
    assert (error.kind, error.received) == ("unreadable", "1.png")


def test_arrays_are_read_and_nan_is_refused(tmp_path: Path) -> None:
    arrays = np.random.default_rng(0).random((4, SIDE, SIDE, 3)).astype(np.float32)
    for i, array in enumerate(arrays):
        np.save(tmp_path / f"{i}.npy", array)
    np.testing.assert_array_equal(open_renders(tmp_path).rgb.numpy(), arrays)
    assert refusal(tmp_path, count=5).received == [4]
    assert refusal(tmp_path, count=3).kind == "count"
    arrays[2, 0, 0, 0] = np.nan
    np.save(tmp_path / "2.npy", arrays[2])
    error = refusal(tmp_path)
    assert (error.kind, error.received) == ("nan", "2.npy")
    np.save(tmp_path / "2.npy", np.full((SIDE, SIDE, 3), 7.0))
    assert "outside" in refusal(tmp_path).problem
    np.save(tmp_path / "2.npy", np.array([{}], object), allow_pickle=True)
    assert refusal(tmp_path).kind == "unreadable"


@pytest.mark.parametrize("views", [5, 9, 12, 13, 37, 120])
def test_a_turn_goes_once_around(views: int) -> None:
    """The last picture repeats the first; of fewer than twelve others each is taken once."""
    shown = Renders(torch.arange(views).float()[:, None, None, None].expand(views, 1, 1, 3), None, {})
    chosen = shown.turn()[0][:, 0, 0, 0].numpy() * 360.0 / (views - 1)
    count = min(12, views - 1)
    assert len(chosen) == count
    assert np.abs(chosen - np.arange(count) * 360.0 / count).max() <= 180.0 / (views - 1)


def test_a_mesh_is_rendered_by_the_protocol(tmp_path: Path) -> None:
    mesh = next((ROOT / "retrieval_index" / "mini" / "assets").glob("robot-*.glb"))
    renders = open_renders(mesh, protocol=Protocol(views=5, size=32, background=0.25))
    assert renders.rgb.shape == (5, 32, 32, 3)
    np.testing.assert_allclose(renders.rgb[:, 0, 0].numpy(), 0.25, atol=1e-6)
    np.testing.assert_allclose(renders.rgb[0].numpy(), renders.rgb[-1].numpy(), atol=1e-6)
    assert renders.about["protocol"]["views"] == 5
    broken = tmp_path / "broken.glb"
    broken.write_bytes(mesh.read_bytes()[:100])
    assert refusal(broken).kind == "mesh"


def test_a_folder_without_numbered_pictures(tmp_path: Path) -> None:
    picture(tmp_path / "front.png", 0)
    assert refusal(tmp_path).kind == "missing"
    picture(tmp_path / "0.png", 0)
    assert refusal(tmp_path).kind == "count"  # one view is no turn
