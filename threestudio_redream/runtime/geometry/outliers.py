"""Loose parts of a surface, and which of them go."""

from __future__ import annotations

from typing import Any

import numpy as np

from threestudio_redream.errors import ConfigError
from threestudio_redream.meshing.types import Mesh

__all__ = ["without_outliers"]


def without_outliers(mesh: Mesh, limit: Any) -> Mesh:
    """``mesh`` without its small loose parts, and with coincident vertices merged.

    Args:
        limit: a float is a share of the largest part's area, an int a number of faces.

    Raises:
        ConfigError: another limit. EmptySceneError: no face is left.
    """
    from threestudio_redream.meshing.simplify import clean
    from threestudio_redream.meshing.topology import face_components

    if isinstance(limit, float) and 0.0 <= limit <= 1.0:
        return clean(mesh, limit)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
        raise ConfigError(
            "isosurface_outlier_n_faces_threshold is neither a share in [0, 1] nor a number of faces",
            received=limit,
            fix="0.01 drops parts below one percent of the largest.",
        )
    mesh = clean(mesh, 0.0)
    count, part = face_components(mesh.faces, len(mesh.vertices))
    keep = np.bincount(part, minlength=count)[part] >= limit
    return clean(Mesh(mesh.vertices, mesh.faces[keep]), 0.0) if not keep.all() else mesh
