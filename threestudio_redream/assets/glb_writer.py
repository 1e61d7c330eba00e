"""Write an :class:`Asset` as GLB, the inverse of ``load_asset`` for that format."""

from __future__ import annotations

import json
import struct
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.shading import decode_srgb
from threestudio_redream.assets.types import Asset, Material

__all__ = ["encode_glb"]

_FLOAT, _USHORT, _UINT = 5126, 5123, 5125
_DTYPES = {_FLOAT: "<f4", _USHORT: "<u2", _UINT: "<u4"}
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
_WRAP = {"repeat": 10497, "clamp": 33071}


class _Builder:
    """Collects the binary chunk and the JSON lists that describe it."""

    def __init__(self) -> None:
        self.binary = bytearray()
        self.root: dict[str, Any] = {"bufferViews": [], "accessors": []}

    def view(self, data: bytes) -> int:
        self.binary += b"\0" * (-len(self.binary) % 4)
        self.root["bufferViews"].append({"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)})
        self.binary += data
        return len(self.root["bufferViews"]) - 1

    def accessor(self, values: NDArray, component: int) -> int:
        array = np.ascontiguousarray(values, _DTYPES[component])
        entry = {
            "bufferView": self.view(array.tobytes()),
            "componentType": component,
            "count": len(array),
            "type": _TYPES[1 if array.ndim == 1 else array.shape[1]],
        }
        if array.ndim == 2 and array.shape[1] == 3:  # required for positions, harmless for normals
            entry |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
        self.root["accessors"].append(entry)
        return len(self.root["accessors"]) - 1

    def material(self, material: Material) -> None:
        linear = decode_srgb(material.base_color[:3]).tolist()
        surface: dict[str, Any] = {"baseColorFactor": [*linear, material.base_color[3]], "metallicFactor": 0.0}
        if material.texture is not None:
            images, textures = self.root.setdefault("images", []), self.root.setdefault("textures", [])
            samplers = self.root.setdefault("samplers", [])
            images.append({"bufferView": self.view(_png(material.texture)), "mimeType": "image/png"})
            samplers.append({"wrapS": _WRAP[material.wrap], "wrapT": _WRAP[material.wrap]})
            textures.append({"source": len(images) - 1, "sampler": len(samplers) - 1})
            surface["baseColorTexture"] = {"index": len(textures) - 1}
        entry: dict[str, Any] = {"pbrMetallicRoughness": surface, "doubleSided": material.double_sided}
        if material.alpha_mode != "OPAQUE":
            entry["alphaMode"] = material.alpha_mode
        if material.alpha_mode == "MASK":
            entry["alphaCutoff"] = material.alpha_cutoff
        self.root.setdefault("materials", []).append(entry)


def _png(texture: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    stream = BytesIO()
    opaque = bool((texture[..., 3] == 255).all())
    Image.fromarray(np.ascontiguousarray(texture[..., :3] if opaque else texture)).save(stream, "PNG")
    return stream.getvalue()


def encode_glb(asset: Asset) -> bytes:
    """GLB bytes: one mesh, one primitive per material, all sharing one set of vertex attributes.

    Convention
    ----------
    Vertices are written as they are; the caller sees to it that +y is up and +z in front. Colours go
    from sRGB-encoded to linear, as glTF wants them: a base colour of 0.5 is written as 0.2140.
    """
    builder = _Builder()
    attributes = {
        "POSITION": builder.accessor(asset.vertices, _FLOAT),
        "NORMAL": builder.accessor(asset.normals, _FLOAT),
    }
    if asset.uvs is not None:
        attributes["TEXCOORD_0"] = builder.accessor(asset.uvs, _FLOAT)
    if asset.colors is not None:
        linear = np.concatenate([decode_srgb(asset.colors[:, :3]), asset.colors[:, 3:]], axis=1)
        attributes["COLOR_0"] = builder.accessor(linear, _FLOAT)
    primitives = []
    for index, material in enumerate(asset.materials):
        builder.material(material)
        faces = asset.faces[asset.face_materials == index]
        if len(faces):
            indices = builder.accessor(faces.reshape(-1), _USHORT if len(asset.vertices) < 65_536 else _UINT)
            primitives.append({"attributes": attributes, "indices": indices, "material": index})
    builder.binary += b"\0" * (-len(builder.binary) % 4)
    root = {
        "asset": {"version": "2.0", "generator": "threestudio-redream"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": asset.name}],
        "meshes": [{"primitives": primitives}],
        "buffers": [{"byteLength": len(builder.binary)}],
        **builder.root,
    }
    text = json.dumps(root, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = (
        struct.pack("<I4s", len(text), b"JSON")
        + text
        + struct.pack("<I4s", len(builder.binary), b"BIN\0")
        + builder.binary
    )
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
