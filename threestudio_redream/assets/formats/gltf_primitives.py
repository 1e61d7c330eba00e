"""Mesh primitives of glTF: vertex attributes and triangles, plain or Draco-compressed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.assemble import Part
from threestudio_redream.assets.formats.draco import DracoMesh, decode_draco
from threestudio_redream.assets.formats.gltf_buffers import Buffers, scaled
from threestudio_redream.assets.formats.gltf_json import Document, as_index, as_int, as_object, extension
from threestudio_redream.assets.formats.gltf_materials import MaterialPlan
from threestudio_redream.assets.limits import Limits, check_limit
from threestudio_redream.assets.shading import encode_srgb
from threestudio_redream.errors import AssetError

__all__ = ["DRACO", "Primitive", "PrimitiveReader", "check_size"]

DRACO = "KHR_draco_mesh_compression"
_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_READ = {"POSITION", "NORMAL", "COLOR_0", "JOINTS_0", "WEIGHTS_0", *(f"TEXCOORD_{n}" for n in range(16))}
_RE_EXPORT = "Export the file again"


@dataclass
class Primitive:
    """A part in mesh space; ``joints`` and ``weights`` are ``[V, 4]`` if it is skinned."""

    part: Part
    joints: NDArray[np.int64] | None = None
    weights: NDArray[np.float64] | None = None


def _attributes(entry: dict[str, Any]) -> dict[str, Any]:
    found = as_object(entry.get("attributes"), "primitive.attributes")
    if "POSITION" not in found:
        raise AssetError("a glTF primitive has no positions", received=sorted(found)[:8], fix=_RE_EXPORT)
    return {name: index for name, index in found.items() if name in _READ}


def _sharing(document: Document, entries: Sequence[dict[str, Any]]) -> Counter[int]:
    """How many primitives use each position accessor; exporters often share one among all materials."""
    accessors = document.items("accessors")
    return Counter(as_index(_attributes(entry)["POSITION"], accessors, "POSITION") for entry in entries)


def check_size(
    document: Document, buffers: Buffers, meshes: dict[int, list[dict[str, Any]]], copies: Counter[int], limits: Limits
) -> None:
    """Refuse from the declared counts alone what would be too much once instances are copied.

    Args:
        meshes: primitives by mesh. copies: how often each mesh stands in the scene.
    """
    check_limit(limits, "max_nodes", sum(n * len(meshes[mesh]) for mesh, n in copies.items()), "mesh primitives")
    shared = _sharing(document, [entry for entries in meshes.values() for entry in entries])
    vertices = indices = 0
    stored: dict[tuple[str, Any], int] = {}
    for mesh, entries in meshes.items():
        for entry in entries:
            attributes = _attributes(entry)
            counts = {(name, index): buffers.count(index, name) for name, index in attributes.items()}
            count = counts["POSITION", attributes["POSITION"]]
            if set(counts.values()) != {count}:
                what = "the attributes of a glTF primitive differ in length"
                raise AssetError(what, received=sorted(counts.values()), fix=_RE_EXPORT)
            stored |= counts
            corners = buffers.count(entry["indices"], "indices") if "indices" in entry else count
            vertices += copies[mesh] * (min(count, corners) if shared[attributes["POSITION"]] > 1 else count)
            indices += copies[mesh] * corners
    check_limit(limits, "max_vertices", vertices, "vertices")
    check_limit(limits, "max_faces", indices // 3, "faces")
    for name in _READ:
        check_limit(limits, "max_vertices", sum(n for (kind, _), n in stored.items() if kind == name), "vertices")


class _Source:
    """Attributes of one primitive: from accessors, or from a decoded Draco stream."""

    def __init__(self, buffers: Buffers, entry: dict[str, Any], draco: dict[int, DracoMesh]) -> None:
        self._buffers, self.accessors, self._entry = buffers, _attributes(entry), entry
        compressed = extension(entry, DRACO)
        self.mesh = draco[compressed["bufferView"]] if compressed is not None else None
        self._ids = as_object(compressed.get("attributes"), "draco.attributes") if compressed is not None else {}
        self.select: NDArray[np.int64] | None = None  # rows to keep

    def raw(self, name: str, width: int) -> NDArray:
        """``[V, width]`` in the stored dtype."""
        if self.mesh is None or name not in self._ids:
            values = self._buffers.accessor(self.accessors[name], width, name)
        else:
            found = self.mesh.attributes.get(as_int(self._ids[name], "draco.attributes"))
            if found is None or found.ndim != 2 or found.shape[1] != width:
                what = f"the Draco stream has no {name} of {width} components"
                raise AssetError(what, received=name, fix=_RE_EXPORT)
            values = found
        return values if self.select is None else values[self.select]

    def floats(self, name: str, width: int) -> NDArray[np.float64]:
        return scaled(self.raw(name, width), self._buffers.is_normalized(self.accessors[name], name))

    def indices(self, count: int) -> NDArray[np.int64]:
        if self.mesh is not None:
            return self.mesh.faces.ravel()
        if "indices" not in self._entry:
            return np.arange(count)
        values = self._buffers.accessor(self._entry["indices"], 1, "indices")
        if values.dtype.kind != "u":
            raise AssetError("glTF indices are not unsigned integers", received=str(values.dtype), fix=_RE_EXPORT)
        return values[:, 0].astype(np.int64)


class PrimitiveReader:
    """Reads the primitives of a document; all Draco streams are decoded together at the start."""

    def __init__(
        self,
        document: Document,
        buffers: Buffers,
        entries: Sequence[dict[str, Any]],
        plans: Sequence[MaterialPlan],
        limits: Limits,
    ) -> None:
        self._document, self._buffers, self._plans = document, buffers, plans
        self._shared = _sharing(document, entries)
        found = [extension(entry, DRACO) for entry in entries]
        views = sorted({as_int(item.get("bufferView"), "draco.bufferView") for item in found if item is not None})
        streams = [buffers.view(view)[0] for view in views]
        check_limit(limits, "max_bytes", sum(len(stream) for stream in streams), "bytes of Draco streams")
        self._draco = dict(zip(views, decode_draco([bytes(stream) for stream in streams], limits)))

    def read(self, entry: dict[str, Any], warnings: list[str]) -> Primitive | None:
        """One primitive, or None for points and lines.

        Raises:
            AssetError: dangling indices, wrong types, or attributes of different lengths.
        """
        mode = as_int(entry.get("mode", _TRIANGLES), "primitive.mode", 0, 6)
        if mode < _TRIANGLES:
            warnings.append("points or lines were skipped")
            return None
        source = _Source(self._buffers, entry, self._draco)
        count = self._buffers.count(source.accessors["POSITION"], "POSITION")
        indices = source.indices(count)
        if source.mesh is None and self._shared[source.accessors["POSITION"]] > 1:
            if len(indices) and int(indices.max()) >= count:
                what = f"a face refers to a vertex outside the {count} that exist"
                raise AssetError(what, received=int(indices.max()), fix=_RE_EXPORT)
            source.select, indices = np.unique(indices, return_inverse=True)
        faces = _triangles(indices, mode if source.mesh is None else _TRIANGLES)

        material = len(self._plans) - 1
        if "material" in entry:
            material = as_index(entry["material"], self._document.items("materials"), "primitive.material")
        primitive = Primitive(Part(source.floats("POSITION", 3), faces, material))
        self._fill(primitive, source, self._plans[material])
        part = primitive.part
        arrays = (part.normals, part.uvs, part.colors, primitive.joints, primitive.weights)
        if any(array is not None and len(array) != len(part.vertices) for array in arrays):
            what = "the attributes of a glTF primitive differ in length"
            raise AssetError(what, received=len(part.vertices), fix=_RE_EXPORT)
        return primitive

    def _fill(self, primitive: Primitive, source: _Source, plan: MaterialPlan) -> None:
        part, names = primitive.part, source.accessors
        if "NORMAL" in names:
            part.normals = source.floats("NORMAL", 3)
        if (coordinates := f"TEXCOORD_{plan.coordinates}") in names:
            part.uvs = source.floats(coordinates, 2) @ plan.transform[:, :2].T + plan.transform[:, 2]
        if "COLOR_0" in names:
            stored = self._document.get("accessors", names["COLOR_0"], "COLOR_0").get("type")
            part.colors = _colors(source.floats("COLOR_0", 3 if stored == "VEC3" else 4))
        if "JOINTS_0" in names and "WEIGHTS_0" in names:
            primitive.joints = source.raw("JOINTS_0", 4).astype(np.int64)
            primitive.weights = source.floats("WEIGHTS_0", 4)


def _colors(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[V, 4]`` sRGB-encoded from ``[V, 3 or 4]`` linear."""
    colors = np.ones((len(linear), 4))
    colors[:, : linear.shape[1]] = np.clip(np.nan_to_num(linear, nan=1.0), 0.0, 1.0)
    colors[:, :3] = encode_srgb(colors[:, :3])
    return colors


def _triangles(indices: NDArray[np.int64], mode: int) -> NDArray[np.int64]:
    """``[F, 3]`` from a list, strip or fan of triangles."""
    if mode == _TRIANGLES:
        return indices[: len(indices) // 3 * 3].reshape(-1, 3)
    if len(indices) < 3:
        return np.zeros((0, 3), np.int64)
    second, third = indices[1:-1], indices[2:]
    if mode == _FAN:
        return np.stack([np.full(len(second), indices[0]), second, third], axis=1)
    odd = np.arange(len(second)) % 2 == 1  # every other triangle of a strip runs the other way round
    return np.stack([indices[:-2], np.where(odd, third, second), np.where(odd, second, third)], axis=1)
