"""Driver of the numba rasteriser: views and bands of rows, on one thread or several, always the same image.

The image is cut into bands whose sample buffers fit in the L2 cache. Bands and views share nothing, so
the result does not depend on the number of threads. Threads are plain Python threads running kernels
that release the GIL: no threading layer of numba is started, so forking stays safe.
"""

from __future__ import annotations

import collections
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.raster_pack import Packed
from threestudio_redream.assets.raster_resolve import resolve
from threestudio_redream.assets.raster_settings import Settings, sample_order
from threestudio_redream.assets.raster_visibility import bin_faces, project, raster, set_up_faces
from threestudio_redream.kernels.jit import get_threads

__all__ = ["render_views"]

_BAND_SAMPLES = 48 * 1024
_SMALL_VIEW = 256 * 256  # samples; of several smaller views each is drawn by one thread
_TINY_VIEW = 24 * 1024  # samples; a smaller view is not worth two threads

_buffers = threading.local()
_pool: tuple[int, int, ThreadPoolExecutor] | None = None  # process, threads, executor
_pool_lock = threading.Lock()
if hasattr(os, "register_at_fork"):  # a child must not inherit a lock that another thread held
    os.register_at_fork(after_in_child=lambda: globals().update(_pool=None, _pool_lock=threading.Lock()))


def _buffer(name: str, shape: tuple[int, ...], dtype: type) -> NDArray:
    """Scratch memory of this thread, kept between calls; holds whatever was there."""
    size = math.prod(shape)
    flat = getattr(_buffers, name, None)
    if flat is None or flat.size < size or flat.size > 8 * size + 65536:
        flat = np.zeros(size, dtype)
        setattr(_buffers, name, flat)
    return flat[:size].reshape(shape)


def _share(work: Callable[[int], None], count: int, threads: int) -> None:
    """Call ``work(0) ... work(count - 1)``, each once; whichever thread is free takes the next."""
    pending = collections.deque(range(count))

    def run() -> None:
        while True:
            try:
                item = pending.popleft()
            except IndexError:
                return
            work(item)

    helpers = min(threads, count) - 1
    if helpers <= 0:
        run()
        return
    global _pool
    with _pool_lock:
        if _pool is None or _pool[:2] != (os.getpid(), threads):
            _pool = (os.getpid(), threads, ThreadPoolExecutor(threads - 1, thread_name_prefix="rasteriser"))
        waiting = [_pool[2].submit(run) for _ in range(helpers)]
    try:
        run()
    finally:
        for future in waiting:
            if not future.cancel():  # one that has not started has nothing left to do
                future.result()


class _View:
    """One camera, ready to be drawn: projected vertices, edge functions, faces per band."""

    def __init__(self, arrays: tuple, view: NDArray[np.float64], size: tuple[int, int], settings: Settings) -> None:
        self.arrays, self.view, self.settings = arrays, view, settings
        self.height, self.width = size[0] * settings.supersample, size[1] * settings.supersample
        vertices, faces = len(arrays[0]), len(arrays[1])
        self.homogeneous = _buffer("homogeneous", (vertices, 3), np.float64)
        self.screen = _buffer("screen", (vertices, 2), np.float64)
        self.boxes = _buffer("boxes", (faces, 4), np.int32)
        self.setups = _buffer("setups", (faces, 13), np.float64)
        self.extents: list[tuple[int, int, int, int]] = []

    def project(self, part: int, parts: int) -> None:
        count = len(self.homogeneous)
        begin, end = count * part // parts, count * (part + 1) // parts
        project(self.arrays[0], self.view, self.settings.near, begin, end, self.homogeneous, self.screen)

    def set_up(self, part: int, parts: int) -> None:
        count = len(self.boxes)
        begin, end = count * part // parts, count * (part + 1) // parts
        extent = set_up_faces(
            self.arrays[1], self.homogeneous, self.screen, self.settings.near, self.width, self.height,
            begin, end, self.boxes, self.setups,
        )  # fmt: skip
        self.extents.append(extent)

    def cut(self, threads: int) -> int:
        """Cut what is in view into bands; returns their number."""
        supersample = self.settings.supersample
        low_x, low_y, high_x, high_y = zip(*self.extents, strict=True)
        if max(high_x) < 0:
            return 0
        x, y = min(low_x) // supersample, min(low_y) // supersample
        columns, rows = max(high_x) // supersample - x + 1, max(high_y) // supersample - y + 1
        self.box = (x, y, columns, rows)
        fair = rows if threads == 1 else -(-rows // (2 * threads))
        self.band_rows = min(max(1, _BAND_SAMPLES // (columns * supersample**2)), fair)
        count = -(-rows // self.band_rows)
        self.starts, self.entries = bin_faces(self.boxes, y * supersample, count, self.band_rows * supersample)
        return count

    def draw(self, band: int, rgba: NDArray, depth: NDArray, normal: NDArray) -> None:
        """Draw and resolve one band."""
        settings, (p, faces, materials, levels, texels, has_colors) = self.settings, self.arrays
        supersample, layers = settings.supersample, settings.layers
        x, y, columns, rows = self.box
        order = sample_order(supersample)
        begin = y + band * self.band_rows
        end = min(begin + self.band_rows, y + rows)
        region = (begin * supersample, end * supersample, x * supersample, columns * supersample)
        samples = (end - begin) * columns * supersample**2
        seen = _buffer("seen", (1 + layers, samples), np.int32)
        nearest = _buffer("nearest", (samples,), np.float32)
        seen.fill(-1)
        nearest.fill(0.0)
        chosen = self.entries[self.starts[band] : self.starts[band + 1]]
        scene = (p, faces, materials, levels, texels, chosen, self.boxes, self.setups, region)
        limits = (settings.near, settings.cull)
        raster(*scene, *limits, False, nearest, nearest, seen[0])
        used = 1
        limit = np.full(samples if layers else 0, np.inf, np.float32)
        while used <= layers:
            behind = nearest.copy()
            if raster(*scene, *limits, True, limit, behind, seen[used]) == 0:
                break
            limit = behind  # the next layer lies behind this one; where there was none, behind nothing
            used += 1
        resolve(
            p, faces, materials, levels, texels, has_colors, self.view, self.setups, seen[:used],
            (begin, end), self.box, supersample, settings.shading, order, rgba, depth, normal,
        )  # fmt: skip


def render_views(
    packed: Packed, views: NDArray[np.float64], settings: Settings, rgba: NDArray, depth: NDArray, normal: NDArray
) -> None:
    """Fill ``rgba [B, H, W, 4]``, ``depth [B, H, W, 1]`` and ``normal [B, H, W, 3]`` (zeroed, float32).

    Args:
        views: ``[B, 15]`` rows of :func:`.view_arrays`.
    """
    # A plain tuple: numba's disk cache could not read itself after a change to a named-tuple class.
    arrays = (*packed[:4], packed.texels.view(np.uint32).ravel(), packed.has_colors)
    threads = get_threads()
    count, size = len(rgba), (rgba.shape[1], rgba.shape[2])
    samples = size[0] * size[1] * settings.supersample**2
    by_view = samples < _TINY_VIEW or (samples < _SMALL_VIEW and count >= threads)
    helpers = 1 if by_view else threads

    def render(v: int) -> None:
        view = _View(arrays, views[v], size, settings)
        _share(lambda part: view.project(part, helpers), helpers, helpers)
        _share(lambda part: view.set_up(part, helpers), helpers, helpers)
        _share(lambda band: view.draw(band, rgba[v], depth[v], normal[v]), view.cut(helpers), helpers)

    _share(render, count, threads if by_view else 1)
