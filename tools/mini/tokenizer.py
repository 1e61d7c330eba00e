"""A CLIP tokenizer for the mini lab: byte-pair merges learned from its word list, one token a word.

Unknown words still work; they fall apart into shorter pieces, down to single bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["CONTEXT", "START", "STOP", "learn_tokenizer"]

START, STOP = "<|startoftext|>", "<|endoftext|>"
#: Tokens of a prompt with both markers. CLIP's own 77 would spend most of the time on padding.
CONTEXT = 24


def learn_tokenizer(words: Sequence[str]) -> Any:
    """A ``transformers.CLIPTokenizer`` in which each of ``words`` is one token.

    Raises:
        RuntimeError: if one is not.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=20_000,
        min_frequency=1,
        end_of_word_suffix="</w>",
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    learner.train_from_iterator([[word] for word in sorted(words)], trainer)
    model = json.loads(learner.to_str())["model"]
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]
    # CLIP's order: bytes, bytes that end a word, merges, the two markers.
    pieces = [*sorted(alphabet), *(f"{byte}</w>" for byte in sorted(alphabet)), *("".join(merge) for merge in merges)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    for marker in (START, STOP):
        vocabulary[marker] = len(vocabulary)
    tokenizer = CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        model_max_length=CONTEXT,
        bos_token=START,
        eos_token=STOP,
        unk_token=STOP,
        pad_token=STOP,
    )
    split = [word for word in words if len(tokenizer(word)["input_ids"]) != 3]
    if split:
        raise RuntimeError(f"these words are not single tokens: {split[:10]}")
    return tokenizer


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """``save_pretrained`` plus the vocab.json and merges.txt that older releases read."""
    tokenizer.save_pretrained(folder)
    state = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in state["merges"]]
    (folder / "vocab.json").write_text(json.dumps(state["vocab"], ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
