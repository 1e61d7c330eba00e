"""The front door: errors, caching, determinism over threads and batches, forks, cheap imports."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from raster_scenes import FRONT, globe, noise_texture, square

from threestudio_redream.assets import rasteriser
from threestudio_redream.assets.raster_settings import sample_order, view_arrays
from threestudio_redream.assets.rasteriser import AssetRenderer, render_asset
from threestudio_redream.assets.types import Material
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.errors import ConfigError
from threestudio_redream.kernels.jit import numba_available, set_threads

needs_numba = pytest.mark.skipif(not numba_available(), reason="numba is not installed")


def textured() -> rasteriser.Asset:
    return globe(16, (Material(texture=noise_texture(64, 64)),))


BAD_NUMBERS = np.eye(4)
BAD_NUMBERS = np.where(BAD_NUMBERS == 1, np.nan, BAD_NUMBERS)
SCALED = np.diag([2.0, 2.0, 2.0, 1.0])
MIRRORED = np.diag([-1.0, 1.0, 1.0, 1.0])


@pytest.mark.parametrize(
    ("arguments", "options", "problem", "received", "fix"),
    [
        ((np.eye(3), 40.0, 8, 8), {}, "c2w has the wrong shape", (3, 3), "[B, 4, 4]"),
        ((np.zeros((0, 4, 4)), 40.0, 8, 8), {}, "c2w has the wrong shape", (0, 4, 4), "B >= 1"),
        ((BAD_NUMBERS, 40.0, 8, 8), {}, "not finite", None, "camera positions"),
        ((SCALED, 40.0, 8, 8), {}, "not orthonormal", 3.0, "look_at"),
        ((MIRRORED, 40.0, 8, 8), {}, "right-handed", 0.0, "look_at"),
        ((FRONT, 0.0, 8, 8), {}, "field of view", [0.0], "between 0 and 180"),
        ((FRONT, 180.0, 8, 8), {}, "field of view", [180.0], "between 0 and 180"),
        ((FRONT, float("nan"), 8, 8), {}, "field of view", None, "between 0 and 180"),
        ((FRONT, [40.0, 50.0], 8, 8), {}, "does not fit", (2,), "one number or 1"),
        ((FRONT, 40.0, 0, 8), {}, "image height", 0, "1 to 4096"),
        ((FRONT, 40.0, 8, 4097), {}, "image width", 4097, "1 to 4096"),
        ((FRONT, 40.0, 8.5, 8), {}, "image height", 8.5, "integer"),
        ((FRONT, 40.0, True, 8), {}, "image height", True, "integer"),
        ((FRONT, 40.0, 8, 8), {"supersample": 9}, "supersample", 9, "1 to 8"),
        ((FRONT, 40.0, 8, 8), {"shading": "phong"}, "shading mode", "phong", "headlight"),
        ((FRONT, 40.0, 8, 8), {"backend": "cuda"}, "backend", "cuda", "moderngl"),
    ],
)
def test_bad_arguments_are_named(arguments, options, problem, received, fix):
    with pytest.raises(ConfigError) as caught:
        render_asset(square(), *arguments, **options)
    assert problem in caught.value.problem
    assert fix in caught.value.fix
    if received is not None:
        assert caught.value.received == received


def test_constructor_checks_its_arguments():
    with pytest.raises(ConfigError, match=r"supersample.*got 0.*1 to 8"):
        AssetRenderer(square(), supersample=0)
    with pytest.raises(ConfigError, match=r"shading mode.*got 'dark'.*none, headlight, world"):
        AssetRenderer(square(), shading="dark")


def test_views_are_fifteen_floats():
    row = view_arrays(orbit_c2w(0.0, 0.0, 2.0)[None].astype(float), np.array([90.0]), 4, 6, 2)[0]
    np.testing.assert_allclose(row, [0, 1, 0, 0, 0, 1, 1, 0, 0, 2, 0, 0, 4, 6, 4], atol=1e-7)
    assert sample_order(3)[0] == 4
    assert sample_order(2).tolist() == [0, 1, 2, 3]


def test_one_camera_or_many():
    asset, cameras = textured(), orbit_c2w([0.0, 80.0, 200.0], 15.0, 2.0)
    together = render_asset(asset, cameras, [30.0, 40.0, 50.0], 20, 24)
    for index, fov in enumerate((30.0, 40.0, 50.0)):
        alone = render_asset(asset, cameras[index], fov, 20, 24)
        np.testing.assert_array_equal(alone.rgba[0], together.rgba[index])
        np.testing.assert_array_equal(alone.depth[0], together.depth[index])
    assert together.rgba.dtype == together.depth.dtype == together.normal.dtype == np.float32


@needs_numba
@pytest.mark.parametrize("size", [40, 150])  # below and above the size that is drawn by several threads
def test_images_do_not_depend_on_threads(size):
    asset, cameras = textured(), orbit_c2w([0.0, 80.0, 200.0], 15.0, 2.0)
    images = []
    try:
        for threads in (1, 2, 2):
            set_threads(threads)
            images.append(AssetRenderer(asset)(cameras, 40.0, size, size))
    finally:
        set_threads(None)
    for other in images[1:]:
        np.testing.assert_array_equal(other.rgba, images[0].rgba)
        np.testing.assert_array_equal(other.depth, images[0].depth)
        np.testing.assert_array_equal(other.normal, images[0].normal)


@needs_numba
def test_bands_join_without_a_seam():
    # A view that needs many bands equals the same pixels seen as small views of their own.
    asset = textured()
    tall = AssetRenderer(asset, supersample=8)(orbit_c2w(10.0, 20.0, 2.0), 40.0, 96, 96)
    reference = AssetRenderer(asset, supersample=8, backend="numpy")(orbit_c2w(10.0, 20.0, 2.0), 40.0, 96, 96)
    np.testing.assert_allclose(tall.rgba, reference.rgba, atol=1e-5)


def test_several_python_threads_may_share_a_renderer():
    renderer, cameras = AssetRenderer(textured()), orbit_c2w(np.arange(8) * 45.0, 15.0, 2.0)
    expected = [renderer(camera, 40.0, 100, 100).rgba for camera in cameras]
    results: dict[int, np.ndarray] = {}

    def work(index: int) -> None:
        results[index] = renderer(cameras[index], 40.0, 100, 100).rgba

    workers = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for index in range(8):
        np.testing.assert_array_equal(results[index], expected[index])


def test_call_options_override_the_constructor():
    asset = textured()
    renderer = AssetRenderer(asset, supersample=1)
    view = (FRONT, 40.0, 16, 16)
    np.testing.assert_array_equal(
        renderer(*view, supersample=3, shading="world").rgba,
        AssetRenderer(asset, supersample=3, shading="world")(*view).rgba,
    )
    assert (renderer(*view).rgba != renderer(*view, supersample=3).rgba).any()


def test_render_asset_prepares_an_asset_once(monkeypatch):
    rasteriser._cache.clear()
    packed = []
    monkeypatch.setattr(rasteriser, "pack", lambda asset, **options: packed.append(asset) or original(asset, **options))
    asset = textured()
    for _ in range(3):
        render_asset(asset, FRONT, 40.0, 8, 8)
    assert len(packed) == 1
    render_asset(asset, FRONT, 40.0, 8, 8, cull_backfaces=True)
    assert len(packed) == 2
    others = [textured() for _ in range(6)]
    for other in others:
        render_asset(other, FRONT, 40.0, 8, 8)
    assert len(rasteriser._cache) <= 4
    packed.clear()
    del asset, other, others
    gc.collect()
    render_asset(square(), FRONT, 40.0, 8, 8)
    assert len(rasteriser._cache) == 1  # renderers of dead assets are dropped


original = rasteriser.pack


def test_auto_backend_follows_the_kernel_switch(monkeypatch):
    monkeypatch.setenv("REDREAM_KERNELS", "torch")
    plain = AssetRenderer(textured())
    assert plain.backend == "numpy"
    image = plain(FRONT, 40.0, 12, 12)
    monkeypatch.delenv("REDREAM_KERNELS")
    fast = AssetRenderer(textured())
    assert fast.backend == ("numba" if numba_available() else "numpy")
    # Their mip levels may differ by one in 255 where an average lies between two values.
    np.testing.assert_allclose(fast(FRONT, 40.0, 12, 12).rgba, image.rgba, atol=1.01 / 255)


FORK_SCRIPT = """
import os, sys
import numpy as np
sys.path.insert(0, {folder!r})
from raster_scenes import FRONT, globe
from threestudio_redream.assets.rasteriser import AssetRenderer
renderer = AssetRenderer(globe(12))
before = renderer(FRONT, 40.0, 200, 200).rgba
child = os.fork()
after = renderer(FRONT, 40.0, 200, 200).rgba
same = int(np.array_equal(before, after))
if child == 0:
    os._exit(0 if same else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or 1 - same)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_can_render():
    script = FORK_SCRIPT.format(folder=os.path.dirname(__file__))
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_importing_is_cheap():
    script = (
        "import sys, threestudio_redream.assets.rasteriser, threestudio_redream.assets.render\n"
        "heavy = {'torch', 'numba', 'trimesh', 'PIL', 'moderngl', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
