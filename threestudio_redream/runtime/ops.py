"""Small tensor functions that threestudio code imports from ``threestudio.utils.ops``."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from threestudio_redream.cameras import projection_matrix
from threestudio_redream.runtime.activations import get_activation
from threestudio_redream.runtime.chunking import chunk_batch

__all__ = [
    "SpecifyGradient",
    "binary_cross_entropy",
    "chunk_batch",
    "dot",
    "get_activation",
    "get_full_projection_matrix",
    "get_mvp_matrix",
    "get_projection_matrix",
    "get_ray_directions",
    "get_rays",
    "mask_ray_directions",
    "perpendicular_component",
    "reflect",
    "scale_tensor",
    "shifted_cosine_decay",
    "shifted_expotional_decay",
    "validate_empty_rays",
]

log = logging.getLogger("pytorch_lightning")


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Inner product over the last axis, kept: ``[..., D] x [..., D] -> [..., 1]``."""
    return (x * y).sum(dim=-1, keepdim=True)


def reflect(x: Tensor, n: Tensor) -> Tensor:
    """Mirror ``x`` about the unit normal ``n``: ``2 (x.n) n - x``."""
    return 2.0 * dot(x, n) * n - x


def scale_tensor(
    dat: Tensor, inp_scale: tuple[float, float] | Tensor | None, tgt_scale: tuple[float, float] | Tensor | None
) -> Tensor:
    """Map the range ``inp_scale`` linearly to ``tgt_scale`` (each ``[2]`` or ``[2, D]``; None is (0, 1))."""
    low, high = (0.0, 1.0) if inp_scale is None else (inp_scale[0], inp_scale[1])
    target_low, target_high = (0.0, 1.0) if tgt_scale is None else (tgt_scale[0], tgt_scale[1])
    return (dat - low) / (high - low) * (target_high - target_low) + target_low


def binary_cross_entropy(input: Tensor, target: Tensor) -> Tensor:
    """Mean cross entropy of probabilities, written out so that it also runs under autocast."""
    return -(target * torch.log(input) + (1.0 - target) * torch.log(1.0 - input)).mean()


def perpendicular_component(x: Tensor, y: Tensor) -> Tensor:
    """Part of ``x`` orthogonal to ``y``, per batch element: ``[B, C, H, W]`` (Perp-Neg, 2023)."""
    axes = [1, 2, 3]
    scale = (x * y).sum(dim=axes) / (y * y).sum(dim=axes).clamp_min(1e-6)
    return x - scale.view(-1, 1, 1, 1) * y


def get_ray_directions(
    H: int, W: int, focal: float, principal: tuple[float, float] | None = None, use_pixel_centers: bool = True
) -> Tensor:
    """Camera-space directions ``[H, W, 3]`` with z = -1, y up, through pixel centres.

    Convention: ``get_ray_directions(2, 2, 1.0)[0, 0] == (-0.5, 0.5, -1)``.
    """
    centre = 0.5 if use_pixel_centers else 0.0
    cx, cy = principal if principal is not None else (W / 2, H / 2)
    rows, columns = torch.meshgrid(
        torch.arange(H, dtype=torch.float32) + centre, torch.arange(W, dtype=torch.float32) + centre, indexing="ij"
    )
    return torch.stack([(columns - cx) / focal, -(rows - cy) / focal, -torch.ones_like(rows)], dim=-1)


def get_rays(
    directions: Tensor, c2w: Tensor, keepdim: bool = False, noise_scale: float = 0.0, normalize: bool = True
) -> tuple[Tensor, Tensor]:
    """World-space rays of camera-space ``directions`` ``[B, H, W, 3]`` (or ``[H, W, 3]``) under ``c2w [B, 4, 4]``.

    Returns:
        ``rays_o, rays_d``: ``[B, H, W, 3]`` with ``keepdim``, else ``[B*H*W, 3]``.
    """
    if directions.ndim == 3:
        directions = directions.expand(c2w.shape[0], *directions.shape)
    rays_d = torch.einsum("bhwi,bji->bhwj", directions, c2w[:, :3, :3])
    rays_o = c2w[:, None, None, :3, 3].expand_as(rays_d)
    if noise_scale > 0:
        rays_o = rays_o + torch.randn(3, device=rays_o.device) * noise_scale
        rays_d = rays_d + torch.randn(3, device=rays_d.device) * noise_scale
    if normalize:
        rays_d = torch.nn.functional.normalize(rays_d, dim=-1)
    return (rays_o, rays_d) if keepdim else (rays_o.reshape(-1, 3), rays_d.reshape(-1, 3))


def get_projection_matrix(fovy: Tensor, aspect_wh: float, near: float, far: float) -> Tensor:
    """Projection ``[B, 4, 4]`` for vertical fields of view in **radians**, y flipped."""
    degrees = torch.rad2deg(fovy).cpu().numpy()
    return torch.from_numpy(projection_matrix(degrees, aspect_wh, near, far)).to(fovy.device)


def get_mvp_matrix(c2w: Tensor, proj_mtx: Tensor) -> Tensor:
    """``proj_mtx @ inverse(c2w)``, ``[B, 4, 4]``."""
    return proj_mtx @ torch.linalg.inv(c2w)


def get_full_projection_matrix(c2w: Tensor, proj_mtx: Tensor) -> Tensor:
    """``c2w @ proj_mtx`` as threestudio's camera data defines it, ``[B, 4, 4]``; for images, see get_mvp_matrix."""
    return c2w @ proj_mtx


def mask_ray_directions(H: int, W: int, s_H: int, s_W: int) -> Tensor:
    """Flat indices ``[s_H, s_W]`` of an even grid of pixels of a picture ``[H, W]``, three quarters of it wide.

    The grid lies at a random place, so that a few pixels of a large picture see all of it over many steps.
    """
    row = torch.linspace(0.0, 0.75 * H, s_H) + torch.randint(0, H // 8 + 1, (1,))
    column = torch.linspace(0.0, 0.75 * W, s_W) + torch.randint(0, W // 8 + 1, (1,))
    return row.long().clamp(max=H - 1)[:, None] * W + column.long().clamp(max=W - 1)


def shifted_expotional_decay(a: float, b: float, c: float, r: Tensor) -> Tensor:
    """``a exp(-b r) + c``: weights of Perp-Neg's negative prompts. (The name is upstream's.)"""
    return a * torch.exp(-b * r) + c


def shifted_cosine_decay(a: float, b: float, c: float, r: Tensor) -> Tensor:
    """``a (cos(b r + c) + 1)``."""
    return a * torch.cos(b * r + c) + a


def validate_empty_rays(ray_indices: Tensor, t_start: Tensor, t_end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The samples ``[N]`` of a batch of rays, or one without length on the first ray where there are none.

    Code that cannot work on no sample at all goes on; the log says that the scene is empty.
    """
    if len(ray_indices):
        return ray_indices, t_start, t_end
    log.warning("No ray meets the scene: it is empty, or the occupancy grid has pruned all of it")
    return ray_indices.new_zeros(1), t_start.new_zeros(1), t_end.new_zeros(1)


class SpecifyGradient(torch.autograd.Function):
    """``apply(x, gradient)``: 1 forwards; backwards ``x`` gets ``gradient`` times what arrives."""

    @staticmethod
    def forward(ctx: Any, input_tensor: Tensor, gt_grad: Tensor) -> Tensor:
        ctx.save_for_backward(gt_grad)
        return input_tensor.new_ones(1)

    @staticmethod
    def backward(ctx: Any, grad_scale: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_scale, None
