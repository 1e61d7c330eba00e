"""``redream-sds-guidance``: Score Distillation Sampling (Poole et al., 2022) with a latent diffusion model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from threestudio_redream.guidance.conditioning import GuidanceScales, condition_of, guided
from threestudio_redream.guidance.latent_diffusion import LatentDiffusion
from threestudio_redream.guidance.losses import check_gradient, image_loss, pixel_loss, timestep_weight
from threestudio_redream.runtime import BaseObject, register
from threestudio_redream.runtime.guidance.base import GuidanceClock, sds_loss

__all__ = ["SDSGuidance"]


@register("redream-sds-guidance")
class SDSGuidance(GuidanceScales, GuidanceClock, BaseObject):
    """SDS on renders.

    Keys:
        pretrained_model_name_or_path: ``mini``, a folder, or a hub id. weights_dtype: float32, bfloat16, float16.
        guidance_scale: of classifier-free guidance, scheduled; 100 is usual for Stable Diffusion, 4 to 7 for the mini
            model.
        view_guidance_scale: of the view words alone, scheduled; None weighs them as the rest of the prompt.
        gradient: how the residual reaches the render. ``encoder``: through the autoencoder's encoder, as published.
            ``decoder``: towards the decoded estimate of the clean picture, with the weight that the latent form has,
            ``w(t) alpha_t / sigma_t``; robust where the encoder has never seen pictures like early renders.
        weighting: see :func:`timestep_weight`. image_loss: also return ``loss_image``, see :func:`image_loss`.
        memory: see :class:`~threestudio_redream.guidance.memory.MemoryConfig`.
        style: see :class:`~threestudio_redream.guidance.style.StyleConfig`.
        min_step_percent, max_step_percent: scheduled range of timesteps, as shares of the schedule.
        grad_clip: scheduled limit of every element of the gradient; None is no limit.
        sqrt_anneal: one timestep that falls with the root of progress, from ``max_step_percent`` at step 0 to
            ``min_step_percent`` at step ``trainer_max_steps`` (HiFA). trainer_max_steps: read by ``sqrt_anneal`` alone.
        view_dependent_prompting: choose the prompt by the camera's direction.
    """

    @dataclass
    class Config(BaseObject.Config):
        pretrained_model_name_or_path: str = "mini"
        weights_dtype: str = "float32"
        guidance_scale: Any = 5.0
        view_guidance_scale: Any = None
        gradient: str = "encoder"
        weighting: str = "sds"
        image_loss: bool = False
        memory: dict = field(default_factory=dict)
        style: dict = field(default_factory=dict)
        min_step_percent: Any = 0.02
        max_step_percent: Any = 0.98
        grad_clip: Any = None
        sqrt_anneal: bool = False
        trainer_max_steps: int = 25000
        view_dependent_prompting: bool = True

    cfg: Config

    def configure(self) -> None:
        check_gradient(self.cfg.gradient)
        self.model = LatentDiffusion.load(
            self.cfg.pretrained_model_name_or_path,
            device=self.device,
            dtype=self.cfg.weights_dtype,
            memory=self.cfg.memory,
            style=self.cfg.style,
        )
        timestep_weight(torch.ones(1), torch.ones(1), self.cfg.weighting)
        self.set_num_train_timesteps(len(self.model.alphas_cumprod))
        self.set_guidance_scales()

    def loss_names(self) -> tuple[str, ...]:
        """Terms that ``system.loss`` needs weights for."""
        return ("sds", "image") if self.cfg.image_loss else ("sds",)

    def __call__(
        self,
        rgb: Tensor,
        prompt_utils: Any,
        elevation: Tensor,
        azimuth: Tensor,
        camera_distances: Tensor,
        rgb_as_latents: bool = False,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Loss on a batch of renders.

        Args:
            rgb: ``[B, H, W, 3]`` in [0, 1], any size; with ``rgb_as_latents`` latents ``[B, h, w, 4]``.
            elevation, azimuth: ``[B]`` degrees. camera_distances: ``[B]`` world units.
            generator: source of timesteps and noise, on the CPU; without one torch's global one.

        Returns:
            ``loss_sds`` (scalar whose gradient is the distillation gradient, mean over the batch), maybe
            ``loss_image``, ``grad_norm``, ``min_step``, ``max_step``.
        """
        images = None
        if rgb_as_latents:
            latents = rgb.permute(0, 3, 1, 2)
        else:
            images = self.model.resized(rgb)
            with torch.set_grad_enabled(self.cfg.gradient == "encoder"):
                latents = self.model.encode(images)
        count = latents.shape[0]
        steps = self.sample_timesteps(count, "cpu", generator).to(latents.device)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        where = (elevation, azimuth, camera_distances)
        condition = condition_of(prompt_utils, where, self.cfg.view_dependent_prompting, self.view_guidance_scale)
        alpha, sigma = self.model.alpha_sigma(steps)
        weight = timestep_weight(alpha, sigma, self.cfg.weighting)
        with torch.no_grad():
            noisy = self.model.add_noise(latents, noise, steps)
            guess = guided(self.model, noisy, steps, condition, self.guidance_scale)
            grad = weight * (guess.noise - noise)
            if self.grad_clip_val is not None:
                grad = grad.clamp(-self.grad_clip_val, self.grad_clip_val)
        if images is not None and self.cfg.gradient == "decoder":
            # eps_hat - eps = (alpha / sigma) (z - z_hat): the latent gradient as a pull towards z_hat.
            with torch.no_grad():
                target = self.model.decode(latents - grad * sigma / (weight * alpha).clamp(min=1e-4))
            loss = pixel_loss(images, target, weight * alpha / sigma, self.model.downsampling)
        else:
            loss = sds_loss(latents, grad)
        more: dict[str, Any] = {}
        if images is not None and self.cfg.image_loss:
            more["loss_image"] = image_loss(self.model, images, latents, grad, weight, alpha, sigma)
        return {
            "loss_sds": loss,
            **more,
            "grad_norm": grad.norm(),
            "min_step": self.min_step,
            "max_step": self.max_step,
        }
