"""``random-camera-datamodule``: cameras on a shell around the object.

Angles in the configuration are degrees. The world is z up; azimuth 0 looks from +x (see
:mod:`threestudio_redream.cameras`).
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from threestudio_redream.cameras import camera_positions, look_at, orbit_c2w
from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.base import Updateable
from threestudio_redream.runtime.config import parse_structured
from threestudio_redream.runtime.data.batch import camera_batch
from threestudio_redream.runtime.data.stepped import SteppedDataModule, SteppedIterableDataset
from threestudio_redream.runtime.ops import get_ray_directions
from threestudio_redream.runtime.registry import register

__all__ = [
    "RandomCameraDataModule",
    "RandomCameraDataModuleConfig",
    "RandomCameraDataset",
    "RandomCameraIterableDataset",
]


@dataclass
class RandomCameraDataModuleConfig:
    """Random cameras on a shell around the object.

    Angles are in degrees, lengths in world units. Test views go once round and end where they begin.

    Attributes:
        height, width, batch_size: of training pictures; each may be a list that switches at ``resolution_milestones``.
        resolution_milestones: steps, one entry fewer than the lists.
        eval_height, eval_width, eval_batch_size: of validation and test pictures.
        n_val_views, n_test_views: pictures of a turn.
        elevation_range, azimuth_range, camera_distance_range: where training cameras stand.
        fovy_range: vertical field of view of training cameras.
        camera_perturb: half the width of a uniform shift of the camera. center_perturb, up_perturb: deviation of the
            point it looks at, and of its up direction.
        light_sample_strategy: ``dreamfusion``, near the camera; ``magic3d``, within 60 degrees of its direction.
        light_position_perturb: deviation of the light from the camera, with ``dreamfusion``.
        light_distance_range: of the light from the origin.
        eval_elevation_deg, eval_camera_distance, eval_fovy_deg: of validation and test cameras.
        batch_uniform_azimuth: one camera in each of ``batch_size`` equal sectors, rather than anywhere.
        progressive_until: step up to which elevation and azimuth widen from the evaluation's front view to their full
            ranges; 0 has them full from the start.
        rays_d_normalize: give rays directions of length 1.
    """

    height: Any = 64
    width: Any = 64
    batch_size: Any = 1
    resolution_milestones: list[int] = field(default_factory=list)
    eval_height: int = 512
    eval_width: int = 512
    eval_batch_size: int = 1
    n_val_views: int = 1
    n_test_views: int = 120
    elevation_range: tuple[float, float] = (-10, 90)
    azimuth_range: tuple[float, float] = (-180, 180)
    camera_distance_range: tuple[float, float] = (1, 1.5)
    fovy_range: tuple[float, float] = (40, 70)
    camera_perturb: float = 0.1
    center_perturb: float = 0.2
    up_perturb: float = 0.02
    light_position_perturb: float = 1.0
    light_distance_range: tuple[float, float] = (0.8, 1.5)
    eval_elevation_deg: float = 15.0
    eval_camera_distance: float = 1.5
    eval_fovy_deg: float = 70.0
    light_sample_strategy: str = "dreamfusion"
    batch_uniform_azimuth: bool = True
    progressive_until: int = 0
    rays_d_normalize: bool = True

    def __post_init__(self) -> None:
        if self.light_sample_strategy not in ("dreamfusion", "magic3d"):
            raise ConfigError(
                "Unknown light_sample_strategy", received=self.light_sample_strategy, fix="Use dreamfusion or magic3d."
            )


class RandomCameraIterableDataset(SteppedIterableDataset):
    """Training cameras. ``sample`` is a pure function of its generator and the step.

    Subclasses of third parties override ``collate`` instead, and read: height, width, batch_size, directions_unit_focal
    (``[H, W, 3]`` for the focal length 1), and elevation_range, azimuth_range, fovy_range (degrees) and
    camera_distance_range as they are at the current step.
    """

    stream = 1

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.cfg = cfg
        self.heights, self.widths, self.batch_sizes = (
            [value] if isinstance(value, int) else list(value) for value in (cfg.height, cfg.width, cfg.batch_size)
        )
        self.resolution_milestones = [-1, *cfg.resolution_milestones]
        counts = {len(self.heights), len(self.widths), len(self.batch_sizes)}
        if counts == {1}:
            self.resolution_milestones = [-1]
        elif counts != {len(self.resolution_milestones)}:
            raise ConfigError(
                "height, width, batch_size and resolution_milestones do not fit together",
                received=(self.heights, self.widths, self.batch_sizes, list(cfg.resolution_milestones)),
                fix="Give lists of one length and exactly one milestone fewer.",
            )
        self.camera_distance_range, self.fovy_range = cfg.camera_distance_range, cfg.fovy_range
        self.update_step(0, 0)

    @property
    def directions_unit_focal(self) -> torch.Tensor:
        """Directions ``[H, W, 3]`` of the current size for the focal length 1, y up."""
        return get_ray_directions(self.height, self.width, 1.0)

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        stage = bisect.bisect_right(self.resolution_milestones, global_step) - 1
        self.height, self.width, self.batch_size = self.heights[stage], self.widths[stage], self.batch_sizes[stage]
        self.progressive_view(global_step)

    def progressive_view(self, global_step: int) -> None:
        """Set the ranges of elevation and azimuth that this step has."""
        grown = min(1.0, global_step / (self.cfg.progressive_until + 1)) if self.cfg.progressive_until > 0 else 1.0
        start = (self.cfg.eval_elevation_deg, 0.0)
        self.elevation_range, self.azimuth_range = (
            tuple((1 - grown) * centre + grown * limit for limit in limits)
            for centre, limits in zip(start, (self.cfg.elevation_range, self.cfg.azimuth_range))
        )

    def sample(self, generator: torch.Generator, step: int) -> dict[str, Any]:
        self.update_step(0, step)
        count = self.batch_size

        def uniform(limits: Any) -> torch.Tensor:
            return torch.rand(count, generator=generator) * (limits[1] - limits[0]) + limits[0]

        def normal(scale: float) -> np.ndarray:
            return (torch.randn(count, 3, generator=generator) * scale).numpy()

        elevation = self._elevations(generator, count)
        if self.cfg.batch_uniform_azimuth:  # one azimuth in each of B equal sectors
            sector = (torch.rand(count, generator=generator) + torch.arange(count)) / count
            azimuth = sector * (self.azimuth_range[1] - self.azimuth_range[0]) + self.azimuth_range[0]
        else:
            azimuth = uniform(self.azimuth_range)
        distance = uniform(self.cfg.camera_distance_range)
        jitter = (torch.rand(count, 3, generator=generator) * 2 - 1) * self.cfg.camera_perturb
        positions = camera_positions(azimuth.numpy(), elevation.numpy(), distance.numpy()) + jitter.numpy()
        targets = normal(self.cfg.center_perturb)
        ups = np.array([0.0, 0.0, 1.0]) + normal(self.cfg.up_perturb)
        fovy = uniform(self.cfg.fovy_range)
        lights = self._lights(generator, torch.from_numpy(positions), uniform(self.cfg.light_distance_range))
        return camera_batch(
            look_at(positions, targets, ups),
            fovy_deg=fovy.numpy(),
            height=self.height,
            width=self.width,
            elevation_deg=elevation.numpy(),
            azimuth_deg=azimuth.numpy(),
            distance=distance.numpy(),
            light_positions=lights.numpy(),
            normalize=self.cfg.rays_d_normalize,
        )

    def _elevations(self, generator: torch.Generator, count: int) -> torch.Tensor:
        # half of the batches uniform in angle (more views near the poles), half uniform on the sphere
        low, high = self.elevation_range
        unit = torch.rand(count, generator=generator)
        if torch.rand((), generator=generator) < 0.5:
            return unit * (high - low) + low
        sines = math.sin(math.radians(low)), math.sin(math.radians(high))
        return torch.rad2deg(torch.asin(unit * (sines[1] - sines[0]) + sines[0]))

    def _lights(self, generator: torch.Generator, positions: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        count = positions.shape[0]
        if self.cfg.light_sample_strategy == "dreamfusion":
            noise = torch.randn(count, 3, generator=generator) * self.cfg.light_position_perturb
            return functional.normalize(positions + noise, dim=-1) * distance[:, None]
        # magic3d: within 60 degrees of the camera's direction
        forward = functional.normalize(positions, dim=-1)
        side = functional.normalize(torch.stack([forward[:, 1], -forward[:, 0], 0 * forward[:, 0]], dim=-1), dim=-1)
        third = torch.cross(forward, side, dim=-1)
        azimuth = torch.rand(count, generator=generator) * 2 * math.pi
        height = torch.rand(count, generator=generator) * math.pi / 3 + math.pi / 6
        local = torch.stack([height.cos() * azimuth.cos(), height.cos() * azimuth.sin(), height.sin()], dim=-1)
        return torch.einsum("bi,ibj->bj", local, torch.stack([side, third, forward])) * distance[:, None]


class RandomCameraDataset(Dataset, Updateable):
    """Evaluation cameras at one elevation: ``val`` spaces them around the circle, ``test`` closes it.

    ``test`` includes both ends, so its first and last frame are the same view (as in upstream).
    Rays are made when asked for; 120 views at 512 px would take 750 MB at once.
    """

    def __init__(self, cfg: Any, split: str) -> None:
        super().__init__()
        self.cfg, self.split = cfg, split
        self.n_views = cfg.n_val_views if split == "val" else cfg.n_test_views
        if split == "val":
            self.azimuth_deg = np.linspace(0.0, 360.0, self.n_views + 1)[:-1]
        else:
            self.azimuth_deg = np.linspace(0.0, 360.0, self.n_views)

    def __len__(self) -> int:
        return self.n_views

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"index": index}

    def collate(self, batch: list[dict[str, Any]]) -> dict[str, Any]:
        index = np.array([item["index"] for item in batch])
        azimuth = self.azimuth_deg[index]
        elevation = np.full(len(index), self.cfg.eval_elevation_deg)
        distance = np.full(len(index), self.cfg.eval_camera_distance)
        result = camera_batch(
            orbit_c2w(azimuth, elevation, distance),
            fovy_deg=self.cfg.eval_fovy_deg,
            height=self.cfg.eval_height,
            width=self.cfg.eval_width,
            elevation_deg=elevation,
            azimuth_deg=azimuth,
            distance=distance,
            normalize=self.cfg.rays_d_normalize,
        )
        return {"index": torch.from_numpy(index), **result}


@register("random-camera-datamodule")
class RandomCameraDataModule(SteppedDataModule):
    cfg: RandomCameraDataModuleConfig

    def __init__(self, cfg: Any | None = None) -> None:
        super().__init__()
        self.cfg = parse_structured(RandomCameraDataModuleConfig, cfg)

    def setup(self, stage: str | None = None) -> None:
        if stage in (None, "fit"):
            self.train_dataset = RandomCameraIterableDataset(self.cfg)
        if stage in (None, "fit", "validate"):
            self.val_dataset = RandomCameraDataset(self.cfg, "val")
        if stage in (None, "test", "predict"):
            self.test_dataset = RandomCameraDataset(self.cfg, "test")

    def prepare_data(self) -> None:
        """Nothing to prepare."""

    def general_loader(self, dataset: Any, batch_size: int | None, collate_fn: Any = None) -> DataLoader:
        """A loader in this process: datasets follow the clock, and their batches are cheap."""
        return DataLoader(
            dataset, batch_size=batch_size, num_workers=0, collate_fn=collate_fn, generator=torch.Generator()
        )

    def _evaluation_loader(self, dataset: RandomCameraDataset) -> DataLoader:
        return self.general_loader(dataset, self.cfg.eval_batch_size, dataset.collate)

    def val_dataloader(self) -> DataLoader:
        return self._evaluation_loader(self.val_dataset)

    def test_dataloader(self) -> DataLoader:
        return self._evaluation_loader(self.test_dataset)

    def predict_dataloader(self) -> DataLoader:
        return self._evaluation_loader(self.test_dataset)
