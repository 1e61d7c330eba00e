"""An extension that uses what others' extensions use: it is written to ``custom/`` and trained for a few steps."""

import csv
from pathlib import Path

import pytest
from foreign import workspace

from threestudio_redream.runtime.extensions import load_custom_modules
from threestudio_redream.runtime.launch import main

EXTENSION = {
    "__init__.py": """
import threestudio
from . import data, geometry, guidance, system
""",
    "data.py": """
from dataclasses import dataclass
import pytorch_lightning as pl
import torch
import threestudio
from threestudio.data.uncond import RandomCameraDataModuleConfig, RandomCameraDataset, RandomCameraIterableDataset
from threestudio.utils.config import parse_structured
from threestudio.utils.ops import get_mvp_matrix, get_projection_matrix, get_rays
from torch.utils.data import DataLoader


class Ring(RandomCameraIterableDataset):
    def collate(self, batch):
        low, high = self.azimuth_range
        azimuth = (low + (high - low) * torch.rand(self.batch_size)).deg2rad()
        fovy = torch.full((self.batch_size,), float(self.fovy_range[0])).deg2rad()
        distance = torch.full((self.batch_size,), float(self.camera_distance_range[0]))
        back = torch.stack([azimuth.cos(), azimuth.sin(), 0 * azimuth], -1)
        up = torch.tensor([0.0, 0.0, 1.0]).expand_as(back)
        c2w = torch.eye(4).repeat(self.batch_size, 1, 1)
        c2w[:, :3] = torch.stack([torch.linalg.cross(up, back), up, back, back * distance[:, None]], -1)
        focal = 0.5 * self.height / torch.tan(0.5 * fovy)
        directions = self.directions_unit_focal[None].repeat(self.batch_size, 1, 1, 1)
        directions[..., :2] /= focal[:, None, None, None]
        rays_o, rays_d = get_rays(directions, c2w, keepdim=True)
        proj = get_projection_matrix(fovy, self.width / self.height, 0.1, 100.0)
        return {
            "rays_o": rays_o, "rays_d": rays_d, "c2w": c2w, "mvp_mtx": get_mvp_matrix(c2w, proj), "fovy": fovy,
            "camera_positions": c2w[:, :3, 3], "light_positions": c2w[:, :3, 3], "elevation": 0 * azimuth,
            "azimuth": azimuth.rad2deg(), "camera_distances": distance, "height": self.height, "width": self.width,
        }


@threestudio.register("nebula-ring-datamodule")
class RingData(pl.LightningDataModule):
    def __init__(self, cfg=None):
        super().__init__()
        self.cfg = parse_structured(RandomCameraDataModuleConfig, cfg)

    def setup(self, stage=None):
        self.train_dataset = Ring(self.cfg)
        self.views = RandomCameraDataset(self.cfg, "test")

    def general_loader(self, dataset, batch_size, collate_fn):
        return DataLoader(dataset, num_workers=0, batch_size=batch_size, collate_fn=collate_fn)

    def train_dataloader(self):
        return self.general_loader(self.train_dataset, None, self.train_dataset.collate)

    def test_dataloader(self):
        return self.general_loader(self.views, 1, self.views.collate)

    val_dataloader = predict_dataloader = test_dataloader
""",
    "geometry.py": """
from dataclasses import dataclass
import torch
import threestudio
from threestudio.models.geometry.implicit_volume import ImplicitVolume
from threestudio.models.isosurface import MarchingTetrahedraHelper
from threestudio.models.mesh import Mesh
from threestudio.models.networks import ToDTypeWrapper
from threestudio.utils.ops import scale_tensor
from threestudio.utils.typing import *


@threestudio.register("nebula-volume")
class Nebula(ImplicitVolume):
    @dataclass
    class Config(ImplicitVolume.Config):
        tets: int = 12

    cfg: Config

    def configure(self) -> None:
        super().configure()
        self.helper = MarchingTetrahedraHelper(self.cfg.tets, f"load/tets/{self.cfg.tets}_tets.npz")
        self.feature_network = ToDTypeWrapper(self.feature_network, torch.float32)

    def surface(self) -> Mesh:
        points = scale_tensor(self.helper.grid_vertices, self.helper.points_range, self.bbox)
        mesh = self.helper(5.0 - self.forward_density(points))
        mesh.v_pos = scale_tensor(mesh.v_pos, self.helper.points_range, self.bbox)
        return mesh
""",
    "guidance.py": """
from dataclasses import dataclass
import torch
import threestudio
from threestudio.utils.base import BaseModule
from threestudio.utils.loss import tv_loss
from threestudio.utils.misc import C, barrier, broadcast, cleanup, enable_gradient, finish_with_cleanup


@threestudio.register("nebula-guidance")
class NebulaGuidance(BaseModule):
    @dataclass
    class Config(BaseModule.Config):
        strength: float = 1.0

    cfg: Config

    @finish_with_cleanup
    def configure(self) -> None:
        self.perceptual = threestudio.find("perceptual-loss")({"net": "mini"})
        self.tint = torch.nn.Linear(3, 3, bias=False)
        self.frozen = torch.nn.Linear(3, 3)
        enable_gradient(self.frozen, enabled=False)
        barrier()
        self.target = broadcast(torch.rand(1, 3, 32, 32, device=self.device))

    def __call__(self, rgb, prompt_utils, rgb_as_latents=False, **kwargs):
        wide = torch.nn.functional.interpolate(self.tint(rgb).permute(0, 3, 1, 2), (32, 32), mode="bilinear")
        return {
            "loss_lpips": self.perceptual(wide * 2 - 1, self.target.expand(len(rgb), -1, -1, -1) * 2 - 1).mean(),
            "loss_tv": tv_loss(wide),
            "weight": C(self.cfg.strength, 0, 0),
        }
""",
    "system.py": """
from dataclasses import dataclass
import torch
import threestudio
from threestudio.systems.base import BaseLift3DSystem
from threestudio.systems.utils import parse_optimizer, parse_scheduler_to_instance
from threestudio.utils.ops import binary_cross_entropy, get_cam_info_gaussian


@threestudio.register("nebula-system")
class NebulaSystem(BaseLift3DSystem):
    @dataclass
    class Config(BaseLift3DSystem.Config):
        pass

    cfg: Config

    def configure(self):
        super().configure()
        self.guidance = threestudio.find(self.cfg.guidance_type)(self.cfg.guidance)

    def configure_optimizers(self):
        optimizer = parse_optimizer(self.cfg.optimizer, self)
        return {"optimizer": optimizer, "lr_scheduler": parse_scheduler_to_instance(self.cfg.scheduler, optimizer)}

    def training_step(self, batch, batch_idx):
        out = self.renderer(**batch)
        view, full, centre = get_cam_info_gaussian(batch["c2w"][0], batch["fovy"][0], batch["fovy"][0], 0.1, 100.0)
        assert torch.allclose(centre, batch["camera_positions"][0])
        opacity = out["opacity"].clamp(1e-3, 1 - 1e-3)
        loss = 0.01 * binary_cross_entropy(opacity, opacity)
        for name, value in self.guidance(out["comp_rgb"], None, **batch).items():
            self.log(f"train/{name}", value)
            if name.startswith("loss_"):
                loss += value * self.C(self.cfg.loss[name.replace("loss_", "lambda_")])
        mesh = self.geometry.surface()
        smooth = mesh.normal_consistency() + mesh.laplacian()
        self.log("train/smooth", smooth)
        assert mesh.requires_grad
        return {"loss": loss + 0.01 * smooth}

    def validation_step(self, batch, batch_idx):
        pass

    def on_validation_epoch_end(self):
        pass

    def test_step(self, batch, batch_idx):
        self.save_rgb_image(f"{batch['index'][0]}.png", self.renderer(**batch)["comp_rgb"][0])

    def on_test_epoch_end(self):
        threestudio.info("done")
""",
}
CONFIG = """
name: nebula
tag: run
exp_root_dir: outputs
use_timestamp: false
seed: 0
data_type: nebula-ring-datamodule
data: {batch_size: 2, width: 16, height: 16, n_test_views: 2, eval_width: 16, eval_height: 16, azimuth_range: [0, 90]}
system_type: nebula-system
system:
  geometry_type: nebula-volume
  geometry:
    radius: 1.0
    density_bias: blob_magic3d
    pos_encoding_config: {otype: HashGrid, n_levels: 4, n_features_per_level: 2, log2_hashmap_size: 10,
      base_resolution: 4, per_level_scale: 1.5}
  material_type: no-material
  material: {n_output_dims: 3, color_activation: sigmoid}
  background_type: solid-color-background
  renderer_type: nerf-volume-renderer
  renderer: {radius: 1.0, num_samples_per_ray: 32}
  guidance_type: nebula-guidance
  guidance: {}
  loss: {lambda_lpips: 1.0, lambda_tv: [0, 0.1, 0.2, 10]}
  optimizer:
    name: Adan
    args: {lr: 0.01, betas: [0.98, 0.92, 0.99]}
    params: {geometry: {}, guidance.tint: {lr: 0.001}}
  scheduler: {name: ExponentialLR, args: {gamma: 0.99}}
trainer: {max_steps: 3, log_every_n_steps: 1, num_sanity_val_steps: 0, precision: 32}
checkpoint: {save_last: true, every_n_train_steps: 3}
"""


@pytest.fixture
def host(tmp_path, monkeypatch):
    with workspace(tmp_path, monkeypatch) as folder:
        for name, text in EXTENSION.items():
            path = folder / "custom" / "threestudio-nebula" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (folder / "nebula.yaml").write_text(CONFIG)
        yield folder


def test_it_trains_tests_and_logs(host):
    assert [outcome.error for outcome in load_custom_modules()] == [None]
    assert main(["--config", "nebula.yaml", "--gpu", "cpu"]) == 0
    trial = Path("outputs/nebula/run")
    with open(trial / "csv_logs/version_0/metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss_lpips"]]
    assert len(rows) == 3
    assert all(float(row["train/smooth"]) > 0 for row in rows)
    assert sorted(path.name for path in (trial / "save").glob("*.png")) == ["0.png", "1.png"]
