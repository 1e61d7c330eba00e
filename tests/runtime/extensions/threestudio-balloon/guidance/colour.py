from dataclasses import dataclass, field

import threestudio
import torch
import torch.nn.functional as F
from threestudio.utils.base import BaseObject
from threestudio.utils.misc import C


@threestudio.register("colour-guidance")
class ColourGuidance(BaseObject):
    """Pulls every render towards one colour, with a scheduled strength."""

    @dataclass
    class Config(BaseObject.Config):
        colour: list = field(default_factory=lambda: [0.9, 0.1, 0.1])
        strength: float = 1.0
        note: str = ""

    cfg: Config

    def configure(self) -> None:
        self.strength = 0.0

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False):
        self.strength = C(self.cfg.strength, epoch, global_step)

    def __call__(self, rgb, prompt_utils=None, rgb_as_latents=False, **kwargs):
        target = torch.tensor(list(self.cfg.colour), device=rgb.device)
        return {"loss_colour": self.strength * F.mse_loss(rgb, target.expand_as(rgb)), "strength": self.strength}
