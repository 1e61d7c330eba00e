"""The mini CLIP in open_clip's format: against a plain torch model of that design, and against open_clip itself."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.torchvision_shim import ensure_torchvision
from tools.mini.convert_clip import convert_clip, open_clip_config, open_clip_tensors
from tools.mini.tokenizer import CONTEXT

TEXTS = [
    "a red cat",
    "the back view of a crimson cat",
    "",
    "golden house",
    "a zqxj wombat in a studio, side view",
    "a photo of " * 12,  # too long: the end marker is the last token
]


@pytest.fixture(scope="module")
def converted(tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_clip(tiny_clip, tmp_path_factory.mktemp("converted") / "open-clip")


@pytest.fixture(scope="module")
def expected(tiny_clip: Path) -> dict[str, Tensor]:
    """Inputs and what transformers makes of them."""
    from transformers import CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(tiny_clip, local_files_only=True).eval()
    tokenizer = CLIPTokenizer.from_pretrained(tiny_clip, local_files_only=True)
    tokens = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt")
    pixels = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(5)) * 2.0 - 1.0
    with torch.no_grad():
        out = model(pixel_values=pixels, **tokens)
    return {
        "ids": tokens["input_ids"],
        "pixels": pixels,
        "image": out.image_embeds,
        "text": out.text_embeds,
        "logits": out.logits_per_image,
    }


# --- open_clip's design in plain torch ------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, width: int, heads: int, ratio: float) -> None:
        super().__init__()
        inner = int(width * ratio)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        layers = [("c_fc", nn.Linear(width, inner)), ("gelu", nn.GELU()), ("c_proj", nn.Linear(inner, width))]
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Blocks(nn.Module):
    def __init__(self, cfg: dict, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(cfg["width"], heads, cfg["mlp_ratio"]) for _ in range(cfg["layers"]))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Visual(nn.Module):
    def __init__(self, cfg: dict, out: int) -> None:
        super().__init__()
        width, patch = cfg["width"], cfg["patch_size"]
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros((cfg["image_size"] // patch) ** 2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Blocks(cfg, width // cfg["head_width"])
        self.proj = nn.Parameter(torch.zeros(width, out))

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class PlainOpenClip(nn.Module):
    def __init__(self, cfg: dict) -> None:
        super().__init__()
        text = cfg["text_cfg"]
        self.visual = Visual(cfg["vision_cfg"], cfg["embed_dim"])
        self.transformer = Blocks(text, text["heads"])
        self.token_embedding = nn.Embedding(text["vocab_size"], text["width"])
        self.positional_embedding = nn.Parameter(torch.zeros(text["context_length"], text["width"]))
        self.ln_final = nn.LayerNorm(text["width"])
        self.text_projection = nn.Parameter(torch.zeros(text["width"], cfg["embed_dim"]))
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def encode_text(self, ids: Tensor) -> Tensor:
        x = self.token_embedding(ids) + self.positional_embedding
        mask = torch.full((ids.shape[1], ids.shape[1]), float("-inf")).triu(1)  # causal; padding is not masked
        x = self.ln_final(self.transformer(x, mask))
        return x[torch.arange(len(ids)), ids.argmax(dim=1)] @ self.text_projection


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def test_a_plain_model_of_open_clips_design_gives_the_same_embeddings(converted: Path, expected: dict) -> None:
    about = json.loads((converted / "open_clip_config.json").read_text("utf-8"))
    model = PlainOpenClip(about["model_cfg"]).eval()
    model.load_state_dict(load_file(converted / "open_clip_model.safetensors"), strict=True)  # names and shapes
    with torch.no_grad():
        image, text = unit(model.visual(expected["pixels"])), unit(model.encode_text(expected["ids"]))
        logits = model.logit_scale.exp() * image @ text.T
    torch.testing.assert_close(image, expected["image"], atol=1e-5, rtol=0)
    torch.testing.assert_close(text, expected["text"], atol=1e-5, rtol=0)
    torch.testing.assert_close(logits, expected["logits"], atol=1e-3, rtol=0)
    # Different inputs have different embeddings, so that agreement means something.
    assert (text @ text.T - torch.eye(len(text))).max() < 0.999


def test_open_clip_itself_gives_the_same_tokens_pictures_and_embeddings(converted: Path, expected: dict) -> None:
    if ensure_torchvision() == "absent":
        pytest.skip("open_clip is not installed: pip install 'threestudio-redream[openclip]'")
    open_clip = pytest.importorskip("open_clip", reason="needs pip install 'threestudio-redream[openclip]'")
    from PIL import Image

    name = f"local-dir:{converted}"
    model, preprocess = open_clip.create_model_from_pretrained(name)
    assert torch.equal(open_clip.get_tokenizer(name)(TEXTS), expected["ids"])
    with torch.no_grad():
        image = model.encode_image(expected["pixels"], normalize=True)
        text = model.encode_text(expected["ids"], normalize=True)
    torch.testing.assert_close(image, expected["image"], atol=1e-4, rtol=0)
    torch.testing.assert_close(text, expected["text"], atol=1e-4, rtol=0)
    torch.testing.assert_close(model.logit_scale.exp() * image @ text.T, expected["logits"], atol=1e-3, rtol=0)
    pixels = np.random.default_rng(7).integers(0, 256, (96, 128, 3), np.uint8)
    picture = Image.fromarray(pixels)
    middle = picture.resize((85, 64), Image.Resampling.BICUBIC).crop((10, 0, 74, 64))
    for given, wanted in ((picture.crop((0, 0, 64, 64)), pixels[:64, :64]), (picture, np.asarray(middle))):
        rows = torch.from_numpy(wanted / 255.0 * 2.0 - 1.0).permute(2, 0, 1).float()
        torch.testing.assert_close(preprocess(given), rows, atol=1e-5, rtol=0)


def test_every_number_of_the_model_is_in_the_conversion_once(tiny_clip: Path, converted: Path) -> None:
    old, new = load_file(tiny_clip / "model.safetensors"), load_file(converted / "open_clip_model.safetensors")
    numbers = [torch.cat([tensor.flatten() for tensor in tensors.values()]).sort().values for tensors in (old, new)]
    assert torch.equal(*numbers)


def test_the_tokenizer_goes_along_and_a_second_conversion_beside_the_model_is_the_same(
    tiny_clip: Path, converted: Path, tmp_path: Path
) -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(converted, local_files_only=True)
    assert len(tokenizer("a crimson cat")["input_ids"]) == 5
    for path in tiny_clip.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    convert_clip(tmp_path, tmp_path)
    for name in ("open_clip_model.safetensors", "open_clip_config.json", "tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (converted / name).read_bytes()
    both = {path.name for folder in (tiny_clip, converted) for path in folder.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == both


# --- what cannot be converted ---------------------------------------------------------------------


def complaint(call, *arguments, **named) -> tuple[str, str, str]:
    with pytest.raises(ConfigError) as caught:
        call(*arguments, **named)
    return caught.value.problem, str(caught.value.received), caught.value.fix


def test_tensors_that_are_missing_or_left_over_are_named(tiny_clip: Path) -> None:
    tensors = load_file(tiny_clip / "model.safetensors")
    layers = {"vision_layers": 4, "text_layers": 2}
    assert len(open_clip_tensors({**tensors, "text_model.embeddings.position_ids": torch.zeros(1)}, **layers)) > 40
    lacking = {name: tensor for name, tensor in tensors.items() if name != "text_projection.weight"}
    problem, received, fix = complaint(open_clip_tensors, lacking, **layers)
    assert (problem, received) == ("A tensor of the CLIP model is missing", "text_projection.weight")
    assert "save_pretrained" in fix
    problem, received, fix = complaint(open_clip_tensors, tensors, vision_layers=3, text_layers=2)
    assert "no place in open_clip's" in problem
    assert "vision_model.encoder.layers.3." in received
    assert "fits its weights" in fix


@pytest.mark.parametrize(
    ("change", "problem", "received", "fix"),
    [
        ({"hidden_act": "relu"}, "gelu or quick_gelu", "['gelu', 'relu']", "hidden_act='gelu'"),
        ({"eos_token_id": 7}, "end of a text", "eos_token_id 7 of", "the last place"),
        ({"resample": 0}, "bilinear or bicubic", "0", "preprocessor_config.json"),
        ({"image_mean": None}, "lacks image_mean", "resample", "tools.mini.train_clip"),
    ],
)
def test_models_that_open_clip_cannot_express_are_refused(
    tiny_clip: Path, change: dict, problem: str, received: str, fix: str
) -> None:
    from transformers import CLIPConfig

    config = CLIPConfig.from_pretrained(tiny_clip, local_files_only=True)
    preprocessing = json.loads((tiny_clip / "preprocessor_config.json").read_text("utf-8"))
    assert open_clip_config(config, preprocessing)["model_cfg"]["quick_gelu"] is False
    for name, value in change.items():
        if hasattr(config.text_config, name):
            setattr(config.text_config, name, value)
        elif value is None:
            del preprocessing[name]
        else:
            preprocessing[name] = value
    words = complaint(open_clip_config, config, preprocessing)
    assert problem in words[0]
    assert received in words[1]
    assert fix in words[2]


def test_a_folder_that_is_no_model_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    problem, received, fix = complaint(convert_clip, tmp_path, tmp_path / "out")
    assert "complete CLIP model: model.safetensors, preprocessor_config.json, tokenizer.json" in problem
    assert received == str(tmp_path)
    assert "train_clip" in fix
    assert not (tmp_path / "out").exists()
