"""PLY, STL and OFF."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from asset_files import OFF, TETRA, TETRA_FACES, ascii_stl, load, ply, png, refused, save, stl

from threestudio_redream.assets import load_asset, sample_asset
from threestudio_redream.assets.formats.mtl import GREY


def _same_surface(asset: object) -> None:
    np.testing.assert_allclose(asset.vertices[asset.faces], TETRA[TETRA_FACES])  # type: ignore[attr-defined]


@pytest.mark.parametrize("order", ["ascii", "<", ">"])
def test_ply(tmp_path: Path, order: str) -> None:
    asset = load(tmp_path, "a.ply", ply(order))
    _same_surface(asset)
    np.testing.assert_allclose(asset.colors, [[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]])
    assert asset.materials[0].base_color == (1.0, 1.0, 1.0, 1.0)
    assert asset.info["format"] == "ply"


def _ply(vertex: str, face: str, rows: str, form: str = "ascii", counts: tuple[int, int] = (4, 1)) -> bytes:
    def properties(text: str) -> str:
        return "".join(f"property {item}\n" for item in text.split(", ") if item)

    return (
        f"ply\nformat {form} 1.0\nelement vertex {counts[0]}\n{properties(vertex)}"
        f"element face {counts[1]}\n{properties(face)}end_header\n{rows}"
    ).encode()


XYZ = "float x, float y, float z"
LIST = "list uchar int vertex_indices"
SQUARE = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n"


def test_ply_polygons_of_different_sizes(tmp_path: Path) -> None:
    rows = SQUARE + "4 0 1 2 3\n3 0 1 2\n2 0 1\n"
    asset = load(tmp_path, "a.ply", _ply(XYZ, LIST, rows, counts=(4, 3)))
    assert asset.faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2]]
    body = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], "<f4").tobytes()
    body += struct.pack("<B4iB3i", 4, 0, 1, 2, 3, 3, 0, 1, 2)
    header = _ply(XYZ, LIST, "", "binary_little_endian", (4, 2))
    assert load(tmp_path, "a.ply", header + body).faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2]]


def test_ply_wide_list_counts_and_extra_properties(tmp_path: Path) -> None:
    header = _ply(
        "uchar a, double x, double y, double z",
        "short f, list ushort uint vertex_index, int g",
        "",
        "binary_big_endian",
    )
    body = b"".join(struct.pack(">B3d", 7, *vertex) for vertex in TETRA) + struct.pack(">hH3Ii", 1, 3, 0, 1, 2, 5)
    assert load(tmp_path, "a.ply", header + body).faces.tolist() == [[0, 1, 2]]


def test_ply_reads_other_elements_past_and_ignores_the_tail(tmp_path: Path) -> None:
    data = _ply(XYZ, LIST, "7 8\n9 9\n" + SQUARE + "3 0 1 2\n1 1 1\n")
    data = data.replace(b"element vertex", b"element camera 2\nproperty float a\nproperty int b\nelement vertex")
    data = data.replace(b"end_header", b"element edge 3\nproperty int a\nend_header")
    assert load(tmp_path, "a.ply", data).faces.tolist() == [[0, 1, 2]]


def test_ply_normals_uvs_and_texture(tmp_path: Path) -> None:
    save(tmp_path, "skin a.png", png(((1, 2, 3),)))
    rows = "0 0 0 0 0 2 0 0\n1 0 0 0 0 2 1 0\n1 1 0 0 0 2 1 1\n0 1 0 0 0 2 0 1\n3 0 1 2\n"
    data = _ply(XYZ + ", float nx, float ny, float nz, float s, float t", LIST, rows)
    data = data.replace(b"element vertex", b"comment TextureFile skin a.png\ncomment TextureFile b.png\nelement vertex")
    asset = load(tmp_path, "a.ply", data)
    np.testing.assert_array_equal(asset.normals, [[0, 0, 1]] * 3)
    assert asset.uvs is not None
    np.testing.assert_array_equal(asset.uvs, [[0, 1], [1, 1], [1, 0]])
    assert asset.materials[0].texture is not None
    assert "2 textures" in asset.info["warnings"][0]


def test_ply_texture_coordinates_per_corner_split_vertices(tmp_path: Path) -> None:
    rows = SQUARE + "3 0 1 2 6 0 0 1 0 1 1\n3 0 2 3 6 0.5 0 1 1 0 1\n"
    vertex = XYZ + ", uchar red, uchar green, uchar blue, float nx, float ny, float nz"
    rows = rows.replace("0\n", "0 9 9 9 0 0 1\n", 4)
    data = _ply(vertex, LIST + ", list uchar float texcoord", rows, counts=(4, 2))
    asset = load(tmp_path, "a.ply", data)
    assert len(asset.vertices) == 5
    assert asset.uvs is not None
    assert asset.colors is not None
    np.testing.assert_allclose(asset.uvs[asset.faces], [[[0, 1], [1, 1], [1, 0]], [[0.5, 1], [1, 0], [0, 0]]])
    np.testing.assert_allclose(asset.colors, [[9 / 255] * 3 + [1]] * 5, atol=1e-6)
    bad = data.replace(b"3 0 2 3 6", b"3 0 2 9 6")
    refused(tmp_path, "a.ply", bad, "outside the 4", received=9)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("uchar", "51", 0.2),
        ("ushort", "13107", 0.2),
        ("float", "0.2", 0.2),
        ("float", "51", 0.2),
        ("uchar", "1", 1 / 255),
    ],
)
def test_ply_color_types(tmp_path: Path, kind: str, value: str, expected: float) -> None:
    names = f"{kind} diffuse_red, {kind} diffuse_green, {kind} diffuse_blue, {kind} alpha"
    rows = SQUARE.replace("\n", f" {value} {value} {value} {value}\n") + "3 0 1 2\n"
    asset = load(tmp_path, "a.ply", _ply(f"{XYZ}, {names}", LIST, rows))
    np.testing.assert_allclose(asset.colors, np.full((3, 4), expected), atol=1e-5)


HEAD = "ply\nformat ascii 1.0\n"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"ply\nformat ascii 1.0\nelement vertex 3\n", "no end"),
        (HEAD.encode() + b"x" * 70000 + b"end_header\n", "no end"),
        (_ply(XYZ, LIST, SQUARE, form="binary_middle_endian"), "makes no sense"),
        (_ply(XYZ + ", float x", LIST, SQUARE), "makes no sense"),
        (_ply(XYZ + ", quad w", LIST, SQUARE), "makes no sense"),
        (_ply(XYZ, "list float int vertex_indices", SQUARE), "makes no sense"),
        (_ply(XYZ, LIST, SQUARE).replace(b"element face 1", b"element face -1"), "makes no sense"),
        (_ply(XYZ, LIST, SQUARE).replace(b"element face 1", b"element face 9999999999999999999"), "makes no sense"),
        (
            _ply(XYZ, LIST, SQUARE).replace(b"element vertex 4\n", b"property int a\nelement vertex 4\n"),
            "makes no sense",
        ),
        (_ply(XYZ, LIST, SQUARE).replace(b"element face 1", b"element"), "makes no sense"),
        (_ply("float x, float y", LIST, SQUARE), "x, y, z"),
        (_ply("list uchar float x, float y, float z", LIST, "1 0 0 0\n" * 4 + "3 0 1 2"), "x, y, z"),
        (_ply(XYZ, "int material", SQUARE + "1\n"), "point cloud"),
        (_ply(XYZ, LIST, "0 0 0\n1 0 0\n"), "ends before its 4 rows of 'vertex'"),
        (_ply(XYZ, LIST, SQUARE), "ends before its 1 rows of 'face'"),
        (_ply(XYZ, LIST, SQUARE + "3 0 1\n"), "ends before its 1 rows of 'face'"),
        (_ply(XYZ, LIST + ", int a", SQUARE + "3 0 1 2\n"), "ends before its 1 rows of 'face'"),
        (_ply(XYZ, LIST, SQUARE + "-3 0 1 2\n"), "negative length"),
        (_ply(XYZ, LIST, SQUARE + "nan 0 1 2\n"), "negative length"),
        (_ply(XYZ, LIST, SQUARE + "3 0 1 four\n"), "not a number"),
        (_ply(XYZ, LIST, SQUARE + "3 0 1 nan\n"), "outside the 4"),
        (_ply(XYZ, LIST, SQUARE + "3 0 1 -1\n"), "outside the 4"),
        (_ply(XYZ, LIST, SQUARE, counts=(4, 0)), "no faces"),
        (_ply(XYZ, "list char int vertex_indices", "", "binary_little_endian", (0, 1)) + b"\xff", "negative length"),
        (ply("<")[:-1], "ends before its 4 rows of 'face'"),
        (ply("<").replace(b"element vertex 4", b"element vertex 40"), "ends before its 40 rows of 'vertex'"),
    ],
)
def test_damaged_ply(tmp_path: Path, data: bytes, problem: str) -> None:
    refused(tmp_path, "a.ply", data, problem)


def test_stl(tmp_path: Path) -> None:
    for name, data in (("a.stl", stl()), ("b.stl", ascii_stl()), ("c.stl", ascii_stl().upper())):
        asset = load(tmp_path, name, data)
        _same_surface(asset)
        assert len(asset.vertices) == 4  # merged
        assert asset.materials[0].base_color == GREY
        assert asset.info["format"] == "stl"


def test_stl_whose_header_says_solid_is_still_binary(tmp_path: Path) -> None:
    _same_surface(load(tmp_path, "a.stl", b"solid x".ljust(80, b" ") + stl()[80:]))


def test_stl_with_a_tail(tmp_path: Path) -> None:
    _same_surface(load(tmp_path, "a.stl", stl() + b"junk"))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (stl()[:-1], "truncated"),
        (b"made by a tool\0" * 4, "truncated"),
        (ascii_stl().replace(b"endsolid", b""), "truncated"),
        (ascii_stl().replace(b"vertex 0.0 0.0 0.0", b"vertex", 1), "truncated"),
        (ascii_stl().replace(b"vertex 0.0 0.0 0.0", b"vertex 0.0 0.0", 1), "3 numbers"),
        (ascii_stl().replace(b"0.0", b"O.0"), "not a number"),
        (b"made by a tool".ljust(84, b"\0"), "no faces"),
    ],
)
def test_damaged_stl(tmp_path: Path, data: bytes, problem: str) -> None:
    refused(tmp_path, "a.stl", data, problem)


def test_off(tmp_path: Path) -> None:
    _same_surface(load(tmp_path, "a.off", OFF))
    counts_in_the_first_line = b"# comment\n\n" + OFF.replace(b"OFF\n", b"OFF # here\n").replace(
        b"OFF # here\n4", b"OFF 4"
    )
    _same_surface(load(tmp_path, "a.off", counts_in_the_first_line))
    _same_surface(load(tmp_path, "a.off", OFF.removeprefix(b"OFF\n")))
    with_face_colors = OFF.replace(b"3 0 2 1\n", b"3 0 2 1 255 0 0 # red\n")
    _same_surface(load(tmp_path, "a.off", with_face_colors))


def test_off_polygons(tmp_path: Path) -> None:
    data = b"OFF\n4 2 0\n" + SQUARE.encode() + b"4 0 1 2 3 0.5 0.5 0.5\n3 0 1 2\n"
    assert load(tmp_path, "a.off", data).faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2]]


@pytest.mark.parametrize(
    ("header", "rest", "color"),
    [
        ("COFF", "255 0 0 255", (1, 0, 0, 1)),
        ("COFF", "0.5 0 0", (0.5, 0, 0, 1)),
        ("NOFF", "0 3 4", None),
        ("STOFF", "0.25 0.25", None),
    ],
)
def test_off_attributes(tmp_path: Path, header: str, rest: str, color: tuple[float, ...] | None) -> None:
    data = (
        f"{header}\n4 1 0\n{SQUARE}3 0 1 2\n".replace(" 0\n", f" 0 {rest}\n").replace(f"4 1 0 {rest}", "4 1 0").encode()
    )
    asset = load(tmp_path, "a.off", data)
    if color is not None:
        np.testing.assert_allclose(asset.colors, [color] * 3)
    elif header == "NOFF":
        np.testing.assert_allclose(asset.normals, [[0, 0.6, 0.8]] * 3, atol=1e-6)
    else:
        np.testing.assert_allclose(asset.uvs, [[0.25, 0.75]] * 3)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (OFF[:-20], "truncated"),
        (b"OFF BINARY\n4 4 6\n", "binary OFF"),
        (b"OFF\n4\n", "does not say"),
        (b"OFF\n", "does not say"),
        (b"OFF\n-4 4 0\n", "does not say"),
        (b"OFF\nfour 4 0\n", "not a number"),
        (OFF.replace(b"1 0 0", b"1 0"), "3 numbers"),
        (OFF.replace(b"3 0 2 1", b"4 0 2 1"), "fewer corners"),
        (OFF.replace(b"3 0 2 1", b"-1 0 2 1"), "fewer corners"),
        (OFF.replace(b"3 0 2 1", b"3 0 2 nan"), "outside the 4"),
        (OFF.replace(b"3 0 2 1", b"3 0 2 4"), "outside the 4"),
        (b"OFF\n4 0 0\n" + SQUARE.encode(), "no faces"),
        (b"OFF\n0 0 0\n", "no faces"),
    ],
)
def test_damaged_off(tmp_path: Path, data: bytes, problem: str) -> None:
    refused(tmp_path, "a.off", data, problem)


@pytest.mark.parametrize("suffix", ["ply", "stl", "off"])
def test_agreement_with_what_trimesh_writes(tmp_path: Path, suffix: str) -> None:
    trimesh = pytest.importorskip("trimesh")
    sample = sample_asset()
    mesh = trimesh.Trimesh(sample.vertices, sample.faces, process=False)
    mesh.export(tmp_path / f"a.{suffix}")
    asset = load_asset(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(asset.vertices[asset.faces], sample.vertices[sample.faces], atol=1e-6)
