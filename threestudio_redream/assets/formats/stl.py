"""STL, binary and ASCII. Corners at the same position become one vertex, so normals are smooth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.assemble import Parsed, Part
from threestudio_redream.assets.files import SideFiles
from threestudio_redream.assets.formats.mtl import GREY
from threestudio_redream.assets.formats.textlines import TextLines
from threestudio_redream.assets.limits import Limits, check_limit
from threestudio_redream.assets.surface import position_ids
from threestudio_redream.assets.types import Material
from threestudio_redream.errors import AssetError

__all__ = ["parse", "parse_ascii"]

_FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def parse(data: bytes, files: SideFiles, limits: Limits) -> Parsed:
    """Read a binary STL; facet normals and colours, which no two programs write alike, are ignored.

    Raises:
        AssetError: fewer bytes than the declared facets need. AssetLimitError: too many facets.
    """
    count = int.from_bytes(data[80:84], "little")
    check_limit(limits, "max_faces", count, "faces")
    if len(data) < 84 or len(data) < 84 + 50 * count:
        raise AssetError(
            f"the STL is truncated: {count} facets need {84 + 50 * count} bytes",
            received=len(data),
            fix="Download or export it again",
        )
    corners = np.frombuffer(data, _FACET, count, 84)["corners"].reshape(-1, 3)
    return _merged(corners.astype(np.float64))


def parse_ascii(data: bytes, files: SideFiles, limits: Limits) -> Parsed:
    """Read an ASCII STL: every three ``vertex`` lines are a facet.

    Raises:
        AssetError: damaged numbers, or an incomplete facet. AssetLimitError: too many facets.
    """
    lines = TextLines(data if b"vertex" in data else data.lower(), limits)
    rows = lines.rows(b"vertex")
    check_limit(limits, "max_faces", len(rows) // 3, "faces")
    if len(rows) % 3 or b"endsolid" not in data.lower()[-4096:]:
        raise AssetError("the STL is truncated in the middle of its facets", received=len(rows), fix="Export it again")
    return _merged(lines.numbers(rows, 6, "STL vertices").columns(3, "STL vertices"))


def _merged(corners: NDArray[np.float64]) -> Parsed:
    first, group = position_ids(corners)
    return Parsed([Part(corners[first], group.reshape(-1, 3))], lambda: [Material(GREY)])
