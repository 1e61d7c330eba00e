import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.checkpoint import read_checkpoint
from threestudio_redream.runtime.files import atomic_path, atomic_write_text, remove_leftovers, visible
from threestudio_redream.runtime.imaging import apply_colormap, grayscale_image, image_grid, rgb_image, uv_image
from threestudio_redream.runtime.saving import SaverMixin
from threestudio_redream.runtime.video import matching_frames, write_video


@pytest.fixture
def saver(tmp_path):
    saver = SaverMixin()
    saver.set_save_dir(tmp_path)
    return saver


def _pixels(path):
    return np.asarray(Image.open(path))


def test_rgb_images_keep_values_and_layouts(saver):
    image = torch.rand(3, 5, 4)
    path = saver.save_rgb_image("sub/a.png", image, data_format="CHW")
    np.testing.assert_array_equal(_pixels(path), (image.permute(1, 2, 0).numpy() * 255).round())
    assert _pixels(saver.save_rgb_image("b.png", torch.rand(4, 6, 2))).shape == (4, 6, 3)
    assert _pixels(saver.save_rgb_image("c.png", torch.rand(4, 6, 4))).shape == (4, 6, 4)
    assert _pixels(saver.save_rgb_image("d.png", torch.rand(4, 6, 6))).shape == (4, 12, 3)
    assert rgb_image(np.full((2, 2), 2.0)).max() == 255
    assert rgb_image(np.zeros((2, 2, 3)), data_range=(-1, 1))[0, 0, 0] == 128
    with pytest.raises(ConfigError, match="channel count"):
        rgb_image(np.zeros((2, 2, 5)))
    with pytest.raises(ConfigError, match="HWC"):
        rgb_image(np.zeros((2, 2, 3)), "WHC")


def test_grayscale_colour_maps(saver):
    ramp = np.linspace(0, 1, 5, dtype=np.float32)[None]
    np.testing.assert_allclose(
        apply_colormap(ramp, "jet")[0, [0, 2, 4]], [[0, 0, 0.5], [0.5, 1, 0.5], [0.5, 0, 0]], atol=1e-6
    )
    np.testing.assert_allclose(apply_colormap(ramp, "magma")[0, 4], np.array([0xFC, 0xFD, 0xBF]) / 255, atol=1e-6)
    assert grayscale_image(ramp, cmap=None)[0, :, 0].tolist() == [0, 64, 128, 191, 255]
    assert grayscale_image(np.full((2, 2), np.nan), cmap=None).max() == 0
    assert _pixels(saver.save_grayscale_image("g.png", torch.rand(3, 3), data_range=(0, 1))).shape == (3, 3, 3)
    with pytest.raises(ConfigError, match="jet, magma"):
        apply_colormap(ramp, "viridis")


def test_uv_pictures(saver):
    uv = torch.stack(torch.meshgrid(torch.linspace(0, 1, 8), torch.linspace(0, 1, 8), indexing="ij"), -1)
    assert len(np.unique(_pixels(saver.save_uv_image("uv.png", uv)))) == 2
    assert uv_image(uv, cmap="color")[-1, -1].tolist() == [255, 255, 0]
    with pytest.raises(ConfigError, match="checkerboard"):
        uv_image(uv, cmap="x")


def test_grids_align_and_carry_texts(saver):
    small, large = np.full((4, 4, 3), 255, np.uint8), np.full((8, 8, 3), 7, np.uint8)
    assert image_grid([small, large]).shape == (8, 16, 3)
    assert image_grid([[small], [large]], "min").shape == (8, 4, 3)
    assert image_grid([small, large], 6).shape == (6, 12, 3)
    assert image_grid([small], (5, 7)).shape == (5, 7, 3)
    with pytest.raises(ConfigError, match="alignment"):
        image_grid([small], "middle")
    path = saver.save_image_grid(
        "grid.png",
        [
            {"type": "rgb", "img": torch.zeros(40, 40, 3), "kwargs": {"data_format": "HWC"}},
            {"type": "grayscale", "img": torch.rand(40, 40)},
        ],
        texts=["caption"],
    )
    assert _pixels(path).shape == (40, 80, 3)
    with pytest.raises(ConfigError, match="grid item"):
        saver.save_image_grid("x.png", [{"type": "depth", "img": torch.zeros(2, 2)}])
    assert _pixels(saver.save_cubemap("cube.png", torch.rand(6, 4, 4, 3))).shape == (12, 16, 3)


def test_videos_have_every_frame(saver):
    import av

    for i in range(12):
        saver.save_rgb_image(f"turn/{i}.png", torch.full((31, 33, 3), i / 11))
    path = saver.save_img_sequence("turn", "turn", r"(\d+)\.png", fps=10)
    with av.open(path) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(frames) == 12
    assert frames[0].shape == (32, 34, 3)
    levels = [frame.mean() for frame in frames]
    np.testing.assert_allclose(levels, np.arange(12) / 11 * 255, atol=4)
    gif = saver.save_img_sequence("turn", "turn", r"(\d+)\.png", save_format="gif")
    with Image.open(gif) as animation:
        assert animation.n_frames == 12
    assert [p.stem for p in matching_frames(saver.get_save_path("turn"), r"(\d+)\.png")][:3] == ["0", "1", "2"]
    with pytest.raises(ConfigError, match="at least one frame"):
        write_video(saver.get_save_path("x.mp4"), [])
    with pytest.raises(ConfigError, match="mp4"):
        saver.save_img_sequence("x", "turn", r"(\d+)", save_format="avi")
    with pytest.raises(ConfigError, match="mp4"):
        write_video(saver.get_save_path("x.avi"), [np.zeros((2, 2, 3), np.uint8)])


def killed_writer(path, data=b""):
    """What a writer of ``path`` leaves when it is killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        patch.setattr("os.replace", lambda *_: None)
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
    return temporary


def test_a_half_written_frame_is_no_frame(saver):
    for i in range(3):
        saver.save_rgb_image(f"turn/{i}.png", torch.zeros(16, 16, 3))
    folder = Path(saver.get_save_path("turn"))
    assert killed_writer(folder / "1.png").exists()
    assert [path.name for path in matching_frames(folder, r"(\d+)\.png")] == ["0.png", "1.png", "2.png"]
    assert Path(saver.save_img_sequence("turn", "turn", r"(\d+)\.png", save_format="gif")).stat().st_size > 0


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    kept = [".hidden", ".git.tmp", "a.tmp", ".1.png.tmp", "sub/b.tmp.png", "sub/.notes.ABCDEFGH.tmp.txt"]
    (tmp_path / "sub").mkdir()
    for name in kept:
        (tmp_path / name).write_text("mine")
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    elsewhere = killed_writer(outside / "0.png")
    (tmp_path / "link").symlink_to(outside)
    left = [killed_writer(tmp_path / name, b"half") for name in ("1.png", "sub/model.glb", "sub/README", "a.b.json")]
    assert all(path.exists() for path in left)
    assert visible([*left, tmp_path / "a.tmp"]) == [tmp_path / "a.tmp"]
    assert remove_leftovers(tmp_path) == len(left)
    assert not any(path.exists() for path in left)
    assert all((tmp_path / name).exists() for name in kept)
    assert elsewhere.exists()
    assert remove_leftovers(tmp_path / "nowhere") == 0


def test_data_json_and_state(saver, tmp_path):
    assert np.load(saver.save_data("a", torch.arange(3))).tolist() == [0, 1, 2]
    assert np.load(saver.save_data("b.npz", {"x": torch.ones(2)}))["x"].tolist() == [1, 1]
    path = saver.save_json("m.json", {"t": torch.ones(2), "n": np.float32(2), "p": tmp_path})
    payload = json.loads(Path(path).read_text())
    assert payload == {"t": [1.0, 1.0], "n": 2.0, "p": str(tmp_path)}
    assert torch.equal(read_checkpoint(saver.save_state_dict("s.pth", {"w": torch.ones(3)}))["w"], torch.ones(3))
    assert Path(saver.save_file("copy.json", saver.get_save_path("m.json"))).read_text().startswith("{")
    obj = saver.save_mesh("m.ply", torch.eye(3), torch.tensor([[0, 1, 2]]))
    assert Path(obj).read_bytes()[:3] == b"ply"
    assert saver.convert_data(None) is None


def test_names_cannot_leave_the_folder(saver):
    with pytest.raises(ConfigError, match="leaves the save folder") as caught:
        saver.save_json("../out.json", {})
    assert "../out.json" in str(caught.value)
    with pytest.raises(ConfigError, match="not set"):
        SaverMixin().get_save_path("x")
    with pytest.raises(ConfigError, match="uint8"):
        saver.save_image("x.png", np.zeros((2, 2, 3), np.float32))


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    atomic_write_text(path, "old")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_loggers_are_off_by_default(saver):
    saver.create_loggers({})
    saver.create_loggers({"wandb": {"enable": False, "project": "p", "name": "n"}})
    assert saver.get_loggers() == []
