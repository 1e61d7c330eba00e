"""A cache of text embeddings on disk, keyed on content: the prompt and a fingerprint of the model."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from threestudio_redream.runtime.files import atomic_path

__all__ = ["EmbeddingCache", "fingerprint_path", "fingerprint_tensors"]

log = logging.getLogger("pytorch_lightning")

MAX_FILE_BYTES = 64 * 2**20  # one prompt of any text encoder is far below


class EmbeddingCache:
    """One safetensors file per (model fingerprint, prompt) in ``folder``.

    A damaged or foreign file counts as absent, so that its prompt is encoded again.
    """

    def __init__(self, folder: str | Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = Path(folder), fingerprint

    def path(self, prompt: str) -> Path:
        digest = hashlib.sha256(f"{self.fingerprint}\0{prompt}".encode()).hexdigest()
        return self.folder / f"{digest}.safetensors"

    def load(self, prompt: str) -> Tensor | None:
        """``[N, F]`` float on the CPU, or None if it is not there."""
        path = self.path(prompt)
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise ValueError("the file is too large")
            embedding = load_file(path).get("embedding")
            if embedding is None or embedding.ndim != 2 or not bool(torch.isfinite(embedding).all()):
                raise ValueError("it holds no finite embedding [N, F]")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, SafetensorError) as error:
            log.warning("The cached text embedding %s is not usable and will be made again: %s", path, error)
            return None
        return embedding

    def store(self, prompt: str, embedding: Tensor) -> None:
        """Write ``[N, F]`` atomically; several processes may do so at once."""
        owned = embedding.detach().to("cpu", copy=True).contiguous()
        with atomic_path(self.path(prompt)) as temporary:
            save_file({"embedding": owned}, temporary)


def fingerprint_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, e.g. of a ``state_dict``: for tuned text encoders."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        data = tensor.detach().cpu().contiguous().reshape(-1)
        if data.numel():
            digest.update(data.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fingerprint_path(name_or_path: str) -> str:
    """A hub name stands for itself; a local file or folder for its name and every file's size and time.

    Contents are not read: a text encoder is half a gigabyte. Whoever replaces a file and keeps size
    and modification time must delete the cache.
    """
    path = Path(name_or_path).expanduser()
    if not name_or_path or not path.exists():
        return name_or_path
    digest = hashlib.sha256(str(path.resolve()).encode())
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        status = file.stat()
        digest.update(f"{file.relative_to(path.parent)}:{status.st_size}:{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
