"""Prompt debiasing: which words go from which view's prompt, with probabilities by hand and with a small BERT."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.prompt_processors.debiasing import MaskedViews, debias
from threestudio_redream.runtime.prompt_processors.directions import view_directions

VIEWS = ("side", "front", "back", "overhead")
WORDS = ["a", "smiling", "dog", "cat", "this", "image", "is", "depicting", "view", "of", *VIEWS]


def probe(text: str) -> torch.Tensor:
    """A smile makes fronts likely and backs unlikely; a dog is seen from the side."""
    front = 0.7 if "smiling" in text else 0.4
    side = 0.2 if "dog" in text else 0.18
    return torch.tensor([side, front, 0.9 - front - side, 0.1])


def test_words_that_contradict_a_view_go_from_its_prompt() -> None:
    side, front, back, overhead = debias("a smiling dog", probe, VIEWS)
    assert front == side == overhead == "a smiling dog"
    # p(back): 0 with the smile, 0.3 without; 0.02 without the dog.
    assert back == "a"


def test_only_the_words_that_may_go_do() -> None:
    assert debias("a smiling dog", probe, VIEWS, [1])[2] == "a dog"
    assert debias("a smiling dog", probe, VIEWS, [0]) == ["a smiling dog"] * 4
    for wrong in ([3], [-1]):
        with pytest.raises(ConfigError, match="0 to 2") as caught:
            debias("a smiling dog", probe, VIEWS, wrong)
        assert caught.value.received == wrong


def test_the_threshold_is_on_the_half_way_mean() -> None:
    def likely(with_word: float, without: float) -> list[str]:
        return debias("big dog", lambda text: torch.tensor([with_word if "big" in text else without]), ["back"], [0])

    # with / (0.5 (with + without)) against 0.95
    assert likely(0.190, 0.2) == ["big dog"]  # 0.974
    assert likely(0.182, 0.2) == ["big dog"]  # 0.953
    assert likely(0.180, 0.2) == ["dog"]  # 0.947


def test_a_prompt_of_which_nothing_would_stay_is_kept() -> None:
    assert debias("dog", lambda text: torch.tensor([0.1 if text else 0.9]), ["back"]) == ["dog"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights; a vocabulary of a few words."""
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(tokens), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, initializer_range=2.0,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


def test_the_language_model_fills_the_gap(bert: Path) -> None:
    from transformers import BertForMaskedLM, BertTokenizer

    found = MaskedViews(str(bert), VIEWS)("a smiling dog")
    tokenizer, model = BertTokenizer.from_pretrained(bert), BertForMaskedLM.from_pretrained(bert).eval()
    text = ["[CLS]", "this", "image", "is", "depicting", "a", "[MASK]", "view", "of", "a", "smiling", "dog", "[SEP]"]
    ids = torch.tensor([tokenizer.convert_tokens_to_ids(text)])
    with torch.no_grad():
        whole = model(ids).logits[0, text.index("[MASK]")].softmax(0)
    mine = whole[tokenizer.convert_tokens_to_ids(list(VIEWS))]
    torch.testing.assert_close(found, mine / mine.sum())
    assert float(found.sum()) == pytest.approx(1.0)


def test_a_prompt_processor_debiases(bert: Path) -> None:
    from test_prompt_processor import TunedProcessor

    keys = {"prompt": "a smiling dog", "use_prompt_debiasing": True, "use_cache": False}
    keys["pretrained_model_name_or_path_prompt_debiasing"] = str(bert)
    made = TunedProcessor(keys)
    wanted = debias("a smiling dog", MaskedViews(str(bert), VIEWS), VIEWS)
    assert len(set(wanted)) > 1  # the random model has opinions
    assert made.prompts_vd == [d.prompt(text) for d, text in zip(view_directions(45.0, 45.0, 60.0), wanted)]
    held = TunedProcessor({**keys, "prompt_debiasing_mask_ids": []})
    assert held.prompts_vd == [d.prompt("a smiling dog") for d in view_directions(45.0, 45.0, 60.0)]


def test_models_that_cannot_do_it_are_named(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded"):
        MaskedViews(str(tmp_path / "nothing"), VIEWS)
    with pytest.raises(ConfigError, match="a token for every view") as caught:
        MaskedViews(str(bert), ["side", "front side"])
    assert caught.value.received == {"side": ["side"], "front side": ["front", "side"]}
