"""CLIP-like encoders behind one interface, :class:`threestudio_redream.retrieval.types.Encoder`.

>>> from threestudio_redream.retrieval.encoders import open_encoder
>>> encoder = open_encoder("mini")  # doctest: +SKIP
>>> encoder.encode_texts(["a red robot"]).shape  # doctest: +SKIP
(1, 128)
"""

from __future__ import annotations

from threestudio_redream.retrieval.encoders.preprocess import Preprocessing
from threestudio_redream.retrieval.encoders.registry import FULL, MINI, dtype_error, open_encoder

__all__ = ["FULL", "MINI", "Preprocessing", "dtype_error", "open_encoder"]
