"""``mesh-exporter``: a field as a textured GLB (default), or OBJ + MTL."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from threestudio_redream.errors import ConfigError
from threestudio_redream.meshing import extract_textured_mesh
from threestudio_redream.runtime.exporters.base import Exporter, ExporterOutput
from threestudio_redream.runtime.exporters.field_pictures import FieldPictures
from threestudio_redream.runtime.registry import register

__all__ = ["MeshExporter"]

log = logging.getLogger("pytorch_lightning")

COLOURS = ("views", "surface")
FORMATS = {"glb": ("glb", "glb"), "obj-mtl": ("obj", "obj")}

PointFn = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@register("mesh-exporter")
class MeshExporter(Exporter):
    """Extracts the surface, simplifies, unwraps and paints it.

    Keys:
        fmt: ``glb``, ``obj-mtl``, or several with commas (``glb,obj-mtl``). save_name: of the files.
        resolution: grid nodes along the longest side of the box.
        threshold: density of the surface, or ``auto``: the one whose outline is that of the field.
        target_faces: budget after simplification.
        texture_size: side of the square texture in pixels. supersample: samples per texel and axis.
        smooth_iterations: Taubin smoothing, since densities learned from images are rough.
        smooth_normals: take normals from the field's gradient rather than from the faces.
        colour_from: ``views``: the texture shows what pictures of the field show; ``surface``: the field's colour at
            the surface, which is sharper where the field has one (a fit), and wrong where it is a cloud.
        n_views, view_size: pictures for ``views``, from all around, and their side in pixels.
        colour_radius: the field's colours are averaged over this distance (world units), weighted by density, as
            a ray through the surface would; 0 takes the colour at the surface alone.
        save_normal, save_uv, save_texture, texture_format, xatlas_chart_options, xatlas_pack_options, context_type:
            accepted from upstream's configurations; without effect here. Textures are always PNG, normals and texture
            coordinates are always written, and no OpenGL context is needed.
    """

    @dataclass
    class Config(Exporter.Config):
        fmt: str = "glb"
        save_name: str = "model"
        resolution: int = 192
        threshold: Any = "auto"
        target_faces: int = 30_000
        texture_size: int = 1024
        supersample: int = 1
        smooth_iterations: int = 8
        smooth_normals: bool = False
        colour_from: str = "views"
        n_views: int = 24
        view_size: int = 256
        colour_radius: float = 0.004
        save_normal: bool = False
        save_uv: bool = True
        save_texture: bool = True
        texture_format: str = "png"
        xatlas_chart_options: dict = field(default_factory=dict)
        xatlas_pack_options: dict = field(default_factory=dict)
        context_type: str = "cpu"

    cfg: Config

    def __call__(self, *args: Any, **kwargs: Any) -> list[ExporterOutput]:
        """Extract once, for every format asked for.

        Raises:
            ConfigError: for an unknown format. EmptySceneError: if the field is empty.
        """
        formats = [part.strip() for part in self.cfg.fmt.split(",")]
        unknown = [name for name in formats if name not in FORMATS]
        if unknown:
            raise ConfigError("Unknown export format", received=unknown[0], fix=f"Use {', '.join(FORMATS)}.")
        if self.cfg.colour_from not in COLOURS:
            raise ConfigError(
                "Unknown source of colours", received=self.cfg.colour_from, fix=f"Use {' or '.join(COLOURS)}."
            )
        mesh, report = extract_textured_mesh(
            self._level(),
            self._colour,
            self.geometry.bbox.cpu().numpy(),
            resolution=self.cfg.resolution,
            threshold=self._threshold(),
            target_faces=self.cfg.target_faces,
            texture_size=self.cfg.texture_size,
            supersample=self.cfg.supersample,
            smooth_iterations=self.cfg.smooth_iterations,
            normal_fn=self._normal if self.cfg.smooth_normals else None,
            view_fn=self._pictures(),
            n_views=self.cfg.n_views,
            view_size=self.cfg.view_size,
            name=self.cfg.save_name,
        )
        log.info(
            "Mesh: %d faces at threshold %.3g%s, %s",
            report.faces,
            report.threshold,
            " (automatic)" if report.automatic else "",
            "watertight" if report.watertight else "not watertight",
        )
        outputs = [
            ExporterOutput(f"{self.cfg.save_name}.{FORMATS[name][1]}", FORMATS[name][0], {"mesh": mesh})
            for name in formats
        ]
        return [*outputs, ExporterOutput(f"{self.cfg.save_name}.json", "json", {"payload": report.to_dict()})]

    # ------------------------------------------------------------------ the field, as functions of points
    @property
    def _is_density(self) -> bool:
        return hasattr(self.geometry, "forward_density")

    def _threshold(self) -> Any:
        return self.cfg.threshold if self._is_density else 0.0

    def _level(self) -> PointFn:
        if self._is_density:
            return self._on_points(lambda points: self.geometry.forward_density(points)[..., 0])

        def inside(points: torch.Tensor) -> torch.Tensor:
            return -self.geometry.forward_level(self.geometry.forward_field(points)[0], 0.0)[..., 0]

        return self._on_points(inside)

    def _colour(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        radius = self.cfg.colour_radius if self._is_density else 0.0
        if radius <= 0:
            return self._on_points(self._albedo)(points)
        offsets = torch.cat([torch.zeros(1, 3), torch.eye(3), -torch.eye(3)]).to(self.geometry.bbox) * radius

        def average(positions: torch.Tensor) -> torch.Tensor:
            around = (positions[:, None] + offsets).reshape(-1, 3)
            density = self.geometry.forward_density(around).reshape(-1, len(offsets), 1)
            weights = density.clamp_min(1e-6)
            colours = self._albedo(around).reshape(-1, len(offsets), 3)
            return (colours * weights).sum(dim=1) / weights.sum(dim=1)

        return self._on_points(average)(points)

    def _pictures(self) -> FieldPictures | None:
        """None where the surface is exact, or asked for."""
        if self.cfg.colour_from == "surface" or not self._is_density:
            return None
        with torch.no_grad():
            return FieldPictures(self.geometry.bbox, self.geometry.forward_density, self._albedo)

    def _albedo(self, positions: torch.Tensor) -> torch.Tensor:
        values = self.material.export(points=positions, **self.geometry.export(positions))
        return values.get("albedo", torch.full_like(positions, 0.5)).clamp(0.0, 1.0)

    def _normal(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._on_points(lambda positions: self.geometry(positions, output_normal=True)["normal"])(points)

    def _on_points(self, function: Callable[[torch.Tensor], torch.Tensor]) -> PointFn:
        def call(points: NDArray[np.float32]) -> NDArray[np.float32]:
            with torch.no_grad():
                tensor = torch.from_numpy(np.ascontiguousarray(points)).to(self.geometry.bbox)
                return function(tensor).float().cpu().numpy()

        return call
