"""Text embeddings through a model's own text encoder."""

import pytest
import torch
from transformers import CLIPTextModel, CLIPTokenizer

from threestudio_redream.adaptation.view_tokens import VIEWS, save_view_tokens
from threestudio_redream.errors import ConfigError
from threestudio_redream.prompt_processors.stable_diffusion import StableDiffusionPromptProcessor


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_embeddings_are_those_of_transformers(tiny_model):
    processor = StableDiffusionPromptProcessor(
        {"pretrained_model_name_or_path": str(tiny_model), "prompt": "a red cat"}
    )
    utils = processor()
    tokenizer = CLIPTokenizer.from_pretrained(tiny_model, subfolder="tokenizer")
    encoder = CLIPTextModel.from_pretrained(tiny_model, subfolder="text_encoder")
    for text, found in (("a red cat", utils.text_embeddings), ("", utils.uncond_text_embeddings)):
        tokens = tokenizer(text, padding="max_length", max_length=24, return_tensors="pt")
        torch.testing.assert_close(found, encoder(tokens["input_ids"])[0])
    back = utils.text_embeddings_vd[utils.direction2idx["back"]]
    tokens = tokenizer("a red cat, back view", padding="max_length", max_length=24, return_tensors="pt")
    torch.testing.assert_close(back[None], encoder(tokens["input_ids"])[0])


def test_the_second_time_comes_from_the_cache(tiny_model, monkeypatch):
    keys = {"pretrained_model_name_or_path": str(tiny_model), "prompt": "a red cat"}
    first = StableDiffusionPromptProcessor(keys)().text_embeddings

    def fail(*_):
        raise AssertionError("encoded again")

    monkeypatch.setattr(StableDiffusionPromptProcessor, "encode_prompts", fail)
    torch.testing.assert_close(StableDiffusionPromptProcessor(keys)().text_embeddings, first)


def test_foreign_tokenizer_is_refused(tiny_model, tmp_path):
    import shutil

    from tools.mini.tokenizer import learn_tokenizer

    folder = tmp_path / "mixed"
    shutil.copytree(tiny_model, folder)
    shutil.rmtree(folder / "tokenizer")
    learn_tokenizer([f"word{letter}{other}" for letter in "abcdef" for other in "ghijkl"]).save_pretrained(
        folder / "tokenizer"
    )
    with pytest.raises(ConfigError, match="more tokens") as error:
        StableDiffusionPromptProcessor({"pretrained_model_name_or_path": str(folder), "prompt": "a cat"})
    assert "saved with the model" in error.value.fix


def test_view_tokens_replace_the_view_words(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keys = {"pretrained_model_name_or_path": str(tiny_model), "prompt": "a red cat", "prompt_overhead": "from above"}
    words = StableDiffusionPromptProcessor(keys)
    encoder = words.open_encoder()
    save_view_tokens(encoder.vectors, tmp_path / "tokens")
    untrained = StableDiffusionPromptProcessor({**keys, "view_tokens": str(tmp_path / "tokens")})
    assert untrained.prompts_vd == [
        "a red cat, <side> view", "a red cat, <front> view", "a red cat, <back> view", "from above",
    ]  # fmt: skip
    torch.testing.assert_close(untrained().text_embeddings_vd, words().text_embeddings_vd)
    with torch.no_grad():
        encoder.vectors.mul_(-1.0)
    trained = {view: vector.detach() for view, vector in zip(VIEWS, encoder.vectors)}
    untrained.use_view_tokens(trained)
    with torch.no_grad():
        expected = encoder(untrained.prompts_vd)
    torch.testing.assert_close(untrained().text_embeddings_vd, expected)
    assert torch.equal(untrained().text_embeddings, words().text_embeddings)  # no view words, no tokens
    untrained.use_view_tokens(None)
    assert torch.equal(untrained().text_embeddings_vd, words().text_embeddings_vd)


def test_debiased_texts_stay_debiased_with_view_tokens(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = []

    def debiased(self, prompt):
        asked.append(prompt)
        return ["a red cat", "a red cat", "a cat", "a red cat"]

    monkeypatch.setattr(StableDiffusionPromptProcessor, "get_debiased_prompt", debiased)
    keys = {"pretrained_model_name_or_path": str(tiny_model), "prompt": "a red cat", "use_prompt_debiasing": True}
    processor = StableDiffusionPromptProcessor(keys)
    assert processor.prompts_vd[2] == "a cat, back view"
    processor.use_view_tokens({view: torch.zeros(16) for view in VIEWS})
    assert processor.prompts_vd[1:3] == ["a red cat, <front> view", "a cat, <back> view"]
    assert asked == ["a red cat"], "the language model is opened once"


def test_the_text_encoder_can_live_on_another_device(tiny_model):
    keys = {"pretrained_model_name_or_path": str(tiny_model), "prompt": "a red cat"}
    assert StableDiffusionPromptProcessor(keys).open_encoder().vectors.device.type == "cpu"
    processor = StableDiffusionPromptProcessor(keys)
    processor.cfg.encoder_device = "meta"
    encoder = processor.open_encoder()
    assert encoder.vectors.device.type == "meta"
    assert {weight.device.type for weight in encoder.parameters()} == {"meta"}
