"""The page about a run: complete, self-contained, and not fooled by what lies in the folder."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from threestudio_redream.errors import ConfigError
from threestudio_redream.evaluation.report import write_report


@pytest.fixture
def trial(tmp_path):
    save = tmp_path / "run" / "save"
    for folder in ("retrieved", "adapter", "it20-test", "it20-export"):
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
    (save / "it20-export" / "model.glb").write_bytes(b"x" * 2**20)
    (save / "it20-export" / "model.json").write_text('{"faces": 12345}', "utf-8")
    logs = tmp_path / "run" / "csv_logs" / "version_0"
    logs.mkdir(parents=True)
    (logs / "metrics.csv").write_text("step,train/loss_vsd,other\n1,0.5,1\n2,nan,1\n3,0.25,\n", "utf-8")
    (tmp_path / "run" / "cmd.txt").write_text("python launch.py --config a.yaml 'x=<y>'", "utf-8")
    return tmp_path / "run"


def test_everything_is_on_the_page_and_nothing_is_fetched(trial):
    page = write_report(trial).read_text("utf-8")
    assert "a &quot;blue&quot; robot" in page
    assert "<script" not in page
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
    assert page.count("data:image/png") == 8 + 1 + 1
    assert [int(a) for a in re.findall(r"<figcaption>(\d+)°", page)] == [0, 45, 90, 135, 180, 225, 270, 315]
    sources = re.findall(r'(?:src|href)="([^"]{1,40})', page)
    assert all(source.startswith(("data:", "save/")) for source in sources)


def test_a_run_that_has_only_begun(tmp_path):
    (tmp_path / "save").mkdir()
    page = write_report(tmp_path).read_text("utf-8")
    assert page.count("Nothing was recorded") == 6
    assert tmp_path.name in page


def test_damaged_files_are_passed_over(trial):
    save = trial / "save"
    (save / "retrieved" / "retrieved.json").write_text("{", "utf-8")
    (save / "it20-test" / "0.png").write_bytes(b"no picture")
    (trial / "csv_logs" / "version_0" / "metrics.csv").write_bytes(b"\xff\xfe\x00step")
    page = write_report(trial).read_text("utf-8")
    assert "0.png cannot be shown" in page


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not the folder of a run"):
        write_report(tmp_path)
