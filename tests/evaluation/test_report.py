"""The page about a run: complete, self-contained, and not fooled by what lies in the folder."""

from __future__ import annotations

import html
import json
import re

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from threestudio_redream.assets import Asset, Material, sample_asset
from threestudio_redream.assets.glb_writer import encode_glb
from threestudio_redream.errors import ConfigError
from threestudio_redream.evaluation.report import prompt_of, view3d, write_report
from threestudio_redream.evaluation.report.reading import newest, read_curves
from threestudio_redream.evaluation.report.view3d import _scene


@pytest.fixture
def trial(tmp_path):
    save = tmp_path / "run" / "save"
    for folder in ("retrieved", "adapter", "it20-test", "it20-overhead", "it20-export"):
        (save / folder).mkdir(parents=True)
    for index in range(13):
        Image.fromarray(np.full((16, 16, 3), 10 * index, np.uint8)).save(save / "it20-test" / f"{index}.png")
    Image.fromarray(np.zeros((16, 64, 3), np.uint8)).save(save / "it10-val.png")
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(save / "retrieved" / "1-robot.png")
    row = {"name": "<script>alert(1)</script>", "caption": "a robot", "author": "A & B", "licence": "CC0-1.0"}
    row |= {"score_text": 0.9, "score_image": 0.55, "reliability": 0.0, "front_known": True}
    found = {"prompt": 'a "blue" robot', "threshold": 0.5, "references": [row]}
    (save / "retrieved" / "retrieved.json").write_text(json.dumps(found), "utf-8")
    history = [{"step": 50, "loss": 0.25, "view_accuracy": 0.875}, {"step": 60, "loss": 0.2, "view_accuracy": None}]
    (save / "adapter" / "adaptation.json").write_text(json.dumps({"history": history}), "utf-8")
    Image.fromarray(np.full((16, 16, 3), 200, np.uint8)).save(save / "it20-overhead" / "0.png")
    (save / "it20-export" / "model.glb").write_bytes(b"x" * 2**20)
    (save / "it20-export" / "model.json").write_text('{"faces": 12345}', "utf-8")
    logs = tmp_path / "run" / "csv_logs" / "version_0"
    logs.mkdir(parents=True)
    (logs / "metrics.csv").write_text(
        "step,train/loss_vsd,other,train/front_000\n1,0.5,1,\n2,nan,1,0.9\n3,0.25,,0.75\n", "utf-8"
    )
    (tmp_path / "run" / "cmd.txt").write_text("python launch.py --config a.yaml 'x=<y>'", "utf-8")
    return tmp_path / "run"


def test_everything_is_on_the_page_and_nothing_is_fetched(trial):
    page = write_report(trial).read_text("utf-8")
    assert "a &quot;blue&quot; robot" in page
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert "not used: too unlike the prompt" in page
    assert "text 0.900" in page
    assert "A &amp; B" in page
    assert "88%" in page
    assert "12,345 faces" in page
    assert "1.0 MiB" in page
    assert 'href="save/it20-export/model.glb"' in page
    assert "train/loss_vsd: 0.25 to 0.5, last 0.25" in page
    assert "x=&lt;y&gt;" in page
    assert page.count("data:image/png") == 4 + 8 + 1 + 1
    assert re.findall(r"<figcaption>(front|side|back|overhead)<", page) == ["front", "side", "back", "overhead"]
    assert "0°: 75%" in page
    assert "model.glb cannot be read" in page
    assert "Content-Security-Policy" in page
    assert all('alt="' in picture for picture in re.findall(r"<img [^>]*>", page))
    assert [int(a) for a in re.findall(r"<figcaption>(\d+)°", page)] == [0, 45, 90, 135, 180, 225, 270, 315]
    sources = re.findall(r'(?:src|href)="([^"]{1,40})', page)
    assert all(source.startswith(("data:", "save/")) for source in sources)


def test_curves_of_a_run_that_was_resumed_often(tmp_path):
    """In the order of the resumptions; a damaged file ends its own curve alone."""
    for number in (0, 2, 10):
        (tmp_path / f"version_{number}").mkdir()
        (tmp_path / f"version_{number}" / "metrics.csv").write_text(f"step,loss\n{number},{number}.5\n", "utf-8")
    (tmp_path / "version_2" / "metrics.csv").write_text(f"step,loss\n2,2.5\n3,{'1' * 200_000}\n4,9\n", "utf-8")
    assert read_curves(tmp_path, ["loss"]) == {"loss": [(0.0, 0.5), (2.0, 2.5), (10.0, 10.5)]}


def test_a_run_that_has_only_begun(tmp_path):
    (tmp_path / "save").mkdir()
    page = write_report(tmp_path).read_text("utf-8")
    assert page.count("Nothing was recorded") == 8
    assert tmp_path.name in page


def test_a_mesh_is_in_the_page(trial):
    (trial / "save" / "it20-export" / "model.glb").write_bytes(encode_glb(sample_asset()))
    page = write_report(trial).read_text("utf-8")
    assert 'sandbox="allow-scripts"' in page
    assert "Three.js Authors" in page  # its licence notice comes with it
    frame = html.unescape(re.search(r'srcdoc="([^"]*)"', page).group(1))
    assert "GLTFLoader" in frame
    assert 'document.title = "3D view of a \\"blue\\" robot"' in frame


def test_the_scene_has_what_the_asset_has():
    asset = sample_asset()
    scene = _scene(asset)
    assert sum(len(mesh.faces) for mesh in scene.geometry.values()) == len(asset.faces)
    vertices = np.concatenate([mesh.vertices for mesh in scene.geometry.values()])
    np.testing.assert_allclose(vertices.min(0), asset.vertices.min(0), atol=1e-6)
    np.testing.assert_allclose(vertices.max(0), asset.vertices.max(0), atol=1e-6)
    plain = Asset(
        name="plain",
        vertices=asset.vertices,
        faces=asset.faces,
        normals=asset.normals,
        uvs=None,
        colors=None,
        face_materials=np.zeros(len(asset.faces), np.int32),
        materials=(Material(base_color=(0.5, 1.0, 0.0, 1.0)),),
    )
    (mesh,) = _scene(plain).geometry.values()
    shown = encode_glb(plain), mesh.export(file_type="glb")
    factors = [
        json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])["materials"][0]["pbrMetallicRoughness"]
        for data in shown
    ]
    np.testing.assert_allclose(factors[1]["baseColorFactor"], factors[0]["baseColorFactor"], atol=1 / 255)


@pytest.mark.parametrize("what", ["huge", "damaged"])
def test_a_mesh_that_cannot_be_shown_is_said(tmp_path, monkeypatch, what):
    path = tmp_path / "<b>.glb"
    path.write_bytes(b"glTF")
    if what == "huge":
        monkeypatch.setattr(view3d, "MAX_FILE", 3)
    shown = view3d.view_3d(path, "x")
    assert "&lt;b&gt;.glb" in shown
    assert "iframe" not in shown
    assert ("too large" if what == "huge" else "cannot be read") in shown


def test_damaged_files_are_passed_over(trial):
    save = trial / "save"
    (save / "retrieved" / "retrieved.json").write_text("{", "utf-8")
    (save / "it20-test" / "0.png").write_bytes(b"no picture")
    (trial / "csv_logs" / "version_0" / "metrics.csv").write_bytes(b"\xff\xfe\x00step")
    page = write_report(trial).read_text("utf-8")
    assert "0.png cannot be shown" in page


@pytest.mark.parametrize(
    "prompt",
    [
        "a robot's hat: blue",
        'a man saying "hi"',
        "a highly detailed render of " + "a very long " * 12 + "ship",
        "a # b",
    ],
)
def test_the_prompt_is_the_one_of_the_configuration(tmp_path, prompt):
    config = OmegaConf.create({"system": {"prompt_processor": {"prompt": prompt}}, "prompt": "another"})
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "parsed.yaml").write_text(OmegaConf.to_yaml(config), "utf-8")
    assert prompt_of(tmp_path) == prompt
    (tmp_path / "configs" / "parsed.yaml").write_text("system: [", "utf-8")
    assert prompt_of(tmp_path) == tmp_path.name


def test_the_newest_mesh_is_of_the_last_step(tmp_path):
    for step in (500, 1000, 20):
        (tmp_path / f"it{step}-export").mkdir()
        (tmp_path / f"it{step}-export" / "model.glb").write_bytes(b"x")
    (found,) = newest(tmp_path.glob("it*-export/*.glb"))
    assert found.parent.name == "it1000-export"


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not the folder of a run"):
        write_report(tmp_path)
