"""Decode texture images: header first, caps second, pixels last."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.files import MissingSideFileError
from threestudio_redream.assets.limits import Limits, check_limit
from threestudio_redream.errors import AssetError, AssetLimitError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["BrokenImageError", "TexturePool", "decode_image", "image_size"]

#: A normal progressive JPEG has about ten scans; each costs a pass over all coefficients.
_MAX_JPEG_SCANS = 20
#: Pillow walks over these one by one. libpng writes chunks of 8 KiB, so the cap is met at 128 MiB.
_MAX_PNG_CHUNKS = 16_384
_MAX_JPEG_SEGMENTS = 1024


class BrokenImageError(AssetError):
    """An image cannot be decoded; the asset goes on without it."""


def _image_format(data: bytes, name: str) -> str:
    """Pillow's name of the format, from the bytes. TIFF and the rarer formats stay closed on purpose."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith(b"DDS "):
        return "DDS"
    if data.startswith(b"BM"):
        return "BMP"
    if name.lower().endswith(".tga"):
        return "TGA"
    kind = "a KTX2 / Basis image" if data.startswith(b"\xabKTX 20") else "of an unknown image format"
    raise BrokenImageError(
        f"texture {name!r} is {kind}", received=data[:12], fix="Convert it to PNG, JPEG, WebP, DDS, BMP or TGA"
    )


def _png_chunks(data: bytes) -> int:
    """Chunks of a PNG, counted up to just above the cap."""
    at = count = 8
    while at + 12 <= len(data) and count < _MAX_PNG_CHUNKS + 10:
        at, count = at + 12 + int.from_bytes(data[at : at + 4], "big"), count + 1
    return count - 8


def _jpeg_segments(data: bytes) -> int:
    """Segments and fill bytes in front of the first scan of a JPEG, counted up to just above the cap."""
    at, count = 2, 0
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA and count <= _MAX_JPEG_SEGMENTS:
        alone = data[at + 1] in (0xFF, 0x01) or 0xD0 <= data[at + 1] <= 0xD8
        at += (1 if data[at + 1] == 0xFF else 2) if alone else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        count += 1
    if data[at : at + 2] != b"\xff\xda" and count <= _MAX_JPEG_SEGMENTS:
        raise ValueError("no image data")
    return count


def _check_structure(data: bytes, format_: str, name: str) -> None:
    """Refuse images whose structure only serves to keep a decoder busy."""
    counts: list[tuple[str, int, int]] = []
    if format_ == "PNG":
        counts = [("PNG chunks", _png_chunks(data), _MAX_PNG_CHUNKS)]
    elif format_ == "JPEG":
        try:
            counts = [("JPEG segments", _jpeg_segments(data), _MAX_JPEG_SEGMENTS)]
        except ValueError as error:
            raise _broken(name, error) from error
        counts.append(("JPEG scans", data.count(b"\xff\xda"), _MAX_JPEG_SCANS))
    for what, count, cap in counts:
        if count > cap:
            raise AssetLimitError(f"texture {name!r} has more than {cap} {what}", received=count, fix="Save it again")


def _open(data: bytes, name: str) -> Image.Image:
    from PIL import Image

    format_ = _image_format(data, name)
    _check_structure(data, format_, name)
    try:
        return Image.open(BytesIO(data), formats=(format_,))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise AssetLimitError(
            f"texture {name!r} is far larger than any texture needs", received=str(error), fix="Scale it down"
        ) from error
    except (
        Exception
    ) as error:  # Pillow's plugins raise whatever the damage leads to, struct.error and SyntaxError included
        raise _broken(name, error) from error


def image_size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height in pixels as the header declares them.

    Raises:
        BrokenImageError: not an image, or not one of PNG, JPEG, WebP, DDS, BMP, TGA.
        AssetLimitError: a size or structure that only an attack has.
    """
    with _open(data, name) as image:
        return image.size


def decode_image(data: bytes, name: str, side: int) -> NDArray[np.uint8]:
    """``[H, W, 4]`` uint8 RGBA, row 0 at the top; scaled down by a whole factor to at most ``side`` pixels.

    Raises:
        BrokenImageError: the pixels cannot be decoded.
    """
    from PIL import Image

    try:
        with _open(data, name) as image:
            image.load()
            if image.mode.startswith("I"):  # 16-bit greyscale, which Pillow would clip instead of scaling
                grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
                image = Image.fromarray(grey)
            factor = -(-max(image.size) // side)
            rgba = image.convert("RGBA")
        if factor > 1:  # band by band: Pillow's RGBA reduction would blacken the colour under alpha 0
            rgba = Image.merge("RGBA", [band.reduce(factor) for band in rgba.split()])
        return np.array(rgba)
    except AssetError:
        raise
    except Exception as error:  # as in _open
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> BrokenImageError:
    return BrokenImageError(
        f"texture {name!r} cannot be decoded: {type(error).__name__}",
        received=str(error)[:120],
        fix="Save it again as PNG",
    )


class TexturePool:
    """The textures of one asset: each decoded once, all of them under common caps.

    ``request`` every image first: the total of the declared sizes is checked before anything is
    decoded. A missing or broken image leaves a warning and no texture; breaking a cap is an error.
    """

    def __init__(self, limits: Limits, warnings: list[str]) -> None:
        self._limits, self._warnings, self._total, self._bytes = limits, warnings, 0, 0
        self._data: dict[Hashable, tuple[bytes, str] | None] = {}
        self._pixels: dict[Hashable, NDArray[np.uint8] | None] = {}

    def request(self, key: Hashable, name: str, read: Callable[[], bytes]) -> None:
        """Announce the image ``key``; ``read`` fetches its bytes on the first request."""
        if key in self._data:
            return
        self._data[key] = None
        try:
            data = read()
            self._bytes += len(data)  # glTF images may all be views of the same bytes
            check_limit(self._limits, "max_bytes", self._bytes, "bytes of texture files")
            width, height = image_size(data, name)
        except (MissingSideFileError, BrokenImageError) as error:
            self._warnings.append(str(error))
            return
        self._total += width * height
        check_limit(self._limits, "max_texture_pixels", width * height, "pixels in one texture")
        check_limit(self._limits, "max_total_texture_pixels", self._total, "texture pixels")
        self._data[key] = (data, name)

    def texture(self, key: Hashable) -> NDArray[np.uint8] | None:
        """The decoded image ``[H, W, 4]``, or None if it was missing or broken."""
        if key not in self._pixels:
            self._pixels[key] = None
            if (entry := self._data.get(key)) is not None:
                try:
                    self._pixels[key] = decode_image(*entry, self._limits.texture_side)
                except BrokenImageError as error:
                    self._warnings.append(str(error))
        return self._pixels[key]
