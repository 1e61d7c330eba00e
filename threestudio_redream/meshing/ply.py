"""Write a mesh without texture as binary PLY.

Convention: +Y up like the other writers (the world point ``(0, 0, 1)`` is stored as ``(0, 1, 0)``), or with
``up="z"`` the world frame unchanged. Vertex colours are sRGB-encoded bytes, as PLY readers expect.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from threestudio_redream.errors import ConfigError
from threestudio_redream.meshing.frames import unit_normals, world_to_gltf
from threestudio_redream.meshing.types import Mesh
from threestudio_redream.runtime.files import atomic_write_bytes

__all__ = ["write_ply"]


def write_ply(path: str | Path, mesh: Mesh, *, up: Literal["y", "z"] = "y") -> Path:
    """Write positions, normals, faces and, if present, vertex colours (Convention above).

    Returns:
        ``path``.

    Raises:
        EmptySceneError: no faces. ConfigError: an unknown ``up``. OSError: not writable.
    """
    if up not in ("y", "z"):
        raise ConfigError("The up axis of a PLY file must be y or z", received=up, fix="Use 'y' unless a tool needs z.")
    normals, vertices = unit_normals(mesh), mesh.vertices
    if up == "y":
        normals, vertices = world_to_gltf(normals), world_to_gltf(vertices)
    columns = ["x", "y", "z", "nx", "ny", "nz"]
    layout = [(name, "<f4") for name in columns]
    header = [f"property float {name}" for name in columns]
    if mesh.colors is not None:
        layout += [(name, "u1") for name in ("red", "green", "blue")]
        header += [f"property uchar {name}" for name in ("red", "green", "blue")]
    rows = np.zeros(len(vertices), layout)
    for axis, name in enumerate(columns):
        rows[name] = (vertices if axis < 3 else normals)[:, axis % 3]
    if mesh.colors is not None:
        encoded = (np.clip(mesh.colors, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
        for channel, name in enumerate(("red", "green", "blue")):
            rows[name] = encoded[:, channel]
    faces = np.zeros(len(mesh.faces), [("count", "u1"), ("index", "<i4", 3)])
    faces["count"], faces["index"] = 3, mesh.faces
    head = ["ply", "format binary_little_endian 1.0", "comment threestudio-redream", f"element vertex {len(rows)}"]
    head += [*header, f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    atomic_write_bytes(path, "\n".join(head).encode() + rows.tobytes() + faces.tobytes())
    return Path(path)
