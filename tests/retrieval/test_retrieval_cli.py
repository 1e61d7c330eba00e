"""``redream index``, ``redream search`` and ``redream fetch`` from end to end, on a small library and a small CLIP."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from threestudio_redream.cli import app, main
from threestudio_redream.errors import ConfigError
from threestudio_redream.retrieval.curation.licences import LicencePolicy
from threestudio_redream.retrieval.encoders import open_encoder
from threestudio_redream.retrieval.errors import IndexMismatchError, RetrievalError
from threestudio_redream.retrieval.fetching import index_source
from threestudio_redream.retrieval.fetching.on_demand import OnDemandViews
from threestudio_redream.retrieval.index.manifest import MANIFEST, read_manifest
from threestudio_redream.retrieval.types import AssetRecord
from threestudio_redream.retrieval.views import ViewSpec
from tools.mini.write_assets import write_assets

pytestmark = pytest.mark.usefixtures("one_thread")
ROW = {"asset_id", "name", "caption", "score_text", "score_image", "licence", "author", "front_deg", "path"}
FEW_VIEWS = ViewSpec(azimuths_deg=(0.0, 180.0), supersample=1)


def redream(*words: object, status: int = 0) -> str:
    """Standard output of a run of the command."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.stdout


def redream_json(*words: object, status: int = 0) -> Any:
    return json.loads(redream(*words, "--json", status=status))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library") / "shelf"
    write_assets(folder, ["robot", "mug"])
    (folder / "broken.glb").write_bytes(b"glTF")
    return folder


@pytest.fixture(scope="module")
def index(library: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("index") / "robots"
    summary = redream_json(
        *(
            "index",
            "build",
            library,
            "--out",
            out,
            "--encoder",
            f"hf:{tiny_clip}",
            "--workers",
            1,
            "--duplicates",
            0.99999,
            "--no-align",
        )
    )
    assert (summary["assets"], summary["rejected"]) == (8, 1)
    return out


@pytest.fixture
def copy(index: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(index, tmp_path / "copy"))


def test_search_prints_what_the_contract_says(index: Path) -> None:
    answer = redream_json("search", "a red robot", "--index", index, "-n", 3)
    assert {"query", "index", "took_ms", "results", "outcome"} <= set(answer)
    assert answer["query"] == "a red robot"
    assert answer["outcome"] in ("ok", "nothing_similar")
    assert [set(row) for row in answer["results"]] == [ROW] * 3
    scores = [row["score_image"] for row in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    text = redream("search", "a red robot", "--index", index, "-n", 2, "--rank", "max")
    assert text.startswith("1. ")
    assert "CC0-1.0" in text


def test_nothing_similar_is_an_outcome(copy: Path) -> None:
    from threestudio_redream.retrieval.index.manifest import Calibration
    from threestudio_redream.retrieval.index.writer import IndexWriter

    IndexWriter(copy).set_calibration(Calibration(text=0.99, image=0.99))
    assert redream_json("search", "a red robot", "--index", copy)["outcome"] == "nothing_similar"
    assert "Nothing similar enough" in redream("search", "a red robot", "--index", copy)


def test_the_sheet_is_a_picture(index: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    redream("search", "a mug 漢字 " + "very " * 60, "--index", index, "-n", 6, "--sheet", sheet)
    with Image.open(sheet) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] == 5 * 192
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_info_and_verify(index: Path, copy: Path, tmp_path: Path) -> None:
    values = redream_json("index", "info", index)
    assert (values["assets"], values["rejected"], values["views_per_asset"]) == (8, 1, 8)
    text = redream("index", "info", index)
    assert "8 assets" in text
    assert "exact" in text
    assert "--rejected" in text
    (refused,) = redream_json("index", "info", index, "--rejected")["refused"]
    assert refused["reason"]
    assert refused["reason"] in redream("index", "info", index, "--rejected")
    assert redream_json("index", "verify", index) == {"index": str(index), "ok": True, "problems": []}
    assert "sound" in redream("index", "verify", index, "--no-encoder")
    part = next(copy.glob("parts/*/text.npy"))
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
    answer = redream_json("index", "verify", copy, status=1)
    assert not answer["ok"]
    assert answer["problems"][0]["file"].endswith("text.npy")
    shutil.copytree(copy, elsewhere := tmp_path / "elsewhere")
    manifest = read_manifest(elsewhere)
    far = replace(manifest.spec, encoder=replace(manifest.spec.encoder, name="hf:nobody/nothing"))
    (elsewhere / MANIFEST).write_bytes(replace(manifest, spec=far).to_bytes())
    problems = redream_json("index", "verify", elsewhere, status=1)["problems"]
    assert any(row["file"].endswith("text.npy") for row in problems), "also where the encoder cannot be had"
    assert len(problems) == 2
    redream("index", "verify", copy, status=1)
    assert not redream_json("index", "verify", copy / "nowhere", status=1)["ok"]


def test_remove_add_merge(library: Path, index: Path, copy: Path, tmp_path: Path) -> None:
    ids = [row["asset_id"] for row in redream_json("search", "robot", "--index", copy, "-n", 8)["results"]]
    assert redream_json("index", "remove", copy, *ids[:3])["assets"] == 5
    assert "4 assets left" in redream("index", "remove", copy, ids[3])
    added = redream_json(
        "index", "add", library, "--index", copy, "--workers", 1, "--duplicates", 0.99999, "--no-align"
    )
    assert (added["added"], added["unchanged"], added["assets"]) == (4, 4, 8)
    redream("index", "remove", copy, ids[0])
    assert redream_json("index", "merge", copy, index)["assets"] == 8
    assert "8 assets now" in redream("index", "merge", copy, index, "--conflict", "keep")
    assert redream_json("index", "info", copy)["content"] == redream_json("index", "info", index)["content"]
    redream("index", "merge", copy, index, "--conflict", "fight", status=2)
    with pytest.raises(RetrievalError, match="no asset of this id"):
        redream("index", "remove", copy, "nobody")


def test_shards_and_steps(library: Path, index: Path, tiny_clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "robots"
    common = (
        "index",
        "build",
        library,
        "--out",
        out,
        "--encoder",
        f"hf:{tiny_clip}",
        "--no-align",
        "--workers",
        1,
        "--duplicates",
        0.99999,
    )
    first = redream_json(*common, "--step", "ingest")
    assert (first["chunks"], first["chunks_done"]) == (1, 0)
    assert "1 of 1 chunks" in redream(*common, "--shard", 0, "--num-shards", 2)
    assert "8 assets" in redream(*common, "--step", "index")
    assert redream_json("index", "info", out)["content"] == redream_json("index", "info", index)["content"]
    redream(*common, "--shard", 0, status=2)


def test_a_library_without_a_usable_file(tiny_clip: Path, tmp_path: Path) -> None:
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "red robot.glb").write_bytes(b"glTF")
    words = ("index", "build", tmp_path / "shelf", "--out", tmp_path / "out", "--encoder", f"hf:{tiny_clip}")
    redream(*words, "--workers", 1, "--duplicates", 0.99999, "--captions-only", status=1)


def test_licences_can_be_admitted(library: Path, tiny_clip: Path, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    shutil.copy(next(library.glob("robot*.glb")), shelf / "robot.glb")
    (shelf / "robot.json").write_text(json.dumps({"caption": "a robot", "licence": "CC-BY-NC-4.0"}))
    words = (
        "index",
        "build",
        shelf,
        "--encoder",
        f"hf:{tiny_clip}",
        "--workers",
        1,
        "--duplicates",
        0.99999,
        "--no-align",
        "--out",
    )
    redream(*words, tmp_path / "a", status=1)
    answer = redream_json(*words, tmp_path / "b", "--allow-non-commercial")
    assert answer["assets"] == 1
    with_precision = redream_json(*words, tmp_path / "c", "--allow-non-commercial", "--precision", "bfloat16")
    assert 0 < with_precision["precision_error"]["text_image"] < 0.05


def test_another_model_is_refused(index: Path, tiny_clip: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_clip, other)
    weights = (other / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(weights[:-8] + bytes(8))
    with pytest.raises(IndexMismatchError, match="another encoder"):
        redream("search", "cat", "--index", index, "--encoder", f"hf:{other}")


def test_wrong_words(index: Path, tmp_path: Path) -> None:
    redream("search", "cat", "--index", index, "--rank", "median", status=2)
    redream("fetch", "--index", index, status=2)
    with pytest.raises(RetrievalError, match="not fetched from anywhere"):
        redream("fetch", "--index", index, "--query", "cat", "--plan")
    with pytest.raises(RetrievalError, match="no index"):
        redream("search", "cat", "--index", tmp_path)
    with pytest.raises(ConfigError, match="executor is unknown"):
        redream("index", "build", tmp_path, "--out", tmp_path / "x", "--executor", "cloud")


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["search", "cat", "--index", str(tmp_path)])
    assert caught.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1


# --- views on demand ------------------------------------------------------------------------------


class Shelf:
    """A source that counts how often it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, 0

    def open(self, record: AssetRecord) -> Path:
        self.asked += 1
        return self.folder / record.path


def test_views_on_demand(library: Path, tiny_clip: Path, tmp_path: Path) -> None:
    encoder = open_encoder(f"hf:{tiny_clip}")
    good = [AssetRecord(path.stem, path.stem, "x", path=path.name) for path in sorted(library.glob("mug*.glb"))]
    records = [
        *good,
        AssetRecord("broken", "broken", "x", path="broken.glb"),
        AssetRecord("gone", "gone", "x", path="g"),
    ]
    source, calls = Shelf(library), []
    views = OnDemandViews(source, encoder, views=FEW_VIEWS, cache=tmp_path, progress=lambda *done: calls.append(done))
    found = views(records)
    assert set(found) == {record.asset_id for record in good}
    assert all(vectors.shape == (2, 128) for vectors in found.values())
    assert set(views.failures) == {"broken", "gone"}
    assert calls[-1] == (6, 6)
    assert source.asked == 6
    again = views(records)
    assert source.asked == 6  # neither what is cached nor what has failed
    np.testing.assert_array_equal(again["mug-" + good[0].asset_id.removeprefix("mug-")], found[good[0].asset_id])
    cached = sorted(tmp_path.glob("*/*.npy"))
    assert len(cached) == 4
    for path, data in zip(cached, (b"", b"\x93NUMPY junk", path_bytes(np.zeros((2, 128), np.float32)), b"")):
        path.write_bytes(data)
    np.save(cached[3], np.zeros((3, 128), np.float32))
    repaired = OnDemandViews(source, encoder, views=FEW_VIEWS, cache=tmp_path)(good)
    assert source.asked == 10
    for name, vectors in repaired.items():
        np.testing.assert_array_equal(vectors, found[name])
    assert set(OnDemandViews(source, encoder, views=FEW_VIEWS)(good[:1])) == {good[0].asset_id}


def path_bytes(values: np.ndarray) -> bytes:
    import io

    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


@pytest.fixture
def captions_only(library: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index as Objaverse gives one, with a stand-in for the downloads."""
    from threestudio_redream.retrieval.fetching.plan import PlannedFile
    from threestudio_redream.retrieval.index.manifest import IndexSpec
    from threestudio_redream.retrieval.index.writer import IndexWriter

    class Elsewhere:
        policies: ClassVar[list[LicencePolicy | None]] = []

        def __init__(self, *, cache: Path | None = None, policy: LicencePolicy | None = None) -> None:
            self.cache = cache or tmp_path / "cache"
            self.policies.append(policy)

        def planned_file(self, record: AssetRecord) -> PlannedFile:
            url = f"https://example.org/{record.asset_id}"
            return PlannedFile(record.asset_id, url, self.cache / record.asset_id, 1000, "CC-BY-4.0", "Ann", "missing")

        def open(self, record: AssetRecord) -> Path:
            return library / f"{record.asset_id}.glb"

    monkeypatch.setattr(index_source, "ObjaverseSource", Elsewhere)
    encoder, out = open_encoder(f"hf:{tiny_clip}"), tmp_path / "objaverse"
    names = [path.stem for path in sorted(library.glob("mug*.glb"))] + ["broken"]
    records = [AssetRecord(name, name, f"a {name}", licence="CC-BY-4.0") for name in names]
    writer = IndexWriter(out, IndexSpec.of(encoder, views_per_asset=0, settings={"source": "objaverse"}))
    writer.write_part(records, encoder.encode_texts([record.caption for record in records]))
    writer.commit()
    return out


def test_the_licences_of_the_build_hold_for_fetching(captions_only: Path) -> None:
    from threestudio_redream.retrieval.index.manifest import read_manifest

    spec = read_manifest(captions_only).spec
    for said, policy in ((None, None), ({"non_commercial": True}, LicencePolicy(non_commercial=True))):
        index_source.source_of_index(replace(spec, settings={"licences": said}), None)
        assert index_source.ObjaverseSource.policies[-1] == policy
    for said in ({"non_commercial": 1}, {"other": True}, [True]):
        with pytest.raises(RetrievalError, match="which licences"):
            index_source.source_of_index(replace(spec, settings={"licences": said}), None)


def test_assets_that_are_elsewhere(captions_only: Path, tmp_path: Path) -> None:
    plan = redream_json("fetch", "--index", captions_only, "--query", "a mug", "--plan")
    assert (plan["n_files"], plan["n_bytes"], plan["licences"]) == (5, 5000, {"CC-BY-4.0": 5})
    assert "to fetch: 5 files" in redream("fetch", "--index", captions_only, "--query", "a mug", "--plan")
    rows = redream_json("search", "a mug", "--index", captions_only, "-n", 5, "--offline")["results"]
    assert [row["score_image"] for row in rows] == [None] * 5
    rows = redream_json("search", "a mug", "--index", captions_only, "-n", 5)["results"]
    assert sorted(row["asset_id"] for row in rows if row["score_image"] is None) == ["broken"]
    assert list((tmp_path / "cache" / "views").glob("*/*.npy"))
    sheet = tmp_path / "sheet.png"
    redream("search", "a mug", "--index", captions_only, "--sheet", sheet)
    assert sheet.is_file()  # with grey tiles
    done = redream_json("fetch", "--index", captions_only, "--id", rows[0]["asset_id"], "--cache", tmp_path)
    assert list(done["paths"]) == [rows[0]["asset_id"]]
    assert "1 files are here" in redream("fetch", "--index", captions_only, "--id", rows[0]["asset_id"])
