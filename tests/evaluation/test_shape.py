"""Outlines and surfaces against those of an asset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from threestudio_redream.assets import Asset, load_asset, normalise
from threestudio_redream.errors import ConfigError
from threestudio_redream.evaluation.shape import asset_masks, chamfer_distance, silhouette_iou


def test_silhouettes() -> None:
    masks = np.zeros((2, 4, 4), bool)
    masks[0, :2] = True
    opacity = torch.zeros(2, 4, 4)
    opacity[0, :, :2] = 0.9
    assert silhouette_iou(opacity, masks) == pytest.approx((4 / 12 + 1.0) / 2)  # an empty view of an empty one is right
    assert silhouette_iou(torch.from_numpy(masks.astype(np.float32)), masks) == 1.0
    with pytest.raises(ConfigError, match="two sizes"):
        silhouette_iou(opacity[:1], masks)


def exported(mesh: trimesh.Trimesh, path: Path) -> Asset:
    mesh.export(path)
    return load_asset(path)


def test_masks_are_taken_from_where_threestudio_looks(tmp_path: Path) -> None:
    slab = normalise(
        exported(trimesh.creation.box((0.6, 0.6, 0.02)), tmp_path / "slab.glb")
    )  # it faces +z, a GLB's front
    masks = asset_masks(slab, [0, 90, 180, 80], 64, 64, elevation_deg=0.0, distance=1.5, fovy_deg=40.0)
    areas = masks.sum(axis=(1, 2))
    assert areas[0] > 5 * areas[1]
    assert areas[2] == pytest.approx(areas[0], rel=0.05)
    assert areas[3] > 1.5 * areas[1], "ten degrees off its edge"
    wide = asset_masks(slab, [0], 64, 96, elevation_deg=0.0, distance=1.5, fovy_deg=40.0)
    np.testing.assert_array_equal(wide[0, :, 16:80], masks[0])


def test_chamfer_of_spheres_is_the_gap_between_them(tmp_path: Path) -> None:
    small, large = (exported(trimesh.creation.icosphere(4, r), tmp_path / f"{r}.glb") for r in (0.4, 0.5))
    assert chamfer_distance(small, large) == pytest.approx(0.1, abs=0.003)
    assert chamfer_distance(large, small) == pytest.approx(chamfer_distance(small, large), rel=0.01)
    itself = chamfer_distance(small, small)
    assert 0.0 < itself < 0.01  # two draws of points
    assert chamfer_distance(small, small, points=40_000) == pytest.approx(itself / 2, rel=0.1)
