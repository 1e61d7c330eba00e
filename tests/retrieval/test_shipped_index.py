"""``retrieval_index/mini`` and the mini CLIP as they ship: whole, offline, and answering."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from threestudio_redream.assets.loading import load_asset
from threestudio_redream.mini import CLIP
from threestudio_redream.retrieval.encoders import open_encoder
from threestudio_redream.retrieval.index.reader import Index
from threestudio_redream.retrieval.index.verify import verify_index

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "retrieval_index" / "mini"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def index() -> Index:
    return Index.open(SHIPPED, open_encoder("mini", texts_only=True))


def test_it_is_whole_and_small() -> None:
    assert verify_index(SHIPPED, encoder=open_encoder("mini")) == []
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) <= 15 * 10**6
    assert sum(path.stat().st_size for path in CLIP.rglob("*") if path.is_file()) <= 8 * 10**6


def test_every_asset_is_there_free_and_has_its_front(index: Index) -> None:
    records = list(index.records())
    assert len(records) == 172
    assert {record.licence for record in records} == {"CC0-1.0"}
    fronted = [record for record in records if record.front_deg is not None]
    assert {record.front_source for record in fronted} == {"sidecar"}
    assert {record.front_deg for record in fronted} == {0.0}
    assert len(fronted) == 39 * 4
    path = index.asset_path(records[0])
    assert path is not None
    assert len(load_asset(path).faces) > 100


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("a red robot", "robot"),
        ("a photo of a purple cat", "cat"),
        ("chair, made of gold", "chair"),
        ("a blue house, back view", "house"),
        ("a checkered teapot", "teapot"),
        ("one striped penguin", "penguin"),
    ],
)
def test_the_object_that_is_asked_for_comes_first(index: Index, prompt: str, kind: str) -> None:
    result = index.search(prompt, 3)
    assert result.outcome == "ok"
    assert all(kind in hit.record.caption.split() for hit in result.results)


def test_what_is_not_in_it_is_not_similar(index: Index) -> None:
    assert index.search("the terms of a rental contract").outcome == "nothing_similar"


def test_the_command_in_a_process_of_its_own(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "threestudio_redream.cli",
        "search",
        "a red robot",
        "--index",
        str(SHIPPED),
        "--json",
    ]
    said = json.loads(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout)
    assert said["outcome"] == "ok"
    assert set(said) >= {"query", "index", "took_ms", "results", "outcome"}
    assert len(said["results"]) == 3


def test_the_clip_opens_with_the_library_alone_and_offline() -> None:
    code = (
        "import sys\nfrom transformers import CLIPModel, CLIPProcessor\n"
        "model, processor = CLIPModel.from_pretrained(sys.argv[1]), CLIPProcessor.from_pretrained(sys.argv[1])\n"
        "assert 'threestudio_redream' not in sys.modules\n"
        "print(model.config.projection_dim, processor.image_processor.crop_size['height'])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(CLIP)], capture_output=True, text=True, check=True, cwd=CLIP)
    assert done.stdout.split() == ["128", "64"]
