import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from threestudio_redream.cameras import (
    camera_positions,
    focal_length,
    look_at,
    orbit_c2w,
    pixel_rays,
    projection_matrix,
)
from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.data.random_camera import RandomCameraDataModule
from threestudio_redream.runtime.data.stepped import SteppedIterableDataset


def _batch(step=0, seed=0, **cfg):
    module = RandomCameraDataModule(cfg)
    module.setup("fit")
    dataset = module.train_dataset
    dataset.seed = seed
    return dataset.collate([{"step": step}])


def _evaluation(split, **cfg):
    module = RandomCameraDataModule({"eval_height": 6, "eval_width": 8, **cfg})
    module.setup()
    return list(module.val_dataloader() if split == "val" else module.test_dataloader())


def test_documented_numbers_of_the_convention():
    np.testing.assert_allclose(camera_positions(0, 0, 2.0), [2, 0, 0], atol=1e-6)
    np.testing.assert_allclose(camera_positions(90, 0, 2.0), [0, 2, 0], atol=1e-6)
    np.testing.assert_allclose(camera_positions(0, 90, 2.0), [0, 0, 2], atol=1e-6)
    c2w = orbit_c2w(0, 0, 2.0)
    np.testing.assert_allclose(c2w[:3, :3].T, [[0, 1, 0], [0, 0, 1], [1, 0, 0]], atol=1e-6)  # right, up, backward
    assert float(focal_length(90.0, 100)) == pytest.approx(50.0)
    above = orbit_c2w(0, 90, 1.0)
    np.testing.assert_allclose(above[:3, 0], [0, 1, 0], atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-360, 360), st.floats(-90, 90), st.floats(0.2, 10)), min_size=1, max_size=5))
def test_cameras_are_orthonormal_at_every_batch_size(cameras):
    azimuth, elevation, distance = np.array(cameras).T
    c2w = orbit_c2w(azimuth, elevation, distance)
    rotation = c2w[:, :3, :3].astype(np.float64)
    np.testing.assert_allclose(rotation.transpose(0, 2, 1) @ rotation, np.tile(np.eye(3), (len(c2w), 1, 1)), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0, atol=1e-5)
    centre, direction = pixel_rays(c2w, 40.0, 1, 1)
    np.testing.assert_allclose(centre[:, 0, 0] + direction[:, 0, 0] * np.array(distance)[:, None], 0.0, atol=1e-4)


def test_rays_and_projection_agree():
    c2w = look_at([[1.2, 0.4, 0.9]])
    height, width = 5, 7
    rays_o, rays_d = pixel_rays(c2w, 50.0, height, width)
    points = rays_o + 1.7 * rays_d
    clip = np.einsum(
        "ij,hwj->hwi",
        projection_matrix(50.0, width / height) @ np.linalg.inv(c2w[0]),
        np.concatenate([points[0], np.ones((height, width, 1))], -1),
    )
    ndc = clip[..., :2] / clip[..., 3:]
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    np.testing.assert_allclose(ndc[..., 0], (columns + 0.5) / width * 2 - 1, atol=1e-5)
    np.testing.assert_allclose(ndc[..., 1], (rows + 0.5) / height * 2 - 1, atol=1e-5)  # y down: row 0 at -1
    unnormalised = pixel_rays(c2w, 50.0, height, width, normalize=False)[1]
    np.testing.assert_allclose(np.linalg.norm(rays_d, axis=-1), 1.0, atol=1e-6)
    assert np.linalg.norm(unnormalised, axis=-1).max() > 1.0


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
def test_training_batches_have_the_contracts_keys(batch_size):
    batch = _batch(batch_size=batch_size, height=6, width=5)
    shapes = {
        "rays_o": (6, 5, 3),
        "rays_d": (6, 5, 3),
        "mvp_mtx": (4, 4),
        "proj_mtx": (4, 4),
        "c2w": (4, 4),
        "camera_positions": (3,),
        "light_positions": (3,),
        "elevation": (),
        "azimuth": (),
        "camera_distances": (),
        "fovy": (),
    }
    for key, shape in shapes.items():
        assert batch[key].shape == (batch_size, *shape), key
        assert batch[key].dtype == torch.float32, key
        assert torch.isfinite(batch[key]).all(), key
    assert (batch["height"], batch["width"]) == (6, 5)
    rotation = batch["c2w"][:, :3, :3]
    torch.testing.assert_close(rotation.mT @ rotation, torch.eye(3).expand(batch_size, 3, 3), atol=1e-5, rtol=0)


def test_units_and_ranges_without_perturbation():
    quiet = {"camera_perturb": 0.0, "center_perturb": 0.0, "up_perturb": 0.0}
    batch = _batch(batch_size=64, height=2, width=2, elevation_range=[-10, 45], fovy_range=[40, 70], **quiet)
    assert batch["elevation"].min() >= -10
    assert batch["elevation"].max() <= 45
    assert math.radians(40) <= batch["fovy"].min()
    assert batch["fovy"].max() <= math.radians(70)
    assert batch["camera_distances"].min() >= 1
    assert batch["camera_distances"].max() <= 1.5
    expected = camera_positions(batch["azimuth"], batch["elevation"], batch["camera_distances"])
    np.testing.assert_allclose(batch["camera_positions"], expected, atol=1e-5)
    sectors = ((batch["azimuth"] + 180) / 360 * 64).floor().long().sort().values
    assert sectors.tolist() == list(range(64))  # batch_uniform_azimuth


@pytest.mark.parametrize("strategy", ["dreamfusion", "magic3d"])
def test_lights(strategy):
    batch = _batch(
        batch_size=200,
        height=1,
        width=1,
        light_sample_strategy=strategy,
        light_distance_range=[0.8, 1.5],
        camera_perturb=0.0,
    )
    distance = batch["light_positions"].norm(dim=-1)
    assert distance.min() >= 0.8 - 1e-5
    assert distance.max() <= 1.5 + 1e-5
    cosine = torch.cosine_similarity(batch["light_positions"], batch["camera_positions"], dim=-1)
    assert cosine.mean() > 0.4
    if strategy == "magic3d":
        assert cosine.min() >= math.cos(math.pi / 3) - 1e-4


def test_same_seed_same_cameras_whatever_else_is_random():
    first = _batch(step=7, seed=5)
    torch.rand(100)
    second = _batch(step=7, seed=5)
    for key, value in first.items():
        assert value == second[key] if isinstance(value, int) else torch.equal(value, second[key])
    assert not torch.equal(first["c2w"], _batch(step=8, seed=5)["c2w"])
    assert not torch.equal(first["c2w"], _batch(step=7, seed=6)["c2w"])


def test_milestones_and_progressive_views():
    cfg = {"height": [4, 8], "width": [4, 8], "batch_size": [2, 1], "resolution_milestones": [10]}
    assert _batch(step=9, **cfg)["rays_o"].shape == (2, 4, 4, 3)
    assert _batch(step=10, **cfg)["rays_o"].shape == (1, 8, 8, 3)
    with pytest.raises(ConfigError, match="milestone"):
        _batch(height=[4, 8], width=[4, 8], batch_size=1)
    early = _batch(step=0, batch_size=32, progressive_until=100, elevation_range=[-10, 80])
    torch.testing.assert_close(early["elevation"], torch.full((32,), 15.0))
    torch.testing.assert_close(early["azimuth"], torch.zeros(32))


def test_evaluation_views():
    validation = _evaluation("val", n_val_views=3)
    assert [round(float(b["azimuth"])) for b in validation] == [0, 120, 240]
    test = _evaluation("test", n_test_views=120, eval_batch_size=40)
    azimuth = torch.cat([b["azimuth"] for b in test])
    assert azimuth[0] == 0
    assert azimuth[-1] == 360
    assert torch.diff(azimuth).mean() == pytest.approx(360 / 119)
    assert torch.cat([b["index"] for b in test]).tolist() == list(range(120))
    assert test[0]["rays_d"].shape == (40, 6, 8, 3)
    torch.testing.assert_close(test[0]["c2w"][0], test[-1]["c2w"][-1], atol=1e-5, rtol=0)


def test_stepped_data_counts_from_where_it_is_told():
    module = RandomCameraDataModule({})
    module.setup("fit")
    module.load_state_dict({"next_step": 41, "seed": 0})
    loader = iter(module.train_dataloader())
    first = next(loader)
    assert torch.equal(first["c2w"], _batch(step=41, seed=module.train_dataset.seed)["c2w"])
    assert module.state_dict()["next_step"] == 0  # no trainer yet
    with pytest.raises(NotImplementedError):
        SteppedIterableDataset().collate([{"step": 0}])
