"""A small system written from the contract alone: its parts are registered by the tests that use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from threestudio_redream.runtime import BaseModule, BaseSystem


class ToyGeometry(BaseModule):
    @dataclass
    class Config(BaseModule.Config):
        width: int = 8

    cfg: Config

    def configure(self) -> None:
        self.layer = nn.Linear(3, self.cfg.width)
        self.head = nn.Linear(self.cfg.width, 3)
        self.calls: list[tuple[str, int]] = []

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        self.calls.append(("start", global_step))

    def update_step_end(self, epoch: int, global_step: int) -> None:
        self.calls.append(("end", global_step))

    def forward(self, rays: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.layer(rays)))


class ToySystem(BaseSystem):
    """Consumes global random numbers in training and validation, as real systems do."""

    @dataclass
    class Config(BaseSystem.Config):
        noise: float = 0.1
        geometry_width: int = 8

    cfg: Config

    def configure(self) -> None:
        self.geometry = ToyGeometry({"width": self.cfg.geometry_width})
        self.order: list[str] = []

    def post_configure(self) -> None:
        self.order.append("post_configure")

    def preprocess_data(self, batch: Any, stage: str) -> None:
        self.order.append(f"preprocess:{stage}")

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        self.order.append(f"update_step:{global_step}")

    def update_step_end(self, epoch: int, global_step: int) -> None:
        self.order.append(f"update_step_end:{global_step}")

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, torch.Tensor]:
        self.order.append(f"training_step:{self.true_global_step}")
        rays = batch["rays_d"]
        target = rays.abs() + self.cfg.noise * torch.randn_like(rays)
        loss = functional.mse_loss(self.geometry(rays), target)
        self.log("train/loss", loss)
        return {"loss": loss}

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        torch.rand(7)
        self.order.append(f"validation_step:{self.true_global_step}")

    def on_validation_epoch_end(self) -> None:
        self.order.append("validation_end")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.save_rgb_image(
            f"it{self.true_global_step}-test/{int(batch['index'][0])}.png", self.geometry(batch["rays_d"])[0]
        )

    def on_test_epoch_end(self) -> None:
        self.save_img_sequence("turn", f"it{self.true_global_step}-test", r"(\d+)\.png")

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        pass
