"""Locks: one holder, given back when it is gone; a system without them is named."""

import os
import sys

import pytest

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.locks import lock_file


def test_one_holder_at_a_time(tmp_path):
    first, second = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(2))
    try:
        assert lock_file(first)
        assert not lock_file(second)
        heir = os.dup(first)
        os.close(first)
        assert not lock_file(second), "whoever inherited the descriptor holds it"
        os.close(heir)
        assert lock_file(second, wait=True)
    finally:
        os.close(second)


def test_a_system_without_locks_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with (tmp_path / "lock").open("wb") as file, pytest.raises(ConfigError, match=r"POSIX.*WSL"):
        lock_file(file.fileno())
