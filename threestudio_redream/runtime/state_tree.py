"""Nested Python state <-> (tensors, JSON): the part of a checkpoint that needs no pickle.

Tensors are taken out of the tree into a flat dictionary; everything else must be one of a closed
list of plain types. Anything else is refused by name instead of being written in a way that runs
code when it is read.
"""

from __future__ import annotations

import base64
import math
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from threestudio_redream.errors import CheckpointError

__all__ = ["decode", "encode"]

MAX_DEPTH = 64


def encode(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Split ``tree`` into a JSON value and its tensors.

    Raises:
        CheckpointError: naming the path of a value whose type cannot be stored.
    """
    tensors: dict[str, Tensor] = {}
    return _encode(tree, "", tensors), tensors


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Inverse of :func:`encode`.

    Raises:
        CheckpointError: if the JSON value is not one that :func:`encode` writes.
    """
    return _decode(value, tensors, 0)


def _encode(node: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if path.count("/") > MAX_DEPTH:
        raise CheckpointError("A checkpoint value is nested too deeply", received=path, fix="Flatten the state.")
    if node is None or isinstance(node, bool | str):
        return node
    if isinstance(node, int) and not isinstance(node, np.generic):
        return int(node)
    if isinstance(node, float) and not isinstance(node, np.generic):
        return node if math.isfinite(node) else {"$": "float", "v": repr(node)}
    if isinstance(node, Tensor):
        key = path.lstrip("/") or "tensor"
        while key in tensors:  # {"a/b": x, "a": {"b": y}}, or {0: x, "0": y}
            key += "'"
        tensors[key] = node.detach()
        return {"$": "tensor", "v": key}
    if isinstance(node, np.ndarray):
        if node.dtype == np.uint32:  # torch stores it since 2.3; the MT19937 key of numpy is one
            return {"$": "uint32", "v": base64.b64encode(node.astype("<u4").tobytes()).decode(), "s": list(node.shape)}
        return {"$": "numpy", "v": _encode(torch.from_numpy(np.ascontiguousarray(node)), path, tensors)}
    if isinstance(node, np.generic):
        return _encode(node.item(), path, tensors)
    if isinstance(node, bytes):
        return {"$": "bytes", "v": base64.b64encode(node).decode()}
    if isinstance(node, torch.dtype | torch.device):
        return {"$": type(node).__name__, "v": str(node).removeprefix("torch.")}
    if isinstance(node, PurePath):
        return str(node)
    if isinstance(node, Mapping):
        if isinstance(node, defaultdict | OrderedDict) or all(isinstance(k, str) and k != "$" for k in node):
            plain = all(isinstance(k, str) and k != "$" for k in node)
        else:
            plain = False
        if plain:
            return {k: _encode(v, f"{path}/{k}", tensors) for k, v in node.items()}
        items = [[_encode(k, f"{path}/key", tensors), _encode(v, f"{path}/{k}", tensors)] for k, v in node.items()]
        return {"$": "dict", "v": items}
    if isinstance(node, tuple):  # torch.Size included
        return {"$": "tuple", "v": [_encode(v, f"{path}/{i}", tensors) for i, v in enumerate(node)]}
    if isinstance(node, list):
        return [_encode(v, f"{path}/{i}", tensors) for i, v in enumerate(node)]
    if isinstance(node, set | frozenset):
        return {"$": "set", "v": [_encode(v, f"{path}/{i}", tensors) for i, v in enumerate(sorted(node, key=repr))]}
    raise CheckpointError(
        f"The checkpoint value at '{path}' has a type that cannot be stored safely",
        received=type(node).__name__,
        fix="Store tensors, numbers, text, lists and dicts only (state_dict or on_save_checkpoint hooks).",
    )


def _decode(value: Any, tensors: Mapping[str, Tensor], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise CheckpointError("The checkpoint is nested too deeply", received=depth, fix="It is damaged or foreign.")
    if isinstance(value, list):
        return [_decode(v, tensors, depth + 1) for v in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("$")
    if kind is None:
        return {k: _decode(v, tensors, depth + 1) for k, v in value.items()}
    body = value.get("v")
    try:
        if kind == "float":
            return float(body)  # type: ignore[arg-type]
        if kind == "tensor":
            return tensors[body]  # type: ignore[index]
        if kind == "numpy":
            return _decode(body, tensors, depth + 1).numpy()
        if kind == "uint32":
            return np.frombuffer(base64.b64decode(body), "<u4").reshape(value["s"]).astype(np.uint32)  # type: ignore[arg-type]
        if kind == "bytes":
            return base64.b64decode(body)  # type: ignore[arg-type]
        if kind == "dtype":
            return getattr(torch, str(body)) if str(body) in _DTYPES else _refuse(body)
        if kind == "device":
            return torch.device(str(body))
        if kind == "dict":
            return {_decode(k, tensors, depth + 1): _decode(v, tensors, depth + 1) for k, v in body}  # type: ignore[union-attr]
        if kind == "tuple":
            return tuple(_decode(v, tensors, depth + 1) for v in body)  # type: ignore[union-attr]
        if kind == "set":
            return {_decode(v, tensors, depth + 1) for v in body}  # type: ignore[union-attr]
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as cause:
        raise CheckpointError(f"The checkpoint holds a malformed '{kind}' value", received=str(value)) from cause
    return _refuse(kind)


_DTYPES = {str(d).removeprefix("torch.") for d in vars(torch).values() if isinstance(d, torch.dtype)}


def _refuse(kind: Any) -> Any:
    raise CheckpointError(
        "The checkpoint holds a value of an unknown kind",
        received=kind,
        fix="It was written by a newer version, or is damaged.",
    )
