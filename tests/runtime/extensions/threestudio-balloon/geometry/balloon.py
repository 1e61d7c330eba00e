from dataclasses import dataclass

import threestudio
import torch
import torch.nn as nn
from threestudio.models.geometry.base import BaseImplicitGeometry
from threestudio.models.networks import get_mlp
from threestudio.utils.typing import *  # noqa: F403


@threestudio.register("balloon-geometry")
class Balloon(BaseImplicitGeometry):
    """A ball of learned size with a learned colour at every direction."""

    @dataclass
    class Config(BaseImplicitGeometry.Config):
        n_feature_dims: int = 3
        start_size: float = 0.4
        isosurface_threshold: Any = 5.0  # noqa: F405

    cfg: Config

    def configure(self) -> None:
        super().configure()
        self.size = nn.Parameter(torch.tensor(float(self.cfg.start_size)))
        self.features = get_mlp(
            3,
            self.cfg.n_feature_dims,
            {
                "otype": "VanillaMLP",
                "activation": "ReLU",
                "output_activation": "none",
                "n_neurons": 16,
                "n_hidden_layers": 1,
            },
        )
        self.steps_seen = 0

    def forward_density(self, points: Float[Tensor, "*N Di"]) -> Float[Tensor, "*N 1"]:  # noqa: F405
        return 20.0 * torch.sigmoid((self.size - points.norm(dim=-1, keepdim=True)) * 30.0)

    def forward_field(self, points):
        return self.forward_density(points), None

    def forward_level(self, field, threshold):
        return threshold - field

    def forward(self, points, output_normal=False):
        output = {"density": self.forward_density(points), "features": self.features(points)}
        if output_normal:
            normal = torch.nn.functional.normalize(points, dim=-1)
            output.update({"normal": normal, "shading_normal": normal})
        return output

    def export(self, points, **kwargs):
        return {"features": self.features(points)}

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False):
        self.steps_seen = global_step
