"""A frozen latent diffusion model as score distillation sees it: encode, decode, predict, and convert predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from threestudio_redream.errors import ConfigError
from threestudio_redream.guidance.memory import MemoryConfig, apply_memory
from threestudio_redream.guidance.models import load_component
from threestudio_redream.guidance.style import StyleConfig, apply_style

__all__ = ["Guess", "LatentDiffusion"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Guess:
    """What a model says about noisy latents ``x_t = alpha z + sigma eps``.

    Attributes:
        noise, clean: ``[B, 4, h, w]`` float32 estimates of ``eps`` and of ``z``; each follows from the other.
    """

    noise: Tensor
    clean: Tensor


class LatentDiffusion:
    """Autoencoder, UNet and noise schedule of a Stable-Diffusion-like model, without gradients to its weights.

    Both kinds of prediction are understood: ``epsilon`` and ``v_prediction``. Latents are in the model's scaled units
    (``vae.config.scaling_factor`` times the autoencoder's own), as diffusers' pipelines hold them.

    Attributes:
        alphas_cumprod: ``[T]`` float32, the schedule's alpha-bar. alpha_t is its root, sigma_t the root of 1 minus it.
        downsampling: pixels of an image side per latent. style: fingerprint of the LoRA in its weights, or empty.
    """

    style: str = ""

    def __init__(self, vae: Any, unet: Any, scheduler: Any) -> None:
        self.vae, self.unet = vae, unet
        self.prediction_type = str(scheduler.config.prediction_type)
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise ConfigError(
                "This prediction type is not supported",
                received=self.prediction_type,
                fix="Use a model that predicts epsilon or v_prediction.",
            )
        self.alphas_cumprod = scheduler.alphas_cumprod.to(unet.device, torch.float32)
        self.scaling_factor = float(vae.config.scaling_factor)
        self.downsampling = 2 ** (len(vae.config.block_out_channels) - 1)

    @staticmethod
    def load(
        name: str,
        *,
        device: torch.device | str = "cpu",
        dtype: str = "float32",
        memory: MemoryConfig | Mapping[str, Any] | None = None,
        style: StyleConfig | Mapping[str, Any] | None = None,
    ) -> LatentDiffusion:
        """Open a model named as in :func:`~threestudio_redream.guidance.models.resolve_model`.

        Args:
            dtype: ``float32``, ``bfloat16`` or ``float16``, of the weights. memory: how to save memory, see
                :class:`~threestudio_redream.guidance.memory.MemoryConfig`. style: a LoRA to add, see
                :class:`~threestudio_redream.guidance.style.StyleConfig`.

        Raises:
            ConfigError: unknown dtype or kind of saving, or a part or the style cannot be loaded.
        """
        if dtype not in _DTYPES:
            raise ConfigError("Unknown weights dtype", received=dtype, fix=f"Use one of {', '.join(_DTYPES)}.")
        vae = load_component(name, "vae", "diffusers", "AutoencoderKL", torch_dtype=_DTYPES[dtype])
        unet = load_component(name, "unet", "diffusers", "UNet2DConditionModel", torch_dtype=_DTYPES[dtype])
        scheduler = load_component(name, "scheduler", "diffusers", "DDPMScheduler")
        styled = apply_style(unet, style)
        for part in (vae, unet):
            part.to(device).eval().requires_grad_(False)
        model = LatentDiffusion(vae, unet, scheduler)
        model.style = styled
        apply_memory(model, memory)
        return model

    # ------------------------------------------------------------------ pictures and latents
    def image_size(self) -> int:
        """Pixels of a side that the UNet was made for."""
        return int(self.unet.config.sample_size) * self.downsampling

    def encode(self, images: Tensor) -> Tensor:
        """Latents ``[B, 4, h, w]`` float32 of images ``[B, H, W, 3]`` in [0, 1]: the posterior mean, no noise added.

        Gradients flow to the images.
        """
        pixels = images.permute(0, 3, 1, 2).to(self.vae.dtype) * 2.0 - 1.0
        return self.vae.encode(pixels).latent_dist.mean.float() * self.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Images ``[B, H, W, 3]`` float32, clamped to [0, 1]; inverse of :meth:`encode`."""
        pixels = self.vae.decode((latents / self.scaling_factor).to(self.vae.dtype)).sample
        return (pixels.float() * 0.5 + 0.5).clamp(0.0, 1.0).permute(0, 2, 3, 1)

    def resized(self, images: Tensor, size: int | None = None) -> Tensor:
        """Images ``[B, H, W, 3]`` brought to the model's square size bilinearly, if they are not."""
        side = size or self.image_size()
        if images.shape[1:3] == (side, side):
            return images
        chw = images.permute(0, 3, 1, 2)
        return functional.interpolate(chw, (side, side), mode="bilinear", align_corners=False).permute(0, 2, 3, 1)

    # ------------------------------------------------------------------ noise
    def alpha_sigma(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t, ``[B, 1, 1, 1]`` each, for timesteps ``[B]``."""
        cumulative = self.alphas_cumprod[steps].view(-1, 1, 1, 1)
        return cumulative.sqrt(), (1.0 - cumulative).sqrt()

    def add_noise(self, latents: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        """``alpha_t z + sigma_t eps``."""
        alpha, sigma = self.alpha_sigma(steps)
        return alpha * latents + sigma * noise

    def read(self, output: Tensor, noisy: Tensor, steps: Tensor) -> Guess:
        """Turn the UNet's output into estimates of the noise and of the clean latents.

        ``v = alpha eps - sigma z`` (Salimans & Ho, 2022), hence ``eps = alpha v + sigma x_t`` and
        ``z = alpha x_t - sigma v``.
        """
        alpha, sigma = self.alpha_sigma(steps)
        output = output.float()
        if self.prediction_type == "v_prediction":
            return Guess(alpha * output + sigma * noisy, alpha * noisy - sigma * output)
        return Guess(output, (noisy - sigma * output) / alpha)

    def training_target(self, clean: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        """What the UNet should say about ``add_noise(clean, noise, steps)``: eps, or ``v = alpha eps - sigma z``."""
        if self.prediction_type == "epsilon":
            return noise
        alpha, sigma = self.alpha_sigma(steps)
        return alpha * noise - sigma * clean

    def predict(self, noisy: Tensor, steps: Tensor, context: Tensor, unet: Callable[..., Any] | None = None) -> Tensor:
        """Raw UNet output ``[B, 4, h, w]`` float32 for text embeddings ``[B, N, F]``; another ``unet`` may be given.

        The embeddings may be on another device: a text encoder can stay on the CPU.
        """
        model = self.unet if unet is None else unet
        dtype = self.unet.dtype
        return model(noisy.to(dtype), steps, encoder_hidden_states=context.to(noisy.device, dtype)).sample.float()

    def guided(self, noisy: Tensor, steps: Tensor, embeddings: Tensor, scale: float) -> Guess:
        """Classifier-free guidance (Ho & Salimans, 2022): ``u + scale (c - u)``.

        Args:
            noisy: ``[B, 4, h, w]``. steps: ``[B]`` int64. embeddings: ``[2B, N, F]``, conditional ones first.
            scale: 1 is the conditional prediction alone.
        """
        with torch.no_grad():
            output = self.predict(noisy.repeat(2, 1, 1, 1), steps.repeat(2), embeddings)
        conditional, unconditional = output.chunk(2)
        return self.read(unconditional + scale * (conditional - unconditional), noisy, steps)
