"""CLIP's text tower in plain numpy: a query is embedded before torch could even be imported.

Importing torch and transformers takes seconds, a short text through a CLIP text transformer milliseconds. The design is
that of ``transformers.CLIPModel``: pre-norm blocks, causal attention, the state at the end marker projected. Padding
is left out, since no token before the end marker can see what comes after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.retrieval.encoders.towers import unit_rows

__all__ = ["LightText", "NotLightError"]

Float = NDArray[np.float32]
#: What CLIPTextConfig leaves out of a file when it has these values.
_DEFAULTS: dict[str, Any] = {
    "hidden_size": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
_MAX_ROWS = 32  # texts at a time


class NotLightError(Exception):
    """The model is one that only transformers can run; not an error for the user."""


def _gelu(x: Float) -> Float:
    from scipy.special import erf

    return 0.5 * x * (1.0 + erf(x * np.float32(math.sqrt(0.5))))


def _quick_gelu(x: Float) -> Float:
    with np.errstate(over="ignore"):  # exp of a large number: the quotient is 0, as it should be
        return x / (1.0 + np.exp(np.float32(-1.702) * x))


_ACTIVATIONS: dict[str, Callable[[Float], Float]] = {"gelu": _gelu, "quick_gelu": _quick_gelu}


class LightText:
    """Text tower of a ``CLIPModel`` folder.

    Args:
        config: content of its ``config.json``.

    Raises:
        NotLightError: another design, weights in several files or in a type that numpy lacks, no tokenizer.json.
    """

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        settings = {**_DEFAULTS, **(config.get("text_config") or {})}
        if settings["hidden_act"] not in _ACTIVATIONS:
            raise NotLightError(f"activation {settings['hidden_act']}")
        if not (folder / "tokenizer.json").is_file() or not (folder / "model.safetensors").is_file():
            raise NotLightError("no tokenizer.json, or the weights are in several files")
        self._act = _ACTIVATIONS[settings["hidden_act"]]
        self._layers, self._heads = int(settings["num_hidden_layers"]), int(settings["num_attention_heads"])
        self._eps, self._stop = float(settings["layer_norm_eps"]), settings["eos_token_id"]
        self._weights = _read_weights(folder / "model.safetensors", self._layers)
        self._tokenizer = _read_tokenizer(folder / "tokenizer.json", int(settings["max_position_embeddings"]))

    def __call__(self, texts: list[str], name: str) -> Float:
        """``[N, dim]`` float32 unit vectors."""
        parts = [self._encode(texts[start : start + _MAX_ROWS]) for start in range(0, len(texts), _MAX_ROWS)]
        if not parts:
            return np.zeros((0, len(self._weights["text_projection.weight"])), np.float32)
        return unit_rows(np.concatenate(parts), name)

    def token_ids(self, texts: list[str]) -> list[list[int]]:
        """Ids with both markers, without padding."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]

    def _encode(self, texts: list[str]) -> Float:
        rows = self.token_ids(texts)
        length = max(len(row) for row in rows)
        ids = np.zeros((len(rows), length), np.int64)
        stops = np.zeros(len(rows), np.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            # Old configurations say 2, which is no marker: the marker is the token with the highest id.
            stops[index] = int(np.argmax(row)) if self._stop == 2 or self._stop not in row else row.index(self._stop)
        weights = self._weights
        x = weights["embeddings.token_embedding.weight"][ids]
        x = x + weights["embeddings.position_embedding.weight"][:length]
        hidden = np.triu(np.full((length, length), -np.inf, np.float32), 1)
        for layer in range(self._layers):
            prefix = f"encoder.layers.{layer}."
            x = x + self._attention(self._norm(x, prefix + "layer_norm1"), prefix + "self_attn.", hidden)
            x = x + self._linear(
                self._act(self._linear(self._norm(x, prefix + "layer_norm2"), prefix + "mlp.fc1")), prefix + "mlp.fc2"
            )
        pooled = self._norm(x[np.arange(len(rows)), stops], "final_layer_norm")
        return pooled @ weights["text_projection.weight"].T

    def _attention(self, x: Float, prefix: str, hidden: Float) -> Float:
        count, length, width = x.shape
        shape = (count, length, self._heads, width // self._heads)
        query, key, value = (self._linear(x, f"{prefix}{name}_proj").reshape(shape).swapaxes(1, 2) for name in "qkv")
        scores = query @ key.swapaxes(2, 3) * np.float32(shape[-1] ** -0.5) + hidden
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ value
        return self._linear(mixed.swapaxes(1, 2).reshape(count, length, width), prefix + "out_proj")

    def _linear(self, x: Float, name: str) -> Float:
        return x @ self._weights[name + ".weight"].T + self._weights[name + ".bias"]

    def _norm(self, x: Float, name: str) -> Float:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(self._eps))
        return centred / scale * self._weights[name + ".weight"] + self._weights[name + ".bias"]


def _read_weights(path: Path, layers: int) -> dict[str, Float]:
    from safetensors import SafetensorError, safe_open

    blocks = [f"{part}.{kind}" for part in ("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2") for kind in _KINDS]
    blocks += [f"self_attn.{part}_proj.{kind}" for part in ("q", "k", "v", "out") for kind in _KINDS]
    names = [f"encoder.layers.{layer}.{block}" for layer in range(layers) for block in blocks]
    names += ["embeddings.token_embedding.weight", "embeddings.position_embedding.weight"]
    names += [f"final_layer_norm.{kind}" for kind in _KINDS]
    try:
        with safe_open(str(path), framework="numpy") as file:
            weights = {name: file.get_tensor(f"text_model.{name}") for name in names}
            weights["text_projection.weight"] = file.get_tensor("text_projection.weight")
    except (SafetensorError, OSError, TypeError, KeyError, AttributeError) as cause:
        raise NotLightError(f"weights: {cause}") from cause
    return {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in weights.items()}


_KINDS = ("weight", "bias")


def _read_tokenizer(path: Path, length: int) -> Any:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as cause:  # the binding raises nothing narrower
        raise NotLightError(f"tokenizer: {cause}") from cause
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    return tokenizer
