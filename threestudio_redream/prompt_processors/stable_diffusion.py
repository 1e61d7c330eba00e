"""``redream-stable-diffusion-prompt-processor``: text embeddings of a Stable-Diffusion-like model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from threestudio_redream.errors import ConfigError
from threestudio_redream.guidance.models import load_component, resolve_model
from threestudio_redream.runtime import PromptProcessor, register
from threestudio_redream.runtime.prompt_processors.cache import fingerprint_path

__all__ = ["StableDiffusionPromptProcessor"]


@register("redream-stable-diffusion-prompt-processor")
class StableDiffusionPromptProcessor(PromptProcessor):
    """Encodes prompts with the model's own CLIP text encoder, which is freed afterwards.

    Keys: those of :class:`~threestudio_redream.runtime.PromptProcessor`; ``pretrained_model_name_or_path`` may be
    ``mini``.
    """

    @dataclass
    class Config(PromptProcessor.Config):
        pretrained_model_name_or_path: str = "mini"

    cfg: Config

    def model_fingerprint(self) -> str:
        return f"text-encoder:{fingerprint_path(resolve_model(self.cfg.pretrained_model_name_or_path))}"

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Tensor:
        """``[len(prompts), N, F]`` float32 last hidden states, padded to the tokenizer's full length.

        Raises:
            ConfigError: tokenizer and text encoder do not belong together.
        """
        model = resolve_model(self.cfg.pretrained_model_name_or_path)
        tokenizer = load_component(model, "tokenizer", "transformers", "CLIPTokenizer")
        encoder = load_component(model, "text_encoder", "transformers", "CLIPTextModel", torch_dtype=torch.float32)
        if len(tokenizer) > encoder.config.vocab_size:
            raise ConfigError(
                "The tokenizer has more tokens than the text encoder",
                received=(len(tokenizer), encoder.config.vocab_size),
                fix="Use the tokenizer that was saved with the model.",
            )
        tokens = tokenizer(
            prompts,
            padding="max_length",
            truncation=True,
            max_length=min(tokenizer.model_max_length, encoder.config.max_position_embeddings),
            return_tensors="pt",
        )
        encoder = encoder.to(self.device).eval()
        return encoder(tokens["input_ids"].to(self.device))[0].float().cpu()
