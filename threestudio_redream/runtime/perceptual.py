"""``perceptual-loss``: LPIPS under threestudio's names and with its range of values."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from threestudio_redream.runtime.base import BaseObject
from threestudio_redream.runtime.registry import register

__all__ = ["PerceptualLoss", "PerceptualLossObject"]


class PerceptualLoss(nn.Module):
    """LPIPS between pictures ``[B, 3, H, W]`` in [-1, 1], with gradients; values outside are clamped.

    Args:
        use_dropout: accepted for upstream's sake; nothing is dropped, as upstream's evaluation does.
        net: as of :func:`threestudio_redream.evaluation.lpips.open_lpips`; ``vgg`` fetches 528 MB the first time.
    """

    def __init__(self, use_dropout: bool = True, net: str = "vgg") -> None:
        super().__init__()
        from threestudio_redream.evaluation.lpips import open_lpips

        self.lpips = open_lpips(net).requires_grad_(False)

    @classmethod
    def from_pretrained(cls, name: str = "vgg_lpips") -> PerceptualLoss:
        """The loss by upstream's name of its weights."""
        return cls(net=name.removesuffix("_lpips"))

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Distances ``[B, 1, 1, 1]``."""
        one, other = (self.lpips.features(_unit(images)) for images in (input, target))
        return self.lpips.between(one, other).view(-1, 1, 1, 1)


def _unit(images: Tensor) -> Tensor:
    """``[B, H, W, 3]`` in [0, 1] of ``[B, 3, H, W]`` in [-1, 1]."""
    return (images.permute(0, 2, 3, 1) * 0.5 + 0.5).clamp(0.0, 1.0)


@register("perceptual-loss")
class PerceptualLossObject(BaseObject):
    """LPIPS as a part that a configuration or an extension finds by name.

    Keys:
        use_dropout: accepted from upstream's configurations; without effect here.
        net: backbone: ``vgg``, ``alex``, or ``mini``, which is shipped.
    """

    @dataclass
    class Config(BaseObject.Config):
        use_dropout: bool = True
        net: str = "vgg"

    cfg: Config

    def configure(self) -> None:
        self.perceptual_loss = PerceptualLoss(self.cfg.use_dropout, self.cfg.net).to(self.device)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances ``[B, 1, 1, 1]`` of pictures ``[B, 3, H, W]`` in [-1, 1]."""
        return self.perceptual_loss(x, y)
