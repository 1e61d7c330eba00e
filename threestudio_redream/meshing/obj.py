"""Write a mesh as OBJ, with an MTL file and a PNG texture beside it.

Convention: vertices are converted to +Y up like in GLB: the world point ``(0, 0, 1)`` is written as
``v 0 1 0``. OBJ counts v upwards, so ``uv = (0.25, 0.75)`` is written as ``vt 0.25 0.25``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.errors import ConfigError
from threestudio_redream.meshing.frames import png_bytes, unit_normals, world_to_gltf
from threestudio_redream.meshing.types import Mesh, TexturedMesh
from threestudio_redream.runtime.files import atomic_path, atomic_write_text

__all__ = ["safe_stem", "write_obj"]


def write_obj(path: str | Path, mesh: TexturedMesh | Mesh) -> Path:
    """Write ``mesh`` to ``path``, and for a textured mesh an ``.mtl`` and a ``.png`` in the same folder.

    All files are written in full before the first is put in place, and the OBJ is put in place last: a
    reader never finds one that names a missing file. The names of the other two come from ``path`` with
    unusual characters replaced, since many readers split MTL names at spaces. A plain mesh with vertex
    colours uses the common ``v x y z r g b`` form, sRGB-encoded.

    Returns:
        ``path``.

    Raises:
        EmptySceneError: no faces. ConfigError: a path that does not end in ``.obj``. OSError: not writable.
    """
    path = Path(path)
    if path.suffix.lower() != ".obj":
        raise ConfigError("The file name must end in .obj", received=path.name, fix="Add the suffix.")
    normals, vertices = world_to_gltf(unit_normals(mesh)), world_to_gltf(mesh.vertices)
    corners = mesh.faces + 1
    if isinstance(mesh, Mesh):
        rows = vertices if mesh.colors is None else np.concatenate([vertices, np.clip(mesh.colors, 0.0, 1.0)], axis=1)
        faces = (f"f {a}//{a} {b}//{b} {c}//{c}" for a, b, c in corners.tolist())
        atomic_write_text(path, _text([_rows("v", rows), _rows("vn", normals), faces]))
        return path
    stem = safe_stem(path.stem)
    flipped = np.stack([mesh.uvs[:, 0], 1.0 - mesh.uvs[:, 1]], axis=1)
    faces = (f"f {a}/{a}/{a} {b}/{b}/{b} {c}/{c}/{c}" for a, b, c in corners.tolist())
    head = [f"mtllib {stem}.mtl", f"o {safe_stem(mesh.name)}"]
    lines = [head, _rows("v", vertices), _rows("vt", flipped), _rows("vn", normals), [f"usemtl {stem}"], faces]
    material = [f"newmtl {stem}", "Ka 0 0 0", "Kd 1 1 1", "Ks 0 0 0", "illum 1", f"map_Kd {stem}.png"]
    # Blocks close from the inside out: first the image is put in place, then the material, then the mesh.
    with (
        atomic_path(path) as obj,
        atomic_path(path.with_name(f"{stem}.mtl")) as mtl,
        atomic_path(path.with_name(f"{stem}.png")) as png,
    ):
        png.write_bytes(png_bytes(mesh.texture))
        mtl.write_text(_text([material]), encoding="utf-8")
        obj.write_text(_text(lines), encoding="utf-8")
    return path


def safe_stem(stem: str) -> str:
    """``stem`` with only letters, digits, ``.``, ``_`` and ``-``, not starting with ``.`` or ``-``.

    A changed name gets a short hash of the original, so that two names never fall together:
    ``safe_stem("chair") -> "chair"``, ``safe_stem("a b") -> "a_b-c8687a08"``.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", stem).lstrip(".-")[:80]
    if plain == stem and plain:
        return plain
    return f"{plain or 'mesh'}-{hashlib.sha256(stem.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _rows(keyword: str, values: NDArray[np.floating]) -> Iterable[str]:
    pattern = f"{keyword} " + " ".join(["%.7g"] * values.shape[1])
    return (pattern % tuple(row) for row in values.tolist())


def _text(blocks: Iterable[Iterable[str]]) -> str:
    return "\n".join(["# threestudio-redream", *(line for block in blocks for line in block)]) + "\n"
