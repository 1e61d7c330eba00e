"""Clean a marching-cubes mesh and reduce it to a face budget."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.errors import ConfigError, EmptySceneError
from threestudio_redream.meshing.topology import face_areas, face_components
from threestudio_redream.meshing.types import IntArray, Mesh

__all__ = ["clean", "decimate"]

_MERGE = 1e-6  # of the extent: far below a grid cell, far above float32 noise of equal points


def clean(mesh: Mesh, min_component_fraction: float = 0.01) -> Mesh:
    """Merge coincident vertices, drop faces without area or with a twin, and drop small loose parts.

    Args:
        min_component_fraction: parts with less than this fraction of the largest part's area go;
            0 keeps all of them.

    Returns:
        A mesh without unused vertices. Normals and colours, where present, follow their vertices.

    Raises:
        ConfigError: a fraction outside [0, 1]. EmptySceneError: no face is left.
    """
    if not 0.0 <= min_component_fraction <= 1.0:
        raise ConfigError(
            "min_component_fraction must lie in [0, 1]",
            received=min_component_fraction,
            fix="0.01 drops floaters below one percent of the main part's area.",
        )
    keep, remap = _merge_map(mesh.vertices)
    faces = remap[mesh.faces]
    distinct = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    faces = _without_twins(faces[distinct])
    vertices = mesh.vertices[keep]
    if len(faces) and min_component_fraction > 0.0:
        count, part = face_components(faces, len(vertices))
        area = np.bincount(part, face_areas(vertices, faces), minlength=count)
        faces = faces[(area >= min_component_fraction * area.max())[part]]
    if len(faces) == 0:
        raise EmptySceneError(
            "No face is left after cleaning",
            received={"vertices": len(mesh.vertices), "faces": len(mesh.faces)},
            fix="The surface has collapsed to points: lower the threshold or raise the grid resolution.",
        )
    used, compact = np.unique(faces, return_inverse=True)
    source = keep[used]
    return Mesh(
        mesh.vertices[source],
        compact.reshape(-1, 3).astype(np.int32),
        None if mesh.normals is None else mesh.normals[source],
        None if mesh.colors is None else mesh.colors[source],
    )


def decimate(mesh: Mesh, target_faces: int) -> Mesh:
    """Reduce to about ``target_faces`` by quadric edge collapses; normals and colours are dropped.

    A mesh within the budget comes back as it is. A closed mesh stays closed.

    Raises:
        ConfigError: a budget below 4 faces, the fewest that enclose a volume.
    """
    if target_faces < 4:
        raise ConfigError("A closed mesh needs at least 4 faces", received=target_faces, fix="Raise target_faces.")
    if len(mesh.faces) <= target_faces:
        return mesh
    import fast_simplification

    vertices, faces = fast_simplification.simplify(mesh.vertices, mesh.faces, target_count=int(target_faces))
    return clean(Mesh(np.asarray(vertices, np.float32), np.asarray(faces, np.int32)), 0.0)


def _merge_map(vertices: NDArray[np.float32]) -> tuple[NDArray[np.intp], IntArray]:
    """Index of the vertex kept for each distinct position, and old index -> new index."""
    if len(vertices) == 0:
        return np.zeros(0, np.intp), np.zeros(0, np.int32)
    low = vertices.min(axis=0).astype(np.float64)
    extent = max(float((vertices.max(axis=0) - low).max()), np.finfo(np.float32).tiny)
    cell = np.round((vertices - low) / (extent * _MERGE)).astype(np.int64)  # 20 bits per axis
    key = (cell[:, 0] << 42) | (cell[:, 1] << 21) | cell[:, 2]
    _, keep, remap = np.unique(key, return_index=True, return_inverse=True)
    return keep, remap.astype(np.int32)


def _without_twins(faces: IntArray) -> IntArray:
    """Drop repeated faces, and pairs of faces that look at each other (they enclose nothing)."""
    if len(faces) == 0:
        return faces
    lowest = faces.argmin(axis=1)[:, None]
    turned = np.take_along_axis(faces, (lowest + np.arange(3)) % 3, axis=1).astype(np.int64)  # smallest index first
    positive = turned[:, 1] < turned[:, 2]
    ordered = np.where(positive[:, None], turned, turned[:, [0, 2, 1]])
    _, group = np.unique(ordered, axis=0, return_inverse=True)
    group = group.reshape(-1)
    net = np.bincount(group, np.where(positive, 1.0, -1.0))
    wanted = (net[group] > 0) == positive
    wanted &= net[group] != 0
    rows = np.nonzero(wanted)[0]
    _, first = np.unique(group[rows], return_index=True)
    return faces[np.sort(rows[first])]
