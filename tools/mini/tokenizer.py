"""A CLIP tokenizer for the mini lab: byte-pair merges learned from its word list, one token a word.

Unknown words still work; they fall apart into shorter pieces, down to single bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

__all__ = ["CONTEXT", "START", "STOP", "learn_tokenizer", "save_tokenizer"]

START, STOP = "<|startoftext|>", "<|endoftext|>"
#: Tokens of a prompt with both markers. CLIP's own 77 would spend most of the time on padding.
CONTEXT = 24


def learn_tokenizer(words: Sequence[str]) -> Any:
    """A ``transformers.CLIPTokenizer`` in which each of ``words`` is one token; the same words give the same ids.

    Raises:
        RuntimeError: if one is not.
    """
    import transformers
    from tokenizers import pre_tokenizers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    merges = _learn_merges(words)
    # CLIP's order: bytes, bytes that end a word, merges, the two markers.
    pieces = [*sorted(alphabet), *(f"{byte}</w>" for byte in sorted(alphabet)), *("".join(merge) for merge in merges)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    for marker in (START, STOP):
        vocabulary[marker] = len(vocabulary)
    # By way of files: the releases' constructors differ.
    with TemporaryDirectory() as folder:
        _write_tables(Path(folder), vocabulary, [" ".join(merge) for merge in merges])
        (Path(folder) / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}', encoding="utf-8")
        tokenizer = transformers.CLIPTokenizerFast.from_pretrained(  # type: ignore[attr-defined]
            folder,
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


def _learn_merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Byte-pair merges until every word is one piece, the commonest pair first, the alphabet deciding between equals.

    The tokenizers library's own trainer decides between equals differently in every process, so a training run that
    goes on in another process would find some of its words exchanged.
    """
    from tokenizers import pre_tokenizers

    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    left = []
    for word in sorted(set(words)):
        letters = to_bytes.pre_tokenize_str(word)[0][0]
        left.append([*letters[:-1], f"{letters[-1]}</w>"])
    merges: list[tuple[str, str]] = []
    while left := [pieces for pieces in left if len(pieces) > 1]:
        counts = Counter(pair for pieces in left for pair in pairwise(pieces))
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        for pieces in left:
            at = 0
            while at < len(pieces) - 1:  # from the left, as a tokenizer applies them
                if (pieces[at], pieces[at + 1]) == best:
                    pieces[at : at + 2] = ["".join(best)]
                at += 1
    return merges


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """``save_pretrained`` plus the vocab.json and merges.txt that older releases read."""
    tokenizer.save_pretrained(folder)
    state = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in state["merges"]]
    _write_tables(folder, state["vocab"], merges)


def _write_tables(folder: Path, vocabulary: dict[str, int], merges: list[str]) -> None:
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
