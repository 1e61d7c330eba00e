"""A model hub on loopback: it hands files out, has never heard of a model, or wants its terms accepted."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class ToyHub(ThreadingHTTPServer):
    """Attributes: ``models``: files by model id. ``gated``: ids whose files are refused. ``asked``: paths, in order."""

    daemon_threads = True

    def __init__(self, models: Mapping[str, Mapping[str, bytes]], gated: frozenset[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models, self.gated = models, gated
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ToyHub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        code, headers, body = self._reply(path.strip("/").split("/"))
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body)), "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _reply(self, path: list[str]) -> tuple[int, dict[str, str], bytes]:
        api = path[:2] == ["api", "models"]
        name, rest = "/".join(path[2:4] if api else path[:2]), path[4:] if api else path[2:]
        files = self.server.models.get(name)
        if files is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if api and rest[:1] == ["tree"]:
            rows = [{"type": "file", "path": file, "size": len(text), "oid": "0" * 40} for file, text in files.items()]
            return 200, {"Content-Type": "application/json"}, json.dumps(rows).encode()
        if api:
            facts: dict[str, object] = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
            facts["gated"] = "auto" if name in self.server.gated else False
            return 200, {"Content-Type": "application/json"}, json.dumps(facts).encode()
        if name in self.server.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        body = files.get("/".join(rest[2:]))
        if body is None:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(body).hexdigest()}"'}, body

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def toy_hub(models: Mapping[str, Mapping[str, bytes]], gated: frozenset[str] = frozenset()) -> Iterator[ToyHub]:
    hub = ToyHub(models, gated)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join(5)
