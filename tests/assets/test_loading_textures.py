"""Texture images: formats, modes, damage, caps."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asset_files import TETRA, Gltf, load, png, refused, textured_gltf
from PIL import Image

from threestudio_redream.assets import DEFAULT_LIMITS, Asset
from threestudio_redream.assets.images import BrokenImageError, TexturePool, decode_image, image_size
from threestudio_redream.errors import AssetLimitError


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


def with_images(*images: bytes) -> Gltf:
    document = Gltf()
    for index, image in enumerate(images):
        surface = {"baseColorTexture": {"index": document.texture(image)}}
        document.primitive(positions=TETRA + index, TEXCOORD_0=TETRA[:, :2])["material"] = index
        document.add("materials", {"pbrMetallicRoughness": surface})
    return document


RED = Image.new("RGB", (4, 2), (255, 0, 0))


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "BMP", "DDS"])
def test_formats(format_: str) -> None:
    data = encoded(RED, format_)
    assert image_size(data, "a") == (4, 2)
    pixels = decode_image(data, "a", 64)
    assert pixels.shape == (2, 4, 4)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels[0, 0], [255, 0, 0, 255], atol=3)


def test_tga_has_no_magic_and_needs_its_name() -> None:
    data = encoded(RED, "TGA")
    assert decode_image(data, "a.TGA", 64)[0, 0].tolist() == [255, 0, 0, 255]
    with pytest.raises(BrokenImageError, match="unknown image format") as caught:
        image_size(data, "a.png")
    assert "PNG" in caught.value.fix


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("1", 1, [255, 255, 255, 255]),
        ("L", 7, [7, 7, 7, 255]),
        ("LA", (7, 9), [7, 7, 7, 9]),
        ("RGBA", (1, 2, 3, 0), [1, 2, 3, 0]),
        ("I;16", 0x8000, [128, 128, 128, 255]),
        ("P", 1, [0, 255, 0, 255]),
    ],
)
def test_modes(mode: str, color: Any, expected: list[int]) -> None:
    image = Image.new(mode, (2, 2), color)
    if mode == "P":
        image.putpalette([0, 0, 0, 0, 255, 0])
    assert decode_image(encoded(image, "PNG"), "a", 64)[1, 1].tolist() == expected


def test_row_zero_is_the_top() -> None:
    pixels = np.zeros((3, 2, 3), np.uint8)
    pixels[0, 1] = (9, 8, 7)
    assert decode_image(png(pixels), "a", 64)[0, 1].tolist() == [9, 8, 7, 255]


def test_large_textures_are_reduced_and_keep_the_colour_under_alpha_zero() -> None:
    pixels = np.full((4, 8, 4), (200, 100, 50, 0), np.uint8)
    reduced = decode_image(png(pixels), "a", 3)
    assert reduced.shape == (2, 3, 4)
    assert reduced[0, 0].tolist() == [200, 100, 50, 0]


def _plain(asset: Asset, warning: str) -> None:
    assert asset.materials[0].texture is None
    assert len(asset.info["warnings"]) == 1
    assert warning in asset.info["warnings"][0]


def _chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize(
    ("image", "warning"),
    [
        (b"", "unknown image format"),
        (b"<html>", "unknown image format"),
        (b"\xabKTX 20\xbb\r\n\x1a\n" + b"\0" * 64, "KTX2"),
        (png()[:20], "cannot be decoded"),
        (png()[:44], "cannot be decoded"),
        (encoded(RED, "JPEG")[:300], "cannot be decoded"),
        (b"\xff\xd8\xff\xd9" + b"\0" * 8, "cannot be decoded"),
        (encoded(Image.new("F", (2, 2)), "TIFF"), "unknown image format"),
    ],
)
def test_a_broken_texture_leaves_the_plain_colour_and_a_warning(tmp_path: Path, image: bytes, warning: str) -> None:
    document = with_images(image)
    document.root["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"] = [1, 0, 0, 1]
    asset = load(tmp_path, "a.glb", document.glb())
    _plain(asset, warning)
    assert asset.materials[0].base_color == (1.0, 0.0, 0.0, 1.0)


def test_a_missing_texture_leaves_a_warning(tmp_path: Path) -> None:
    document = textured_gltf()
    document.root["images"] = [{"uri": "gone.png"}]
    _plain(load(tmp_path, "a.glb", document.glb()), "was not found")


def _declared(width: int, height: int) -> bytes:
    """A PNG that claims a size."""
    return png()[:8] + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + _chunk(b"IDAT", b"x")


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (_declared(8192, 4097), "pixels in one texture"),
        (_declared(30_000, 30_000), "far larger"),
        (_declared(2**31 - 1, 2**31 - 1), "far larger"),
        (png()[:33] + _chunk(b"aaAa") * 16_400 + png()[33:], "PNG chunks"),
        (b"\xff\xd8" + b"\xff\xfe\x00\x02" * 2000, "JPEG segments"),
        (b"\xff\xd8" + b"\xff" * 5000, "JPEG segments"),
        (encoded(RED, "JPEG") + b"\xff\xda" * 30, "JPEG scans"),
    ],
)
def test_images_that_only_an_attacker_makes_are_errors(tmp_path: Path, image: bytes, problem: str) -> None:
    error = refused(tmp_path, "a.glb", with_images(image).glb(), problem)
    assert isinstance(error, AssetLimitError)


def test_the_total_is_checked_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from threestudio_redream.assets import images

    monkeypatch.setattr(images, "decode_image", lambda *arguments: pytest.fail("decoded too early"))
    document = with_images(*[_declared(4096, 4096)] * 4)
    refused(tmp_path, "a.glb", document.glb(), "texture pixels", received=4 * 4096 * 4096)
    document = with_images(png())
    document.root["accessors"][0] |= {"componentType": 5125}  # the positions become garbage
    document.primitive(positions=TETRA * 0)
    document.root["meshes"][0]["primitives"] = document.root["meshes"][0]["primitives"][1:]
    refused(tmp_path, "a.glb", document.glb(), "coincide")


def test_images_that_alias_the_same_bytes_share_a_budget(tmp_path: Path) -> None:
    document = with_images(png() + b"\0" * 5000)
    for _ in range(3):
        source = document.add("images", {"bufferView": document.root["images"][0]["bufferView"]})
        texture = document.add("textures", {"source": source})
        document.add("materials", {"pbrMetallicRoughness": {"baseColorTexture": {"index": texture}}})
    limits = replace(DEFAULT_LIMITS, max_bytes=12_000)
    refused(tmp_path, "a.glb", document.glb(), "bytes of texture files", limits=limits)


def test_images_are_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from threestudio_redream.assets import images

    calls: list[str] = []
    decode = images.decode_image
    monkeypatch.setattr(images, "decode_image", lambda *a: calls.append(a[1]) or decode(*a))  # type: ignore[func-returns-value]
    warnings: list[str] = []
    pool = TexturePool(DEFAULT_LIMITS, warnings)
    for _ in range(2):
        pool.request("a", "a", png)
        assert pool.texture("a") is pool.texture("a")
    pool.request("b", "b", lambda: png()[:44])
    assert pool.texture("b") is None
    assert pool.texture("b") is None
    assert pool.texture("unknown") is None
    assert calls.count("a") == 1
    assert len(warnings) == 1


def test_bytes_that_break_a_decoder_late() -> None:
    whole = encoded(Image.effect_noise((64, 64), 90), "PNG")
    assert image_size(whole[:-40], "a") == (64, 64)
    with pytest.raises(BrokenImageError, match="cannot be decoded"):
        decode_image(whole[:600], "a", 64)
    with pytest.raises(AssetLimitError, match="JPEG scans"):
        decode_image(encoded(RED, "JPEG") + b"\xff\xda" * 30, "a", 64)
