"""``redream-stable-diffusion-prompt-processor``: text embeddings of a Stable-Diffusion-like model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from threestudio_redream.adaptation.view_tokens import TokenizedEncoder, load_view_tokens, view_phrase
from threestudio_redream.guidance.models import load_component, resolve_model
from threestudio_redream.runtime import PromptProcessor, register
from threestudio_redream.runtime.prompt_processors.cache import fingerprint_path, fingerprint_tensors

__all__ = ["StableDiffusionPromptProcessor"]


@register("redream-stable-diffusion-prompt-processor")
class StableDiffusionPromptProcessor(PromptProcessor):
    """Encodes prompts with the model's own CLIP text encoder, which is freed afterwards.

    With view tokens, the prompts by direction are ``X, <front> view`` and so on, X being debiased if that is asked for,
    unless they are given one by one.

    Keys beside those of :class:`~threestudio_redream.runtime.PromptProcessor`:
        pretrained_model_name_or_path: as for the guidance, see :mod:`threestudio_redream.guidance.models`.
        view_tokens: folder of learned view tokens, see :mod:`threestudio_redream.adaptation.view_tokens`.
        encoder_device: where the text encoder works while it is open, e.g. ``cpu`` to spare a small GPU 1.4 GB of
            Stable Diffusion 2 (slower adaptation); empty is the run's device.
    """

    @dataclass
    class Config(PromptProcessor.Config):
        pretrained_model_name_or_path: str = "mini"
        view_tokens: str | None = None
        encoder_device: str = ""

    cfg: Config

    def configure(self) -> None:
        self._tokens = None if self.cfg.view_tokens is None else load_view_tokens(Path(self.cfg.view_tokens))
        super().configure()

    def use_view_tokens(self, tokens: Mapping[str, Tensor] | None) -> None:
        """Take other view tokens (view to ``[F]``), or none, and embed the prompts anew."""
        self._tokens = None if tokens is None else dict(tokens)
        self.prompts_vd = self._view_prompts()
        self.load_text_embeddings()

    def model_fingerprint(self) -> str:
        model = f"text-encoder:{fingerprint_path(resolve_model(self.cfg.pretrained_model_name_or_path))}"
        return model if self._tokens is None else f"{model}:{fingerprint_tensors(self._tokens)}"

    def open_encoder(self) -> TokenizedEncoder:
        """The model's text encoder with the view tokens, on ``encoder_device``.

        Raises:
            ConfigError: tokenizer and text encoder do not belong together, or the view tokens are another model's.
        """
        model = self.cfg.pretrained_model_name_or_path
        tokenizer = load_component(model, "tokenizer", "transformers", "CLIPTokenizer")
        encoder = load_component(model, "text_encoder", "transformers", "CLIPTextModel", torch_dtype=torch.float32)
        opened = TokenizedEncoder(tokenizer, encoder)
        if self._tokens is not None:
            opened.set_vectors(self._tokens)
        return opened.to(self.cfg.encoder_device or self.device)

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Tensor:
        """``[len(prompts), N, F]`` float32 last hidden states, padded to the tokenizer's full length."""
        return self.open_encoder()(prompts).cpu()

    def _view_prompts(self) -> list[str]:
        if self._tokens is None:
            return super()._view_prompts()
        given = [getattr(self.cfg, f"prompt_{view}") for view in self.direction2idx]
        texts = self._texts_by_direction()
        return [text or view_phrase(plain, view) for text, plain, view in zip(given, texts, self.direction2idx)]
