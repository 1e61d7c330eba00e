"""Draco-compressed glTF."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asset_files import TETRA, TETRA_FACES, UBYTE, Gltf, load, refused

from threestudio_redream.assets import DEFAULT_LIMITS
from threestudio_redream.assets.formats import draco, draco_worker
from threestudio_redream.errors import AssetError

DracoPy = pytest.importorskip("DracoPy")


def stream(**extra: Any) -> bytes:
    return DracoPy.encode(TETRA, TETRA_FACES.astype(np.uint32), preserve_order=True, quantization_bits=14, **extra)


def compressed(data: bytes, **ids: int) -> Gltf:
    document = Gltf()
    entry = document.primitive(faces=TETRA_FACES)
    for name in ids:
        if name != "POSITION":
            kind = {"NORMAL": "VEC3", "TEXCOORD_0": "VEC2", "COLOR_0": "VEC4"}[name]
            accessor = {"componentType": 5126, "count": 4, "type": kind}
            if name == "COLOR_0":
                accessor |= {"componentType": UBYTE, "normalized": True}
            entry["attributes"][name] = document.add("accessors", accessor)
    for accessor in document.root["accessors"]:
        accessor.pop("bufferView", None)
    extension = {"bufferView": document.view(data), "attributes": ids or {"POSITION": 0}}
    entry["extensions"] = {"KHR_draco_mesh_compression": extension}
    document.root["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    return document


def test_attributes_are_decoded_by_their_unique_ids(tmp_path: Path) -> None:
    colors = np.array([[255, 0, 0, 255]] * 4, np.uint8)
    data = stream(normals=np.tile([0.0, 0.0, 1.0], (4, 1)), tex_coord=TETRA[:, :2].astype(float), colors=colors)
    kinds = {0: "POSITION", 1: "NORMAL", 2: "COLOR_0", 3: "TEXCOORD_0"}  # Draco's numbers of attribute types
    ids = {kinds[a["attribute_type"]]: a["unique_id"] for a in DracoPy.decode(data).attributes}
    asset = load(tmp_path, "a.glb", compressed(data, **ids).glb())
    np.testing.assert_allclose(asset.vertices[asset.faces], TETRA[TETRA_FACES], atol=1e-3)
    np.testing.assert_allclose(asset.uvs, asset.vertices[:, :2], atol=1e-3)
    np.testing.assert_allclose(asset.normals, [[0, 0, 1]] * 4, atol=1e-2)
    np.testing.assert_allclose(asset.colors, [[1, 0, 0, 1]] * 4)
    assert asset.info["warnings"] == []


def test_several_streams_are_decoded_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = compressed(stream())
    other = DracoPy.encode(TETRA + 3, TETRA_FACES.astype(np.uint32), preserve_order=True)
    for data in (other, None):
        entry = {**document.root["meshes"][0]["primitives"][0]}
        if data is not None:
            view = document.view(data)
            entry["extensions"] = {"KHR_draco_mesh_compression": {"bufferView": view, "attributes": {"POSITION": 0}}}
        document.root["meshes"][0]["primitives"].append(entry)
    calls: list[int] = []
    run = draco.subprocess.run
    monkeypatch.setattr(draco.subprocess, "run", lambda *a, **k: calls.append(1) or run(*a, **k))  # type: ignore[func-returns-value]
    asset = load(tmp_path, "a.glb", document.glb())
    assert len(calls) == 1
    assert len(asset.faces) == 12
    assert asset.vertices.max() == pytest.approx(4.0, abs=1e-3)


def test_damaged_streams_are_named(tmp_path: Path) -> None:
    refused(tmp_path, "a.glb", compressed(b"DRACO" + b"\0" * 40).glb(), "cannot be decoded")
    refused(tmp_path, "a.glb", compressed(stream()[:-20]).glb(), "cannot be decoded")
    refused(tmp_path, "a.glb", compressed(stream(), POSITION=7).glb(), "no POSITION", received="POSITION")
    document = compressed(stream())
    normals = document.accessor(TETRA[:3])  # stored outside the stream, and too short for it
    document.root["accessors"][0]["count"] = 3
    document.root["meshes"][0]["primitives"][0]["attributes"]["NORMAL"] = normals
    refused(tmp_path, "a.glb", document.glb(), "differ in length", received=4)
    document = compressed(stream())
    document.root["meshes"][0]["primitives"][0]["extensions"]["KHR_draco_mesh_compression"]["bufferView"] = 99
    refused(tmp_path, "a.glb", document.glb(), "bufferView", received=99)


def test_all_zero_vertices_are_an_error_and_not_an_asset(tmp_path: Path) -> None:
    document = compressed(stream())
    del document.root["meshes"][0]["primitives"][0]["extensions"]  # what a reader without a decoder sees
    refused(tmp_path, "a.glb", document.glb(), "coincide", received=[0.0, 0.0, 0.0])


def test_the_childs_caps() -> None:
    limits = replace(DEFAULT_LIMITS, max_faces=3)
    with pytest.raises(AssetError, match="above the caps"):
        draco.decode_draco([stream()], limits)
    assert draco.decode_draco([], limits) == []


def test_a_crash_of_the_decoder_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draco, "_COMMAND", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(AssetError, match="the decoder ended with status"):
        draco.decode_draco([stream()], DEFAULT_LIMITS)


def test_a_decoder_that_hangs_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draco, "_COMMAND", "import time; time.sleep(60)")
    monkeypatch.setattr(draco, "_TIMEOUT_S", 0.2)
    with pytest.raises(AssetError, match="TimeoutExpired"):
        draco.decode_draco([stream()], DEFAULT_LIMITS)


def test_a_missing_decoder_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    command = f"import sys; sys.stderr.write('no such module'); sys.exit({draco.NO_DECODER})"
    monkeypatch.setattr(draco, "_COMMAND", command)
    with pytest.raises(AssetError, match="pip install DracoPy") as caught:
        draco.decode_draco([stream()], DEFAULT_LIMITS)
    assert "no such module" in str(caught.value)


class _Pipes:
    """Stands in for ``sys`` in the worker, which normally runs in another process."""

    def __init__(self, request: bytes) -> None:
        from io import BytesIO, StringIO
        from types import SimpleNamespace

        self.stdin = SimpleNamespace(buffer=BytesIO(request))
        self.reply = BytesIO()
        self.stdout = SimpleNamespace(buffer=self.reply)
        self.stderr = StringIO()

    @staticmethod
    def exit(status: int) -> None:
        raise SystemExit(status)


def _work(monkeypatch: pytest.MonkeyPatch, request: bytes) -> _Pipes:
    pipes = _Pipes(request)
    monkeypatch.setattr(draco_worker, "sys", pipes)
    monkeypatch.setattr(draco_worker, "_restrict", lambda: None)
    draco_worker.main()
    return pipes


def test_the_worker_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    import struct
    import sys
    from io import BytesIO

    data = stream()
    request = struct.pack("<QQ", 100, 100) + struct.pack("<Q", len(data)) + data
    arrays = np.load(BytesIO(_work(monkeypatch, request).reply.getvalue()))
    assert sorted(arrays.files) == ["0/0", "0/faces"]
    assert arrays["0/faces"].tolist() == TETRA_FACES.tolist()

    with pytest.raises(SystemExit) as ended:
        _work(monkeypatch, struct.pack("<QQQ", 3, 3, len(data)) + data)
    assert ended.value.code == draco.BAD_STREAM
    monkeypatch.setattr(draco_worker, "_MAX_REPLY", 1)
    with pytest.raises(SystemExit):
        _work(monkeypatch, request)
    monkeypatch.setitem(sys.modules, "DracoPy", None)
    with pytest.raises(SystemExit) as ended:
        _work(monkeypatch, request)
    assert ended.value.code == draco.NO_DECODER


def test_the_worker_restricts_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    asked: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (0, 10**6))
    monkeypatch.setattr(resource, "setrlimit", asked.__setitem__)
    draco_worker._restrict()
    assert asked[resource.RLIMIT_AS] == (10**6, 10**6)  # never above what is allowed already
    assert asked[resource.RLIMIT_CORE] == (0, 0)
    import sys

    monkeypatch.setitem(sys.modules, "resource", None)
    draco_worker._restrict()  # no such module on Windows: nothing to do
