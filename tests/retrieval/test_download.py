"""Downloads against a server that does everything wrong."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_server import Server, drip, serving, status, whole

from threestudio_redream.retrieval.errors import FetchError
from threestudio_redream.retrieval.fetching.download import Downloaded, TransferLimits, download, partial_path
from threestudio_redream.retrieval.fetching.transfer import check_url


def glb(n_bytes: int = 200_000, fill: bytes = b"x") -> bytes:
    """Bytes that look like a GLB from outside: magic, version, true length."""
    return struct.pack("<4sII", b"glTF", 2, n_bytes) + fill * (n_bytes - 12)


QUICK = TransferLimits(max_bytes=1_000_000, stall_s=0.3, retries=2, backoff_s=0.0, deadline_s=20.0)
HTML = b"<!DOCTYPE html><html><body>503 back soon</body></html>" + b" " * 1000


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def get(url: str, tmp_path: Path, **options: object) -> Downloaded:
    return download(url, tmp_path / "a" / "mesh.glb", **{"limits": QUICK, **options})  # type: ignore[arg-type]


def leftovers(tmp_path: Path) -> list[str]:
    """What lies there beside a finished file; an emptied part is the lock of the next attempt."""
    return sorted(p.name for p in (tmp_path / "a").iterdir() if p.name != "mesh.glb" and p.stat().st_size > 0)


def failure(url: str, tmp_path: Path, **options: object) -> FetchError:
    with pytest.raises(FetchError) as caught:
        get(url, tmp_path, **options)
    assert caught.value.problem
    assert caught.value.fix
    assert not (tmp_path / "a" / "mesh.glb").exists()
    return caught.value


def test_a_whole_file_arrives_and_is_not_fetched_twice(server: Server, tmp_path: Path) -> None:
    data, seen = glb(), []
    url = server.put("/mesh.glb", whole(data))
    done = get(url, tmp_path, progress=lambda *state: seen.append(state))
    assert done.path.read_bytes() == data
    assert (done.sha256, done.n_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (done.attempts, done.resumed_from) == (1, 0)
    assert seen[-1] == (len(data), len(data))
    assert leftovers(tmp_path) == []
    again = get(url, tmp_path, sha256=done.sha256, n_bytes=len(data))
    assert (again.attempts, len(server.requests)) == (0, 1)


def test_a_file_that_went_bad_on_disk_is_fetched_again(server: Server, tmp_path: Path) -> None:
    data = glb()
    url = server.put("/mesh.glb", whole(data))
    get(url, tmp_path).path.write_bytes(b"rotten")
    assert get(url, tmp_path, sha256=hashlib.sha256(data).hexdigest()).path.read_bytes() == data


def test_a_cut_connection_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    data = glb(len(data) + 12)[:12] + data
    url = server.put("/m", whole(data, stop_after=70_000), whole(data, stop_after=50_000), whole(data))
    done = get(url, tmp_path)
    assert done.path.read_bytes() == data
    assert (done.attempts, done.resumed_from) == (3, 120_000)
    assert server.ranges() == [None, "bytes=70000-", "bytes=120000-"]
    assert server.requests[1][1]["If-Range"] == '"one"'


def test_the_next_call_resumes_what_an_earlier_one_left(server: Server, tmp_path: Path) -> None:
    data = glb()
    url = server.put("/m", whole(data, stop_after=70_000))
    error = failure(url, tmp_path, limits=TransferLimits(retries=0))
    assert "70,000 of 200,000" in str(error)
    assert partial_path(tmp_path / "a" / "mesh.glb").stat().st_size == 70_000
    server.put("/m", whole(data))
    done = get(url, tmp_path)
    assert (done.path.read_bytes(), done.resumed_from) == (data, 70_000)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("etag", ['"two"', 'W/"weak"', ""])
def test_a_file_that_changed_meanwhile_is_never_mixed_with_the_old_one(
    server: Server, tmp_path: Path, etag: str
) -> None:
    old, new = glb(fill=b"o"), glb(fill=b"n")
    first = '"one"' if etag == '"two"' else etag
    url = server.put("/m", whole(old, etag=first, stop_after=70_000), whole(new, etag=etag))
    assert get(url, tmp_path).path.read_bytes() == new


def test_a_server_that_resumes_another_file_is_not_believed(server: Server, tmp_path: Path) -> None:
    old, new = glb(fill=b"o"), glb(fill=b"n")

    def careless(handler: object) -> None:  # ignores If-Range
        headers = {"ETag": '"two"', "Content-Range": "bytes 70000-199999/200000", "Content-Length": "130000"}
        handler.start(206, headers)  # type: ignore[attr-defined]
        handler.wfile.write(new[70_000:])  # type: ignore[attr-defined]

    url = server.put("/m", whole(old, stop_after=70_000), careless, whole(new, etag='"two"'))
    assert get(url, tmp_path).path.read_bytes() == new
    assert server.ranges() == [None, "bytes=70000-", None]


def test_a_part_of_another_address_is_not_built_on(server: Server, tmp_path: Path) -> None:
    data = glb()
    failure(server.put("/old", whole(glb(fill=b"o"), stop_after=9000)), tmp_path, limits=TransferLimits(retries=0))
    assert get(server.put("/new", whole(data)), tmp_path).path.read_bytes() == data
    assert server.ranges() == [None, None]


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    data = glb()
    done = get(server.put("/m", whole(data, ranges=False, stop_after=9000), whole(data, ranges=False)), tmp_path)
    assert (done.path.read_bytes(), done.resumed_from) == (data, 0)


def test_a_wrong_range_and_a_416_start_over(server: Server, tmp_path: Path) -> None:
    data = glb()
    lie = status(206, data[:10], Content_Range=f"bytes 5-14/{len(data)}", ETag='"one"')
    url = server.put("/m", whole(data, stop_after=9000), lie, whole(data))
    assert get(url, tmp_path).path.read_bytes() == data
    (tmp_path / "a" / "mesh.glb").unlink()
    url = server.put("/n", whole(data, stop_after=9000), status(416), whole(data))
    assert get(url, tmp_path).path.read_bytes() == data


def test_more_bytes_than_announced_do_not_get_in(server: Server, tmp_path: Path) -> None:
    def liar(handler: object) -> None:
        handler.start(200, {"ETag": '"one"', "Transfer-Encoding": "chunked"})  # type: ignore[attr-defined]
        handler.wfile.write(b"10000000\r\n" + glb()[:5000])  # type: ignore[attr-defined]

    data = glb()
    assert get(server.put("/m", liar, whole(data)), tmp_path).path.read_bytes() == data


def test_a_stalling_server_is_left_and_resumed(server: Server, tmp_path: Path) -> None:
    data = glb()
    done = get(server.put("/m", whole(data, stop_after=70_000, stall=True), whole(data)), tmp_path)
    assert (done.path.read_bytes(), done.resumed_from) == (data, 70_000)


def test_a_server_that_always_stalls_is_given_up(server: Server, tmp_path: Path) -> None:
    error = failure(server.put("/m", whole(glb(), stop_after=0, stall=True)), tmp_path)
    assert "failed 3 times" in error.problem
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (TransferLimits(stall_s=5.0, deadline_s=0.4, retries=3, backoff_s=0.0), "deadline"),
        (TransferLimits(stall_s=5.0, window_s=0.2, min_bytes_per_s=1e6, retries=0), "bytes came per second"),
    ],
)
def test_a_drip_of_bytes_is_a_stall(server: Server, tmp_path: Path, limits: TransferLimits, words: str) -> None:
    assert words in failure(server.put("/m", drip(glb(2000), 0.02)), tmp_path, limits=limits).problem


def test_busy_servers_are_asked_again_after_the_time_they_name(server: Server, tmp_path: Path) -> None:
    data, waits = glb(), []
    url = server.put("/m", status(503), status(429, Retry_After="7"), whole(data))
    limits = TransferLimits(retries=2, backoff_s=1.5)
    assert get(url, tmp_path, limits=limits, sleep=waits.append).path.read_bytes() == data
    assert waits == [1.5, 7.0]


@pytest.mark.parametrize("code", [401, 403, 404, 410, 418])
def test_a_refusal_is_final(server: Server, tmp_path: Path, code: int) -> None:
    error = failure(server.put("/m", status(code)), tmp_path)
    assert f"HTTP {code}" in error.problem
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body", [HTML, b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', b"  <html>" + HTML]
)
def test_an_error_page_is_no_mesh(server: Server, tmp_path: Path, body: bytes) -> None:
    assert "page instead of a mesh" in failure(server.put("/m", whole(body)), tmp_path).problem
    assert len(server.requests) == 1
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "Git LFS pointer"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "PNG"),
        (b"Not found, sorry", "no mesh"),
        (glb()[:-5], "its header says 200,000"),
        (b"", "empty"),
    ],
)
def test_what_is_complete_and_no_mesh_is_refused(server: Server, tmp_path: Path, body: bytes, words: str) -> None:
    assert words in failure(server.put("/m", whole(body)), tmp_path).problem
    assert leftovers(tmp_path) == []


def test_caps_hold_with_and_without_a_length(server: Server, tmp_path: Path) -> None:
    big = glb(1_500_000)
    assert "larger than the cap" in failure(server.put("/m", whole(big)), tmp_path).problem

    def endless(handler: object) -> None:
        handler.start(200, {})  # type: ignore[attr-defined]
        handler.wfile.write(big)  # type: ignore[attr-defined]

    assert failure(server.put("/e", endless), tmp_path).received <= 1_000_000 + 65536
    assert leftovers(tmp_path) == []
    failure(server.put("/n", whole(glb())), tmp_path, n_bytes=2_000_000)
    assert server.requests[-1][0] == "/e"


def test_size_and_digest_must_agree(server: Server, tmp_path: Path) -> None:
    url = server.put("/m", whole(glb()))
    assert "another sha256" in failure(url, tmp_path, sha256="0" * 64).problem
    assert "another size" in failure(url, tmp_path, n_bytes=5).problem


def test_redirects_are_followed_but_not_anywhere(server: Server, tmp_path: Path) -> None:
    data = glb()
    target = server.put("/m", whole(data, stop_after=9000), whole(data))
    url = server.put("/r", status(302, Location=target))
    done = get(url, tmp_path)
    assert (done.path.read_bytes(), done.resumed_from) == (data, 9000)
    (tmp_path / "a" / "mesh.glb").unlink()
    for bad in ("file:///etc/passwd", "ftp://127.0.0.1/m", "http://example.org/m", "https://user:pw@example.org/"):
        failure(server.put("/r", status(302, Location=bad)), tmp_path)
    failure(server.put("/loop", status(302, Location=server.url + "/loop")), tmp_path)


def test_packed_answers_are_refused(server: Server, tmp_path: Path) -> None:
    url = server.put("/m", whole(glb(), Content_Encoding="gzip"))
    assert "packs the file" in failure(url, tmp_path).problem


@pytest.mark.parametrize(
    "url",
    ["http://example.org/a", "file:///etc/passwd", "https://", "https://a b/", "https://u:p@h/", "x", "https://[/"],
)
def test_addresses_that_are_not_asked(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    failure(url, tmp_path)


def test_offline_means_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in failure("https://example.org/a.glb", tmp_path).problem
    (tmp_path / "a").mkdir(exist_ok=True)
    (tmp_path / "a" / "mesh.glb").write_bytes(glb())
    assert get("https://example.org/a.glb", tmp_path).attempts == 0  # what is there can be used
    monkeypatch.delenv("HF_HUB_OFFLINE")
    check_url("https://example.org/a.glb")


def test_nobody_listens(tmp_path: Path) -> None:
    with serving() as server:
        url = server.url
    assert "failed 3 times" in failure(f"{url}/m", tmp_path).problem


@pytest.mark.parametrize(
    "note", [b"[]", b"{", b'{"url": 3}', b'{"url": "URL", "validator": 5}', b'{"url": "URL", "validator": "a\\nb"}']
)
def test_a_damaged_note_only_costs_the_part(server: Server, tmp_path: Path, note: bytes) -> None:
    data = glb()
    url = server.put("/m", whole(data))
    part = partial_path(tmp_path / "a" / "mesh.glb")
    part.parent.mkdir()
    part.write_bytes(b"old bytes")
    part.with_name(part.name + ".json").write_bytes(note.replace(b"URL", url.encode()))
    assert get(url, tmp_path).path.read_bytes() == data
    assert server.ranges() == [None]


def test_two_processes_fetch_one_file_once(server: Server, tmp_path: Path) -> None:
    data, gate = glb(), threading.Event()

    def slow(handler: object) -> None:
        gate.wait(10.0)
        whole(data)(handler)  # type: ignore[arg-type]

    url = server.put("/m", slow)
    results: list[Downloaded] = []
    first = threading.Thread(target=lambda: results.append(get(url, tmp_path, limits=TransferLimits())))
    second = threading.Thread(target=lambda: results.append(get(url, tmp_path, limits=TransferLimits())))
    first.start()
    while not server.requests:
        time.sleep(0.01)
    second.start()
    time.sleep(0.25)
    gate.set()
    first.join(10.0)
    second.join(10.0)
    assert sorted(result.attempts for result in results) == [0, 1]
    assert len(server.requests) == 1
    assert results[1].path.read_bytes() == data


def test_waiting_for_another_process_has_an_end(server: Server, tmp_path: Path) -> None:
    import fcntl

    part = partial_path(tmp_path / "a" / "mesh.glb")
    part.parent.mkdir()
    with open(part, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        error = failure(server.put("/m", whole(glb())), tmp_path, limits=TransferLimits(deadline_s=0.2))
    assert "another process" in error.problem


def test_a_killed_download_is_resumed(server: Server, tmp_path: Path) -> None:
    data = glb(400_000)
    url = server.put("/m", whole(data, stop_after=150_000, stall=True), whole(data))
    code = textwrap.dedent(f"""
        from threestudio_redream.retrieval.fetching.download import download
        download({url!r}, {str(tmp_path / "a" / "mesh.glb")!r})
    """)
    child = subprocess.Popen([sys.executable, "-c", code])
    part = partial_path(tmp_path / "a" / "mesh.glb")
    limit = time.monotonic() + 30.0
    while not (part.exists() and part.stat().st_size > 0) and time.monotonic() < limit:
        time.sleep(0.02)
    child.kill()
    child.wait(10.0)
    assert json.loads(part.with_name(part.name + ".json").read_text())["validator"] == '"one"'
    done = get(url, tmp_path)
    assert done.path.read_bytes() == data
    assert done.resumed_from > 0
