"""``render_to_folder``: files, cameras, framing, contact sheet, errors, atomicity."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from raster_scenes import globe, noise_texture

from threestudio_redream.assets import render as render_module
from threestudio_redream.assets.rasteriser import render_asset
from threestudio_redream.assets.render import framing_distance, render_to_folder
from threestudio_redream.assets.types import Material
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.errors import AssetError, ConfigError


@pytest.fixture
def asset():
    return globe(10, (Material(texture=noise_texture(32, 32)),))


def test_framing_number():
    assert framing_distance(0.5, 60.0) == pytest.approx(1.05)


def test_writes_views_cameras_and_sheet(asset, tmp_path):
    seen = []
    summary = render_to_folder(
        asset,
        tmp_path / "new",
        views=5,
        size=48,
        masks=True,
        depths=True,
        normals=True,
        progress=lambda *n: seen.append(n),
    )
    assert seen == [(index, 5) for index in range(1, 6)]
    folder = tmp_path / "new"
    written = {path.name for path in folder.iterdir()}
    assert written == {"sheet.png", "cameras.json", *summary["files"]}
    assert len(summary["files"]) == 20
    assert json.loads(json.dumps(summary)) == summary
    assert summary["asset"] == {"name": "test", "vertices": len(asset.vertices), "faces": len(asset.faces)}

    cameras = json.loads((folder / "cameras.json").read_text())
    assert cameras["schema"] == "redream-cameras/1"
    assert "+z up" in cameras["convention"]
    assert [view["azimuth_deg"] for view in cameras["views"]] == [0.0, 72.0, 144.0, 216.0, 288.0]
    view = cameras["views"][1]
    assert view["files"] == {
        "image": "view_001.png", "mask": "mask_001.png", "depth": "depth_001.npy", "normal": "normal_001.png"
    }  # fmt: skip
    np.testing.assert_allclose(view["c2w"], orbit_c2w(72.0, 15.0, summary["distance"]), atol=1e-6)

    # The files hold what the renderer gives for the cameras they come with.
    render = render_asset(asset, np.array(view["c2w"]), view["fovy_deg"], 48, 48)
    png = np.asarray(Image.open(folder / "view_001.png"), np.float32) / 255.0
    assert png.shape == (48, 48, 4)
    np.testing.assert_allclose(png[..., 3:], render.mask[0], atol=0.003)
    np.testing.assert_allclose(png[..., :3] * png[..., 3:], render.rgba[0, ..., :3], atol=0.006)
    np.testing.assert_array_equal(np.load(folder / "depth_001.npy", allow_pickle=False), render.depth[0, ..., 0])
    mask = np.asarray(Image.open(folder / "mask_001.png"), np.float32) / 255.0
    np.testing.assert_allclose(mask, render.mask[0, ..., 0], atol=0.003)
    normal = np.asarray(Image.open(folder / "normal_001.png"), np.float32) / 255.0
    np.testing.assert_allclose(normal * 2 - 1, render.normal[0], atol=0.01)
    assert Image.open(folder / "sheet.png").size == (3 * 48, 2 * 48)


def test_the_object_fills_the_image_but_for_a_margin(asset, tmp_path):
    render_to_folder(asset, tmp_path, views=3, size=64, elevation_deg=-20.0, fovy_deg=70.0, sheet=False)
    for index in range(3):
        alpha = np.asarray(Image.open(tmp_path / f"view_{index:03d}.png"))[..., 3]
        rows = np.nonzero(alpha.max(1))[0]
        assert 0 < rows[0] <= 4
        assert 59 <= rows[-1] < 63
    assert not (tmp_path / "sheet.png").exists()


def test_background_and_large_sheet(asset, tmp_path, monkeypatch):
    monkeypatch.setattr(render_module, "_SHEET_TILE", 16)
    render_to_folder(asset, tmp_path, views=2, size=40, background=(1.0, 0.0, 0.5), shading="world")
    image = np.asarray(Image.open(tmp_path / "view_000.png"))
    assert image.shape == (40, 40, 3)
    np.testing.assert_array_equal(image[0, 0], [255, 0, 128])
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (16, 32, 3)
    np.testing.assert_array_equal(sheet[0, 0], [255, 0, 128])


def test_a_file_is_loaded_and_normalised(tmp_path):
    # A cuboid 1 x 4 x 2 in a file with +y up: 4 tall after loading, seen from the front (+z of the file).
    corners = [(x, y, z) for x in (0, 1) for y in (10, 14) for z in (0, 2)]
    quads = [(1, 2, 4, 3), (5, 7, 8, 6), (1, 5, 6, 2), (3, 4, 8, 7), (1, 3, 7, 5), (2, 6, 8, 4)]
    lines = [f"v {x} {y} {z}" for x, y, z in corners] + [f"f {a} {b} {c} {d}" for a, b, c, d in quads]
    (tmp_path / "box.obj").write_text("\n".join(lines) + "\n")
    summary = render_to_folder(tmp_path / "box.obj", tmp_path / "out", views=2, size=64, elevation_deg=0.0)
    assert summary["distance"] == pytest.approx(framing_distance(0.5, 40.0), rel=1e-5)
    alpha = np.asarray(Image.open(tmp_path / "out" / "view_000.png"))[..., 3] > 128
    height, width = np.ptp(np.nonzero(alpha)[0]) + 1, np.ptp(np.nonzero(alpha)[1]) + 1
    assert height / width == pytest.approx(4.0, rel=0.15)
    sideways = render_to_folder(tmp_path / "box.obj", tmp_path / "z", views=1, size=64, elevation_deg=0.0, up="+z")
    alpha = np.asarray(Image.open(tmp_path / "z" / "view_000.png"))[..., 3] > 128
    assert np.ptp(np.nonzero(alpha)[0]) + 1 < 40
    assert sideways["views"] == 1
    with pytest.raises(AssetError):
        render_to_folder(tmp_path / "absent.obj", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "problem", "received", "fix"),
    [
        ({"views": 0}, "number of views", 0, "1 to 1024"),
        ({"size": 5000}, "image size", 5000, "1 to 4096"),
        ({"elevation_deg": 91.0}, "elevation", 91.0, "-90 to 90"),
        ({"fovy_deg": 180.0}, "field of view", 180.0, "between 0 and 180"),
        ({"distance": 0.0}, "camera distance", 0.0, "positive"),
        ({"distance": float("inf")}, "camera distance", float("inf"), "positive"),
        ({"background": (1.0, 2.0, 0.0)}, "background", (1.0, 2.0, 0.0), "from 0 to 1"),
        ({"background": (1.0, 0.0)}, "background", (1.0, 0.0), "from 0 to 1"),
    ],
)
def test_bad_options_are_named(asset, tmp_path, options, problem, received, fix):
    with pytest.raises(ConfigError) as caught:
        render_to_folder(asset, tmp_path / "out", **options)
    assert problem in caught.value.problem
    assert caught.value.received == received
    assert fix in caught.value.fix
    assert not (tmp_path / "out").exists()


def test_an_interrupted_run_leaves_no_half_written_file(asset, tmp_path, monkeypatch):
    render_to_folder(asset, tmp_path, views=1, size=16)
    before = (tmp_path / "view_000.png").read_bytes()

    def fail(self, path, *rest, **options):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        render_to_folder(asset, tmp_path, views=1, size=24)
    assert (tmp_path / "view_000.png").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"view_000.png", "sheet.png", "cameras.json"}
