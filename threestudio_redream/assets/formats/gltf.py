"""glTF 2.0, binary (GLB) and with side files.

Node transforms are applied, skins stand in their rest pose, instances are copied, strips and fans become
triangles. Morph targets, cameras, lights and everything but the base colour are left out. glTF already
counts v downwards from the top of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.assemble import Parsed, Part
from threestudio_redream.assets.files import SideFiles
from threestudio_redream.assets.formats.draco import DracoMesh, decode_draco
from threestudio_redream.assets.formats.gltf_buffers import Buffers, scaled
from threestudio_redream.assets.formats.gltf_json import (
    Document,
    as_index,
    as_int,
    as_object,
    extension,
    objects,
    parse_document,
    split_glb,
)
from threestudio_redream.assets.formats.gltf_materials import MaterialPlan, read_materials
from threestudio_redream.assets.formats.gltf_nodes import Instance, joint_matrices, walk_scene
from threestudio_redream.assets.formats.gltf_pose import posed, skinned
from threestudio_redream.assets.limits import Limits, check_limit
from threestudio_redream.assets.shading import encode_srgb
from threestudio_redream.errors import AssetError

__all__ = ["parse", "parse_glb"]

_DRACO = "KHR_draco_mesh_compression"
_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_READ = {"POSITION", "NORMAL", "COLOR_0", "JOINTS_0", "WEIGHTS_0", *(f"TEXCOORD_{n}" for n in range(16))}
#: Extensions without which nothing is lost that is kept here; any other required one is warned about.
_HARMLESS = {
    _DRACO, "KHR_texture_transform", "KHR_mesh_quantization", "EXT_texture_webp", "KHR_texture_basisu",
    "KHR_materials_unlit", "KHR_materials_pbrSpecularGlossiness", "KHR_lights_punctual",
}  # fmt: skip


def parse_glb(data: bytes, files: SideFiles, limits: Limits) -> Parsed:
    """Read a GLB file; see :func:`parse`."""
    text, binary = split_glb(data)
    return _parse(parse_document(text, limits), binary, files, limits)


def parse(data: bytes, files: SideFiles, limits: Limits) -> Parsed:
    """Read a glTF file with data URIs or files beside it.

    Raises:
        AssetError: damaged, cyclic, with references that leave the folder, or needing a decoder we lack.
        AssetLimitError: above a cap; counts are checked before data is read.
    """
    return _parse(parse_document(data, limits), None, files, limits)


def _parse(document: Document, binary: memoryview | None, files: SideFiles, limits: Limits) -> Parsed:
    warnings = [
        f"the extension {name!r} is required by the file and not supported; the result may differ"
        for name in document.extensions("extensionsRequired")
        if name not in _HARMLESS
    ]
    buffers = Buffers(document, binary, files, limits)
    instances, world = walk_scene(document, limits)
    primitives = {
        index: objects(document.items("meshes")[index].get("primitives"), "mesh.primitives")
        for index in {i.mesh for i in instances}
    }
    copies = sum(len(primitives[instance.mesh]) for instance in instances)
    check_limit(limits, "max_nodes", copies, "mesh primitives after instancing")
    _check_size(buffers, [entry for i in instances for entry in primitives[i.mesh]], limits)

    draco = _decode_all(buffers, [entry for entries in primitives.values() for entry in entries], limits)
    plans, pool = read_materials(document, buffers, limits, warnings)
    joints = joint_matrices(document, buffers, {i.skin for i in instances if i.skin is not None}, world, limits)
    readers: dict[int, list[_Primitive]] = {}
    for index, entries in primitives.items():
        found = [_read_primitive(document, buffers, entry, draco, plans, warnings) for entry in entries]
        readers[index] = [primitive for primitive in found if primitive is not None]
    parts = [_place(p, i, joints) for i in instances for p in readers[i.mesh]]
    generator = as_object(document.root["asset"], "asset").get("generator", "")
    info = {"n_nodes": len(world), "generator": str(generator)[:200]}
    return Parsed(parts, lambda: [plan.finish(pool) for plan in plans], warnings, info)


@dataclass
class _Primitive:
    part: Part
    joints: NDArray[np.int64] | None = None
    weights: NDArray[np.float64] | None = None


def _attributes(entry: dict[str, Any]) -> dict[str, Any]:
    return as_object(entry.get("attributes"), "primitive.attributes")


def _check_size(buffers: Buffers, entries: list[dict[str, Any]], limits: Limits) -> None:
    """Refuse what would be too much once instances are copied, from the declared counts alone."""
    vertices = 0
    for entry in entries:
        counts = {buffers.count(index, name) for name, index in _attributes(entry).items() if name in _READ}
        if len(counts) > 1 or "POSITION" not in _attributes(entry):
            raise AssetError(
                "glTF attributes of one primitive differ in length, or it has no positions",
                received=sorted(counts),
                fix="Export the file again",
            )
        vertices += counts.pop()
    indices = sum(buffers.count(entry["indices"], "indices") for entry in entries if "indices" in entry)
    check_limit(limits, "max_vertices", vertices, "vertices")
    check_limit(limits, "max_faces", indices // 3, "faces")


def _decode_all(buffers: Buffers, entries: list[dict[str, Any]], limits: Limits) -> dict[int, DracoMesh]:
    """Decoded Draco streams by buffer view, all in one go."""
    found = [extension(entry, _DRACO) for entry in entries]
    views = sorted({as_int(item.get("bufferView"), "draco.bufferView") for item in found if item is not None})
    streams = [buffers.view(view)[0] for view in views]
    check_limit(limits, "max_bytes", sum(len(stream) for stream in streams), "bytes of Draco streams")
    return dict(zip(views, decode_draco([bytes(stream) for stream in streams], limits)))


class _Attributes:
    """Vertex attributes of one primitive, from accessors or from a decoded Draco stream."""

    def __init__(self, buffers: Buffers, entry: dict[str, Any], draco: dict[int, DracoMesh]) -> None:
        self._buffers, self._accessors = buffers, _attributes(entry)
        compressed = extension(entry, _DRACO)
        self._mesh = draco[compressed["bufferView"]] if compressed is not None else None
        self._ids = as_object(compressed.get("attributes"), "draco.attributes") if compressed is not None else {}
        self._entry = entry

    def __contains__(self, name: str) -> bool:
        return name in self._accessors

    def raw(self, name: str, width: int) -> tuple[NDArray, bool]:
        """``[V, width]`` in the stored dtype, and whether integers are normalised."""
        accessor = self._accessors[name]
        normalized = self._buffers.is_normalized(accessor, name)
        if self._mesh is None or name not in self._ids:
            return self._buffers.accessor(accessor, width, name), normalized
        values = self._mesh.attributes.get(as_int(self._ids[name], "draco.attributes"))
        if values is None or values.ndim != 2 or values.shape[1] != width:
            raise AssetError(
                f"the Draco stream has no {name} of {width} components", received=name, fix="Export the file again"
            )
        return values, normalized

    def floats(self, name: str, width: int) -> NDArray[np.float64]:
        return scaled(*self.raw(name, width))

    def indices(self, count: int) -> NDArray[np.int64]:
        if self._mesh is not None:
            return self._mesh.faces.ravel()
        if "indices" not in self._entry:
            return np.arange(count)
        values = self._buffers.accessor(self._entry["indices"], 1, "indices")
        if values.dtype.kind != "u":
            raise AssetError(
                "glTF indices are not unsigned integers", received=str(values.dtype), fix="Export the file again"
            )
        return values[:, 0].astype(np.int64)


def _read_primitive(
    document: Document,
    buffers: Buffers,
    entry: dict[str, Any],
    draco: dict[int, DracoMesh],
    plans: list[MaterialPlan],
    warnings: list[str],
) -> _Primitive | None:
    """Decode a primitive, or None for points and lines."""
    mode = as_int(entry.get("mode", _TRIANGLES), "primitive.mode", 0, 6)
    if mode < _TRIANGLES:
        warnings.append("points or lines were skipped")
        return None
    attributes = _Attributes(buffers, entry, draco)
    vertices = attributes.floats("POSITION", 3)
    faces = _faces(attributes.indices(len(vertices)), _TRIANGLES if extension(entry, _DRACO) else mode)
    material = len(plans) - 1
    if "material" in entry:
        material = as_index(entry["material"], document.items("materials"), "primitive.material")
    part = Part(vertices, faces, material)
    if "NORMAL" in attributes:
        part.normals = attributes.floats("NORMAL", 3)
    plan = plans[material]
    if f"TEXCOORD_{plan.coordinates}" in attributes:
        uvs = attributes.floats(f"TEXCOORD_{plan.coordinates}", 2)
        part.uvs = uvs @ plan.transform[:, :2].T + plan.transform[:, 2]
    if "COLOR_0" in attributes:
        part.colors = _colors(attributes, document, entry)
    primitive = _Primitive(part)
    if "JOINTS_0" in attributes and "WEIGHTS_0" in attributes:
        primitive.joints = attributes.raw("JOINTS_0", 4)[0].astype(np.int64)
        primitive.weights = attributes.floats("WEIGHTS_0", 4)
    arrays = (part.normals, part.uvs, part.colors, primitive.joints, primitive.weights)
    if any(array is not None and len(array) != len(vertices) for array in arrays):
        raise AssetError(
            "glTF attributes of one primitive differ in length", received=len(vertices), fix="Export the file again"
        )
    return primitive


def _colors(attributes: _Attributes, document: Document, entry: dict[str, Any]) -> NDArray[np.float64]:
    """``[V, 4]`` vertex colours; glTF stores them in linear light."""
    stored = document.get("accessors", _attributes(entry)["COLOR_0"], "COLOR_0").get("type")
    values = attributes.floats("COLOR_0", 3 if stored == "VEC3" else 4)
    colors = np.ones((len(values), 4))
    colors[:, : values.shape[1]] = np.clip(np.nan_to_num(values, nan=1.0), 0.0, 1.0)
    colors[:, :3] = encode_srgb(colors[:, :3])
    return colors


def _faces(indices: NDArray[np.int64], mode: int) -> NDArray[np.int64]:
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


def _place(primitive: _Primitive, instance: Instance, joints: dict[int, NDArray[np.float64]]) -> Part:
    """A copy of the primitive in world space."""
    if instance.skin is not None and primitive.joints is not None and primitive.weights is not None:
        return skinned(primitive.part, primitive.joints, primitive.weights, joints[instance.skin])
    return posed(primitive.part, instance.matrix)
