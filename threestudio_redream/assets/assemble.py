"""Turn what a parser found into an :class:`Asset`, or say why it is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.limits import Limits, check_limit
from threestudio_redream.assets.surface import face_vectors, unit_rows, vertex_normals
from threestudio_redream.assets.types import Asset, Material
from threestudio_redream.errors import AssetError

__all__ = ["Parsed", "Part", "assemble"]

_MAX_COORDINATE = 1e30
_MAX_UV = 4096.0  # beyond it float32 no longer resolves the texels of a 4096 px texture


@dataclass
class Part:
    """A piece of mesh in the axes of the file.

    Attributes:
        vertices: ``[V, 3]`` float64. faces: ``[F, 3]`` integer, checked against V in ``assemble``.
        material: index into the parsed materials, one for all faces or ``[F]``.
        normals: ``[V, 3]``, any length. uvs: ``[V, 2]``, v down. colors: ``[V, 4]`` sRGB-encoded.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    material: int | NDArray[np.int64] = 0
    normals: NDArray[np.float64] | None = None
    uvs: NDArray[np.float64] | None = None
    colors: NDArray[np.float64] | None = None


@dataclass
class Parsed:
    """Everything a parser returns.

    ``materials`` makes the list that ``Part.material`` indexes. It is called after the geometry has been
    checked, so that no texture is decoded for a file that is refused.
    """

    parts: Sequence[Part]
    materials: Callable[[], list[Material]]
    warnings: list[str] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)


def assemble(parsed: Parsed, *, name: str, source: Path | None, limits: Limits) -> Asset:
    """Check, concatenate and clean the parts.

    Vertices that no face uses are dropped (they must not shift the centre), normals are made unit and
    computed where the file has none, and unused materials go.

    Raises:
        AssetError: no faces, indices out of range, non-finite vertices, or nothing but a point or a line.
        AssetLimitError: more vertices or faces than allowed.
    """
    parts = [part for part in parsed.parts if len(part.faces)]
    if not parts:
        raise AssetError(
            "the file holds no faces", received=len(parsed.parts), fix="Export triangles, not points or lines"
        )
    check_limit(limits, "max_vertices", sum(len(part.vertices) for part in parts), "vertices")
    check_limit(limits, "max_faces", sum(len(part.faces) for part in parts), "faces")
    for part in parts:
        low, high = int(part.faces.min()), int(part.faces.max())
        if low < 0 or high >= len(part.vertices):
            raise AssetError(
                f"a face refers to a vertex outside the {len(part.vertices)} that exist",
                received=low if low < 0 else high,
                fix="Export the file again",
            )

    warnings = parsed.warnings
    offsets = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    faces = np.concatenate([part.faces + offset for part, offset in zip(parts, offsets)])
    used = np.zeros(int(offsets[-1]) + len(parts[-1].vertices), bool)
    used[faces.ravel()] = True
    faces = (np.cumsum(used) - 1)[faces]

    vertices = np.concatenate([part.vertices for part in parts])[used]
    vertices, vectors = _checked_geometry(vertices, faces, warnings)
    normals = _normals(_stacked(parts, "normals", 0.0, 3, used), vertices, faces, vectors, warnings)
    materials, face_materials = _face_materials(parts, parsed.materials(), warnings)
    return Asset(
        name=name,
        vertices=vertices,
        faces=faces.astype(np.int32),
        normals=normals,
        uvs=_uvs(_stacked(parts, "uvs", 0.0, 2, used), warnings),
        colors=_colors(_stacked(parts, "colors", 1.0, 4, used), warnings),
        face_materials=face_materials,
        materials=materials,
        source=source,
        info={"n_nodes": 1, **parsed.info, "warnings": warnings},
    )


def _stacked(
    parts: Sequence[Part], attribute: str, missing: float, width: int, used: NDArray[np.bool_]
) -> NDArray | None:
    """One attribute of all parts, ``missing`` where a part lacks it; None if every part does."""
    values = [getattr(part, attribute) for part in parts]
    if all(value is None for value in values):
        return None
    filled = [np.full((len(p.vertices), width), missing) if v is None else v for p, v in zip(parts, values)]
    return np.concatenate(filled)[used]


def _face_materials(
    parts: Sequence[Part], materials: list[Material], warnings: list[str]
) -> tuple[tuple[Material, ...], NDArray[np.int32]]:
    """Materials that faces use, and the index of each face; a texture without coordinates is dropped."""
    plain: dict[int, int] = {}
    columns = []
    for part in parts:
        column = np.broadcast_to(np.asarray(part.material, np.int64), len(part.faces))
        for index in [part.material] if isinstance(part.material, int) else np.unique(column):
            if part.uvs is None and materials[index].texture is not None:
                if int(index) not in plain:
                    plain[int(index)] = len(materials)
                    materials.append(replace(materials[index], texture=None))
                    warnings.append(
                        "a textured material is used on faces without texture coordinates; its plain colour is shown"
                    )
                column = np.where(column == index, plain[int(index)], column)
        columns.append(column)
    kept, indices = np.unique(np.concatenate(columns), return_inverse=True)
    return tuple(materials[index] for index in kept), indices.astype(np.int32)


def _checked_geometry(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], warnings: list[str]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Vertices as float32, and the face vectors of the mesh scaled to extent one."""
    finite = np.asarray(np.isfinite(vertices).all(axis=1))
    if not finite.all():
        raise AssetError(
            f"{int((~finite).sum())} of {len(finite)} vertices are not finite numbers",
            received=vertices[~finite][0].tolist(),
            fix="Repair the mesh or export it again",
        )
    if (largest := float(np.abs(vertices).max())) > _MAX_COORDINATE:
        raise AssetError("a coordinate is too large for float32", received=largest, fix="Scale the mesh down")
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    extent, centre = float((high - low).max()), 0.5 * (low + high)
    if float(np.abs(centre).max()) > 1000.0 * extent > 0.0:
        vertices = vertices - centre  # map coordinates of a scan: float32 would round them to centimetres
        warnings.append(f"the mesh lies far from its origin and was moved by {(-centre).tolist()}")
    rounded = vertices.astype(np.float32)
    if extent == 0.0:
        raise AssetError(
            "all vertices coincide, as after a failed Draco decode or an empty export",
            received=vertices[0].tolist(),
            fix="Export the file again",
        )
    vectors = face_vectors(vertices / extent, faces)
    if not vectors.any():
        raise AssetError(
            "every face is degenerate: the surface has no area", received=len(faces), fix="Repair the mesh"
        )
    return rounded, vectors


def _normals(
    normals: NDArray[np.float64] | None,
    vertices: NDArray[np.float32],
    faces: NDArray[np.int64],
    vectors: NDArray[np.float64],
    warnings: list[str],
) -> NDArray[np.float32]:
    if normals is None:
        return vertex_normals(vertices, faces, vectors)
    unit, valid = unit_rows(normals)
    if not valid.all():
        unit[~valid] = vertex_normals(vertices, faces, vectors)[~valid]
        if np.isnan(normals).any() or np.isinf(normals).any():
            warnings.append("normals that are not finite were computed from the faces")
    return unit.astype(np.float32)


def _uvs(uvs: NDArray[np.float64] | None, warnings: list[str]) -> NDArray[np.float32] | None:
    if uvs is None:
        return None
    bounded = np.clip(np.nan_to_num(uvs, nan=0.0), -_MAX_UV, _MAX_UV)
    if not np.array_equal(bounded, uvs):
        warnings.append("texture coordinates that are not finite or beyond 4096 repeats were clipped")
    return bounded.astype(np.float32)


def _colors(colors: NDArray[np.float64] | None, warnings: list[str]) -> NDArray[np.float32] | None:
    if colors is None:
        return None
    bounded = np.clip(np.nan_to_num(colors, nan=1.0), 0.0, 1.0)
    if not np.array_equal(bounded, colors):
        warnings.append("vertex colours outside [0, 1] were clipped")
    return bounded.astype(np.float32)
