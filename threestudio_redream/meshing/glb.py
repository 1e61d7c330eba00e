"""Write a mesh as one self-contained binary glTF 2.0 file.

Convention: vertices are converted from the world frame to +Y up (:mod:`threestudio_redream.meshing.frames`):
the world point ``(0, 0, 1)`` is stored as ``(0, 1, 0)``. Texture coordinates need no change: glTF counts v
downwards too. The base-colour texture is sRGB by definition; vertex colours are linear in glTF and are
decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.glb_container import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, GlbContainer
from threestudio_redream.assets.shading import decode_srgb
from threestudio_redream.meshing.frames import png_bytes, unit_normals, world_to_gltf
from threestudio_redream.meshing.types import Mesh, TexturedMesh
from threestudio_redream.runtime.files import atomic_write_bytes

__all__ = ["glb_bytes", "write_glb"]

# Numbers of the glTF 2.0 specification.
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP_TO_EDGE = 9729, 9987, 33071


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
    container = GlbContainer()

    def attribute(values: NDArray, dtype: str = "<f4", *, normalized: bool = False) -> int:
        return container.accessor(values, dtype, normalized=normalized, target=ARRAY_BUFFER)

    attributes = {"POSITION": attribute(vertices), "NORMAL": attribute(normals)}
    pbr: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    document: dict[str, Any] = {}
    if isinstance(mesh, TexturedMesh):
        attributes["TEXCOORD_0"] = attribute(mesh.uvs)
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
        document["images"] = [{"bufferView": container.view(png_bytes(mesh.texture)), "mimeType": "image/png"}]
    elif mesh.colors is not None:
        linear = np.ones((len(vertices), 4))  # four 16-bit channels keep every vertex on a 4-byte boundary
        linear[:, :3] = decode_srgb(np.clip(mesh.colors, 0.0, 1.0))
        attributes["COLOR_0"] = attribute(linear * 65535.0 + 0.5, "<u2", normalized=True)
    index_type = "<u2" if len(vertices) < 65535 else "<u4"
    primitive = {
        "attributes": attributes,
        "indices": container.accessor(mesh.faces.ravel(), index_type, target=ELEMENT_ARRAY_BUFFER),
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
    )
    return container.finish(document)
