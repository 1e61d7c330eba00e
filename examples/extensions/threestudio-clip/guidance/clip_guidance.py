"""``clip-similarity-guidance``: one minus the cosine between a render and the prompt, in CLIP's space."""

from dataclasses import dataclass

import threestudio
import torch
import torch.nn.functional as F
from threestudio.utils.base import BaseObject
from threestudio.utils.misc import C, cleanup, enable_gradient
from threestudio.utils.typing import Any, Float, Tensor


@threestudio.register("clip-similarity-guidance")
class CLIPSimilarityGuidance(BaseObject):
    """Pulls renders towards the prompt (dream fields, Jain et al., 2022).

    Keys:
        pretrained_model_name_or_path: a CLIP model of transformers, by folder or hub id.
        strength: factor of the loss, scheduled. margin: share of the picture that random crops may leave out.
    """

    @dataclass
    class Config(BaseObject.Config):
        pretrained_model_name_or_path: str = "openai/clip-vit-base-patch32"
        strength: Any = 1.0
        margin: float = 0.1

    cfg: Config

    def configure(self) -> None:
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel  # heavy: only where it is used

        name = self.cfg.pretrained_model_name_or_path
        threestudio.info(f"Loading CLIP from {name}")
        self.model = CLIPModel.from_pretrained(name).to(self.device).eval()
        enable_gradient(self.model, False)
        self.tokenizer = AutoTokenizer.from_pretrained(name)
        pixels = CLIPImageProcessor.from_pretrained(name)
        self.mean = torch.tensor(pixels.image_mean, device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(pixels.image_std, device=self.device).view(1, 3, 1, 1)
        self.texts: dict[str, Tensor] = {}
        self.strength = 0.0
        cleanup()

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        self.strength = C(self.cfg.strength, epoch, global_step)

    @torch.no_grad()
    def text(self, prompt: str) -> Float[Tensor, "1 D"]:
        if prompt not in self.texts:
            tokens = self.tokenizer(prompt, truncation=True, return_tensors="pt").to(self.device)
            pooled = self.model.text_model(**tokens).pooler_output
            self.texts[prompt] = F.normalize(self.model.text_projection(pooled), dim=-1)
        return self.texts[prompt]

    def images(self, rgb: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B D"]:
        side = self.model.config.vision_config.image_size
        crop = rgb.permute(0, 3, 1, 2)
        for axis in (2, 3):
            spare = int(self.cfg.margin * crop.shape[axis])
            crop = crop.narrow(axis, int(torch.randint(0, spare + 1, ())), crop.shape[axis] - spare)
        pixels = F.interpolate(crop, (side, side), mode="bilinear", align_corners=False, antialias=True)
        pooled = self.model.vision_model(pixel_values=(pixels - self.mean) / self.std).pooler_output
        return F.normalize(self.model.visual_projection(pooled), dim=-1)

    def __call__(self, rgb, prompt_utils, rgb_as_latents: bool = False, **kwargs) -> dict[str, Any]:
        if rgb_as_latents:
            raise ValueError("clip-similarity-guidance looks at pictures, not at latents; use rgb_as_latents=False")
        similarity = self.images(rgb) @ self.text(prompt_utils.prompt).T
        return {"loss_clip": self.strength * (1.0 - similarity).mean(), "similarity": similarity.mean().item()}
