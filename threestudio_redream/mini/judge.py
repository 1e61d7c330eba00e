"""The independent judge of the mini lab: what is shown, in which finish, and from which side.

A small convolutional network that shares neither weights nor training objects with the mini CLIP and the mini
Stable Diffusion. It sees all sides equally often and knows broken pictures: they are "unclear", no kind at all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from threestudio_redream.errors import ConfigError
from threestudio_redream.mini import JUDGE

__all__ = ["Judge", "Verdict"]

SIDE = 64
MAX_NAMES = 10_000
_TABLES = ("kinds", "descriptors", "fronted", "widths")


@dataclass(frozen=True)
class Verdict:
    """Probabilities for ``B`` pictures.

    Attributes:
        kind: ``[B, K + 1]`` over ``Judge.kinds``, the last column for "unclear". descriptor: ``[B, D]`` over
            ``Judge.descriptors``. view: ``[B, 4]`` front, side, back, overhead; meaningless for kinds without a front.
    """

    kind: Tensor
    descriptor: Tensor
    view: Tensor


class _Block(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.norm_first = nn.GroupNorm(8, width)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm_second = nn.GroupNorm(8, width)
        self.skip = nn.Conv2d(width_in, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.silu(self.norm_first(self.first(x)))
        return functional.silu(self.norm_second(self.second(y)) + self.skip(x))


class Judge(nn.Module):
    """Classifies pictures of the mini lab's objects.

    Args:
        kinds, descriptors: names. fronted: of each kind, whether it has a front. widths: channels of the four stages.
    """

    def __init__(
        self,
        kinds: list[str],
        descriptors: list[str],
        fronted: list[bool],
        widths: tuple[int, ...] = (32, 64, 96, 160),
    ) -> None:
        super().__init__()
        self.kinds, self.descriptors, self.fronted = tuple(kinds), tuple(descriptors), tuple(fronted)
        self.widths = tuple(widths)
        self.stem = nn.Conv2d(3, widths[0], 5, 2, 2)
        sizes = (widths[0], *widths)
        self.blocks = nn.Sequential(*(_Block(a, b, 1 if i == 0 else 2) for i, (a, b) in enumerate(zip(sizes, widths))))
        self.to_kind = nn.Linear(2 * widths[-1], len(kinds) + 1)
        self.to_descriptor = nn.Linear(2 * widths[-1], len(descriptors))
        self.to_view = nn.Linear(2 * widths[-1], 4)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits for pixels ``[B, 3, 64, 64]`` in [0, 1]."""
        features = self.blocks(functional.silu(self.stem(pixels * 4.0 - 2.0)))
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        return self.to_kind(pooled), self.to_descriptor(pooled), self.to_view(pooled)

    @torch.no_grad()
    def judge(self, images: Tensor) -> Verdict:
        """Verdict on images ``[B, H, W, 3]`` in [0, 1], of any size; they are brought to 64 px by area.

        Raises:
            ConfigError: for another shape.
        """
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ConfigError("The judge wants [B, H, W, 3]", received=tuple(images.shape), fix="Put channels last.")
        pixels = images.permute(0, 3, 1, 2).float().clamp(0.0, 1.0)
        if pixels.shape[-2:] != (SIDE, SIDE):
            pixels = functional.interpolate(pixels, size=(SIDE, SIDE), mode="area")
        kind, descriptor, view = self(pixels)
        return Verdict(kind.softmax(1), descriptor.softmax(1), view.softmax(1))

    def save(self, folder: Path) -> None:
        """Write ``judge.json`` and ``judge.safetensors``."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        about: dict[str, Any] = {
            name: list(getattr(self, name)) for name in ("kinds", "descriptors", "fronted", "widths")
        }
        (folder / "judge.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        save_file({key: value.contiguous() for key, value in self.state_dict().items()}, folder / "judge.safetensors")

    @staticmethod
    def load(folder: Path = JUDGE) -> Judge:
        """Read a folder of :meth:`save`; in eval mode, on the CPU.

        Raises:
            ConfigError: the folder is not one, or its two files do not fit together.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            about = json.loads((folder / "judge.json").read_text("utf-8"))
            names = [list(about[name]) for name in _TABLES]
            if max(map(len, names)) > MAX_NAMES or len(names[3]) != 4 or max(names[3]) > 4096:
                raise ValueError("its tables are too large")
            model = Judge(names[0], names[1], names[2], tuple(names[3]))
            model.load_state_dict(load_file(folder / "judge.safetensors"))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as cause:
            raise ConfigError(
                f"The judge cannot be loaded: {cause}",
                received=str(folder),
                fix="Restore the folder, or train it again: python -m tools.mini.train_judge.",
            ) from cause
        return model.eval()
