"""The guard in conftest.py: remote addresses are refused loudly, local ones work."""

from __future__ import annotations

import contextlib
import socket

import pytest

REMOTE = ("192.0.2.1", 443)  # a documentation address: never routed


@pytest.mark.parametrize("method", ["connect", "connect_ex"])
def test_remote_connections_are_refused(method: str) -> None:
    with socket.socket() as client, pytest.raises(RuntimeError, match=r"tests run offline.*192\.0\.2\.1"):
        getattr(client, method)(REMOTE)


def test_remote_datagrams_are_refused() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as client, pytest.raises(RuntimeError, match="tests run offline"):
        client.sendto(b"x", REMOTE)


def test_name_lookups_are_refused() -> None:
    with pytest.raises(RuntimeError, match=r"tests run offline.*huggingface\.co"):
        socket.getaddrinfo("huggingface.co", 443)


def test_code_that_swallows_network_errors_cannot_hide_a_connection() -> None:
    def forgiving(client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client.connect(REMOTE)

    with socket.socket() as client, pytest.raises(RuntimeError):
        forgiving(client)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_works(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection((host, server.getsockname()[1]), timeout=5)
        with client:
            assert client.getpeername() == server.getsockname()
