"""Give the mini CLIP, or any ``transformers.CLIPModel`` folder of its design, as an open_clip checkpoint.

    python -m tools.mini.convert_clip --source threestudio_redream/mini/clip --out outputs/mini-lab/open-clip

The folder then loads in open_clip 3.0 or newer, tokenizer and preprocessing included::

    model, preprocess = open_clip.create_model_from_pretrained("local-dir:outputs/mini-lab/open-clip")
    tokenizer = open_clip.get_tokenizer("local-dir:outputs/mini-lab/open-clip")

Both libraries compute the same function. What differs is the naming, the layout of attention (three matrices or one)
and of the projections (``x @ W.T`` or ``x @ W``), and how the end of a text is found: open_clip takes the first token
with the highest id, so the end marker must have that id. Padding needs no mask, as causal attention never looks ahead.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.files import atomic_path, atomic_write_text

__all__ = ["convert_clip", "open_clip_config", "open_clip_tensors"]

log = logging.getLogger("mini-lab")

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")
_RESAMPLING = {2: "bilinear", 3: "bicubic"}  # numbers of PIL.Image.Resampling
_QUICK = {"gelu": False, "quick_gelu": True}
_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def open_clip_config(config: Any, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """Content of ``open_clip_config.json``.

    Args:
        config: a ``transformers.CLIPConfig``. preprocessing: content of ``preprocessor_config.json``.

    Raises:
        ConfigError: open_clip cannot express the model.
    """
    vision, text = config.vision_config, config.text_config
    activations = {vision.hidden_act, text.hidden_act}
    if len(activations) != 1 or not activations <= set(_QUICK):
        raise ConfigError(
            "open_clip knows gelu or quick_gelu, the same for both towers",
            received=sorted(activations),
            fix="Train the model with hidden_act='gelu' in both configurations.",
        )
    if text.eos_token_id != text.vocab_size - 1:
        raise ConfigError(
            "open_clip finds the end of a text by the highest token id, which another token has",
            received=f"eos_token_id {text.eos_token_id} of {text.vocab_size} tokens",
            fix="Give the end marker the last place in the vocabulary.",
        )
    lacking = [name for name in ("image_mean", "image_std", "resample") if name not in preprocessing]
    if lacking:
        raise ConfigError(
            f"The preprocessing lacks {', '.join(lacking)}",
            received=sorted(preprocessing),
            fix="Restore preprocessor_config.json; tools.mini.train_clip writes a whole one.",
        )
    resample = preprocessing["resample"]
    if resample not in _RESAMPLING:
        raise ConfigError(
            "open_clip resizes pictures by bilinear or bicubic interpolation only",
            received=resample,
            fix=f"Use one of {_RESAMPLING} as 'resample' in preprocessor_config.json.",
        )
    return {
        "model_cfg": {
            "embed_dim": config.projection_dim,
            "quick_gelu": _QUICK[text.hidden_act],
            "vision_cfg": {
                "image_size": vision.image_size,
                "patch_size": vision.patch_size,
                "head_width": vision.hidden_size // vision.num_attention_heads,
                **_tower(vision),
            },
            "text_cfg": {
                "context_length": text.max_position_embeddings,
                "vocab_size": text.vocab_size,
                "heads": text.num_attention_heads,
                "hf_tokenizer_name": "mini-clip",  # any name: for a local-dir the folder itself is read
                **_tower(text),
            },
        },
        "preprocess_cfg": {
            "size": vision.image_size,
            "mean": list(preprocessing["image_mean"]),
            "std": list(preprocessing["image_std"]),
            "interpolation": _RESAMPLING[resample],
            "resize_mode": "shortest",
        },
    }


def _tower(config: Any) -> dict[str, Any]:
    return {
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "mlp_ratio": config.intermediate_size / config.hidden_size,
        "norm_kwargs": {"eps": config.layer_norm_eps},
    }


def open_clip_tensors(source: Mapping[str, Tensor], *, vision_layers: int, text_layers: int) -> dict[str, Tensor]:
    """The weights of a ``transformers.CLIPModel`` under the names and in the layout of ``open_clip.CLIP``.

    Args:
        source: the model's state dict.

    Raises:
        ConfigError: a tensor is missing, or one is left over.
    """
    left = {name: tensor for name, tensor in source.items() if not name.endswith(".position_ids")}
    out: dict[str, Tensor] = {}

    def take(name: str) -> Tensor:
        if name not in left:
            raise ConfigError(
                "A tensor of the CLIP model is missing",
                received=name,
                fix="Convert a folder that CLIPModel.save_pretrained wrote.",
            )
        return left.pop(name)

    def take_both(old: str, new: str) -> None:
        for kind in ("weight", "bias"):
            out[f"{new}.{kind}"] = take(f"{old}.{kind}")

    for old, new, layers in (
        ("vision_model.", "visual.transformer.", vision_layers),
        ("text_model.", "transformer.", text_layers),
    ):
        for index in range(layers):
            block, target = f"{old}encoder.layers.{index}.", f"{new}resblocks.{index}."
            for name, renamed in _BLOCK.items():
                take_both(block + name, target + renamed)
            for kind in ("weight", "bias"):
                parts = [take(f"{block}self_attn.{which}_proj.{kind}") for which in "qkv"]
                out[f"{target}attn.in_proj_{kind}"] = torch.cat(parts)
    out["visual.class_embedding"] = take("vision_model.embeddings.class_embedding")
    out["visual.conv1.weight"] = take("vision_model.embeddings.patch_embedding.weight")
    out["visual.positional_embedding"] = take("vision_model.embeddings.position_embedding.weight")
    take_both("vision_model.pre_layrnorm", "visual.ln_pre")  # the library's own spelling
    take_both("vision_model.post_layernorm", "visual.ln_post")
    out["visual.proj"] = take("visual_projection.weight").T
    out["token_embedding.weight"] = take("text_model.embeddings.token_embedding.weight")
    out["positional_embedding"] = take("text_model.embeddings.position_embedding.weight")
    take_both("text_model.final_layer_norm", "ln_final")
    out["text_projection"] = take("text_projection.weight").T
    out["logit_scale"] = take("logit_scale")
    if left:
        raise ConfigError(
            "Tensors of the CLIP model have no place in open_clip's",
            received=sorted(left)[:5],
            fix="Convert a plain CLIPModel whose configuration fits its weights.",
        )
    return {name: tensor.contiguous() for name, tensor in out.items()}


def convert_clip(source: Path, out: Path) -> Path:
    """Read a ``CLIPModel`` folder with tokenizer and preprocessing, write an open_clip ``local-dir:`` folder.

    Args:
        out: may be ``source`` itself; the two formats share no file but the tokenizer's.

    Returns:
        ``out``.

    Raises:
        ConfigError: the folder is not one, or open_clip cannot express the model.
    """
    from safetensors.torch import load_file, save_file
    from transformers import CLIPConfig

    needed = ("config.json", "model.safetensors", "preprocessor_config.json", *_TOKENIZER_FILES[:2])
    missing = [name for name in needed if not (source / name).is_file()]
    if missing:
        raise ConfigError(
            f"The folder is no complete CLIP model: {', '.join(missing)} not found",
            received=str(source),
            fix="Name a folder as tools.mini.train_clip writes it.",
        )
    config: Any = CLIPConfig.from_pretrained(source, local_files_only=True)
    about = open_clip_config(config, json.loads((source / "preprocessor_config.json").read_text("utf-8")))
    tensors = open_clip_tensors(
        load_file(source / "model.safetensors"),
        vision_layers=config.vision_config.num_hidden_layers,
        text_layers=config.text_config.num_hidden_layers,
    )
    if out.resolve() != source.resolve():
        for name in _TOKENIZER_FILES:
            if (source / name).is_file():
                with atomic_path(out / name) as temporary:
                    shutil.copyfile(source / name, temporary)
    with atomic_path(out / "open_clip_model.safetensors") as temporary:
        save_file(tensors, temporary)
    # Last, as open_clip looks for it first: an interrupted conversion is no model.
    atomic_write_text(out / "open_clip_config.json", json.dumps(about, indent=1) + "\n")
    log.info("%s: %d tensors, %.1f MB", out, len(tensors), sum(t.nbytes for t in tensors.values()) / 1e6)
    return out


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("threestudio_redream/mini/clip"))
    parser.add_argument("--out", type=Path, default=Path("outputs/mini-lab/open-clip"))
    arguments = parser.parse_args()
    convert_clip(arguments.source, arguments.out)


if __name__ == "__main__":
    main()
