"""Decide what a file is from its bytes; the extension only breaks ties."""

from __future__ import annotations

import re
from typing import Literal

from threestudio_redream.errors import AssetError

__all__ = ["Format", "sniff"]

Format = Literal["glb", "gltf", "obj", "ply", "stl", "stl-ascii", "off", "zip"]

#: What people hand over by mistake -> (what it is, what to do).
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "Run 'git lfs pull'"),
    (b"Kaydara FBX Binary", "an FBX file", "Convert it to GLB, for example with Blender"),
    (b"BLENDER", "a Blender file", "Export it as GLB"),
    (b"PXR-USDC", "a USD file", "Convert it to GLB"),
    (b"#usda", "a USD file", "Convert it to GLB"),
    (b"\x1f\x8b", "gzip data", "Unpack it first"),
    (b"\x28\xb5\x2f\xfd", "zstandard data", "Unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-zip archive", "Unpack it first"),
    (b"DRACO", "a bare Draco stream", "Wrap it in GLB (KHR_draco_mesh_compression)"),
    (b"\x89PNG", "a PNG image", "Name the mesh, not its texture"),
    (b"\xff\xd8\xff", "a JPEG image", "Name the mesh, not its texture"),
    (b"newmtl ", "a material library", "Name the OBJ file that uses it"),
)
_OBJ_LINE = re.compile(rb"(?:^|[\r\n])[ \t]*(?:v|vn|vt|f|g|o|s|mtllib|usemtl)[ \t]")
_OFF_HEADER = re.compile(rb"(?:#[^\n]*\n|\s)*(?:ST)?C?N?OFF(?!\w)")
_HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)


def sniff(data: bytes, suffix: str = "") -> Format:
    """Name the format of ``data``.

    Args:
        data: the whole file. suffix: its extension with the dot, used only where bytes are ambiguous.

    Raises:
        AssetError: empty, or none of the formats that can be loaded; the message says what it looks like.
    """
    if len(data) <= 4096 and not data.strip(b"\0 \t\r\n"):
        raise AssetError("the file is empty", received=len(data), fix="Download or export it again")
    suffix = suffix.lower()
    if data.startswith(b"glTF"):
        return "glb"
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if data.startswith((b"ply\n", b"ply\r", b"ply ")):
        return "ply"
    for magic, kind, fix in _FOREIGN:
        if data.startswith(magic):
            raise _unknown(data, kind, fix)
    head = data[:65536].removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"{"):
        return "gltf"
    if head.startswith(b"<"):
        if _HTML.search(head[:2048]):
            raise _unknown(data, "an HTML page, probably an error page of a download", "Download the file again")
        raise _unknown(
            data, "an XML document", "If it is a mesh (COLLADA, X3D), convert it to GLB; else download it again"
        )
    if _is_binary_stl(data, suffix):
        return "stl"
    if head[:5].lower() == b"solid" and b"\0" not in head[:512]:
        return "stl-ascii"
    if _OFF_HEADER.match(head) or (suffix == ".off" and head[:1].isdigit()):
        return "off"
    if b"\0" not in head and _OBJ_LINE.search(head):
        return "obj"
    raise _unknown(
        data, "not a format that can be loaded", "Use GLB, glTF, OBJ, PLY, STL, OFF, or a zip with one of these"
    )


def _is_binary_stl(data: bytes, suffix: str) -> bool:
    """True if the size agrees with the face count, or if a file called .stl is not text."""
    if len(data) < 84:
        return suffix == ".stl" and b"\0" in data
    declared = 84 + 50 * int.from_bytes(data[80:84], "little")
    return declared == len(data) or (suffix == ".stl" and b"\0" in data[:512])


def _unknown(data: bytes, kind: str, fix: str) -> AssetError:
    return AssetError(f"the file is {kind}", received=data[:24], fix=fix)
