"""OBJ and MTL."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from asset_files import MTL, OBJ, TETRA, load, png, refused, save

from threestudio_redream.assets import DEFAULT_LIMITS, load_asset, sample_asset
from threestudio_redream.assets.formats.mtl import GREY
from threestudio_redream.errors import AssetLimitError

QUAD = b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"


def _scene(folder: Path, mtl: bytes = MTL, obj: bytes = OBJ) -> Path:
    save(folder, "scene.mtl", mtl)
    save(folder, "red.png", png(((9, 8, 7),)))
    return save(folder, "scene.obj", obj)


def test_materials_textures_and_seams(tmp_path: Path) -> None:
    asset = load_asset(_scene(tmp_path))
    assert asset.info["warnings"] == []
    corners = {tuple(row) for row in np.concatenate([asset.vertices, asset.uvs], axis=1)[asset.faces].reshape(-1, 5)}
    assert len(corners) == len(asset.vertices) == 6  # two have two texture coordinates each
    red, blue = asset.materials
    assert red.base_color == (1.0, 1.0, 1.0, 1.0)  # the texture replaces Kd
    assert red.texture is not None
    assert red.texture[0, 0].tolist() == [9, 8, 7, 255]
    assert blue.base_color == (0.0, 0.0, 0.5, 0.25)
    assert blue.alpha_mode == "BLEND"
    assert asset.face_materials.tolist() == [0, 0, 1, 1]


def test_v_counts_from_the_bottom_of_the_image(tmp_path: Path) -> None:
    """``vt 0 1`` is the top left corner: (0, 0) here, texel row 0."""
    data = QUAD + b"vt 0 1\nvt 0 0\nvt 1 0\nf 1/1 2/2 3/3\n"
    asset = load(tmp_path, "a.obj", data)
    assert asset.uvs is not None
    uv = {tuple(vertex): tuple(coordinate) for vertex, coordinate in zip(asset.vertices.tolist(), asset.uvs.tolist())}
    assert uv == {(0.0, 0.0, 0.0): (0.0, 0.0), (1.0, 0.0, 0.0): (0.0, 1.0), (1.0, 1.0, 0.0): (1.0, 1.0)}


@pytest.mark.parametrize(
    "faces",
    [
        b"f 1 2 3 4\n",
        b"f 1/ 2/ 3/ 4/\n",
        b"f -4 -3 -2 -1 # relative\n",
        b"\tf 1 2 \\\n 3 4\n",
        b"f 1 2 3\r\nf 1 3 4\r\n",
        b"  f\t1  2 3\rf 1 3 4",
    ],
)
def test_ways_to_write_the_same_faces(tmp_path: Path, faces: bytes) -> None:
    asset = load(tmp_path, "a.obj", QUAD + faces)
    np.testing.assert_array_equal(
        asset.vertices[asset.faces],
        [[[0, 0, 0], [1, 0, 0], [1, 1, 0]], [[0, 0, 0], [1, 1, 0], [0, 1, 0]]],
    )
    np.testing.assert_array_equal(asset.normals, [[0, 0, 1]] * 4)
    assert asset.materials[0].base_color == GREY


def test_mixed_corners_and_file_normals(tmp_path: Path) -> None:
    data = QUAD + b"vt 0.5 0.25\nvn 0 3 4\nf 1//1 2//1 3//1\nf 1/1 3/1/1 4\n"
    asset = load(tmp_path, "a.obj", data)
    assert asset.uvs is not None
    by_corner = asset.uvs[asset.faces]
    np.testing.assert_allclose(by_corner[0], 0.0)
    np.testing.assert_allclose(by_corner[1], [[0.5, 0.75], [0.5, 0.75], [0, 0]])
    normals = asset.normals[asset.faces]
    np.testing.assert_allclose(normals[0], [[0, 0.6, 0.8]] * 3, atol=1e-6)
    np.testing.assert_allclose(normals[1], [[0, 0, 1], [0, 0.6, 0.8], [0, 0, 1]], atol=1e-6)  # missing: from the faces


def test_vertex_colors_in_both_scales(tmp_path: Path) -> None:
    for scale, one in ((b"1", 1.0), (b"255", 1.0)):
        data = b"v 0 0 0 %b 0 0\nv 1 0 0 0 %b 0\nv 0 1 0 0 0 %b\nf 1 2 3\n" % (scale, scale, scale)
        asset = load(tmp_path, "a.obj", data)
        np.testing.assert_allclose(asset.colors, np.eye(4)[:3] * one + [0, 0, 0, 1])


def test_vertex_colors_outside_their_range_are_clipped(tmp_path: Path) -> None:
    asset = load(tmp_path, "a.obj", b"v 0 0 0 -1 0 0\nv 1 0 0 nan 1 0\nv 0 1 0 0 0 1\nf 1 2 3\n")
    assert asset.colors is not None
    np.testing.assert_array_equal(asset.colors, [[0, 0, 0, 1], [1, 1, 0, 1], [0, 0, 1, 1]])
    assert "colours" in asset.info["warnings"][0]


def test_what_is_read_line_by_line_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from threestudio_redream.assets.formats import obj

    monkeypatch.setattr(obj, "_MAX_LIBRARY_BYTES", len(MTL))
    _scene(tmp_path)
    assert len(load(tmp_path, "a.obj", OBJ).materials) == 2
    error = refused(tmp_path, "a.obj", b"mtllib scene.mtl\n" + OBJ, "libraries are too large", received=len(MTL))
    assert isinstance(error, AssetLimitError)
    monkeypatch.setattr(obj, "_MAX_SWITCHES", 1)
    refused(tmp_path, "a.obj", OBJ, "switches materials too often", received=2)
    limits = replace(DEFAULT_LIMITS, max_text_bytes=1000)
    refused(tmp_path, "a.obj", QUAD + b"\n" * 400, "too many lines", limits=limits)


def test_numbers_in_every_notation(tmp_path: Path) -> None:
    data = b"v 1e0 -.5 +2.\nv 1.25E-1 00.5 123456789012345678901\nv 0.1234567890123456789 -7 0\nf 1 2 3\n"
    vertices = load(tmp_path, "a.obj", data).vertices
    np.testing.assert_array_equal(
        vertices,
        np.array([[1, -0.5, 2], [0.125, 0.5, 123456789012345678901], [0.1234567890123456789, -7, 0]], np.float32),
    )


def test_large_files_parse_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from threestudio_redream.assets.formats import numbers

    monkeypatch.setattr(numbers, "_CHUNK", 7)
    np.testing.assert_array_equal(load(tmp_path, "a.obj", OBJ).vertices.max(0), [1, 1, 1])


def test_writing_and_loading_with_trimesh(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    from PIL import Image

    sample = sample_asset()
    visual = trimesh.visual.TextureVisuals(uv=sample.uvs * [1, -1] + [0, 1], image=Image.new("RGB", (2, 2), (1, 2, 3)))
    mesh = trimesh.Trimesh(sample.vertices, sample.faces, visual=visual, process=False)
    mesh.export(tmp_path / "robot.obj")
    asset = load_asset(tmp_path / "robot.obj")
    np.testing.assert_allclose(asset.vertices[asset.faces], sample.vertices[sample.faces], atol=1e-6)
    np.testing.assert_allclose(asset.uvs[asset.faces], sample.uvs[sample.faces], atol=1e-6)
    assert asset.materials[0].texture is not None
    assert asset.materials[0].texture[0, 0].tolist() == [1, 2, 3, 255]


def test_smooth_normals_ignore_seams(tmp_path: Path) -> None:
    data = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 -1\nvt 0 0\nvt 1 1\nf 1/1 2/1 3/1\nf 1/2 3/2 4/2\n"
    asset = load(tmp_path, "a.obj", data)
    at_origin = asset.normals[(asset.vertices == 0).all(axis=1)]
    assert len(at_origin) == 2
    np.testing.assert_allclose(at_origin, np.array([[-1, 0, 1]] * 2) / np.sqrt(2), atol=1e-6)


@pytest.mark.parametrize(
    ("mtl", "color", "mode", "textured", "warning"),
    [
        (b"newmtl red\nKd 0.2\n", (0.2, 0.2, 0.2, 1.0), "OPAQUE", False, ""),
        (b"newmtl red\n\tKd 0.2 0.3 0.4 # grey\n\tTr 0.75\n", (0.2, 0.3, 0.4, 0.25), "BLEND", False, ""),
        (b"newmtl red\nd 0\nKd 5 nan 1\n", GREY, "OPAQUE", False, ""),
        (b"newmtl red\nmap_Kd -clamp on -s 2 2 1 red.png\n", (1, 1, 1, 1), "OPAQUE", True, "-s"),
        (b"newmtl red\nmap_Kd -s 2 red.png\nmap_d red.png\n", (1, 1, 1, 1), "MASK", True, "-s"),
        (b"newmtl red\nmap_Kd -unknown red.png\n", GREY, "OPAQUE", False, "was not found"),
        (b"newmtl red\nKd 0 0 0\nmap_Kd gone.png\n", GREY, "OPAQUE", False, "gone.png"),
        (b"newmtl red\nKd 0 0 1\nmap_Kd gone.png\n", (0, 0, 1, 1), "OPAQUE", False, "gone.png"),
        (b"Kd 1 0 0\nnewmtl other\nmap_Kd\nnewmtl third\n", GREY, "OPAQUE", False, "not defined"),
        (b"newmtl other\nKd 0 1 0\n", (0, 1, 0, 1), "OPAQUE", False, "the only one"),
    ],
)
def test_material_libraries(
    tmp_path: Path, mtl: bytes, color: tuple[float, ...], mode: str, textured: bool, warning: str
) -> None:
    obj = OBJ.replace(b"usemtl blue\n", b"")
    asset = load_asset(_scene(tmp_path, mtl, obj))
    (material,) = asset.materials
    assert material.base_color == pytest.approx(color)
    assert material.alpha_mode == mode
    assert (material.texture is not None) is textured
    assert material.wrap == ("clamp" if b"clamp" in mtl else "repeat")
    assert warning in " ".join(asset.info["warnings"])
    assert bool(warning) == bool(asset.info["warnings"])


def test_a_missing_library_leaves_grey_and_a_warning(tmp_path: Path) -> None:
    asset = load(tmp_path, "a.obj", OBJ)
    assert [material.base_color for material in asset.materials] == [GREY, GREY]
    assert "material library was not found" in asset.info["warnings"][0]


def test_a_library_whose_material_is_never_used_leaves_grey(tmp_path: Path) -> None:
    save(tmp_path, "one.mtl", b"newmtl metal\nKd 1 0 0\n")
    asset = load(tmp_path, "a.obj", b"mtllib one.mtl\n" + QUAD + b"f 1 2 3 4\n")
    assert [material.base_color for material in asset.materials] == [GREY]
    assert not asset.info["warnings"]


@pytest.mark.parametrize(
    ("data", "problem", "received"),
    [
        (QUAD + b"f 1 2 9\n", "'v' line", 9),
        (QUAD + b"f 1 2 0\n", "'v' line", 0),
        (QUAD + b"f -1 -2 -5\n", "'v' line", -1),
        (b"f -1 -2 -3\n" + QUAD, "'v' line", -1),
        (QUAD + b"vt 0 0\nf 1/1 2/1 3/2\n", "'vt' line", 2),
        (QUAD + b"vn 0 0 1\nf 1//1 2//1 3//7\n", "'vn' line", 7),
        (QUAD + b"f 1 2 x\n", "not a number", None),
        (QUAD + b"f 1.5 2 3\n", "not a number", None),
        (QUAD + b"f 1/1/1/1 2 3\n", "corner", None),
        (QUAD + b"f 1 2 99999999999999999999\n", "'v' line", 2**63 - 1),
        (QUAD + b"v 1 2\nf 1 2 3\n", "3 numbers", 2),
        (QUAD + b"v 1 2 z\nf 1 2 3\n", "not a number", None),
        (QUAD + b"vt a b\nf 1 2 3\n", "not a number", None),
        (b"v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "not finite", None),
        (b"v inf 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "not finite", None),
        (b"v 1e39 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "too large", 1e39),
        (b"v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n", "coincide", [1.0, 1.0, 1.0]),
        (b"v 1 1 1\nv 2 2 2\nv 3 3 3\nf 1 2 3\n", "degenerate", 1),
        (QUAD, "no faces", None),
        (QUAD + b"f 1 2\n", "no faces", None),
        (QUAD + b"f\nf \nf 1\n", "no faces", None),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, data: bytes, problem: str, received: object) -> None:
    refused(tmp_path, "a.obj", data, problem, received=received)


def test_polygons_below_three_corners_are_skipped_with_a_warning(tmp_path: Path) -> None:
    asset = load(tmp_path, "a.obj", QUAD + b"f 1 2\nf 1 2 3\n")
    assert len(asset.faces) == 1
    assert "fewer than three" in asset.info["warnings"][0]


def test_vertices_that_no_face_uses_do_not_count(tmp_path: Path) -> None:
    asset = load(tmp_path, "a.obj", b"v 999 nan 0\n" + QUAD + b"f 2 3 4\n")
    assert len(asset.vertices) == 3
    assert asset.vertices.max() == 1.0


def test_map_coordinates_are_moved_to_the_origin_before_rounding(tmp_path: Path) -> None:
    data = b"v 500000.01 4000000.01 0\nv 500000.02 4000000.01 0\nv 500000.01 4000000.02 0\nf 1 2 3\n"
    asset = load(tmp_path, "a.obj", data)
    np.testing.assert_allclose(np.ptp(asset.vertices, axis=0), [0.01, 0.01, 0.0], atol=1e-8)
    assert "far from its origin" in asset.info["warnings"][0]


def test_bad_texture_coordinates_are_clipped(tmp_path: Path) -> None:
    asset = load(tmp_path, "a.obj", QUAD + b"vt nan 1\nvt 1e30 0\nf 1/1 2/2 3/1\n")
    assert asset.uvs is not None
    assert np.isfinite(asset.uvs).all()
    assert np.abs(asset.uvs).max() == 4096.0
    assert "clipped" in asset.info["warnings"][0]


def test_normals_that_are_not_finite_are_computed(tmp_path: Path) -> None:
    asset = load(tmp_path, "a.obj", QUAD + b"vn nan 0 1\nvn 0 0 0\nf 1//1 2//2 3//1\n")
    np.testing.assert_array_equal(asset.normals, [[0, 0, 1]] * 3)
    assert "normals" in asset.info["warnings"][0]


def test_normals_where_faces_cancel_point_up(tmp_path: Path) -> None:
    asset = load(tmp_path, "a.obj", b"v 0 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 1 3 2\n")
    np.testing.assert_array_equal(asset.normals, [[0, 0, 1]] * 3)


def test_forged_hash_collisions_only_cost_smoothness(monkeypatch: pytest.MonkeyPatch) -> None:
    from threestudio_redream.assets import surface

    first, group = surface.position_ids(np.repeat(TETRA, 2, axis=0))
    assert len(first) == 4
    assert len(set(group.tolist())) == 4
    unique = np.unique
    monkeypatch.setattr(surface.np, "unique", lambda key, **keywords: unique(key * np.uint64(0), **keywords))
    first, group = surface.position_ids(TETRA)
    assert first.tolist() == group.tolist() == [0, 1, 2, 3]


def test_many_material_combinations_stay_in_64_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from threestudio_redream.assets.formats import obj

    data = QUAD + b"vt 0 0\nvt 1 0\nvn 0 0 1\nvn 0 1 0\nf 1/1/1 2/2/2 3/1/2\nf 1/2/1 2/1/2 3/2/1\n"
    expected = load(tmp_path, "a.obj", data)
    monkeypatch.setattr(obj, "_MAX_KEY", 3)
    asset = load(tmp_path, "a.obj", data)
    for name in ("vertices", "uvs", "normals"):
        np.testing.assert_array_equal(getattr(asset, name)[asset.faces], getattr(expected, name)[expected.faces])
