"""Prompt debiasing (Hong et al., NeurIPS 2023): words that contradict a view are left out of that view's prompt.

"A smiling dog" asks for a face even where the back is asked for. A masked language model says so: it fills the gap in
"a [MASK] view of a smiling dog" with "back" less often than in "a [MASK] view of a dog". By the pointwise mutual
information of word and view, "smiling" is dropped from the prompt of the back and kept in that of the front.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from threestudio_redream.errors import ConfigError

__all__ = ["THRESHOLD", "MaskedViews", "debias"]

log = logging.getLogger("pytorch_lightning")

#: A word goes from a view's prompt when it makes the view this much less likely than it is without, half-way counted.
THRESHOLD = 0.95


def debias(
    prompt: str, probe: Callable[[str], Tensor], views: Sequence[str], mask_ids: Sequence[int] | None = None
) -> list[str]:
    """One prompt per view.

    A word stays in the prompt of view ``v`` if ``p(v | prompt)`` is at least 0.95 of the mean of itself and
    ``p(v | prompt without the word)``. A prompt of which no word would stay is kept whole.

    Args:
        probe: from a text to probabilities ``[len(views)]``. mask_ids: which words (by their place, from 0) may go;
            None for all.

    Raises:
        ConfigError: a place where the prompt has no word.
    """
    words = prompt.split()
    places = range(len(words)) if mask_ids is None else mask_ids
    if wrong := [place for place in places if not 0 <= place < len(words)]:
        raise ConfigError(
            f"prompt_debiasing_mask_ids must name words of the prompt, 0 to {len(words) - 1}",
            received=wrong,
            fix=f"Words by number: {dict(enumerate(words))}.",
        )
    whole = probe(prompt)
    left_out: list[set[int]] = [set() for _ in views]
    for place in places:
        without = probe(" ".join(words[:place] + words[place + 1 :]))
        information = whole / (0.5 * (whole + without))
        for gone, value in zip(left_out, information.tolist(), strict=True):
            if value < THRESHOLD:
                gone.add(place)
    prompts = [" ".join(word for i, word in enumerate(words) if i not in gone) or prompt for gone in left_out]
    log.info("Debiased prompts: %s", dict(zip(views, prompts)))
    return prompts


class MaskedViews:
    """What a masked language model (BERT) thinks of the view of a picture, from its description.

    Args:
        name: a folder, or a hub id such as ``bert-base-uncased``. views: words, one token each.

    Raises:
        ConfigError: the model cannot be loaded, has no mask token, or splits the word of a view.
    """

    def __init__(self, name: str, views: Sequence[str], device: torch.device | str = "cpu") -> None:
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(name)
            model = AutoModelForMaskedLM.from_pretrained(name, use_safetensors=True)
        except (OSError, ValueError) as cause:
            raise ConfigError(
                f"The language model of prompt debiasing cannot be loaded: {cause}",
                received=name,
                fix="Name a folder or a hub id in pretrained_model_name_or_path_prompt_debiasing.",
            ) from cause
        self._model = model.to(device).eval()
        ids = [self._tokenizer(view, add_special_tokens=False)["input_ids"] for view in views]
        if self._tokenizer.mask_token_id is None or any(len(pieces) != 1 for pieces in ids):
            raise ConfigError(
                "The language model of prompt debiasing needs a mask token and a token for every view",
                received={view: self._tokenizer.convert_ids_to_tokens(pieces) for view, pieces in zip(views, ids)},
                fix="bert-base-uncased has them.",
            )
        self._views = torch.tensor([pieces[0] for pieces in ids], device=device)

    @torch.no_grad()
    def __call__(self, prompt: str) -> Tensor:
        """Probabilities ``[len(views)]`` of the views, on the CPU."""
        text = f"This image is depicting a {self._tokenizer.mask_token} view of {prompt}"
        tokens = self._tokenizer(text, truncation=True, return_tensors="pt").to(self._views.device)
        gap = (tokens["input_ids"][0] == self._tokenizer.mask_token_id).nonzero()[0, 0]
        logits = self._model(**tokens).logits[0, gap, self._views]
        probabilities: Tensor = logits.float().softmax(0).cpu()
        return probabilities
