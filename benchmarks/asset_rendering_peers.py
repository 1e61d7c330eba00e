"""The renderers that asset_rendering.py compares: each draws one view to RGBA and depth arrays in memory.

All get the same loaded asset, cameras and image size, draw the unlit base colour, and hand back numpy
arrays. ``depth`` is a pair: the array, and ``ray`` (distance along the ray) or ``z`` (along the optical axis).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from threestudio_redream.assets.rasteriser import AssetRenderer
from threestudio_redream.assets.types import Asset
from threestudio_redream.cameras import pixel_rays

__all__ = ["RENDERERS"]

View = tuple[np.ndarray, tuple[np.ndarray, str]]


class Ours:
    """This package's rasteriser."""

    PACKAGES = ("numba", "numpy")
    backend, supersample, batch = "numba", 1, False

    def __init__(self, asset: Asset) -> None:
        self.renderer = AssetRenderer(asset, supersample=self.supersample, backend=self.backend)  # type: ignore[arg-type]

    def render(self, c2w: np.ndarray, fovy_deg: float, size: int) -> View:
        renders = self.renderer(c2w, fovy_deg, size, size)
        return renders.rgba[0], (renders.depth[0, ..., 0], "ray")

    def render_all(self, cameras: np.ndarray, fovy_deg: float, size: int) -> None:
        if self.batch:
            self.renderer(cameras, fovy_deg, size, size)
            return
        for c2w in cameras:
            self.render(c2w, fovy_deg, size)


class OursAntiAliased(Ours):
    supersample = 3


class OursBatch(Ours):
    supersample, batch = 3, True


class OursModerngl(Ours):
    PACKAGES = ("moderngl", "glcontext")
    backend, supersample = "moderngl", 3


class Peer:
    PACKAGES: tuple[str, ...] = ()

    def render(self, c2w: np.ndarray, fovy_deg: float, size: int) -> View:
        raise NotImplementedError

    def render_all(self, cameras: np.ndarray, fovy_deg: float, size: int) -> None:
        for c2w in cameras:
            self.render(c2w, fovy_deg, size)


def parts(asset: Asset) -> Iterator[tuple[np.ndarray, np.ndarray, Any]]:
    """Vertex numbers, faces and material of each material's part of an asset."""
    for index in np.unique(asset.face_materials).tolist():
        used, faces = np.unique(asset.faces[asset.face_materials == index], return_inverse=True)
        yield used, faces.reshape(-1, 3), asset.materials[index]


class Embree(Peer):
    """trimesh's embree rays, one per pixel; texture looked up with numpy, bilinear, first mip level."""

    PACKAGES = ("trimesh", "embreex", "numpy")

    def __init__(self, asset: Asset) -> None:
        import trimesh
        from trimesh.ray.ray_pyembree import RayMeshIntersector

        self.asset = asset
        self.mesh = trimesh.Trimesh(asset.vertices, asset.faces, process=False)
        self.intersector = RayMeshIntersector(self.mesh)

    def render(self, c2w: np.ndarray, fovy_deg: float, size: int) -> View:
        asset = self.asset
        origins, directions = (array.reshape(-1, 3) for array in pixel_rays(c2w[None], fovy_deg, size, size))
        faces, rays, where = self.intersector.intersects_id(
            origins, directions, multiple_hits=False, return_locations=True
        )
        rgba, depth = np.zeros((size * size, 4), np.float32), np.zeros(size * size, np.float32)
        depth[rays] = np.linalg.norm(where - origins[rays], axis=1)
        corners = asset.faces[faces]
        a, b, c = (asset.vertices[corners[:, k]] for k in range(3))
        normal = np.cross(b - a, c - a)
        area = np.maximum((normal * normal).sum(1), 1e-30)
        v = (np.cross(c - b, where - b) * normal).sum(1) / area
        w = (np.cross(a - c, where - c) * normal).sum(1) / area
        weights = np.stack([v, w, 1 - v - w], 1)
        for index in np.unique(asset.face_materials[faces]).tolist():
            some = asset.face_materials[faces] == index
            material = asset.materials[index]
            rgb = np.broadcast_to(np.asarray(material.base_color[:3]), (int(some.sum()), 3))
            if material.texture is not None and asset.uvs is not None:
                uv = np.einsum("nk,nkc->nc", weights[some], asset.uvs[corners[some]])
                rgb = self._bilinear(material.texture, uv)
            rgba[rays[some], :3] = rgb
        rgba[rays, 3] = 1.0
        return rgba.reshape(size, size, 4), (depth.reshape(size, size), "ray")

    @staticmethod
    def _bilinear(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
        height, width = texture.shape[:2]
        x, y = uv[:, 0] * width - 0.5, uv[:, 1] * height - 0.5
        left, top = np.floor(x).astype(int), np.floor(y).astype(int)
        fx, fy = (x - left)[:, None], (y - top)[:, None]
        columns, rows = (left % width, (left + 1) % width), (top % height, (top + 1) % height)
        upper = (1 - fx) * texture[rows[0], columns[0], :3] + fx * texture[rows[0], columns[1], :3]
        lower = (1 - fx) * texture[rows[1], columns[0], :3] + fx * texture[rows[1], columns[1], :3]
        return ((1 - fy) * upper + fy * lower) / 255.0


class Pyrender(Peer):
    """pyrender's OffscreenRenderer with FLAT | RGBA; EGL unless PYOPENGL_PLATFORM says otherwise."""

    PACKAGES = ("pyrender", "PyOpenGL")

    def __init__(self, asset: Asset) -> None:
        os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
        import pyrender
        import trimesh
        from PIL import Image

        self.pyrender = pyrender
        self.scene = pyrender.Scene(bg_color=[0, 0, 0, 0])
        for used, faces, material in parts(asset):
            color = (np.asarray(material.base_color) * 255).astype(np.uint8)
            skin = trimesh.visual.material.PBRMaterial(baseColorFactor=color, doubleSided=True)
            uv = None
            if material.texture is not None and asset.uvs is not None:
                skin.baseColorTexture = Image.fromarray(material.texture[..., :3])
                uv = np.column_stack([asset.uvs[used, 0], 1.0 - asset.uvs[used, 1]])
            visual = trimesh.visual.TextureVisuals(uv=uv, material=skin)
            mesh = trimesh.Trimesh(asset.vertices[used], faces, visual=visual, process=False)
            self.scene.add(pyrender.Mesh.from_trimesh(mesh, smooth=False))
        self.camera = pyrender.PerspectiveCamera(yfov=1.0, znear=0.05, zfar=10.0)
        self.node = self.scene.add(self.camera, pose=np.eye(4))
        self.windows: dict[int, Any] = {}

    def render(self, c2w: np.ndarray, fovy_deg: float, size: int) -> View:
        if size not in self.windows:
            for window in self.windows.values():
                window.delete()
            self.windows = {size: self.pyrender.OffscreenRenderer(size, size)}
        self.camera.yfov = float(np.deg2rad(fovy_deg))
        self.scene.set_pose(self.node, c2w.astype(np.float64))
        flags = self.pyrender.RenderFlags.FLAT | self.pyrender.RenderFlags.RGBA
        rgba, depth = self.windows[size].render(self.scene, flags=flags)
        return rgba, (depth, "z")


class Pyvista(Peer):
    """pyvista / VTK off screen, unlit, transparent background, 8x multi-sampling as VTK sets it."""

    PACKAGES = ("pyvista", "vtk")

    def __init__(self, asset: Asset) -> None:
        import pyvista

        self.asset, self.pyvista = asset, pyvista
        self.plotters: dict[int, Any] = {}

    def _plotter(self, size: int) -> Any:
        plotter = self.pyvista.Plotter(off_screen=True, window_size=(size, size), lighting="none")
        asset = self.asset
        for used, faces, material in parts(asset):
            cells = np.concatenate([np.full((len(faces), 1), 3), faces], axis=1).ravel()
            mesh = self.pyvista.PolyData(asset.vertices[used], cells)
            texture = None
            if material.texture is not None and asset.uvs is not None:
                mesh.active_texture_coordinates = np.column_stack([asset.uvs[used, 0], 1.0 - asset.uvs[used, 1]])
                texture = self.pyvista.Texture(np.ascontiguousarray(material.texture[..., :3]))
                texture.interpolate = texture.repeat = True  # mip levels make VTK filter anisotropically: far slower
            plotter.add_mesh(mesh, texture=texture, color=material.base_color[:3], lighting=False)
        plotter.camera.clipping_range = (0.05, 10.0)
        return plotter

    def render(self, c2w: np.ndarray, fovy_deg: float, size: int) -> View:
        if size not in self.plotters:
            for plotter in self.plotters.values():
                plotter.close()
            self.plotters = {size: self._plotter(size)}
        plotter = self.plotters[size]
        camera = plotter.camera
        camera.position, camera.focal_point = c2w[:3, 3].tolist(), (c2w[:3, 3] - c2w[:3, 2]).tolist()
        camera.up, camera.view_angle = c2w[:3, 1].tolist(), fovy_deg
        camera.clipping_range = (0.05, 10.0)
        plotter.render()
        rgba = plotter.screenshot(transparent_background=True, return_img=True)
        return rgba, (np.nan_to_num(-plotter.get_image_depth()), "z")


class Mitsuba(Peer):
    """mitsuba 3, scalar_rgb, an AOV integrator with albedo-like emission off: depth and base colour at 1 sample."""

    PACKAGES = ("mitsuba", "drjit")

    def __init__(self, asset: Asset) -> None:
        import mitsuba

        mitsuba.set_variant("scalar_rgb")
        self.mitsuba = mitsuba
        self.shapes: dict[str, Any] = {}
        for number, (used, faces, material) in enumerate(parts(asset)):
            color: dict[str, Any] = {"type": "rgb", "value": list(material.base_color[:3])}
            if material.texture is not None and asset.uvs is not None:
                bitmap = mitsuba.Bitmap(np.ascontiguousarray(material.texture[..., :3]))
                color = {"type": "bitmap", "bitmap": bitmap, "raw": True}
            properties = mitsuba.Properties()
            properties["bsdf"] = mitsuba.load_dict(
                {"type": "twosided", "bsdf": {"type": "diffuse", "reflectance": color}}
            )
            mesh = mitsuba.Mesh(f"part{number}", len(used), len(faces), has_vertex_texcoords=True, props=properties)
            values = mitsuba.traverse(mesh)
            values["vertex_positions"] = asset.vertices[used].ravel()
            values["faces"] = faces.astype(np.uint32).ravel()
            uv = np.zeros((len(used), 2), np.float32) if asset.uvs is None else asset.uvs[used]
            values["vertex_texcoords"] = np.column_stack([uv[:, 0], 1.0 - uv[:, 1]]).astype(np.float32).ravel()
            values.update()
            self.shapes[f"part{number}"] = mesh
        self.scene = mitsuba.load_dict({"type": "scene", **self.shapes})
        self.integrator = mitsuba.load_dict({"type": "aov", "aovs": "albedo:albedo,depth:depth"})

    def render(self, c2w: np.ndarray, fovy_deg: float, size: int) -> View:
        mitsuba = self.mitsuba
        flip = np.diag([-1.0, 1.0, -1.0, 1.0])  # mitsuba looks along +z with x to the left
        film = {"type": "hdrfilm", "width": size, "height": size, "rfilter": {"type": "box"}, "pixel_format": "rgba"}
        sensor = mitsuba.load_dict(
            {
                "type": "perspective",
                "fov": fovy_deg,
                "fov_axis": "y",
                "near_clip": 1e-4,  # its depth counts from there
                "far_clip": 10.0,
                "to_world": mitsuba.ScalarTransform4f(c2w.astype(np.float64) @ flip),
                "film": film,
                "sampler": {"type": "independent", "sample_count": 1},
            }
        )
        image = np.array(mitsuba.render(self.scene, sensor=sensor, integrator=self.integrator, spp=1))
        depth = image[..., -1]
        rgba = np.concatenate([image[..., -4:-1], (depth > 0)[..., None]], axis=-1)
        return rgba, (depth, "ray")


RENDERERS: dict[str, type[Any]] = {
    "ours numba, 1 sample": Ours,
    "ours numba, 3x3 samples": OursAntiAliased,
    "ours numba, 3x3 samples, batch": OursBatch,
    "ours moderngl, 3x3 samples": OursModerngl,
    "trimesh + embreex": Embree,
    "pyrender": Pyrender,
    "pyvista (VTK)": Pyvista,
    "mitsuba scalar_rgb, 1 sample": Mitsuba,
}
