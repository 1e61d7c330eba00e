import io
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from threestudio_redream.errors import ConfigError, EmptySceneError
from threestudio_redream.meshing import Mesh, TexturedMesh, bake, glb_bytes, unwrap, write_glb, write_obj, write_ply
from threestudio_redream.meshing.frames import unit_normals, world_to_gltf
from threestudio_redream.meshing.obj import safe_stem


@pytest.fixture(scope="module")
def textured(torus_mesh, solids):
    mesh, uvs, _, _ = unwrap(torus_mesh, 128)
    return TexturedMesh(mesh.vertices, mesh.faces, mesh.normals, uvs, bake(mesh, uvs, solids.color, 128), "ring")


@pytest.fixture(scope="module")
def colored(torus_mesh, solids):
    return Mesh(torus_mesh.vertices, torus_mesh.faces, None, solids.color(torus_mesh.vertices))


def chunks(data):
    magic, version, length = struct.unpack_from("<4sII", data)
    size, kind = struct.unpack_from("<I4s", data, 12)
    rest, binary_kind = struct.unpack_from("<I4s", data, 20 + size)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    assert (kind, binary_kind) == (b"JSON", b"BIN\0")
    assert size % 4 == rest % 4 == 0
    assert 28 + size + rest == len(data)
    return json.loads(data[20 : 20 + size]), data[28 + size :]


def world(vertices):
    """glTF to world, written out independently of the writer."""
    return np.stack([vertices[:, 2], vertices[:, 0], vertices[:, 1]], axis=1)


def test_axes_numbers():
    out = world_to_gltf(np.float32([[0, 0, 1], [1, 0, 0], [0, 1, 0]]))
    assert out.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]  # top -> +Y, front -> +Z, left side of the world +y -> +X


def test_glb_bytes_follow_the_specification(textured):
    document, binary = chunks(glb_bytes(textured, copyright="CC0", extras={"threshold": 4.0}))
    assert document["asset"] == {
        "version": "2.0",
        "generator": "threestudio-redream",
        "copyright": "CC0",
        "extras": {"threshold": 4.0},
    }
    assert "uri" not in json.dumps(document)
    assert document["buffers"] == [{"byteLength": len(binary)}]
    for accessor in document["accessors"]:
        view = document["bufferViews"][accessor["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        assert view["byteOffset"] + view["byteLength"] <= len(binary)
    material = document["materials"][0]
    assert material["doubleSided"] is False
    assert material["pbrMetallicRoughness"] == {
        "metallicFactor": 0.0,
        "roughnessFactor": 1.0,
        "baseColorTexture": {"index": 0},
    }
    assert "extensionsUsed" not in document
    view = document["bufferViews"][document["images"][0]["bufferView"]]
    png = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), textured.texture)
    position = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    np.testing.assert_array_equal(position["max"], world_to_gltf(textured.vertices).max(axis=0).tolist())
    assert glb_bytes(textured) == glb_bytes(textured)


def test_glb_options(textured):
    document, _ = chunks(glb_bytes(textured, name="Стул", double_sided=True, unlit=True))
    assert document["materials"][0] == {
        "name": "Стул",
        "pbrMetallicRoughness": document["materials"][0]["pbrMetallicRoughness"],
        "doubleSided": True,
        "extensions": {"KHR_materials_unlit": {}},
    }
    assert document["extensionsUsed"] == ["KHR_materials_unlit"]


def test_glb_reload_keeps_everything(tmp_path, textured):
    path = write_glb(tmp_path / "deep" / "ring.glb", textured)
    loaded = trimesh.load_scene(path, process=False).geometry["ring"]
    np.testing.assert_array_equal(world(loaded.vertices).astype(np.float32), textured.vertices)
    np.testing.assert_array_equal(loaded.faces, textured.faces)
    np.testing.assert_allclose(world(loaded.vertex_normals), textured.normals, atol=1e-6)
    uvs = np.stack([loaded.visual.uv[:, 0], 1.0 - loaded.visual.uv[:, 1]], axis=1)
    np.testing.assert_allclose(uvs, textured.uvs, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(loaded.visual.material.baseColorTexture)[..., :3], textured.texture)
    top = np.argmax(textured.vertices[:, 2])
    assert np.argmax(loaded.vertices[:, 1]) == top or loaded.vertices[top, 1] == loaded.vertices[:, 1].max()


def test_normals_do_not_break_at_seams(tmp_path, textured):
    loaded = trimesh.load_scene(write_glb(tmp_path / "x.glb", textured), process=False).geometry["ring"]
    places, place = np.unique(np.asarray(loaded.vertices), axis=0, return_inverse=True)
    place = place.ravel()
    assert len(places) < len(loaded.vertices)  # there are seams
    spread = np.zeros(len(places))
    for axis in range(3):
        highest, lowest = np.full(len(places), -np.inf), np.full(len(places), np.inf)
        np.maximum.at(highest, place, loaded.vertex_normals[:, axis])
        np.minimum.at(lowest, place, loaded.vertex_normals[:, axis])
        spread = np.maximum(spread, highest - lowest)
    assert spread.max() == 0.0


def test_glb_vertex_colours_are_linear(tmp_path, colored):
    path = write_glb(tmp_path / "c.glb", colored)
    document, binary = chunks(path.read_bytes())
    accessor = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]]
    assert (accessor["type"], accessor["componentType"], accessor["normalized"]) == ("VEC4", 5123, True)
    view = document["bufferViews"][accessor["bufferView"]]
    stored = np.frombuffer(binary, "<u2", view["byteLength"] // 2, view["byteOffset"]).reshape(-1, 4) / 65535.0
    srgb = np.where(stored <= 0.0031308, stored * 12.92, 1.055 * stored ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(srgb[:, :3], colored.colors, atol=2e-4)
    assert (stored[:, 3] == 1.0).all()
    assert len(trimesh.load_scene(path).geometry) == 1
    half = Mesh(colored.vertices, colored.faces, None, np.full_like(colored.vertices, 0.5))
    document, binary = chunks(glb_bytes(half))
    assert document["materials"][0]["pbrMetallicRoughness"] == {"metallicFactor": 0.0, "roughnessFactor": 1.0}


def test_large_meshes_use_wide_indices(textured):
    assert 5123 in {a["componentType"] for a in chunks(glb_bytes(textured))[0]["accessors"]}
    vertices = np.random.default_rng(0).normal(size=(65_535, 3))
    document, _ = chunks(glb_bytes(Mesh(vertices, np.array([[0, 1, 65_534]]))))
    indices = document["accessors"][document["meshes"][0]["primitives"][0]["indices"]]
    assert indices["componentType"] == 5125


def test_extras_must_be_json(tmp_path, textured):
    for extras in ({"a": object()}, {"a": float("nan")}):
        with pytest.raises(ConfigError, match=r"must be JSON.*got \{'a'.*finite numbers"):
            write_glb(tmp_path / "x.glb", textured, extras=extras)
    assert list(tmp_path.iterdir()) == []


def test_obj_reload_keeps_everything(tmp_path, textured):
    path = write_obj(tmp_path / "ring.obj", textured)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ring.mtl", "ring.obj", "ring.png"]
    loaded = trimesh.load(path, process=False, maintain_order=True)
    corners = world(loaded.vertices[loaded.faces].reshape(-1, 3))
    np.testing.assert_allclose(corners, textured.vertices[textured.faces].reshape(-1, 3), atol=1e-6)
    uvs = loaded.visual.uv[loaded.faces].reshape(-1, 2)
    np.testing.assert_allclose(
        np.stack([uvs[:, 0], 1 - uvs[:, 1]], 1), textured.uvs[textured.faces].reshape(-1, 2), atol=1e-6
    )
    normals = world(loaded.vertex_normals[loaded.faces].reshape(-1, 3))
    np.testing.assert_allclose(normals, textured.normals[textured.faces].reshape(-1, 3), atol=1e-5)
    np.testing.assert_array_equal(np.asarray(loaded.visual.material.image), textured.texture)


def test_obj_names_are_safe_and_distinct(tmp_path, textured):
    for stem in ("a b", "a_b", "-rf ü"):
        path = write_obj(tmp_path / f"{stem}.obj", textured)
        mtl = next(line.split(" ", 1)[1] for line in path.read_text().splitlines() if line.startswith("mtllib"))
        assert mtl == f"{safe_stem(stem)}.mtl"
        assert (tmp_path / mtl).read_text().splitlines()[-1] == f"map_Kd {safe_stem(stem)}.png"
    assert len(list(tmp_path.glob("*.mtl"))) == 3
    assert safe_stem("chair") == "chair"
    assert safe_stem("a b") == "a_b-c8687a08"
    assert safe_stem("../x\n").startswith("_x_-")
    assert safe_stem("...").startswith("mesh-")


def test_obj_without_texture(tmp_path, colored, torus_mesh):
    loaded = trimesh.load(write_obj(tmp_path / "c.obj", colored), process=False)
    assert len(loaded.faces) == len(colored.faces)
    np.testing.assert_allclose(loaded.visual.vertex_colors[:, :3] / 255.0, colored.colors, atol=2 / 255)
    write_obj(tmp_path / "p.obj", torus_mesh)
    assert {line.split(" ")[0] for line in (tmp_path / "p.obj").read_text().splitlines()} == {"#", "v", "vn", "f"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.obj", "p.obj"]


def test_obj_wants_its_suffix(tmp_path, textured):
    with pytest.raises(ConfigError, match=r"must end in .obj.*ring.txt.*Add the suffix"):
        write_obj(tmp_path / "ring.txt", textured)


@pytest.mark.parametrize("up", ["y", "z"])
def test_ply_reload(tmp_path, colored, up):
    loaded = trimesh.load(write_ply(tmp_path / "c.ply", colored, up=up), process=False)
    vertices = world(loaded.vertices) if up == "y" else loaded.vertices
    np.testing.assert_array_equal(np.asarray(vertices, np.float32), colored.vertices)
    np.testing.assert_array_equal(loaded.faces, colored.faces)
    np.testing.assert_allclose(loaded.visual.vertex_colors[:, :3] / 255.0, colored.colors, atol=0.51 / 255)


def test_ply_without_colours_and_with_a_bad_axis(tmp_path, torus_mesh):
    assert b"uchar red" not in write_ply(tmp_path / "p.ply", torus_mesh).read_bytes()[:500]
    with pytest.raises(ConfigError, match=r"must be y or z.*'x'.*Use 'y'"):
        write_ply(tmp_path / "q.ply", torus_mesh, up="x")


def test_normals_in_files_have_unit_length(tetrahedron):
    normals = np.float32([[0, 0, 2], [0, 0, 0], [1, 1, 0], [0, 3, 4]])
    out = unit_normals(Mesh(tetrahedron.vertices, tetrahedron.faces, normals))
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(out[3], [0, 0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("write", [write_glb, write_obj, write_ply])
def test_nothing_is_written_for_a_mesh_without_faces(tmp_path, write):
    with pytest.raises(EmptySceneError, match=r"without faces.*3 vertices.*Lower"):
        write(tmp_path / f"x.{write.__name__[6:]}", Mesh(np.eye(3), np.zeros((0, 3), int)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [write_glb, write_obj, write_ply])
@pytest.mark.parametrize("where", ["write", "replace"])
def test_failed_write_leaves_the_old_files(tmp_path, monkeypatch, textured, colored, write, where):
    path, mesh = tmp_path / f"x.{write.__name__[6:]}", colored if write is write_ply else textured
    write(path, mesh)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def broken(*args, **kwargs):
        raise OSError("disk full")

    if where == "replace":
        monkeypatch.setattr(os, "replace", broken)
    else:
        half = Path.write_bytes
        monkeypatch.setattr(Path, "write_bytes", lambda self, data: (half(self, data[: len(data) // 2]), broken()))
    with pytest.raises(OSError, match="disk full"):
        write(path, mesh)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_obj_is_put_in_place_last(tmp_path, monkeypatch, textured):
    order, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(Path(b).suffix), replace(a, b)))
    write_obj(tmp_path / "x.obj", textured)
    assert order == [".png", ".mtl", ".obj"]
