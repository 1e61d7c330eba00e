"""The triangle mesh that ``isosurface()`` returns, in threestudio's names."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from threestudio_redream.errors import ConfigError
from threestudio_redream.meshing.types import Mesh
from threestudio_redream.runtime.geometry import mesh_terms

__all__ = ["SurfaceMesh"]

log = logging.getLogger("pytorch_lightning")


class SurfaceMesh:
    """Vertices and faces as tensors, in world units; faces are counter-clockwise seen from outside.

    Normals, edges and texture coordinates are computed when they are first read, and then kept.

    Attributes:
        v_pos: ``[V, 3]`` float32. t_pos_idx: ``[F, 3]`` int64 indices into ``v_pos``.
        extras: whatever else is known, e.g. ``bbox`` ``[2, 3]``, the box that was searched.
    """

    def __init__(self, v_pos: Tensor, t_pos_idx: Tensor, **extras: Any) -> None:
        self.v_pos, self.t_pos_idx = v_pos, t_pos_idx
        self.extras: dict[str, Any] = dict(extras)
        self._v_nrm: Tensor | None = None
        self._v_tng: Tensor | None = None
        self._v_tex: Tensor | None = None
        self._t_tex_idx: Tensor | None = None
        self._v_rgb: Tensor | None = None
        self._edges: Tensor | None = None

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

    def remove_outlier(self, outlier_n_faces_threshold: int | float) -> SurfaceMesh:
        """This mesh without small loose parts; itself where gradients flow through the vertices.

        Args:
            outlier_n_faces_threshold: a float is a share of the largest part's area, an int a number of faces.
        """
        if self.requires_grad:
            log.debug("Gradients flow through the vertices: no part of the mesh is removed")
            return self
        from threestudio_redream.runtime.geometry.outliers import without_outliers

        kept = without_outliers(self.to_mesh(), outlier_n_faces_threshold)
        return SurfaceMesh.from_mesh(kept, self.v_pos.device, **self.extras)

    @property
    def requires_grad(self) -> bool:
        return self.v_pos.requires_grad

    @property
    def v_nrm(self) -> Tensor:
        """Area-weighted vertex normals, ``[V, 3]`` unit vectors that point outwards."""
        if self._v_nrm is None:
            self._v_nrm = mesh_terms.vertex_normals(self.v_pos, self.t_pos_idx)
        return self._v_nrm

    @property
    def v_tng(self) -> Tensor:
        """Vertex tangents along growing u, ``[V, 3]`` unit vectors orthogonal to the normals."""
        if self._v_tng is None:
            self._v_tng = mesh_terms.vertex_tangents(self.v_pos, self.t_pos_idx, self.v_tex, self.t_tex_idx, self.v_nrm)
        return self._v_tng

    @property
    def v_tex(self) -> Tensor:
        """Texture coordinates ``[T, 2]`` in [0, 1]; v follows the image, downwards."""
        if self._v_tex is None:
            self.unwrap_uv()
        assert self._v_tex is not None
        return self._v_tex

    @property
    def t_tex_idx(self) -> Tensor:
        """Faces ``[F, 3]`` as indices into ``v_tex``, in the order of ``t_pos_idx``."""
        if self._t_tex_idx is None:
            self.unwrap_uv()
        assert self._t_tex_idx is not None
        return self._t_tex_idx

    def unwrap_uv(self, xatlas_chart_options: Any = None, xatlas_pack_options: Any = None) -> None:
        """Compute ``v_tex`` and ``t_tex_idx`` anew. The options are accepted and not used: charts are packed to fit."""
        from threestudio_redream.meshing.unwrap import unwrap

        if xatlas_chart_options or xatlas_pack_options:
            log.warning("Options of xatlas have no effect in this runtime")
        found = unwrap(self.to_mesh())
        self._v_tex = torch.from_numpy(found.uvs).to(self.v_pos.device)
        self._t_tex_idx = torch.from_numpy(found.mesh.faces.astype("int64")).to(self.v_pos.device)

    @property
    def v_rgb(self) -> Tensor | None:
        """Vertex colours ``[V, 3]`` in [0, 1], if any were set."""
        return self._v_rgb

    def set_vertex_color(self, v_rgb: Tensor) -> None:
        """Give the vertices colours ``[V, 3]`` in [0, 1]."""
        if len(v_rgb) != len(self.v_pos):
            raise ConfigError(
                f"The mesh has {len(self.v_pos)} vertices", received=tuple(v_rgb.shape), fix="Give one colour for each."
            )
        self._v_rgb = v_rgb

    @property
    def edges(self) -> Tensor:
        """Edges ``[E, 2]``, each once."""
        if self._edges is None:
            self._edges = mesh_terms.unique_edges(self.t_pos_idx)
        return self._edges

    def normal_consistency(self) -> Tensor:
        """Scalar: mean over edges of one minus the cosine between the normals at their ends."""
        return mesh_terms.normal_disagreement(self.v_nrm, self.edges)

    def laplacian(self) -> Tensor:
        """Scalar: mean length of the uniform Laplacian of the positions, in world units."""
        return mesh_terms.laplacian_length(self.v_pos, self.edges)
