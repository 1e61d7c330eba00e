"""A LoRA of somebody's style in a model's weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from threestudio_redream.errors import ConfigError
from threestudio_redream.guidance.adapters import SwitchedUNet
from threestudio_redream.guidance.latent_diffusion import LatentDiffusion


@pytest.fixture
def style(tiny_model, tmp_path):
    """A trained-looking LoRA in a file as diffusers writes it, and the UNet's answer with it as an adapter."""
    from diffusers.loaders import StableDiffusionLoraLoaderMixin

    model = LatentDiffusion.load(str(tiny_model))
    switched = SwitchedUNet(model.unet)
    weights = switched.add("style", rank=3, seed=5)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in weights.values():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    named = {name.replace(".default", "").replace(".style", ""): weight for name, weight in weights.items()}
    StableDiffusionLoraLoaderMixin.save_lora_weights(tmp_path, unet_lora_layers=named, safe_serialization=True)
    with switched.using("style"):
        wanted = answer(model)
    return tmp_path / "pytorch_lora_weights.safetensors", wanted


def answer(model):
    generator = torch.Generator().manual_seed(0)
    side, width = model.unet.config.sample_size, model.unet.config.cross_attention_dim
    noisy, text = torch.randn(2, 4, side, side, generator=generator), torch.randn(2, 7, width, generator=generator)
    with torch.no_grad():
        return model.predict(noisy, torch.tensor([500, 20]), text)


def test_it_does_what_the_adapter_did_and_leaves_nothing_behind(tiny_model, style):
    path, wanted = style
    plain = LatentDiffusion.load(str(tiny_model))
    styled = LatentDiffusion.load(str(tiny_model), style={"path": str(path)})
    torch.testing.assert_close(answer(styled), wanted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(answer(plain), wanted, atol=1e-3)
    assert {name for name, _ in styled.unet.named_parameters()} == {name for name, _ in plain.unet.named_parameters()}
    assert not any(weight.requires_grad for weight in styled.unet.parameters())
    folder = LatentDiffusion.load(str(tiny_model), style={"path": str(path.parent), "scale": 0.0})
    torch.testing.assert_close(answer(folder), answer(plain))
    assert styled.style
    assert plain.style == ""
    assert folder.style != styled.style


def test_adapters_work_over_it(tiny_model, style):
    path, wanted = style
    styled = LatentDiffusion.load(str(tiny_model), style={"path": str(path)})
    switched = SwitchedUNet(styled.unet)
    weights = switched.add("views", rank=2)
    with torch.no_grad():
        for weight in weights.values():
            weight.fill_(0.05)
    torch.testing.assert_close(answer(styled), wanted, rtol=1e-4, atol=1e-5)
    with switched.using("views"):
        assert not torch.allclose(answer(styled), wanted, atol=1e-4)


def test_what_is_no_style_is_refused(tiny_model, style, tmp_path):
    path, _ = style
    (tmp_path / "style.pt").write_bytes(b"x")
    save_file({"text_encoder.x.lora_A.weight": torch.zeros(2, 2)}, tmp_path / "text.safetensors")
    wide = {name: torch.zeros(weight.shape[0], 999) for name, weight in load_file(path).items()}
    save_file(wide, tmp_path / "wide.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    for name, said in (
        ("style.pt", "must be a safetensors file"),
        ("text.safetensors", "nothing for the UNet"),
        ("wide.safetensors", "does not fit this model"),
        ("damaged.safetensors", "cannot be opened"),
    ):
        with pytest.raises(ConfigError, match=said) as error:
            LatentDiffusion.load(str(tiny_model), style={"path": str(tmp_path / name)})
        assert error.value.fix
    with pytest.raises(ConfigError, match="strength"):
        LatentDiffusion.load(str(tiny_model), style={"path": str(path), "strength": 1.0})
