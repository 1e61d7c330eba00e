"""Objaverse: captions first, a catalogue of licences, files on demand. All of it from a server on loopback."""

from __future__ import annotations

import csv
import gzip
import json
import sys
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bad_server import Server, serving, status, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from threestudio_redream.assets import write_sample
from threestudio_redream.errors import MissingExtraError
from threestudio_redream.retrieval.curation.licences import LicencePolicy
from threestudio_redream.retrieval.errors import FetchError, SourceError
from threestudio_redream.retrieval.fetching.download import TransferLimits
from threestudio_redream.retrieval.fetching.plan import fetch, human_bytes, plan_fetch
from threestudio_redream.retrieval.sources import ObjaverseSource, open_source
from threestudio_redream.retrieval.sources.cap3d import read_cap3d
from threestudio_redream.retrieval.sources.catalogue import Catalogue, read_packed_json
from threestudio_redream.retrieval.sources.objaverse import default_cache
from threestudio_redream.retrieval.types import AssetRecord

UIDS = [f"{index:032x}" for index in range(8)]
FOLDERS = ["000-000", "000-001"]
QUICK = TransferLimits(max_bytes=1_000_000, stall_s=2.0, retries=1, backoff_s=0.0, deadline_s=20.0)


def packed(value: Any) -> bytes:
    return gzip.compress(json.dumps(value).encode())


def annotation(index: int, licence: str) -> dict[str, Any]:
    return {
        "uid": UIDS[index], "name": f"Thing {index}", "license": licence, "faceCount": 100 * index,
        "user": {"username": f"user{index}", "displayName": f"User {index}"},
        "tags": [{"name": "toy"}, {"name": "red"}], "archives": {"glb": {"size": 1000 + index, "faceCount": 1}},
    }  # fmt: skip


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        paths = {uid: f"glbs/{FOLDERS[index % 2]}/{uid}.glb" for index, uid in enumerate(UIDS)}
        paths["evil"] = "glbs/../../evil.glb"
        running.put("/object-paths.json.gz", whole(packed(paths)))
        licences = ["by", "by-nc", "cc0", "by-sa", "by-nd", "by", "by", "by"]
        for parity, folder in enumerate(FOLDERS):
            said = {UIDS[index]: annotation(index, licences[index]) for index in range(parity, 7, 2)}
            running.put(f"/metadata/{folder}.json.gz", whole(packed({**said, "x\ud800": {}, UIDS[7]: None})))
        yield running


@pytest.fixture
def sample(tmp_path: Path) -> bytes:
    write_sample(tmp_path / "sample.glb")
    return (tmp_path / "sample.glb").read_bytes()


@pytest.fixture(autouse=True)
def _no_cache_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threestudio_redream.retrieval.sources.objaverse.PACKAGE_CACHE", tmp_path / "package")


def captions(tmp_path: Path, *rows: list[str]) -> Path:
    path = tmp_path / "cap3d.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows or [[uid, f"caption {index}, of a thing"] for index, uid in enumerate(UIDS)])
    return path


def make(server: Server, tmp_path: Path, **options: Any) -> ObjaverseSource:
    return ObjaverseSource(
        captions(tmp_path), **{"cache": tmp_path / "cache", "base_url": server.url, "limits": QUICK, **options}
    )


def put_file(server: Server, index: int, *answers: Any) -> None:
    server.put(f"/glbs/{FOLDERS[index % 2]}/{UIDS[index]}.glb", *answers)


def record(index: int) -> AssetRecord:
    return AssetRecord(UIDS[index], "x", "x")


def test_captions_and_licences_become_records_without_any_asset(server: Server, tmp_path: Path) -> None:
    source, seen = make(server, tmp_path), []
    source.prepare(lambda *state: seen.append(state))
    assert seen == [(1, 2), (2, 2)]
    found = {record.asset_id: record for record in source.records()}
    assert [UIDS.index(uid) for uid in found] == [0, 2, 3, 5, 6]
    first = found[UIDS[0]]
    assert (first.caption, first.caption_source, first.name) == ("caption 0, of a thing", "cap3d", "Thing 0")
    assert (first.author, first.licence, first.tags) == ("User 0", "CC-BY-4.0", ("toy", "red"))
    assert (first.path, first.sha256, first.n_bytes, found[UIDS[5]].n_faces) == ("", "", 0, 500)
    assert {row.reason.partition(":")[0] for row in source.rejected} == {"1 left out"}
    assert len(source.rejected) == 3  # non-commercial, no derivatives, and one that nobody annotated
    assert not any(path.startswith("/glbs") for path, _ in server.requests)


def test_preparing_again_asks_for_nothing_and_an_interrupted_one_goes_on(server: Server, tmp_path: Path) -> None:
    good = server.answers["/metadata/000-001.json.gz"]
    server.put("/metadata/000-001.json.gz", status(404))
    source = make(server, tmp_path)
    with pytest.raises(FetchError, match="404"):
        source.prepare()
    assert [file.asset_id for file in source.planned_metadata()] == ["metadata/000-001.json.gz"]
    server.answers["/metadata/000-001.json.gz"] = good
    source.prepare()
    source.prepare()
    counts = Counter(path for path, _ in server.requests)
    assert counts == {"/object-paths.json.gz": 1, "/metadata/000-000.json.gz": 1, "/metadata/000-001.json.gz": 2}
    assert source.planned_metadata() == []
    assert sorted(path.name for path in (tmp_path / "cache").rglob("*.gz")) == []


def test_without_licences_nothing_is_offered_unless_asked_for(server: Server, tmp_path: Path) -> None:
    source = make(server, tmp_path)
    with pytest.raises(SourceError, match="licences of Objaverse are not here yet") as caught:
        next(source.records())
    assert "prepare" in caught.value.fix
    assert len(source.planned_metadata()) == 161
    wide = make(server, tmp_path, policy=LicencePolicy(unknown=True))
    assert len(list(wide.records())) == 8
    assert server.requests == []
    with pytest.raises(SourceError, match="captions"):
        next(ObjaverseSource(cache=tmp_path).records())
    with pytest.raises(SourceError, match="captions"):
        next(open_source("objaverse", cache=tmp_path).records())


def test_filters_shards_and_settings(server: Server, tmp_path: Path) -> None:
    source = make(server, tmp_path, policy=LicencePolicy(non_commercial=True, unknown=False), max_faces=400)
    source.prepare()
    again = open_source(**json.loads(json.dumps(source.settings)))
    whole_set = [record.asset_id for record in again.records()]
    assert [UIDS.index(uid) for uid in whole_set] == [0, 1, 2, 3]
    assert any("more than 400 faces" in row.reason for row in again.rejected)
    parts = [[record.asset_id for record in source.records(shard, 3)] for shard in range(3)]
    assert sorted(uid for part in parts for uid in part) == whole_set
    with pytest.raises(SourceError, match="no such fetcher"):
        make(server, tmp_path, fetcher="curl")


def test_a_file_is_fetched_when_it_is_opened_and_once(server: Server, tmp_path: Path, sample: bytes) -> None:
    put_file(server, 3, status(503), whole(sample, stop_after=500), whole(sample))
    source = make(server, tmp_path, limits=replace(QUICK, retries=3))
    path = source.open(record(3))
    assert path == tmp_path / "cache" / "glbs" / "000-001" / f"{UIDS[3]}.glb"
    assert path.read_bytes() == sample
    asked = len(server.requests)
    assert source.open(record(3)) == path
    assert len(server.requests) == asked
    with pytest.raises(FetchError, match="another sha256"):
        source.open(replace(record(3), sha256="0" * 64))


def test_an_error_page_never_becomes_an_asset(server: Server, tmp_path: Path) -> None:
    put_file(server, 1, whole(b"<html><body>Sign in</body></html>"))
    source = make(server, tmp_path)
    with pytest.raises(FetchError, match="page instead of a mesh"):
        source.open(record(1))
    assert list((tmp_path / "cache").rglob("*.glb")) == []


def test_only_uids_of_the_data_set_are_fetched(server: Server, tmp_path: Path) -> None:
    source = make(server, tmp_path)
    for uid in ("evil", "../../etc/passwd", "f" * 32):
        with pytest.raises(SourceError) as caught:
            source.open(AssetRecord(uid, "x", "x"))
        assert caught.value.received == uid
        assert caught.value.fix
    assert {path for path, _ in server.requests} == {"/object-paths.json.gz"}


def test_what_the_package_has_fetched_before_is_used_if_it_is_good(
    server: Server, tmp_path: Path, sample: bytes
) -> None:
    shared = tmp_path / "package" / "glbs" / "000-000" / f"{UIDS[2]}.glb"
    shared.parent.mkdir(parents=True)
    shared.write_bytes(sample)
    source = make(server, tmp_path)
    source.prepare()
    assert source.open(record(2)) == shared
    assert source.planned_file(record(2)).state == "present"
    shared.write_bytes(b"<html>" + sample)
    assert source.planned_file(record(2)).state == "missing"
    put_file(server, 2, whole(sample))
    assert source.open(record(2)).is_relative_to(tmp_path / "cache")


def test_the_plan_lists_files_bytes_and_licences_and_downloads_nothing(
    server: Server, tmp_path: Path, sample: bytes
) -> None:
    put_file(server, 0, whole(sample))
    put_file(server, 2, whole(sample, stop_after=300))
    source = make(server, tmp_path, limits=replace(QUICK, retries=0, max_bytes=1_000_000))
    source.prepare()
    source.open(record(0))
    with pytest.raises(FetchError):
        source.open(record(2))
    asked = len(server.requests)
    plan = plan_fetch(source, [record(index) for index in (0, 1, 2, 3, 7)])
    assert [file.state for file in plan.files] == ["present", "refused", "partial", "missing", "refused"]
    assert len(server.requests) == asked
    summary = json.loads(json.dumps(plan.to_json()))
    assert (summary["n_files"], summary["n_bytes"], summary["n_unknown_size"]) == (2, 1002 + 1003, 0)
    assert summary["licences"] == {"CC-BY-SA-4.0": 1, "CC0-1.0": 1}
    assert summary["files"][3]["url"] == f"{server.url}/glbs/000-001/{UIDS[3]}.glb"
    text = plan.to_text()
    assert "by User 3" in text
    assert "forbids commercial use" in text
    assert text.splitlines()[-3:] == ["to fetch: 2 files, 2.0 kB", "  1 x CC-BY-SA-4.0", "  1 x CC0-1.0"]
    with pytest.raises(SourceError, match="holds no such asset"):
        plan_fetch(source, [AssetRecord("f" * 32, "x", "x")])
    small = make(server, tmp_path, limits=replace(QUICK, max_bytes=1002))
    assert "larger than the cap" in plan_fetch(small, [record(3)]).files[0].note


def test_an_index_from_elsewhere_is_planned_and_fetched_without_the_catalogue(
    server: Server, tmp_path: Path, sample: bytes
) -> None:
    put_file(server, 0, whole(sample))
    source = make(server, tmp_path)
    stated = [replace(record(0), licence="CC-BY-4.0"), record(1)]
    plan = plan_fetch(source, stated)
    assert [(file.state, file.n_bytes, file.url) for file in plan.files] == [
        ("missing", None, ""),
        ("refused", None, ""),
    ]
    assert "object-paths.json.gz" in plan.files[0].note
    assert server.requests == []
    assert list(fetch(source, stated).paths) == [UIDS[0]]
    assert [path for path, _ in server.requests] == ["/object-paths.json.gz", f"/glbs/000-000/{UIDS[0]}.glb"]


def test_the_plan_of_the_metadata_says_what_it_does_not_know(server: Server, tmp_path: Path) -> None:
    from threestudio_redream.retrieval.fetching.plan import FetchPlan

    plan = FetchPlan(tuple(make(server, tmp_path).planned_metadata()))
    assert "161 of unknown size" in plan.to_text()
    assert [human_bytes(count) for count in (None, 0, 999, 1000, 1_500_000, 999_999, 5e15)] == [
        "?", "0 B", "999 B", "1.0 kB", "1.5 MB", "1.0 MB", "5000.0 TB",
    ]  # fmt: skip


def test_fetching_goes_on_after_a_failure(server: Server, tmp_path: Path, sample: bytes) -> None:
    put_file(server, 0, whole(sample))
    put_file(server, 3, status(404))
    put_file(server, 5, whole(sample))
    source, seen = make(server, tmp_path), []
    source.prepare()
    done = fetch(source, [record(index) for index in (0, 1, 3, 5)], lambda *state: seen.append(state))
    assert [UIDS.index(uid) for uid in done.paths] == [0, 5]
    assert "404" in done.failures[UIDS[3]]
    assert "commercial" in done.failures[UIDS[1]]
    assert seen[-1] == (4, 4)


@pytest.mark.parametrize("body", [b"<html>", packed({})[:-6], gzip.compress(b"{"), b""])
def test_damaged_metadata_is_refused_and_fetched_again(server: Server, tmp_path: Path, body: bytes) -> None:
    good = server.answers["/object-paths.json.gz"]
    server.put("/object-paths.json.gz", whole(body))
    source = make(server, tmp_path)
    with pytest.raises(FetchError):
        source.prepare()
    server.answers["/object-paths.json.gz"] = good
    source.prepare()
    assert len(list(source.records())) == 5


@pytest.mark.parametrize("value", [[], "x", {"a": "b"}, {UIDS[0]: 3}, {UIDS[0]: f"glbs/000-000/{UIDS[1]}.glb"}])
def test_odd_metadata_adds_nothing(tmp_path: Path, value: Any) -> None:
    with Catalogue(tmp_path / "c.sqlite") as catalogue:
        assert catalogue.add_paths(value, "p") == 0
        catalogue.add_annotations(value, "a")
        assert catalogue.folders() == []


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["name", "license", "user", "tags", "archives", "faceCount"])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.dictionaries(KEYS, JSON | st.dictionaries(st.sampled_from(["displayName", "glb", "name"]), JSON)))
def test_any_annotation_fits_the_catalogue(said: dict[str, Any]) -> None:
    with Catalogue(":memory:") as catalogue:
        catalogue.add_paths({UIDS[0]: f"glbs/000-000/{UIDS[0]}.glb"}, "p")
        catalogue.add_annotations({UIDS[0]: said}, "a")
        entry = catalogue.look_up(UIDS)[UIDS[0]]
    assert entry.faces >= 0
    assert len(entry.tags) <= 16


def test_a_broken_catalogue_and_a_bomb_are_named(tmp_path: Path) -> None:
    (tmp_path / "c.sqlite").write_bytes(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(SourceError, match=r"c\.sqlite") as caught:
        Catalogue(tmp_path / "c.sqlite")
    assert "Remove it" in caught.value.fix
    (tmp_path / "bomb.json.gz").write_bytes(gzip.compress(b" " * 10_000_000))
    with pytest.raises(SourceError, match="unpacks to more than"):
        read_packed_json(tmp_path / "bomb.json.gz", cap=1_000_000)


def test_captions_are_read_as_they_come(tmp_path: Path) -> None:
    path = captions(
        tmp_path, ["uid", "caption"],
        [UIDS[0], "a red, \"round\" thing\nof two lines"], [UIDS[1].upper() + ".glb", "x"],
        [UIDS[0], "again"], [UIDS[2], " "], ["a" * 64, "from XL"], ["lonely"], [UIDS[3], "one", " two"],
    )  # fmt: skip
    skipped: Counter[str] = Counter()
    assert list(read_cap3d(path, skipped)) == [
        (UIDS[0], 'a red, "round" thing of two lines'), (UIDS[1], "x"), (UIDS[3], "one, two"),
    ]  # fmt: skip
    assert sorted(skipped.values()) == [1, 1, 1, 2]


def test_captions_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, words in (("none.csv", "cannot be read"), ("caps.pkl", "pickle")):
        with pytest.raises(SourceError, match=words):
            list(read_cap3d(tmp_path / name))
    (tmp_path / "long.csv").write_text(f"{UIDS[0]}," + "x" * 100_000)
    with pytest.raises(SourceError, match="not a CSV"):
        list(read_cap3d(tmp_path / "long.csv"))
    monkeypatch.setattr("threestudio_redream.retrieval.sources.cap3d.MAX_ROWS", 2)
    with pytest.raises(SourceError, match="too many rows"):
        list(read_cap3d(captions(tmp_path)))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_any_captions_are_read_or_refused(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "c.csv")
        path.write_bytes(data + f"\n{UIDS[0]},fine\n".encode())
        try:
            rows = list(read_cap3d(path))
        except SourceError:
            rows = []
        assert all(len(uid) == 32 and caption for uid, caption in rows)


def fake_package(monkeypatch: pytest.MonkeyPatch, load: Any) -> None:
    module = types.ModuleType("objaverse")
    module.load_objects = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "objaverse", module)


def test_the_package_can_fetch_and_is_checked(
    server: Server, tmp_path: Path, sample: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "theirs.glb"

    def load(uids: list[str]) -> dict[str, str]:
        print("Downloaded 1 / 1 objects")  # noqa: T201  as the package does
        return {uids[0]: str(theirs)}

    fake_package(monkeypatch, load)
    source = make(server, tmp_path, fetcher="package")
    source.prepare()
    theirs.write_bytes(b"<html>sign in</html>")
    with pytest.raises(FetchError, match="no mesh"):
        source.open(record(0))
    theirs.write_bytes(sample)
    with pytest.raises(FetchError, match="another sha256"):
        source.open(replace(record(0), sha256="0" * 64))
    with pytest.raises(FetchError, match="larger than the cap"):
        make(server, tmp_path, fetcher="package", limits=replace(QUICK, max_bytes=500)).open(record(0))
    assert list((tmp_path / "cache").rglob("*.glb")) == []
    assert source.open(record(0)).read_bytes() == sample
    assert capsys.readouterr().out == ""
    for broken in (lambda uids: {}, lambda uids: {}[uids[0]] if False else (_ for _ in ()).throw(OSError("cut"))):
        fake_package(monkeypatch, broken)
        with pytest.raises(FetchError, match="objaverse package"):
            source.open(record(2))


def test_without_the_package_the_extra_is_named(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "objaverse", None)
    with pytest.raises(MissingExtraError, match=r"threestudio-redream\[objaverse\]"):
        make(server, tmp_path, fetcher="package").open(record(0))


def test_the_default_cache_follows_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "threestudio-redream" / "objaverse"
    assert ObjaverseSource().cache == default_cache()
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache().is_relative_to(Path.home())
