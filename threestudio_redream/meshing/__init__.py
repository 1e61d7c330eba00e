"""From a density field to a textured mesh file: surface, simplification, charts, texture, GLB/OBJ/PLY.

Everything here is numpy; fields come in as functions of points, so torch stays with its owner.
:func:`extract_textured_mesh` runs all stages; each stage can be used alone.
"""

from __future__ import annotations

from threestudio_redream.meshing.bake import bake
from threestudio_redream.meshing.glb import glb_bytes, write_glb
from threestudio_redream.meshing.grid import sample_grid
from threestudio_redream.meshing.isosurface import fill_voids, marching_cubes
from threestudio_redream.meshing.normals import gradient_normal_fn, vertex_normals, with_normals
from threestudio_redream.meshing.obj import write_obj
from threestudio_redream.meshing.pictures import Pictures, Projection, take_pictures
from threestudio_redream.meshing.pipeline import extract_textured_mesh
from threestudio_redream.meshing.ply import write_ply
from threestudio_redream.meshing.preview import as_asset, mesh_depths, mesh_masks
from threestudio_redream.meshing.report import ExportReport
from threestudio_redream.meshing.silhouettes import Silhouettes, silhouette_iou
from threestudio_redream.meshing.simplify import clean, decimate
from threestudio_redream.meshing.smooth import smooth
from threestudio_redream.meshing.threshold import ThresholdSearch, choose_threshold
from threestudio_redream.meshing.topology import is_watertight, signed_volume
from threestudio_redream.meshing.types import Mesh, TexturedMesh
from threestudio_redream.meshing.unwrap import Unwrapped, unwrap

__all__ = [
    "ExportReport",
    "Mesh",
    "Pictures",
    "Projection",
    "Silhouettes",
    "TexturedMesh",
    "ThresholdSearch",
    "Unwrapped",
    "as_asset",
    "bake",
    "choose_threshold",
    "clean",
    "decimate",
    "extract_textured_mesh",
    "fill_voids",
    "glb_bytes",
    "gradient_normal_fn",
    "is_watertight",
    "marching_cubes",
    "mesh_depths",
    "mesh_masks",
    "sample_grid",
    "signed_volume",
    "silhouette_iou",
    "smooth",
    "take_pictures",
    "unwrap",
    "vertex_normals",
    "with_normals",
    "write_glb",
    "write_obj",
    "write_ply",
]
