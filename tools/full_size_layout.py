"""A Stable Diffusion 2.1 of full size with random weights: the published layout without the 5 GB of download.

    python -m tools.full_size_layout FOLDER [--v-prediction]

It draws noise, but it costs what the real one costs, and goes through the same ``from_pretrained``. Weights are
safetensors in bfloat16, 2.6 GB. The tokenizer is the mini lab's; the embedding table has CLIP's 49,408 rows all the
same.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

__all__ = ["BASE", "TEXT", "UNET", "VAE", "V_768", "build_unet", "build_vae", "save_layout"]

UNET: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 2,
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 768,
}
TEXT: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "projection_dim": 512,
    "max_position_embeddings": 77,
    "hidden_act": "gelu",
}
#: What differs between the 512 px and the 768 px model.
BASE: dict[str, Any] = {"sample_size": 64, "upcast_attention": False, "prediction_type": "epsilon"}
V_768: dict[str, Any] = {"sample_size": 96, "upcast_attention": True, "prediction_type": "v_prediction"}


def build_unet(kind: dict[str, Any] = BASE) -> Any:
    """The UNet, 866 M parameters, in torch's default dtype."""
    from diffusers import UNet2DConditionModel

    sizes = {key: kind[key] for key in ("sample_size", "upcast_attention")}
    return UNet2DConditionModel(**UNET, **sizes)


def build_vae() -> Any:
    """The autoencoder, 84 M parameters, in torch's default dtype."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(**VAE)


def save_layout(folder: Path, kind: dict[str, Any] = BASE, seed: int = 0) -> Path:
    """Write the model as ``StableDiffusionPipeline.save_pretrained`` would, part by part."""
    from diffusers import DDIMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel

    from tools.mini.tokenizer import learn_tokenizer, save_tokenizer
    from tools.mini.words import corpus

    torch.manual_seed(seed)
    tokenizer = learn_tokenizer(corpus())
    tokenizer.model_max_length = TEXT["max_position_embeddings"]
    ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        for name, build in (
            ("unet", lambda: build_unet(kind)),
            ("vae", build_vae),
            ("text_encoder", lambda: CLIPTextModel(CLIPTextConfig(**TEXT, **ends))),
        ):
            build().save_pretrained(folder / name, safe_serialization=True)
    finally:
        torch.set_default_dtype(before)
    save_tokenizer(tokenizer, folder / "tokenizer")
    scheduler: Any = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=kind["prediction_type"],
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    scheduler.save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}\n', encoding="utf-8")
    return folder


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--v-prediction", action="store_true", help="the 768 px model instead of the base model")
    args = parser.parse_args()
    save_layout(args.folder, V_768 if args.v_prediction else BASE)


if __name__ == "__main__":
    main()
