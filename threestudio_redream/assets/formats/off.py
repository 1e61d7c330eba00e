"""OFF and its relatives COFF (vertex colours), NOFF (normals), STOFF (texture coordinates), as text."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.assemble import Parsed, Part
from threestudio_redream.assets.files import SideFiles
from threestudio_redream.assets.formats.mtl import GREY
from threestudio_redream.assets.formats.numbers import parse_integers
from threestudio_redream.assets.formats.polygons import fan_corners
from threestudio_redream.assets.formats.textlines import NumberRows, TextLines
from threestudio_redream.assets.limits import Limits, check_limit
from threestudio_redream.assets.types import Material
from threestudio_redream.errors import AssetError

__all__ = ["parse"]

_HEADER = re.compile(rb"(ST)?(C)?(N)?OFF")


def parse(data: bytes, files: SideFiles, limits: Limits) -> Parsed:
    """Read a text OFF file; colours per face are ignored.

    Raises:
        AssetError: binary, truncated, or damaged. AssetLimitError: above a cap.
    """
    lines = TextLines(data, limits)
    rows = lines.content_rows()
    header = lines.text(int(rows[0])).split(b"#")[0]
    match = _HEADER.match(header)
    rest = header[match.end() :] if match else header
    if b"BINARY" in rest:
        raise AssetError("binary OFF cannot be loaded", received=header[:40], fix="Save it as text or as PLY")
    rows = rows[1:]
    if not rest.strip() and len(rows):  # the counts have a line of their own
        rest, rows = lines.text(int(rows[0])).split(b"#")[0], rows[1:]
    counts = parse_integers(rest[:200], "OFF counts")
    if len(counts) < 2 or int(counts[:2].min()) < 0:
        raise AssetError(
            "the OFF header does not say how many vertices and faces follow", received=rest[:40], fix="Export it again"
        )
    n_vertices, n_faces = int(counts[0]), int(counts[1])
    check_limit(limits, "max_vertices", n_vertices, "vertices")
    check_limit(limits, "max_faces", n_faces, "faces")
    if len(rows) < n_vertices + n_faces:
        raise AssetError(
            f"the OFF file is truncated: {n_vertices + n_faces} lines were announced",
            received=len(rows),
            fix="Download or export it again",
        )

    textured, coloured, with_normals = (bool(group) for group in match.groups()) if match else (False, False, False)
    width = 3 + 3 * with_normals + 3 * coloured + 2 * textured
    numbers = lines.numbers(rows[:n_vertices], 0, "OFF vertices")
    if n_vertices and not textured and coloured and int(numbers.counts.min()) > width:
        width += 1  # an alpha
    vertices = numbers.columns(width, "OFF vertices")
    at = 3
    normals = uvs = colors = None
    if with_normals:
        normals, at = vertices[:, 3:6], 6
    if coloured:
        rgb, at = vertices[:, at : at + 3], at + 3
        colors = np.concatenate(
            [rgb / 255.0 if np.nanmax(rgb, initial=0.0) > 1.0 else rgb, np.ones((n_vertices, 1))], axis=1
        )
    if textured:
        uvs = vertices[:, at : at + 2] * (1.0, -1.0) + (0.0, 1.0)

    faces = _faces(lines.numbers(rows[n_vertices : n_vertices + n_faces], 0, "OFF faces"), limits)
    color = GREY if colors is None else (1.0, 1.0, 1.0, 1.0)
    return Parsed([Part(vertices[:, :3], faces, 0, normals, uvs, colors)], lambda: [Material(color)])


def _faces(rows: NumberRows, limits: Limits) -> NDArray[np.int64]:
    """``[F, 3]`` from rows that hold a corner count, the corners, and perhaps a colour."""
    if not len(rows.counts):
        return np.zeros((0, 3), np.int64)
    announced = rows.columns(1, "OFF faces")[:, 0]
    if not ((announced >= 0) & (announced < rows.counts)).all():
        raise AssetError(
            "an OFF face has fewer corners than it announces", received=announced.max(), fix="Export it again"
        )
    counts = announced.astype(np.int64)
    corners, polygon = fan_corners(counts, limits)
    skipped = (np.cumsum(rows.counts) - rows.counts + 1) - (np.cumsum(counts) - counts)
    indices = np.nan_to_num(rows.values[corners + skipped[polygon][:, None]], nan=-1.0)
    return np.clip(indices, -1, 2**53).astype(np.int64)
