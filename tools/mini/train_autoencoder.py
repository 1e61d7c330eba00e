"""Train the mini Stable Diffusion's AutoencoderKL (f = 4, 4 channels).

    python -m tools.mini.train_autoencoder

Two phases in one run. First clean pictures; in the last third a quarter of the inputs is noisy, blurred or a blob
and has to come back as it is, so that gradients through the encoder are usable for renders that are no pictures yet.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.mini.pictures import SIDE, STYLE_COUNT, PictureSet, develop, random_backgrounds
from tools.mini.training import Plan, train

__all__ = ["CHANNELS", "autoencoder_config", "spoil", "train_autoencoder"]

log = logging.getLogger("mini-lab")

CHANNELS = (16, 32, 64)
PLANS = {
    "full": Plan(steps=4800, lr=1.4e-3, decay="linear", warmup=200, weight_decay=1e-4, ema=0.995, seed=11),
    "short": Plan(steps=2400, lr=1.5e-3, decay="linear", warmup=100, weight_decay=1e-4, ema=0.99, seed=11),
}
BATCH = 12
KL_WEIGHT = 2e-4


def autoencoder_config(channels: tuple[int, ...] = CHANNELS) -> dict[str, Any]:
    """Keyword arguments of ``diffusers.AutoencoderKL``."""
    depth = len(channels)
    return {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * depth,
        "up_block_types": ("UpDecoderBlock2D",) * depth,
        "block_out_channels": channels,
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 8,
        "sample_size": SIDE,
        "mid_block_add_attention": False,
    }


def spoil(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """What a half-finished 3D field looks like: noisy, blurred, blobby or mixed pictures, in [0, 1]."""
    count = len(pictures)
    kind = torch.randint(0, 4, (count,), generator=generator).view(-1, 1, 1, 1)
    noisy = pictures + 0.25 * torch.rand(count, 1, 1, 1, generator=generator) * torch.randn(
        pictures.shape, generator=generator
    )
    small = functional.avg_pool2d(pictures, 4)
    blurred = functional.interpolate(small, size=pictures.shape[-2:], mode="bilinear", align_corners=False)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    blob = functional.interpolate(coarse, size=pictures.shape[-2:], mode="bicubic", align_corners=False)
    share = torch.rand(count, 1, 1, 1, generator=generator)
    mixed = share * pictures + (1.0 - share) * pictures.roll(1, 0)
    spoilt = torch.where(kind == 0, noisy, torch.where(kind == 1, blurred, torch.where(kind == 2, blob, mixed)))
    return spoilt.clamp(0.0, 1.0)


def draw_pictures(
    pictures: PictureSet, rows: np.ndarray, count: int, generator: torch.Generator, *, plain: bool = False
) -> tuple[Tensor, Tensor, np.ndarray]:
    """A batch in [-1, 1], the foreground mask ``[B, 1, H, W]`` and the rows it came from."""
    chosen = rows[torch.randint(0, len(rows), (count,), generator=generator).numpy()]
    rgba = pictures.batch(chosen)
    background = random_backgrounds(count, generator)
    if plain:
        background = torch.full_like(background, 0.55)
    style = torch.randint(0, STYLE_COUNT, (count,), generator=generator)
    return develop(rgba, background, style) * 2.0 - 1.0, rgba[:, 3:], chosen


def _gradient_l1(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    right = (first - second).diff(dim=-1).abs() * weight[..., 1:]
    down = (first - second).diff(dim=-2).abs() * weight[..., 1:, :]
    return right.mean() + down.mean()


def train_autoencoder(
    renders: Path, folder: Path, plan: Plan, *, channels: tuple[int, ...] = CHANNELS, until: int | None = None
) -> nn.Module:
    """Train, measure the scale of the latents, and save ``folder/vae``."""
    from diffusers import AutoencoderKL

    torch.manual_seed(plan.seed)
    model: Any = AutoencoderKL(**autoencoder_config(channels))
    pictures = PictureSet.open(renders)
    rows = np.arange(len(pictures.rgba))

    def loss_fn(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        image, mask, _ = draw_pictures(pictures, rows, BATCH, generator, plain=step < 300)
        if step >= plan.steps * 2 // 3:
            bad = torch.rand(BATCH, generator=generator) < 0.25
            spoilt = spoil((image + 1.0) * 0.5, generator) * 2.0 - 1.0
            image = torch.where(bad.view(-1, 1, 1, 1), spoilt, image)
        ramp = min(step / 600.0, 1.0)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = model.encode(image).latent_dist
            mean, logvar = posterior.mean.float(), posterior.logvar.float()
            noise = torch.randn(mean.shape, generator=generator)
            decoded = model.decode((mean + torch.exp(0.5 * logvar) * noise).to(image.dtype)).sample
        decoded = decoded.float()
        weight = 1.0 + 2.0 * mask
        error = (decoded - image) * weight.sqrt()
        l1 = ((decoded - image).abs() * weight).mean()
        kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
        sharp = _gradient_l1(decoded, image, weight)
        # Colours of large areas are what group normalisation forgets first.
        tone = functional.l1_loss(functional.avg_pool2d(decoded, 8), functional.avg_pool2d(image, 8))
        loss = 2.0 * error.square().mean() + ramp * (0.5 * l1 + 0.5 * sharp) + tone + KL_WEIGHT * kl
        shown = ((decoded - image).abs() * mask).sum() / (3.0 * mask.sum())
        return loss, {"foreground_l1": float(shown.detach()), "tone": float(tone.detach()), "kl": float(kl.detach())}

    average: Any = train(plan, {"vae": model}, loss_fn, folder, until=until)["vae"]
    scale = measure_latents(average, pictures, rows)
    average.register_to_config(scaling_factor=round(scale["scaling_factor"], 4))
    average.save_pretrained(folder / "vae")
    (folder / "latents.json").write_text(json.dumps(scale, indent=1), encoding="utf-8")
    return average


@torch.no_grad()
def measure_latents(model: Any, pictures: PictureSet, rows: np.ndarray) -> dict[str, Any]:
    """Mean and deviation of latents over 512 pictures; ``scaling_factor`` makes their overall deviation 1."""
    generator = torch.Generator().manual_seed(5)
    image, _, _ = draw_pictures(pictures, rows, 512, generator)
    latents = torch.cat([model.encode(part).latent_dist.mean for part in image.split(32)])
    return {
        "scaling_factor": float(1.0 / latents.std()),
        "channel_mean": latents.mean(dim=(0, 2, 3)).tolist(),
        "channel_std": latents.std(dim=(0, 2, 3)).tolist(),
    }


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renders", type=Path, default=Path("outputs/mini-lab/renders/train"))
    parser.add_argument("--out", type=Path, default=Path("outputs/mini-lab/autoencoder"))
    parser.add_argument("--schedule", choices=list(PLANS), default="full")
    arguments = parser.parse_args()
    train_autoencoder(arguments.renders, arguments.out, PLANS[arguments.schedule])


if __name__ == "__main__":
    main()
