import json
from dataclasses import replace

import numpy as np
import pytest

from threestudio_redream.assets import load_asset
from threestudio_redream.assets.rasteriser import AssetRenderer
from threestudio_redream.cameras import orbit_c2w, pixel_rays
from threestudio_redream.errors import ConfigError, EmptySceneError
from threestudio_redream.meshing import (
    Mesh,
    as_asset,
    extract_textured_mesh,
    gradient_normal_fn,
    mesh_masks,
    signed_volume,
    write_glb,
    write_obj,
)
from threestudio_redream.meshing.pipeline import _every

SMALL = {"resolution": 48, "target_faces": 2000, "texture_size": 128, "padding": 1}
CAMERAS = orbit_c2w([0, 90, 200, 300], [0, 30, -20, 60], 2.5)


def density_of(level_fn, sharpness=40.0, peak=80.0):
    return lambda p: peak / (1.0 + np.exp(-np.clip(sharpness * level_fn(p), -40, 40)))


@pytest.fixture(scope="module")
def ring(solids):
    return extract_textured_mesh(
        solids.torus,
        solids.color,
        solids.BOX,
        threshold=0.0,
        normal_fn=gradient_normal_fn(solids.torus, 0.02),
        name="ring",
        **SMALL,
    )


def test_result_and_report(solids, ring):
    mesh, report = ring
    assert signed_volume(mesh.vertices, mesh.faces) == pytest.approx(2 * np.pi**2 * 0.55 * 0.22**2, rel=0.015)
    assert (report.faces, report.vertices) == (len(mesh.faces), len(mesh.vertices))
    assert report.faces <= 2000 < report.surface_faces
    assert report.watertight
    assert report.automatic is False
    assert report.iou is None
    assert report.grid_shape == (48, 48, 48)
    assert mesh.texture.shape == (128, 128, 3)
    assert mesh.name == "ring"
    assert set(report.timings) == {"grid", "surface", "simplify", "normals", "unwrap", "bake"}
    assert json.loads(json.dumps(report.to_dict()))["iou_table"] == []
    exact = gradient_normal_fn(solids.torus, 0.02)(mesh.vertices)
    assert np.einsum("ij,ij->i", exact, mesh.normals).min() > 0.99


def test_deterministic(solids, ring):
    again, _ = extract_textured_mesh(
        solids.torus,
        solids.color,
        solids.BOX,
        threshold=0.0,
        normal_fn=gradient_normal_fn(solids.torus, 0.02),
        name="ring",
        **SMALL,
    )
    for name in ("vertices", "faces", "normals", "uvs", "texture"):
        np.testing.assert_array_equal(getattr(again, name), getattr(ring[0], name))


@pytest.mark.parametrize("suffix", ["glb", "obj"])
def test_reloaded_file_renders_like_the_mesh_in_memory(tmp_path, ring, suffix):
    mesh, path = ring[0], tmp_path / f"ring.{suffix}"
    (write_glb if suffix == "glb" else write_obj)(path, mesh)
    loaded = load_asset(path)
    to_world = [2, 0, 1]  # world (x, y, z) = file (z, x, y)
    turned = replace(loaded, vertices=loaded.vertices[:, to_world], normals=loaded.normals[:, to_world])
    ours, theirs = (
        AssetRenderer(asset, shading="headlight")(CAMERAS, 40.0, 96, 96).rgba for asset in (as_asset(mesh), turned)
    )
    assert ours[..., 3].mean() > 0.05
    assert np.mean((ours - theirs) ** 2) < 1e-4  # PSNR above 40 dB


def test_texture_shows_the_field_from_outside(solids, ring):
    """Rendered colour equals the colour field at the rendered depth: axes, v direction and charts all agree."""
    renders = AssetRenderer(as_asset(ring[0]), supersample=1)(CAMERAS, 40.0, 96, 96)
    origins, directions = pixel_rays(CAMERAS, 40.0, 96, 96)
    points = origins + renders.depth * directions
    hit = renders.mask[..., 0] > 0.99
    error = np.abs(renders.rgba[..., :3] - solids.color(points))[hit]
    assert hit.mean() > 0.05
    assert error.mean() < 2.0 / 255.0


def test_threshold_from_silhouettes(solids):
    truth = solids.surface(solids.cuboid, 64)
    masks = mesh_masks(truth, CAMERAS, 40.0, 64, 64)
    seen = []
    mesh, report = extract_textured_mesh(
        density_of(solids.cuboid),
        solids.color,
        solids.BOX,
        silhouettes=(masks, CAMERAS, 40.0),
        progress=lambda stage, part: seen.append((stage, part)),
        **SMALL,
    )
    assert report.automatic
    assert report.threshold == pytest.approx(40.0, rel=0.35)  # half of the peak: the border of the solid
    assert report.iou > 0.97
    assert max(iou for _, iou in report.iou_table) == dict(report.iou_table)[report.threshold]
    assert {"threshold", "compare"} < set(report.timings)
    assert signed_volume(mesh.vertices, mesh.faces) == pytest.approx(1.2 * 0.8 * 0.6, rel=0.05)
    stages = [stage for stage, part in seen if part == 0.0]
    assert stages == ["grid", "threshold", "surface", "simplify", "normals", "unwrap", "bake", "compare"]
    assert all(0.0 <= part <= 1.0 for _, part in seen)


def test_threshold_without_silhouettes_and_own_mask_function(solids):
    _, report = extract_textured_mesh(density_of(solids.sphere), solids.color, solids.BOX, **SMALL)
    assert report.automatic
    assert len(report.iou_table) >= 9
    calls = []

    def mask_fn(mesh, c2w, fovy_deg, height, width):
        calls.append((fovy_deg, height, width))
        return np.ones((len(c2w), height, width))

    views = (np.ones((4, 8, 6)), CAMERAS, 40.0)
    _, report = extract_textured_mesh(
        density_of(solids.sphere), solids.color, solids.BOX, silhouettes=views, mask_fn=mask_fn, stride=1, **SMALL
    )
    assert report.iou == 1.0
    assert set(calls) == {(40.0, 8, 6)}


def test_sweep_grid_keeps_its_place():
    level = np.arange(10**3, dtype=np.float32).reshape(10, 10, 10)
    coarse, box = _every(level, np.array([[0.0, 0, 0], [9, 18, 27]]), 2)
    assert coarse.shape == (5, 5, 5)
    np.testing.assert_allclose(box, [[0, 0, 0], [8, 16, 24]])


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"threshold": 5.0}, EmptySceneError, r"No part of the level grid.*'threshold': 5.0.*Lower"),
        ({"threshold": "otsu"}, ConfigError, r"number or 'auto'.*'otsu'.*search"),
        ({"level_fn": lambda p: p[:, 0] * 0}, EmptySceneError, r"transparent everywhere"),
        ({"level_fn": lambda p: p[:, 0] * np.nan}, EmptySceneError, r"holds NaN"),
        ({"texture_size": 1}, ConfigError, r"texture size"),
        ({"bbox": [[0, 0, 0], [0, 0, 0]]}, ConfigError, r"bounding box"),
    ],
)
def test_errors_come_before_or_instead_of_a_mesh(solids, change, error, text):
    arguments = {"level_fn": solids.sphere, "color_fn": solids.color, "bbox": solids.BOX, **SMALL, **change}
    with pytest.raises(error, match=text):
        extract_textured_mesh(**arguments)


def test_as_asset_keeps_vertex_colours(solids, torus_mesh):
    asset = as_asset(Mesh(torus_mesh.vertices, torus_mesh.faces, None, solids.color(torus_mesh.vertices)))
    assert asset.colors.shape == (len(torus_mesh.vertices), 4)
    assert asset.uvs is None
    assert asset.materials[0].texture is None
    assert as_asset(torus_mesh).colors is None
