"""glTF: geometry, transforms, skins, colours and materials, with trimesh as an independent reader."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from asset_files import FLOAT, TETRA, TETRA_FACES, UBYTE, UINT, USHORT, Gltf, load, png, refused, save, textured_gltf

from threestudio_redream.assets import load_asset, sample_asset
from threestudio_redream.assets.glb_writer import encode_glb
from threestudio_redream.assets.types import Material


def test_a_textured_mesh_comes_out_as_it_went_in(tmp_path: Path) -> None:
    asset = load(tmp_path, "a.glb", textured_gltf().glb())
    np.testing.assert_array_equal(asset.vertices, TETRA)
    np.testing.assert_array_equal(asset.faces, TETRA_FACES)
    assert asset.vertices.dtype == np.float32
    assert asset.faces.dtype == np.int32
    np.testing.assert_allclose(np.linalg.norm(asset.normals, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(asset.normals[1], np.array([1.1, 0.1, 0.1]) / np.linalg.norm([1.1, 0.1, 0.1]), atol=1e-6)
    assert asset.uvs is not None
    assert asset.colors is None
    np.testing.assert_array_equal(asset.uvs, TETRA[:, :2])
    assert asset.name == "a"
    assert asset.source == tmp_path / "a.glb"
    assert len(asset.sha256 or "") == 64
    assert asset.info["format"] == "glb"
    assert asset.info["warnings"] == []
    assert asset.info["n_nodes"] == 1


def test_gltf_with_a_data_uri_equals_glb(tmp_path: Path) -> None:
    asset, same = load(tmp_path, "a.glb", textured_gltf().glb()), load(tmp_path, "a.gltf", textured_gltf().gltf())
    np.testing.assert_array_equal(asset.vertices, same.vertices)
    np.testing.assert_array_equal(asset.materials[0].texture, same.materials[0].texture)
    assert same.info["format"] == "gltf"


def test_side_files_are_read_from_the_folder_and_below(tmp_path: Path) -> None:
    document = textured_gltf()
    document.root["images"] = [{"uri": "textures/a%20b.png"}]
    (tmp_path / "textures").mkdir()
    save(tmp_path / "textures", "a b.png", png(np.full((1, 1, 3), 7)))
    save(tmp_path, "data.bin", document.binary)
    asset = load(tmp_path, "a.gltf", document.gltf("data.bin"))
    assert asset.materials[0].texture is not None
    assert asset.materials[0].texture[0, 0].tolist() == [7, 7, 7, 255]


def test_linear_factors_become_srgb(tmp_path: Path) -> None:
    document = Gltf()
    document.primitive()["material"] = document.add(
        "materials", {"pbrMetallicRoughness": {"baseColorFactor": [0.21404114, 0.0, 1.0, 0.25]}, "doubleSided": True}
    )
    material = load(tmp_path, "a.glb", document.glb()).materials[0]
    np.testing.assert_allclose(material.base_color, (0.5, 0.0, 1.0, 0.25), atol=1e-6)
    assert material.double_sided
    assert material.texture is None


def test_vertex_colors_are_linear_in_the_file(tmp_path: Path) -> None:
    document = Gltf()
    colors = np.array([[0.21404114, 1, 0, 0.5]] * 4)
    document.primitive(COLOR_0=colors)
    asset = load(tmp_path, "a.glb", document.glb())
    assert asset.colors is not None
    np.testing.assert_allclose(asset.colors, [[0.5, 1, 0, 0.5]] * 4, atol=1e-6)


def test_normalized_integer_colors_without_alpha(tmp_path: Path) -> None:
    document = Gltf()
    entry = document.primitive()
    entry["attributes"]["COLOR_0"] = document.accessor([[255, 0, 0]] * 4, UBYTE, normalized=True)
    asset = load(tmp_path, "a.glb", document.glb())
    assert asset.colors is not None
    np.testing.assert_allclose(asset.colors, [[1, 0, 0, 1]] * 4, atol=1e-6)


def test_primitives_without_colors_are_white_beside_others(tmp_path: Path) -> None:
    document = Gltf()
    document.primitive(COLOR_0=np.zeros((4, 3)))
    document.primitive(positions=TETRA + 5)
    asset = load(tmp_path, "a.glb", document.glb())
    assert asset.colors is not None
    assert asset.colors[:4, :3].max() == 0.0
    assert asset.colors[4:].min() == 1.0


def test_alpha_modes_and_wrapping(tmp_path: Path) -> None:
    document = textured_gltf()
    clamp = document.add("samplers", {"wrapS": 33071, "wrapT": 33071})
    document.root["textures"][0]["sampler"] = clamp
    document.root["materials"][0] |= {"alphaMode": "MASK", "alphaCutoff": 0.3}
    material = load(tmp_path, "a.glb", document.glb()).materials[0]
    assert (material.alpha_mode, material.alpha_cutoff, material.wrap) == ("MASK", 0.3, "clamp")
    assert not material.double_sided

    document.root["samplers"][0] = {"wrapS": 33648}
    document.root["materials"][0] = {**document.root["materials"][0], "alphaMode": "BLEND"}
    asset = load(tmp_path, "a.glb", document.glb())
    assert asset.materials[0].wrap == "repeat"
    assert asset.materials[0].alpha_mode == "BLEND"
    assert "wrapping" in asset.info["warnings"][0]

    document.root["materials"][0]["alphaMode"] = "SHINY"
    refused(tmp_path, "a.glb", document.glb(), "alphaMode", received="SHINY")


def test_texture_transform_and_second_coordinates(tmp_path: Path) -> None:
    document = Gltf()
    uv = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32)
    document.primitive(TEXCOORD_0=np.zeros((4, 2)), TEXCOORD_1=uv)["material"] = 0
    transform = {"offset": [0.25, 0.5], "scale": [2, 4], "rotation": np.pi / 2, "texCoord": 1}
    reference = {"index": document.texture(png()), "extensions": {"KHR_texture_transform": transform}}
    document.add("materials", {"pbrMetallicRoughness": {"baseColorTexture": reference}})
    asset = load(tmp_path, "a.glb", document.glb())
    # Scaled to (2, 4), turned a quarter counter-clockwise with v down, so u -> -v and v -> u, then moved.
    assert asset.uvs is not None
    np.testing.assert_allclose(asset.uvs, [[0.25, 0.5], [0.25, -1.5], [4.25, 0.5], [4.25, -1.5]], atol=1e-6)


def test_specular_glossiness_materials(tmp_path: Path) -> None:
    document = textured_gltf()
    gloss = {"diffuseFactor": [0.21404114, 0, 0, 1], "diffuseTexture": {"index": 0}}
    document.root["materials"][0] = {"extensions": {"KHR_materials_pbrSpecularGlossiness": gloss}}
    material = load(tmp_path, "a.glb", document.glb()).materials[0]
    assert material.texture is not None
    assert material.base_color[0] == pytest.approx(0.5, abs=1e-6)


def test_several_materials_keep_their_faces_and_unused_ones_go(tmp_path: Path) -> None:
    document = Gltf()
    for index, red in enumerate((0.0, 0.5, 1.0)):
        document.add("materials", {"pbrMetallicRoughness": {"baseColorFactor": [red, 0, 0, 1]}})
        if index != 1:
            document.primitive(positions=TETRA + index)["material"] = index
    document.primitive(positions=TETRA + 9)  # the default material
    asset = load(tmp_path, "a.glb", document.glb())
    assert [material.base_color[0] for material in asset.materials] == [0.0, 1.0, 1.0]
    assert asset.face_materials.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    np.testing.assert_array_equal(asset.vertices[asset.faces[4:8]], (TETRA + 2)[TETRA_FACES])


def test_node_transforms_are_baked_and_mirrors_turn_faces_over(tmp_path: Path) -> None:
    document = Gltf()
    document.primitive(NORMAL=np.tile([0.0, 0.6, 0.8], (4, 1)))
    half = np.sqrt(0.5)
    document.root["nodes"] = [
        {"children": [1, 2], "translation": [10, 0, 0]},
        {"mesh": 0, "rotation": [0, 0, half, half], "scale": [1, 2, 1]},
        {"mesh": 0, "matrix": [-1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 5, 1]},
    ]
    asset = load(tmp_path, "a.glb", document.glb())
    assert asset.info["n_nodes"] == 3
    x, y, z = TETRA.T
    np.testing.assert_allclose(asset.vertices[:4], np.stack([10 - 2 * y, x, z], 1), atol=1e-6)
    np.testing.assert_allclose(asset.vertices[4:], np.stack([10 - x, y, z + 5], 1), atol=1e-6)
    # Inverse transpose: y is halved, not doubled, before the turn.
    expected = np.array([-0.3, 0.0, 0.8]) / np.linalg.norm([0.3, 0.8])
    np.testing.assert_allclose(asset.normals[0], expected, atol=1e-6)
    np.testing.assert_allclose(asset.normals[4], [0.0, 0.6, 0.8], atol=1e-6)
    for faces in (asset.faces[:4], asset.faces[4:]):
        corners = asset.vertices.astype(np.float64)[faces]
        volume = np.einsum("fi,fi->f", corners[:, 0] - 50, np.cross(corners[:, 1] - 50, corners[:, 2] - 50)).sum()
        assert volume > 0.0  # outside stays outside


def test_transforms_agree_with_trimesh(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    scene = trimesh.Scene()
    generator = np.random.default_rng(3)
    for index in range(4):
        matrix = trimesh.transformations.random_rotation_matrix(generator.random(3))
        matrix[:3, 3] = generator.normal(size=3)
        matrix[:3, :3] *= generator.uniform(0.5, 2.0)
        parent = None if index == 0 else f"n{index - 1}"
        box = trimesh.creation.box(extents=generator.uniform(0.5, 1.5, 3))
        scene.add_geometry(box, node_name=f"n{index}", parent_node_name=parent, transform=matrix)
    path = save(tmp_path, "scene.glb", scene.export(file_type="glb"))
    asset, reference = load_asset(path), trimesh.load_scene(path).to_mesh()
    np.testing.assert_allclose(asset.vertices.min(0), reference.bounds[0], atol=1e-5)
    np.testing.assert_allclose(asset.vertices.max(0), reference.bounds[1], atol=1e-5)
    volume = trimesh.Trimesh(asset.vertices, asset.faces, process=False).volume
    assert volume == pytest.approx(reference.volume, rel=1e-4)


@pytest.mark.parametrize(
    ("mode", "indices", "faces"),
    [
        (4, [0, 1, 2, 0, 2, 3, 1], [[0, 1, 2], [0, 2, 3]]),
        (5, [0, 1, 2, 3], [[0, 1, 2], [1, 3, 2]]),
        (6, [0, 1, 2, 3], [[0, 1, 2], [0, 2, 3]]),
    ],
)
def test_lists_strips_and_fans(tmp_path: Path, mode: int, indices: list[int], faces: list[list[int]]) -> None:
    document = Gltf()
    document.primitive(faces=indices)["mode"] = mode
    assert load(tmp_path, "a.glb", document.glb()).faces.tolist() == faces


def test_points_lines_and_short_strips_are_skipped(tmp_path: Path) -> None:
    document = Gltf()
    document.primitive()
    document.primitive(faces=[0, 1])["mode"] = 1
    document.primitive(faces=[0, 1])["mode"] = 5
    asset = load(tmp_path, "a.glb", document.glb())
    assert len(asset.faces) == 4
    assert asset.info["warnings"] == ["points or lines were skipped"]
    document.root["meshes"][0]["primitives"].pop(0)
    refused(tmp_path, "a.glb", document.glb(), "no faces")


def test_without_indices_vertices_are_used_in_order(tmp_path: Path) -> None:
    document = Gltf()
    document.primitive(positions=TETRA[TETRA_FACES].reshape(-1, 3), faces=None)
    assert load(tmp_path, "a.glb", document.glb()).faces.tolist() == np.arange(12).reshape(4, 3).tolist()


def test_interleaved_quantised_and_sparse_accessors(tmp_path: Path) -> None:
    document = Gltf()
    entry = document.primitive()
    # Positions as normalised shorts, 8 bytes apart; one of them replaced by a sparse value.
    packed = np.zeros((4, 4), "<i2")
    packed[:, :3] = TETRA * 32767
    view = document.view(packed.tobytes())
    document.root["bufferViews"][view]["byteStride"] = 8
    where, what = (
        document.view(np.array([3], np.uint8).tobytes()),
        document.view(np.array([0, 0, 16384], "<i2").tobytes()),
    )
    sparse = {"count": 1, "indices": {"bufferView": where, "componentType": UBYTE}, "values": {"bufferView": what}}
    accessor = {"bufferView": view, "componentType": 5122, "count": 4, "type": "VEC3", "normalized": True}
    entry["attributes"]["POSITION"] = document.add("accessors", {**accessor, "sparse": sparse})
    asset = load(tmp_path, "a.glb", document.glb())
    np.testing.assert_allclose(asset.vertices, TETRA * [[1], [1], [1], [0.5]], atol=1e-4)

    document.root["accessors"][-1]["sparse"] = {**sparse, "count": 0}
    np.testing.assert_allclose(load(tmp_path, "a.glb", document.glb()).vertices, TETRA, atol=1e-4)
    document.root["accessors"][-1]["sparse"] = sparse
    sparse["count"], sparse["indices"]["componentType"] = 1, 5120
    refused(tmp_path, "a.glb", document.glb(), "sparse")
    document.root["accessors"][-1] |= {"sparse": {**sparse, "count": 5}}
    refused(tmp_path, "a.glb", document.glb(), "sparse.count", received=5)


def _skinned(weights: object, joints: object = ((0, 1, 0, 0),) * 4) -> Gltf:
    document = Gltf()
    entry = document.primitive(NORMAL=np.tile([0.0, 0.0, 2.0], (4, 1)))
    entry["attributes"]["WEIGHTS_0"] = document.accessor(weights)
    entry["attributes"]["JOINTS_0"] = document.accessor(joints, USHORT)
    bind = np.tile(np.eye(4).T.ravel(), (2, 1))
    document.root["nodes"] = [
        {"mesh": 0, "skin": 0, "translation": [100, 0, 0]},  # must not matter
        {"children": [2], "translation": [0, 0, 2]},
        {"translation": [4, 0, 0]},
    ]
    document.root["scenes"] = [{"nodes": [0, 1]}]
    document.add("skins", {"joints": [1, 2], "inverseBindMatrices": document.accessor(bind)})
    return document


def test_skins_stand_in_their_rest_pose(tmp_path: Path) -> None:
    asset = load(tmp_path, "a.glb", _skinned([[3, 1, 0, 0]] * 4).glb())  # weights are made to sum to one
    np.testing.assert_allclose(asset.vertices, TETRA + np.array([1, 0, 2]), atol=1e-6)
    np.testing.assert_allclose(asset.normals, [[0, 0, 1]] * 4, atol=1e-6)

    without_bind = _skinned([[1, 0, 0, 0]] * 4)
    del without_bind.root["skins"][0]["inverseBindMatrices"]
    asset = load(tmp_path, "a.glb", without_bind.glb())
    np.testing.assert_allclose(asset.vertices, TETRA + np.array([0, 0, 2]), atol=1e-6)


def test_damaged_skins_are_named(tmp_path: Path) -> None:
    refused(tmp_path, "a.glb", _skinned([[0, 0, 0, 0]] * 4).glb(), "skin weights")
    refused(tmp_path, "a.glb", _skinned([[1, -1, 0.5, 0]] * 4).glb(), "skin weights")
    refused(tmp_path, "a.glb", _skinned([[1, 0, 0, 0]] * 4, [[2, 0, 0, 0]] * 4).glb(), "joint", received=2)
    document = _skinned([[1, 0, 0, 0]] * 4)
    document.root["scenes"] = [{"nodes": [0]}]
    refused(tmp_path, "a.glb", document.glb(), "joints that are not in the scene")
    document = _skinned([[1, 0, 0, 0]] * 4)
    document.root["skins"][0]["joints"] = [1]
    refused(tmp_path, "a.glb", document.glb(), "one bind matrix per joint", received=2)
    document = _skinned([[1, 0, 0, 0]] * 4)
    document.root["skins"][0]["inverseBindMatrices"] = document.accessor(np.full((2, 16), np.nan))
    refused(tmp_path, "a.glb", document.glb(), "bind matrix")


def test_scenes_are_optional_and_roots_are_then_all_free_nodes(tmp_path: Path) -> None:
    document = Gltf()
    document.primitive()
    del document.root["scenes"], document.root["scene"]
    document.root["nodes"] = [{"translation": [0, 0, 3], "children": [1]}, {"mesh": 0}, {"mesh": 0}]
    asset = load(tmp_path, "a.glb", document.glb())
    assert len(asset.faces) == 8
    assert asset.vertices[:, 2].max() == 4.0


def test_required_extensions_that_we_lack_are_mentioned(tmp_path: Path) -> None:
    document = textured_gltf()
    document.root["extensionsRequired"] = ["KHR_texture_transform", "VENDOR_magic", 7]
    warnings = load(tmp_path, "a.glb", document.glb()).info["warnings"]
    assert len(warnings) == 1
    assert "VENDOR_magic" in warnings[0]


def test_webp_and_basis_textures(tmp_path: Path) -> None:
    from io import BytesIO

    from PIL import Image

    stream = BytesIO()
    Image.new("RGB", (2, 2), (0, 0, 255)).save(stream, "WEBP", lossless=True)
    document = textured_gltf()
    source = document.add("images", {"bufferView": document.view(stream.getvalue()), "mimeType": "image/webp"})
    document.root["textures"][0]["extensions"] = {"EXT_texture_webp": {"source": source}}
    texture = load(tmp_path, "a.glb", document.glb()).materials[0].texture
    assert texture is not None
    assert texture[0, 0].tolist() == [0, 0, 255, 255]

    document.root["textures"][0] = {"extensions": {"KHR_texture_basisu": {"source": source}}}
    asset = load(tmp_path, "a.glb", document.glb())
    assert asset.materials[0].texture is None
    assert "Basis" in asset.info["warnings"][0]


def test_a_texture_without_coordinates_is_dropped_with_a_warning(tmp_path: Path) -> None:
    document = textured_gltf()
    del document.root["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_0"]
    second = document.primitive(positions=TETRA + 3)
    second["material"] = 0
    third = document.primitive(positions=TETRA + 6, TEXCOORD_0=TETRA[:, :2])
    third["material"] = 0
    asset = load(tmp_path, "a.glb", document.glb())
    assert asset.face_materials.tolist() == [1] * 8 + [0] * 4
    assert asset.materials[0].texture is not None
    assert asset.materials[1].texture is None
    assert sum("texture coordinates" in warning for warning in asset.info["warnings"]) == 1


def test_encode_glb_is_the_inverse_of_loading(tmp_path: Path) -> None:
    from dataclasses import replace

    asset = sample_asset()
    colors = np.random.default_rng(0).random((len(asset.vertices), 4)).astype(np.float32)
    half = len(asset.faces) // 2
    materials = (
        replace(asset.materials[0], base_color=(0.2, 0.5, 0.9, 0.5), alpha_mode="MASK", alpha_cutoff=0.25),
        Material((0.1, 0.2, 0.3, 1.0), double_sided=True),
    )
    face_materials = (np.arange(len(asset.faces)) >= half).astype(np.int32)
    asset = replace(asset, colors=colors, materials=materials, face_materials=face_materials)
    again = load(tmp_path, "a.glb", encode_glb(asset))
    for name in ("vertices", "normals", "uvs", "colors"):  # by corner: a material border splits vertices
        mine, theirs = getattr(asset, name)[asset.faces], getattr(again, name)[again.faces]
        np.testing.assert_allclose(theirs, mine, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(again.face_materials, face_materials)
    for before, after in zip(materials, again.materials):
        np.testing.assert_allclose(after.base_color, before.base_color, atol=1e-6)
        assert (after.alpha_mode, after.alpha_cutoff) == (before.alpha_mode, before.alpha_cutoff)
        assert (after.wrap, after.double_sided) == (before.wrap, before.double_sided)
    np.testing.assert_array_equal(again.materials[0].texture, materials[0].texture)


def test_written_glb_is_valid_for_trimesh(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    path = save(tmp_path, "a.glb", encode_glb(sample_asset()))
    mesh = trimesh.load_scene(path).to_mesh()
    assert len(mesh.faces) == len(sample_asset().faces)


def test_large_meshes_use_long_indices(tmp_path: Path) -> None:
    document = Gltf()
    entry = document.primitive()
    entry["indices"] = document.accessor(TETRA_FACES.ravel(), UINT)
    assert load(tmp_path, "a.glb", document.glb()).faces.tolist() == TETRA_FACES.tolist()
    entry["indices"] = document.accessor(TETRA_FACES.ravel().astype(float), FLOAT)
    refused(tmp_path, "a.glb", document.glb(), "unsigned")


def test_json_with_a_byte_order_mark(tmp_path: Path) -> None:
    data = textured_gltf().gltf()
    assert json.loads(data)
    assert len(load(tmp_path, "a.gltf", b"\xef\xbb\xbf" + data).faces) == 4
