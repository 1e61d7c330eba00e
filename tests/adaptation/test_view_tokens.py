"""View tokens in a frozen text encoder."""

import pytest
import torch
from safetensors.torch import save_file

from threestudio_redream.adaptation.view_tokens import (
    VIEWS,
    TokenizedEncoder,
    load_view_tokens,
    save_view_tokens,
    view_phrase,
)
from threestudio_redream.errors import CheckpointError, ConfigError
from threestudio_redream.runtime.prompt_processors.directions import view_directions


def parts(model):
    from transformers import CLIPTextModel, CLIPTokenizer

    return (
        CLIPTokenizer.from_pretrained(model / "tokenizer"),
        CLIPTextModel.from_pretrained(model / "text_encoder").eval(),
    )


@pytest.fixture
def encoder(tiny_model):
    return TokenizedEncoder(*parts(tiny_model))


def plainly(model, prompts):
    tokenizer, encoder = parts(model)
    tokens = tokenizer(prompts, padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
    return encoder(tokens["input_ids"])[0]


def test_views_are_those_of_the_prompt_processor():
    assert tuple(direction.name for direction in view_directions()) == VIEWS


@torch.no_grad()
def test_it_starts_as_the_words_themselves_and_leaves_other_texts_alone(encoder, tiny_model):
    with_tokens = encoder([view_phrase("a red cat", view) for view in VIEWS])
    words = plainly(tiny_model, [f"a red cat, {view} view" for view in VIEWS])
    torch.testing.assert_close(with_tokens, words)
    encoder.vectors.mul_(-1.0)
    texts = ["a red cat", "a cat, front view", ""]
    torch.testing.assert_close(encoder(texts), plainly(tiny_model, texts))
    assert not torch.allclose(encoder([view_phrase("a red cat", "back")]), words[2:3], atol=1e-3)


def test_only_the_rows_of_the_view_word_are_touched_before_attention(encoder):
    table = encoder.encoder.get_input_embeddings()
    text = encoder.tokenizer(view_phrase("a red cat", "side"), return_tensors="pt")["input_ids"]
    before = table(text)
    with torch.no_grad():
        encoder.vectors.mul_(-1.0)
    changed = (table(text) != before).any(-1)[0]
    assert text[0, changed].tolist() == [encoder.tokenizer.convert_tokens_to_ids("<side>")]


def test_gradients_reach_the_tokens_that_were_used_and_nothing_else(encoder):
    encoder([view_phrase("a red cat", "back"), "a cat"]).square().sum().backward()
    assert [bool(row.any()) for row in encoder.vectors.grad] == [view == "back" for view in VIEWS]
    assert [name for name, value in encoder.named_parameters() if value.requires_grad] == ["vectors"]
    assert all(value.grad is None for value in encoder.encoder.parameters())


def test_files_are_read_by_diffusers_and_back(encoder, tiny_model, tmp_path):
    from diffusers import StableDiffusionPipeline

    with torch.no_grad():
        encoder.vectors.add_(torch.randn(encoder.vectors.shape, generator=torch.Generator().manual_seed(1)))
    save_view_tokens(encoder.vectors, tmp_path)
    found = load_view_tokens(tmp_path)
    assert torch.equal(torch.stack([found[view] for view in VIEWS]), encoder.vectors)
    other = TokenizedEncoder(*parts(tiny_model))
    other.set_vectors(found)
    text = view_phrase("a red cat", "front")
    assert torch.equal(other([text]), encoder([text]))

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    for view in VIEWS:
        pipeline.load_textual_inversion(tmp_path / f"{view}.safetensors")
    tokens = pipeline.tokenizer(text, padding="max_length", max_length=24, return_tensors="pt")["input_ids"]
    torch.testing.assert_close(pipeline.text_encoder(tokens)[0], encoder([text]))


def test_damaged_files_are_named(encoder, tmp_path):
    save_view_tokens(encoder.vectors, tmp_path)
    back = tmp_path / "back.safetensors"
    good = back.read_bytes()
    for spoil, message in (
        (lambda: back.write_bytes(good[:40]), "cannot be read"),
        (lambda: save_file({"<front>": torch.zeros(16)}, back), "cannot be read"),
        (lambda: save_file({"<back>": torch.zeros(2, 16)}, back), "finite numbers"),
        (lambda: save_file({"<back>": torch.full((16,), float("nan"))}, back), "finite numbers"),
        (lambda: save_file({"<back>": torch.zeros(16, dtype=torch.int64)}, back), "finite numbers"),
        (lambda: save_file({"<back>": torch.zeros(2**19)}, back), "too large"),
        (back.unlink, "cannot be read"),
    ):
        spoil()
        with pytest.raises(CheckpointError, match=message):
            load_view_tokens(tmp_path)


def test_tokens_of_another_model_and_tokenizers_that_know_them(encoder, tiny_model):
    with pytest.raises(ConfigError, match="View tokens need"):
        encoder.set_vectors({view: torch.zeros(7) for view in VIEWS})
    with pytest.raises(ConfigError, match="View tokens need"):
        encoder.set_vectors({"front": torch.zeros(16)})
    with pytest.raises(ConfigError, match="more tokens"):
        TokenizedEncoder(encoder.tokenizer, parts(tiny_model)[1])
