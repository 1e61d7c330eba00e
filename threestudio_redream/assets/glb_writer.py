"""Write an :class:`Asset` as GLB, the inverse of ``load_asset`` for that format."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.glb_container import GlbContainer
from threestudio_redream.assets.shading import decode_srgb
from threestudio_redream.assets.types import Asset, Material

__all__ = ["encode_glb"]

_WRAP = {"repeat": 10497, "clamp": 33071}
_QUANTIZED, _TRANSFORM = "KHR_mesh_quantization", "KHR_texture_transform"
#: Faces of one colour from which on a material of their own is smaller than vertex colours.
_FLAT_FACES = 24


class _Builder(GlbContainer):
    """A container that knows materials and primitives.

    Args:
        compact: PNG files with a palette where that loses nothing.
        window: ``(u, v, width, height)`` of the texture coordinates if they are stored as shares of that rectangle.
    """

    def __init__(self, compact: bool = False, window: NDArray[np.float64] | None = None) -> None:
        super().__init__()
        self._compact, self._window = compact, window
        self._textures: dict[int, int] = {}

    def material(self, material: Material, color: NDArray | None = None) -> int:
        """A material whose base colour is multiplied with ``color`` (RGBA, sRGB-encoded) in linear light."""
        linear, alpha = decode_srgb(material.base_color[:3]), material.base_color[3]
        if color is not None:
            linear, alpha = linear * decode_srgb(color[:3]), alpha * float(color[3])
        surface: dict[str, Any] = {"baseColorFactor": [*linear.tolist(), alpha], "metallicFactor": 0.0}
        if material.texture is not None:
            surface["baseColorTexture"] = {"index": self._texture(material, material.texture)}
            if self._window is not None:
                transform = {"offset": self._window[:2].tolist(), "scale": self._window[2:].tolist()}
                surface["baseColorTexture"]["extensions"] = {_TRANSFORM: transform}
        entry: dict[str, Any] = {"pbrMetallicRoughness": surface, "doubleSided": material.double_sided}
        if material.alpha_mode != "OPAQUE":
            entry["alphaMode"] = material.alpha_mode
        if material.alpha_mode == "MASK":
            entry["alphaCutoff"] = material.alpha_cutoff
        self.root.setdefault("materials", []).append(entry)
        return len(self.root["materials"]) - 1

    def _texture(self, material: Material, texture: NDArray[np.uint8]) -> int:
        images, textures = self.root.setdefault("images", []), self.root.setdefault("textures", [])
        samplers = self.root.setdefault("samplers", [])
        if id(material) not in self._textures:
            self._textures[id(material)] = len(textures)
            images.append({"bufferView": self.view(_png(texture, self._compact)), "mimeType": "image/png"})
            samplers.append({"wrapS": _WRAP[material.wrap], "wrapT": _WRAP[material.wrap]})
            textures.append({"source": len(images) - 1, "sampler": len(samplers) - 1})
        return self._textures[id(material)]

    def primitive(self, attributes: dict[str, int], corners: NDArray, count: int, material: int) -> dict[str, Any]:
        """Triangles by their ``corners`` ``[3 F]`` among ``count`` vertices; index 65,535 may not be used."""
        indices = self.accessor(corners, "<u2" if count < 65_536 else "<u4")
        return {"attributes": attributes, "indices": indices, "material": material}


def _png(texture: NDArray[np.uint8], compact: bool) -> bytes:
    from PIL import Image

    stream = BytesIO()
    opaque = bool((texture[..., 3] == 255).all())
    image = Image.fromarray(np.ascontiguousarray(texture[..., :3] if opaque else texture))
    if compact and opaque:
        packed = np.ascontiguousarray(texture).view("<u4")[..., 0]
        colors, indices = np.unique(packed, return_inverse=True)
        if len(colors) <= 256:
            image = Image.fromarray(indices.reshape(packed.shape).astype(np.uint8))
            image.putpalette(colors.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes())
    image.save(stream, "PNG", optimize=compact)
    return stream.getvalue()


def encode_glb(asset: Asset, *, compact: bool = False, copyright: str | None = None) -> bytes:
    """GLB bytes of an asset; the same asset gives the same bytes.

    As it is, every attribute is written as float32: one mesh, one primitive per material, all sharing one set of
    vertex attributes. ``compact`` takes a third to two thirds of that: positions in steps of 1/65,535 of the longest
    side (KHR_mesh_quantization; the node scales them back), normals to 0.4 %, texture coordinates in 65,535 steps over
    the rectangle that they span (KHR_texture_transform) and only where there is a texture, vertex colours in 16 bits
    and only where a face is not of one colour: faces of one colour become a material with that base colour.

    Convention
    ----------
    Vertices are written as they are; the caller sees to it that +y is up and +z in front. Colours go
    from sRGB-encoded to linear, as glTF wants them: a base colour of 0.5 is written as 0.2140.

    Args:
        copyright: for ``asset.copyright`` of the document: who made it, under which licence.
    """
    builder, primitives, place = _compact(asset) if compact else _exact(asset)
    about = {"version": "2.0", "generator": "threestudio-redream"} | ({"copyright": copyright} if copyright else {})
    extensions: dict[str, Any] = {}
    if compact:
        names = [_QUANTIZED, *([_TRANSFORM] if "textures" in builder.root else [])]
        extensions = {"extensionsUsed": names, "extensionsRequired": names}
    return builder.finish(
        {
            "asset": about,
            **extensions,
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0, "name": asset.name, **place}],
            "meshes": [{"primitives": primitives}],
        }
    )


_Encoded = tuple[_Builder, list[dict[str, Any]], dict[str, Any]]


def _exact(asset: Asset) -> _Encoded:
    """Builder, primitives and the node's transform."""
    builder = _Builder()
    attributes = {"POSITION": builder.accessor(asset.vertices, "<f4"), "NORMAL": builder.accessor(asset.normals, "<f4")}
    if asset.uvs is not None:
        attributes["TEXCOORD_0"] = builder.accessor(asset.uvs, "<f4")
    if asset.colors is not None:
        attributes["COLOR_0"] = builder.accessor(_linear(asset.colors), "<f4")
    primitives = []
    for index, material in enumerate(asset.materials):
        written = builder.material(material)
        faces = asset.faces[asset.face_materials == index]
        if len(faces):
            primitives.append(builder.primitive(attributes, faces.reshape(-1), len(asset.vertices), written))
    return builder, primitives, {}


def _linear(colors: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.concatenate([decode_srgb(colors[:, :3]), colors[:, 3:]], axis=1)


class _Piece(NamedTuple):
    """Faces ``[F, 3]`` of one material and of one ``color`` (RGBA), or of colours by vertex (None)."""

    material: Material
    color: NDArray[np.float32] | None
    faces: NDArray[np.int32]


def _pieces(asset: Asset) -> Iterator[_Piece]:
    """The faces by material and colour."""
    for index, material in enumerate(asset.materials):
        faces = asset.faces[asset.face_materials == index]
        if asset.colors is None:
            yield _Piece(material, np.ones(4, np.float32), faces)
            continue
        corners = asset.colors[faces]
        flat = (corners == corners[:, :1]).all(axis=(1, 2))
        colors, which, counts = np.unique(corners[flat, 0], axis=0, return_inverse=True, return_counts=True)
        group = np.full(len(faces), -1)
        group[flat] = np.where(counts >= _FLAT_FACES, np.arange(len(colors)), -1)[which.reshape(-1)]
        for number in np.unique(group):
            yield _Piece(material, None if number < 0 else colors[number], faces[group == number])


def _compact(asset: Asset) -> _Encoded:
    """Builder, primitives and the node's transform."""
    low = asset.vertices.min(axis=0).astype(np.float64)
    step = float(np.ptp(asset.vertices.astype(np.float64), axis=0).max()) / 65_535.0 or 1.0
    positions = np.round((asset.vertices - low) / step)
    uvs = np.zeros((len(positions), 2)) if asset.uvs is None else asset.uvs.astype(np.float64)
    pools: dict[tuple[bool, bool], list[_Piece]] = {}
    for piece in _pieces(asset):
        if len(piece.faces):
            pools.setdefault((piece.material.texture is not None, piece.color is None), []).append(piece)
    window = np.array([0.0, 0.0, 1.0, 1.0])
    if any(textured for textured, _ in pools):
        shown = uvs[
            np.concatenate([p.faces.ravel() for (textured, _), pool in pools.items() if textured for p in pool])
        ]
        window = np.concatenate([shown.min(axis=0), np.maximum(np.ptp(shown, axis=0), 1e-6)])
    builder, primitives = _Builder(True, window), []
    for (textured, colored), pool in sorted(pools.items(), key=lambda item: item[0]):
        used, corners = np.unique(np.concatenate([piece.faces.ravel() for piece in pool]), return_inverse=True)
        attributes = {
            "POSITION": builder.accessor(positions[used], "<u2"),
            "NORMAL": builder.accessor(np.round(127.0 * asset.normals[used]), "|i1", normalized=True),
        }
        if textured:
            share = np.round((uvs[used] - window[:2]) / window[2:] * 65_535.0)
            attributes["TEXCOORD_0"] = builder.accessor(share, "<u2", normalized=True)
        if colored and asset.colors is not None:
            stored = np.round(_linear(asset.colors[used]) * 65_535.0)
            attributes["COLOR_0"] = builder.accessor(stored, "<u2", normalized=True)
        start = 0
        for piece in pool:
            stop = start + piece.faces.size
            material = builder.material(piece.material, piece.color)
            primitives.append(builder.primitive(attributes, corners.reshape(-1)[start:stop], len(used), material))
            start = stop
    return builder, primitives, {"translation": low.tolist(), "scale": [step] * 3}
