"""What may be read: paths, sniffing, side files, archives, and the caps."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zipfile
from dataclasses import fields, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from asset_files import MTL, OBJ, VALID, archive, load, png, refused, save, textured_gltf

from threestudio_redream.assets import DEFAULT_LIMITS, load_asset
from threestudio_redream.assets.files import FolderFiles, MissingSideFileError, read_asset_file, safe_parts
from threestudio_redream.errors import AssetError, AssetLimitError


@pytest.mark.parametrize("name", VALID)
def test_the_format_follows_from_the_content(tmp_path: Path, name: str) -> None:
    asset = load(tmp_path, f"a.{name}", VALID[name])
    misnamed = load(tmp_path, "file_without_suffix", VALID[name])
    assert asset.info["format"] == misnamed.info["format"]
    assert len(asset.faces) == len(misnamed.faces) == 4


def test_importing_the_package_stays_cheap() -> None:
    code = (
        "import sys, threestudio_redream.assets; "
        "print([m for m in ('torch', 'trimesh', 'PIL', 'numba', 'scipy', 'DracoPy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "empty"),
        (b" \n\0", "empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "HTML page"),
        (b"\n <HTML>", "HTML page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"Kaydara FBX Binary  \0", "FBX"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\x1f\x8b\x08", "gzip"),
        (MTL, "material library"),
        (b"just some words\n", "not a format"),
        (bytes(range(256)) * 20, "not a format"),
    ],
)
def test_what_is_no_mesh_is_named(tmp_path: Path, data: bytes, problem: str) -> None:
    refused(tmp_path, "model.glb", data, problem)


def test_missing_files_folders_and_pipes(tmp_path: Path) -> None:
    for path, problem in ((tmp_path / "gone.glb", "was not found"), (tmp_path, "a folder")):
        with pytest.raises(AssetError) as caught:
            load_asset(path)
        assert problem in caught.value.problem
        assert caught.value.received == str(path)
        assert caught.value.fix
    with pytest.raises(AssetError, match="was not found"):
        load_asset("a\0b")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(AssetError, match="not a regular file"):
            load_asset(tmp_path / "pipe")


def test_unreadable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, "a.obj", OBJ)

    def refuse(*arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(AssetError, match="cannot be read: Permission denied"):
        read_asset_file(path, 1000)


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("http://example.org/a.png", "remote"),
        ("HTTPS://example.org/a.png", "remote"),
        ("file:///etc/passwd", "remote"),
        ("//server/share/a.png", "remote"),
        ("\\\\server\\share", "remote"),
        ("/etc/passwd", "outside"),
        ("C:\\a.png", "outside"),
        ("../a.png", "outside"),
        ("a/../../b.png", "outside"),
        ("a\\..\\..\\b.png", "outside"),
        ("a\nb", "outside"),
        ("a\0b", "outside"),
        ("", "no usable name"),
        ("./.", "no usable name"),
        ("a" * 2000, "no usable name"),
    ],
)
def test_references_that_lead_away(reference: str, problem: str) -> None:
    with pytest.raises(AssetError) as caught:
        safe_parts(reference, "a texture")
    assert problem in caught.value.problem
    assert caught.value.received == reference
    assert caught.value.fix


def test_references_that_stay() -> None:
    assert safe_parts("textures\\red.png", "x") == ("textures", "red.png")
    assert safe_parts("./a b/..png", "x") == ("a b", "..png")


def test_links_may_not_leave_the_folder(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    save(outside, "secret.png", png())
    (inside / "red.png").symlink_to(outside / "secret.png")
    (inside / "dir").symlink_to(outside)
    (inside / "loop").symlink_to(inside / "loop")
    save(inside, "real.png", png())
    (inside / "fine.png").symlink_to(inside / "real.png")
    files = FolderFiles(inside, 10_000)
    for name in ("red.png", "dir/secret.png"):
        with pytest.raises(AssetError, match="a link that leads outside"):
            files.read(name, "a texture")
    with pytest.raises(MissingSideFileError):
        files.read("loop", "a texture")
    assert files.read("fine.png", "a texture") == png()
    with pytest.raises(AssetError, match="a folder"):
        FolderFiles(tmp_path, 1000).read("inside", "a texture")


def test_side_files_share_one_budget(tmp_path: Path) -> None:
    save(tmp_path, "a", b"x" * 60)
    files = FolderFiles(tmp_path, 100)
    files.read("a", "a buffer")
    with pytest.raises(AssetLimitError, match="40 bytes that are left") as caught:
        files.read("a", "a buffer")
    assert caught.value.received == 60


def test_a_file_that_grows_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, "a", b"x" * 10)
    small = os.stat_result((path.stat().st_mode, 0, 0, 1, 0, 0, 5, 0, 0, 0))
    monkeypatch.setattr(Path, "stat", lambda self, **keywords: small)
    with pytest.raises(AssetLimitError):
        read_asset_file(path, 8)


def test_mtl_and_textures_may_not_escape(tmp_path: Path) -> None:
    for obj, mtl, problem in (
        (OBJ.replace(b"scene.mtl", b"../scene.mtl"), MTL, "outside"),
        (OBJ.replace(b"scene.mtl", b"http://a/scene.mtl"), MTL, "remote"),
        (OBJ, MTL.replace(b"red.png", b"/etc/passwd"), "outside"),
        (OBJ, MTL.replace(b"red.png", b"-s 1 1 1 ../../x.png"), "outside"),
    ):
        save(tmp_path, "scene.mtl", mtl)
        refused(tmp_path, "a.obj", obj, problem)


def test_gltf_uris_may_not_escape(tmp_path: Path) -> None:
    for uri, problem in (
        ("%2e%2e/a.bin", "outside"),
        ("..\\a.bin", "outside"),
        ("/a.bin", "outside"),
        ("https://example.org/a.bin", "remote"),
        ("gone.bin", "not found"),
        ("data:application/octet-stream,abc", "not base64"),
        ("data:;base64,????", "damaged base64"),
        ("data:;base64,AAAA", "truncated"),
    ):
        refused(tmp_path, "a.gltf", textured_gltf().gltf(uri), problem)
    document = textured_gltf()
    document.root["images"] = [{"uri": "../red.png"}]
    refused(tmp_path, "a.glb", document.glb(), "outside")


@pytest.mark.parametrize(
    ("name", "cap", "value", "what"),
    [
        ("glb", "max_bytes", 100, "larger than"),
        ("gltf", "max_text_bytes", 100, "bytes of JSON"),
        ("gltf", "max_json_bytes", 100, "outside strings"),
        ("gltf", "max_json_depth", 3, "nested JSON"),
        ("gltf", "max_nodes", 0, "nodes"),
        ("gltf", "max_materials", 0, "materials"),
        ("glb", "max_texture_pixels", 3, "pixels in one texture"),
        ("glb", "max_total_texture_pixels", 3, "texture pixels"),
        ("zip", "max_archive_members", 2, "archive members"),
        ("zip", "max_unpacked_bytes", 200, "unpacked bytes"),
        ("obj", "max_materials", 1, "materials"),
        *((name, "max_text_bytes", 50, "bytes of text") for name in ("obj", "ascii.stl", "off")),
        ("ply", "max_text_bytes", 50, "bytes of text"),
        *((name, "max_faces", 3, "faces") for name in VALID),
        *((name, "max_vertices", 3, "") for name in VALID),
    ],
)
def test_every_cap_is_enforced(tmp_path: Path, name: str, cap: str, value: int, what: str) -> None:
    limits = replace(DEFAULT_LIMITS, **{cap: value})
    error = refused(tmp_path, f"a.{name}", VALID[name], what, limits=limits)
    assert isinstance(error, AssetLimitError)
    assert cap in error.fix or cap in ("max_bytes", "max_archive_members")
    assert isinstance(error.received, int)


def test_every_cap_has_a_test() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [field.name for field in fields(DEFAULT_LIMITS) if f'"{field.name}", ' not in source] == ["texture_side"]


def test_an_archive_finds_its_side_files(tmp_path: Path) -> None:
    asset = load(tmp_path, "a.zip", VALID["zip"])
    assert asset.materials[0].texture is not None
    assert asset.info["warnings"] == []
    assert asset.name == "a"
    without = archive({"a.obj": OBJ, "__MACOSX/b.obj": OBJ, "folder/": b""})
    assert "not in the archive" in load(tmp_path, "a.zip", without).info["warnings"][0]


def _patched(data: bytes, offset_in_end_record: int, value: bytes) -> bytes:
    at = data.rfind(b"PK\x05\x06") + offset_in_end_record
    return data[:at] + value + data[at + len(value) :]


def _flipped_bits() -> bytes:
    data = archive({"a.obj": OBJ})
    return data[:60] + bytes(byte ^ 0xFF for byte in data[60:70]) + data[70:]


def _beyond_the_end() -> bytes:
    """The member claims more compressed bytes than the file has."""
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as file:
        file.writestr("a.obj", OBJ)
    data = bytearray(stream.getvalue())
    at = data.rfind(b"PK\x01\x02")
    data[at + 20 : at + 28] = struct.pack("<II", 9000, 9000)
    return bytes(data)


def _encrypted() -> bytes:
    data = bytearray(archive({"a.obj": OBJ}))
    at = data.rfind(b"PK\x01\x02")
    data[at + 8] |= 1
    data[6] |= 1
    return bytes(data)


def _lying_sizes() -> bytes:
    data = bytearray(archive({"a.obj": b"v 1 2 3\n" * 1000}))
    at = data.rfind(b"PK\x01\x02")
    data[at + 24 : at + 28] = data[22:26] = struct.pack("<I", 16)
    return bytes(data)


def _stored_twice() -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("a.obj", OBJ)
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a.obj", OBJ)
    return stream.getvalue()


def _bzip2() -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("a.obj", OBJ)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (archive({"readme.txt": b""}), "0 meshes"),
        (archive({"a.obj": OBJ, "b.glb": OBJ}), "2 meshes"),
        (archive({"../a.obj": OBJ}), "outside"),
        (archive({"/a.obj": OBJ}), "outside"),
        (archive({"a.obj": archive({"b.obj": OBJ})}), "inside an archive"),
        (archive({"a.obj": OBJ})[:-30], "truncated"),
        (archive({"a.obj": OBJ}).replace(b"a.obj", b"\0.obj"), "no usable name"),
        (archive({"a.obj": OBJ}).replace(b"PK\x01\x02", b"PK\x01\x03"), "damaged"),
        (_patched(archive({"a.obj": OBJ}), 10, b"\xff\xff"), "archive members"),
        (_patched(archive({"a.obj": OBJ}), 12, b"\xff\xff\xff\xff"), "directory"),
        (_flipped_bits(), "cannot be unpacked"),
        (_beyond_the_end(), "cannot be unpacked"),
        (_lying_sizes(), "cannot be unpacked"),
        (_encrypted(), "cannot be unpacked"),
        (_stored_twice(), "stored twice"),
        (_bzip2(), "unusual"),
    ],
)
def test_damaged_and_unsafe_archives(tmp_path: Path, data: bytes, problem: str) -> None:
    refused(tmp_path, "a.zip", data, problem)


def test_archive_budget_covers_what_is_really_unpacked(tmp_path: Path) -> None:
    from threestudio_redream.assets.files import ArchiveFiles

    files = ArchiveFiles(archive({"a.obj": OBJ, "b.png": png()}), replace(DEFAULT_LIMITS, max_unpacked_bytes=1000))
    files.open_mesh()
    files._left = 10
    with pytest.raises(AssetLimitError, match="10 bytes that are left"):
        files.read("b.png", "a texture")


def test_the_last_resort_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from threestudio_redream.assets.formats import obj

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(obj, "_triangles", broken)
    with pytest.raises(AssetError, match=r"a\.obj: .*no check names: ZeroDivisionError") as caught:
        load(tmp_path, "a.obj", OBJ)
    assert caught.value.received == "a bug"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_assets_do_not_depend_on_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    save(folder, "scene.mtl", MTL)
    save(folder, "red.png", png())
    save(folder, "a.obj", OBJ)
    monkeypatch.chdir(tmp_path)
    asset = load_asset("deep/a.obj")
    assert asset.materials[0].texture is not None
    assert np.isfinite(asset.vertices).all()
