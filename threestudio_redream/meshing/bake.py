"""Fill a texture with the colours of a field on the surface."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from threestudio_redream.errors import ConfigError, EmptySceneError
from threestudio_redream.meshing.frames import unit_normals
from threestudio_redream.meshing.grid import DEFAULT_CHUNK, evaluate
from threestudio_redream.meshing.pictures import Projection
from threestudio_redream.meshing.types import FloatArray, Mesh, PointFn
from threestudio_redream.meshing.unwrap import checked_texture_size
from threestudio_redream.meshing.uv_raster import UVRaster, rasterise_uv

__all__ = ["bake"]

_RIM = 1.5  # texels around charts that still get a colour of their own: what a bilinear look-up can touch


def bake(
    mesh: Mesh,
    uvs: ArrayLike,
    color_fn: PointFn,
    texture_size: int = 1024,
    *,
    chunk: int = DEFAULT_CHUNK,
    supersample: int = 1,
    projection: Projection | None = None,
    progress: Callable[[float], None] | None = None,
) -> NDArray[np.uint8]:
    """Colour of ``color_fn`` at the surface point under every texel, or of the pictures that show this point.

    Texels up to 1.5 texels outside a chart take the colour of the nearest surface point of that chart, so
    bilinear look-ups at its border are right; all others copy the nearest texel that has a colour, so
    smaller mip levels do not pull in a background.

    Args:
        mesh: vertices split at seams, as :func:`unwrap` returns. uvs: ``[V, 2]`` (v down).
        color_fn: ``[N, 3]`` world points -> ``[N, 3]`` sRGB-encoded, in [0, 1] (clipped).
        texture_size: texels along a side.
        chunk: points per call of ``color_fn``.
        supersample: samples along each side of a texel; their encoded colours are averaged. 1 to 4.
        projection: of pictures onto the mesh; ``color_fn`` is then for what they do not show.
        progress: called with the fraction done.

    Returns:
        ``[T, T, 3]`` uint8, sRGB-encoded, row 0 at the top.

    Raises:
        EmptySceneError: no texel is covered, or the colours hold NaN. ConfigError: a bad size or result.
    """
    size = checked_texture_size(texture_size)
    if not 1 <= supersample <= 4:
        raise ConfigError("supersample must lie between 1 and 4", received=supersample, fix="1 is one sample a texel.")
    fine = size * supersample
    raster = rasterise_uv(uvs, mesh.faces, fine, _RIM * supersample)
    texels = np.flatnonzero(raster.face >= 0)
    if len(texels) == 0:
        raise EmptySceneError(
            "No texel of the texture is covered by the mesh",
            received={"faces": len(mesh.faces), "texture_size": size},
            fix="Texture coordinates must lie in [0, 1]; use unwrap to make them.",
        )
    normals = None if projection is None else unit_normals(mesh)
    colors = np.zeros((fine * fine, 3), np.float32)
    for start in range(0, len(texels), chunk):
        part = texels[start : start + chunk]
        points = _on_surface(mesh.vertices, mesh, raster, part)
        found = np.clip(evaluate(color_fn, points, 3, chunk=chunk, what="colour"), 0.0, 1.0)
        if normals is not None and projection is not None:
            smooth = _on_surface(normals, mesh, raster, part)
            smooth /= np.maximum(np.linalg.norm(smooth, axis=1, keepdims=True), 1e-9)
            found = projection(points, smooth, found)
        colors[part] = found
        if progress is not None:
            progress(min(start + chunk, len(texels)) / len(texels))
    image = colors.reshape(fine, fine, 3)
    image, known = _average(image, raster.distance, supersample)
    image = _spread(image, known)
    return (image * 255.0 + 0.5).astype(np.uint8)


def _on_surface(values: FloatArray, mesh: Mesh, raster: UVRaster, texels: NDArray[np.intp]) -> FloatArray:
    """Values of vertices ``[V, 3]``, interpolated at texels."""
    corners = values[mesh.faces[raster.face.ravel()[texels]]]
    weights = raster.weights.reshape(-1, 2)[texels]
    first = 1.0 - weights.sum(axis=1, keepdims=True)
    return np.ascontiguousarray(
        first * corners[:, 0] + weights[:, :1] * corners[:, 1] + weights[:, 1:] * corners[:, 2], np.float32
    )


def _average(image: FloatArray, distance: FloatArray, factor: int) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Mean of the samples of each texel that lie inside charts, else of those on the rim."""
    if factor == 1:
        return image, np.isfinite(distance)
    size = len(image) // factor
    samples = image.reshape(size, factor, size, factor, 3)
    apart = distance.reshape(size, factor, size, factor)
    inside, near = apart == 0.0, np.isfinite(apart)
    weight = np.where(inside.any(axis=(1, 3), keepdims=True), inside, near).astype(np.float32)
    total = weight.sum(axis=(1, 3))
    mean = np.einsum("iajbc,iajb->ijc", samples, weight) / np.maximum(total, 1.0)[..., None]
    return mean.astype(np.float32), total > 0.0


def _spread(image: FloatArray, known: NDArray[np.bool_]) -> FloatArray:
    """Copy the nearest known texel into every unknown one."""
    from scipy.ndimage import distance_transform_edt

    if known.all():
        return image
    rows, columns = distance_transform_edt(~known, return_distances=False, return_indices=True)
    return image[rows, columns]
