"""Train the mini Stable Diffusion's AutoencoderKL (f = 4, 4 channels).

    python -m tools.mini.train_autoencoder

Two phases in one run. First clean pictures; in the last third a quarter of the inputs is noisy, blurred or a blob
and has to come back as it is, so that gradients through the encoder are usable for renders that are no pictures yet.
Throughout, the decoder gets latents with noise added, because a diffusion model never hits them exactly, and a penalty
keeps the channels from copying each other: without it one of the four was found to carry nothing. Then every channel
is shifted and scaled to mean 0 and deviation 1, inside the weights, and the decoder learns on alone.
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

__all__ = [
    "CHANNELS",
    "autoencoder_config",
    "make_autoencoder",
    "picture_loss",
    "polish_decoder",
    "spoil",
    "train_autoencoder",
]

log = logging.getLogger("mini-lab")

CHANNELS = (16, 32, 64)
PLANS = {
    "full": Plan(steps=5600, lr=1.4e-3, decay="linear", warmup=200, weight_decay=1e-4, ema=0.995, seed=11),
    "short": Plan(steps=2400, lr=1.5e-3, decay="linear", warmup=100, weight_decay=1e-4, ema=0.99, seed=11),
}
POLISH = {
    "full": Plan(steps=9000, lr=2e-3, warmup=100, ema=0.998, weight_decay=1e-3, muon=True, seed=12),
    "short": Plan(steps=1200, lr=2e-3, warmup=50, ema=0.99, weight_decay=1e-3, muon=True, seed=12),
}
BATCH = 12
KL_WEIGHT = 3e-4
DECORRELATION = 0.05
#: Largest deviation of the noise on the decoder's latents, which themselves have about 1 to 2.
LATENT_NOISE = 0.2
#: The same while the decoder is polished, when all channels have deviation 1.
POLISH_NOISE = 0.12


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


def picture_loss(decoded: Tensor, image: Tensor, mask: Tensor, *, ramp: float = 1.0) -> tuple[Tensor, dict[str, float]]:
    """Squared and absolute errors of ``[B, 3, H, W]`` and of its edges, heavier on the object.

    Args:
        ramp: weight of the absolute errors. From the first step on they would settle on the background.

    Returns:
        the loss, and figures for the log.
    """
    weight = 1.0 + 2.0 * mask
    square = ((decoded - image).square() * weight).mean()
    absolute = ((decoded - image).abs() * weight).mean()
    # Colours of large areas are what group normalisation forgets first.
    tone = functional.l1_loss(functional.avg_pool2d(decoded, 8), functional.avg_pool2d(image, 8))
    loss = 2.0 * square + 0.5 * ramp * (absolute + _gradient_l1(decoded, image, weight)) + tone
    shown = ((decoded - image).detach().abs() * mask).sum() / (3.0 * mask.sum())
    return loss, {"foreground_l1": float(shown), "tone": float(tone.detach())}


def _spoil_some(image: Tensor, generator: torch.Generator) -> Tensor:
    """A quarter of the batch (in [-1, 1]) spoilt."""
    bad = torch.rand(len(image), generator=generator) < 0.25
    spoilt = spoil((image + 1.0) * 0.5, generator) * 2.0 - 1.0
    return torch.where(bad.view(-1, 1, 1, 1), spoilt, image)


def _correlation(latents: Tensor) -> Tensor:
    """Mean squared correlation between different channels of ``[B, C, H, W]``."""
    table = torch.corrcoef(latents.transpose(0, 1).flatten(1))
    return (table - torch.eye(len(table))).square().sum() / (len(table) * (len(table) - 1))


def train_autoencoder(
    renders: Path, folder: Path, plan: Plan, *, channels: tuple[int, ...] = CHANNELS, until: int | None = None
) -> nn.Module:
    """Train, normalise the latents' channels, and save ``folder/vae``."""
    from diffusers import AutoencoderKL

    torch.manual_seed(plan.seed)
    model: Any = AutoencoderKL(**autoencoder_config(channels))
    pictures = PictureSet.open(renders)
    rows = np.arange(len(pictures.rgba))

    def loss_fn(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        image, mask, _ = draw_pictures(pictures, rows, BATCH, generator, plain=step < 300)
        if step >= plan.steps * 2 // 3:
            image = _spoil_some(image, generator)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = model.encode(image).latent_dist
            mean, logvar = posterior.mean.float(), posterior.logvar.float()
            noise = torch.randn(mean.shape, generator=generator)
            extra = LATENT_NOISE * torch.rand(len(image), 1, 1, 1, generator=generator)
            decoded = model.decode(mean + (torch.exp(0.5 * logvar) + extra) * noise).sample
        loss, figures = picture_loss(decoded.float(), image, mask, ramp=min(step / 600.0, 1.0))
        kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
        twins = _correlation(mean)
        loss = loss + KL_WEIGHT * kl + DECORRELATION * twins
        return loss, figures | {"kl": float(kl.detach()), "correlation": float(twins.detach())}

    average: Any = train(plan, {"vae": model}, loss_fn, folder, until=until)["vae"]
    measured = measure_latents(average, pictures, rows)
    normalise_latents(average, measured["channel_mean"], measured["channel_std"])
    average.register_to_config(scaling_factor=1.0)
    average.save_pretrained(folder / "vae")
    (folder / "latents.json").write_text(json.dumps(measured, indent=1), encoding="utf-8")
    return average


def polish_decoder(renders: Path, folder: Path, plan: Plan, *, until: int | None = None) -> nn.Module:
    """Train the decoder of ``folder/vae`` further on the latents it has, and save it there.

    The encoder stays, so latents and what was learnt on them stay valid; this may run beside the diffusion model.
    """
    from diffusers import AutoencoderKL

    model: Any = AutoencoderKL.from_pretrained(folder / "vae").requires_grad_(False)
    decoder = nn.ModuleDict({"decoder": model.decoder, "post_quant_conv": model.post_quant_conv})
    decoder.requires_grad_(True)
    pictures = PictureSet.open(renders)
    rows = np.arange(len(pictures.rgba))

    def loss_fn(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        image, mask, _ = draw_pictures(pictures, rows, BATCH, generator)
        image = _spoil_some(image, generator)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                latents = model.encode(image).latent_dist.mean.float()
                noise = torch.randn(latents.shape, generator=generator)
                latents += POLISH_NOISE * torch.rand(len(image), 1, 1, 1, generator=generator) * noise
            decoded = model.decode(latents).sample
        return picture_loss(decoded.float(), image, mask)

    average = train(plan, {"decoder": decoder}, loss_fn, folder / "polish", until=until)["decoder"]
    decoder.load_state_dict(average.state_dict())
    model.save_pretrained(folder / "vae")
    return model


@torch.no_grad()
def measure_latents(model: Any, pictures: PictureSet, rows: np.ndarray) -> dict[str, Any]:
    """Mean, deviation and correlations of the channels over 512 pictures."""
    generator = torch.Generator().manual_seed(5)
    image, _, _ = draw_pictures(pictures, rows, 512, generator)
    latents = torch.cat([model.encode(part).latent_dist.mean for part in image.split(32)])
    return {
        "channel_mean": latents.mean(dim=(0, 2, 3)).tolist(),
        "channel_std": latents.std(dim=(0, 2, 3)).tolist(),
        "correlation": torch.corrcoef(latents.transpose(0, 1).flatten(1)).tolist(),
    }


@torch.no_grad()
def normalise_latents(model: Any, mean: list[float], std: list[float]) -> None:
    """Shift and scale the latents' channels to mean 0 and deviation 1, leaving what is decoded as it was.

    The 1x1 convolutions around the latents take it up, so every user of the AutoencoderKL sees the new latents.

    Args:
        model: an ``AutoencoderKL`` with both of them. mean, std: of its latents now, by channel.
    """
    shift, scale = torch.tensor(mean), torch.tensor(std)
    count = len(scale)
    encoder, decoder = model.quant_conv, model.post_quant_conv
    encoder.weight[:count] /= scale.view(-1, 1, 1, 1)
    encoder.bias[:count] = (encoder.bias[:count] - shift) / scale
    encoder.bias[count:] -= 2.0 * scale.log()  # the variance's logarithm
    decoder.bias += decoder.weight[:, :, 0, 0] @ shift
    decoder.weight *= scale.view(1, -1, 1, 1)


def make_autoencoder(renders: Path, folder: Path, schedule: str) -> nn.Module:
    """Both stages, each continued where it was stopped."""
    if not (folder / "vae").is_dir():
        train_autoencoder(renders, folder, PLANS[schedule])
    return polish_decoder(renders, folder, POLISH[schedule])


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renders", type=Path, default=Path("outputs/mini-lab/renders/train"))
    parser.add_argument("--out", type=Path, default=Path("outputs/mini-lab/autoencoder"))
    parser.add_argument("--schedule", choices=list(PLANS), default="full")
    arguments = parser.parse_args()
    make_autoencoder(arguments.renders, arguments.out, arguments.schedule)


if __name__ == "__main__":
    main()
