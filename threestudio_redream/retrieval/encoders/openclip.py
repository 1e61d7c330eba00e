"""``openclip:`` encoders, through open_clip (extra ``openclip``)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from threestudio_redream.errors import ConfigError, MissingExtraError
from threestudio_redream.retrieval.encoders.preprocess import Preprocessing
from threestudio_redream.retrieval.encoders.towers import TowerEncoder

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["OpenClipEncoder"]


class OpenClipEncoder(TowerEncoder):
    """A model of open_clip.

    Args:
        name: what the user wrote. model: ``ViT-B-32/laion2b_s34b_b79k`` (architecture and weights), ``hf-hub:ID``, or
            ``local-dir:FOLDER`` with ``open_clip_config.json`` and safetensors.

    Raises:
        MissingExtraError: open_clip is not installed. ConfigError: no such model, or its preprocessing is unknown.
    """

    def __init__(
        self, name: str, model: str, *, device: str = "auto", dtype: str = "float32", batch_size: int = 32
    ) -> None:
        open_clip = _open_clip()
        self._module, self._tokenizer = _create(open_clip, model)
        prepare = Preprocessing.from_openclip(open_clip.get_model_preprocess_cfg(self._module))
        super().__init__(
            name,
            _width(self._module, self._tokenizer),
            _fingerprint(self._module, self._tokenizer, prepare),
            prepare,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
        )

    def _load(self) -> Any:
        return self._module

    def _text_features(self, model: Any, texts: list[str]) -> Tensor:
        return model.encode_text(self._tokenizer(texts).to(self.device))

    def _image_features(self, model: Any, pixels: Tensor) -> Tensor:
        return model.encode_image(pixels)


def _open_clip() -> Any:
    try:
        import open_clip
    except (ImportError, RuntimeError) as cause:
        raise MissingExtraError("open_clip", "openclip", "An openclip: encoder", cause) from cause
    return open_clip


def _create(open_clip: Any, model: str) -> tuple[Any, Any]:
    """Model and tokenizer."""
    kind, _, folder = model.partition(":")
    try:
        if kind == "local-dir":
            if not (Path(folder) / "open_clip_config.json").is_file():
                raise ConfigError(
                    "The folder is no open_clip model: open_clip_config.json not found",
                    received=folder,
                    fix="Give a folder with open_clip_config.json and open_clip_model.safetensors.",
                )
            if not any(Path(folder).glob("*.safetensors")):
                raise ConfigError(
                    "The folder holds no safetensors weights", received=folder, fix="Pickled weights are not opened."
                )
        if kind in ("local-dir", "hf-hub"):
            return (
                open_clip.create_model_from_pretrained(model, return_transform=False),
                open_clip.get_tokenizer(model),
            )
        architecture, slash, weights = model.partition("/")
        if not slash or not weights:
            raise ConfigError(
                "An openclip: encoder needs an architecture and weights",
                received=model,
                fix="Write for example openclip:ViT-B-32/laion2b_s34b_b79k.",
            )
        return (
            open_clip.create_model_from_pretrained(architecture, pretrained=weights, return_transform=False),
            open_clip.get_tokenizer(architecture),
        )
    except ConfigError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, AssertionError, FileNotFoundError) as cause:
        raise ConfigError(
            f"open_clip cannot open the model: {str(cause).splitlines()[0] if str(cause) else cause!r}",
            received=model,
            fix="open_clip.list_pretrained() tells the names; local folders are written local-dir:FOLDER.",
        ) from cause


def _width(module: Any, tokenizer: Any) -> int:
    """Length of an embedding: measured, as architectures say it in different places."""
    import torch

    with torch.inference_mode():
        return int(module.eval().encode_text(tokenizer([""])).shape[-1])


def _fingerprint(module: Any, tokenizer: Any, prepare: Preprocessing) -> str:
    """Digest over tensors as loaded, token ids of a sample, and preprocessing: the files have many forms."""
    import torch

    sample = "The quick brown fox, 3-D & café; naïve 漢字 \U0001f98a!"
    whole = hashlib.sha256(json.dumps(["open-clip", prepare.to_json()], sort_keys=True).encode())
    whole.update(np.asarray(tokenizer([sample])).astype(np.int64).tobytes())
    for key, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        whole.update(f"{key}\0{values.dtype}\0{tuple(values.shape)}\n".encode())
        whole.update(values.reshape(-1).view(torch.uint8).numpy().tobytes() if values.numel() else b"")
    return whole.hexdigest()
