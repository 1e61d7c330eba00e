"""Files that are made to cost time or memory: each must end within 2 s of processor time and 1 GB."""

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
from pathlib import Path

import numpy as np
import pytest
from asset_files import MTL, OBJ, TETRA, TETRA_FACES, Gltf, archive, textured_gltf

from threestudio_redream.assets import DEFAULT_LIMITS

pytest.importorskip("resource", reason="process limits need POSIX")

TEXT = DEFAULT_LIMITS.max_text_bytes
SQUARE = b"v 0.25 1.5 -3\nv 1 0 0\nv 0 1 0\n"
BINARY_PLY = (
    b"ply\nformat binary_little_endian 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    b"element face %d\nproperty list uchar int vertex_indices\nend_header\n"
)


def repeated(unit: bytes, head: bytes = b"", tail: bytes = b"") -> bytes:
    """As long as a text file may be."""
    return head + unit * ((TEXT - len(head) - len(tail)) // len(unit)) + tail


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


def unnamed_sizes() -> bytes:
    data = bytearray(archive({"a.obj": b"v 1 2 3\n" * 40_000_000}))
    at = data.rfind(b"PK\x01\x02")
    data[at + 24 : at + 28] = data[22:26] = struct.pack("<I", 100_000_000)
    return bytes(data)


def many_members(honest: bool) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for index in range(50_000):
            file.writestr(str(index), b"")
    data = bytearray(stream.getvalue())
    if not honest:
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


_NOTHING = "AssetError"
_CAP = "AssetLimitError"
#: name -> (contents, what must come out)
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "newlines.obj": (lambda: repeated(b"\n", SQUARE), _CAP),
    "faces.obj": (lambda: repeated(b"f 1 2 3\n", SQUARE), _CAP),
    "one-face.obj": (lambda: repeated(b" 1", SQUARE + b"f", b"\n"), _CAP),
    "slashes.obj": (lambda: repeated(b"/", SQUARE + b"f ", b"\n"), _NOTHING),
    "one-number.obj": (lambda: repeated(b"1", SQUARE + b"v ", b"\n"), _NOTHING),
    "vertices.obj": (lambda: repeated(b"v 0.123456 1.234567 -0.9876543\n", SQUARE, b"f 1 2 999999999\n"), _NOTHING),
    "exponents.obj": (lambda: repeated(b"v 1e1 2e2 3e-3 1e1 1e1 1e1\n", SQUARE, b"f 1 2 999999999\n"), _NOTHING),
    "corners.obj": (lambda: repeated(b"v 1 2 3\nvn 1 2 3\nvt 1 2\nf -1/-1/-1 -2/-1/-1 -3/-1/-1\n", SQUARE), _CAP),
    "switches.obj": (lambda: repeated(b"usemtl a\n", SQUARE), _CAP),
    "comments.obj": (lambda: repeated(b"v #\n", SQUARE), _CAP),
    "indent.obj": (lambda: repeated(b" ", SQUARE, b"f 1 2 3\n"), _NOTHING),
    "tokens.ply": (
        lambda: repeated(b"1 ", (BINARY_PLY % 1_000_000).replace(b"binary_little_endian", b"ascii")),
        _NOTHING,
    ),
    "lists.ply": (ply_lists, _CAP),
    "count.ply": (lambda: BINARY_PLY % (2**31), _CAP),
    "count.stl": (lambda: b"\0" * 80 + struct.pack("<I", 4_000_000_000) + b"\1" * 1000, _CAP),
    "facets.stl": (stl_facets, _CAP),
    "vertices.stl": (lambda: repeated(b"vertex 1 2 3\n", b"solid x\n", b"endsolid"), _NOTHING),
    "faces.off": (lambda: repeated(b"3 0 1 9\n", b"OFF\n4 999999 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n"), _NOTHING),
    "depth.gltf": (lambda: b'{"a":' + b"[" * 10_000_000 + b"]" * 10_000_000 + b"}", _CAP),
    "width.gltf": (lambda: b'{"asset":{"version":"2.0"},"a":[' + b"{}," * 1_300_000 + b"[]]}", _NOTHING),
    "escapes.gltf": (lambda: repeated(b"\\\\", b'{"asset":{"version":"2.0"},"a":"', b'"}'), _NOTHING),
    "quotes.gltf": (lambda: repeated(b'"",', b'{"a":[', b'""]}'), _CAP),
    "instances.glb": (lambda: instances(10_000, 1), "Asset"),
    "copies.glb": (lambda: instances(10_000, 300), _CAP),
    "primitives.glb": (lambda: instances(1, 10_000), "Asset"),
    "zeros.glb": (lambda: largest_mesh(0.0), _NOTHING),
    "nan.glb": (lambda: largest_mesh(np.nan), _NOTHING),
    "chunks.glb": (
        lambda: struct.pack("<4sII", b"glTF", 2, 80_000_012) + struct.pack("<II", 0, 7) * 10_000_000,
        _NOTHING,
    ),
    "pixels.glb": (lambda: textured_by(image("PNG", 8192, 4096), image("PNG", 4096, 4000)), "Asset"),
    "flat-pixels.glb": (lambda: textured_by(image("PNG", 8192, 4096), flat=True), _NOTHING),
    "scans.glb": (lambda: textured_by(jpeg_with_scans()), _CAP),
    "png-chunks.glb": (lambda: textured_by(png_with_chunks()), _CAP),
    "fill-bytes.glb": (lambda: textured_by(b"\xff\xd8" + b"\xff" * 30_000_000), _CAP),
    "aliases.glb": (aliased_images, _CAP),
    "honest.zip": (lambda: archive({"a.obj": b"v 1 2 3\n" * 40_000_000}), _CAP),
    "lying.zip": (unnamed_sizes, _NOTHING),
    "members.zip": (lambda: many_members(True), _CAP),
    "hidden-members.zip": (lambda: many_members(False), _CAP),
    "library.zip": (lambda: archive({"a.obj": OBJ, "scene.mtl": MTL + b"a\n" * 800_000}), _CAP),
    "points.glb": (lambda: draco_points(3_000_000), _NOTHING),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, str]]:
    folder = tmp_path_factory.mktemp("bombs")
    for name, (build, _) in BOMBS.items():
        (folder / name).write_bytes(build())
    script = Path(__file__).with_name("asset_bombs.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, env=environment, check=False
    )
    for path in folder.iterdir():
        path.unlink()
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: (seconds, outcome) for name, seconds, outcome in json.loads(done.stdout)}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb(results: dict[str, tuple[float, str]], name: str) -> None:
    seconds, outcome = results[name]
    assert outcome == BOMBS[name][1]
    assert seconds < 2.0


def test_the_budget_is_enforced(tmp_path: Path) -> None:
    """The script must be able to fail: with a cap lifted, memory runs out and is reported as such."""
    script = Path(__file__).with_name("asset_bombs.py").read_text(encoding="utf-8")
    (tmp_path / "bombs").mkdir()
    (tmp_path / "bombs" / "a.glb").write_bytes(largest_mesh(1.0))
    lifted = tmp_path / "lifted.py"
    lifted.write_text(script.replace("(1024**3, 1024**3)", "(200 * 1024**2,) * 2"), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(lifted), str(tmp_path / "bombs")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode != 0 or json.loads(done.stdout)[0][2] == "MemoryError"
    assert TETRA_FACES.max() == 3
