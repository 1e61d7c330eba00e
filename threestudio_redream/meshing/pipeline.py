"""From a density field and a colour field to a textured mesh: the whole export in one call."""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from threestudio_redream.errors import ConfigError
from threestudio_redream.meshing.bake import bake
from threestudio_redream.meshing.frames import unit_normals
from threestudio_redream.meshing.grid import DEFAULT_CHUNK, checked_bbox, grid_shape, sample_grid
from threestudio_redream.meshing.isosurface import fill_voids, marching_cubes
from threestudio_redream.meshing.normals import with_normals
from threestudio_redream.meshing.pictures import Projection, ViewFn, take_pictures
from threestudio_redream.meshing.preview import mesh_masks
from threestudio_redream.meshing.report import ExportReport, Stages
from threestudio_redream.meshing.silhouettes import (
    MaskFn,
    Silhouettes,
    checked_silhouettes,
    projection_scorer,
    silhouette_iou,
)
from threestudio_redream.meshing.simplify import clean, decimate
from threestudio_redream.meshing.smooth import smooth
from threestudio_redream.meshing.threshold import ThresholdSearch, choose_threshold, density_candidates
from threestudio_redream.meshing.topology import is_watertight
from threestudio_redream.meshing.types import FloatArray, Mesh, PointFn, Progress, TexturedMesh
from threestudio_redream.meshing.unwrap import checked_texture_size, unwrap

__all__ = ["extract_textured_mesh"]

log = logging.getLogger(__name__)
_SWEEP_NODES = 112  # nodes per axis of the grid on which thresholds are compared; silhouettes need no more


def extract_textured_mesh(
    level_fn: PointFn,
    color_fn: PointFn,
    bbox: ArrayLike,
    *,
    resolution: int = 192,
    threshold: float | Literal["auto"] = "auto",
    target_faces: int = 15_000,
    texture_size: int = 1024,
    padding: int = 2,
    supersample: int = 1,
    normal_fn: PointFn | None = None,
    view_fn: ViewFn | None = None,
    n_views: int = 24,
    view_size: int = 256,
    silhouettes: Silhouettes | tuple | None = None,
    mask_fn: MaskFn = mesh_masks,
    min_component_fraction: float = 0.01,
    smooth_iterations: int = 0,
    stride: int = 2,
    chunk: int = DEFAULT_CHUNK,
    progress: Progress | None = None,
    name: str = "mesh",
) -> tuple[TexturedMesh, ExportReport]:
    """Extract the surface ``level_fn(x) == threshold`` and paint it with ``color_fn``.

    Stages: ``grid``, ``threshold``, ``surface``, ``simplify``, ``normals``, ``unwrap``, ``pictures`` if there is a
    ``view_fn``, ``bake``, and ``compare`` if there are silhouettes. Memory holds one grid of ``resolution^3`` floats
    and a few of its masks; fields never see more than ``chunk`` points.

    Args:
        level_fn: ``[N, 3]`` float32 world points -> ``[N]``; larger is further inside. With
            ``threshold="auto"`` it must be a density in inverse world units.
        color_fn: ``[N, 3]`` -> ``[N, 3]``, sRGB-encoded, in [0, 1].
        bbox: ``[2, 3]`` world box to search. resolution: nodes along its longest side.
        threshold: a level, or "auto": the one whose mesh has the outline of the field. The outline is that
            of ``silhouettes`` if given, else of the density itself along the three axes.
        target_faces: budget of the result. texture_size, padding, supersample: as for ``unwrap`` and ``bake``.
        normal_fn: ``[N, 3]`` -> ``[N, 3]`` outward normals (``gradient_normal_fn``); None takes them from the faces.
        view_fn: draws the field; the texture then shows what ``n_views`` pictures of ``view_size`` pixels show, and
            ``color_fn`` is for places that none of them sees. None takes ``color_fn`` everywhere.
        silhouettes: ``(masks [B, H, W], c2w [B, 4, 4], fovy_deg)`` of the field, degrees.
        mask_fn: draws the masks of a mesh for comparison.
        min_component_fraction: loose parts with less than this part of the largest one's area are dropped.
        smooth_iterations: Taubin smoothing of the surface before simplification; 0 for exact fields.
        stride: coarse-to-fine step of ``sample_grid``; 1 evaluates every node.
        progress: called with the stage and the part of it that is done.
        name: label of the result.

    Returns:
        The mesh, in the world frame, and the figures of the extraction.

    Raises:
        EmptySceneError: nothing to extract, or NaN in a field. ConfigError: an argument out of range.
    """
    box, shape = checked_bbox(bbox), grid_shape(bbox, resolution)
    checked_texture_size(texture_size)
    if isinstance(threshold, str) and threshold != "auto":
        raise ConfigError("The threshold must be a number or 'auto'", received=threshold, fix="Use 'auto' to search.")
    views = None if silhouettes is None else checked_silhouettes(silhouettes)
    stages = Stages(progress)
    cell = float(((box[1] - box[0]) / (np.array(shape) - 1)).max())
    candidates: list[float] = []

    def band(coarse: FloatArray) -> tuple[float, float]:
        if threshold != "auto":
            return float(threshold), float(threshold)
        candidates.extend(density_candidates(coarse, box, cell))
        return candidates[0], candidates[-1]

    with stages.stage("grid"):
        report = partial(stages.report, "grid")
        level = sample_grid(level_fn, box, resolution, stride=stride, band=band, chunk=chunk, progress=report)
    if threshold == "auto":
        with stages.stage("threshold"):
            search = _search(
                level, box, candidates or density_candidates(level, box, cell), views, mask_fn, min_component_fraction
            )
        log.info("threshold %.4g, silhouette IoU %.4f of %d tried", search.threshold, search.iou, len(search.table))
        chosen, table = search.threshold, search.table
    else:
        chosen, table = float(threshold), ()

    with stages.stage("surface"):
        surface = clean(marching_cubes(fill_voids(level, chosen), box, chosen), min_component_fraction)
        del level
    with stages.stage("simplify"):
        mesh = decimate(smooth(surface, smooth_iterations), target_faces)
        watertight = is_watertight(mesh.faces)
    with stages.stage("normals"):
        mesh = with_normals(mesh, normal_fn, chunk=chunk)
    with stages.stage("unwrap"):
        split, uvs, charts, fill = unwrap(mesh, texture_size, padding)
    projection = None
    if view_fn is not None:
        with stages.stage("pictures"):
            projection = Projection(mesh, take_pictures(view_fn, mesh, n_views, view_size))
    with stages.stage("bake"):
        texture = bake(
            split,
            uvs,
            color_fn,
            texture_size,
            chunk=chunk,
            supersample=supersample,
            projection=projection,
            progress=partial(stages.report, "bake"),
        )
    iou = None
    if views is not None:
        with stages.stage("compare"):
            iou = _compare(mesh, views, mask_fn)
    textured = TexturedMesh(split.vertices, split.faces, unit_normals(split), uvs, texture, name)
    return textured, ExportReport(
        threshold=chosen,
        automatic=threshold == "auto",
        iou_table=table,
        iou=iou,
        grid_shape=shape,
        surface_faces=len(surface.faces),
        faces=len(split.faces),
        vertices=len(split.vertices),
        watertight=watertight,
        texture_size=texture_size,
        charts=charts,
        texture_fill=fill,
        timings=stages.timings,
    )


def _search(
    level: FloatArray,
    box: ArrayLike,
    candidates: list[float],
    views: Silhouettes | None,
    mask_fn: MaskFn,
    min_component_fraction: float,
) -> ThresholdSearch:
    """The threshold whose surface matches the silhouettes, or the density's own outline."""
    if views is None:
        return choose_threshold(candidates, lambda value: value, projection_scorer(level, box))
    step = max(1, math.ceil((max(level.shape) - 1) / (_SWEEP_NODES - 1)))
    coarse, coarse_box = _every(level, np.asarray(box, np.float64), step)

    def mesh_at(value: float) -> Mesh:
        return clean(marching_cubes(coarse, coarse_box, value), min_component_fraction)

    return choose_threshold(candidates, mesh_at, lambda mesh: _compare(mesh, views, mask_fn))


def _every(level: FloatArray, box: np.ndarray, step: int) -> tuple[FloatArray, np.ndarray]:
    """Every ``step``-th node, and the box that they span (less than a step smaller at the upper end)."""
    coarse = np.ascontiguousarray(level[::step, ::step, ::step])
    spacing = (box[1] - box[0]) / (np.array(level.shape) - 1)
    return coarse, np.stack([box[0], box[0] + (np.array(coarse.shape) - 1) * step * spacing])


def _compare(mesh: Mesh, views: Silhouettes, mask_fn: MaskFn) -> float:
    height, width = views.masks.shape[1:]
    return silhouette_iou(mask_fn(mesh, views.c2w, views.fovy_deg, height, width), views.masks)
