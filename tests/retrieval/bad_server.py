"""A web server on loopback that can stall, fail, truncate, redirect and lie."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Gives each request for a path the next of its answers; the last one is repeated."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.close_connection = True
        with self.server.lock:
            answers = self.server.answers.get(self.path)
            self.server.requests.append((self.path, dict(self.headers)))
            answer = None if not answers else answers.pop(0) if len(answers) > 1 else answers[0]
        with suppress(BrokenPipeError, ConnectionResetError):
            (answer or status(404))(self)

    def start(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {"Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.lock, self.released = threading.Lock(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, path: str, *answers: Answer) -> str:
        """Script the answers for a path; returns its address."""
        self.answers[path] = list(answers)
        return self.url + path

    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.requests]


def status(code: int, body: bytes = b"no", **headers: str) -> Answer:
    def answer(handler: Handler) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        handler.start(code, {"Content-Length": str(len(body)), **named})
        handler.wfile.write(body)

    return answer


def whole(
    data: bytes,
    *,
    etag: str = '"one"',
    ranges: bool = True,
    stop_after: int | None = None,
    stall: bool = False,
    **headers: str,
) -> Answer:
    """A file, resumable if ``ranges``; after ``stop_after`` bytes the connection ends, or hangs if ``stall``."""

    def answer(handler: Handler) -> None:
        start, wanted = 0, handler.headers.get("Range")
        fresh = handler.headers.get("If-Range") in (None, etag)
        if ranges and wanted and fresh:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                status(416)(handler)
                return
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        extra = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        tag = {"ETag": etag} if etag else {}
        handler.start(206 if start else 200, {"Content-Length": str(len(data) - start), **tag, **extra, **named})
        handler.wfile.write(data[start : None if stop_after is None else start + stop_after])
        handler.wfile.flush()
        if stall:
            handler.server.released.wait(20.0)

    return answer


def drip(data: bytes, pause_s: float) -> Answer:
    """One byte after the other, for ever or until the test is over."""

    def answer(handler: Handler) -> None:
        handler.start(200, {"Content-Length": str(len(data)), "ETag": '"one"'})
        for byte in data:
            handler.wfile.write(bytes([byte]))
            if handler.server.released.wait(pause_s):
                return

    return answer


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join(5.0)
