"""Wavefront OBJ with MTL materials.

Polygons are cut into fans. A face corner is a triple (position, texture coordinate, normal); each
distinct triple becomes one vertex. ``vt`` counts v upwards from the bottom of the image and is flipped.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.assemble import Parsed, Part
from threestudio_redream.assets.files import MissingSideFileError, SideFiles
from threestudio_redream.assets.formats.mtl import GREY, MtlMaterial, parse_mtl
from threestudio_redream.assets.formats.numbers import count_tokens, parse_integers, token_starts
from threestudio_redream.assets.formats.polygons import fan_corners
from threestudio_redream.assets.formats.textlines import TextLines
from threestudio_redream.assets.images import TexturePool
from threestudio_redream.assets.limits import Limits, check_limit
from threestudio_redream.assets.types import AlphaMode, Material
from threestudio_redream.errors import AssetError, AssetLimitError

__all__ = ["parse"]

_MAX_SWITCHES = 100_000  # usemtl lines: the one thing that is read line by line
_MAX_LIBRARIES = 16
_MAX_LIBRARY_BYTES = 1024**2  # read line by line as well
_MAX_KEY = 2**62
_SLASH = 47
Int = NDArray[np.int64]


def parse(data: bytes, files: SideFiles, limits: Limits) -> Parsed:
    """Read an OBJ file; see the module docstring.

    Raises:
        AssetError: damaged numbers, indices out of range, a reference that leaves the folder.
        AssetLimitError: above a cap.
    """
    warnings: list[str] = []
    lines = TextLines(data, limits)
    rows = {prefix: lines.rows(prefix) for prefix in (b"v", b"vt", b"vn", b"f")}
    for prefix in (b"v", b"vt", b"vn"):
        check_limit(limits, "max_vertices", len(rows[prefix]), f"'{prefix.decode()}' lines")
    check_limit(limits, "max_faces", len(rows[b"f"]), "faces")

    numbers = lines.numbers(rows[b"v"], 1, "OBJ vertices")
    positions = numbers.columns(3, "OBJ vertices")
    colors = None
    if len(numbers.counts) and int(numbers.counts.min()) >= 6:
        rgb = numbers.columns(6, "OBJ vertices")[:, 3:]
        rgb = rgb / 255.0 if np.nanmax(rgb, initial=0.0) > 1.0 else rgb
        colors = np.concatenate([rgb, np.ones((len(rgb), 1))], axis=1)
    uvs = lines.numbers(rows[b"vt"], 2, "OBJ texture coordinates").columns(2, "OBJ texture coordinates")
    uvs[:, 1] = 1.0 - uvs[:, 1]
    normals = lines.numbers(rows[b"vn"], 2, "OBJ normals").columns(3, "OBJ normals")

    triangles, line_of_triangle = _triangles(lines, rows, limits, warnings)
    names, material = _material_switches(lines, line_of_triangle)
    materials = _materials(lines, names, files, limits, warnings)

    corners, faces = _unique_corners(triangles)
    part = Part(
        vertices=positions[corners[:, 0]],
        faces=faces,
        material=material,
        uvs=_gather(uvs, corners[:, 1]),
        normals=_gather(normals, corners[:, 2]),
        colors=None if colors is None else colors[corners[:, 0]],
    )
    return Parsed([part], materials, warnings)


def _gather(values: NDArray[np.float64], index: Int) -> NDArray[np.float64] | None:
    """Rows of ``values``, zeros where ``index`` is -1; None if it is -1 throughout."""
    if not len(index) or int(index.max()) < 0:
        return None
    return np.concatenate([values, np.zeros((1, values.shape[1]))])[index]


def _triangles(lines: TextLines, rows: dict[bytes, Int], limits: Limits, warnings: list[str]) -> tuple[Int, Int]:
    """``[F, 3 corners, 3]`` zero-based (v, vt, vn), -1 where absent, and the line number of each triangle."""
    corners, counts = _corners(lines, rows, limits)
    if (counts < 3).any():
        warnings.append(f"{int((counts < 3).sum())} faces with fewer than three corners were skipped")
    index, polygon = fan_corners(counts, limits)
    return corners[index], rows[b"f"][polygon]


def _corners(lines: TextLines, rows: dict[bytes, Int], limits: Limits) -> tuple[Int, Int]:
    """All face corners ``[C, 3]`` as zero-based (v, vt, vn) with -1 for absent, and how many each line has."""
    block, first = lines.block(rows[b"f"], 1)
    counts = count_tokens(block, first)
    check_limit(limits, "max_faces", int(np.maximum(counts - 2, 0).sum()), "faces")
    raw = _slots(block)
    for column, prefix in enumerate((b"v", b"vt", b"vn")):
        index = raw[:, column]  # a view
        if (negative := index < 0).any():  # counted back from the line on which it stands
            known = np.repeat(np.searchsorted(rows[prefix], rows[b"f"]), counts)[negative]
            index[negative] = np.where(index[negative] >= -known, index[negative] + known + 1, -1)
        bad = (index < int(column == 0)) | (index > len(rows[prefix]))
        if bad.any():
            raise AssetError(
                f"a face refers to a '{prefix.decode()}' line outside the {len(rows[prefix])} that exist",
                received=int(index[bad][0]),
                fix="Export the file again",
            )
    return raw - 1, counts


def _slots(block: NDArray[np.uint8]) -> Int:
    """``[C, 3]`` indices (v, vt, vn) as written, 0 where there is none; OBJ counts from 1."""
    what = "OBJ faces"
    text, slash = block.tobytes(), block == _SLASH
    if not slash.any():
        values = parse_integers(text, what)
        return np.stack([values, np.zeros_like(values), np.zeros_like(values)], axis=1)
    slots = 1 + np.add.reduceat(slash, np.flatnonzero(token_starts(block)), dtype=np.int64)
    if int(slots.max()) <= 3:
        # "1//3" and "1/" leave a slot empty: write the 0 there
        text = text.replace(b"//", b"/0/").replace(b"/ ", b"/0 ").replace(b"/\n", b"/0\n").replace(b"/", b" ")
        values = parse_integers(text, what)
    else:
        values = np.zeros(0, np.int64)
    if len(values) != int(slots.sum()):
        raise AssetError("a face corner is not v, v/vt, v//vn or v/vt/vn", received=len(values), fix="Export it again")
    offset = np.cumsum(slots) - slots
    padded = np.concatenate([values, np.zeros(2, np.int64)])
    second, third = np.where(slots > 1, padded[offset + 1], 0), np.where(slots > 2, padded[offset + 2], 0)
    return np.stack([padded[offset], second, third], axis=1)


def _unique_corners(triangles: Int) -> tuple[Int, Int]:
    """Distinct corners ``[V, 3]`` and faces ``[F, 3]`` that index them."""
    flat = triangles.reshape(-1, 3)
    key, size = flat[:, 0], int(flat[:, 0].max(initial=0)) + 1
    for column in (1, 2):
        if len(flat) and (flat[:, column] != flat[0, column]).any():
            values = int(flat[:, column].max()) + 2
            if size * values >= _MAX_KEY:  # make the key dense again, so that the product stays in 64 bits
                dense, key = np.unique(key, return_inverse=True)
                size = len(dense)
            key, size = key * values + flat[:, column] + 1, size * values
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    return flat[first], group.reshape(-1, 3)


def _material_switches(lines: TextLines, line_of_triangle: Int) -> tuple[list[str], Int]:
    """Names in order of first use, and for each triangle the index of its name; 0 is "no name"."""
    switches = lines.rows(b"usemtl")
    if len(switches) > _MAX_SWITCHES:
        raise AssetLimitError(
            "the OBJ switches materials too often", received=len(switches), fix="Group faces by material"
        )
    names: dict[str, int] = {"": 0}
    index = np.zeros(len(switches) + 1, np.int64)
    for position, row in enumerate(switches):
        name = lines.text(row)[6:].decode("utf-8", "replace").strip()
        index[position + 1] = names.setdefault(name, len(names))
    return list(names), index[np.searchsorted(switches, line_of_triangle)]


def _materials(
    lines: TextLines, names: list[str], files: SideFiles, limits: Limits, warnings: list[str]
) -> Callable[[], list[Material]]:
    """The named materials, textures checked but not yet decoded."""
    check_limit(limits, "max_materials", len(names), "materials")
    left = _MAX_LIBRARY_BYTES
    library: dict[str, MtlMaterial] = {}
    for row in lines.rows(b"mtllib")[:_MAX_LIBRARIES]:
        reference = lines.text(row)[6:].decode("utf-8", "replace").strip()
        try:
            data = files.read(reference, "the material library")
            if (left := left - len(data)) < 0:
                raise AssetLimitError(
                    "the material libraries are too large", received=len(data), fix="Remove materials"
                )
            library |= parse_mtl(data, limits)
        except MissingSideFileError as error:
            warnings.append(str(error))
    pool = TexturePool(limits, warnings)
    unknown = [name for name in names if name and name not in library]
    if len(library) == 1 and unknown and unknown == names[1:2]:  # renamed on one side; there is no other choice
        warnings.append(f"material {unknown[0][:80]!r} is not defined; the only one of the library is used")
        library[unknown.pop()] = next(iter(library.values()))
    warnings.extend(f"material {name[:80]!r} is not defined; its faces are grey" for name in unknown)
    found = [library.get(name, MtlMaterial()) for name in names]
    for material in found:
        warnings.extend(material.warnings)
        if (texture := material.texture) is not None:
            pool.request(texture, texture, lambda t=texture: files.read(t, "a texture"))  # type: ignore[misc]
    return lambda: [_material(entry, pool) for entry in found]


def _material(entry: MtlMaterial, pool: TexturePool) -> Material:
    texture = pool.texture(entry.texture) if entry.texture is not None else None
    color = (1.0, 1.0, 1.0, entry.color[3]) if texture is not None else entry.color
    if entry.texture is not None and texture is None and entry.color[:3] == (0.0, 0.0, 0.0):
        color = GREY  # exporters write Kd 0 beside a texture; without the texture the object would be black
    mode: AlphaMode = "MASK" if texture is not None and entry.cutout else "BLEND" if color[3] < 1.0 else "OPAQUE"
    return Material(color, texture, mode, wrap="clamp" if entry.clamp else "repeat")
