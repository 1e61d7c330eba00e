"""Search: the two stages, exactness, determinism, the outcome, and the scan kernels against plain arithmetic."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from toy_index import ToyEncoder, stage_toys, toy_records, toy_spec, toy_vectors, unit, write_toy_index

from threestudio_redream.retrieval.errors import IndexMismatchError, RetrievalError
from threestudio_redream.retrieval.index import scan as scanning
from threestudio_redream.retrieval.index.calibration import best_threshold, calibrate
from threestudio_redream.retrieval.index.reader import Index
from threestudio_redream.retrieval.index.scan import decode, encode, scan, scan_reference
from threestudio_redream.retrieval.index.writer import IndexWriter
from threestudio_redream.retrieval.types import AssetRecord


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("index")
    write_toy_index(folder, 172, parts=3)
    return Index.open(folder, ToyEncoder())


def brute_force(index: Index, query: np.ndarray, pool: int, n: int, rank: str) -> list[tuple[str, float, float]]:
    """The two-stage rule in plain Python."""
    rows = []
    for record in index.records():
        views = decode(encode(index.view_vectors(record.asset_id), "float16")).astype(np.float64) @ query
        text = float(index.text_vector(record.asset_id).astype(np.float64) @ query)
        rows.append((record.asset_id, text, float(getattr(views, rank)())))
    rows = sorted(rows, key=lambda row: (-row[1], row[0]))[:pool]
    return sorted(rows, key=lambda row: (-row[2], row[0]))[:n]


@pytest.mark.parametrize("rank", ["mean", "max"])
@pytest.mark.parametrize(("pool", "n"), [(1, 1), (5, 3), (20, 10), (172, 172), (1000, 4)])
def test_two_stages(index: Index, rank: str, pool: int, n: int) -> None:
    query = unit(np.random.default_rng(1).standard_normal(32)).astype(np.float64)
    result = index.search(query, n, pool=pool, rank=rank)  # type: ignore[arg-type]
    wanted = brute_force(index, query, max(pool, n), n, rank)
    assert [hit.record.asset_id for hit in result.results] == [row[0] for row in wanted]
    scores = [(hit.score_text, hit.score_image) for hit in result.results]
    np.testing.assert_allclose(scores, [row[1:] for row in wanted], atol=1e-6)


def test_a_prompt_finds_its_asset_and_says_so_in_json(index: Index) -> None:
    result = index.search("a blue lamp")
    assert result.results[0].record.caption == "a blue lamp"
    assert (result.outcome, result.threshold) == ("ok", -1.0)
    values = result.to_json()
    assert values["query"] == "a blue lamp"
    assert set(values["results"][0]) == {
        *("asset_id", "name", "caption", "score_text", "score_image", "licence", "author", "front_deg", "path")
    }
    assert set(result.timings_ms) == {"encode", "captions", "views"}


def test_the_pool_limits_the_second_stage(index: Index) -> None:
    """An asset whose renders match best is not found if its caption is not in the pool."""
    query = index.view_vectors("toy-00050").mean(0)  # type: ignore[union-attr]
    wide = index.search(query, 1, pool=172).results[0].record.asset_id
    narrow = {hit.record.asset_id for hit in index.search(query, 3, pool=3).results}
    assert wide == "toy-00050"
    by_text = sorted(index.records(), key=lambda r: -float(index.text_vector(r.asset_id) @ query))[:3]
    assert narrow == {record.asset_id for record in by_text}


def test_result_does_not_depend_on_parts(tmp_path: Path) -> None:
    found = []
    for parts in (1, 4, 30):
        write_toy_index(tmp_path / str(parts), 60, parts=parts)
        result = Index.open(tmp_path / str(parts), ToyEncoder()).search("a green cup in a car", 20)
        found.append([(hit.record.asset_id, hit.score_text, hit.score_image) for hit in result.results])
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("parts", [1, 3])
def test_ties_go_to_the_first_id(tmp_path: Path, parts: int) -> None:
    writer = IndexWriter(tmp_path, toy_spec(views=0))
    records = [AssetRecord(f"same-{i:03d}", "Cup", "a red cup") for i in range(40)]
    for number in range(parts):
        stage_toys(writer, records[number::parts][::-1], str(number))
    writer.commit()
    found = Index.open(tmp_path, ToyEncoder()).search("a red cup", 5, pool=7).results
    assert [hit.record.asset_id for hit in found] == [f"same-{i:03d}" for i in range(5)]
    assert np.isnan(found[0].score_image)
    assert found[0].to_json()["score_image"] is None
    assert found[0].score_text <= 1.0


def test_filter_neither_fills_the_pool_nor_shows(index: Index) -> None:
    calls: list[str] = []

    def odd(record: AssetRecord) -> bool:
        calls.append(record.asset_id)
        return record.n_faces % 2 == 1

    found = index.search("a red robot", 5, pool=5, accept=odd).results
    assert len(found) == 5
    assert all(hit.record.n_faces % 2 for hit in found)
    assert len(set(calls)) < 172
    assert index.search("a red robot", accept=lambda record: False).outcome == "nothing_similar"


def test_views_from_elsewhere(tmp_path: Path) -> None:
    writer = IndexWriter(tmp_path, toy_spec())
    records, encoder = toy_records(20), ToyEncoder()
    text, views, _ = toy_vectors(records, encoder)
    writer.write_part(records[:10], text[:10], views[:10])
    writer.write_part(records[10:], text[10:])
    writer.commit()
    index = Index.open(tmp_path, encoder)
    bare = index.search("a green chair", 20).results
    assert [np.isnan(hit.score_image) for hit in bare] == [False] * 10 + [True] * 10
    assert [hit.score_text for hit in bare[10:]] == sorted((h.score_text for h in bare[10:]), reverse=True)
    by_id = {record.asset_id: row for row, record in enumerate(records)}
    asked: list[str] = []

    def source(wanted):  # type: ignore[no-untyped-def]
        asked.extend(record.asset_id for record in wanted)
        return {record.asset_id: views[by_id[record.asset_id]] for record in wanted if record.asset_id != "toy-00019"}

    full = index.search("a green chair", 20, view_source=source).results
    assert sorted(asked) == [f"toy-{i:05d}" for i in range(10, 20)]
    assert [hit.record.asset_id for hit in full if np.isnan(hit.score_image)] == ["toy-00019"]
    images = [hit.score_image for hit in full[:-1]]
    assert images == sorted(images, reverse=True)
    with pytest.raises(RetrievalError, match="view source"):
        index.search("a green chair", view_source=lambda wanted: {r.asset_id: np.zeros(3) for r in wanted})


def test_wrong_searches(index: Index) -> None:
    for query, keywords, words in [
        (np.zeros(32), {}, "finite vector"),
        (np.full(32, np.nan), {}, "finite vector"),
        (np.ones(31), {}, "finite vector"),
        ("a cup", {"n": 0}, "one asset"),
        ("a cup", {"pool": 0}, "one asset"),
        ("a cup", {"rank": "median"}, "ranked"),
    ]:
        with pytest.raises(RetrievalError, match=words) as caught:
            index.search(query, **keywords)  # type: ignore[arg-type]
        assert caught.value.fix
        assert caught.value.received is not ...
    with pytest.raises(RetrievalError, match="needs the encoder"):
        Index(index.folder, index.manifest).search("a cup")
    with pytest.raises(RetrievalError, match="no asset of this id"):
        index.record("unknown")


def test_another_encoder_is_refused(index: Index) -> None:
    class Claims(ToyEncoder):
        """Other weights, the same name, fingerprint and preprocessing."""

        def __init__(self) -> None:
            super().__init__(seed=5)
            self.fingerprint = ToyEncoder().fingerprint

    other = ToyEncoder()
    other.preprocessing = {**other.preprocessing, "mean": [0.0] * 3}
    for encoder, words in [
        (ToyEncoder(seed=1), "fingerprint"),
        (ToyEncoder(16), "embedding length"),
        (other, "preprocessing"),
        (Claims(), "probe text"),
    ]:
        with pytest.raises(IndexMismatchError, match=words) as caught:
            Index.open(index.folder, encoder)
        assert caught.value.fix


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_number_formats(tmp_path: Path, dtype: str) -> None:
    write_toy_index(tmp_path, 40, dtype=dtype)
    index = Index.open(tmp_path, ToyEncoder())
    assert index.search("a white boat").results[0].record.caption == "a white boat"
    exact = ToyEncoder().encode_texts(["a red robot"])[0]
    error = np.abs(index.text_vector("toy-00000") - exact).max()
    assert error <= {"float16": 3e-4, "bfloat16": 3e-3, "float32": 0.0}[dtype]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("kernels", ["numba", "torch"])
def test_scan_against_plain_arithmetic(dtype: str, kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All finite values of 16 bits that a unit vector can hold, subnormal ones and both zeros among them."""
    monkeypatch.setenv("REDREAM_KERNELS", kernels)
    monkeypatch.setattr(scanning, "BLOCK_NUMBERS", 4000)
    random = np.random.default_rng(0)
    matrix = unit(random.standard_normal((1001, 37)))
    matrix[::7] *= 1e-5
    matrix[1] = [0.0, -0.0, 1.0] + [0.0] * 34
    stored, query = encode(matrix, dtype), unit(random.standard_normal(37))
    wanted = decode(stored).astype(np.float64) @ query.astype(np.float64)
    np.testing.assert_allclose(scan(stored, query), wanted, atol=1e-6)
    np.testing.assert_allclose(scan_reference(stored, query), wanted, atol=1e-6)
    assert scan(stored[:0], query).shape == (0,)


def test_bfloat16_rounds_to_nearest_even() -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    values[:4] = [1.00390625, 1.01171875, 0.0, -0.0]  # halfway between two numbers, twice
    wanted = torch.from_numpy(values).bfloat16().view(torch.uint16).numpy()
    np.testing.assert_array_equal(encode(values, "bfloat16"), wanted)


def test_large_indexes_are_scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threestudio_redream.retrieval.search.WIDEN_NUMBERS", 0)
    write_toy_index(tmp_path, 50)
    assert Index.open(tmp_path, ToyEncoder()).search("a black duck").results[0].record.caption == "a black duck"


def test_calibration_separates_known_from_foreign(tmp_path: Path) -> None:
    write_toy_index(tmp_path, 77, views=3)
    index = Index.open(tmp_path, ToyEncoder())
    calibration = calibrate(index, ToyEncoder())
    assert calibration.image is not None
    second_best = [index.search(record.caption, 2).results[1].score_image for record in index.records()]
    assert calibration.image < min(second_best)  # not learnt from assets that are described exactly
    assert calibration.balanced_accuracy == 1.0
    assert (calibration.n_similar, calibration.n_foreign) == (77, 32)
    IndexWriter(tmp_path).set_calibration(calibration)
    index = Index.open(tmp_path, ToyEncoder())
    assert index.search("a yellow piano").outcome == "ok"
    strange = index.search("terms of rental contract")
    assert strange.outcome == "nothing_similar"
    assert len(strange.results) == 3
    assert strange.threshold == calibration.image
    assert calibrate(index, ToyEncoder()) == calibration


def test_calibration_of_captions_only(tmp_path: Path) -> None:
    write_toy_index(tmp_path, 77, views=0)
    calibration = calibrate(Index.open(tmp_path), ToyEncoder())
    assert calibration.image is None
    assert calibration.text is not None
    assert calibration.text < 0.99  # not learnt from captions that find themselves
    IndexWriter(tmp_path).set_calibration(calibration)
    index = Index.open(tmp_path, ToyEncoder())
    assert index.search("a yellow piano").outcome == "ok"
    assert index.search("terms of rental contract").outcome == "nothing_similar"


def test_calibration_without_data(tmp_path: Path) -> None:
    write_toy_index(tmp_path, 1, parts=1)
    assert calibrate(Index.open(tmp_path), ToyEncoder()).image is None
    with pytest.raises(IndexMismatchError):
        calibrate(Index.open(tmp_path), ToyEncoder(seed=2))


def test_best_threshold() -> None:
    low, high = np.array([0.1, 0.2, np.nan]), np.array([0.6, 0.8])
    assert best_threshold(high, low) == (0.4, 1.0)
    assert best_threshold(low, high) == (None, 0.5)
    assert best_threshold(high, np.array([np.nan])) == (None, 0.5)
    mixed, accuracy = best_threshold(np.array([0.3, 0.5, 0.7, 0.9]), np.array([0.1, 0.2, 0.4, 0.6]))
    assert accuracy == 0.75
    assert mixed is not None
    assert 0.2 <= mixed < 0.7


def test_records_are_read_once(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    index.search("a grey tree")
    for part in index.parts:
        monkeypatch.setattr(part.table, "_record", None)
    assert index.search("a grey tree").results
    assert dataclasses.is_dataclass(index.search("a grey tree").results[0].record)
