"""Write a mesh as one self-contained binary glTF 2.0 file.

Convention: vertices are converted from the world frame to +Y up (:mod:`threestudio_redream.meshing.frames`):
the world point ``(0, 0, 1)`` is stored as ``(0, 1, 0)``. Texture coordinates need no change: glTF counts v
downwards too. The base-colour texture is sRGB by definition; vertex colours are linear in glTF and are
decoded.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.shading import decode_srgb
from threestudio_redream.errors import ConfigError
from threestudio_redream.meshing.frames import png_bytes, unit_normals, world_to_gltf
from threestudio_redream.meshing.types import Mesh, TexturedMesh
from threestudio_redream.runtime.files import atomic_write_bytes

__all__ = ["glb_bytes", "write_glb"]

# Numbers of the glTF 2.0 specification.
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_COMPONENTS = {"u2": 5123, "u4": 5125, "f4": 5126}
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP_TO_EDGE = 9729, 9987, 33071


class _Buffer:
    """The binary chunk under construction: views on 4-byte boundaries, as accessors need them."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, data: bytes, target: int | None = None) -> int:
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)}
        if target is not None:
            view["target"] = target
        self.views.append(view)
        self.data += data + b"\0" * (-len(data) % 4)
        return len(self.views) - 1

    def accessor(self, array: NDArray, kind: str, *, target: int = _ARRAY_BUFFER, **more: Any) -> int:
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        component = _COMPONENTS[array.dtype.str[1:]]
        view = self.view(array.tobytes(), target)
        self.accessors.append(
            {"bufferView": view, "componentType": component, "count": len(array), "type": kind, **more}
        )
        return len(self.accessors) - 1


def write_glb(
    path: str | Path,
    mesh: TexturedMesh | Mesh,
    *,
    name: str | None = None,
    double_sided: bool = False,
    unlit: bool = False,
    copyright: str | None = None,
    extras: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``mesh`` to ``path`` (Convention above); an existing file is replaced in one step.

    Args:
        mesh: textured, or plain with or without vertex colours; normals are area-weighted if absent.
        name: shown by viewers; the mesh's own name by default.
        double_sided: also draw back faces, for surfaces with holes.
        unlit: ask viewers to show the colours as they are (KHR_materials_unlit), for fields whose colours
            already contain light.
        copyright: for ``asset.copyright``. extras: JSON-able provenance for ``asset.extras``.

    Returns:
        ``path``.

    Raises:
        EmptySceneError: no faces. ConfigError: extras that JSON cannot hold. OSError: ``path`` is not writable.
    """
    data = glb_bytes(mesh, name=name, double_sided=double_sided, unlit=unlit, copyright=copyright, extras=extras)
    atomic_write_bytes(path, data)
    return Path(path)


def glb_bytes(
    mesh: TexturedMesh | Mesh,
    *,
    name: str | None = None,
    double_sided: bool = False,
    unlit: bool = False,
    copyright: str | None = None,
    extras: Mapping[str, Any] | None = None,
) -> bytes:
    """The content of the file that :func:`write_glb` writes; the same mesh gives the same bytes."""
    normals, vertices = world_to_gltf(unit_normals(mesh)), world_to_gltf(mesh.vertices)
    buffer = _Buffer()
    low, high = vertices.min(axis=0).tolist(), vertices.max(axis=0).tolist()
    attributes = {
        "POSITION": buffer.accessor(vertices, "VEC3", min=low, max=high),
        "NORMAL": buffer.accessor(normals, "VEC3"),
    }
    pbr: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    document: dict[str, Any] = {}
    if isinstance(mesh, TexturedMesh):
        attributes["TEXCOORD_0"] = buffer.accessor(mesh.uvs, "VEC2")
        pbr["baseColorTexture"] = {"index": 0}
        document["textures"] = [{"source": 0, "sampler": 0}]
        document["samplers"] = [
            {
                "magFilter": _LINEAR,
                "minFilter": _LINEAR_MIPMAP_LINEAR,
                "wrapS": _CLAMP_TO_EDGE,
                "wrapT": _CLAMP_TO_EDGE,
            }
        ]
        document["images"] = [{"bufferView": buffer.view(png_bytes(mesh.texture)), "mimeType": "image/png"}]
    elif mesh.colors is not None:
        linear = np.ones((len(vertices), 4))  # four 16-bit channels keep every vertex on a 4-byte boundary
        linear[:, :3] = decode_srgb(np.clip(mesh.colors, 0.0, 1.0))
        stored = (linear * 65535.0 + 0.5).astype(np.uint16)
        attributes["COLOR_0"] = buffer.accessor(stored, "VEC4", normalized=True)
    indices = mesh.faces.astype(np.uint16 if len(vertices) < 65535 else np.uint32).ravel()
    primitive = {
        "attributes": attributes,
        "indices": buffer.accessor(indices, "SCALAR", target=_ELEMENT_ARRAY_BUFFER),
        "material": 0,
    }
    label = name or getattr(mesh, "name", "mesh")
    material: dict[str, Any] = {"name": label, "pbrMetallicRoughness": pbr, "doubleSided": bool(double_sided)}
    asset: dict[str, Any] = {"version": "2.0", "generator": "threestudio-redream"}
    if copyright:
        asset["copyright"] = copyright
    if extras:
        asset["extras"] = dict(extras)
    if unlit:
        material["extensions"] = {"KHR_materials_unlit": {}}
        document["extensionsUsed"] = ["KHR_materials_unlit"]
    document.update(
        asset=asset,
        scene=0,
        scenes=[{"nodes": [0]}],
        nodes=[{"mesh": 0, "name": label}],
        meshes=[{"name": label, "primitives": [primitive]}],
        materials=[material],
        accessors=buffer.accessors,
        bufferViews=buffer.views,
        buffers=[{"byteLength": len(buffer.data)}],
    )
    return _container(document, bytes(buffer.data))


def _container(document: dict[str, Any], binary: bytes) -> bytes:
    """The GLB container: a 12-byte header, a JSON chunk padded with spaces, a binary chunk padded with zeros."""
    try:
        text = json.dumps(document, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"The extras of a GLB must be JSON ({error})",
            received=document["asset"].get("extras"),
            fix="Use strings, finite numbers, lists and dicts with string keys.",
        ) from error
    text += b" " * (-len(text) % 4)
    length = 12 + 8 + len(text) + 8 + len(binary)
    header = struct.pack("<4sII", b"glTF", 2, length)
    return header + struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
