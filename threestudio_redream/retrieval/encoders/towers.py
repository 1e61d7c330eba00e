"""What all encoders share: batches, unit length, dtype, device, checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.errors import ConfigError
from threestudio_redream.retrieval.encoders.preprocess import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DTYPES", "TowerEncoder", "choose_device", "unit_rows"]

Float = NDArray[np.float32]
DTYPES = ("float32", "bfloat16", "float16")


def choose_device(device: str) -> str:
    """``auto``: CUDA if there is some, else the CPU."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def unit_rows(vectors: Float, model: str) -> Float:
    """Rows scaled to length 1.

    Raises:
        ConfigError: a row is zero or not finite.
    """
    length = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not (np.isfinite(length).all() and (length > 0.0).all()):
        raise ConfigError(
            "The encoder made an embedding that is zero or not finite",
            received=model,
            fix="Use float32; if it stays, the weights are damaged.",
        )
    return (vectors / length).astype(np.float32)


class TowerEncoder(ABC):
    """Base of encoders whose towers run in torch; the towers are loaded when they are first needed.

    Subclasses give ``_load``, ``_text_features`` and ``_image_features``.
    """

    def __init__(
        self, name: str, dim: int, fingerprint: str, prepare: Preprocessing, *, device: str, dtype: str, batch_size: int
    ) -> None:
        if dtype not in DTYPES:
            raise ConfigError("The dtype of the encoder is unknown", received=dtype, fix=f"Use one of {DTYPES}.")
        if batch_size < 1:
            raise ConfigError("The batch size must be positive", received=batch_size, fix="Use for example 32.")
        self.name, self.dim, self.fingerprint = name, dim, fingerprint
        self.prepare = prepare
        self.image_size = prepare.size
        self.preprocessing: dict[str, Any] = prepare.to_json()
        self.device, self.dtype, self.batch_size = device, dtype, batch_size
        self._model: Any = None

    @abstractmethod
    def _load(self) -> Any: ...

    @abstractmethod
    def _text_features(self, model: Any, texts: list[str]) -> Tensor: ...

    @abstractmethod
    def _image_features(self, model: Any, pixels: Tensor) -> Tensor: ...

    @property
    def model(self) -> Any:
        """The torch module, loaded."""
        if self._model is None:
            import torch

            self.device = choose_device(self.device)
            self._model = self._load().eval().to(self.device, getattr(torch, self.dtype)).requires_grad_(False)
        return self._model

    def encode_texts(self, texts: Sequence[str]) -> Float:
        """``[N, dim]`` float32 unit vectors. Texts longer than the model's context are cut off at its end."""
        import torch

        model = self.model
        with torch.inference_mode():
            parts = [self._text_features(model, batch) for batch in _batches(list(texts), self.batch_size)]
        return self._vectors(parts)

    def encode_images(self, images: Float) -> Float:
        """``[N, dim]`` float32 unit vectors of ``[N, H, W, 3]`` in [0, 1], sRGB-encoded.

        Raises:
            ConfigError: images of another shape.
        """
        import torch

        model, parts = self.model, []
        with torch.inference_mode():
            for start in range(0, len(images), self.batch_size):
                pixels = torch.from_numpy(self.prepare(images[start : start + self.batch_size]))
                parts.append(self._image_features(model, pixels.to(self.device, next(model.parameters()).dtype)))
        return self._vectors(parts)

    def _vectors(self, parts: list[Tensor]) -> Float:
        if not parts:
            return np.zeros((0, self.dim), np.float32)
        return unit_rows(np.concatenate([part.float().cpu().numpy() for part in parts]), self.name)


def _batches(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
