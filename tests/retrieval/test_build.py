"""Building an index: the steps, what is left out, resuming after a kill, the same content whoever runs the shards."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from threestudio_redream.errors import ConfigError
from threestudio_redream.executors import LocalExecutor, WorkerDiedError
from threestudio_redream.retrieval.build import chunks as build_chunks
from threestudio_redream.retrieval.build import run as build_module
from threestudio_redream.retrieval.build.ingest import is_unchanged
from threestudio_redream.retrieval.build.plan import Plan, work_folder
from threestudio_redream.retrieval.build.run import BuildSettings, SourceSpec, build_index, settings_of_index
from threestudio_redream.retrieval.errors import IndexMismatchError, RetrievalError
from threestudio_redream.retrieval.index.reader import Index
from threestudio_redream.retrieval.index.verify import verify_index
from threestudio_redream.retrieval.types import AssetRecord
from threestudio_redream.retrieval.views import ViewSpec
from tools.mini.write_assets import write_assets

pytestmark = pytest.mark.usefixtures("one_thread")
#: Builds in a child and kills it after a while, again and again; whatever index is there must open.
KILLER = """
import json, os, random, signal, sys, time
import numba, torch, transformers
from transformers import CLIPModel, CLIPTokenizerFast
from threestudio_redream.retrieval.build.run import *
from threestudio_redream.retrieval.index.reader import Index
torch.set_num_threads(1)
settings = BuildSettings.from_json(json.loads(sys.argv[3]))
random.seed(4)
kills = 0
while kills < int(sys.argv[4]):
    child = os.fork()
    if child == 0:
        build_index(SourceSpec(sys.argv[1]), sys.argv[2], settings)
        os._exit(0)
    time.sleep(random.uniform(0.0, 0.7))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kills += 1
    if os.path.exists(sys.argv[2] + "/manifest.json"):
        Index.open(sys.argv[2])
        if random.random() < 0.5:
            import shutil
            shutil.rmtree(sys.argv[2])
print(kills)
"""
WORDS = {"empty", "page", "cut", "twin", "sale"}
FEW_VIEWS = ViewSpec(azimuths_deg=(0.0, 120.0, 240.0), supersample=1)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight objects of two kinds with sidecars, and five files that cannot or must not be used."""
    folder = tmp_path_factory.mktemp("library") / "shelf"
    write_assets(folder, ["chair", "cactus"])
    good = sorted(folder.glob("*.glb"))
    (folder / "zz").mkdir()
    (folder / "zz" / "empty.glb").write_bytes(b"")
    (folder / "zz" / "page.glb").write_text("<html>not found</html>")
    (folder / "zz" / "cut.glb").write_bytes(good[0].read_bytes()[:400])
    shutil.copy(good[-1], folder / "zz" / "twin of another.glb")
    shutil.copy(good[2], folder / "zz" / "not for sale.glb")
    (folder / "zz" / "not for sale.json").write_text(json.dumps({"caption": "a thing", "licence": "CC-BY-NC-4.0"}))
    return folder


@pytest.fixture(scope="module")
def settings(tiny_clip: Path) -> BuildSettings:
    return BuildSettings(
        encoder=f"hf:{tiny_clip}", views=FEW_VIEWS, chunk_size=3, align=False, duplicate_cosine=0.99999
    )


@pytest.fixture(scope="module")
def built(library: Path, settings: BuildSettings, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("built") / "index"
    calls: list[tuple] = []
    summary = build_index(SourceSpec(str(library)), out, settings, progress=lambda *call: calls.append(call))
    return out, {**summary, "calls": calls}


def content(folder: Path) -> dict[str, Any]:
    """What two equal indexes have in common, whatever the order of their rows."""
    index = Index.open(folder)
    return {
        "content": index.manifest.content,
        "records": sorted((record.asset_id, repr(record)) for record in index.records()),
        "rejected": sorted(json.dumps(row, sort_keys=True) for row in index.rejected()),
        "calibration": index.manifest.calibration,
    }


# --- content --------------------------------------------------------------------------------------


def test_a_folder_becomes_an_index(built: tuple[Path, dict], library: Path) -> None:
    out, summary = built
    assert (summary["assets"], summary["added"], summary["unchanged"]) == (8, 8, 0)
    assert summary["rejected"] == 5
    index = Index.open(out)
    assert len(index) == 8
    assert not verify_index(out)
    reasons = {row["item"]: (row["stage"], row["reason"]) for row in index.rejected()}
    assert {next(word for word in WORDS if word in item) for item in reasons} == WORDS
    assert {stage for stage, _ in reasons.values()} == {"load", "licence", "duplicate"}
    assert str(library) not in json.dumps(reasons)
    assert summary["reasons"] == {"load": 3, "licence": 1, "duplicate": 1}
    assert not work_folder(out).exists()
    assert str(library) not in (out / "manifest.json").read_text()
    assert index.manifest.calibration is not None


def test_records_carry_what_was_found_out(built: tuple[Path, dict]) -> None:
    index = Index.open(built[0])
    records = {record.asset_id: record for record in index.records()}
    for record in records.values():
        assert record.n_faces > 0
        assert record.licence == "CC0-1.0"
        assert (record.front_deg == 0.0) == ("chair" in record.name)
        assert record.front_source == "sidecar"  # which says of a cactus that it has no front


def test_vectors_are_those_of_the_encoder(built: tuple[Path, dict], library: Path, settings: BuildSettings) -> None:
    from threestudio_redream.retrieval.encoders import open_encoder
    from threestudio_redream.retrieval.views import open_record, render_views

    index, encoder = Index.open(built[0]), open_encoder(settings.encoder)
    record = next(index.records())
    images = render_views(open_record(library / record.path, record), FEW_VIEWS, encoder.image_size).images
    np.testing.assert_allclose(index.view_vectors(record.asset_id), encoder.encode_images(images), atol=1e-3)
    np.testing.assert_allclose(index.text_vector(record.asset_id), encoder.encode_texts([record.caption])[0], atol=1e-3)
    thumb = index.thumb(record.asset_id)
    assert thumb is not None
    np.testing.assert_array_equal(thumb, np.rint(images[0] * 255).astype(np.uint8))
    spec = index.manifest.spec
    assert ViewSpec.from_json(spec.cameras) == FEW_VIEWS
    assert spec.settings["source"] == "folder:shelf"


def test_progress_is_reported(built: tuple[Path, dict]) -> None:
    calls = built[1]["calls"]
    assert [call[0] for call in calls][:1] == ["ingest"]
    assert calls[-1] == ("index", 1, 1, 0.0)
    embed = [call for call in calls if call[0] == "embed"]
    assert embed[0][1] == 0
    assert embed[-1][1] == embed[-1][2] == 4


# --- repeating, adding, resuming ------------------------------------------------------------------


def test_building_again_changes_nothing(built: tuple[Path, dict], library: Path, settings: BuildSettings) -> None:
    out, _ = built
    before = (out / "manifest.json").read_bytes()
    summary = build_index(SourceSpec(str(library)), out, settings)
    assert (summary["added"], summary["unchanged"], summary["assets"]) == (0, 8, 8)
    assert (out / "manifest.json").read_bytes() == before


def test_adding_and_replacing(library: Path, settings: BuildSettings, built: tuple[Path, dict], tmp_path: Path) -> None:
    shelf, out = tmp_path / "shelf", tmp_path / "index"
    shutil.copytree(library, shelf)
    for path in [*shelf.glob("cactus*"), *shelf.glob("zz/*")]:
        path.unlink()
    build_index(SourceSpec(str(shelf)), out, settings)
    first = content(out)
    assert len(first["records"]) == 4
    for path in library.glob("cactus*"):
        shutil.copy(path, shelf)
    side = sorted(shelf.glob("chair*.json"))[0]
    values = json.loads(side.read_text())
    side.write_text(json.dumps({**values, "caption": "a very special throne"}))
    summary = build_index(
        SourceSpec(str(shelf)),
        out,
        settings_of_index(out, BuildSettings(chunk_size=2, align=False, duplicate_cosine=0.99999)),
    )
    assert (summary["added"], summary["unchanged"], summary["assets"]) == (5, 3, 8)
    assert "a very special throne" in {record.caption for record in Index.open(out).records()}
    side.write_text(json.dumps(values))
    build_index(SourceSpec(str(shelf)), out, settings)
    assert Index.open(out).manifest.content == Index.open(built[0]).manifest.content  # however it came about
    shutil.copy(next(iter(sorted(shelf.glob("cactus*.glb")))), shelf / "the same once more.glb")
    assert build_index(SourceSpec(str(shelf)), out, settings)["reasons"] == {"duplicate": 1}


def test_another_encoder_or_other_cameras_are_refused_before_the_work(
    built: tuple[Path, dict], library: Path, settings: BuildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_module, "ingest", lambda *_: pytest.fail("the source was read"))
    with pytest.raises(IndexMismatchError, match="camera"):
        build_index(SourceSpec(str(library)), built[0], replace(settings, views=replace(FEW_VIEWS, elevation_deg=5.0)))
    with pytest.raises(IndexMismatchError, match="number format"):
        build_index(SourceSpec(str(library)), built[0], replace(settings, dtype="float32"))


def test_steps_and_shards_one_by_one(
    library: Path, settings: BuildSettings, built: tuple[Path, dict], tmp_path: Path
) -> None:
    out, source = tmp_path / "index", SourceSpec(str(library))
    with pytest.raises(RetrievalError, match="no plan"):
        build_index(source, out, settings, steps=["render"])
    planned = build_index(source, out, settings, steps=["ingest"])
    assert (planned["chunks"], planned["chunks_done"]) == (4, 0)
    assert build_index(source, out, settings, steps=["render"], shard=(0, 2))["chunks_done"] == 0
    with pytest.raises(RetrievalError, match="4 of 4 chunks") as caught:
        build_index(source, out, settings, steps=["index"])
    assert "render and embed" in caught.value.fix
    assert build_index(source, out, settings, steps=["embed"])["chunks_done"] == 2  # those that are rendered
    assert build_index(source, out, settings, shard=(1, 2))["chunks_done"] == 4
    assert not out.exists()
    build_index(source, out, settings, steps=["index"])
    assert content(out) == content(built[0])
    build_index(source, tmp_path / "b", settings, steps=["ingest"])
    with pytest.raises(ConfigError, match="other settings"):
        build_index(source, tmp_path / "b", replace(settings, batch_size=7), steps=["render"])


def test_a_shard_makes_the_plan_if_there_is_none(
    library: Path, settings: BuildSettings, built: tuple[Path, dict], tmp_path: Path
) -> None:
    out, source = tmp_path / "index", SourceSpec(str(library))
    work = tmp_path / "somewhere"
    for shard in range(3):
        build_index(source, out, settings, shard=(shard, 3), work=work)
    build_index(source, out, settings, work=work, keep_work=True)
    assert work.is_dir()
    assert content(out) == content(built[0])


def test_staged_parts_of_another_build_are_not_taken(
    library: Path, settings: BuildSettings, built: tuple[Path, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threestudio_redream.retrieval.index.writer import IndexWriter

    out, source = tmp_path / "index", SourceSpec(str(library))

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(IndexWriter, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            build_index(source, out, replace(settings, dtype="float32"))
    build_index(source, out, settings)
    assert content(out) == content(built[0])


@pytest.mark.slow
def test_kill_9_at_any_time(library: Path, settings: BuildSettings, built: tuple[Path, dict], tmp_path: Path) -> None:
    """The build goes on where it was, and ends like one that was left in peace."""
    out = tmp_path / "index"
    command = [sys.executable, "-c", KILLER, str(library), str(out), json.dumps(settings.to_json()), "6"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["6"]
    build_index(SourceSpec(str(library)), out, settings)
    assert content(out) == content(built[0])
    assert not verify_index(out)
    assert not work_folder(out).exists()


# --- bad assets and bad workers -------------------------------------------------------------------


def test_whatever_an_asset_raises_is_a_row(
    library: Path, settings: BuildSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = build_chunks.render_sets

    def sometimes(asset: Any, *arguments: Any) -> Any:
        if "cactus" in asset.name:
            raise FloatingPointError("out of luck")
        return real(asset, *arguments)

    monkeypatch.setattr(build_chunks, "render_sets", sometimes)
    out = tmp_path / "index"
    summary = build_index(SourceSpec(str(library)), out, settings)
    assert summary["assets"] == 4
    assert "FloatingPointError: out of luck" in {row["reason"] for row in Index.open(out).rejected()}


class Dying:
    """An executor whose workers die on certain assets, as a crash in native code would make them."""

    name, workers = "local", 1

    def __init__(self, victim: Callable[[str], bool]) -> None:
        self.victim, self.deaths = victim, 0

    def run(self, function: Callable[..., Any], jobs: Sequence[tuple]) -> Iterator[Any]:
        real = build_chunks._render_safely

        def deadly(plan: Plan, source: Any, record: AssetRecord) -> Any:
            if self.victim(record.asset_id):
                self.deaths += 1
                raise WorkerDiedError("gone", received=record.asset_id)
            return real(plan, source, record)

        build_chunks._render_safely = deadly
        try:
            for job in jobs:
                yield function(*job)
        finally:
            build_chunks._render_safely = real


def test_an_asset_that_kills_workers_is_left_out(library: Path, settings: BuildSettings, tmp_path: Path) -> None:
    executor, out = Dying(lambda asset_id: "cactus" in asset_id), tmp_path / "index"
    summary = build_index(SourceSpec(str(library)), out, settings, executor=executor)
    assert summary["assets"] == 4
    assert executor.deaths == 8  # twice each
    assert "died 2 times" in " ".join(row["reason"] for row in Index.open(out).rejected())


def test_workers_that_die_for_no_reason_are_an_error(library: Path, settings: BuildSettings, tmp_path: Path) -> None:
    class Broken:
        name, workers = "local", 2

        def run(self, function: Any, jobs: Any) -> Iterator[Any]:
            raise WorkerDiedError("gone", received="?")
            yield

    with pytest.raises(WorkerDiedError):
        build_index(SourceSpec(str(library)), tmp_path / "index", settings, executor=Broken())


def test_nothing_usable(tmp_path: Path, settings: BuildSettings) -> None:
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "red chair.glb").write_bytes(b"glTF")
    summary = build_index(SourceSpec(str(tmp_path / "shelf")), tmp_path / "index", settings)
    assert (summary["assets"], summary["rejected"]) == (0, 1)
    assert len(Index.open(tmp_path / "index")) == 0


def test_captions_only_and_copies(library: Path, settings: BuildSettings, tmp_path: Path) -> None:
    plain = replace(settings, views=None, align=True, copy_assets=True)
    out = tmp_path / "index"
    summary = build_index(SourceSpec(str(library)), out, plain)
    assert summary["assets"] == 9  # a twin is recognised by its views only
    index = Index.open(out)
    record = next(index.records())
    assert index.view_vectors(record.asset_id) is None
    copy = index.asset_path(record)
    assert copy is not None
    assert copy.read_bytes() == (library / record.path).read_bytes()


def test_alignment_asks_only_for_unknown_fronts(library: Path, settings: BuildSettings, tmp_path: Path) -> None:
    from threestudio_redream.retrieval.orientation import ClipAligner

    shelf, out, asked = tmp_path / "shelf", tmp_path / "index", []
    shelf.mkdir()
    for path in [*library.glob("chair*.glb"), *sorted(library.glob("chair*.json"))[:1]]:
        shutil.copy(path, shelf)
    real = ClipAligner.align

    def noted(self: ClipAligner, images: np.ndarray, caption: str) -> Any:
        asked.append((images.shape, caption))
        return replace(real(self, images, caption), front_deg=-45.0 if len(asked) == 1 else None)

    ClipAligner.align = noted  # type: ignore[method-assign]
    try:
        build_index(SourceSpec(str(shelf)), out, replace(settings, align=True))
    finally:
        ClipAligner.align = real  # type: ignore[method-assign]
    fronts = [(record.front_source, record.front_deg) for record in Index.open(out).records()]
    assert 3 == len(asked) == sum(source != "sidecar" for source, _ in fronts)
    assert ("clip", -45.0) in fronts
    assert set(fronts) <= {("sidecar", 0.0), ("clip", -45.0), ("unknown", None)}
    assert asked[0][0] == (24, 64, 64, 3)
    build_index(SourceSpec(str(shelf)), out, replace(settings, align=True))
    assert [(record.front_source, record.front_deg) for record in Index.open(out).records()] == fronts


def test_what_counts_as_unchanged() -> None:
    new = AssetRecord("a", "A", "a thing", path="a.glb", sha256="0" * 64, n_bytes=5)
    old = replace(new, n_faces=12, front_deg=90.0, front_source="clip")
    assert is_unchanged(old, new)
    assert not is_unchanged(old, replace(new, caption="another"))
    assert not is_unchanged(old, replace(new, sha256="1" * 64))
    assert not is_unchanged(old, replace(new, front_deg=0.0, front_source="sidecar"))
    assert not is_unchanged(replace(old, front_source="sidecar"), new)
    assert is_unchanged(old, replace(new, sha256="", n_bytes=0))


# --- executors ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_give_the_same_content(
    library: Path, settings: BuildSettings, built: tuple[Path, dict], tmp_path: Path
) -> None:
    out = tmp_path / "index"
    build_index(SourceSpec(str(library)), out, settings, executor=LocalExecutor(2))
    assert content(out) == content(built[0])


@pytest.mark.parametrize(
    ("steps", "shard", "message"),
    [([], None, "no such step"), (["paint"], None, "no such step"), (["ingest"], (2, 2), "shard must be")],
)
def test_options_that_make_no_sense(
    library: Path, settings: BuildSettings, tmp_path: Path, steps: list, shard: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_index(SourceSpec(str(library)), tmp_path / "index", settings, steps=steps, shard=shard)
    with pytest.raises(ConfigError, match="chunk size"):
        BuildSettings(chunk_size=0)
    with pytest.raises(ConfigError, match="near-duplicates"):
        BuildSettings(duplicate_cosine=0.0)


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"format": "other"}'])
def test_damaged_plans(tmp_path: Path, damage: str) -> None:
    (tmp_path / "plan.json").write_text(damage)
    with pytest.raises(RetrievalError, match="cannot be used") as caught:
        Plan.load(tmp_path)
    assert "Delete the work folder" in caught.value.fix
