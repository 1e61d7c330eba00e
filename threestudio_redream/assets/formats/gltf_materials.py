"""Base colour of glTF materials: factor, texture, alpha, wrapping and KHR_texture_transform.

Factors are linear light in the file and sRGB-encoded in :class:`Material`: a factor of 0.2140 becomes 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.formats.gltf_buffers import Buffers
from threestudio_redream.assets.formats.gltf_json import (
    Document,
    as_index,
    as_int,
    as_number,
    as_numbers,
    as_object,
    as_text,
    extension,
)
from threestudio_redream.assets.images import TexturePool
from threestudio_redream.assets.limits import Limits
from threestudio_redream.assets.shading import encode_srgb
from threestudio_redream.assets.types import AlphaMode, Material, Wrap
from threestudio_redream.errors import AssetError

__all__ = ["MaterialPlan", "read_materials"]

_CLAMP, _MIRROR, _REPEAT = 33071, 33648, 10497


@dataclass
class MaterialPlan:
    """A material without its texture, and how its texture coordinates are made.

    ``image`` is an index or None, ``coordinates`` the number n of TEXCOORD_n, and ``transform`` ``[2, 3]``
    is applied to ``(u, v, 1)``.
    """

    material: Material
    image: int | None = None
    coordinates: int = 0
    transform: NDArray[np.float64] = field(default_factory=lambda: np.eye(2, 3))

    def finish(self, pool: TexturePool) -> Material:
        """The material with its decoded texture."""
        return self.material if self.image is None else replace(self.material, texture=pool.texture(self.image))


def _encoded(factor: list[float]) -> tuple[float, float, float, float]:
    linear = np.clip(np.array(factor[:3]), 0.0, 1.0)
    red, green, blue = (round(float(value), 7) for value in encode_srgb(linear))
    return red, green, blue, min(max(factor[3], 0.0), 1.0)


def _base(entry: dict[str, Any]) -> tuple[list[float], dict[str, Any] | None]:
    """Linear RGBA factor and texture reference, from metallic-roughness or specular-glossiness."""
    if (gloss := extension(entry, "KHR_materials_pbrSpecularGlossiness")) is not None:
        factor, texture = gloss.get("diffuseFactor"), gloss.get("diffuseTexture")
    else:
        metallic = as_object(entry.get("pbrMetallicRoughness", {}), "material.pbrMetallicRoughness")
        factor, texture = metallic.get("baseColorFactor"), metallic.get("baseColorTexture")
    values = [1.0] * 4 if factor is None else as_numbers(factor, 4, "baseColorFactor")
    return values, None if texture is None else as_object(texture, "baseColorTexture")


def _transform(reference: dict[str, Any]) -> tuple[int, NDArray[np.float64]]:
    """TEXCOORD set and ``[2, 3]`` matrix of a texture reference: scale, then rotate, then move.

    A positive rotation turns the coordinates counter-clockwise as seen with v down.
    """
    coordinates = as_int(reference.get("texCoord", 0), "texCoord", 0, 15)
    matrix = np.eye(2, 3)
    if (entry := extension(reference, "KHR_texture_transform")) is not None:
        coordinates = as_int(entry.get("texCoord", coordinates), "texCoord", 0, 15)
        angle = as_number(entry.get("rotation", 0.0), "rotation")
        scale = as_numbers(entry.get("scale", [1.0, 1.0]), 2, "scale")
        cos, sin = math.cos(angle), math.sin(angle)
        matrix[:, :2] = np.array([[cos, sin], [-sin, cos]]) * scale
        matrix[:, 2] = as_numbers(entry.get("offset", [0.0, 0.0]), 2, "offset")
    return coordinates, matrix


def _image_index(document: Document, texture: dict[str, Any]) -> int | None:
    """The image of a texture: WebP where given, else the plain source; None if there is only Basis (KTX2)."""
    webp = extension(texture, "EXT_texture_webp")
    source = webp.get("source") if webp is not None else texture.get("source")
    return None if source is None else as_index(source, document.items("images"), "texture.source")


def _wrap(document: Document, texture: dict[str, Any], warnings: list[str]) -> Wrap:
    if "sampler" not in texture:
        return "repeat"
    sampler = document.get("samplers", texture["sampler"], "texture.sampler")
    modes = {as_int(sampler.get(key, _REPEAT), f"sampler.{key}") for key in ("wrapS", "wrapT")}
    if _MIRROR in modes or len(modes) > 1:
        warnings.append("mirrored or mixed texture wrapping is treated as repeat")
    return "clamp" if modes == {_CLAMP} else "repeat"


def read_materials(
    document: Document, buffers: Buffers, limits: Limits, warnings: list[str]
) -> tuple[list[MaterialPlan], TexturePool]:
    """Plans of all materials, and last the default one for primitives that name none; their images.

    Image headers are checked against the caps here; pixels are decoded when a plan is finished.

    Raises:
        AssetError: wrong types, dangling indices, image references that leave the folder.
        AssetLimitError: too many texture pixels.
    """
    pool = TexturePool(limits, warnings)
    plans = [_plan(document, entry, warnings) for entry in document.items("materials")]
    for plan in plans:
        if (index := plan.image) is not None:
            pool.request(index, f"image {index}", lambda i=index: _image_bytes(document, buffers, i))  # type: ignore[misc]
    return [*plans, MaterialPlan(Material(double_sided=False))], pool


def _image_bytes(document: Document, buffers: Buffers, index: int) -> bytes:
    entry = document.items("images")[index]
    if "bufferView" in entry:
        return bytes(buffers.view(entry["bufferView"])[0])
    return buffers.uri_bytes(as_text(entry.get("uri"), "image.uri"), "a texture")


def _plan(document: Document, entry: dict[str, Any], warnings: list[str]) -> MaterialPlan:
    factor, reference = _base(entry)
    mode = entry.get("alphaMode", "OPAQUE")
    modes: dict[str, AlphaMode] = {"OPAQUE": "OPAQUE", "MASK": "MASK", "BLEND": "BLEND"}
    if not isinstance(mode, str) or mode not in modes:
        raise AssetError("glTF material.alphaMode is unknown", received=mode, fix="Use OPAQUE, MASK or BLEND")
    wrap: Wrap = "repeat"
    image, coordinates, transform = None, 0, np.eye(2, 3)
    if reference is not None:
        texture = document.get("textures", reference.get("index"), "baseColorTexture.index")
        image, wrap = _image_index(document, texture), _wrap(document, texture, warnings)
        coordinates, transform = _transform(reference)
        if image is None:
            warnings.append(
                "a texture is stored only as KTX2 / Basis, which cannot be decoded; a plain colour is shown"
            )
    material = Material(
        base_color=_encoded(factor),
        alpha_mode=modes[mode],
        alpha_cutoff=as_number(entry.get("alphaCutoff", 0.5), "material.alphaCutoff"),
        double_sided=entry.get("doubleSided") is True,
        wrap=wrap,
    )
    return MaterialPlan(material, image, coordinates, transform)
