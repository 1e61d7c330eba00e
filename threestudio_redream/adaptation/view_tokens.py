"""Learned tokens for view words: ``<front> view`` instead of ``front view`` (Seo et al., 2024, section 4.4).

The text encoder stays as it is; only the input embeddings of four new tokens are trained, starting as those of the
words they stand for. They are shared by all captions, so what they learn about "back" on renders of an asset holds for
the user's prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from threestudio_redream.errors import CheckpointError, ConfigError
from threestudio_redream.runtime.files import atomic_path

__all__ = ["VIEWS", "TokenizedEncoder", "load_view_tokens", "save_view_tokens", "view_phrase"]

#: In the order of :func:`~threestudio_redream.runtime.prompt_processors.directions.view_directions`.
VIEWS = ("side", "front", "back", "overhead")
MAX_FILE_BYTES = 2**20


def view_phrase(caption: str, view: str) -> str:
    """The caption with the learned token of a view: ``a red cat, <back> view``."""
    return f"{caption}, <{view}> view"


class TokenizedEncoder(nn.Module):
    """A frozen CLIP text encoder that knows the view tokens.

    Attributes:
        vectors: ``[4, F]`` float32, the trainable input embeddings, in the order of ``VIEWS``.

    Args:
        tokenizer: a ``CLIPTokenizer``; the new tokens are added to it. encoder: a ``CLIPTextModel``, not resized.

    Raises:
        ConfigError: the tokenizer has more tokens than the text encoder, or a view token already.
    """

    def __init__(self, tokenizer: Any, encoder: Any) -> None:
        super().__init__()
        self._vocabulary = int(encoder.config.vocab_size)
        if len(tokenizer) > self._vocabulary:
            raise ConfigError(
                "The tokenizer has more tokens than the text encoder",
                received=(len(tokenizer), self._vocabulary),
                fix="Use the tokenizer that was saved with the model.",
            )
        table = encoder.get_input_embeddings()
        with torch.no_grad():
            start = torch.stack([table.weight[self._ids_of(tokenizer, view)].mean(0) for view in VIEWS])
        names = [f"<{view}>" for view in VIEWS]
        if tokenizer.add_tokens(names) != len(names):
            raise ConfigError("The tokenizer has view tokens already", received=names, fix="Load it anew.")
        self._new = torch.tensor(tokenizer.convert_tokens_to_ids(names))
        self.tokenizer, self.encoder = tokenizer, encoder.eval().requires_grad_(False)
        self.vectors = nn.Parameter(start.float())
        self._asked = torch.zeros(0, dtype=torch.long)
        # The table is not enlarged: ids beyond it are looked up as 0 and then replaced.
        table.register_forward_pre_hook(self._hide)
        table.register_forward_hook(self._replace)

    def forward(self, prompts: Sequence[str]) -> Tensor:
        """``[len(prompts), N, F]`` float32 last hidden states; gradients reach ``vectors``."""
        length = min(self.tokenizer.model_max_length, self.encoder.config.max_position_embeddings)
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        return self.encoder(tokens["input_ids"].to(self.vectors.device))[0].float()

    def set_vectors(self, vectors: Mapping[str, Tensor]) -> None:
        """Take the embeddings of :func:`load_view_tokens`.

        Raises:
            ConfigError: views or width differ.
        """
        wrong = {view: tuple(value.shape) for view, value in vectors.items() if value.shape != self.vectors[0].shape}
        if wrong or set(vectors) != set(VIEWS):
            raise ConfigError(
                f"View tokens need one embedding of {self.vectors.shape[1]} numbers for each of {VIEWS}",
                received=wrong or sorted(vectors),
                fix="Use tokens that were trained with this model.",
            )
        with torch.no_grad():
            self.vectors.copy_(torch.stack([vectors[view] for view in VIEWS]))

    @staticmethod
    def _ids_of(tokenizer: Any, word: str) -> list[int]:
        return list(tokenizer(word, add_special_tokens=False)["input_ids"])

    def _hide(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self._asked = inputs[0]
        return (inputs[0].masked_fill(inputs[0] >= self._vocabulary, 0),)

    def _replace(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        for number, vector in zip(self._new.tolist(), self.vectors):
            output = torch.where((self._asked == number).unsqueeze(-1), vector.to(output), output)
        return output


def save_view_tokens(vectors: Tensor, folder: Path) -> None:
    """Write ``<view>.safetensors`` for each view, as ``pipeline.load_textual_inversion`` of diffusers reads them.

    Args:
        vectors: ``[4, F]`` in the order of ``VIEWS``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for view, vector in zip(VIEWS, vectors.detach().cpu().float(), strict=True):
        with atomic_path(folder / f"{view}.safetensors") as temporary:
            save_file({f"<{view}>": vector.clone().contiguous()}, temporary)


def load_view_tokens(folder: Path) -> dict[str, Tensor]:
    """What :func:`save_view_tokens` wrote: view to ``[F]`` float32.

    Raises:
        CheckpointError: a file is missing, too large, damaged, or holds something else.
    """
    found = {}
    for view in VIEWS:
        path = folder / f"{view}.safetensors"
        fix = "Adapt the model again: redream adapt."
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise CheckpointError("A file of view tokens is too large", received=path.stat().st_size, fix=fix)
            with safe_open(path, framework="pt") as file:
                vector = file.get_tensor(f"<{view}>")
        except (OSError, SafetensorError) as cause:
            raise CheckpointError(f"View tokens cannot be read: {cause}", received=str(path), fix=fix) from cause
        if vector.ndim != 1 or not vector.is_floating_point() or not bool(torch.isfinite(vector).all()):
            raise CheckpointError("A view token is no vector of finite numbers", received=str(path), fix=fix)
        found[view] = vector.float()
    return found
