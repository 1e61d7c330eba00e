"""An index from a stranger, or from a bad disk: every deviation has an error of its own that names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_index import ToyEncoder, stage_toys, toy_records, toy_spec, write_toy_index

from threestudio_redream.retrieval.errors import IndexDamagedError, IndexMismatchError, RetrievalError
from threestudio_redream.retrieval.index import integrity
from threestudio_redream.retrieval.index.integrity import file_entry
from threestudio_redream.retrieval.index.journal import STAGING, Journal
from threestudio_redream.retrieval.index.manifest import MANIFEST, Manifest, read_manifest
from threestudio_redream.retrieval.index.reader import Index
from threestudio_redream.retrieval.index.verify import verify_index
from threestudio_redream.retrieval.index.writer import IndexWriter


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    write_toy_index(folder, 30)
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "index"))


def all_files(folder: Path) -> list[str]:
    return sorted(entry.path for entry in read_manifest(folder).entries())


def part_file(folder: Path, part: int, name: str) -> str:
    return read_manifest(folder).parts[part].files[name].path


def resign(folder: Path, change: Callable[[Manifest], Manifest]) -> None:
    """Rewrite the manifest as somebody would who knows the format: its digest is right."""
    (folder / MANIFEST).write_bytes(change(read_manifest(folder)).to_bytes())


def resign_files(folder: Path) -> None:
    """Make the manifest agree with the files as they are."""

    def change(manifest: Manifest) -> Manifest:
        parts = tuple(
            replace(part, files={n: file_entry(folder / entry.path, entry.path) for n, entry in part.files.items()})
            for part in manifest.parts
        )
        return replace(manifest, parts=parts)

    resign(folder, change)


def check(folder: Path, kind: str, file: str, *, verify: bool = True) -> None:
    with pytest.raises(IndexDamagedError) as caught:
        Index.open(folder)
    problems = verify_index(folder) if verify else [caught.value]
    for error in [caught.value, *problems[:1]]:
        assert isinstance(error, IndexDamagedError)
        assert (error.kind, error.file) == (kind, file)
        assert str(error).startswith(file)
        assert error.received is not ...
        assert error.fix


def test_every_file_missing_or_changed(sound: Path, tmp_path: Path) -> None:
    for number, file in enumerate(all_files(sound)):
        folder = Path(shutil.copytree(sound, tmp_path / f"missing-{number}"))
        (folder / file).unlink()
        check(folder, "missing", file)
        for where in (0, 0.5, 1):
            folder = Path(shutil.copytree(sound, tmp_path / f"changed-{number}-{where}"))
            data = bytearray((folder / file).read_bytes())
            data[int(where * (len(data) - 1))] ^= 1
            (folder / file).write_bytes(data)
            check(folder, "changed", file)
        folder = Path(shutil.copytree(sound, tmp_path / f"short-{number}"))
        (folder / file).write_bytes((folder / file).read_bytes()[:-1])
        check(folder, "changed", file)
        with pytest.raises(IndexDamagedError, match="changed"):
            Index.open(folder, check="quick")


def test_all_problems_are_listed(folder: Path) -> None:
    files = all_files(folder)
    (folder / files[0]).unlink()
    (folder / files[-1]).write_bytes(b"")
    (folder / "evil.pkl").write_bytes(b"x")
    problems = verify_index(folder)
    assert {getattr(p, "kind", "") for p in problems} == {"missing", "changed", "extra"}
    assert {getattr(p, "file", "") for p in problems} == {files[0], files[-1], "evil.pkl"}


@pytest.mark.parametrize("extra", ["evil.pkl", "parts/x.npy", "ann/index.faiss", "assets/a.glb", ".hidden"])
def test_extra_file(folder: Path, extra: str) -> None:
    (folder / extra).parent.mkdir(exist_ok=True)
    (folder / extra).write_bytes(b"x")
    check(folder, "extra", extra)


def test_extra_file_in_a_part(folder: Path) -> None:
    extra = part_file(folder, 0, "text.npy").replace("text", "more")
    (folder / extra).write_bytes(b"x")
    check(folder, "extra", extra)


def test_swapped_files(folder: Path) -> None:
    first, second = (part_file(folder, part, "text.npy") for part in (0, 1))
    (folder / first).rename(folder / "x")
    (folder / second).rename(folder / first)
    (folder / "x").rename(folder / second)
    check(folder, "swapped", first)
    with pytest.raises(IndexDamagedError, match=f"holds what {second}"):
        Index.open(folder)


def test_large_indexes_are_spot_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "_AUTO_BYTES", 0)
    assert len(Index.open(folder)) == 30
    first, second = (part_file(folder, part, "thumbs.npy") for part in (0, 1))
    data = (folder / second).read_bytes()
    (folder / second).write_bytes((folder / first).read_bytes())
    check(folder, "swapped", second)
    flipped = bytearray(data)
    flipped[10_000] ^= 1  # between two of the blocks
    (folder / second).write_bytes(flipped)
    with pytest.raises(IndexDamagedError, match="changed"):
        Index.open(folder, check="full")


def test_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    file = part_file(folder, 0, "text.npy")
    (folder / file).rename(tmp_path / "elsewhere.npy")
    (folder / file).symlink_to(tmp_path / "elsewhere.npy")
    check(folder, "missing", file)


def test_linked_folder_is_extra(folder: Path, tmp_path: Path) -> None:
    (folder / "parts" / "more").symlink_to(tmp_path)
    check(folder, "extra", "parts/more")


@pytest.mark.parametrize("place", [".staging", ".staging/parts", ".staging/lock", "ann", "assets", ".staging/merge"])
def test_a_writer_follows_no_link(folder: Path, tmp_path: Path, place: str) -> None:
    """An index from a stranger leads to the user's own files, and notes that they are to be deleted."""
    own = tmp_path / "home"
    (own / "documents").mkdir(parents=True)
    (own / "documents" / "thesis.txt").write_text("four years")
    link = folder / place
    if link.exists():
        shutil.rmtree(link)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(own / "documents" / "thesis.txt" if place.endswith("lock") else own)
    if place != ".staging":
        Journal(0, (), (f"{place}/documents",)).write(folder)
    with pytest.raises(IndexDamagedError, match="link") as refused:
        IndexWriter(folder).set_calibration(None)
    assert refused.value.file == place
    assert refused.value.kind == "extra"
    with pytest.raises(IndexDamagedError):
        IndexWriter(folder).remove([next(iter(toy_records(1))).asset_id])
    with pytest.raises(IndexDamagedError):
        stage_toys(IndexWriter(folder), toy_records(40)[30:])
    with pytest.raises(IndexDamagedError):
        Index.open(folder, check="full")
    assert (own / "documents" / "thesis.txt").read_text() == "four years"
    assert sorted(path.name for path in own.iterdir()) == ["documents"]


def test_an_index_may_be_reached_by_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").symlink_to(folder)
    before = len(Index.open(tmp_path / "mine"))
    IndexWriter(tmp_path / "mine").remove([toy_records(1)[0].asset_id])
    assert len(Index.open(folder)) == before - 1


def test_changed_manifest(folder: Path) -> None:
    path = folder / MANIFEST
    sound = path.read_text()
    for old, new in [('"views_per_asset": 3', '"views_per_asset": 4'), ('"toy"', '"other"'), ('"rows"', '"rovs"')]:
        assert old in sound
        path.write_text(sound.replace(old, new, 1))
        check(folder, "changed", MANIFEST)
    path.write_text(sound[:-20])
    check(folder, "malformed", MANIFEST)


def test_vectors_of_another_model_under_a_right_manifest(folder: Path) -> None:
    """Shapes, lengths and hashes are right, only the encoder tells."""
    file = part_file(folder, 1, "text.npy")
    captions = [record.caption for record in toy_records(15, 15)]
    np.save(folder / file, ToyEncoder(seed=9).encode_texts(captions).astype(np.float16))
    resign_files(folder)
    assert verify_index(folder) == []
    (problem,) = verify_index(folder, ToyEncoder())
    assert isinstance(problem, IndexMismatchError)
    assert file in str(problem)
    assert problem.received is not ...
    assert problem.fix


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((15, 31), np.float16), "array"),
        (np.zeros((14, 32), np.float16), "array"),
        (np.zeros((15, 32), np.float64), "array"),
        (np.asfortranarray(np.zeros((15, 32), np.float16)), "array"),
        (np.zeros((15, 32), ">f2"), "array"),
    ],
)
def test_arrays_of_another_form_under_a_right_manifest(folder: Path, values: np.ndarray, words: str) -> None:
    file = part_file(folder, 0, "text.npy")
    np.save(folder / file, values)
    resign_files(folder)
    check(folder, "malformed", file)
    with pytest.raises(IndexDamagedError, match=words):
        Index.open(folder)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\xff\xff{",
        b"\x93NUMPY\x01\x00\x02\x00{}",
        b"\x93NUMPY\x03\x00\x08\x00\x00\x00{'a': 1}",
        b"\x93NUMPY\x01\x00\x50\x00{'descr': '|O', 'fortran_order': False, 'shape': (15, 32), }                     \n",
        b"\x93NUMPY\x01\x00\x50\x00{'descr': '<f2', 'fortran_order': False, 'shape': (15, 32), }                    \n",
    ],
)
def test_broken_array_headers(folder: Path, data: bytes) -> None:
    file = part_file(folder, 0, "text.npy")
    (folder / file).write_bytes(data)
    resign_files(folder)
    check(folder, "malformed", file)


def test_bad_numbers_under_a_right_manifest(folder: Path) -> None:
    file = part_file(folder, 0, "text.npy")
    sound = np.load(folder / file)
    for value in (np.nan, np.inf, 0.0, 7.0):
        broken = sound.copy()
        broken[3] = value
        np.save(folder / file, broken)
        resign_files(folder)
        (problem,) = verify_index(folder)
        assert getattr(problem, "file", "") == file
        if not np.isfinite(value):
            with pytest.raises(IndexDamagedError, match="not finite"):
                Index.open(folder, ToyEncoder()).search("a red robot", 30)


def test_twice_the_same_asset_under_a_right_manifest(sound: Path, tmp_path: Path) -> None:
    writer = IndexWriter(tmp_path / "x", toy_spec())
    stage_toys(writer, toy_records(4, 14))
    part = writer.commit().parts[0]
    shutil.copytree(sound, tmp_path / "index")
    shutil.copytree(tmp_path / "x" / "parts" / part.part_id, tmp_path / "index" / "parts" / part.part_id)
    resign(tmp_path / "index", lambda manifest: replace(manifest, parts=(*manifest.parts, part)))
    (problem,) = verify_index(tmp_path / "index")
    assert "also in" in str(problem)


def test_rejected_list_of_another_length(folder: Path) -> None:
    resign(folder, lambda manifest: replace(manifest, n_rejected=7))
    (problem,) = verify_index(folder)
    assert "7 lines" in str(problem)


def test_no_index(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(RetrievalError, match="no index in this folder") as caught:
            Index.open(folder)
        assert caught.value.received == str(folder)
        assert "redream index build" in caught.value.fix
        assert str(verify_index(folder)[0]) == str(caught.value)
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(IndexDamagedError, match="cannot be read"):
        Index.open(tmp_path)


def test_verify_reports_a_foreign_encoder_once(folder: Path) -> None:
    (problem,) = verify_index(folder, ToyEncoder(seed=3))
    assert isinstance(problem, IndexMismatchError)


def test_a_reader_that_comes_while_the_manifest_is_switched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It read the old manifest, then the files went away: it opens the new one."""
    from threestudio_redream.retrieval.index import reader as module

    real, calls = module.check_files, []

    def late(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 1:
            IndexWriter(folder).remove(["toy-00000", "toy-00029"])
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "check_files", late)
    assert len(Index.open(folder)) == 28
    assert len(calls) == 2


def test_an_open_index_stays_as_it_was(folder: Path) -> None:
    index = Index.open(folder, ToyEncoder())
    before = index.search("a red robot", 5).results
    IndexWriter(folder).remove([hit.record.asset_id for hit in before])
    assert index.search("a red robot", 5).results == before
    assert not {hit.record.asset_id for hit in Index.open(folder, ToyEncoder()).search("a red robot", 25).results} & {
        hit.record.asset_id for hit in before
    }


@pytest.mark.parametrize(
    "note",
    [
        "{",
        "[]",
        "null",
        '{"generation": 9, "moves": [["a"]], "drops": []}',
        '{"generation": 9, "moves": [], "drops": ["../../victim"]}',
        '{"generation": 0, "moves": [], "drops": ["manifest.json"]}',
        '{"generation": 0, "moves": [], "drops": ["parts"]}',
        '{"generation": 9, "moves": [["/etc/x", "parts/y"]], "drops": []}',
        '{"generation": "x", "moves": [], "drops": []}',
    ],
)
def test_a_hostile_note_deletes_and_hides_nothing(folder: Path, tmp_path: Path, note: str) -> None:
    (tmp_path / "victim").write_text("x")
    (folder / STAGING).mkdir()
    (folder / STAGING / "journal.json").write_text(note)
    assert Journal.read(folder) == Journal()
    assert IndexWriter(folder).remove(["toy-00000"]).rows == 29
    assert (tmp_path / "victim").exists()
    assert verify_index(folder) == []


def test_manifest_holds_no_path_of_this_machine(folder: Path) -> None:
    assert str(folder.parent) not in (folder / MANIFEST).read_text()
    assert json.loads((folder / MANIFEST).read_text())["generation"] == 1
