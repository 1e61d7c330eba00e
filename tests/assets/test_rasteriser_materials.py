"""Colour: factors, textures and their filters, vertex colours, transparency, light, encodings."""

from __future__ import annotations

import numpy as np
import pytest
from raster_scenes import FILL_FOV, FRONT, globe, make, noise_texture, plain_texture, square, stack

from threestudio_redream.assets import raster_pack as layout
from threestudio_redream.assets import raster_resolve, raster_visibility, shading
from threestudio_redream.assets.raster_coverage import used_texels
from threestudio_redream.assets.raster_mips import build_pyramid, multiply_factor
from threestudio_redream.assets.raster_pack import pack
from threestudio_redream.assets.rasteriser import AssetRenderer, render_asset
from threestudio_redream.assets.types import Material
from threestudio_redream.cameras import orbit_c2w


def pixel(asset, row=8, column=8, *, camera=FRONT, size=17, **options):
    return render_asset(asset, camera, FILL_FOV, size, size, **options).rgba[0, row, column]


def test_srgb_numbers():
    assert shading.decode_srgb(0.5) == pytest.approx(0.21404, abs=1e-5)
    values = np.linspace(0, 1, 257)
    np.testing.assert_allclose(shading.encode_srgb(shading.decode_srgb(values)), values, atol=1e-9)


def test_kernel_copies_of_constants():
    # numba caches a kernel by the text of its own file, so the kernels cannot import these.
    names = ("MODE", "REPEAT", "FIRST_LEVEL", "LEVEL_COUNT", "FACTOR", "BLEND")
    for name in names:
        assert getattr(raster_resolve, name) == getattr(layout, name)
    for name in (*names, "CUTOFF", "SINGLE_SIDED", "OPAQUE"):
        assert getattr(raster_visibility, name) == getattr(layout, name)
    assert raster_resolve.HEADLIGHT_AMBIENT == shading.HEADLIGHT_AMBIENT
    assert raster_resolve.WORLD_AMBIENT == shading.WORLD_AMBIENT
    lights = (raster_resolve._LIGHT_X, raster_resolve._LIGHT_Y, raster_resolve._LIGHT_Z)
    assert lights == shading.WORLD_LIGHT
    assert np.linalg.norm(lights) == pytest.approx(1.0)


def test_factor_and_texture_are_multiplied_in_linear_light():
    grey = plain_texture([[(188, 188, 188)]])  # 0.5 in linear light
    product = pixel(square(Material(texture=grey, base_color=(0.7354, 1.0, 0.0, 1.0))))
    # linear 0.5 * 0.5 = 0.25 is 0.5371 encoded, not 0.7354 squared = 0.5408
    np.testing.assert_allclose(product, [0.5371, 188 / 255, 0.0, 1.0], atol=0.003)
    factor = pixel(square(Material(base_color=(0.7354, 1.0, 0.0, 1.0))))
    np.testing.assert_allclose(factor, [0.7354, 1.0, 0.0, 1.0], atol=1e-6)
    assert multiply_factor(grey, (1.0, 1.0, 1.0)) is grey


def test_vertex_colours_times_factor_in_linear_light():
    colors = np.tile(np.array([0.5, 1.0, 0.25, 1.0], np.float32), (4, 1))
    np.testing.assert_allclose(pixel(square(colors=colors)), [0.5, 1.0, 0.25, 1.0], atol=1e-6)
    both = pixel(square(Material(base_color=(0.5, 0.5, 1.0, 1.0)), colors=colors))
    squared = shading.encode_srgb(shading.decode_srgb(0.5) ** 2)
    np.testing.assert_allclose(both, [squared, 0.5, 0.25, 1.0], atol=1e-6)


def test_wrap_modes():
    texture = plain_texture([[(255, 0, 0), (0, 0, 255)]])
    uvs = np.array([[1.5, 0], [2.5, 0], [2.5, 1], [1.5, 1]], np.float32)  # left half blue, then red
    repeated = square(Material(texture=texture), uvs=uvs)
    np.testing.assert_allclose(pixel(repeated, 8, 4), [0, 0, 1, 1], atol=0.1)
    np.testing.assert_allclose(pixel(repeated, 8, 12), [1, 0, 0, 1], atol=0.1)
    clamped = square(Material(texture=texture, wrap="clamp"), uvs=uvs)
    np.testing.assert_allclose(pixel(clamped, 8, 4), [0, 0, 1, 1], atol=1e-6)
    np.testing.assert_allclose(pixel(clamped, 8, 12), [0, 0, 1, 1], atol=1e-6)
    far = square(Material(texture=texture), uvs=uvs + np.float32(1e30))
    assert np.isfinite(pixel(far)).all()


@pytest.mark.parametrize("side", [64, 999])
def test_minified_checkerboard_is_grey(side):
    row, column = np.mgrid[:side, :side]
    board = np.repeat(((row + column) % 2 * 255).astype(np.uint8)[..., None], 4, -1)
    board[..., 3] = 255
    image = render_asset(square(Material(texture=board)), FRONT, FILL_FOV, 8, 8, supersample=2).rgba[0, ..., :3]
    np.testing.assert_allclose(image, 0.5, atol=0.02)


def test_oblique_texture_keeps_detail_along_its_short_side():
    # Stripes that run away from the viewer stay sharp at a slant; one isotropic mip level would blur them.
    column = np.mgrid[:256, :256][1]
    stripes = np.repeat((column // 8 % 2 * 255).astype(np.uint8)[..., None], 4, -1)
    stripes[..., 3] = 255
    floor = make(
        [[1, -0.5, 0], [1, 0.5, 0], [-1, 0.5, 0], [-1, -0.5, 0]],
        [[0, 1, 2], [0, 2, 3]],
        (Material(texture=stripes),),
        uvs=np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32),
    )
    image = render_asset(floor, orbit_c2w(0.0, 4.0, 2.5), 24.0, 64, 64, supersample=1).rgba[0]
    for row in image[29:36]:
        assert row[row[:, 3] > 0, 0].std() > 0.2


def test_gutters_do_not_bleed_into_coarse_levels():
    # A red chart in a corner of a black texture: seen from afar the chart must stay red.
    texture = np.zeros((512, 512, 4), np.uint8)
    texture[..., 3] = 255
    texture[:90, :90, 0] = 255
    uvs = np.array([[0, 0], [89 / 512, 0], [89 / 512, 89 / 512], [0, 89 / 512]], np.float32)
    asset = square(Material(texture=texture, wrap="clamp"), uvs=uvs)
    image = render_asset(asset, FRONT, FILL_FOV, 4, 4, supersample=1).rgba[0]
    np.testing.assert_allclose(image[..., 0], 1.0, atol=0.01)


def test_used_texels_matches_its_reference_and_knows_repeats():
    uv = np.random.default_rng(0).random((20, 3, 2)) * [0.5, 0.8]
    fast, slow = used_texels(uv, 40, 56), used_texels(uv, 40, 56, fast=False)
    assert fast is not None
    assert slow is not None
    assert (fast != slow).mean() < 0.005
    assert fast[:20].mean() > 0.2
    assert not fast[:, 45:].any()
    assert used_texels(uv + 0.6, 40, 56) is None
    assert used_texels(uv[:0], 40, 56) is None


@pytest.mark.parametrize("shape", [(64, 64), (37, 50), (1, 7), (5, 1), (3, 3), (1, 1)])
@pytest.mark.parametrize("by_alpha", [False, True])
def test_pyramid_matches_its_reference(shape, by_alpha):
    rng = np.random.default_rng(0)
    texture = noise_texture(*shape)
    texture[..., 3] *= rng.random(shape) > 0.3
    for used in (None, rng.random(shape) > 0.6):
        fast = build_pyramid(texture, used, by_alpha=by_alpha)
        slow = build_pyramid(texture, used, by_alpha=by_alpha, fast=False)
        assert [level.shape for level in fast] == [level.shape for level in slow]
        assert fast[-1].shape == (1, 1, 4)
        for one, two in zip(fast, slow, strict=True):
            assert np.abs(one.astype(int) - two).max() <= 1


def test_pyramid_averages_exactly_and_weights_by_alpha():
    texture = plain_texture([[(100, 0, 0), (50, 0, 0), (0, 0, 0)]] * 2)
    assert build_pyramid(texture)[1][0, 0, 0] == 50  # odd width: every texel counts the same
    cut = plain_texture([[(200, 0, 0, 255), (0, 255, 0, 0)]])
    first, last = build_pyramid(cut, by_alpha=True)
    np.testing.assert_array_equal(last[0, 0], [200, 0, 0, 128])
    np.testing.assert_array_equal(first[0, 1], [200, 0, 0, 0])  # the invisible texel takes its neighbour's colour


def test_shared_textures_are_packed_once():
    texture = noise_texture(8, 8)
    same = stack(square(Material(texture=texture)), square(Material(texture=texture, wrap="clamp"), x=-0.1))
    assert len(pack(same).levels) == 4
    tinted = stack(square(Material(texture=texture)), square(Material(texture=texture, base_color=(0.5, 1, 1, 1))))
    assert len(pack(tinted).levels) == 8
    unused = globe(4, (Material(), Material(texture=texture)))
    assert len(pack(unused).levels) == 0


def test_mask_discards_by_unfiltered_alpha():
    holes = plain_texture([[(255, 0, 0, 255), (255, 0, 0, 100)]]).repeat(8, 0).repeat(8, 1)
    asset = stack(
        square(Material(texture=holes, alpha_mode="MASK", alpha_cutoff=0.5)),
        square(Material(base_color=(0, 1, 0, 1)), x=-0.2, side=2.0),
    )
    np.testing.assert_allclose(pixel(asset, 8, 4), [1, 0, 0, 1], atol=1e-5)
    np.testing.assert_allclose(pixel(asset, 8, 12), [0, 1, 0, 1], atol=1e-5)
    opaque = square(Material(texture=holes))  # OPAQUE ignores alpha
    np.testing.assert_allclose(pixel(opaque, 8, 12), [1, 0, 0, 1], atol=1e-5)
    invisible = square(Material(base_color=(1, 1, 1, 0.3), alpha_mode="MASK"))
    assert not pixel(invisible).any()


def test_blended_layers_composite_in_depth_order():
    def pane(x, rgb, alpha):
        return square(Material(base_color=(*rgb, alpha), alpha_mode="BLEND"), x=x, side=2.0)

    wall = square(Material(base_color=(0, 0, 1, 1)), x=-0.5, side=4.0)
    red, green = pane(0.3, (1, 0, 0), 0.5), pane(0.0, (0, 1, 0), 0.25)
    expected = [0.5, 0.5 * 0.25, 0.5 * 0.75, 1.0]
    for order in ((red, green, wall), (wall, green, red), (green, wall, red)):
        np.testing.assert_allclose(pixel(stack(*order)), expected, atol=1e-6)
    np.testing.assert_allclose(pixel(stack(red, green)), [0.5, 0.125, 0.0, 0.625], atol=1e-6)
    hidden = stack(red, pane(-0.9, (1, 1, 1), 0.9), wall)
    np.testing.assert_allclose(pixel(hidden), [0.5, 0.0, 0.5, 1.0], atol=1e-6)
    # Depth and normal belong to the nearest visible surface; a fully transparent one is not there.
    render = render_asset(stack(red, wall), FRONT, FILL_FOV, 9, 9)
    assert render.depth[0, 4, 4, 0] == pytest.approx(1.7, abs=1e-6)
    gone = render_asset(stack(pane(0.3, (1, 0, 0), 0.0), wall), FRONT, FILL_FOV, 9, 9)
    assert gone.depth[0, 4, 4, 0] == pytest.approx(2.5, abs=1e-6)
    # Beyond the nearest four, blended surfaces are dropped.
    panes = [pane(0.1 * n, (1, 1, 1), 0.5) for n in range(6)]
    assert pixel(stack(*panes))[3] == pytest.approx(1 - 0.5**4, abs=1e-6)


def test_blend_without_transparency_is_treated_as_opaque():
    solid = square(Material(texture=plain_texture([[(9, 9, 9)]]), alpha_mode="BLEND"))
    assert AssetRenderer(solid).packed.materials[0, layout.MODE] == layout.OPAQUE
    kept = square(Material(base_color=(1, 1, 1, 0.7), alpha_mode="MASK"))
    assert AssetRenderer(kept).packed.materials[0, layout.MODE] == layout.OPAQUE
    colors = np.full((4, 4), 0.5, np.float32)
    faded = square(Material(alpha_mode="BLEND"), colors=colors)
    np.testing.assert_allclose(pixel(faded), [0.25, 0.25, 0.25, 0.5], atol=1e-6)


def test_light_factors():
    up = np.array([[0.0, 0.0, 1.0], shading.WORLD_LIGHT])
    np.testing.assert_allclose(shading.light_factor(up, up, 2), [0.945, 1.0])
    np.testing.assert_allclose(shading.light_factor(up, -up, 1), 0.35)
    np.testing.assert_allclose(shading.light_factor(up, up, 0), 1.0)
    white = square()
    assert pixel(white, shading="headlight")[0] == pytest.approx(1.0, abs=1e-4)
    facing = 0.45 + 0.275 * (1 + shading.WORLD_LIGHT[0])
    assert pixel(white, shading="world")[0] == pytest.approx(facing, abs=1e-6)


def test_world_light_does_not_depend_on_the_view():
    asset = square()
    views = render_asset(asset, orbit_c2w([-40.0, 0.0, 35.0], [10.0, 0.0, 50.0], 2.0), 30.0, 9, 9, shading="world")
    centre = views.rgba[:, 4, 4]
    np.testing.assert_allclose(centre, np.broadcast_to(centre[0], centre.shape), atol=1e-6)
    headlight = render_asset(asset, orbit_c2w([0.0, 60.0], 0.0, 2.0), 30.0, 9, 9, shading="headlight").rgba[:, 4, 4, 0]
    assert headlight[1] == pytest.approx(0.35 + 0.65 * 0.5, abs=0.01)
