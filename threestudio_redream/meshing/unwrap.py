"""Cut a mesh into charts and lay them out in a square texture (xatlas).

Convention: texture coordinates follow the image (v down). ``uv * texture_size`` is a position in pixels
whose whole numbers are texel borders: the centre of the top left texel of a 4-texel texture is
``(0.125, 0.125)``.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.errors import ConfigError, EmptySceneError, RedreamError
from threestudio_redream.meshing.normals import with_normals
from threestudio_redream.meshing.topology import face_areas, face_components
from threestudio_redream.meshing.types import FloatArray, IntArray, Mesh

__all__ = ["Unwrapped", "checked_texture_size", "unwrap"]

log = logging.getLogger(__name__)
_FILL = 0.5  # part of the texture that charts usually cover
_LEAST_SCALE = 0.9  # a layout that must shrink by more than this is packed again, to keep the padding
_ATTEMPTS = 8
_NO_CHART = 0xFFFFFFFF


class Unwrapped(NamedTuple):
    """A mesh whose vertices are split at chart borders, and where they lie in the texture.

    Attributes:
        mesh: faces in the order of the input; copies of a vertex share its position, normal and colour.
        uvs: ``[V, 2]`` float32 in [0, 1].
        n_charts: number of charts.
        fill: part of the texture inside charts, in [0, 1].
    """

    mesh: Mesh
    uvs: FloatArray
    n_charts: int
    fill: float


def checked_texture_size(texture_size: int) -> int:
    """``texture_size`` if it lies between 16 and 8192, else ConfigError."""
    if not 16 <= texture_size <= 8192:
        raise ConfigError("The texture size must lie between 16 and 8192", received=texture_size, fix="Try 1024.")
    return int(texture_size)


def unwrap(mesh: Mesh, texture_size: int = 1024, padding: int = 2) -> Unwrapped:
    """Split ``mesh`` into charts that do not overlap in a ``texture_size`` square.

    Args:
        mesh: its normals are carried over, so that seams do not shade; area-weighted if it has none.
        padding: texels between charts at this texture size; shrinks by at most a tenth.

    Raises:
        EmptySceneError: no faces, or none with area. ConfigError: a bad texture size or padding.
        RedreamError: the charts do not fit, which happens when there are too many for the texture.
    """
    import xatlas

    size = checked_texture_size(texture_size)
    if not 0 <= padding <= size // 8:
        raise ConfigError(f"The padding must lie between 0 and {size // 8} texels", received=padding, fix="Try 2.")
    area = float(face_areas(mesh.vertices, mesh.faces).sum())
    if not area > 0.0:
        raise EmptySceneError(
            "A mesh without surface cannot be unwrapped",
            received=f"{len(mesh.faces)} faces",
            fix="Check the threshold.",
        )
    if mesh.normals is None:
        mesh = with_normals(mesh)
    centre = 0.5 * (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0))
    # xatlas leaves out faces below a fixed area, so the mesh is scaled until the mean face has the area 1.
    scaled = (mesh.vertices - centre) * np.sqrt(len(mesh.faces) / area)
    atlas = xatlas.Atlas()
    atlas.add_mesh(scaled.astype(np.float32), mesh.faces.astype(np.uint32))
    source, faces, pixels, n_charts = _layout(atlas, float(np.sqrt(len(mesh.faces))), size, padding)
    uvs = np.clip(pixels / size, 0.0, 1.0).astype(np.float32)
    split = Mesh(
        mesh.vertices[source],
        faces,
        None if mesh.normals is None else mesh.normals[source],
        None if mesh.colors is None else mesh.colors[source],
    )
    first, second = (uvs[split.faces[:, k]].astype(np.float64) - uvs[split.faces[:, 0]] for k in (1, 2))
    fill = 0.5 * float(np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).sum())
    return Unwrapped(split, uvs, n_charts, fill)


def _layout(atlas: Any, extent: float, size: int, padding: int) -> tuple[NDArray, IntArray, NDArray[np.float64], int]:
    """Cut and pack the mesh in ``atlas``: source vertex of every vertex, faces, pixel positions, chart count.

    xatlas treats a wanted resolution as a hint and may return a larger page. So it gets a texel density,
    which makes one page of whatever size, and the page is scaled to fit; if that would eat the padding, the
    charts (most of the work, and kept) are packed again more coarsely.

    Args:
        extent: square root of the surface area in ``atlas``.
    """
    import xatlas

    options = xatlas.ChartOptions()
    options.max_cost, options.max_boundary_length = 1.0, 2.0 * extent  # half the time of the defaults, fewer charts
    pack = xatlas.PackOptions()
    pack.padding, pack.texels_per_unit = padding, float(size * np.sqrt(_FILL) / extent)
    source: NDArray | None = None
    for attempt in range(_ATTEMPTS):
        atlas.generate(options, pack)
        page = np.array([atlas.width, atlas.height], np.float64)
        scale, charts = size / max(page.max(), 1.0), int(atlas.chart_count)
        index, faces, uvs = atlas.get_mesh(0)
        source = index if source is None else source[index]
        log.debug("layout %d: %d charts on %s texels, wanted %d", attempt, charts, page.tolist(), size)
        if page.min() > 0 and scale >= _LEAST_SCALE:
            placed = atlas.get_mesh_vertex_assignment(0)[1] != _NO_CHART
            uvs = _fill_unplaced(source, faces, uvs.astype(np.float64), placed)
            return source, faces.astype(np.int32), uvs * page * scale, charts
        flat = (uvs.astype(np.float64) * page / pack.texels_per_unit).astype(np.float32)
        atlas = xatlas.Atlas()
        atlas.add_uv_mesh(flat, faces)
        pack.texels_per_unit *= 0.98 * scale
    raise RedreamError(
        f"The charts do not fit a texture of {size} texels",
        received={"charts": charts, "faces": len(faces), "padding": padding},
        fix="Raise texture_size, or lower target_faces or padding.",
    )


def _fill_unplaced(
    source: NDArray, faces: NDArray, uvs: NDArray[np.float64], placed: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Give the faces that xatlas left out (they have no area) one texel each, next to where they belong."""
    left_out = ~placed[faces].any(axis=1)
    if not left_out.any():
        return uvs
    copy_of = np.full(int(source.max()) + 1, -1)
    copy_of[source[placed]] = np.flatnonzero(placed)  # some copy that has a place in a chart
    count, part = face_components(faces[left_out], len(source))
    for k in range(count):
        members = np.unique(faces[left_out][part == k])
        known = copy_of[source[members]]
        if (known >= 0).any():
            uvs[members] = uvs[known[known >= 0][0]]
    return uvs
