"""A randomly initialised Stable-Diffusion-like model of a few thousand weights, saved as a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


def save_tiny_model(folder: Path, prediction_type: str = "v_prediction") -> Path:
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel

    from tools.mini.tokenizer import learn_tokenizer
    from tools.mini.train_autoencoder import autoencoder_config
    from tools.mini.train_diffusion import save_pipeline, text_encoder_config, unet_config

    torch.manual_seed(0)
    tokenizer = learn_tokenizer(["a", "red", "cat", "front", "side", "back", "overhead", "view"])
    vae = AutoencoderKL(**autoencoder_config((8, 16, 16)))
    vae.register_to_config(scaling_factor=0.7)
    unet = UNet2DConditionModel(**unet_config(16, (16, 32)))
    text_encoder = CLIPTextModel(text_encoder_config(tokenizer, 16))
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        clip_sample=False,
        steps_offset=1,
    )
    save_pipeline(folder, vae, unet, text_encoder, tokenizer, scheduler)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "v")


@pytest.fixture(scope="session")
def tiny_epsilon_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "epsilon", "epsilon")
