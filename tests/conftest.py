"""Rules that every test runs under: no network, fixed seeds, a fixed number of threads."""

from __future__ import annotations

import ipaddress
import os
import random
import socket
import sys
from typing import Any

import numpy as np
import pytest

# Before numba or torch is imported: results must not depend on how many cores the machine has.
for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "2")
os.environ["HF_HUB_OFFLINE"] = "1"

pytest_plugins = ["tiny_models"]


class NetworkUsed(RuntimeError):
    """A test reached for the network. Not an OSError, so that code which handles one cannot hide it."""


def _is_local(host: Any) -> bool:
    if host is None or host in ("", b"", "localhost", socket.gethostname()):
        return True
    text = host.decode() if isinstance(host, bytes) else str(host)
    try:
        return ipaddress.ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _refuse_remote(address: Any) -> None:
    # Unix sockets have a path for an address; internet addresses are tuples that start with the host.
    if isinstance(address, tuple) and not _is_local(address[0]):
        raise NetworkUsed(f"tests run offline, but one wanted to reach {address!r}; ship or make the data it needs")


def _guarded(method: Any, address_position: int) -> Any:
    def call(*arguments: Any, **keywords: Any) -> Any:
        _refuse_remote(arguments[address_position])
        return method(*arguments, **keywords)

    return call


def _guarded_lookup(lookup: Any) -> Any:
    def call(host: Any, *arguments: Any, **keywords: Any) -> Any:
        _refuse_remote((host,))
        return lookup(host, *arguments, **keywords)

    return call


def pytest_configure(config: pytest.Config) -> None:
    """Close the network for the whole session, fixtures and collection included."""
    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", _guarded(socket.socket.connect, 1))
    patch.setattr(socket.socket, "connect_ex", _guarded(socket.socket.connect_ex, 1))
    patch.setattr(socket.socket, "sendto", _guarded(socket.socket.sendto, -1))
    patch.setattr(socket, "getaddrinfo", _guarded_lookup(socket.getaddrinfo))
    config.add_cleanup(patch.undo)


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """Start each test from the same random state, whichever tests ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  the code under test may use the global generator
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
