"""Random damage to valid files: the outcome is an Asset or an AssetError, nothing else."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asset_files import MTL, OBJ, VALID, Gltf, archive, glb, png, save, textured_gltf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from threestudio_redream.assets import DEFAULT_LIMITS, Asset, load_asset
from threestudio_redream.errors import AssetError

EXAMPLES = settings(max_examples=120, deadline=None, derandomize=True)


def outcome(path: Path) -> Asset | AssetError:
    """Load and check what every caller relies on."""
    try:
        asset = load_asset(path)
    except AssetError as error:
        refusal = error
    else:
        _check(asset)
        return asset
    assert refusal.problem
    assert refusal.received is not ...
    assert refusal.fix
    assert "no check names" not in refusal.problem, refusal
    return refusal


def _check(asset: Asset) -> None:
    n_vertices, n_faces = len(asset.vertices), len(asset.faces)
    assert 0 < n_faces <= DEFAULT_LIMITS.max_faces
    assert 0 < n_vertices <= DEFAULT_LIMITS.max_vertices
    assert np.isfinite(asset.vertices).all()
    assert np.ptp(asset.vertices, axis=0).max() > 0.0
    assert asset.faces.min() >= 0
    assert asset.faces.max() < n_vertices
    np.testing.assert_allclose(np.linalg.norm(asset.normals, axis=1), 1.0, atol=1e-4)
    for array in (asset.uvs, asset.colors):
        assert array is None or (len(array) == n_vertices and np.isfinite(array).all())
    assert asset.face_materials.shape == (n_faces,)
    assert asset.face_materials.min() >= 0
    assert asset.face_materials.max() < len(asset.materials)
    for material in asset.materials:
        assert material.texture is None or material.texture.shape[2] == 4
        assert all(0.0 <= value <= 1.0 for value in material.base_color)


edits = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),  # where
        st.sampled_from(["set", "cut", "insert", "repeat"]),
        st.binary(min_size=1, max_size=6)
        | st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"nan ", b"1e999 ", b"-1 ", b"\n"]),
    ),
    min_size=1,
    max_size=6,
)


def damaged(data: bytes, changes: list[tuple[float, str, bytes]]) -> bytes:
    for share, kind, value in changes:
        at = int(share * len(data))
        if kind == "set":
            data = data[:at] + value + data[at + len(value) :]
        elif kind == "cut":
            data = data[:at] + (b"" if value[0] < 128 else data[at + len(value) :])
        elif kind == "insert":
            data = data[:at] + value + data[at:]
        else:
            data = data[:at] + data[at : at + 40] * 3 + data[at + 40 :]
    return data


@pytest.mark.parametrize("name", VALID)
def test_damaged_bytes(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder), "scene.mtl", MTL)
        save(Path(folder), "red.png", png())
        path = Path(folder) / f"a.{name}"

        @EXAMPLES
        @given(changes=edits)
        def check(changes: list[tuple[float, str, bytes]]) -> None:
            path.write_bytes(damaged(VALID[name], changes))
            outcome(path)

        check()


def _rich() -> Gltf:
    """A document that uses every branch: skin, sparse, transforms, samplers, colours."""
    document = textured_gltf()
    entry = document.root["meshes"][0]["primitives"][0]
    entry["attributes"]["COLOR_0"] = document.accessor([[255, 0, 0, 128]] * 4, 5121, normalized=True)
    entry["attributes"]["JOINTS_0"] = document.accessor([[0, 1, 0, 0]] * 4, 5123)
    entry["attributes"]["WEIGHTS_0"] = document.accessor([[0.5, 0.5, 0, 0]] * 4)
    bind = document.accessor(np.tile(np.eye(4).ravel(), (2, 1)))
    document.root |= {
        "skins": [{"joints": [1, 2], "inverseBindMatrices": bind}],
        "nodes": [
            {"mesh": 0, "skin": 0},
            {"children": [2, 3], "scale": [1, 2, 3]},
            {"rotation": [0, 0, 1, 0]},
            {"mesh": 0},
        ],
        "scenes": [{"nodes": [0, 1]}],
        "samplers": [{"wrapS": 33071, "wrapT": 33071}],
        "extensionsRequired": ["KHR_texture_transform"],
    }
    document.root["textures"][0]["sampler"] = 0
    reference = document.root["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]
    reference["extensions"] = {"KHR_texture_transform": {"offset": [0, 1], "rotation": 1.0, "scale": [1, 1]}}
    view = document.view(np.array([1], "u1").tobytes())
    values = document.view(np.zeros(3, "<f4").tobytes())
    document.root["accessors"][0]["sparse"] = {
        "count": 1, "indices": {"bufferView": view, "componentType": 5121}, "values": {"bufferView": values},
    }  # fmt: skip
    return document


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Every path in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(*path, key) for key, _ in items] + [p for key, item in items for p in places(item, (*path, key))]


RICH = _rich()
PLACES = places(RICH.root)
nasty = st.sampled_from(
    [None, True, -1, 0, 1, 2, 3, 7, 1.5, 1e308, -1e308, 10**30, 2**31, 2**53, "", "x", "../a", "data:,", [], {}, [[]],
     [0] * 16, [1e308] * 3, {"uri": "http://a"}, "VEC4", "SCALAR", "MAT4", 5120, 5121, 5126]
) | st.integers(-5, 100)  # fmt: skip


@settings(max_examples=500, deadline=None, derandomize=True)
@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), nasty, st.booleans()), min_size=1, max_size=3))
@example(changes=[(("accessors", 0, "count"), 2**31, False)])
def test_damaged_gltf_values(changes: list[tuple[tuple, Any, bool]]) -> None:
    root = json.loads(json.dumps(RICH.root))
    for path, value, delete in changes:
        holder = root
        try:
            for key in path[:-1]:
                holder = holder[key]
            if delete:
                del holder[path[-1]]
            else:
                holder[path[-1]] = value
        except (TypeError, KeyError, IndexError):
            continue  # an earlier change removed the place
    with tempfile.TemporaryDirectory() as folder:
        outcome(save(Path(folder), "a.glb", glb(root, RICH.binary)))


def test_the_fuzzed_document_is_valid_before_it_is_damaged(tmp_path: Path) -> None:
    asset = outcome(save(tmp_path, "a.glb", RICH.glb()))
    assert isinstance(asset, Asset)
    assert len(asset.faces) == 8
    assert asset.info["warnings"] == []


@EXAMPLES
@given(changes=edits)
def test_damaged_material_libraries(changes: list[tuple[float, str, bytes]]) -> None:
    members = {"a.obj": OBJ, "scene.mtl": damaged(MTL * 2, changes), "red.png": png()}
    with tempfile.TemporaryDirectory() as folder:
        outcome(save(Path(folder), "a.zip", archive(members)))


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "BMP", "DDS", "TGA"])
def test_damaged_images(format_: str) -> None:
    from io import BytesIO

    from PIL import Image

    stream = BytesIO()
    Image.effect_noise((32, 32), 50).convert("RGB").save(stream, format_)

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(changes=edits)
    def check(changes: list[tuple[float, str, bytes]]) -> None:
        image = damaged(stream.getvalue(), changes)
        members = {"a.obj": OBJ, "scene.mtl": MTL.replace(b"red.png", b"red.tga"), "red.tga": image}
        with tempfile.TemporaryDirectory() as folder:
            assert isinstance(outcome(save(Path(folder), "a.zip", archive(members))), (Asset, AssetError))

    check()


@settings(max_examples=8, deadline=None, derandomize=True)
@given(changes=edits)
def test_damaged_draco_streams(changes: list[tuple[float, str, bytes]]) -> None:
    """Few examples, because each starts the decoder's child process."""
    DracoPy = pytest.importorskip("DracoPy")
    document = Gltf()
    entry = document.primitive()
    data = damaged(DracoPy.encode(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]], np.uint32)), changes)
    extension = {"bufferView": document.view(data), "attributes": {"POSITION": 0}}
    entry["extensions"] = {"KHR_draco_mesh_compression": extension}
    with tempfile.TemporaryDirectory() as folder:
        outcome(save(Path(folder), "a.glb", document.glb()))
