"""Small valid files in every format, and tools to bend them; shared by the asset tests."""

from __future__ import annotations

import base64
import json
import struct
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from threestudio_redream.assets import DEFAULT_LIMITS, Asset, Limits, load_asset
from threestudio_redream.errors import AssetError

#: A tetrahedron with its right angle at the origin, counter-clockwise from outside.
TETRA = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
TETRA_FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int64)

FLOAT, UBYTE, USHORT, UINT = 5126, 5121, 5123, 5125
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
_DTYPES = {FLOAT: "<f4", UBYTE: "u1", USHORT: "<u2", UINT: "<u4", 5120: "i1", 5122: "<i2"}


def png(pixels: Any = ((255, 0, 0, 255),)) -> bytes:
    """PNG of ``[H, W, C]`` pixels, or of one row of pixels."""
    from PIL import Image

    array = np.asarray(pixels, np.uint8)
    stream = BytesIO()
    Image.fromarray(array if array.ndim == 3 else array[None]).save(stream, "PNG")
    return stream.getvalue()


class Gltf:
    """Builds a glTF document piece by piece; ``root`` may be edited freely before it is written."""

    def __init__(self) -> None:
        self.binary = b""
        self.root: dict[str, Any] = {
            "asset": {"version": "2.0"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": []}],
            "bufferViews": [],
            "accessors": [],
            "buffers": [{"byteLength": 0}],
        }

    def view(self, data: bytes) -> int:
        self.binary += b"\0" * (-len(self.binary) % 4)
        self.root["bufferViews"].append({"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)})
        self.binary += data
        self.root["buffers"][0]["byteLength"] = len(self.binary)
        return len(self.root["bufferViews"]) - 1

    def accessor(self, values: Any, component: int = FLOAT, **extra: Any) -> int:
        array = np.asarray(values, _DTYPES[component])
        width = 1 if array.ndim == 1 else array.shape[1]
        entry = {"componentType": component, "count": len(array), "type": _TYPES[width]}
        self.root["accessors"].append({"bufferView": self.view(array.tobytes()), **entry, **extra})
        return len(self.root["accessors"]) - 1

    def primitive(self, mesh: int = 0, *, positions: Any = TETRA, faces: Any = TETRA_FACES, **attributes: Any) -> dict:
        entry: dict[str, Any] = {"attributes": {"POSITION": self.accessor(positions)}}
        if faces is not None:
            entry["indices"] = self.accessor(np.ravel(faces), USHORT)
        for name, value in attributes.items():
            entry["attributes"][name] = value if isinstance(value, int) else self.accessor(value)
        self.root["meshes"][mesh]["primitives"].append(entry)
        return entry

    def add(self, name: str, entry: Mapping[str, Any]) -> int:
        self.root.setdefault(name, []).append(entry)
        return len(self.root[name]) - 1

    def texture(self, image: bytes, **extra: Any) -> int:
        source = self.add("images", {"bufferView": self.view(image), "mimeType": "image/png"})
        return self.add("textures", {"source": source, **extra})

    def glb(self) -> bytes:
        return glb(self.root, self.binary)

    def gltf(self, uri: str | None = None) -> bytes:
        """JSON with the buffer as a data URI, or under ``uri``."""
        data = "data:application/octet-stream;base64," + base64.b64encode(self.binary).decode()
        self.root["buffers"][0]["uri"] = data if uri is None else uri
        return json.dumps(self.root).encode()


def glb(root: Any, binary: bytes = b"") -> bytes:
    text = root if isinstance(root, bytes) else json.dumps(root).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def textured_gltf() -> Gltf:
    """A tetrahedron with normals, a red 2x2 texture and a factor."""
    document = Gltf()
    document.primitive(NORMAL=TETRA + 0.1, TEXCOORD_0=TETRA[:, :2])["material"] = 0
    texture = document.texture(png(np.full((2, 2, 3), (255, 0, 0))))
    surface = {"baseColorTexture": {"index": texture}, "baseColorFactor": [1, 1, 1, 1]}
    document.add("materials", {"pbrMetallicRoughness": surface})
    return document


OBJ = b"""# a tetrahedron
mtllib scene.mtl
v 0 0 0
v 1 0 0
v 0 1 0
v 0 0 1
vt 0 0
vt 1 0
vt 0 1
usemtl red
f 1/1 3/3 2/2
f 1/1 2/2 4/3
usemtl blue
f 1/1 4/3 3/2
f 2/1 3/2 4/3
"""
MTL = b"newmtl red\nKd 1 0 0\nmap_Kd red.png\nnewmtl blue\nKd 0 0 0.5\nd 0.25\n"

OFF = b"OFF\n4 4 6\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n"

_PLY_HEADER = """ply
format {format} 1.0
comment made by a test
element vertex 4
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
element face 4
property list uchar int vertex_indices
end_header
"""


def ply(order: str = "ascii") -> bytes:
    """A tetrahedron with vertex colours; ``order`` is ``"ascii"``, ``"<"`` or ``">"``."""
    names = {"ascii": "ascii", "<": "binary_little_endian", ">": "binary_big_endian"}
    header = _PLY_HEADER.format(format=names[order]).encode()
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    if order == "ascii":
        rows = [" ".join(map(str, (*v, *c))) for v, c in zip(TETRA, colors)]
        rows += [" ".join(map(str, (3, *face))) for face in TETRA_FACES]
        return header + "\n".join(rows).encode() + b"\n"
    body = b"".join(struct.pack(order + "3f3B", *v, *c) for v, c in zip(TETRA, colors))
    return header + body + b"".join(struct.pack(order + "B3i", 3, *face) for face in TETRA_FACES)


def stl() -> bytes:
    facets = [struct.pack("<12fH", 0, 0, 0, *TETRA[face].ravel(), 0) for face in TETRA_FACES]
    return b"\0" * 80 + struct.pack("<I", len(facets)) + b"".join(facets)


def ascii_stl() -> bytes:
    lines = ["solid tetra"]
    for face in TETRA_FACES:
        lines += ["facet normal 0 0 0", "outer loop", *(f"vertex {x} {y} {z}" for x, y, z in TETRA[face])]
        lines += ["endloop", "endfacet"]
    return "\n".join([*lines, "endsolid tetra", ""]).encode()


def archive(members: Mapping[str, bytes]) -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return stream.getvalue()


#: One valid file of each format, with its extension.
VALID: dict[str, bytes] = {
    "glb": textured_gltf().glb(),
    "gltf": textured_gltf().gltf(),
    "obj": OBJ,
    "ply": ply(),
    "binary.ply": ply("<"),
    "big.ply": ply(">"),
    "stl": stl(),
    "ascii.stl": ascii_stl(),
    "off": OFF,
    "zip": archive({"scene/a.obj": OBJ, "scene/scene.mtl": MTL, "scene/red.png": png()}),
}


def save(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def load(folder: Path, name: str, data: bytes, limits: Limits = DEFAULT_LIMITS) -> Asset:
    """Write ``data`` as ``name`` and load it."""
    return load_asset(save(folder, name, data), limits=limits)


def refused(
    folder: Path, name: str, data: bytes, problem: str, *, limits: Limits = DEFAULT_LIMITS, received: object = None
) -> AssetError:
    """Loading must fail with a named error: ``problem`` in its sentence, a received value, and a way out."""
    path = save(folder, name, data)
    with pytest.raises(AssetError) as caught:
        load_asset(path, limits=limits)
    error = caught.value
    assert problem in error.problem, error
    assert error.received is not ..., error
    if received is not None:
        assert error.received == received, error
    assert len(error.fix) > 5, error
    assert str(error).startswith(path.name)
    assert "no check names" not in error.problem, error
    return error
