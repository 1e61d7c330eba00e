"""glTF documents that lie."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asset_files import TETRA, UINT, Gltf, glb, refused, textured_gltf

from threestudio_redream.errors import AssetLimitError


def edited(path: str, value: Any) -> bytes:
    """The valid document with one value replaced; ``path`` is like ``nodes/0/mesh``."""
    document = textured_gltf()
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    holder: Any = document.root
    for part in parents:
        holder = holder[part]
    if value is ...:
        del holder[last]
    else:
        holder[last] = value
    return document.glb()


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("asset", ..., "asset"),
        ("asset/version", "1.0", "glTF 2.x"),
        ("asset/version", 2.0, "asset.version"),
        ("scene", 5, "scene"),
        ("scene", -1, "scene"),
        ("scene", True, "scene"),
        ("scenes/0/nodes", [3], "scene.nodes"),
        ("scenes/0/nodes", {"0": 0}, "not a list"),
        ("scenes/0", 7, "not an object"),
        ("nodes", {}, "not a list"),
        ("nodes/0/mesh", 1, "node.mesh"),
        ("nodes/0/skin", 0, "node.skin"),
        ("nodes/0/matrix", [1] * 15, "node.matrix"),
        ("nodes/0/matrix", ["1"] * 16, "finite number"),
        ("nodes/0/matrix", [1e300] * 16, "finite number"),
        ("nodes/0/matrix", [1e200] * 16, "too large"),
        ("nodes", [{"scale": [1e299] * 3, "children": [1]}, {"scale": [1e299] * 3, "mesh": 0}], "not finite"),
        ("nodes/0/scale", [1, 1], "node.scale"),
        ("nodes/0/scale", [0, 0, 0], "coincide"),
        ("nodes/0/rotation", [0, 0, 0, None], "finite number"),
        ("nodes/0/translation", "up", "node.translation"),
        ("nodes/0/children", 4, "not a list"),
        ("meshes/0/primitives", ..., "mesh.primitives"),
        ("meshes/0/primitives", [], "no faces"),
        ("meshes/0/primitives/0/attributes", [], "primitive.attributes"),
        ("meshes/0/primitives/0/attributes/POSITION", ..., "no positions"),
        ("meshes/0/primitives/0/attributes/POSITION", "0", "POSITION"),
        ("meshes/0/primitives/0/attributes/NORMAL", 1, "differ in length"),
        ("meshes/0/primitives/0/mode", 9, "primitive.mode"),
        ("meshes/0/primitives/0/material", 4, "primitive.material"),
        ("accessors/0/count", 10**9, "accessor.count"),
        ("accessors/0/count", -4, "accessor.count"),
        ("accessors/0/count", 4.5, "accessor.count"),
        ("accessors/0/type", "VEC2", "wrong element type"),
        ("accessors/0/type", ["VEC3"], "accessor.type"),
        ("accessors/0/componentType", 5124, "component type"),
        ("accessors/0/componentType", None, "accessor.componentType"),
        ("accessors/0/byteOffset", 1, "past its buffer view"),
        ("accessors/0/byteOffset", -1, "accessor.byteOffset"),
        ("accessors/0/bufferView", 77, "bufferView"),
        ("accessors/0/sparse", 1, "accessor.sparse"),
        ("bufferViews/0/buffer", 1, "bufferView.buffer"),
        ("bufferViews/0/byteLength", 47, "past its buffer view"),
        ("bufferViews/0/byteLength", 10**15, "past its buffer"),
        ("bufferViews/0/byteOffset", 10**9, "past its buffer"),
        ("bufferViews/0/byteStride", 200, "past its buffer view"),
        ("bufferViews/0/byteStride", 253, "bufferView.byteStride"),
        ("bufferViews/0/extensions", {"EXT_meshopt_compression": {}}, "meshopt"),
        ("buffers/0/byteLength", 10**9, "truncated"),
        ("buffers/0/uri", 5, "buffer.uri"),
        ("buffers", [], "bufferView.buffer"),
        ("materials/0", [], "not an object"),
        ("materials/0/pbrMetallicRoughness", 1, "pbrMetallicRoughness"),
        ("materials/0/pbrMetallicRoughness/baseColorFactor", [1, 1, 1], "baseColorFactor"),
        ("materials/0/pbrMetallicRoughness/baseColorTexture", 0, "baseColorTexture"),
        ("materials/0/pbrMetallicRoughness/baseColorTexture/index", 9, "baseColorTexture.index"),
        ("materials/0/pbrMetallicRoughness/baseColorTexture/texCoord", 16, "texCoord"),
        ("materials/0/alphaCutoff", "half", "alphaCutoff"),
        ("textures/0/source", 3, "texture.source"),
        ("textures/0/sampler", 0, "texture.sampler"),
        ("images/0/bufferView", 99, "bufferView"),
        ("images/0", {}, "image.uri"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, path: str, value: Any, problem: str) -> None:
    refused(tmp_path, "a.glb", edited(path, value), problem)


def test_a_buffer_without_data(tmp_path: Path) -> None:
    document = textured_gltf()
    refused(tmp_path, "a.gltf", json.dumps(document.root).encode(), "no data", received=0)


def test_dangling_vertex_indices(tmp_path: Path) -> None:
    document = Gltf()
    document.primitive(faces=[[0, 1, 4]])
    refused(tmp_path, "a.glb", document.glb(), "outside the 4", received=4)
    document.root["meshes"][0]["primitives"] *= 2  # a shared accessor takes another path
    refused(tmp_path, "a.glb", document.glb(), "outside the 4", received=4)


def test_primitives_that_share_vertices_keep_only_their_own(tmp_path: Path) -> None:
    from asset_files import load

    document = Gltf()
    first = document.primitive(NORMAL=TETRA + 1, faces=[[0, 1, 2]])
    second = {**first, "indices": document.accessor(np.array([3, 1, 2]), UINT)}
    document.root["meshes"][0]["primitives"].append(second)
    asset = load(tmp_path, "a.glb", document.glb())
    assert len(asset.vertices) == 6
    np.testing.assert_array_equal(asset.vertices[asset.faces[1]], TETRA[[3, 1, 2]])


@pytest.mark.parametrize(
    "nodes", [[{"children": [0]}], [{"children": [1]}, {"children": [0]}], [{"children": [1, 1]}, {}]]
)
def test_node_graphs_that_are_no_trees(tmp_path: Path, nodes: list[dict]) -> None:
    refused(tmp_path, "a.glb", edited("nodes", nodes), "not a tree")


def test_a_diamond_that_would_double_at_every_level(tmp_path: Path) -> None:
    nodes: list[dict] = [{"children": [i + 1, i + 1]} for i in range(60)]
    refused(tmp_path, "a.glb", edited("nodes", [*nodes, {"mesh": 0}]), "not a tree")


def test_deep_chains_of_nodes_are_fine(tmp_path: Path) -> None:
    from asset_files import load

    nodes: list[dict] = [{"children": [i + 1]} for i in range(5000)]
    assert len(load(tmp_path, "a.glb", edited("nodes", [*nodes, {"mesh": 0}])).faces) == 4


def test_instances_count_before_they_are_made(tmp_path: Path) -> None:
    document = Gltf()
    points = np.random.default_rng(0).random((40_000, 3))
    document.primitive(positions=points, faces=None)
    document.root["nodes"] = [{"mesh": 0}] * 100
    document.root["scenes"] = [{"nodes": list(range(100))}]
    refused(tmp_path, "a.glb", document.glb(), "vertices", received=4_000_000)
    document.root["meshes"][0]["primitives"] *= 101
    refused(tmp_path, "a.glb", document.glb(), "mesh primitives", received=10_100)


def test_huge_accessors_without_data_cost_nothing(tmp_path: Path) -> None:
    document = Gltf()
    entry = document.primitive()
    accessor = document.add("accessors", {"componentType": 5126, "count": 3_000_000, "type": "VEC3"})
    entry["attributes"] = {"POSITION": accessor, "NORMAL": accessor}
    refused(tmp_path, "a.glb", document.glb(), "vertices", received=3_000_000)
    indices = document.add("accessors", {"componentType": 5125, "count": 3_000_000, "type": "SCALAR"})
    entry |= {"attributes": {"POSITION": 0}, "indices": indices}
    document.root["meshes"][0]["primitives"] = [entry, entry]
    refused(tmp_path, "a.glb", document.glb(), "faces", received=2_000_000)


def test_too_many_joints(tmp_path: Path) -> None:
    document = textured_gltf()
    document.root["nodes"][0]["skin"] = 0
    document.add("skins", {"joints": [0] * 10_001})
    refused(tmp_path, "a.glb", document.glb(), "joints", received=10_001)


VALID = textured_gltf().glb()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (VALID[:8], "truncated"),
        (VALID[:200], "truncated"),
        (VALID[:4] + struct.pack("<I", 1) + VALID[8:], "version 2"),
        (VALID[:12] + struct.pack("<I", 10**6) + VALID[16:], "past the end"),
        (VALID[:16] + b"BIN\0" + VALID[20:], "no JSON chunk"),
        (struct.pack("<4sII", b"glTF", 2, 20) + struct.pack("<II", 0, 7), "no JSON chunk"),
        (glb(b"{"), "cannot be parsed"),
        (glb(b"[]"), "document is not an object"),
        (glb(b'{"asset": {"version": "2.0"}, "nodes": NaN}'), "cannot be parsed"),
        (glb(b'{"asset": {"version": "2.0"}, "nodes": ' + b"9" * 5000 + b"}"), "cannot be parsed"),
        (glb(b'\xff{"asset"'), "cannot be parsed"),
        (glb({"asset": {"version": "2.0"}}), "no faces"),
        (b'{"error": {"code": 404}}', "asset"),
    ],
)
def test_damaged_containers(tmp_path: Path, data: bytes, problem: str) -> None:
    refused(tmp_path, "a.glb", data, problem)


@pytest.mark.parametrize(
    "bomb",
    [
        b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"\\"":' + b"[" * 50 + b"]" * 50 + b"}",
    ],
)
def test_deep_json_is_refused_before_it_is_parsed(tmp_path: Path, bomb: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "loads", lambda *arguments, **keywords: pytest.fail("parsed"))
    error = refused(tmp_path, "a.gltf", bomb, "nested JSON")
    assert isinstance(error, AssetLimitError)


def test_brackets_and_quotes_inside_strings_do_not_count(tmp_path: Path) -> None:
    from asset_files import load

    document = textured_gltf()
    document.root["extras"] = '"[' * 100 + "\\" * 7 + "{" * 100
    assert len(load(tmp_path, "a.glb", document.glb()).faces) == 4


def test_wide_json_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    bomb = b'{"a":[' + b"[]," * 1_500_000 + b"[]]}"
    refused(tmp_path, "a.gltf", bomb, "bytes of JSON outside strings")


def test_an_oversized_data_uri_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    document = textured_gltf()
    document.binary += b"\0" * 20_000_000
    error = refused(tmp_path, "a.gltf", document.gltf(), "bytes of JSON")
    assert isinstance(error, AssetLimitError)
