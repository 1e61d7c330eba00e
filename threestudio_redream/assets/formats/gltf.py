"""glTF 2.0, binary (GLB) and with side files.

Node transforms are applied, skins stand in their rest pose, instances are copied, strips and fans become
triangles. Morph targets, cameras, lights and everything but the base colour are left out. glTF already
counts v downwards from the top of the image.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.assemble import Parsed, Part
from threestudio_redream.assets.files import SideFiles
from threestudio_redream.assets.formats.gltf_buffers import Buffers
from threestudio_redream.assets.formats.gltf_json import Document, as_object, objects, parse_document, split_glb
from threestudio_redream.assets.formats.gltf_materials import read_materials
from threestudio_redream.assets.formats.gltf_nodes import Instance, joint_matrices, walk_scene
from threestudio_redream.assets.formats.gltf_pose import posed, skinned
from threestudio_redream.assets.formats.gltf_primitives import DRACO, Primitive, PrimitiveReader, check_size
from threestudio_redream.assets.limits import Limits

__all__ = ["parse", "parse_glb"]

#: Extensions without which nothing is lost that is kept here; any other required one is warned about.
_HARMLESS = {
    DRACO, "KHR_texture_transform", "KHR_mesh_quantization", "EXT_texture_webp", "KHR_texture_basisu",
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
    copies = Counter(instance.mesh for instance in instances)
    meshes = {mesh: objects(document.items("meshes")[mesh].get("primitives"), "mesh.primitives") for mesh in copies}
    check_size(document, buffers, meshes, copies, limits)

    plans, pool = read_materials(document, buffers, limits, warnings)
    joints = joint_matrices(document, buffers, {i.skin for i in instances if i.skin is not None}, world, limits)
    reader = PrimitiveReader(
        document, buffers, [entry for entries in meshes.values() for entry in entries], plans, limits
    )
    primitives = {mesh: [reader.read(entry, warnings) for entry in entries] for mesh, entries in meshes.items()}
    parts = [_place(p, i, joints) for i in instances for p in primitives[i.mesh] if p is not None]
    generator = as_object(document.root["asset"], "asset").get("generator", "")
    info = {"n_nodes": len(world), "generator": str(generator)[:200]}
    return Parsed(parts, lambda: [plan.finish(pool) for plan in plans], warnings, info)


def _place(primitive: Primitive, instance: Instance, joints: dict[int, NDArray[np.float64]]) -> Part:
    """A copy of the primitive in world space."""
    if instance.skin is not None and primitive.joints is not None and primitive.weights is not None:
        return skinned(primitive.part, primitive.joints, primitive.weights, joints[instance.skin])
    return posed(primitive.part, instance.matrix)
