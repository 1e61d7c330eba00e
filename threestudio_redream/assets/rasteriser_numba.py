"""Driver of the numba rasteriser: views and bands of rows, serial or in parallel, always the same image.

The image is cut into bands whose sample buffers fit in the L2 cache. Bands and views share nothing,
so the result does not depend on the number of threads.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import njit, prange

from threestudio_redream.assets.raster_numba_resolve import resolve_band
from threestudio_redream.assets.raster_numba_visibility import bin_faces, face_boxes, project, raster

__all__ = ["render_views"]

_BAND_SAMPLES = 48 * 1024
_SMALL_VIEW = 256 * 256  # samples; a smaller view is not worth a parallel region of its own


@njit(cache=True, nogil=True)
def _view(rotation, origin, focal, width, height):
    """One camera as 15 floats: right, up, backward, centre, focal length and image centre in samples."""
    return (
        rotation[0, 0], rotation[1, 0], rotation[2, 0],
        rotation[0, 1], rotation[1, 1], rotation[2, 1],
        rotation[0, 2], rotation[1, 2], rotation[2, 2],
        origin[0], origin[1], origin[2], focal, 0.5 * width, 0.5 * height,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _covered_pixels(boxes, supersample):
    """Pixel box ``x0, y0, columns, rows`` around all face boxes; no columns when nothing is in view."""
    low_x, low_y, high_x, high_y = 1 << 30, 1 << 30, -1, -1
    for f in range(boxes.shape[0]):
        if boxes[f, 0] <= boxes[f, 2]:
            low_x, high_x = min(low_x, boxes[f, 0]), max(high_x, boxes[f, 2])
            low_y, high_y = min(low_y, boxes[f, 1]), max(high_y, boxes[f, 3])
    if high_x < 0:
        return 0, 0, 0, 0
    x, y = low_x // supersample, low_y // supersample
    return x, y, high_x // supersample - x + 1, high_y // supersample - y + 1


@njit(cache=True, nogil=True)
def _render_band(packed, view, h, entries, boxes, box, rows, options, order, nearest_all, seen_all, rgba, depth, normal):
    """Draw and resolve the pixel rows ``rows[0] <= row < rows[1]`` of the pixel box ``box``."""
    supersample, layers, cull, shading, near = options
    p, faces, materials, levels, texels, has_colors = packed
    band = (rows[0] * supersample, rows[1] * supersample, box[0] * supersample, box[2] * supersample)
    samples = (band[1] - band[0]) * band[3]
    seen, nearest = seen_all[:, :samples], nearest_all[0, :samples]
    seen[:] = -1
    nearest[:] = 0.0
    raster(
        p, faces, materials, levels, texels, h, entries, boxes, band, near, cull, False, nearest, nearest, seen[0]
    )  # fmt: skip
    used = 1
    if layers > 0:
        behind, upper = nearest_all[1, :samples], nearest_all[2, :samples]
        upper[:] = np.inf
        for layer in range(1, layers + 1):
            behind[:] = nearest
            visible = raster(
                p, faces, materials, levels, texels, h, entries, boxes, band, near, cull, True, upper, behind, seen[layer]
            )  # fmt: skip
            if visible == 0:
                break
            used = layer + 1
            for s in range(samples):  # the next layer starts behind this one; none behind nothing
                upper[s] = behind[s] if seen[layer, s] >= 0 else -np.inf
    resolve_band(
        p, faces, materials, levels, texels, has_colors,
        view, h, seen[:used], rows, box, supersample, shading, order, rgba, depth, normal,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _scratch(layers, samples):
    return np.zeros((3 if layers > 0 else 1, samples), np.float32), np.zeros((1 + layers, samples), np.int32)


@njit(cache=True, nogil=True)
def _bands(box, supersample):
    """Pixel rows per band, number of bands, and samples of the largest."""
    rows = min(max(1, _BAND_SAMPLES // (box[2] * supersample * supersample)), box[3])
    return rows, (box[3] + rows - 1) // rows, rows * box[2] * supersample * supersample


@njit(cache=True, nogil=True)
def _render_bands(packed, view, h, boxes, bins, box, begin, step, options, order, rgba, depth, normal):
    """Every ``step``-th band from ``begin``, with scratch memory of its own."""
    supersample, layers = options[0], options[1]
    rows, n_bands, samples = _bands(box, supersample)
    starts, entries = bins
    nearest, seen = _scratch(layers, samples)
    for band in range(begin, n_bands, step):
        first = box[1] + band * rows
        span = (first, min(first + rows, box[1] + box[3]))
        chosen = entries[starts[band] : starts[band + 1]]
        _render_band(packed, view, h, chosen, boxes, box, span, options, order, nearest, seen, rgba, depth, normal)


@njit(cache=True, nogil=True)
def _render_view(packed, view, options, order, rgba, depth, normal):
    attributes, faces = packed[0], packed[1]
    supersample, near = options[0], options[4]
    height, width = rgba.shape[0] * supersample, rgba.shape[1] * supersample
    count, n_faces = attributes.shape[0], faces.shape[0]
    h, screen, boxes = np.zeros((count, 3)), np.zeros((count, 2)), np.zeros((n_faces, 4), np.int32)
    project(attributes, view, near, 0, count, h, screen)
    face_boxes(faces, h, screen, near, width, height, 0, n_faces, boxes)
    box = _covered_pixels(boxes, supersample)
    if box[2] > 0:
        rows, n_bands, _ = _bands(box, supersample)
        bins = bin_faces(boxes, box[1] * supersample, n_bands, rows * supersample)
        _render_bands(packed, view, h, boxes, bins, box, 0, 1, options, order, rgba, depth, normal)


@njit(cache=True, nogil=True)
def _some_views(packed, rotation, origin, focal, options, order, rgba, depth, normal, begin, step):
    height, width = rgba.shape[1] * options[0], rgba.shape[2] * options[0]
    for v in range(begin, rgba.shape[0], step):
        view = _view(rotation[v], origin[v], focal[v], width, height)
        _render_view(packed, view, options, order, rgba[v], depth[v], normal[v])


@njit(cache=True, nogil=True, parallel=True)
def _parallel_views(packed, rotation, origin, focal, options, order, rgba, depth, normal, workers):
    for worker in prange(workers):
        _some_views(packed, rotation, origin, focal, options, order, rgba, depth, normal, worker, workers)


@njit(cache=True, nogil=True, parallel=True)
def _parallel_vertices(packed, view, near, height, width, h, screen, boxes, workers):
    attributes, faces = packed[0], packed[1]
    count, n_faces = attributes.shape[0], faces.shape[0]
    for worker in prange(workers):
        begin, end = count * worker // workers, count * (worker + 1) // workers
        project(attributes, view, near, begin, end, h, screen)
    for worker in prange(workers):
        begin, end = n_faces * worker // workers, n_faces * (worker + 1) // workers
        face_boxes(faces, h, screen, near, width, height, begin, end, boxes)


@njit(cache=True, nogil=True, parallel=True)
def _parallel_bands(packed, view, h, boxes, bins, box, options, order, rgba, depth, normal, workers):
    for worker in prange(workers):
        _render_bands(packed, view, h, boxes, bins, box, worker, workers, options, order, rgba, depth, normal)


def _render_large(packed, rotation, origin, focal, options, order, rgba, depth, normal, workers):
    """One view after another, each in parallel over its vertices, faces and bands."""
    supersample, near = options[0], options[4]
    height, width = rgba.shape[1] * supersample, rgba.shape[2] * supersample
    count, n_faces = len(packed[0]), len(packed[1])
    h, screen, boxes = np.zeros((count, 3)), np.zeros((count, 2)), np.zeros((n_faces, 4), np.int32)
    for v in range(len(rgba)):
        view = _view(rotation[v], origin[v], focal[v], width, height)
        _parallel_vertices(packed, view, near, height, width, h, screen, boxes, workers)
        box = _covered_pixels(boxes, supersample)
        if box[2] > 0:
            rows, n_bands, _ = _bands(box, supersample)
            bins = bin_faces(boxes, box[1] * supersample, n_bands, rows * supersample)
            _parallel_bands(packed, view, h, boxes, bins, box, options, order, rgba[v], depth[v], normal[v], workers)


def render_views(packed, rotation, origin, focal, supersample, layers, cull, shading, near, rgba, depth, normal):
    """Fill ``rgba [B, H, W, 4]``, ``depth [B, H, W, 1]`` and ``normal [B, H, W, 3]`` (zeroed, float32).

    Args:
        packed: arrays of the asset. rotation: ``[B, 3, 3]`` float64. origin: ``[B, 3]`` float64.
        focal: ``[B]`` float64, in supersampled pixels. supersample: samples per pixel side.
        layers: blended layers to keep. cull: honour single-sided materials. shading: index.
        near: nothing closer to the eye plane than this is drawn, in world units.
    """
    offsets = np.arange(supersample) - 0.5 * (supersample - 1)
    order = np.argsort((offsets[:, None] ** 2 + offsets[None, :] ** 2).ravel(), kind="stable").astype(np.int64)
    options = (int(supersample), int(layers), bool(cull), int(shading), float(near))
    views, height, width = rgba.shape[:3]
    workers = numba.get_num_threads()
    small = height * width * supersample**2 < _SMALL_VIEW
    # A plain tuple: numba's disk cache would break on a named tuple class that changes between releases.
    arguments = (tuple(packed), rotation, origin, focal, options, order, rgba, depth, normal)
    if workers == 1 or (small and views == 1):
        _some_views(*arguments, 0, 1)
    elif small:
        _parallel_views(*arguments, workers)
    else:
        _render_large(*arguments, workers)
