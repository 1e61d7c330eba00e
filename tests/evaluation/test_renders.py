"""What may be scored: whole turns of a run, a folder, a mesh. Everything else is refused, each with its own reason."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from threestudio_redream.evaluation.pictures import RendersError
from threestudio_redream.evaluation.renders import Protocol, Renders, open_renders
from threestudio_redream.evaluation.report.markup import picture_data

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
    (run / "configs" / "parsed.yaml").write_text(f"data:\n  n_test_views: {VIEWS}\n", "utf-8")
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
    turn = renders.turn(3)
    assert turn.opacity is not None
    np.testing.assert_array_equal(turn.rgb.numpy(), renders.rgb[[0, 2, 4]].numpy())
    np.testing.assert_array_equal(turn.opacity.numpy(), renders.opacity[[0, 2, 4]].numpy())
    assert turn.azimuth_deg.tolist() == renders.azimuth_deg[renders.chosen(3)].tolist() == [0.0, 120.0, 240.0]
    before = renders.about["sha256"]
    picture(trial / "save" / "it500-test" / "3.png", 77)
    assert open_renders(trial).about["sha256"] != before


@pytest.mark.parametrize(
    ("background", "expected"),
    [
        ("solid-color-background\n  background: {color: [0.6]}", (0.6, 0.6, 0.6)),
        ("solid-color-background\n  background: {color: [0.1, 0.2, 1]}", (0.1, 0.2, 1.0)),
        ("solid-color-background", (1.0, 1.0, 1.0)),
        ("solid-color-background\n  background: {color: [0.6], learned: true}", None),
        ("solid-color-background\n  background: {color: [2.0]}", None),
        ("solid-color-background\n  background: {color: red}", None),
        ("solid-color-background\n  background: 3", None),
        ("neural-environment-map-background", None),
    ],
)
def test_the_ground_of_a_run_is_that_of_its_configuration(
    trial: Path, background: str, expected: tuple[float, ...] | None
) -> None:
    with (trial / "configs" / "parsed.yaml").open("a") as file:
        file.write(f"system:\n  background_type: {background}\n")
    assert open_renders(trial).ground == expected
    assert open_renders(trial, ground=0.25).ground == (0.25,) * 3


def test_a_view_that_is_there_twice_is_refused(trial: Path) -> None:
    for name in ("03.png", "3.webp"):
        picture(trial / "save" / "it500-test" / name, 55)
        error = refusal(trial)
        assert (error.kind, error.received) == ("count", sorted(["3.png", name]))
        (trial / "save" / "it500-test" / name).unlink()


def test_an_open_turn(tmp_path: Path) -> None:
    for i in range(24):
        picture(tmp_path / f"{i}.png", i)
    closed, opened = open_renders(tmp_path), open_renders(tmp_path, closed=False)
    assert (closed.around, opened.around) == (23, 24)
    assert opened.azimuth_deg[1] == 15.0
    assert opened.azimuth_deg[opened.chosen(12)].tolist() == [30.0 * i for i in range(12)]
    np.testing.assert_array_equal(opened.turn(12).rgb[1].numpy(), opened.rgb[2].numpy())


def test_transparent_pictures_bring_their_opacity(tmp_path: Path) -> None:
    for i in range(3):
        rgba = np.zeros((SIDE, SIDE, 4), np.uint8)
        rgba[..., :3] = np.random.default_rng(i).integers(0, 255, 3)  # also where nothing is seen
        rgba[4:8, 4:8, 3] = 255
        rgba[8, 8, 3] = 51
        Image.fromarray(rgba).save(tmp_path / f"{i}.png")
    renders = open_renders(tmp_path, ground=0.5)
    assert renders.opacity is not None
    assert (renders.ground, renders.opacity[0].sum().item()) == ((0.5,) * 3, pytest.approx(16.2))
    colour = rgba[0, 0, :3] / 255.0
    np.testing.assert_allclose(renders.rgb[2, 0, 0].numpy(), 0.5, atol=1e-6)
    np.testing.assert_allclose(renders.rgb[2, 5, 5].numpy(), colour, atol=1e-6)
    np.testing.assert_allclose(renders.rgb[2, 8, 8].numpy(), 0.2 * colour + 0.4, atol=1e-6)
    assert open_renders(tmp_path).ground == (1.0,) * 3, "the protocol's"
    rgba[..., 3] = 0
    Image.fromarray(rgba).save(tmp_path / "1.png")
    assert refusal(tmp_path).kind == "blank", "nothing of it is visible, whatever is painted there"
    picture(tmp_path / "1.png", 1)
    assert refusal(tmp_path).kind == "resolution", "some with opacity and some without"


def test_an_alpha_that_is_full_everywhere_says_nothing(tmp_path: Path) -> None:
    for i in range(3):
        rgba = np.full((SIDE, SIDE, 4), 255, np.uint8)
        rgba[..., :3] = np.random.default_rng(i).integers(0, 255, (SIDE, SIDE, 3))
        Image.fromarray(rgba).save(tmp_path / f"{i}.png")
    renders = open_renders(tmp_path)
    assert (renders.opacity, renders.ground, renders.rgb.shape[3]) == (None, None, 3)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("data_type: random-camera-datamodule\n", 120),
        ("data_type: redream-asset-datamodule\n", 61),
        ("data_type: redream-asset-datamodule\ndata: {n_test_views: 7}\n", VIEWS),
        ("data_type: something-else\n", None),
        ("data: {n_test_views: seven}\n", None),
        ("", None),
        (": [", None),
    ],
)
def test_views_of_a_run_are_counted_by_its_configuration(trial: Path, config: str, expected: int | None) -> None:
    (trial / "configs" / "parsed.yaml").write_text(config, "utf-8")
    if expected == VIEWS:
        assert len(open_renders(trial).rgb) == VIEWS
    elif expected is not None:
        assert f" of {expected} views are missing" in refusal(trial).problem
    else:
        error = refusal(trial)
        assert (error.kind, "--views" in error.fix) == ("count", True)
        assert len(open_renders(trial, count=VIEWS).rgb) == VIEWS


def test_other_formats_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would start Ghostscript for an EPS, whatever it is called."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *a, **k: pytest.fail("a program was started"))
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n"
        )
    assert refusal(tmp_path).kind == "unreadable"
    assert picture_data(tmp_path / "0.png", 64) == ""


def test_grey_of_sixteen_bits_is_refused(tmp_path: Path) -> None:
    for i in range(2):
        grey = np.random.default_rng(i).integers(0, 65535, (SIDE, SIDE)).astype(np.uint16)
        Image.fromarray(grey).save(tmp_path / f"{i}.png")
    error = refusal(tmp_path)
    assert (error.kind, "8 bits" in error.problem) == ("unreadable", True)


def test_too_many_pixels_are_refused_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(4):
        picture(tmp_path / f"{i}.png", i)
    monkeypatch.setattr("threestudio_redream.evaluation.pictures.MAX_PIXELS", 4 * SIDE * SIDE - 1)
    (tmp_path / "3.png").write_bytes(b"never looked at")
    error = refusal(tmp_path)
    assert (error.kind, error.received) == ("resolution", f"4 of {SIDE} x {SIDE}")


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
    (tmp_path / "2.npy").write_bytes(b"")
    assert refusal(tmp_path).kind == "unreadable"
    with (tmp_path / "2.npy").open("wb") as file:
        np.savez(file, arrays[2])
    assert refusal(tmp_path).kind == "unreadable"


@pytest.mark.parametrize("views", [5, 9, 12, 13, 37, 120])
def test_a_turn_goes_once_around(views: int) -> None:
    """The last picture repeats the first; of fewer than twelve others each is taken once."""
    shown = Renders(torch.arange(views).float()[:, None, None, None].expand(views, 1, 1, 3), None, {})
    chosen = shown.turn().rgb[:, 0, 0, 0].numpy() * 360.0 / (views - 1)
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
