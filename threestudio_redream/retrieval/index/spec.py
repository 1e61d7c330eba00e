"""What all vectors of an index have in common: the model, its preprocessing, the cameras, the number format."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from threestudio_redream.retrieval.checks import Document, plain_json
from threestudio_redream.retrieval.errors import IndexMismatchError, RetrievalError
from threestudio_redream.retrieval.types import Encoder

__all__ = ["DTYPES", "PROBE_TEXT", "Calibration", "EncoderInfo", "IndexSpec"]

DTYPES = ("float16", "bfloat16", "float32")
PROBE_TEXT = "a small red wooden boat, seen from the front"
MAX_DIM = 65_536
MAX_VIEWS = 1024
_PROBE_COSINE = 0.999  # bf16 encoders and other BLAS builds stay above it; other weights are far below


@dataclass(frozen=True)
class EncoderInfo:
    """Name, embedding length, fingerprint and preprocessing of a :class:`~.types.Encoder`, as stored in an index."""

    name: str
    dim: int
    fingerprint: str
    preprocessing: dict[str, Any]

    @staticmethod
    def of(encoder: Encoder) -> EncoderInfo:
        """The part of an encoder that is stored."""
        return EncoderInfo(encoder.name, encoder.dim, encoder.fingerprint, plain_json(encoder.preprocessing))


@dataclass(frozen=True)
class IndexSpec:
    """What makes two sets of vectors comparable.

    Attributes:
        encoder: what made them.
        probe: ``[dim]``: the encoder's unit vector of :data:`PROBE_TEXT`. It tells weights apart that claim the same
            name, and encoders whose preprocessing of text changed.
        probe_text: the text of the probe.
        views_per_asset: renders per asset; 0 if the index holds captions only.
        cameras: JSON description of the camera set of the renders.
        dtype: number format on disk: ``float16`` (default; cosines are off by less than 1e-4), ``bfloat16`` or
            ``float32``.
        settings: free JSON values about the build (source, filters); not compared.
    """

    encoder: EncoderInfo
    probe: tuple[float, ...]
    probe_text: str = PROBE_TEXT
    views_per_asset: int = 0
    cameras: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float16"
    settings: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(
        encoder: Encoder,
        *,
        views_per_asset: int = 8,
        cameras: dict[str, Any] | None = None,
        dtype: str = "float16",
        settings: dict[str, Any] | None = None,
    ) -> IndexSpec:
        """The spec of an index made with ``encoder``; encodes the probe text.

        Raises:
            RetrievalError: unknown ``dtype``, or values that JSON cannot hold.
        """
        if dtype not in DTYPES:
            raise RetrievalError(
                "an index cannot store numbers of this type", received=dtype, fix=f"Use one of {', '.join(DTYPES)}"
            )
        try:
            cameras, settings = plain_json(cameras or {}), plain_json(settings or {})
            info = EncoderInfo.of(encoder)
        except (TypeError, ValueError) as error:
            raise RetrievalError(
                "cameras, settings and preprocessing must be plain JSON values",
                received=str(error),
                fix="Turn arrays and paths into lists and texts",
            ) from error
        probe = np.asarray(encoder.encode_texts([PROBE_TEXT]), np.float32)[0]
        rounded = tuple(round(float(value), 6) for value in probe)
        return IndexSpec(info, rounded, PROBE_TEXT, views_per_asset, cameras, dtype, settings)

    def to_json(self) -> dict[str, Any]:
        """Plain values; :meth:`from_json` reads them."""
        encoder = self.encoder
        return {
            "encoder": {
                "name": encoder.name,
                "dim": encoder.dim,
                "fingerprint": encoder.fingerprint,
                "preprocessing": encoder.preprocessing,
            },
            "probe": {"text": self.probe_text, "vector": list(self.probe)},
            "views_per_asset": self.views_per_asset,
            "cameras": self.cameras,
            "dtype": self.dtype,
            "settings": self.settings,
        }

    @staticmethod
    def from_json(document: Document) -> IndexSpec:
        """Read the keys that :meth:`to_json` wrote.

        Raises:
            IndexDamagedError: a value has another type or range.
        """
        encoder, probe = document.child("encoder"), document.child("probe")
        encoder.only("name", "dim", "fingerprint", "preprocessing")
        probe.only("text", "vector")
        dim = encoder.whole("dim", 1, MAX_DIM)
        vector = probe.items("vector", dim, lambda value: type(value) in (int, float) and abs(value) <= 1.01)
        if len(vector) != dim or not 0.98 < math.fsum(value * value for value in vector) < 1.02:
            probe.refuse("vector", len(vector), f"a unit vector of {dim} numbers")
        return IndexSpec(
            EncoderInfo(
                encoder.text("name"),
                dim,
                encoder.text("fingerprint", r"[0-9a-f]{8,128}"),
                dict(encoder.child("preprocessing").values),
            ),
            tuple(map(float, vector)),
            probe.text("text"),
            document.whole("views_per_asset", 0, MAX_VIEWS),
            dict(document.child("cameras").values),
            document.text("dtype", "|".join(DTYPES)),
            dict(document.child("settings").values),
        )

    def require_same(self, other: IndexSpec, what: str) -> None:
        """Refuse vectors that cannot be compared with those of this index.

        Args:
            other: of the vectors that are to be added. what: names them in the message.

        Raises:
            IndexMismatchError: names the first difference.
        """
        pairs = {
            "embedding length": (self.encoder.dim, other.encoder.dim),
            "encoder": (self.encoder.fingerprint, other.encoder.fingerprint),
            "preprocessing": (self.encoder.preprocessing, other.encoder.preprocessing),
            "number of views per asset": (self.views_per_asset, other.views_per_asset),
            "camera set": (self.cameras, other.cameras),
            "number format": (self.dtype, other.dtype),
        }
        for name, (mine, theirs) in pairs.items():
            if mine != theirs:
                raise IndexMismatchError(
                    f"the {name} of {what} differs from that of the index, which is {_shown(mine)}",
                    received=theirs,
                    fix=f"Make the vectors with {self.encoder.name!r} and the settings that `redream index info` shows",
                )
        self._require_probe(np.asarray(other.probe), what)

    def require_encoder(self, encoder: Encoder) -> None:
        """Refuse an encoder whose vectors cannot be compared with those of this index.

        The fingerprint and the preprocessing are compared, and then what the encoder really makes of the probe text.

        Raises:
            IndexMismatchError: names the difference.
        """
        info = EncoderInfo.of(encoder)
        what = f"encoder {encoder.name!r}"
        for name, mine, theirs in (
            ("embedding length", self.encoder.dim, info.dim),
            ("preprocessing", self.encoder.preprocessing, info.preprocessing),
            ("fingerprint", self.encoder.fingerprint, info.fingerprint),
        ):
            if mine != theirs:
                raise IndexMismatchError(
                    f"the index was made by another encoder: the {name} of {what} differs from {_shown(mine)}",
                    received=theirs,
                    fix=f"Search with {self.encoder.name!r}, or build the index again with {encoder.name!r}",
                )
        self._require_probe(np.asarray(encoder.encode_texts([self.probe_text]), np.float64)[0], what)

    def _require_probe(self, vector: np.ndarray, what: str) -> None:
        cosine = float(vector @ np.asarray(self.probe) / max(float(np.linalg.norm(vector)), 1e-12))
        if not cosine >= _PROBE_COSINE:
            raise IndexMismatchError(
                f"{what} claims to be the one of the index, but its vector of the probe text is another: the cosine "
                f"must be at least {_PROBE_COSINE}",
                received=round(cosine, 4),
                fix=f"Check the weights of {self.encoder.name!r}, or build the index again with the ones you have",
            )


@dataclass(frozen=True)
class Calibration:
    """When the best hit of a query counts as "nothing similar".

    Attributes:
        text, image: thresholds of the cosine of the best hit with the caption and with the views; None if the index
            could not tell. The image one is used where the best hit has views.
        balanced_accuracy: of the threshold in use, on the data it was chosen from; 0.5 is guessing.
        n_similar, n_foreign: how many queries of either kind it was chosen from.
        method: one line for people.
    """

    text: float | None = None
    image: float | None = None
    balanced_accuracy: float = 0.5
    n_similar: int = 0
    n_foreign: int = 0
    method: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values; :meth:`from_json` reads them."""
        return dict(vars(self))

    @staticmethod
    def from_json(document: Document) -> Calibration:
        """Read what :meth:`to_json` wrote. Raises IndexDamagedError."""
        document.only("text", "image", "balanced_accuracy", "n_similar", "n_foreign", "method")
        given = {key: document.values.get(key) is not None for key in ("text", "image")}
        return Calibration(
            document.number("text", -1.0, 1.0) if given["text"] else None,
            document.number("image", -1.0, 1.0) if given["image"] else None,
            document.number("balanced_accuracy", 0.0, 1.0),
            document.whole("n_similar"),
            document.whole("n_foreign"),
            document.text("method"),
        )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
