"""The compact form of ``encode_glb``: what it keeps, what it costs, what it leaves out."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from threestudio_redream.assets import Asset, Material, load_asset, sample_asset
from threestudio_redream.assets.glb_writer import encode_glb

FLAT_FACES = 24  # from this many faces on a colour gets a material


def document(data: bytes) -> dict[str, Any]:
    """The JSON chunk."""
    (length,) = struct.unpack_from("<I", data, 12)
    return json.loads(data[20 : 20 + length])


def reloaded(tmp_path: Path, asset: Asset) -> Asset:
    path = tmp_path / "a.glb"
    path.write_bytes(encode_glb(asset, compact=True))
    again = load_asset(path)
    assert again.info["warnings"] == []
    return again


def strip(count: int, colors: np.ndarray | None = None) -> Asset:
    """``count`` separate triangles side by side in the plane z = 0; ``colors`` by vertex ``[3 count, 4]``."""
    corners = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0)], np.float32)
    vertices = (corners[None] + np.arange(count, dtype=np.float32)[:, None, None] * (1.5, 0, 0)).reshape(-1, 3)
    return Asset(
        name="strip",
        vertices=vertices.astype(np.float32),
        faces=np.arange(3 * count, dtype=np.int32).reshape(-1, 3),
        normals=np.tile(np.array([(0, 0, 1)], np.float32), (3 * count, 1)),
        uvs=None,
        colors=None if colors is None else colors.astype(np.float32),
        face_materials=np.zeros(count, np.int32),
        materials=(Material(),),
    )


def test_geometry_and_texture_survive(tmp_path: Path) -> None:
    asset = sample_asset()
    again = reloaded(tmp_path, asset)
    extent = float(np.ptp(asset.vertices, axis=0).max())
    mine, theirs = asset.vertices[asset.faces], again.vertices[again.faces]
    np.testing.assert_allclose(theirs, mine, atol=0.51 * extent / 65_535.0)
    assert (np.abs(theirs - mine) > 0).any()  # they are stored in steps
    assert asset.uvs is not None
    assert again.uvs is not None
    np.testing.assert_allclose(again.normals[again.faces], asset.normals[asset.faces], atol=0.009)
    np.testing.assert_allclose(again.uvs[again.faces], asset.uvs[asset.faces], atol=1e-5)
    np.testing.assert_array_equal(again.materials[0].texture, asset.materials[0].texture)
    assert again.materials[0].wrap == "clamp"
    assert again.materials[0].double_sided is False


def test_it_is_small_and_the_same_every_time() -> None:
    asset = sample_asset()
    compact = encode_glb(asset, compact=True)
    assert len(compact) < 0.66 * len(encode_glb(asset))
    painted = replace(asset, colors=np.full((len(asset.vertices), 4), 0.5, np.float32))
    assert len(encode_glb(painted, compact=True)) < 0.5 * len(encode_glb(painted))
    assert encode_glb(sample_asset(), compact=True) == compact


def test_the_stored_types() -> None:
    """Core glTF and two ratified extensions: rows of 4 bytes, positions as steps that the node scales back."""
    root = document(encode_glb(sample_asset(), compact=True, copyright="somebody, CC0-1.0"))
    assert root["extensionsRequired"] == root["extensionsUsed"] == ["KHR_mesh_quantization", "KHR_texture_transform"]
    assert root["asset"]["copyright"] == "somebody, CC0-1.0"
    (primitive,) = root["meshes"][0]["primitives"]
    found = {name: root["accessors"][index] for name, index in primitive["attributes"].items()}
    assert {name: entry["componentType"] for name, entry in found.items()} == {
        "POSITION": 5123,
        "NORMAL": 5120,
        "TEXCOORD_0": 5123,
    }
    assert found["POSITION"]["min"] == [0, 0, 0]
    assert max(found["POSITION"]["max"]) == 65_535
    assert "normalized" not in found["POSITION"]
    strides = [root["bufferViews"][entry["bufferView"]].get("byteStride", 4) for entry in found.values()]
    assert strides == [8, 4, 4]
    assert all(view["byteOffset"] % 4 == 0 for view in root["bufferViews"])
    (scale,) = set(root["nodes"][0]["scale"])
    assert scale == pytest.approx(np.ptp(sample_asset().vertices, axis=0).max() / 65_535.0)


def test_faces_of_one_colour_become_materials(tmp_path: Path) -> None:
    """Convention: a colour of 0.5 on a base colour of 0.5 is a factor of 0.2140 squared in the file."""
    count = FLAT_FACES
    colors = np.ones((6 * count, 4))
    colors[: 3 * count, :3] = (1.0, 0.25, 0.5)
    colors[3 * count :, 3] = 0.5
    asset = replace(strip(2 * count, colors), materials=(Material((0.5, 1.0, 0.5, 1.0)),))
    data = encode_glb(asset, compact=True)
    factors = [entry["pbrMetallicRoughness"]["baseColorFactor"] for entry in document(data)["materials"]]
    np.testing.assert_allclose(sorted(factor[2] for factor in factors), [0.2140**2, 0.2140], atol=1e-4)
    assert not any("COLOR_0" in p["attributes"] for p in document(data)["meshes"][0]["primitives"])
    again = reloaded(tmp_path, asset)
    assert again.colors is None
    shown = np.array([material.base_color for material in again.materials])[again.face_materials]
    np.testing.assert_allclose(shown[:count, 1], 0.25, atol=1e-6)
    np.testing.assert_allclose(shown[count:], [(0.5, 1.0, 0.5, 0.5)] * count, atol=1e-6)


def test_other_colours_stay_with_their_vertices(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    few = np.repeat(rng.random((FLAT_FACES - 1, 4)), 3, axis=0)  # of one colour each, but too few faces of each
    asset = strip(2 * len(few) // 3, np.concatenate([few, rng.random(few.shape)]))
    again = reloaded(tmp_path, asset)
    assert asset.colors is not None
    assert again.colors is not None
    assert len(again.materials) == 1
    np.testing.assert_allclose(again.colors[again.faces][..., :3], asset.colors[asset.faces][..., :3], atol=2e-4)
    np.testing.assert_allclose(again.colors[again.faces][..., 3], asset.colors[asset.faces][..., 3], atol=1e-5)


def test_texture_coordinates_only_where_there_is_a_texture(tmp_path: Path) -> None:
    asset = sample_asset()
    half = len(asset.faces) // 2
    assert asset.uvs is not None
    uvs = asset.uvs * (7.0, 3.0) - (2.0, 5.0)  # repeats, beyond [0, 1]
    mixed = replace(
        asset,
        uvs=uvs.astype(np.float32),
        materials=(replace(asset.materials[0], alpha_mode="MASK", alpha_cutoff=0.25, wrap="repeat"), Material()),
        face_materials=(np.arange(len(asset.faces)) >= half).astype(np.int32),
    )
    attributes = [p["attributes"] for p in document(encode_glb(mixed, compact=True))["meshes"][0]["primitives"]]
    assert ["TEXCOORD_0" in names for names in attributes] == [False, True]  # plain ones come first
    again = reloaded(tmp_path, mixed)
    textured = [i for i, material in enumerate(again.materials) if material.texture is not None]
    (index,) = textured
    assert (again.materials[index].alpha_mode, again.materials[index].alpha_cutoff) == ("MASK", 0.25)
    assert again.uvs is not None
    shown = again.uvs[again.faces[again.face_materials == index]]
    np.testing.assert_allclose(shown, uvs[asset.faces[:half]], atol=7e-5)


@pytest.mark.parametrize("levels", [2, 256])
def test_textures_of_few_colours_get_a_palette_and_do_not_change(tmp_path: Path, levels: int) -> None:
    rng = np.random.default_rng(1)
    texture = np.full((64, 64, 4), 255, np.uint8)
    texture[..., 0] = rng.integers(0, levels, (64, 64))
    asset = replace(strip(2), uvs=np.zeros((6, 2), np.float32), materials=(Material(texture=texture),))
    data = encode_glb(asset, compact=True)
    view = document(data)["bufferViews"][document(data)["images"][0]["bufferView"]]
    assert view["byteLength"] < (1000 if levels == 2 else 64 * 64 + 1200)
    np.testing.assert_array_equal(reloaded(tmp_path, asset).materials[0].texture, texture)


@pytest.mark.parametrize("alpha", [False, True])
def test_other_textures_do_not_change_either(tmp_path: Path, alpha: bool) -> None:
    texture = np.random.default_rng(1).integers(0, 256, (32, 32, 4)).astype(np.uint8)
    texture[..., 3] = texture[..., 3] if alpha else 255
    asset = replace(strip(2), uvs=np.zeros((6, 2), np.float32), materials=(Material(texture=texture),))
    np.testing.assert_array_equal(reloaded(tmp_path, asset).materials[0].texture, texture)


def test_a_material_that_no_face_uses_is_left_out(tmp_path: Path) -> None:
    texture = np.zeros((2, 2, 4), np.uint8)
    asset = replace(strip(1), materials=(Material(), Material(texture=texture)), uvs=np.zeros((3, 2), np.float32))
    root = document(encode_glb(asset, compact=True))
    assert len(root["materials"]) == 1
    assert "images" not in root
    assert root["extensionsUsed"] == ["KHR_mesh_quantization"]
    assert reloaded(tmp_path, asset).vertices.tolist() == strip(1).vertices.tolist()
