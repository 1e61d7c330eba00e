"""From a prompt to aligned assets, with the shipped index and CLIP."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from threestudio_redream.retrieval import retrieve as module
from threestudio_redream.retrieval.errors import RetrievalError
from threestudio_redream.retrieval.retrieve import RetrievalConfig, reliability, retrieve

ROOT = Path(__file__).resolve().parents[2]
MINI = str(ROOT / "retrieval_index" / "mini")


def test_a_prompt_brings_its_kind_best_first_and_aligned():
    found = retrieve("a blue robot", RetrievalConfig(index=MINI))
    assert [reference.record.name.split()[-1] for reference in found.references] == ["robot"] * 3
    scores = [reference.score_image for reference in found.references]
    assert scores == sorted(scores, reverse=True)
    assert found.outcome == "ok"
    for reference in found.references:
        radius = np.linalg.norm(reference.asset.vertices, axis=1).max()
        assert radius == pytest.approx(0.5, abs=1e-4)
        assert reference.front_known
        assert 0.0 < reference.reliability <= 1.0
    json.dumps(found.to_json(), allow_nan=False)
    assert len(found.content) >= 16


def test_the_front_is_turned_to_x(monkeypatch):
    straight = retrieve("a red television", RetrievalConfig(index=MINI, count=1)).references[0]
    searched = module.Index.search

    def search(self, *arguments, **keys):
        result = searched(self, *arguments, **keys)
        hits = tuple(replace(hit, record=replace(hit.record, front_deg=90.0)) for hit in result.results)
        return replace(result, results=hits)

    monkeypatch.setattr(module.Index, "search", search)
    other = retrieve("a red television", RetrievalConfig(index=MINI, count=1)).references[0]
    # What pointed to +y now points to +x: (x, y) -> (y, -x).
    expected = straight.asset.vertices @ np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(other.asset.vertices, expected, atol=1e-5)


def test_assets_can_be_named_and_a_wrong_one_is_not_trusted():
    found = retrieve("a blue robot", RetrievalConfig(index=MINI, asset_ids=("robot-green",)))
    right = found.references[0]
    assert [reference.record.asset_id for reference in found.references] == ["robot-green"]
    wrong = retrieve("a blue robot", RetrievalConfig(index=MINI, asset_ids=(_teapot(),)))
    assert wrong.references[0].reliability == 0.0 < right.reliability
    assert wrong.outcome == "nothing_similar"
    with pytest.raises(RetrievalError):
        retrieve("a blue robot", RetrievalConfig(index=MINI, asset_ids=("no-such-asset",)))


def test_without_the_gate_a_wrong_asset_counts_fully():
    cfg = RetrievalConfig(index=MINI, asset_ids=(_teapot(),), gate=False)
    wrong = retrieve("a blue robot", cfg)
    assert wrong.references[0].reliability == 1.0
    assert wrong.outcome == "nothing_similar"  # what was measured stays on record
    assert wrong.references[0].score_image < wrong.threshold


def test_an_index_without_a_threshold_says_so(monkeypatch):
    said = []
    monkeypatch.setattr(module.log, "warning", lambda text, *values: said.append(text % values))
    retrieve("a blue robot", RetrievalConfig(index=MINI, count=1))
    assert said == []
    monkeypatch.setattr(module.Index, "threshold", lambda self, *, views: -1.0)
    assert retrieve("a blue robot", RetrievalConfig(index=MINI, count=1)).references[0].reliability == 1.0
    assert "every asset counts as one that fits" in said[0]
    retrieve("a blue robot", RetrievalConfig(index=MINI, asset_ids=("robot-green",)))
    assert len(said) == 1  # it was named


def test_the_gate_is_calibrated_for_the_mean():
    with pytest.raises(RetrievalError, match=r"mean over views.*rank=max.*gate: false"):
        retrieve("a blue robot", RetrievalConfig(index=MINI, rank="max"))
    found = retrieve("a blue robot", RetrievalConfig(index=MINI, rank="max", gate=False))
    assert found.references[0].score_image > found.threshold


def test_a_file_of_ones_own_is_trusted(tmp_path):
    robot = next((Path(MINI) / "assets").glob("robot-green*.glb"))
    path = tmp_path / "my scan.glb"
    shutil.copy(robot, path)
    found = retrieve("a blue teapot", RetrievalConfig(index=MINI, asset=str(path), asset_caption="a green robot"))
    (mine,) = found.references
    assert (mine.reliability, found.outcome, found.index) == (1.0, "ok", "my scan.glb")
    assert mine.record.caption == "a green robot"
    usual = retrieve("a blue robot", RetrievalConfig(index=MINI, asset_ids=("robot-green",))).references[0]
    np.testing.assert_allclose(mine.asset.vertices, usual.asset.vertices, atol=1e-5)
    named = retrieve("a blue robot", RetrievalConfig(index=MINI, asset=str(path))).references[0]
    assert named.score_image == pytest.approx(usual.score_image, abs=1e-4)
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"asset": "nothing.glb"}, "no such source"),
        ({"asset": "notes.txt"}, "no such 3D file"),
        ({"asset": "damaged.glb"}, "cannot be used as an asset"),
        ({"asset": "damaged.glb", "asset_ids": ("robot-green",)}, "both named"),
        ({"asset_caption": "a robot"}, "no asset to caption"),
    ],
)
def test_a_file_that_is_no_asset_is_refused(tmp_path, monkeypatch, settings, said):
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("hello")
    Path("damaged.glb").write_bytes(b"glTF nothing")
    with pytest.raises(ValueError, match=said):
        retrieve("a blue robot", RetrievalConfig(index=MINI, **settings))


def _teapot():
    return next(r.asset_id for r in module.Index.open(MINI).records() if r.asset_id.startswith("teapot"))


def test_a_file_that_cannot_be_used_is_passed_over(monkeypatch, caplog):
    usual = retrieve("a blue robot", RetrievalConfig(index=MINI, count=2))
    best = usual.references[0].record.asset_id
    opened = module.load_asset

    def load(path):
        if best in str(path):
            raise OSError("gone")
        return opened(path)

    monkeypatch.setattr(module, "load_asset", load)
    found = retrieve("a blue robot", RetrievalConfig(index=MINI, count=2))
    assert found.references[0].record.asset_id == usual.references[1].record.asset_id
    assert len(found.references) == 2
    assert "gone" in caplog.text
    with pytest.raises(RetrievalError, match="can be used"):
        retrieve("a blue robot", RetrievalConfig(index=MINI, asset_ids=(best,)))


def test_an_index_without_copies_needs_to_know_the_folder(tmp_path, monkeypatch):
    references = retrieve("a blue robot", RetrievalConfig(index=MINI, count=1)).references
    copy = module.Index.open(MINI).asset_path(references[0].record)
    monkeypatch.setattr(module.Index, "asset_path", lambda self, record: None)
    with pytest.raises(RetrievalError, match="can be used"):
        retrieve("a blue robot", RetrievalConfig(index=MINI, count=1))
    shutil.copy(copy, tmp_path / references[0].record.path)
    found = retrieve("a blue robot", RetrievalConfig(index=MINI, count=1, source_root=str(tmp_path)))
    assert found.references[0].record == references[0].record


def test_the_shipped_index_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert retrieve("a red cat", RetrievalConfig(count=1)).references[0].record.name.endswith("cat")
    with pytest.raises(RetrievalError):
        retrieve("a red cat", RetrievalConfig(index="nowhere"))


def test_reliability():
    scores = [0.4, 0.5, 0.51, 0.52, 0.9, float("nan")]
    assert [reliability(score, 0.5, 0.02) for score in scores] == pytest.approx([0, 0, 0.5, 1, 1, 0])
    assert [reliability(score, 0.5, 0.0) for score in (0.49, 0.5)] == [0.0, 1.0]
