"""PLY, text and binary of either byte order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.assemble import Parsed, Part
from threestudio_redream.assets.files import SideFiles
from threestudio_redream.assets.formats.mtl import GREY
from threestudio_redream.assets.formats.numbers import parse_floats
from threestudio_redream.assets.formats.ply_body import AsciiBody, BinaryBody, Columns, Element, Property, Ragged
from threestudio_redream.assets.formats.polygons import fan_corners
from threestudio_redream.assets.images import TexturePool
from threestudio_redream.assets.limits import Limits, check_limit
from threestudio_redream.assets.surface import position_ids
from threestudio_redream.assets.types import Material
from threestudio_redream.errors import AssetError

__all__ = ["parse"]

_MAX_HEADER = 65_536
_MAX_PROPERTIES = 256
_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip
_UV_NAMES = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("texture_s", "texture_t"))
_COLOR_NAMES = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))


def parse(data: bytes, files: SideFiles, limits: Limits) -> Parsed:
    """Read a PLY file: positions, normals, colours, texture coordinates per vertex or per face corner.

    A ``comment TextureFile NAME`` line, as MeshLab writes it, binds the texture; v is flipped.

    Raises:
        AssetError: damaged header, truncated body, or what is in it is no mesh.
        AssetLimitError: more announced than allowed.
    """
    order, elements, textures, body_at = _header(data, limits)
    body = _body(memoryview(data)[body_at:], order, limits)
    columns: dict[str, Columns] = {}
    for element in elements:
        columns[element.name] = body.read(element)
        if {"vertex", "face"} <= columns.keys():
            break
    warnings: list[str] = []
    types = {prop.name: prop.type for element in elements if element.name == "vertex" for prop in element.properties}
    part = _part(columns.get("vertex", {}), types, columns.get("face", {}), limits)
    pool = TexturePool(limits, warnings)
    if textures and part.uvs is not None:
        pool.request(textures[0], textures[0], lambda: files.read(textures[0], "a texture"))
        if len(textures) > 1:
            warnings.append(f"the file names {len(textures)} textures; the first is used for all faces")

    def materials() -> list[Material]:
        texture = pool.texture(textures[0]) if textures else None
        plain = GREY if part.colors is None and texture is None else (1.0, 1.0, 1.0, 1.0)
        return [Material(plain, texture)]

    return Parsed([part], materials, warnings)


def _body(data: memoryview, order: str, limits: Limits) -> AsciiBody | BinaryBody:
    if order != "ascii":
        return BinaryBody(data, order)
    check_limit(limits, "max_text_bytes", len(data), "bytes of text")
    return AsciiBody(parse_floats(bytes(data), "PLY rows"))


def _header(data: bytes, limits: Limits) -> tuple[str, Sequence[Element], Sequence[str], int]:
    """Byte order (``"ascii"``, ``"<"`` or ``">"``), elements, texture names, and where the body starts."""
    at = data.find(b"end_header", 0, _MAX_HEADER)
    newline = data.find(b"\n", at, at + 16) if at >= 0 else -1
    if at < 0:
        raise AssetError("the PLY header has no end", received=data[:40], fix="Download or export the file again")
    body_at = newline + 1 if newline >= 0 else at + len(b"end_header") + 1
    order, elements, textures = "", list[Element](), list[str]()
    for line in data[:at].decode("latin-1").splitlines()[1:]:
        words = line.split()
        if words[:1] == ["format"] and len(words) > 1:
            order = {"ascii": "ascii", "binary_little_endian": "<", "binary_big_endian": ">"}.get(words[1], "")
        elif words[:2] == ["comment", "TextureFile"] and len(words) > 2:
            textures.append(line.split("TextureFile", 1)[1].strip())
        elif words[:1] == ["element"]:
            elements.append(Element(words[1] if len(words) == 3 else "", _element_count(words)))
        elif words[:1] == ["property"]:
            if not elements:
                raise _bad_header(line)
            elements[-1].properties.append(_property(words))
    if not order:
        raise _bad_header("format")
    for element in elements:
        names = [prop.name for prop in element.properties]
        if len(set(names)) != len(names) or len(names) > _MAX_PROPERTIES:
            raise _bad_header(f"element {element.name}")
        if element.name == "vertex" or not element.has_list:
            check_limit(limits, "max_vertices", element.count, f"rows of {element.name!r}")
    # Lists are read one by one if their lengths differ, whatever they are for; faces may have two each.
    lists = sum(element.count * sum(p.count_type is not None for p in element.properties) for element in elements)
    check_limit(limits, "max_faces", lists // 2, "faces")
    return order, elements, textures, body_at


def _bad_header(line: str) -> AssetError:
    return AssetError("the PLY header makes no sense", received=line, fix="Export the file again")


def _element_count(words: Sequence[str]) -> int:
    if len(words) != 3 or not words[2].isascii() or not words[2].isdigit() or len(words[2]) > 18:
        raise _bad_header(" ".join(words))
    return int(words[2])


def _property(words: Sequence[str]) -> Property:
    if (
        len(words) == 5
        and words[1] == "list"
        and words[2] in _TYPES
        and words[3] in _TYPES
        and _TYPES[words[2]][0] != "f"
    ):
        return Property(words[4], _TYPES[words[3]], _TYPES[words[2]])
    if len(words) == 3 and words[1] in _TYPES:
        return Property(words[2], _TYPES[words[1]])
    raise _bad_header(" ".join(words))


def _scalars(columns: Columns, names: Sequence[str]) -> NDArray[np.float64] | None:
    """``[rows, len(names)]``, or None unless all are there as scalars."""
    found = [columns.get(name) for name in names]
    if any(column is None or isinstance(column, Ragged) for column in found):
        return None
    return np.stack([np.asarray(column, np.float64) for column in found], axis=1)


def _colors(vertex: Columns, types: dict[str, str]) -> NDArray[np.float64] | None:
    for names in _COLOR_NAMES:
        if (rgb := _scalars(vertex, names)) is None:
            continue
        alpha = _scalars(vertex, ("alpha",)) if "alpha" in vertex else None
        code = types[names[0]]
        scale = (
            1.0
            if code[0] == "f" and np.nanmax(rgb, initial=0.0) <= 1.0
            else 255.0
            if code[0] == "f"
            else float(np.iinfo(code).max)
        )
        return np.concatenate([rgb, np.full((len(rgb), 1), scale) if alpha is None else alpha], axis=1) / scale
    return None


def _part(vertex: Columns, types: dict[str, str], face: Columns, limits: Limits) -> Part:
    vertices = _scalars(vertex, ("x", "y", "z"))
    if vertices is None:
        raise AssetError("the PLY file has no vertices with x, y, z", received=sorted(vertex)[:10], fix="Export a mesh")
    polygons = face.get("vertex_indices", face.get("vertex_index"))
    if not isinstance(polygons, Ragged):
        raise AssetError(
            "the PLY file holds no faces: it is a point cloud or uses triangle strips",
            received=sorted(face)[:10],
            fix="Export a mesh with faces",
        )
    corners, _ = fan_corners(polygons.counts, limits)
    indices = np.clip(np.nan_to_num(polygons.values.astype(np.float64), nan=-1.0), -1, 2**53).astype(np.int64)
    faces = indices[corners]
    uvs = next((uv for names in _UV_NAMES if (uv := _scalars(vertex, names)) is not None), None)
    part = Part(vertices, faces, 0, _scalars(vertex, ("nx", "ny", "nz")), uvs, _colors(vertex, types))
    wedges = face.get("texcoord")
    if isinstance(wedges, Ragged) and np.array_equal(wedges.counts, 2 * polygons.counts) and len(faces):
        part = _split(part, wedges.values.reshape(-1, 2)[corners].astype(np.float64))
    if part.uvs is not None:
        part.uvs = part.uvs * (1.0, -1.0) + (0.0, 1.0)
    return part


def _split(part: Part, corner_uvs: NDArray[np.float64]) -> Part:
    """One vertex per distinct pair of old vertex and texture coordinate; ``corner_uvs`` is ``[F, 3, 2]``."""
    old = part.faces.ravel()
    if int(old.min()) < 0 or int(old.max()) >= len(part.vertices):
        return part  # assemble names the index
    pairs = np.concatenate([corner_uvs.reshape(-1, 2), old[:, None]], axis=1)  # indices are exact in float32 up to 2^24
    first, group = position_ids(pairs)
    keep = old[first]
    return Part(
        part.vertices[keep],
        group.reshape(-1, 3),
        part.material,
        None if part.normals is None else part.normals[keep],
        pairs[first, :2],
        None if part.colors is None else part.colors[keep],
    )
