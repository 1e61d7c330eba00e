"""Camera matrices as rasterisers of Gaussian splats read them.

Convention
----------
Cameras of threestudio look along -z with y up; these matrices belong to a camera that looks along +z with y down
(COLMAP). They multiply row vectors from the right, i.e. they are transposed: ``[x, y, z, 1] @ world_view``. A camera
at (0, 0, 2) without rotation sees the origin at depth 2: ``([0, 0, 0, 1] @ world_view)[2] == 2``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["convert_pose", "get_cam_info_gaussian", "get_fov_gaussian", "get_projection_matrix_gaussian"]


def convert_pose(C2W: Tensor) -> Tensor:
    """Camera-to-world ``[..., 4, 4]`` with y and z of the camera turned round."""
    return C2W * C2W.new_tensor([1.0, -1.0, -1.0, 1.0])


def get_projection_matrix_gaussian(
    znear: float, zfar: float, fovX: float | Tensor, fovY: float | Tensor, device: torch.device | str = "cpu"
) -> Tensor:
    """Projection ``[4, 4]`` (not transposed) for fields of view in **radians**; depth goes from 0 to 1."""
    depth = zfar / (zfar - znear)
    matrix = torch.zeros(4, 4, device=device)
    matrix[0, 0] = 1.0 / math.tan(float(fovX) / 2.0)
    matrix[1, 1] = 1.0 / math.tan(float(fovY) / 2.0)
    matrix[2, 2], matrix[2, 3], matrix[3, 2] = depth, -depth * znear, 1.0
    return matrix


def get_fov_gaussian(P: Tensor) -> tuple[float, float]:
    """Fields of view (x, y) in **radians** of a projection ``[4, 4]``."""
    return 2.0 * math.atan(1.0 / float(P[0, 0])), 2.0 * math.atan(1.0 / float(P[1, 1]))


def get_cam_info_gaussian(
    c2w: Tensor, fovx: float | Tensor, fovy: float | Tensor, znear: float, zfar: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices of one camera ``c2w`` ``[4, 4]``, on its device; fields of view in **radians**.

    Returns:
        World to view ``[4, 4]`` and world to clip ``[4, 4]``, both transposed, and the camera's place ``[3]``.
    """
    pose = convert_pose(c2w.float())
    world_view = torch.linalg.inv(pose).T.contiguous()
    projection = get_projection_matrix_gaussian(znear, zfar, fovx, fovy, device=c2w.device)
    return world_view, world_view @ projection.T, pose[:3, 3]
