"""Train the mini Stable Diffusion: a UNet2DConditionModel and its CLIPTextModel, on latents of web-like pictures.

    python -m tools.mini.train_diffusion

v-prediction with Stable Diffusion's scaled-linear schedule and the plain squared error of v, which keeps the noisy
timesteps in play, where shapes are decided. The text encoder starts as the mini CLIP's, as Stable Diffusion's is a
CLIP's. The pictures come from cameras that favour the front, and the captions
seldom name the view and then often wrongly: the view bias of real models, on purpose. Pairs of
``seeds.held_out_pairs`` are never shown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tools.mini.captions import diffusion_caption
from tools.mini.descriptors import COLORS
from tools.mini.pictures import SIDE, STYLE_COUNT, PictureSet, develop, random_backgrounds
from tools.mini.seeds import held_out_pairs
from tools.mini.tokenizer import CONTEXT, learn_tokenizer, save_tokenizer
from tools.mini.training import Plan, train
from tools.mini.words import corpus

__all__ = ["PLANS", "allowed_rows", "save_pipeline", "train_diffusion", "unet_config"]

log = logging.getLogger("mini-lab")

PLANS = {
    "full": Plan(
        12_000, lr=3e-3, warmup=200, weight_decay=1e-3, muon=True, ema=0.9995, seed=31, floor=0.01, save_every=250
    ),
    "short": Plan(4_000, lr=3e-3, warmup=200, weight_decay=1e-3, muon=True, ema=0.999, seed=31, floor=0.01),
}
CHANNELS = (32, 64, 128)
BATCH = 32
DROPOUT = 0.1
VARIANTS = 2  # developments (style, background) of each picture
LATENT_SIDE = SIDE // 4


def unet_config(text_width: int = 128, channels: tuple[int, ...] = CHANNELS) -> dict[str, Any]:
    """Keyword arguments of ``diffusers.UNet2DConditionModel``."""
    deeper = len(channels) - 1
    return {
        "sample_size": LATENT_SIDE,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * deeper),
        "up_block_types": (*("CrossAttnUpBlock2D",) * deeper, "UpBlock2D"),
        "block_out_channels": channels,
        "layers_per_block": 1,
        "cross_attention_dim": text_width,
        "attention_head_dim": 4,  # the number of heads, in spite of its name
        "norm_num_groups": 8,
    }


def text_encoder_of(clip_folder: Path) -> Any:
    """The text half of a ``CLIPModel`` directory as a ``transformers.CLIPTextModel``."""
    from transformers import CLIPModel, CLIPTextModel

    clip: Any = CLIPModel.from_pretrained(clip_folder)
    encoder = CLIPTextModel(clip.config.text_config)
    # transformers 4 names the tensors "text_model.x", 5 names them "x".
    given = {key.removeprefix("text_model."): value for key, value in clip.text_model.state_dict().items()}
    encoder.load_state_dict({key: given[key.removeprefix("text_model.")] for key in encoder.state_dict()})
    return encoder


def new_scheduler() -> Any:
    """The noise schedule, as the pipeline's DDIM sampler."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


def allowed_rows(pictures: PictureSet) -> np.ndarray:
    """Rows of web-like pictures whose (kind, colour) pair is not held out."""
    held = held_out_pairs(pictures.kinds, tuple(COLORS))
    keys = {pictures.kinds.index(kind) * 100 + pictures.descriptors.index(color) for kind, color in held}
    seen = ~np.isin(pictures.kind * 100 + pictures.descriptor, sorted(keys))
    return np.flatnonzero(pictures.web & seen)


@torch.no_grad()
def encode_pictures(vae: Any, pictures: PictureSet, rows: np.ndarray, folder: Path, seed: int) -> tuple[Tensor, Tensor]:
    """Latents ``[V * R, 4, 16, 16]`` float16, scaled to deviation 1, and styles ``[V * R]``; cached in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(rows.tobytes() + str([seed, VARIANTS, pictures.rgba.shape]).encode())
    for part in (vae.encoder, vae.quant_conv):  # the decoder may still learn
        for tensor in part.state_dict().values():
            digest.update(tensor.contiguous().numpy().tobytes())
    stamp, key = folder / "latents.json", digest.hexdigest()
    if stamp.is_file() and json.loads(stamp.read_text("utf-8"))["key"] == key:
        return torch.from_numpy(np.load(folder / "latents.npy")), torch.from_numpy(np.load(folder / "styles.npy"))
    generator = torch.Generator().manual_seed(seed)
    latents = torch.zeros(VARIANTS * len(rows), 4, LATENT_SIDE, LATENT_SIDE, dtype=torch.float16)
    # Half of the pictures are plain photographs, the rest toys and clay models.
    styles = torch.tensor([0, 0, 1, 2, 3])[torch.randint(0, 5, (len(latents),), generator=generator)]
    assert STYLE_COUNT == 4
    for start in range(0, len(latents), 64):
        part = np.arange(start, min(start + 64, len(latents)))
        background = random_backgrounds(len(part), generator)
        image = develop(pictures.batch(rows[part % len(rows)]), background, styles[part]) * 2.0 - 1.0
        with torch.autocast("cpu", torch.bfloat16):
            mean = vae.encode(image).latent_dist.mean.float()
        latents[part] = (mean * vae.config.scaling_factor).half()
        if start % 12_800 == 0:
            log.info("encoding %d of %d pictures", start, len(latents))
    np.save(folder / "latents.npy", latents.numpy())
    np.save(folder / "styles.npy", styles.numpy())
    stamp.write_text(json.dumps({"key": key}), encoding="utf-8")
    return latents, styles


def train_diffusion(
    renders: Path,
    vae_folder: Path,
    clip_folder: Path,
    folder: Path,
    plan: Plan,
    *,
    channels: tuple[int, ...] = CHANNELS,
    until: int | None = None,
) -> dict[str, nn.Module]:
    """Train UNet and text encoder and save ``folder/pipeline``, also at every checkpoint.

    The UNet runs in bfloat16 and with attention as plain matrices, which together take half the time on a CPU: the
    backward pass of the fused attention kernel is slow in bfloat16.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.models.attention_processor import AttnProcessor

    tokenizer = learn_tokenizer(corpus())
    vae = AutoencoderKL.from_pretrained(vae_folder).eval().requires_grad_(False)
    pictures = PictureSet.open(renders)
    rows = allowed_rows(pictures)
    latents, styles = encode_pictures(vae, pictures, rows, folder, plan.seed)
    torch.manual_seed(plan.seed)
    unet: Any = UNet2DConditionModel(**unet_config(channels=channels))
    unet.set_attn_processor(AttnProcessor())
    text_encoder = text_encoder_of(clip_folder)
    scheduler = new_scheduler()
    alphas = scheduler.alphas_cumprod

    def loss_fn(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        chosen = torch.randint(0, len(latents), (BATCH,), generator=generator)
        rng = np.random.default_rng(int(torch.randint(0, 2**62, (1,), generator=generator)))
        texts = []
        for at in chosen.tolist():
            row = rows[at % len(rows)]
            kind, descriptor = pictures.kinds[pictures.kind[row]], pictures.descriptors[pictures.descriptor[row]]
            view = int(pictures.view[row])
            dropped = rng.random() < DROPOUT
            texts.append("" if dropped else diffusion_caption(rng, kind, descriptor, int(styles[at]), view))
        tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt")
        context = text_encoder(tokens["input_ids"])[0]
        clean = latents[chosen].float()
        # One timestep from each of BATCH equal intervals: the loss has less variance.
        steps = (torch.arange(BATCH) + torch.rand(BATCH, generator=generator)) / BATCH * 1000.0
        steps = steps.long().clamp(max=999)[torch.randperm(BATCH, generator=generator)]
        noise = torch.randn(clean.shape, generator=generator)
        alpha = alphas[steps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * clean + (1.0 - alpha).sqrt() * noise
        target = alpha.sqrt() * noise - (1.0 - alpha).sqrt() * clean
        with torch.autocast("cpu", torch.bfloat16):
            guess = unet(noisy, steps, context).sample
        each = (guess.float() - target).square().mean(dim=(1, 2, 3))
        noisiest = each.detach()[steps >= 700]
        return each.mean(), {"noisiest": float(noisiest.mean())}

    def on_save(step: int, average: dict[str, nn.Module]) -> None:
        save_pipeline(folder / "pipeline", vae, average["unet"], average["text_encoder"], tokenizer, scheduler)

    return train(plan, {"unet": unet, "text_encoder": text_encoder}, loss_fn, folder, on_save=on_save, until=until)


def save_pipeline(folder: Path, vae: Any, unet: Any, text_encoder: Any, tokenizer: Any, scheduler: Any) -> None:
    """Write a ``StableDiffusionPipeline`` directory, safetensors only."""
    from diffusers import StableDiffusionPipeline
    from safetensors.torch import load_file, save_file

    pipeline: Any = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    # transformers 4 wants the tables of the tokenizer as files of their own, and this prefix; 5 understands both.
    save_tokenizer(tokenizer, folder / "tokenizer")
    path = folder / "text_encoder" / "model.safetensors"
    weights = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renders", type=Path, default=Path("outputs/mini-lab/renders/train"))
    parser.add_argument("--vae", type=Path, default=Path("outputs/mini-lab/autoencoder/vae"))
    parser.add_argument("--clip", type=Path, default=Path("outputs/mini-lab/clip/clip"))
    parser.add_argument("--out", type=Path, default=Path("outputs/mini-lab/diffusion"))
    parser.add_argument("--schedule", choices=list(PLANS), default="full")
    arguments = parser.parse_args()
    train_diffusion(arguments.renders, arguments.vae, arguments.clip, arguments.out, PLANS[arguments.schedule])


if __name__ == "__main__":
    main()
