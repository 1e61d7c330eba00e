"""The index assets as files: what they look like after a round trip, what stands beside them, and their sheets."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from threestudio_redream.assets import load_asset, normalise
from threestudio_redream.assets.rasteriser import AssetRenderer
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.errors import RegistryError
from tools.mini import contact_sheet
from tools.mini.descriptors import DESCRIPTORS
from tools.mini.kinds import load_kinds
from tools.mini.seeds import PURPOSES, instance_seed
from tools.mini.views import FOVY_DEG
from tools.mini.write_assets import PER_KIND, IndexAsset, index_assets, main, write_assets

LIBRARY = {asset.identifier: asset for asset in index_assets()}
VIEWS = np.stack([orbit_c2w(azimuth, elevation, 1.46) for azimuth, elevation in ((25, 15), (110, 0), (215, 40))])
#: The shipped index may take 15 MB with its vectors.
MEAN_BYTES = 12e6 / len(LIBRARY)


def render(asset: object) -> np.ndarray:
    return AssetRenderer(asset)(VIEWS, FOVY_DEG, 64, 64, shading="world").rgba  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kind with a front and one without."""
    out = tmp_path_factory.mktemp("assets") / "new"
    write_assets(out, ["cat", "lamp"])
    return out


def test_the_plan() -> None:
    assert len(LIBRARY) == PER_KIND * len(load_kinds())
    counts = Counter(asset.descriptor for asset in LIBRARY.values())
    assert set(counts) == set(DESCRIPTORS)
    assert max(counts.values()) - min(counts.values()) <= 1
    for kind in load_kinds():
        four = [asset for asset in LIBRARY.values() if asset.kind == kind]
        assert len({asset.descriptor for asset in four}) == PER_KIND
        assert [asset.seed for asset in four] == [instance_seed("index", kind, number) for number in range(PER_KIND)]
    others = {instance_seed(purpose, "cat", number) for purpose in PURPOSES[1:] for number in range(100)}
    assert not others & {asset.seed for asset in LIBRARY.values()}


def test_files_and_sidecars(folder: Path) -> None:
    glbs = sorted(path.name for path in folder.glob("*.glb"))
    assert glbs == sorted(f"{name}.glb" for name, asset in LIBRARY.items() if asset.kind in ("cat", "lamp"))
    assert len(list(folder.iterdir())) == 2 * len(glbs)  # no temporary file is left
    for path in folder.glob("*.glb"):
        about, asset = json.loads(path.with_suffix(".json").read_text("utf-8")), LIBRARY[path.stem]
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert about == {
            "id": path.stem,
            "name": f"{asset.descriptor} {asset.kind}",
            "caption": about["caption"],
            "author": "threestudio-redream contributors",
            "licence": "CC0-1.0",
            "front": "+z" if asset.kind == "cat" else None,
            "tags": list(load_kinds()[asset.kind].tags),
            "kind": asset.kind,
            "descriptor": asset.descriptor,
            "seed": asset.seed,
            "sha256": digest,
        }
        assert about["caption"] == f"{'an' if asset.descriptor[0] in 'aeiou' else 'a'} {about['name']}"
        loaded = load_asset(path)
        assert loaded.sha256 == digest
        assert loaded.info["warnings"] == []
        assert path.stat().st_size < 1.3 * MEAN_BYTES


@pytest.mark.parametrize(
    ("kind", "descriptor"),
    [("cat", "red"), ("castle", "wooden"), ("turtle", "golden"), ("clock", "checkered"), ("train", "striped")],
)
def test_a_file_shows_what_was_modelled(tmp_path: Path, kind: str, descriptor: str) -> None:
    """Convention: the canonical (1, 0, 0), in front, is (0, 0, 1) in the file; ``normalise`` brings it back."""
    asset = IndexAsset(kind, descriptor, instance_seed("index", kind, 1))
    path = tmp_path / "a.glb"
    path.write_bytes(asset.glb())
    model, raw = asset.model(), load_asset(path)
    np.testing.assert_allclose(raw.vertices.max(axis=0), model.vertices.max(axis=0)[[1, 2, 0]], atol=1e-4)
    again = normalise(raw)
    np.testing.assert_allclose(again.vertices.max(axis=0), model.vertices.max(axis=0), atol=1e-4)
    expected = render(model)
    assert np.abs(render(again) - expected).mean() < 0.002
    assert np.abs(render(normalise(raw, yaw_deg=20.0)) - expected).mean() > 0.01  # the measure can tell


def test_writing_again_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for path in write_assets(tmp_path, ["cat"]):
        assert path.read_bytes() == (folder / path.name).read_bytes()
        assert path.with_suffix(".json").read_bytes() == (folder / path.name).with_suffix(".json").read_bytes()


def test_strangers_stay_and_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "dragon.glb").write_bytes(b"glTF")
    with caplog.at_level(logging.WARNING):
        write_assets(tmp_path, ["mug"])
    assert "dragon.glb" in caplog.text
    assert (tmp_path / "dragon.glb").exists()


def test_an_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(RegistryError) as caught:
        write_assets(tmp_path / "out", ["mug", "unicorn"])
    assert "no such kind" in caught.value.problem
    assert caught.value.received == ["unicorn"]
    assert "mug" in caught.value.fix
    assert not (tmp_path / "out").exists()


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["write_assets", "--out", str(tmp_path / "out"), "--kinds", "mug"])
    main()
    assert len(list((tmp_path / "out").glob("mug-*.glb"))) == PER_KIND


def test_sheets_of_the_library(tmp_path: Path) -> None:
    """A row a kind: the name, four assets, four sides of the first."""
    chosen = [asset for asset in LIBRARY.values() if asset.kind in ("mug", "lamp")]
    sheet = np.asarray(contact_sheet.library_sheet(chosen), np.int64)
    paper = sheet[0, 0]
    painted = (np.abs(sheet - paper).max(axis=2) > 40).any(axis=0)
    runs = int((np.diff(painted.astype(int)) == 1).sum())
    assert runs >= 9
    paths = contact_sheet.write_library_sheets(tmp_path, chosen, 2)
    assert [path.name for path in paths] == ["library-1.jpg", "library-2.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["library-1.jpg", "library-2.jpg"]
    assert Image.open(paths[0]).width == sheet.shape[1]


def test_sheets_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "sheet.png"
    monkeypatch.setattr(sys, "argv", ["contact_sheet", "mug", "--out", str(out), "--side", "16"])
    contact_sheet.main()
    assert Image.open(out).size == (17 * 16, 16)
    monkeypatch.setattr(sys, "argv", ["contact_sheet", "mug", "--library", "--out", str(tmp_path / "docs")])
    contact_sheet.main()
    assert (tmp_path / "docs" / "library-1.jpg").exists()
