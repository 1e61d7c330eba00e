"""The page about a sweep."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from threestudio_redream.assets import sample_asset
from threestudio_redream.assets.glb_writer import encode_glb
from threestudio_redream.evaluation.bench.gallery import write_gallery
from threestudio_redream.evaluation.bench.suites import open_suite
from threestudio_redream.evaluation.bench.tables import write_results

METRICS = {"judge/janus": 1.0, "judge/one_front": 0.0, "judge/recognised": 1.0, "judge/descriptor_right": 0.0}


@pytest.fixture
def swept(tmp_path):
    rows = []
    for method in ("prolificdreamer", "redream"):
        for seed in (0, 1):
            row = {"name": f"a-cat-{seed}", "method": method, "prompt": "a <cat>", "seed": seed, "status": "ok"}
            rows.append(row | {"metrics": METRICS | {"clip_score[mini]": 0.5}})
            folder = tmp_path / method / row["name"] / "save"
            for name, count in (("it6-test", 37), ("it6-overhead", 1)):
                (folder / name).mkdir(parents=True)
                for i in range(count):
                    Image.fromarray(np.full((8, 8, 3), 5 * i, np.uint8)).save(folder / name / f"{i}.png")
    rows[1] = {key: rows[1][key] for key in ("name", "method", "prompt", "seed")} | {
        "status": "failed",
        "reason": "<no views>",
    }
    return tmp_path, rows


def written(swept):
    folder, rows = swept
    suite = open_suite("mini")
    table = write_results(folder / "results", suite, rows, {}, lambda row: folder / row["method"] / row["name"])
    path = write_gallery(folder / "gallery.html", suite, rows, table, lambda row: folder / row["method"] / row["name"])
    return path.read_text("utf-8")


def test_every_run_is_on_the_page(swept):
    page = written(swept)
    assert "mini: 4 runs" in page
    assert "<cat>" not in page
    assert "failed: &lt;no views&gt;" in page
    assert "1, 1 failed" in page
    assert page.count('role="img"') == 3
    assert page.count("· Janus · recognised · another finish · CLIP 0.500") == 3
    assert page.count("data:image/webp") == 3
    assert page.count('alt="overhead"') == 3
    assert 'aria-label="a &lt;cat&gt;, ReDream, seed 1: front, side, back, overhead"' in page
    sources = re.findall(r'(?:src|href)="([^"]{1,40})', page)
    assert all(source.startswith("data:") for source in sources)
    assert "iframe" not in page


def test_what_was_retrieved_stands_first(swept):
    folder, rows = swept
    retrieved = folder / "redream" / "a-cat-1" / "save" / "retrieved"
    retrieved.mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(retrieved / "1-cat.png")
    row = {"name": "<i>cat", "caption": "a cat", "score_image": 0.5472, "licence": "CC-BY-4.0"}
    (retrieved / "retrieved.json").write_text(json.dumps({"references": [row, "damaged", {}]}))
    page = written((folder, rows))
    assert page.index("Retrieved") < page.index("<h3>ProlificDreamer")
    assert "&lt;i&gt;cat, image 0.547, CC-BY-4.0" in page


def test_exported_meshes_of_one_prompt_are_in_3d(swept):
    folder, rows = swept
    for row in rows:
        mesh = folder / row["method"] / row["name"] / "save" / "it6-export" / "model.glb"
        mesh.parent.mkdir()
        mesh.write_bytes(encode_glb(sample_asset()))
    page = written(swept)
    assert page.count("<iframe") == 2
    assert page.count("3D view of a &lt;cat&gt;, ReDream") >= 1
