"""``redream-vsd-guidance``: Variational Score Distillation (Wang et al., 2023, ProlificDreamer)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from threestudio_redream.errors import ConfigError
from threestudio_redream.guidance.adapters import SwitchedUNet
from threestudio_redream.guidance.conditioning import Condition, GuidanceScales, condition_of, guided
from threestudio_redream.guidance.half_precision import GradientScale
from threestudio_redream.guidance.latent_diffusion import LatentDiffusion
from threestudio_redream.guidance.losses import check_gradient, decoded_target, image_loss, pixel_loss, timestep_weight
from threestudio_redream.runtime import BaseModule, register
from threestudio_redream.runtime.guidance.base import GuidanceClock, clip_gradient, sds_loss

__all__ = ["Question", "VSDGuidance"]

PARTICLES = "particles"
CAMERAS = ("extrinsics", "none")


@dataclass(frozen=True)
class Question:
    """What the models are asked about a batch of latents.

    Attributes:
        steps: ``[B]`` int64 timesteps. noise: ``[B, 4, h, w]``.
        views: the prompts with view words. plain: ``[B, N, F]`` embeddings without.
        camera: ``[B, 16]`` flattened camera-to-world matrices, or None.
    """

    steps: Tensor
    noise: Tensor
    views: Condition
    plain: Tensor
    camera: Tensor | None

    def twice(self) -> Question:
        """The same question about two batches of latents, one after the other."""
        return Question(
            self.steps.repeat(2),
            self.noise.repeat(2, 1, 1, 1),
            self.views.twice(),
            self.plain.repeat(2, 1, 1),
            None if self.camera is None else self.camera.repeat(2, 1),
        )


class CameraEmbedding(nn.Module):
    """Two linear layers from a flattened camera ``[B, 16]`` to the time embedding ``[B, width]``.

    The last one starts at 0, so that the model starts as the pretrained one.
    """

    def __init__(self, width: int, seed: int = 0) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, width), nn.Linear(width, width)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.first.weight.copy_(torch.randn(self.first.weight.shape, generator=generator) * 0.25)
            for zero in (self.first.bias, self.last.weight, self.last.bias):
                zero.zero_()

    def forward(self, camera: Tensor) -> Tensor:
        return self.last(functional.silu(self.first(camera)))


@register("redream-vsd-guidance")
class VSDGuidance(GuidanceScales, GuidanceClock, BaseModule):
    """VSD on renders.

    The gradient on latents is ``w(t) (eps_target - eps_particles)``: the pretrained model with classifier-free
    guidance and view words, against a LoRA of it that follows the renders, told the camera and not the view words.
    That LoRA is trained by ``loss_lora`` beside it, on all timesteps.

    Keys:
        pretrained_model_name_or_path: ``mini``, a folder, or a hub id. weights_dtype: float32, bfloat16, float16.
        particle_model_name_or_path: another model for the LoRA; by default both share one UNet. It needs the same
            latents and text embeddings.
        guidance_scale: of the target, scheduled; 7.5 is usual for Stable Diffusion, 2 to 4 for the mini model.
        view_guidance_scale: of the view words alone, scheduled; None weighs them as the rest of the prompt. More
            helps a model that hardly heeds them, and costs one more answer per picture. ``redream-system`` lets it act
            only while it has assets.
        guidance_scale_lora: of the camera in the particles' model, whose other answer has the prompt and no camera; 1
            is published, less adds the entropy of views (ESD, Wang et al., 2024).
        gradient: ``encoder`` or ``decoder``; see :mod:`threestudio_redream.guidance.losses`.
        weighting: of timesteps, see :func:`~threestudio_redream.guidance.losses.timestep_weight`.
        lora_rank, lora_alpha: of the particles' LoRA. lora_samples: noisy copies of a render in ``loss_lora``.
        camera_condition: ``extrinsics`` (the camera-to-world matrix) or ``none``.
        camera_dropout: share of pictures whose camera is hidden in ``loss_lora``.
        image_loss: also return ``loss_image``, see :func:`~threestudio_redream.guidance.losses.image_loss`.
        memory: see :class:`~threestudio_redream.guidance.memory.MemoryConfig`.
        style: see :class:`~threestudio_redream.guidance.style.StyleConfig`.
        one_call: ask for both scores in one call of the UNet, which is faster where a call is small; separate calls
            need less memory.
        min_step_percent, max_step_percent: scheduled range of timesteps, as shares of the schedule.
        grad_clip: scheduled limit of every element of the gradient; None is no limit.
        sqrt_anneal: one timestep that falls with the root of progress, from ``max_step_percent`` at step 0 to
            ``min_step_percent`` at step ``trainer_max_steps`` (HiFA). trainer_max_steps: read by ``sqrt_anneal`` alone.
        view_dependent_prompting: choose the prompt by the camera's direction.
        seed: of the first weights of the LoRA and of the camera embedding.
    """

    @dataclass
    class Config(BaseModule.Config):
        pretrained_model_name_or_path: str = "mini"
        particle_model_name_or_path: str | None = None
        weights_dtype: str = "float32"
        guidance_scale: Any = 7.5
        view_guidance_scale: Any = None
        guidance_scale_lora: float = 1.0
        gradient: str = "encoder"
        weighting: str = "sds"
        lora_rank: int = 4
        lora_alpha: float | None = None
        lora_samples: int = 1
        camera_condition: str = "extrinsics"
        camera_dropout: float = 0.1
        image_loss: bool = False
        memory: dict = field(default_factory=dict)
        style: dict = field(default_factory=dict)
        one_call: bool = True
        min_step_percent: Any = 0.02
        max_step_percent: Any = 0.98
        grad_clip: Any = None
        sqrt_anneal: bool = False
        trainer_max_steps: int = 25000
        view_dependent_prompting: bool = True
        seed: int = 0

    cfg: Config

    def configure(self) -> None:
        cfg = self.cfg
        check_gradient(cfg.gradient)
        timestep_weight(torch.ones(1), torch.ones(1), cfg.weighting)
        if cfg.camera_condition not in CAMERAS:
            raise ConfigError(
                "Unknown camera condition", received=cfg.camera_condition, fix=f"Use one of {', '.join(CAMERAS)}."
            )
        if not 0.0 <= cfg.camera_dropout <= 1.0 or cfg.lora_samples < 1:
            raise ConfigError(
                "camera_dropout must be in [0, 1] and lora_samples 1 or more",
                received=(cfg.camera_dropout, cfg.lora_samples),
                fix="0.1 and 1 are usual.",
            )
        self.model = LatentDiffusion.load(
            cfg.pretrained_model_name_or_path,
            device=self.device,
            dtype=cfg.weights_dtype,
            memory=cfg.memory,
            style=cfg.style,
        )
        self.switched = SwitchedUNet(self.model.unet)
        self.particle_model, self.particle_switched = self.model, self.switched
        if cfg.particle_model_name_or_path is not None:
            name = cfg.particle_model_name_or_path
            self.particle_model = LatentDiffusion.load(
                name, device=self.device, dtype=cfg.weights_dtype, memory=cfg.memory, style=cfg.style
            )
            self.particle_switched = SwitchedUNet(self.particle_model.unet)
        weights = self.particle_switched.add(PARTICLES, rank=cfg.lora_rank, alpha=cfg.lora_alpha, seed=cfg.seed)
        # Only these are parameters of this module: checkpoints hold a few megabytes, not Stable Diffusion.
        self.lora = nn.ParameterDict({name.replace(".", "|"): weight for name, weight in weights.items()})
        self.camera_embedding: nn.Module | None = None
        if cfg.camera_condition == "extrinsics":
            self.camera_embedding = CameraEmbedding(self.particle_switched.time_width, seed=cfg.seed).to(self.device)
        learning = [*self.lora.values(), *(self.camera_embedding.parameters() if self.camera_embedding else ())]
        self._scale = GradientScale(self.particle_model.unet.dtype, learning)
        self.set_num_train_timesteps(len(self.model.alphas_cumprod))
        self.set_guidance_scales()

    def loss_names(self) -> tuple[str, ...]:
        """Terms that ``system.loss`` needs weights for."""
        return ("vsd", "lora", "image") if self.cfg.image_loss else ("vsd", "lora")

    def forward(
        self,
        rgb: Tensor,
        prompt_utils: Any,
        elevation: Tensor,
        azimuth: Tensor,
        camera_distances: Tensor,
        c2w: Tensor | None = None,
        rgb_as_latents: bool = False,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Losses on a batch of renders.

        Args:
            rgb: ``[B, H, W, 3]`` in [0, 1], any size; with ``rgb_as_latents`` latents ``[B, h, w, 4]``.
            elevation, azimuth: ``[B]`` degrees. camera_distances: ``[B]`` world units.
            c2w: ``[B, 4, 4]`` camera to world; needed with ``camera_condition: extrinsics``.
            generator: source of timesteps and noise, on the CPU; without one torch's global one.

        Returns:
            ``loss_vsd`` (its gradient is the distillation gradient, mean over the batch), ``loss_lora``, maybe
            ``loss_image``, ``grad_norm``, ``min_step``, ``max_step``.

        Raises:
            ConfigError: the camera is needed and missing.
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
        question = Question(
            steps,
            noise,
            condition_of(prompt_utils, where, self.cfg.view_dependent_prompting, self.view_guidance_scale),
            prompt_utils.get_text_embeddings(*where, False).chunk(2)[0],
            self._camera(c2w, count),
        )
        alpha, sigma = self.model.alpha_sigma(steps)
        weight = timestep_weight(alpha, sigma, self.cfg.weighting)
        with torch.no_grad():
            grad = clip_gradient(weight * self.residual(latents.detach(), question, kwargs), self.grad_clip_val)
        if images is not None and self.cfg.gradient == "decoder":
            shift = grad * sigma / (weight * alpha).clamp(min=1e-4)
            target = decoded_target(self.model, images, latents, shift)
            loss = pixel_loss(images, target, weight * alpha / sigma, self.model.downsampling)
        else:
            loss = sds_loss(latents, grad)
        more: dict[str, Any] = {}
        if images is not None and self.cfg.image_loss:
            more["loss_image"] = image_loss(self.model, images, latents, grad, weight, alpha, sigma)
        return {
            "loss_vsd": loss,
            **more,
            "loss_lora": self.lora_loss(latents.detach(), question, generator),
            "grad_norm": grad.norm(),
            "min_step": self.min_step,
            "max_step": self.max_step,
        }

    # ------------------------------------------------------------------ the two scores
    def residual(self, latents: Tensor, question: Question, extra: dict[str, Any]) -> Tensor:
        """``eps_target - eps_particles`` of noised latents ``[B, 4, h, w]``. ``extra``: the rest of the batch."""
        if self.cfg.one_call and self.particle_switched is self.switched:
            return self._residual_at_once(latents, question)
        return self.target_noise(latents, question) - self.particle_noise(latents, question)

    def target_scales(self, question: Question) -> dict[str, Tensor]:
        """Adapters of the target and how strongly each acts on each picture, ``[B]``. None here; override."""
        return {}

    @torch.no_grad()
    def target_noise(self, latents: Tensor, question: Question) -> Tensor:
        """The target's guided noise estimate; its adapters act on all branches of the guidance."""
        noisy = self.model.add_noise(latents, question.noise, question.steps)
        scales = {name: scale.repeat(question.views.blocks) for name, scale in self.target_scales(question).items()}
        with self.switched.using(*scales, scale=scales):
            return guided(self.model, noisy, question.steps, question.views, self.guidance_scale).noise

    @torch.no_grad()
    def particle_noise(self, latents: Tensor, question: Question) -> Tensor:
        """The noise estimate of the model that follows the renders."""
        model, steps = self.particle_model, question.steps
        noisy = model.add_noise(latents, question.noise, steps)
        output = self._particle_output(noisy, steps, question.plain, question.camera)
        if self.cfg.guidance_scale_lora != 1.0:
            hidden = None if question.camera is None else torch.zeros_like(question.camera)
            without = self._particle_output(noisy, steps, question.plain, hidden)
            output = without + self.cfg.guidance_scale_lora * (output - without)
        return model.read(output, noisy, steps).noise

    @torch.no_grad()
    def _residual_at_once(self, latents: Tensor, question: Question) -> Tensor:
        """:meth:`target_noise` less :meth:`particle_noise` from one call: each picture has its own adapters."""
        model, steps, free = self.model, question.steps, self.cfg.guidance_scale_lora != 1.0
        noisy = model.add_noise(latents, question.noise, steps)
        plain = [question.plain] * (2 if free else 1)
        contexts, blocks = torch.cat([question.views.embeddings, *plain]), question.views.blocks
        count, copies = len(latents), len(contexts) // len(latents)
        acts = torch.zeros(copies, 1, device=latents.device)
        acts[blocks:] = 1.0
        scales = {PARTICLES: acts.expand(-1, count).flatten()}
        for name, scale in self.target_scales(question).items():
            scales[name] = ((1.0 - acts) * scale).flatten()
        time: Tensor | None = None
        if question.camera is not None and self.camera_embedding is not None:
            seen = self.camera_embedding(question.camera)
            hidden = [self.camera_embedding(torch.zeros_like(question.camera))] if free else []
            time = torch.cat([torch.zeros_like(seen)] * blocks + [seen] + hidden)
        with self.switched.using(*scales, scale=scales, time=time):
            output = model.predict(noisy.repeat(copies, 1, 1, 1), steps.repeat(copies), contexts)
        target = question.views.combine(output[: blocks * count], self.guidance_scale)
        follows, *rest = output[blocks * count :].split(count)
        if rest:
            follows = rest[0] + self.cfg.guidance_scale_lora * (follows - rest[0])
        return model.read(target, noisy, steps).noise - model.read(follows, noisy, steps).noise

    def lora_loss(self, latents: Tensor, question: Question, generator: torch.Generator | None = None) -> Tensor:
        """Denoising error of the particles' LoRA on constant latents ``[B, 4, h, w]``, in its own prediction type."""
        model, copies = self.particle_model, self.cfg.lora_samples
        clean = latents.repeat(copies, 1, 1, 1)
        count = len(clean)
        steps = torch.randint(0, len(model.alphas_cumprod), (count,), generator=generator).to(clean.device)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        noisy = model.add_noise(clean, noise, steps)
        wanted = model.training_target(clean, noise, steps)
        context, camera = question.plain.repeat(copies, 1, 1), None
        if question.camera is not None:
            shown = torch.rand(count, 1, generator=generator).to(clean) >= self.cfg.camera_dropout
            camera = question.camera.repeat(copies, 1) * shown
        output = self._scale(self._particle_output(noisy, steps, context, camera))
        return functional.mse_loss(output, wanted)

    def _particle_output(self, noisy: Tensor, steps: Tensor, context: Tensor, camera: Tensor | None) -> Tensor:
        time = None if camera is None or self.camera_embedding is None else self.camera_embedding(camera)
        with self.particle_switched.using(PARTICLES, time=time):
            return self.particle_model.predict(noisy, steps, context)

    def _camera(self, c2w: Tensor | None, count: int) -> Tensor | None:
        if self.camera_embedding is None:
            return None
        if c2w is None or tuple(c2w.shape) != (count, 4, 4):
            raise ConfigError(
                "The guidance needs the cameras as c2w [B, 4, 4]",
                received=None if c2w is None else tuple(c2w.shape),
                fix="Pass the whole batch to the guidance, or set camera_condition: none.",
            )
        return c2w.flatten(1).float()
