"""What is read from a run's test views and said about them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from threestudio_redream.assets import load_asset, normalise
from threestudio_redream.errors import ConfigError
from threestudio_redream.evaluation.turn import asset_masks, clip_score, read_turn, silhouette_iou


def frames(folder, count, shade):
    folder.mkdir(parents=True)
    for index in range(count):
        Image.fromarray(np.full((4, 4, 3), shade(index), np.uint8)).save(folder / f"{index}.png")


def test_a_turn_leaves_out_the_repeated_frame(tmp_path):
    frames(tmp_path / "it9-test", 13, lambda i: 0)
    frames(tmp_path / "it20-test", 13, lambda i: 10 * i)
    turn = read_turn(tmp_path, 12)
    assert (turn.rgb[:, 0, 0, 0] * 25.5).round().tolist() == list(range(12))
    assert turn.opacity is None
    frames(tmp_path / "it20-opacity", 13, lambda i: 255 * (i % 2))
    assert read_turn(tmp_path, 4).opacity[:, 0, 0].tolist() == [0.0, 1.0, 0.0, 1.0]
    long = tmp_path / "long"
    frames(long / "it5-test", 120, lambda i: i)
    assert (read_turn(long, 12).rgb[:, 0, 0, 0] * 255).round().tolist() == [round(i * 119 / 12) for i in range(12)]


def test_a_run_without_views_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no turn of test views"):
        read_turn(tmp_path)


def test_silhouettes():
    masks = np.zeros((2, 4, 4), bool)
    masks[0, :2] = True
    opacity = torch.zeros(2, 4, 4)
    opacity[0, :, :2] = 0.9
    assert silhouette_iou(opacity, masks) == pytest.approx((4 / 12 + 1.0) / 2)  # an empty view of an empty one is right
    assert silhouette_iou(torch.from_numpy(masks.astype(np.float32)), masks) == 1.0
    with pytest.raises(ConfigError, match="two sizes"):
        silhouette_iou(opacity[:1], masks)


def test_masks_are_taken_from_where_threestudio_looks(tmp_path):
    trimesh.creation.box((0.6, 0.6, 0.02)).export(tmp_path / "slab.glb")  # a slab that faces +z, the front of a GLB
    slab = normalise(load_asset(tmp_path / "slab.glb"))
    masks = asset_masks(slab, 4, 64, elevation_deg=0.0, distance=1.5, fovy_deg=40.0)
    areas = masks.sum(axis=(1, 2))
    assert areas[0] > 5 * areas[1]
    assert areas[2] == pytest.approx(areas[0], rel=0.05)


def test_clip_score_is_the_mean_cosine_whatever_the_batch():
    class Say:
        def encode_texts(self, texts):
            return np.eye(3, dtype=np.float32)[[1] * len(texts)]

        def encode_images(self, images):
            return images[:, 0, 0]

    views = torch.zeros(4, 2, 2, 3)
    views[:2, :, :, 1] = 1.0
    assert clip_score(Say(), views, "a cat") == pytest.approx(0.5)
    parts = [clip_score(Say(), part, "a cat") for part in views.split(2)]
    assert np.mean(parts) == pytest.approx(clip_score(Say(), views, "a cat"))
