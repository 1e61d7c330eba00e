"""``redream-asset-datamodule``: renders of one asset as training rays and held-out views.

The asset is loaded, brought into the canonical frame and rendered once at the start (milliseconds a
view). Training batches are pixels from many views at a time, which fits a field far faster than
whole images; they keep the ``[B, H, W, *]`` layout of the threestudio contract, with B views and
H x W randomly chosen pixels of each.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from threestudio_redream.assets import Asset, load_asset, normalise, sample_asset
from threestudio_redream.cameras import focal_length, orbit_c2w
from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime import Updateable, parse_structured, register
from threestudio_redream.runtime.data.batch import camera_batch
from threestudio_redream.runtime.data.stepped import SteppedDataModule, SteppedIterableDataset

__all__ = ["AssetSource", "AssetViewsConfig", "AssetViewsDataModule", "open_asset"]

log = logging.getLogger("pytorch_lightning")


@dataclass
class AssetSource:
    """Which 3D file, and how it is oriented.

    Attributes:
        path: the file; ``sample`` is the object that the project generates itself.
        up, front: axes of the file (``+x``, ``-y``, ...); ``auto`` means the rule of its format.
        yaw_deg: turn about the up axis afterwards, in degrees.
    """

    path: str = "sample"
    up: str = "auto"
    front: str = "auto"
    yaw_deg: float = 0.0


@dataclass
class AssetViewsConfig:
    """Keys of ``data``. Angles are degrees; the asset has radius 0.5 in the canonical frame.

    Attributes:
        asset: see :class:`AssetSource`.
        n_train_views, train_resolution: renders that rays are taken from, and pixels of a side.
        views_per_batch, rays_per_view: of them in a step; the latter a square number.
        near_object_fraction: share of the rays that meet the object or pass close to it.
        elevation_range, camera_distance_range: where the training cameras stand. fovy_deg: of all cameras.
        shading: ``none`` (base colours), ``headlight`` or ``world``.
        n_val_views, val_resolution: held-out views, and pixels of a side.
        n_test_views, eval_height, eval_width: the turntable; its last view is the first again.
        eval_elevation_deg: of the turntable. eval_camera_distance: of the turntable and of held-out views.
    """

    asset: dict = field(default_factory=dict)
    n_train_views: int = 120
    train_resolution: int = 256
    views_per_batch: int = 16
    rays_per_view: int = 256
    near_object_fraction: float = 0.8
    elevation_range: tuple[float, float] = (-40, 75)
    camera_distance_range: tuple[float, float] = (1.4, 1.6)
    fovy_deg: float = 40.0
    shading: str = "none"
    n_val_views: int = 16
    val_resolution: int = 128
    n_test_views: int = 61
    eval_height: int = 192
    eval_width: int = 192
    eval_elevation_deg: float = 15.0
    eval_camera_distance: float = 1.5

    def __post_init__(self) -> None:
        side = int(self.rays_per_view**0.5)
        if side * side != self.rays_per_view or side == 0:
            raise ConfigError(
                "data.rays_per_view is not a square number", received=self.rays_per_view, fix="Use 64, 256, ..."
            )
        if not 0.0 <= self.near_object_fraction <= 1.0:
            raise ConfigError(
                "data.near_object_fraction is outside [0, 1]",
                received=self.near_object_fraction,
                fix="Use for example 0.8.",
            )


def open_asset(source: Any) -> Asset:
    """Load the asset of an :class:`AssetSource` mapping into the canonical frame."""
    source = parse_structured(AssetSource, source)
    asset = sample_asset() if source.path == "sample" else load_asset(Path(source.path))
    options = {key: source[key] for key in ("up", "front") if source[key] != "auto"}
    return normalise(asset, yaw_deg=source.yaw_deg, **options)


@dataclass(frozen=True)
class ViewSet:
    """Renders of the asset: ``rgba uint8 [N, H, W, 4]`` premultiplied, and their cameras."""

    rgba: np.ndarray
    c2w: np.ndarray
    azimuth_deg: np.ndarray
    elevation_deg: np.ndarray
    distance: np.ndarray
    fovy_deg: float


def render_views(
    renderer: Any, azimuth: np.ndarray, elevation: np.ndarray, distance: np.ndarray, cfg: Any, size: tuple[int, int]
) -> ViewSet:
    """Render the asset from orbit cameras (degrees) at ``(height, width)``."""
    c2w = orbit_c2w(azimuth, elevation, distance)
    renders = renderer(c2w, cfg.fovy_deg, *size, shading=cfg.shading)
    rgba = (np.clip(renders.rgba, 0.0, 1.0) * 255.0).round().astype(np.uint8)
    return ViewSet(rgba, c2w, azimuth, elevation, distance, cfg.fovy_deg)


class AssetRayDataset(SteppedIterableDataset):
    """Random pixels of random training views, most of them on or near the object."""

    stream = 2

    def __init__(self, views: ViewSet, cfg: Any) -> None:
        super().__init__()
        self.views, self.cfg = views, cfg
        self.near = [np.flatnonzero(_dilate(mask > 0, 4)) for mask in views.rgba[..., 3]]
        if not any(len(pixels) for pixels in self.near):
            raise ConfigError(
                "The asset is invisible in every training view", fix="Look at it with: redream render FILE --out DIR"
            )

    def sample(self, generator: torch.Generator, step: int) -> dict[str, Any]:
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        cfg, views = self.cfg, self.views
        count, height, width = views.rgba.shape[:3]
        chosen = rng.choice(count, size=min(cfg.views_per_batch, count), replace=False)
        n_near = round(cfg.rays_per_view * cfg.near_object_fraction)
        pixels = np.stack([self._pixels(view, n_near, height * width, rng) for view in chosen])
        rows, columns = np.divmod(pixels, width)
        side = int(cfg.rays_per_view**0.5)
        batch = camera_batch(
            views.c2w[chosen],
            fovy_deg=views.fovy_deg,
            height=1,
            width=1,
            elevation_deg=views.elevation_deg[chosen],
            azimuth_deg=views.azimuth_deg[chosen],
            distance=views.distance[chosen],
        )
        rays_o, rays_d = _rays(views, chosen, rows, columns, height, width)
        colours = views.rgba[chosen[:, None], rows, columns].astype(np.float32) / 255.0
        shape = (len(chosen), side, side)
        batch.update(
            rays_o=torch.from_numpy(rays_o.reshape(*shape, 3)),
            rays_d=torch.from_numpy(rays_d.reshape(*shape, 3)),
            rgb=torch.from_numpy(colours[..., :3].reshape(*shape, 3)),
            mask=torch.from_numpy(colours[..., 3:].reshape(*shape, 1)),
            height=side,
            width=side,
        )
        return batch

    def _pixels(self, view: int, n_near: int, total: int, rng: np.random.Generator) -> np.ndarray:
        near = self.near[view]
        n_near = n_near if len(near) else 0
        everywhere = rng.integers(0, total, self.cfg.rays_per_view - n_near)
        return np.concatenate([near[rng.integers(0, len(near), n_near)], everywhere]) if n_near else everywhere


class AssetViewDataset(Dataset, Updateable):
    """Whole views with ground truth. Items after ``n_frames`` are held out; those before are the turntable."""

    def __init__(self, turntable: ViewSet | None, held_out: ViewSet) -> None:
        super().__init__()
        self.sets = [views for views in (turntable, held_out) if views is not None]
        self.n_frames = 0 if turntable is None else len(turntable.rgba)

    def __len__(self) -> int:
        return sum(len(views.rgba) for views in self.sets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        held_out = index >= self.n_frames
        views = self.sets[-1] if held_out else self.sets[0]
        i = index - self.n_frames if held_out else index
        rgba = views.rgba[i : i + 1].astype(np.float32) / 255.0
        batch = camera_batch(
            views.c2w[i : i + 1],
            fovy_deg=views.fovy_deg,
            height=rgba.shape[1],
            width=rgba.shape[2],
            elevation_deg=views.elevation_deg[i],
            azimuth_deg=views.azimuth_deg[i],
            distance=views.distance[i],
        )
        rgb, mask = torch.from_numpy(rgba[..., :3].copy()), torch.from_numpy(rgba[..., 3:].copy())
        return {**batch, "rgb": rgb, "mask": mask, "index": torch.tensor([i]), "held_out": held_out}


@register("redream-asset-datamodule")
class AssetViewsDataModule(SteppedDataModule):
    """Training rays, 16 held-out views, and a turntable of one asset.

    Args:
        renderer: of an asset that is open already; else the one that ``cfg.asset`` names is opened.
    """

    cfg: AssetViewsConfig

    def __init__(self, cfg: Any | None = None, renderer: Any = None) -> None:
        super().__init__()
        self.cfg = parse_structured(AssetViewsConfig, cfg)
        self._renderer = renderer

    def setup(self, stage: str | None = None) -> None:
        if self._renderer is None:
            from threestudio_redream.assets.rasteriser import AssetRenderer

            asset = open_asset(self.cfg.asset)
            log.info("Asset '%s': %d vertices, %d faces", asset.name, len(asset.vertices), len(asset.faces))
            self._renderer = AssetRenderer(asset)
        cfg = self.cfg
        if stage in (None, "fit") and not hasattr(self, "train_dataset"):
            self.train_dataset = AssetRayDataset(self._training_views(), cfg)
        if not hasattr(self, "val_dataset"):
            self.val_dataset = AssetViewDataset(None, self._held_out_views())
        if stage in (None, "test", "predict") and not hasattr(self, "test_dataset"):
            azimuth = np.linspace(0.0, 360.0, cfg.n_test_views)  # as threestudio does: the last is the first
            flat = np.ones_like(azimuth)
            turntable = render_views(
                self._renderer,
                azimuth,
                cfg.eval_elevation_deg * flat,
                cfg.eval_camera_distance * flat,
                cfg,
                (cfg.eval_height, cfg.eval_width),
            )
            self.test_dataset = AssetViewDataset(turntable, self.val_dataset.sets[-1])

    def prepare_data(self) -> None:
        """Nothing to download."""

    def _training_views(self) -> ViewSet:
        cfg = self.cfg
        # a spiral over the sphere band: even coverage with no random numbers
        unit = (np.arange(cfg.n_train_views) + 0.5) / cfg.n_train_views
        sines = np.sin(np.deg2rad(cfg.elevation_range))
        elevation = np.rad2deg(np.arcsin(sines[0] + unit * (sines[1] - sines[0])))
        azimuth = np.mod(np.arange(cfg.n_train_views) * 137.50776, 360.0)
        low, high = cfg.camera_distance_range
        distance = low + (high - low) * np.mod(np.arange(cfg.n_train_views) * 0.6180340, 1.0)
        return render_views(self._renderer, azimuth, elevation, distance, cfg, (cfg.train_resolution,) * 2)

    def _held_out_views(self) -> ViewSet:
        cfg = self.cfg
        index = np.arange(cfg.n_val_views)
        azimuth = (index + 0.37) / cfg.n_val_views * 360.0
        low, high = max(cfg.elevation_range[0], -10.0), min(cfg.elevation_range[1], 50.0)
        elevation = low + (high - low) * np.mod((index + 0.5) * 0.6180340, 1.0)
        distance = np.full(cfg.n_val_views, cfg.eval_camera_distance)
        return render_views(self._renderer, azimuth, elevation, distance, cfg, (cfg.val_resolution,) * 2)

    def _loader(self, dataset: AssetViewDataset) -> DataLoader:
        return DataLoader(dataset, batch_size=None, num_workers=0, generator=torch.Generator())

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.val_dataset)

    def test_dataloader(self) -> DataLoader:
        return self._loader(self.test_dataset)

    def predict_dataloader(self) -> DataLoader:
        return self._loader(self.test_dataset)


def _rays(
    views: ViewSet, chosen: np.ndarray, rows: np.ndarray, columns: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    focal = float(focal_length(views.fovy_deg, height))
    local = np.stack(
        [(columns + 0.5 - 0.5 * width) / focal, -(rows + 0.5 - 0.5 * height) / focal, -np.ones(rows.shape)], axis=-1
    ).astype(np.float32)
    rays_d = np.einsum("vri,vji->vrj", local, views.c2w[chosen, :3, :3])
    rays_d /= np.linalg.norm(rays_d, axis=-1, keepdims=True)
    rays_o = np.broadcast_to(views.c2w[chosen, None, :3, 3], rays_d.shape)
    return np.ascontiguousarray(rays_o, np.float32), np.ascontiguousarray(rays_d, np.float32)


def _dilate(mask: np.ndarray, steps: int) -> np.ndarray:
    from scipy.ndimage import binary_dilation

    return binary_dilation(mask, iterations=steps)
