"""Names of encoders, and how they are opened."""

from __future__ import annotations

from typing import Any

from threestudio_redream.errors import ConfigError
from threestudio_redream.retrieval.types import Encoder

__all__ = ["FULL", "MINI", "dtype_error", "open_encoder"]

MINI = "mini"
#: The encoder for whole libraries of real assets.
FULL = "hf:openai/clip-vit-large-patch14"


def open_encoder(
    name: str = MINI,
    *,
    device: str = "auto",
    dtype: str = "float32",
    batch_size: int = 32,
    texts_only: bool = False,
) -> Encoder:
    """Open an encoder. Its weights are read when they are first needed.

    Args:
        name: ``mini``; ``hf:ID``, ``hf:ID@REVISION`` or ``hf:FOLDER`` (a ``transformers.CLIPModel``); or
            ``openclip:MODEL/WEIGHTS``, ``openclip:hf-hub:ID``, ``openclip:local-dir:FOLDER`` (extra ``openclip``).
        device: ``auto``, ``cpu``, ``cuda``, ... dtype: of the towers: ``float32``, ``bfloat16`` (about three times as
            fast on CPUs with AMX or AVX-512 BF16) or ``float16``; embeddings are float32 all the same.
        batch_size: texts or images at a time.
        texts_only: mostly single texts will come, as in a search: they go through a numpy tower where the model has
            one, which spares the import of torch. Images still work.

    Raises:
        ConfigError: unknown name, missing or unusable model. MissingExtraError: the extra is not installed.
    """
    options: dict[str, Any] = {"device": device, "dtype": dtype, "batch_size": batch_size}
    kind, _, rest = name.partition(":")
    if name == MINI or (kind == "hf" and rest):
        from threestudio_redream.retrieval.encoders.hf import HfEncoder

        if name == MINI:
            from threestudio_redream.mini import CLIP as folder

            if not (folder / "config.json").is_file():
                raise ConfigError(
                    "The mini CLIP is not in place",
                    received=str(folder),
                    fix="Restore threestudio_redream/mini from the repository, or train it: "
                    "python -m tools.mini.train_clip.",
                )
        else:
            from threestudio_redream.retrieval.encoders.weights import find_model

            folder = find_model(rest)
        return HfEncoder(name, folder, light=texts_only, **options)
    if kind == "openclip" and rest:
        from threestudio_redream.retrieval.encoders.openclip import OpenClipEncoder

        return OpenClipEncoder(name, rest, **options)
    raise ConfigError(
        "The encoder is unknown", received=name, fix="Use mini, hf:ID_OR_FOLDER or openclip:MODEL/WEIGHTS."
    )


def dtype_error(name: str, dtype: str, *, device: str = "auto") -> dict[str, float]:
    """What a lower precision costs: embeddings of fixed texts and pictures against float32.

    Returns:
        ``text`` and ``image``: the largest absolute difference of a cosine similarity within each kind of sample;
        ``text_image``: the same between texts and pictures, which is what a search compares.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    texts = ["a red robot", "a wooden chair", "the back view of a blue bird", "a small house", "a clay teapot", "cat"]
    coarse = rng.random((6, 4, 4, 3)).astype(np.float32)
    plain, low = (open_encoder(name, device=device, dtype=kind) for kind in ("float32", dtype))
    images = coarse.repeat(plain.image_size // 4, 1).repeat(plain.image_size // 4, 2)
    (text, image), (text_low, image_low) = (
        (encoder.encode_texts(texts), encoder.encode_images(images)) for encoder in (plain, low)
    )
    return {
        "text": float(np.abs(text @ text.T - text_low @ text_low.T).max()),
        "image": float(np.abs(image @ image.T - image_low @ image_low.T).max()),
        "text_image": float(np.abs(text @ image.T - text_low @ image_low.T).max()),
    }
