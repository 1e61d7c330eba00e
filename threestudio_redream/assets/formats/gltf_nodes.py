"""The scene graph of glTF: which mesh stands where, and skins in their rest pose."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.formats.gltf_buffers import Buffers
from threestudio_redream.assets.formats.gltf_json import Document, as_index, as_numbers
from threestudio_redream.assets.limits import Limits, check_limit
from threestudio_redream.errors import AssetError

__all__ = ["Instance", "joint_matrices", "walk_scene"]

Matrix = NDArray[np.float64]


class Instance(NamedTuple):
    """A mesh in the scene: ``matrix`` ``[4, 4]`` to world; ``skin`` an index, or None."""

    mesh: int
    matrix: Matrix
    skin: int | None


def _local_matrix(node: dict[str, Any]) -> Matrix:
    if "matrix" in node:
        return np.array(as_numbers(node["matrix"], 16, "node.matrix")).reshape(4, 4).T
    matrix = np.eye(4)
    if "rotation" in node:
        x, y, z, w = as_numbers(node["rotation"], 4, "node.rotation")
        norm = x * x + y * y + z * z + w * w
        s = 2.0 / norm if norm > 0.0 else 0.0
        matrix[:3, :3] = [
            [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
            [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
            [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
        ]
    if "scale" in node:
        matrix[:3, :3] *= as_numbers(node["scale"], 3, "node.scale")
    if "translation" in node:
        matrix[:3, 3] = as_numbers(node["translation"], 3, "node.translation")
    return matrix


def _roots(document: Document) -> list[int]:
    nodes = document.items("nodes")
    if document.items("scenes"):
        scene = document.get("scenes", document.root.get("scene", 0), "scene")
        return [as_index(root, nodes, "scene.nodes") for root in _indices(scene.get("nodes", []), "scene.nodes")]
    children = {
        child
        for node in nodes
        for child in _indices(node.get("children", []), "node.children")
        if isinstance(child, int)
    }
    return [index for index in range(len(nodes)) if index not in children]


def _indices(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise AssetError(f"glTF {what} is not a list", received=value, fix="Export the file again")
    return value


def walk_scene(document: Document, limits: Limits) -> tuple[list[Instance], dict[int, Matrix]]:
    """Mesh instances of the default scene, and the world matrix of each of its nodes.

    Raises:
        AssetError: a node that is its own ancestor or has two parents, or a transform that is not finite.
        AssetLimitError: too many nodes.
    """
    nodes = document.items("nodes")
    instances: list[Instance] = []
    world: dict[int, Matrix] = {}
    stack = [(root, np.eye(4)) for root in _roots(document)]
    while stack:
        index, parent = stack.pop()
        if index in world:
            raise AssetError(
                "the glTF node graph is not a tree: a node is reached twice or contains itself",
                received=index,
                fix="Export the file again",
            )
        check_limit(limits, "max_nodes", len(world) + 1, "nodes")
        node = nodes[index]
        matrix = parent @ _local_matrix(node)
        if not np.isfinite(matrix).all():
            raise AssetError("a glTF node transform is not finite", received=index, fix="Repair the node transforms")
        world[index] = matrix
        if "mesh" in node:
            skin = as_index(node["skin"], document.items("skins"), "node.skin") if "skin" in node else None
            instances.append(Instance(as_index(node["mesh"], document.items("meshes"), "node.mesh"), matrix, skin))
        children = _indices(node.get("children", []), "node.children")
        stack.extend((as_index(child, nodes, "node.children"), matrix) for child in reversed(children))
    return instances, world


def joint_matrices(
    document: Document, buffers: Buffers, skins: set[int], world: dict[int, Matrix], limits: Limits
) -> dict[int, NDArray[np.float64]]:
    """For each skin ``[J, 4, 4]``: mesh space to world for each joint, in the pose that the nodes have.

    Raises:
        AssetError: a joint outside the scene, or bind matrices that are missing or damaged.
        AssetLimitError: too many joints.
    """
    joints = {skin: _indices(document.items("skins")[skin].get("joints"), "skin.joints") for skin in skins}
    check_limit(limits, "max_nodes", sum(map(len, joints.values())), "joints")
    return {skin: _joint_matrices(document, buffers, skin, indices, world) for skin, indices in joints.items()}


def _joint_matrices(
    document: Document, buffers: Buffers, skin: int, joints: list[Any], world: dict[int, Matrix]
) -> NDArray[np.float64]:
    nodes = [as_index(joint, document.items("nodes"), "skin.joints") for joint in joints]
    if not nodes or any(node not in world for node in nodes):
        raise AssetError(
            "a glTF skin uses joints that are not in the scene", received=skin, fix="Export the file again"
        )
    matrices = np.stack([world[node] for node in nodes])
    reference = document.items("skins")[skin].get("inverseBindMatrices")
    if reference is None:
        return matrices
    count = buffers.count(reference, "skin.inverseBindMatrices")
    if count != len(nodes):
        raise AssetError("a glTF skin needs one bind matrix per joint", received=count, fix="Export the file again")
    bind = buffers.accessor(reference, 16, "skin.inverseBindMatrices").astype(np.float64)
    if not np.isfinite(bind).all():
        raise AssetError("a bind matrix of a glTF skin is not finite", received=skin, fix="Export the file again")
    return matrices @ bind.reshape(-1, 4, 4).transpose(0, 2, 1)
