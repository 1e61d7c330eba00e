"""Model folders: where they are, which files decide, and a digest over them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from threestudio_redream.errors import ConfigError
from threestudio_redream.hub import fetch

__all__ = ["digest", "find_model", "json_file", "model_files"]

_MAX_JSON = 64 * 1024**2
_BLOCK = 1 << 20
#: What is taken from the hub: no pickle, no other framework's weights.
_WANTED = (
    "config.json",
    "preprocessor_config.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)


def find_model(name: str) -> Path:
    """Folder of a transformers model.

    Args:
        name: an existing folder, or a hub id with an optional ``@revision``. A hub model is downloaded once (only
            safetensors and JSON); with ``HF_HUB_OFFLINE=1`` it must be in the hub's cache already.

    Raises:
        ConfigError: there is no such folder. HubError: the hub does not hand it out.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ConfigError("The model folder does not exist", received=name, fix="Check the path, or give a hub id.")
    repository, _, revision = name.partition("@")
    return fetch(repository, _WANTED, revision or None)


def json_file(path: Path) -> dict[str, Any]:
    """Content of a JSON file that holds an object.

    Raises:
        ConfigError: missing, too large, or not such a file.
    """
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ValueError("it is too large")
        values = json.loads(path.read_text("utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError, RecursionError) as cause:
        raise ConfigError(
            f"{path.name} of the model cannot be read: {cause}",
            received=str(path.parent),
            fix="Give a folder as CLIPModel.save_pretrained and CLIPProcessor.save_pretrained write it.",
        ) from cause
    return values


def model_files(folder: Path) -> list[Path]:
    """The files of a transformers CLIP folder that decide what it computes, weights last.

    Raises:
        ConfigError: one is missing; so are weights in another format than safetensors.
    """
    if (folder / "model.safetensors.index.json").is_file():
        shards = json_file(folder / "model.safetensors.index.json").get("weight_map", {})
        names = sorted({Path(str(name)).name for name in shards.values()}) if isinstance(shards, dict) else []
    else:
        names = ["model.safetensors"]
    tokenizer = ["tokenizer.json"] if (folder / "tokenizer.json").is_file() else ["vocab.json", "merges.txt"]
    files = [folder / name for name in ("config.json", *tokenizer, *names)]
    missing = [path.name for path in files if not path.is_file()]
    if missing or not names:
        raise ConfigError(
            f"The folder is no complete CLIP model: {', '.join(missing) or 'weights'} not found",
            received=str(folder),
            fix="Weights must be safetensors; pickled ones (pytorch_model.bin) are not opened.",
        )
    return files


def digest(files: list[Path], *facts: Any) -> str:
    """Hex digest over names and bytes of files, and over plain values."""
    whole = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for path in files:
        part = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                part.update(block)
        whole.update(f"{path.name}\0{part.hexdigest()}\n".encode())
    return whole.hexdigest()
