"""The triangle mesh that ``isosurface()`` returns, in threestudio's names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from threestudio_redream.meshing.types import Mesh

__all__ = ["SurfaceMesh"]


class SurfaceMesh:
    """Vertices and faces as tensors, in world units; faces are counter-clockwise seen from outside.

    Attributes:
        v_pos: ``[V, 3]`` float32. t_pos_idx: ``[F, 3]`` int64 indices into ``v_pos``.
        extras: whatever else is known, e.g. ``bbox`` ``[2, 3]``, the box that was searched.
    """

    def __init__(self, v_pos: Tensor, t_pos_idx: Tensor, **extras: Any) -> None:
        self.v_pos, self.t_pos_idx = v_pos, t_pos_idx
        self.extras: dict[str, Any] = dict(extras)
        self._v_nrm: Tensor | None = None

    @classmethod
    def from_mesh(cls, mesh: Mesh, device: torch.device, **extras: Any) -> SurfaceMesh:
        """Copy a numpy mesh to tensors on ``device``."""
        return cls(
            torch.from_numpy(mesh.vertices.copy()).to(device),
            torch.from_numpy(mesh.faces.astype("int64")).to(device),
            **extras,
        )

    def to_mesh(self) -> Mesh:
        """The same as numpy arrays, for the functions of :mod:`threestudio_redream.meshing`."""
        return Mesh(self.v_pos.detach().cpu().numpy(), self.t_pos_idx.cpu().numpy().astype("int32"))

    def add_extra(self, name: str, value: Any) -> None:
        self.extras[name] = value

    @property
    def requires_grad(self) -> bool:
        return self.v_pos.requires_grad

    @property
    def v_nrm(self) -> Tensor:
        """Area-weighted vertex normals, ``[V, 3]`` unit vectors that point outwards."""
        if self._v_nrm is None:
            from threestudio_redream.meshing.normals import vertex_normals

            mesh = self.to_mesh()
            self._v_nrm = torch.from_numpy(vertex_normals(mesh.vertices, mesh.faces)).to(self.v_pos)
        return self._v_nrm
