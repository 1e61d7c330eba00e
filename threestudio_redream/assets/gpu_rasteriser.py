"""The same images from a GPU: moderngl over EGL, headless, behind the extra ``gpu-raster``.

Runs on NVIDIA and Mesa drivers (Mesa's llvmpipe included, which is a CPU). Differences from the CPU
rasterisers: textures are filtered per sample by the driver, silhouettes are snapped to the driver's
sub-pixel grid, and blended triangles are composited back to front by the depth of their centres, all
of them, where the CPU keeps the nearest four per sample in exact order.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets import gpu_shaders, shading
from threestudio_redream.assets.raster_pack import (
    BLEND,
    CUTOFF,
    FACTOR,
    FIRST_LEVEL,
    LEVEL_COUNT,
    MASK,
    MODE,
    REPEAT,
    SINGLE_SIDED,
    Packed,
)
from threestudio_redream.assets.raster_settings import Settings
from threestudio_redream.errors import ConfigError, MissingExtraError, RedreamError

__all__ = ["GpuRasteriser"]

_ANISOTROPY = 8.0
_SOFTWARE = ("llvmpipe", "softpipe")  # Mesa's CPU drivers, on which anisotropic filtering takes seconds
_contexts = threading.local()


def _context() -> Any:
    """This thread's OpenGL context, made on first use."""
    context = getattr(_contexts, "current", None)
    if context is not None:
        return context
    try:
        import moderngl
    except ImportError as error:
        raise MissingExtraError("moderngl", "gpu-raster", "The moderngl render backend", error) from error
    try:
        context = moderngl.create_context(standalone=True, backend="egl", require=330)
    except Exception as error:  # moderngl and glcontext raise bare Exception
        raise RedreamError(
            "No OpenGL 3.3 context could be made through EGL",
            received=str(error),
            fix="Install a driver with EGL (Debian without a GPU: apt-get install libegl1 libgl1-mesa-dri), "
            "or render with backend='numba'.",
        ) from error
    context.gc_mode = "context_gc"
    _contexts.current = context
    return context


class _Target:
    """Sample buffers of one image size, and the pixel buffers they are averaged into."""

    def __init__(self, context: Any, height: int, width: int, side: int) -> None:
        limit = int(context.info["GL_MAX_TEXTURE_SIZE"])
        if max(height, width) * side > limit:
            raise ConfigError(
                f"The supersampled image exceeds the {limit} pixels per side of this OpenGL driver",
                received=(height * side, width * side),
                fix="Render smaller images or use a smaller supersample factor.",
            )
        self.key = (height, width, side)
        samples, pixels = (width * side, height * side), (width, height)
        self.colors, self.geometry = (context.texture(samples, 4, dtype="f4") for _ in range(2))
        self.samples = context.framebuffer([self.colors, self.geometry], context.depth_renderbuffer(samples))
        self.pixels = context.framebuffer([context.texture(pixels, 4, dtype="f4") for _ in range(2)])

    def read(self, attachment: int) -> NDArray[np.float32]:
        data = self.pixels.read(components=4, attachment=attachment, dtype="f4")
        return np.frombuffer(data, np.float32).reshape(self.key[0], self.key[1], 4)


class GpuRasteriser:
    """Buffers, textures and programs of one asset; use it on the thread that made it.

    Raises:
        MissingExtraError: moderngl does not import.
        RedreamError: there is no EGL driver.
    """

    def __init__(self, packed: Packed) -> None:
        self.context = context = _context()
        self.thread = threading.get_ident()
        self.packed = packed
        self.draw_program = context.program(gpu_shaders.DRAW_VERTEX, gpu_shaders.DRAW_FRAGMENT)
        self.resolve_program = context.program(gpu_shaders.RESOLVE_VERTEX, gpu_shaders.RESOLVE_FRAGMENT)
        self.screen = context.vertex_array(self.resolve_program, [])
        self.target: _Target | None = None

        # Triangle soup ordered by material, so that each material is one range of it.
        self.order = np.argsort(packed.faces[:, 3], kind="stable")
        faces = packed.faces[self.order]
        corners = packed.attributes[faces[:, :3]]
        position = corners[:, :, :3].astype(np.float64)
        flat = np.cross(position[:, 1] - position[:, 0], position[:, 2] - position[:, 0])
        flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-300)
        soup = np.concatenate([corners, np.repeat(flat[:, None], 3, axis=1)], axis=2).astype(np.float32)
        self.centers = position.mean(1)
        self.ranges = [
            (material, *np.searchsorted(faces[:, 3], [material, material + 1]).tolist())
            for material in np.unique(faces[:, 3]).tolist()
        ]
        self.blended = np.nonzero(packed.materials[faces[:, 3], MODE] == BLEND)[0]
        self.materials = faces[:, 3]
        layout = (context.buffer(soup.tobytes()), "3f 3f 2f 4f 3f", *_INPUTS)
        self.indices = context.buffer(reserve=max(12 * len(self.blended), 4), dynamic=True)
        self.soup = context.vertex_array(self.draw_program, [layout], skip_errors=True)
        self.sorted_soup = context.vertex_array(self.draw_program, [layout], self.indices, skip_errors=True)
        self.textures = self._upload()

    def _upload(self) -> dict[int, Any]:
        """One texture per first mip level, with the pyramid the CPU rasterisers use."""
        textures: dict[int, Any] = {}
        for row in self.packed.materials[self.packed.materials[:, LEVEL_COUNT] > 0]:
            first, count = int(row[FIRST_LEVEL]), int(row[LEVEL_COUNT])
            if first in textures:
                continue
            for level in range(count):
                offset, width, height = self.packed.levels[first + level].tolist()
                data = self.packed.texels[offset : offset + width * height].tobytes()
                if level == 0:
                    textures[first] = self.context.texture((width, height), 4, data)
                    textures[first].build_mipmaps(0, count - 1)
                else:
                    textures[first].write(data, level=level)
            textures[first].filter = (self.context.LINEAR_MIPMAP_LINEAR, self.context.LINEAR)
            if not any(name in self.context.info["GL_RENDERER"].lower() for name in _SOFTWARE):
                textures[first].anisotropy = _ANISOTROPY
        return textures

    def _set(self, name: str, value: object) -> None:
        if name in self.draw_program:  # a compiler may drop what it does not need
            self.draw_program[name].value = value

    def _use(self, material: int, settings: Settings) -> None:
        row = self.packed.materials[material]
        self._set("textured", bool(row[LEVEL_COUNT] > 0))
        self._set("blended", bool(row[MODE] == BLEND))
        self._set("masked", bool(row[MODE] == MASK))
        self._set("factor", tuple(row[FACTOR : FACTOR + 4].tolist()))
        self._set("cutoff", float(row[CUTOFF]))
        if row[LEVEL_COUNT] > 0:
            texture = self.textures[int(row[FIRST_LEVEL])]
            texture.repeat_x = texture.repeat_y = bool(row[REPEAT])
            texture.use(0)
        if settings.cull and row[SINGLE_SIDED]:
            self.context.enable(self.context.CULL_FACE)
        else:
            self.context.disable(self.context.CULL_FACE)

    def _look(self, view: NDArray[np.float64], target: _Target) -> None:
        height, width, side = target.key
        depth = -(self.packed.attributes[:, :3] - view[9:12]) @ view[6:9]
        near = max(self._near, 0.999 * float(depth.min(initial=np.inf)))
        far = max(1.001 * float(depth.max(initial=0.0)), 2.0 * near)
        self.draw_program["to_camera"].write(view[:9].reshape(3, 3).T.astype(np.float32).tobytes())
        self._set("eye", tuple(view[9:12].tolist()))
        self._set("lens", (2.0 * view[12] / (width * side), 2.0 * view[12] / (height * side), near, far))

    def _draw_blended(self, view: NDArray[np.float64], settings: Settings, target: _Target) -> None:
        """Composite blended faces from far to near, then write the geometry of the nearest."""
        depth = (self.centers[self.blended] - view[9:12]) @ view[6:9]  # grows towards the camera
        ordered = self.blended[np.argsort(depth, kind="stable")]
        self.indices.write((3 * ordered[:, None] + np.arange(3)).astype(np.int32).tobytes())
        starts = np.concatenate([[0], np.nonzero(np.diff(self.materials[ordered]))[0] + 1, [len(ordered)]]).tolist()
        context = self.context
        for mask in (((True,) * 4, (False,) * 4), ((False,) * 4, (True,) * 4)):
            target.samples.color_mask = mask
            target.samples.depth_mask = mask[1][0]
            if mask[0][0]:
                context.enable(context.BLEND)
            for begin, end in itertools.pairwise(starts):
                self._use(int(self.materials[ordered[begin]]), settings)
                self.sorted_soup.render(vertices=3 * (end - begin), first=3 * begin)
            context.disable(context.BLEND)
        target.samples.color_mask = ((True,) * 4, (True,) * 4)
        target.samples.depth_mask = True

    def _draw(self, view: NDArray[np.float64], settings: Settings, target: _Target) -> None:
        context = self.context
        target.samples.use()
        target.samples.clear()
        context.enable_only(context.DEPTH_TEST)
        context.front_face = "cw"  # y points down
        context.blend_func = context.ONE, context.ONE_MINUS_SRC_ALPHA
        self._look(view, target)
        for material, begin, end in self.ranges:
            if self.packed.materials[material, MODE] != BLEND:
                self._use(material, settings)
                self.soup.render(vertices=3 * (end - begin), first=3 * begin)
        if len(self.blended):
            self._draw_blended(view, settings, target)
        context.disable(context.DEPTH_TEST | context.CULL_FACE)
        target.pixels.use()
        target.colors.use(0)
        target.geometry.use(1)
        self.resolve_program["colors"].value, self.resolve_program["geometry"].value = 0, 1
        self.resolve_program["side"].value = settings.supersample
        self.screen.render(vertices=3)

    def render_views(
        self, views: NDArray[np.float64], settings: Settings, rgba: NDArray, depth: NDArray, normal: NDArray
    ) -> None:
        """Fill ``rgba [B, H, W, 4]``, ``depth [B, H, W, 1]`` and ``normal [B, H, W, 3]`` (float32).

        Raises:
            RedreamError: on another thread than the one that made this object.
        """
        if threading.get_ident() != self.thread:
            raise RedreamError(
                "An OpenGL context belongs to one thread",
                received=threading.current_thread().name,
                fix="Make one AssetRenderer per thread, or use backend='numba'.",
            )
        self.context.gc()
        key = (rgba.shape[1], rgba.shape[2], settings.supersample)
        if self.target is None or self.target.key != key:
            self.target = _Target(self.context, *key)
        self._near = settings.near
        self._set("colored", bool(self.packed.has_colors))
        self._set("shading", settings.shading)
        self._set("world_light", (*shading.WORLD_LIGHT, shading.WORLD_AMBIENT))
        self._set("headlight_ambient", shading.HEADLIGHT_AMBIENT)
        for v, view in enumerate(views):
            self._draw(view, settings, self.target)
            rgba[v] = self.target.read(0)
            geometry = self.target.read(1)
            normal[v], depth[v] = geometry[..., :3], geometry[..., 3:]


_INPUTS = ("in_position", "in_normal", "in_uv", "in_color", "in_flat")
