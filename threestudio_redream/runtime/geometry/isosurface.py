"""Surface extraction as ``threestudio.models.isosurface`` offers it: helpers that hold a grid of the unit cube."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from threestudio_redream.errors import EmptySceneError
from threestudio_redream.runtime.geometry import tetrahedra
from threestudio_redream.runtime.geometry.surface import SurfaceMesh

__all__ = ["IsosurfaceHelper", "MarchingCubeCPUHelper", "MarchingTetrahedraHelper"]

log = logging.getLogger("pytorch_lightning")


class IsosurfaceHelper(nn.Module):
    """Called with levels at :attr:`grid_vertices` (negative inside); returns a mesh in the same cube."""

    points_range: tuple[float, float] = (0.0, 1.0)

    @property
    def grid_vertices(self) -> Tensor:
        """Where the levels are wanted, ``[N, 3]`` in ``points_range``."""
        raise NotImplementedError


class MarchingCubeCPUHelper(IsosurfaceHelper):
    """Marching cubes on a grid of ``resolution`` nodes along each side; no gradient, closed at the cube's faces."""

    def __init__(self, resolution: int) -> None:
        super().__init__()
        self.resolution = resolution
        nodes = torch.linspace(*self.points_range, resolution)
        self._nodes = torch.cartesian_prod(nodes, nodes, nodes)  # stays on the CPU however large
        self.register_buffer("_dummy", torch.zeros(0), persistent=False)

    @property
    def grid_vertices(self) -> Tensor:
        return self._nodes

    def forward(self, level: Tensor, deformation: Tensor | None = None) -> SurfaceMesh:
        """The zero level of ``level`` ``[resolution^3, 1]``, x slowest.

        Raises:
            EmptySceneError: no level is negative, or there is NaN.
        """
        from threestudio_redream.meshing.isosurface import marching_cubes

        if deformation is not None:
            log.warning("The deformation of the isosurface grid is ignored: marching cubes has a fixed grid")
        inside = -level.detach().float().cpu().view(self.resolution, self.resolution, self.resolution).numpy()
        low, high = self.points_range
        found = marching_cubes(inside, [[low] * 3, [high] * 3], 0.0)
        return SurfaceMesh.from_mesh(found, torch.device(self._buffers["_dummy"].device))  # type: ignore[union-attr]


class MarchingTetrahedraHelper(IsosurfaceHelper):
    """Marching tetrahedra, differentiable in levels and deformation.

    Args:
        resolution: cubes along each side. tets_path: file of a grid, see
            :func:`~threestudio_redream.runtime.geometry.tetrahedra.read_grid`; where there is none the grid is made.
    """

    indices: Tensor
    _nodes: Tensor

    def __init__(self, resolution: int, tets_path: str = "") -> None:
        super().__init__()
        self.resolution, self.tets_path = resolution, tets_path
        path = Path(tets_path)
        if tets_path and path.is_file():
            nodes, indices = tetrahedra.read_grid(path)
            self._reach = 1.0 / resolution  # grids made for threestudio: half an edge
        else:
            nodes, indices = tetrahedra.kuhn_grid(resolution)
            self._reach = 0.5 / resolution
        self.register_buffer("_nodes", nodes, persistent=False)
        self.register_buffer("indices", indices, persistent=False)
        self._all_edges: Tensor | None = None

    @property
    def grid_vertices(self) -> Tensor:
        return self._nodes

    @property
    def all_edges(self) -> Tensor:
        """Edges ``[E, 2]`` of the grid, each once."""
        if self._all_edges is None:
            self._all_edges = self._edges_of(self.indices).reshape(-1, 2).unique(dim=0)
        return self._all_edges

    def normalize_grid_deformation(self, grid_vertex_offsets: Tensor) -> Tensor:
        """Offsets ``[N, 3]`` of any size, as shifts of at most half an edge."""
        low, high = self.points_range
        return (high - low) * self._reach * torch.tanh(grid_vertex_offsets)

    def forward(self, level: Tensor, deformation: Tensor | None = None) -> SurfaceMesh:
        """The zero level of ``level`` ``[N, 1]``.

        Returns:
            A mesh with ``grid_vertices``, ``tet_edges``, ``grid_level`` and ``grid_deformation`` in its extras.

        Raises:
            EmptySceneError: no tetrahedron has corners on both sides.
        """
        nodes = self.grid_vertices
        if deformation is not None:
            nodes = nodes + self.normalize_grid_deformation(deformation)
        v_pos, t_pos_idx = self._surface(nodes, level.reshape(-1, 1))
        extras = {"grid_vertices": nodes, "tet_edges": self.all_edges, "grid_level": level}
        return SurfaceMesh(v_pos, t_pos_idx, grid_deformation=deformation, **extras)

    @staticmethod
    def _edges_of(tets: Tensor) -> Tensor:
        """``[T, 6, 2]``, the smaller node first."""
        return tets[:, torch.tensor(tetrahedra.EDGES, device=tets.device)].sort(dim=-1).values

    def _surface(self, nodes: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        inside = level[:, 0] < 0.0
        codes = (inside[self.indices].long() << torch.arange(4, device=level.device)).sum(-1)
        cut = (codes > 0) & (codes < 15)
        if not bool(cut.any()):
            raise EmptySceneError(
                "No tetrahedron has corners on both sides of the surface",
                received=(float(level.min()), float(level.max())),
                fix="Levels are negative inside: check the field's sign and where it lies in the unit cube.",
            )
        codes = codes[cut]
        edges, where = self._edges_of(self.indices[cut]).reshape(-1, 2).unique(dim=0, return_inverse=True)
        crossed = inside[edges[:, 0]] != inside[edges[:, 1]]
        number = torch.cumsum(crossed, 0) - 1  # of the vertex on each edge that is crossed
        first, second = edges[crossed].unbind(1)
        share = level[first] / (level[first] - level[second])
        vertices = nodes[first] + share * (nodes[second] - nodes[first])

        on_edge = number[where].view(-1, 6)
        corners = tetrahedra.TRIANGLES.to(codes.device)[codes]  # [T, 2, 3]
        faces = on_edge[:, None].expand(-1, 2, -1).gather(2, corners)
        exists = torch.arange(2, device=codes.device) < tetrahedra.TRIANGLE_COUNT.to(codes.device)[codes][:, None]
        return vertices, faces[exists]
