"""Train the independent judge on its own objects, all sides alike, broken pictures included.

python -m tools.mini.train_judge
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from threestudio_redream.mini.judge import Judge
from tools.mini.pictures import STYLE_COUNT, PictureSet, develop, random_backgrounds
from tools.mini.training import Plan, train

__all__ = ["broken_pictures", "train_judge"]

PLANS = {
    "full": Plan(steps=4500, lr=2e-3, warmup=100, weight_decay=0.03, ema=0.998, seed=41),
    "short": Plan(steps=1400, lr=2e-3, warmup=100, weight_decay=0.03, ema=0.995, seed=41),
}
BATCH = 64
BROKEN_SHARE = 0.15


def _smoothed(pixels: Tensor, factor: int) -> Tensor:
    small = functional.avg_pool2d(pixels, factor)
    return functional.interpolate(small, size=pixels.shape[-2:], mode="bilinear", align_corners=False)


def broken_pictures(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures in which nobody could name an object: mush, noise, torn or mixed pieces, empty ground."""
    count = len(pixels)
    kind = torch.randint(0, 5, (count,), generator=generator).view(-1, 1, 1, 1)
    mush = _smoothed(pixels, 16)
    noise = 0.5 * pixels.mean(dim=(2, 3), keepdim=True) + 0.35 * torch.rand(pixels.shape, generator=generator)
    order = torch.randperm(16, generator=generator)
    tiles = pixels.unfold(2, 16, 16).unfold(3, 16, 16).reshape(count, 3, 16, 16, 16)[:, :, order]
    torn = tiles.reshape(count, 3, 4, 4, 16, 16).permute(0, 1, 2, 4, 3, 5).reshape(pixels.shape)
    # Two objects through each other, half and half.
    mixed = 0.5 * (pixels + pixels.roll(1, 0))
    blob = _smoothed(torch.rand(pixels.shape, generator=generator), 16) * 1.2
    choices = (mush, noise, torn, mixed, blob)
    out = choices[0]
    for index, choice in enumerate(choices[1:], 1):
        out = torch.where(kind == index, choice, out)
    return out


def train_judge(renders: Path, folder: Path, plan: Plan, *, until: int | None = None) -> nn.Module:
    """Train and save ``folder/judge``."""
    pictures = PictureSet.open(renders)
    fronted = [False] * len(pictures.kinds)
    for kind, front in zip(pictures.kind.tolist(), pictures.fronted.tolist()):
        fronted[kind] = bool(front)
    torch.manual_seed(plan.seed)
    model = Judge(list(pictures.kinds), list(pictures.descriptors), fronted)
    columns = [torch.from_numpy(values) for values in (pictures.kind, pictures.descriptor, pictures.view)]
    has_front = torch.from_numpy(pictures.fronted)

    def loss_fn(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(0, len(pictures.rgba), (BATCH,), generator=generator)
        style = torch.randint(0, STYLE_COUNT, (BATCH,), generator=generator)
        pixels = develop(pictures.batch(rows.numpy()), random_backgrounds(BATCH, generator), style)
        # Soft, noisy and off-colour pictures keep their labels; beyond recognition they become "unclear".
        roll = torch.rand(BATCH, 1, 1, 1, generator=generator)
        pixels = torch.where(roll < 0.25, _smoothed(pixels, 2), pixels)
        noise = 0.08 * torch.rand(BATCH, 1, 1, 1, generator=generator) * torch.randn(pixels.shape, generator=generator)
        contrast = 0.85 + 0.3 * torch.rand(BATCH, 1, 1, 1, generator=generator)
        pixels = ((pixels - 0.5) * contrast + 0.5 + noise).clamp(0.0, 1.0)
        move = torch.randint(-3, 4, (2,), generator=generator).tolist()
        pixels = functional.pad(pixels, (3, 3, 3, 3), mode="replicate")
        pixels = pixels[:, :, 3 + move[0] : 67 + move[0], 3 + move[1] : 67 + move[1]]
        broken = torch.rand(BATCH, generator=generator) < BROKEN_SHARE
        pixels = torch.where(broken.view(-1, 1, 1, 1), broken_pictures(pixels, generator), pixels)
        mirrored = torch.rand(BATCH, 1, 1, 1, generator=generator) < 0.5
        pixels = torch.where(mirrored, pixels.flip(3), pixels)
        with torch.autocast("cpu", torch.bfloat16):
            kind, descriptor, view = (scores.float() for scores in model(pixels))
        wanted = torch.where(broken, len(pictures.kinds), columns[0][rows])
        whole = (~broken).float()
        sided = whole * has_front[rows].float()
        many = sided.sum().clamp(min=1)
        losses = [
            functional.cross_entropy(kind, wanted, label_smoothing=0.02),
            (functional.cross_entropy(descriptor, columns[1][rows], reduction="none") * whole).sum() / whole.sum(),
            (functional.cross_entropy(view, columns[2][rows], reduction="none") * sided).sum()
            / sided.sum().clamp(min=1),
        ]
        right = (kind.argmax(1) == wanted).float().mean()
        return losses[0] + losses[1] + losses[2], {
            "kind": float(right),
            "descriptor": float(((descriptor.argmax(1) == columns[1][rows]).float() * whole).sum() / whole.sum()),
            "view": float(((view.argmax(1) == columns[2][rows]).float() * sided).sum() / many),
        }

    average = train(plan, {"judge": model}, loss_fn, folder, until=until)["judge"]
    average.save(folder / "judge")  # type: ignore[operator]
    return average


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renders", type=Path, default=Path("outputs/mini-lab/renders/judge"))
    parser.add_argument("--out", type=Path, default=Path("outputs/mini-lab/judge"))
    parser.add_argument("--schedule", choices=list(PLANS), default="full")
    arguments = parser.parse_args()
    train_judge(arguments.renders, arguments.out, PLANS[arguments.schedule])


if __name__ == "__main__":
    main()
