"""A working folder with extensions in ``custom/``, as somebody who uses this runtime has it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from threestudio_redream.runtime import registry, stand_in
from threestudio_redream.runtime.device import set_device


@contextmanager
def workspace(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """``folder`` as the working folder, with the import hook; afterwards nothing of its extensions is left."""
    monkeypatch.chdir(folder)
    (folder / "custom").mkdir(exist_ok=True)
    classes, failures = dict(registry._classes), dict(registry._failed_extensions)
    modules = set(sys.modules)
    stand_in.install()
    try:
        yield folder
    finally:
        set_device(None)
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if file.startswith(str(folder)):
                del sys.modules[name]
        stand_in.uninstall()
        for known, before in ((registry._classes, classes), (registry._failed_extensions, failures)):
            # what is built in stays known: its modules are not imported a second time
            for name in [n for n, cls in known.items() if n not in before and not _is_ours(cls)]:
                del known[name]


def _is_ours(entry: object) -> bool:
    return str(getattr(entry, "__module__", "")).startswith("threestudio_redream.")
