"""Checkpoints without pickle: one safetensors file, written atomically, verified when read.

The file is an ordinary ``.safetensors`` archive. Its metadata hold a format version, a JSON tree of
everything that is not a tensor (loop counters, optimizer and callback state, RNG states) and a
SHA-256 over tree and tensors. It stands where Lightning would write a pickled ``.ckpt``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from threestudio_redream.errors import CheckpointError
from threestudio_redream.runtime.files import atomic_path, visible
from threestudio_redream.runtime.state_tree import decode, encode

__all__ = [
    "SUFFIX",
    "SafeCheckpointIO",
    "load_module_weights",
    "newest_checkpoint",
    "read_checkpoint",
    "resolve_checkpoint",
    "write_checkpoint",
]

log = logging.getLogger("pytorch_lightning")

SUFFIX = ".safetensors"
FORMAT = "redream-checkpoint-1"
MAX_TREE_BYTES = 64 * 2**20


def write_checkpoint(path: str | Path, tree: dict[str, Any]) -> None:
    """Write ``tree`` (nested dicts, lists, numbers, text and tensors) to ``path`` atomically.

    A kill at any moment leaves the old file or the new one.

    Raises:
        CheckpointError: if the tree holds a value that cannot be stored without pickle.
    """
    value, tensors = encode(tree)
    text = json.dumps(value, allow_nan=False)
    # safetensors refuses tensors that share memory; a private contiguous CPU copy is what we want anyway
    owned = {key: tensor.to("cpu", copy=True).contiguous() for key, tensor in tensors.items()}
    metadata = {"format": FORMAT, "tree": text, "sha256": _digest(text, owned.items())}
    with atomic_path(path, sync=True) as temporary:
        save_file(owned, temporary, metadata=metadata)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a file of :func:`write_checkpoint`; tensors are on the CPU.

    Raises:
        CheckpointError: if the file is missing, damaged, or not one of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            "The checkpoint does not exist",
            received=str(path),
            fix="Give a file in the trial's ckpts folder, or resume=last.",
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(
                    "The file holds weights alone, not the state of a run",
                    received=str(path),
                    fix="It can start a run (system.weights=FILE), not continue one (resume=FILE).",
                )
            if len(metadata.get("tree", "")) > MAX_TREE_BYTES:
                raise CheckpointError("The checkpoint's state tree is too large", received=len(metadata["tree"]))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, UnicodeDecodeError) as cause:
        raise CheckpointError(
            f"The checkpoint cannot be read: {cause}", received=str(path), fix=_FOREIGN_FIX
        ) from cause
    tree_text = metadata.get("tree", "")
    if _digest(tree_text, tensors.items()) != metadata.get("sha256"):
        raise CheckpointError(
            "The checkpoint is damaged: its checksum does not match",
            received=str(path),
            fix="Use the checkpoint before it in the same folder.",
        )
    try:
        value = json.loads(tree_text)
    except (ValueError, RecursionError) as cause:
        raise CheckpointError("The checkpoint's state tree is not JSON", received=str(path)) from cause
    tree = decode(value, tensors)
    if not isinstance(tree, dict):
        raise CheckpointError("The checkpoint's state is not a mapping", received=type(tree).__name__)
    return tree


_FOREIGN_FIX = (
    "Checkpoints written by upstream threestudio or plain Lightning are pickles and are not opened; docs/faq.md says "
    "how to convert the weights of one that you trust to safetensors, for system.weights=FILE."
)


def newest_checkpoint(folder: str | Path) -> Path | None:
    """The newest readable checkpoint in ``folder``, judged by its step; damaged ones are skipped with a warning."""
    candidates = sorted(visible(Path(folder).glob(f"*{SUFFIX}")), key=_order, reverse=True)
    for path in candidates:
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            log.warning("Passing over a checkpoint: %s", error)
            continue
        return path
    return None


def resolve_checkpoint(resume: str | None, trial_dir: str | Path) -> Path | None:
    """What the ``resume`` key means: a file, a trial folder, or ``last`` (the newest of this trial).

    ``last`` with no checkpoint yet means to start from the beginning.

    Raises:
        CheckpointError: if a named file or folder holds no usable checkpoint, or all of this trial are damaged.
    """
    if resume is None:
        return None
    if resume == "last":
        folder = Path(trial_dir) / "ckpts"
        newest = newest_checkpoint(folder)
        if newest is None and any(visible(folder.glob(f"*{SUFFIX}"))):
            raise CheckpointError(
                "No checkpoint of this trial can be read",
                received=str(folder),
                fix="Restore one from a copy, or delete them to begin anew.",
            )
        return newest
    path = Path(resume)
    if path.is_dir():
        found = newest_checkpoint(path / "ckpts") or newest_checkpoint(path)
        if found is None:
            raise CheckpointError(
                "The folder holds no usable checkpoint", received=resume, fix="Look in its ckpts folder."
            )
        return found
    if not path.is_file() and path.with_suffix(SUFFIX).is_file():
        path = path.with_suffix(SUFFIX)  # 'last.ckpt' is what upstream's users type
    read_checkpoint(path)
    return path


def load_module_weights(
    path: str | Path, module_name: str | None = None, ignore_modules: Iterable[str] | None = None
) -> tuple[dict[str, Tensor], int, int]:
    """The ``state_dict`` of a checkpoint, or plain safetensors, cut to one module or without some.

    Returns:
        ``(state_dict, epoch, global_step)``, 0 and 0 for plain safetensors; ``module_name`` is taken off the names.

    Raises:
        CheckpointError: if both selections are given, or nothing is left.
    """
    if module_name is not None and ignore_modules is not None:
        raise CheckpointError(
            "module_name and ignore_modules exclude each other", received=(module_name, ignore_modules), fix="Give one."
        )
    checkpoint = _plain_weights(Path(path)) or read_checkpoint(path)
    state: dict[str, Tensor] = checkpoint["state_dict"]
    if ignore_modules is not None:
        ignored = tuple(f"{name}." for name in ignore_modules)
        state = {key: value for key, value in state.items() if not key.startswith(ignored)}
    if module_name:
        prefix = f"{module_name}."
        state = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
        if not state:
            known = sorted({key.split(".")[0] for key in checkpoint["state_dict"]})
            raise CheckpointError(
                "The checkpoint has no such module", received=module_name, fix=f"It holds: {', '.join(known)}."
            )
    return state, int(checkpoint["epoch"]), int(checkpoint["global_step"])


def _plain_weights(path: Path) -> dict[str, Any] | None:
    """Safetensors of another origin as a checkpoint of step 0; None for what is none, or ours."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            if (file.metadata() or {}).get("format") == FORMAT:
                return None
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, UnicodeDecodeError):
        return None
    return {"state_dict": tensors, "epoch": 0, "global_step": 0}


class SafeCheckpointIO(CheckpointIO):
    """Lightning plugin that reads and writes every checkpoint through this module."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        write_checkpoint(path, checkpoint)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        checkpoint = read_checkpoint(path)
        if isinstance(map_location, str | torch.device):
            return _map_tensors(checkpoint, lambda tensor: tensor.to(map_location))
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def _map_tensors(node: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(node, Tensor):
        return function(node)
    if isinstance(node, dict):
        return {key: _map_tensors(value, function) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_map_tensors(value, function) for value in node)
    return node


def _digest(text: str, tensors: Iterable[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256(text.encode())
    for key, tensor in sorted(tensors):
        digest.update(f"{key}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def _order(path: Path) -> tuple[int, int]:
    step = re.search(r"step=(\d+)", path.name)
    return (int(step.group(1)) if step else -1, path.stat().st_mtime_ns)
