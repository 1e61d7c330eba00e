"""What a run reads beside its configuration, by content: results that were made from other files do not mix."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

__all__ = ["index_content", "weights_content"]


@cache
def index_content(folder: str) -> str:
    """Of an index of assets, whatever its folder is called; from its manifest.

    Raises:
        RetrievalError: there is none.
    """
    from threestudio_redream.retrieval.index.manifest import read_manifest
    from threestudio_redream.shipped import shipped

    return read_manifest(shipped(folder)).content


@cache
def weights_content(model: str) -> str:
    """SHA-256 over the weights of a diffusion model that is a folder, or the shipped one; empty for one of the hub,
    whose name and revision the configuration says.

    Raises:
        ConfigError: the folder is no model.
    """
    from threestudio_redream.guidance.models import local_folder

    folder = local_folder(model) if model else None
    if folder is None:
        return ""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*.safetensors")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        content = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(2**20):
                content.update(block)
        digest.update(content.digest())
    return digest.hexdigest()
