"""Randomly initialised models of a few thousand weights, saved as folders: a Stable Diffusion and a CLIP."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


def save_tiny_model(folder: Path, prediction_type: str = "v_prediction") -> Path:
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from tools.mini.tokenizer import learn_tokenizer
    from tools.mini.train_autoencoder import autoencoder_config
    from tools.mini.train_diffusion import save_pipeline, unet_config

    torch.manual_seed(0)
    tokenizer = learn_tokenizer(["a", "red", "cat", "front", "side", "back", "overhead", "view"])
    vae = AutoencoderKL(**autoencoder_config((8, 16, 16)))
    vae.register_to_config(scaling_factor=0.7)
    unet = UNet2DConditionModel(**unet_config(16, (16, 32)))
    text_config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        clip_sample=False,
        steps_offset=1,
    )
    save_pipeline(folder, vae, unet, CLIPTextModel(text_config), tokenizer, scheduler)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "v")


@pytest.fixture(scope="session")
def tiny_epsilon_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "epsilon", "epsilon")


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP in which no two tensors are alike, as norms and biases of a fresh model would be."""
    from transformers import CLIPModel

    from tools.mini.tokenizer import learn_tokenizer
    from tools.mini.train_clip import clip_config, save_clip
    from tools.mini.words import corpus

    torch.manual_seed(0)
    tokenizer = learn_tokenizer(corpus())
    generator = torch.Generator().manual_seed(11)
    model = CLIPModel(clip_config(tokenizer, width=64, layers=4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    folder = tmp_path_factory.mktemp("tiny-clip")
    save_clip(model, tokenizer, folder)
    return folder
