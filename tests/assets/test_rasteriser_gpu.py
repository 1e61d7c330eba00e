"""The moderngl backend: the same images as the CPU where there is an EGL driver, named errors where not."""

from __future__ import annotations

import sys
import threading
import types

import numpy as np
import pytest
from raster_scenes import FILL_FOV, FRONT, globe, noise_texture, plain_texture, square, stack

from threestudio_redream.assets import gpu_rasteriser
from threestudio_redream.assets.rasteriser import AssetRenderer, render_asset
from threestudio_redream.assets.types import Material
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.errors import ConfigError, MissingExtraError, RedreamError

CAMERAS = orbit_c2w([30.0, 200.0, 90.0], [20.0, -40.0, 85.0], [2.0, 1.5, 0.3])


@pytest.fixture
def egl():
    """Skips, with the reason, where moderngl or an EGL driver is absent."""
    try:
        gpu_rasteriser._context()
    except RedreamError as error:
        pytest.skip(str(error))


@pytest.fixture
def fresh_context(monkeypatch):
    monkeypatch.setattr(gpu_rasteriser, "_contexts", threading.local())


def test_missing_moderngl_names_the_extra(monkeypatch, fresh_context):
    monkeypatch.setitem(sys.modules, "moderngl", None)
    with pytest.raises(MissingExtraError) as caught:
        AssetRenderer(square(), backend="moderngl")
    assert caught.value.extra == "gpu-raster"
    assert "moderngl" in caught.value.problem
    assert "threestudio-redream[gpu-raster]" in caught.value.fix


def test_missing_driver_is_named(monkeypatch, fresh_context):
    broken = types.ModuleType("moderngl")

    def create_context(**options):
        raise Exception("cannot load libEGL.so")

    broken.create_context = create_context  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "moderngl", broken)
    with pytest.raises(RedreamError) as caught:
        AssetRenderer(square(), backend="moderngl")
    assert "EGL" in caught.value.problem
    assert caught.value.received == "cannot load libEGL.so"
    assert "backend='numba'" in caught.value.fix


def smooth_alpha() -> np.ndarray:
    row, column = np.mgrid[:32, :32]
    texture = np.zeros((32, 32, 4), np.uint8)
    texture[..., 0], texture[..., 1], texture[..., 3] = 8 * row, 8 * column, 255 - np.abs(column - 16) * 12
    return texture


SCENES = {
    "plain": lambda: globe(12),
    "texture": lambda: globe(12, (Material(texture=smooth_alpha(), base_color=(0.9, 0.7, 1.0, 1.0)),)),
    "colors": lambda: globe(6, colors=np.random.default_rng(0).random((91, 4)).astype(np.float32)),
    "mask": lambda: globe(12, (Material(texture=smooth_alpha(), alpha_mode="MASK", alpha_cutoff=0.6),)),
    "two": lambda: stack(
        globe(8), square(Material(texture=noise_texture(4, 4), wrap="clamp", double_sided=False), x=0.2)
    ),
}


@pytest.mark.usefixtures("egl")
@pytest.mark.parametrize("name", list(SCENES))
@pytest.mark.parametrize("supersample", [1, 3])
def test_same_images_as_the_cpu(name, supersample):
    asset = SCENES[name]()
    for shading, cull in (("none", False), ("headlight", True), ("world", False)):
        cpu, gpu = (
            AssetRenderer(asset, supersample=supersample, shading=shading, backend=backend, cull_backfaces=cull)(
                CAMERAS, [40.0, 60.0, 90.0], 96, 128
            )
            for backend in ("auto", "moderngl")
        )
        seen, other = cpu.depth[..., 0] > 0, gpu.depth[..., 0] > 0
        assert (seen & other).sum() / (seen | other).sum() >= 0.999
        both = seen & other
        assert np.median(np.abs(cpu.depth - gpu.depth)[both]) < 1e-6
        assert np.quantile(np.abs(cpu.depth - gpu.depth)[both], 0.99) < 1e-4
        assert np.quantile(np.abs(cpu.normal - gpu.normal)[both], 0.99) < 1e-3
        assert np.abs(cpu.rgba - gpu.rgba).mean() < 0.005


@pytest.mark.usefixtures("egl")
def test_blended_layers_composite_in_depth_order():
    def pane(x, rgb):
        return square(Material(base_color=(*rgb, 0.5), alpha_mode="BLEND"), x=x, side=2.0)

    red, green = pane(0.3, (1, 0, 0)), pane(0.0, (0, 1, 0))
    wall = square(Material(base_color=(0, 0, 1, 1)), x=-0.5, side=4.0)
    for order in ((red, green, wall), (wall, green, red)):
        render = render_asset(stack(*order), FRONT, FILL_FOV, 8, 8, backend="moderngl")
        np.testing.assert_allclose(render.rgba[0], np.broadcast_to([0.5, 0.25, 0.25, 1.0], (8, 8, 4)), atol=1e-3)
        assert render.depth[0, 4, 4, 0] == pytest.approx(1.7, abs=0.01)


@pytest.mark.usefixtures("egl")
def test_texture_orientation():
    quarters = plain_texture([[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (255, 255, 255)]]).repeat(8, 0).repeat(8, 1)
    image = render_asset(square(Material(texture=quarters)), FRONT, FILL_FOV, 16, 16, backend="moderngl").rgba[0]
    for (row, column), rgb in {(3, 3): "100", (3, 12): "010", (12, 3): "001", (12, 12): "111"}.items():
        np.testing.assert_allclose(image[row, column, :3], [float(c) for c in rgb], atol=0.01)


@pytest.mark.usefixtures("egl")
def test_too_large_and_foreign_thread_are_named():
    renderer = AssetRenderer(square(), backend="moderngl")
    with pytest.raises(ConfigError, match=r"OpenGL driver.*got \(32768.*smaller supersample"):
        renderer(FRONT, 40.0, 4096, 8, supersample=8)
    failures: list[RedreamError] = []

    def elsewhere() -> None:
        try:
            renderer(FRONT, 40.0, 8, 8)
        except RedreamError as error:
            failures.append(error)

    worker = threading.Thread(target=elsewhere, name="stranger")
    worker.start()
    worker.join()
    assert failures[0].received == "stranger"
    assert "one AssetRenderer per thread" in failures[0].fix
    assert "one thread" in failures[0].problem
