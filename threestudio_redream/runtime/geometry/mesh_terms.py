"""What a triangle mesh has at its vertices and edges, differentiable in the vertices' positions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["laplacian_length", "normal_disagreement", "unique_edges", "vertex_normals", "vertex_tangents"]


def vertex_normals(v_pos: Tensor, t_pos_idx: Tensor) -> Tensor:
    """Area-weighted unit normals ``[V, 3]``; +z at a vertex without a face, or whose faces cancel.

    Convention: counter-clockwise seen from outside. Of the triangle (0,0,0), (1,0,0), (0,1,0): (0, 0, 1).
    """
    a, b, c = (v_pos[t_pos_idx[:, corner]] for corner in range(3))
    weighted = torch.linalg.cross(b - a, c - a)
    summed = torch.zeros_like(v_pos).index_add(0, t_pos_idx.reshape(-1), weighted.repeat_interleave(3, dim=0))
    flat = summed.square().sum(-1, keepdim=True) <= 1e-20
    return functional.normalize(torch.where(flat, summed.new_tensor([0.0, 0.0, 1.0]), summed), dim=-1)


def vertex_tangents(v_pos: Tensor, t_pos_idx: Tensor, v_tex: Tensor, t_tex_idx: Tensor, v_nrm: Tensor) -> Tensor:
    """Unit vectors ``[V, 3]`` along growing u, orthogonal to the normals ``v_nrm``.

    Args:
        v_tex: ``[T, 2]`` texture coordinates. t_tex_idx: ``[F, 3]`` indices into them.
    """
    p, q = v_pos[t_pos_idx], v_tex[t_tex_idx]
    (p1, p2), (q1, q2) = ((x[:, 1] - x[:, 0], x[:, 2] - x[:, 0]) for x in (p, q))
    area = q1[:, :1] * q2[:, 1:2] - q1[:, 1:2] * q2[:, :1]
    along = (p1 * q2[:, 1:2] - p2 * q1[:, 1:2]) * area.sign() / area.abs().clamp(min=1e-6)
    summed = torch.zeros_like(v_pos).index_add(0, t_pos_idx.reshape(-1), along.repeat_interleave(3, dim=0))
    unit = functional.normalize(summed, dim=-1)
    return functional.normalize(unit - (unit * v_nrm).sum(-1, keepdim=True) * v_nrm, dim=-1)


def unique_edges(t_pos_idx: Tensor) -> Tensor:
    """Edges ``[E, 2]`` of the triangles, each once, the smaller vertex first."""
    return torch.cat([t_pos_idx[:, pair] for pair in ([0, 1], [1, 2], [2, 0])]).sort(dim=1).values.unique(dim=0)


def normal_disagreement(v_nrm: Tensor, edges: Tensor) -> Tensor:
    """Mean over edges of one minus the cosine between the normals at their ends; 0 for a plane."""
    return (1.0 - functional.cosine_similarity(v_nrm[edges[:, 0]], v_nrm[edges[:, 1]], dim=-1)).mean()


def laplacian_length(v_pos: Tensor, edges: Tensor) -> Tensor:
    """Mean length of the uniform Laplacian: of each vertex times its neighbours' number, minus their sum."""
    first, second = edges[:, 0], edges[:, 1]
    pull = v_pos[first] - v_pos[second]
    return torch.zeros_like(v_pos).index_add(0, first, pull).index_add(0, second, -pull).norm(dim=-1).mean()
