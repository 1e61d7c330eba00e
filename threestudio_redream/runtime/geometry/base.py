"""BaseGeometry, BaseImplicitGeometry and BaseExplicitGeometry of the threestudio contract."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.base import BaseModule
from threestudio_redream.runtime.geometry.contraction import contract_to_unisphere
from threestudio_redream.runtime.geometry.outliers import without_outliers
from threestudio_redream.runtime.geometry.surface import SurfaceMesh

__all__ = ["BaseExplicitGeometry", "BaseGeometry", "BaseImplicitGeometry", "contract_to_unisphere"]

log = logging.getLogger("pytorch_lightning")


class BaseGeometry(BaseModule):
    """Anything that has a shape."""

    @dataclass
    class Config(BaseModule.Config):
        pass

    cfg: Config

    @staticmethod
    def create_from(other: BaseGeometry, cfg: Any = None, **kwargs: Any) -> BaseGeometry:
        """Build this geometry from another one.

        Raises:
            ConfigError: (a TypeError) unless a subclass says how.
        """
        raise ConfigError(
            "This geometry cannot be made from another one",
            received=type(other).__name__,
            fix="Use a geometry type that supports create_from, such as implicit-volume from implicit-volume.",
        )

    def export(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What a material needs to colour points of the surface; empty by default."""
        return {}


class BaseExplicitGeometry(BaseGeometry):
    """A shape made of parts, in the box from ``-radius`` to ``radius``."""

    @dataclass
    class Config(BaseGeometry.Config):
        radius: float = 1.0

    cfg: Config
    bbox: Tensor

    def configure(self) -> None:
        self.register_buffer("bbox", _cube(self.cfg.radius))


class BaseImplicitGeometry(BaseGeometry):
    """A field over the box from ``-radius`` to ``radius`` (world units) whose surface is a level set.

    Subclasses implement ``forward``, ``forward_field`` and ``forward_level``. ``isosurface`` is not
    differentiable here: both method names of upstream (``mt``, ``mc-cpu``) run marching cubes.

    Keys:
        radius: half the side of the box, in world units.
        isosurface: whether the surface may be asked for. isosurface_method: ``mt`` or ``mc-cpu``.
        isosurface_resolution: nodes along each side of the box.
        isosurface_deformable_grid: accepted from upstream's configurations; without effect here.
        isosurface_remove_outliers: drop small loose parts.
        isosurface_threshold: a number, or ``auto``: the mean of the field where it is above 1e-5.
        isosurface_chunk: points per evaluation of the field; 0 takes a default.
        isosurface_coarse_to_fine: search once more in the tight box of the first result.
        isosurface_outlier_n_faces_threshold: loose parts smaller than this are dropped: a float is a
            share of the largest part's area, an int a number of faces.
    """

    @dataclass
    class Config(BaseGeometry.Config):
        radius: float = 1.0
        isosurface: bool = True
        isosurface_method: str = "mt"
        isosurface_resolution: int = 128
        isosurface_threshold: Any = 0.0
        isosurface_chunk: int = 0
        isosurface_coarse_to_fine: bool = True
        isosurface_deformable_grid: bool = False
        isosurface_remove_outliers: bool = True
        isosurface_outlier_n_faces_threshold: Any = 0.01

    cfg: Config
    bbox: Tensor

    def configure(self) -> None:
        if not self.cfg.radius > 0:
            raise ConfigError("geometry.radius must be positive", received=self.cfg.radius, fix="1.0 is usual.")
        self.register_buffer("bbox", _cube(self.cfg.radius))
        self.unbounded = False

    def forward(self, points: Tensor, output_normal: bool = False) -> dict[str, Tensor]:
        """Field values at ``points`` ``[..., 3]`` (world units).

        Returns:
            ``density`` (or ``sdf``) ``[..., 1]``, ``features`` ``[..., F]`` and, with
            ``output_normal``, ``normal`` and ``shading_normal`` ``[..., 3]``.
        """
        raise NotImplementedError

    def forward_field(self, points: Tensor) -> tuple[Tensor, Tensor | None]:
        """Value of the field ``[..., 1]`` (density or distance), and a grid deformation ``[..., 3]`` or None."""
        raise NotImplementedError

    def forward_level(self, field: Tensor, threshold: float) -> Tensor:
        """From field values to levels of the same shape: negative inside, zero on the surface."""
        raise NotImplementedError

    def isosurface(self) -> SurfaceMesh:
        """The surface as a triangle mesh in world units, faces outwards.

        Raises:
            ConfigError: if ``isosurface`` is off or a key is wrong.
            EmptySceneError: if no part of the field is inside, or it holds NaN.
        """
        if not self.cfg.isosurface:
            raise ConfigError("The surface is switched off", received=False, fix="Set geometry.isosurface: true.")
        if self.cfg.isosurface_method not in ("mt", "mc-cpu"):
            raise ConfigError(
                "There is no such isosurface method", received=self.cfg.isosurface_method, fix="Use mt or mc-cpu."
            )
        mesh = self._isosurface(self.bbox)
        if self.cfg.isosurface_coarse_to_fine:
            low, high = mesh.v_pos.amin(dim=0), mesh.v_pos.amax(dim=0)
            margin = 0.1 * (high - low).clamp(min=1e-3 * self.cfg.radius)
            tight = torch.stack([(low - margin).maximum(self.bbox[0]), (high + margin).minimum(self.bbox[1])])
            mesh = self._isosurface(tight)
        return mesh

    @torch.no_grad()
    def _isosurface(self, bbox: Tensor) -> SurfaceMesh:
        from threestudio_redream.meshing.grid import DEFAULT_CHUNK, sample_grid
        from threestudio_redream.meshing.isosurface import marching_cubes

        deformed = False

        def field(points: Any) -> Any:
            nonlocal deformed
            value, deformation = self.forward_field(torch.from_numpy(points).to(self.bbox.device))
            deformed = deformed or deformation is not None
            return value.cpu().numpy()

        box = bbox.cpu().numpy()
        chunk = self.cfg.isosurface_chunk if self.cfg.isosurface_chunk > 0 else DEFAULT_CHUNK
        values = torch.from_numpy(sample_grid(field, box, self.cfg.isosurface_resolution, chunk=chunk))
        if deformed:
            log.warning("The deformation of the isosurface grid is ignored: marching cubes has a fixed grid")
        level = self.forward_level(values, self._threshold(values)).numpy()
        mesh = marching_cubes(-level, box, 0.0)
        if self.cfg.isosurface_remove_outliers:
            mesh = without_outliers(mesh, self.cfg.isosurface_outlier_n_faces_threshold)
        return SurfaceMesh.from_mesh(mesh, self.bbox.device, bbox=bbox)

    def _threshold(self, field: Tensor) -> float:
        threshold = self.cfg.isosurface_threshold
        if isinstance(threshold, int | float) and not isinstance(threshold, bool):
            return float(threshold)
        if threshold != "auto":
            raise ConfigError(
                "isosurface_threshold is neither a number nor auto", received=threshold, fix="25.0 suits densities."
            )
        inside = field[field > 1e-5]
        chosen = float(inside.double().mean()) if inside.numel() else 0.0
        log.info("The isosurface threshold is %.4g, the mean of the field where it is above 1e-5", chosen)
        return chosen


def _cube(radius: float) -> Tensor:
    return torch.tensor([[-radius] * 3, [radius] * 3], dtype=torch.float32)
