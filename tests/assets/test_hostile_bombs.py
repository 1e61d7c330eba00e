"""Files that are made to cost time or memory.

The promise is an end within 2 s and 1 GB each. The memory is a hard limit here. The time is processor time; a
file that misses it is tried twice more, because work beside the tests inflates it.
"""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from asset_files import MTL, OBJ, TETRA, Gltf, archive, textured_gltf

from threestudio_redream.assets import DEFAULT_LIMITS

pytest.importorskip("resource", reason="process limits need POSIX")

SECONDS = 2.0

TEXT = DEFAULT_LIMITS.max_text_bytes
SQUARE = b"v 0.25 1.5 -3\nv 1 0 0\nv 0 1 0\n"
BINARY_PLY = (
    b"ply\nformat binary_little_endian 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    b"element face %d\nproperty list uchar int vertex_indices\nend_header\n"
)


def repeated(unit: bytes, head: bytes = b"", tail: bytes = b"") -> bytes:
    """As long as a text file may be."""
    return head + unit * ((TEXT - len(head) - len(tail)) // len(unit)) + tail


@cache
def image(format_: str, width: int, height: int) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (width, height), (9, 99, 200)).save(stream, format_, progressive=True)
    return stream.getvalue()


def textured_by(*images: bytes, flat: bool = False) -> bytes:
    document = Gltf()
    for index, data in enumerate(images):
        document.add("materials", {"pbrMetallicRoughness": {"baseColorTexture": {"index": document.texture(data)}}})
        positions = TETRA * (0 if flat else 1)
        document.primitive(positions=positions, TEXCOORD_0=TETRA[:, :2])["material"] = index
    return document.glb()


def jpeg_with_scans() -> bytes:
    data = image("JPEG", 8192, 4096)
    last, end = data.rfind(b"\xff\xda"), data.rfind(b"\xff\xd9")
    return data[:end] + data[last:end] * 5000 + b"\xff\xd9"


def png_with_chunks() -> bytes:
    data, chunk = image("PNG", 64, 64), struct.pack(">I4sI", 0, b"aaAa", zlib.crc32(b"aaAa"))
    return data[:33] + chunk * 2_000_000 + data[33:]


def aliased_images() -> bytes:
    document = textured_gltf()
    view = document.view(image("PNG", 16, 16) + b"\0" * 40_000_000)
    document.root["images"] = [{"bufferView": view}] * 1000
    document.root["textures"] = [{"source": index} for index in range(1000)]
    surface = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": index}}} for index in range(1000)]
    document.root["materials"] = surface
    return document.glb()


def instances(nodes: int, primitives: int) -> bytes:
    document = textured_gltf()
    document.root["nodes"] = [{"mesh": 0, "rotation": [0, 0, 0, 1], "scale": [1, 1, 0]}] * nodes
    document.root["scenes"] = [{"nodes": list(range(nodes))}]
    document.root["meshes"][0]["primitives"] *= primitives
    return document.glb()


def largest_mesh(value: float) -> bytes:
    document, count = Gltf(), DEFAULT_LIMITS.max_vertices
    positions = np.full((count, 3), value)
    document.primitive(positions=positions, faces=None, NORMAL=positions, TEXCOORD_0=positions[:, :2])
    return document.glb()


def declaring(size: int) -> bytes:
    """An archive whose member unpacks to 100 MB and declares ``size`` bytes."""
    data = bytearray(archive({"a.obj": b"v 1 2 3\n" * 12_500_000}))
    at = data.rfind(b"PK\x01\x02")
    data[at + 24 : at + 28] = data[22:26] = struct.pack("<I", size)
    return bytes(data)


def many_members() -> bytes:
    """An archive with 30,000 members that declares one."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for index in range(30_000):
            file.writestr(str(index), b"")
    data = bytearray(stream.getvalue())
    at = data.rfind(b"PK\x05\x06")
    data[at + 8 : at + 12] = struct.pack("<HH", 1, 1)
    return bytes(data)


def draco_points(count: int) -> bytes:
    DracoPy = pytest.importorskip("DracoPy")
    document = Gltf()
    entry = document.primitive()
    data = DracoPy.encode(np.zeros((count, 3), np.float32), np.zeros((count, 3), np.uint32), preserve_order=True)
    extension = {"bufferView": document.view(data), "attributes": {"POSITION": 0}}
    entry["extensions"] = {"KHR_draco_mesh_compression": extension}
    return document.glb()


def stl_facets() -> bytes:
    facets = np.random.default_rng(0).random((1_000_000, 12)).astype("<f4")
    rows = np.concatenate([facets.view(np.uint8), np.zeros((len(facets), 2), np.uint8)], axis=1)
    return b"\0" * 80 + struct.pack("<I", len(facets)) + rows.tobytes()


def ply_lists() -> bytes:
    three, four = struct.pack("<B3i", 3, 0, 1, 2), struct.pack("<B4i", 4, 0, 1, 2, 0)
    return BINARY_PLY % 1_000_000 + TETRA[:3].tobytes() + (three + four) * 500_000


_ERROR = "AssetError"
_CAP = "AssetLimitError"
#: name -> (contents, what must come out)
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "newlines.obj": (lambda: repeated(b"\n", SQUARE), _CAP),
    "faces.obj": (lambda: repeated(b"f 1 2 3\n", SQUARE), _CAP),
    "one-face.obj": (lambda: repeated(b" 1", SQUARE + b"f", b"\n"), _CAP),
    "slashes.obj": (lambda: repeated(b"/", SQUARE + b"f ", b"\n"), _ERROR),
    "one-number.obj": (lambda: repeated(b"1", SQUARE + b"v ", b"\n"), _ERROR),
    "exponents.obj": (lambda: repeated(b"v 1e1 2e2 3e-3 1e1 1e1 1e1\n", SQUARE, b"f 1 2 999999999\n"), _ERROR),
    "corners.obj": (lambda: repeated(b"v 1 2 3\nvn 1 2 3\nvt 1 2\nf -1/-1/-1 -2/-1/-1 -3/-1/-1\n", SQUARE), _CAP),
    "switches.obj": (lambda: repeated(b"usemtl a\n", SQUARE), _CAP),
    "tokens.ply": (
        lambda: repeated(b"1 ", (BINARY_PLY % 1_000_000).replace(b"binary_little_endian", b"ascii")),
        _ERROR,
    ),
    "lists.ply": (ply_lists, _CAP),
    "count.ply": (lambda: BINARY_PLY % (2**31), _CAP),
    "count.stl": (lambda: b"\0" * 80 + struct.pack("<I", 4_000_000_000) + b"\1" * 1000, _CAP),
    "facets.stl": (stl_facets, _CAP),
    "vertices.stl": (lambda: repeated(b"vertex 1 2 3\n", b"solid x\n", b"endsolid"), _ERROR),
    "faces.off": (lambda: repeated(b"3 0 1 9\n", b"OFF\n4 999999 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n"), _ERROR),
    "depth.gltf": (lambda: b'{"a":' + b"[" * 10_000_000 + b"]" * 10_000_000 + b"}", _CAP),
    "width.gltf": (lambda: b'{"asset":{"version":"2.0"},"a":[' + b"{}," * 1_300_000 + b"[]]}", _ERROR),
    "escapes.gltf": (lambda: repeated(b"\\\\", b'{"asset":{"version":"2.0"},"a":"', b'"}'), _ERROR),
    "instances.glb": (lambda: instances(10_000, 1), "Asset"),
    "copies.glb": (lambda: instances(10_000, 300), _CAP),
    "primitives.glb": (lambda: instances(1, 10_000), "Asset"),
    "zeros.glb": (lambda: largest_mesh(0.0), _ERROR),
    "nan.glb": (lambda: largest_mesh(np.nan), _ERROR),
    "chunks.glb": (
        lambda: struct.pack("<4sII", b"glTF", 2, 80_000_012) + struct.pack("<II", 0, 7) * 10_000_000,
        _ERROR,
    ),
    "pixels.glb": (lambda: textured_by(image("PNG", 8192, 4096), image("PNG", 4096, 4000)), "Asset"),
    "flat-pixels.glb": (lambda: textured_by(image("PNG", 8192, 4096), flat=True), _ERROR),
    "scans.glb": (lambda: textured_by(jpeg_with_scans()), _CAP),
    "png-chunks.glb": (lambda: textured_by(png_with_chunks()), _CAP),
    "fill-bytes.glb": (lambda: textured_by(b"\xff\xd8" + b"\xff" * 30_000_000), _CAP),
    "aliases.glb": (aliased_images, _CAP),
    "large.zip": (lambda: declaring(2**31), _CAP),
    "lying.zip": (lambda: declaring(50_000_000), _ERROR),
    "members.zip": (many_members, _CAP),
    "library.zip": (lambda: archive({"a.obj": OBJ, "scene.mtl": MTL + b"a\n" * 800_000}), _CAP),
    "points.glb": (lambda: draco_points(1_100_000), _ERROR),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, str]]:
    folder = tmp_path_factory.mktemp("bombs")
    for name, (build, _) in BOMBS.items():
        (folder / name).write_bytes(build())
    script = Path(__file__).with_name("asset_bombs.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(script), str(folder), str(SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    for path in folder.iterdir():
        path.unlink()
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: (seconds, outcome) for name, seconds, outcome in json.loads(done.stdout)}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb(results: dict[str, tuple[float, str]], name: str) -> None:
    seconds, outcome = results[name]
    assert outcome == BOMBS[name][1]
    assert seconds < SECONDS
