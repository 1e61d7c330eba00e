"""Load third-party extensions from a ``custom/`` folder, as upstream's launcher does.

Every folder with an ``__init__.py`` and every ``*.py`` file is one extension; ``__pycache__``,
hidden entries, other files and names that end in ``_disabled`` are skipped. Unlike upstream, the
order is sorted, and a failure is remembered and shown again where a missing name is looked up.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from threestudio_redream.runtime.registry import record_failed_extension

__all__ = ["LoadedExtension", "load_custom_modules"]

log = logging.getLogger("pytorch_lightning")


@dataclass(frozen=True)
class LoadedExtension:
    """Outcome of one import: ``error`` is None when it succeeded."""

    path: Path
    seconds: float
    error: str | None


def load_custom_modules(root: str | Path = "custom") -> list[LoadedExtension]:
    """Import every extension below ``root`` (nothing happens when the folder does not exist).

    Returns:
        One entry per extension, in sorted order. Failures are logged with their traceback.
    """
    root = Path(root)
    if not root.is_dir():
        return []
    outcomes = [_load(path) for path in sorted(root.iterdir()) if _is_extension(path)]
    for outcome in outcomes:
        if outcome.error is None:
            log.info("Extension %s loaded in %.1f s", outcome.path, outcome.seconds)
    return outcomes


def _is_extension(path: Path) -> bool:
    if path.name.startswith((".", "__pycache__")) or path.stem.endswith("_disabled"):
        return False
    return path.suffix == ".py" if path.is_file() else (path / "__init__.py").is_file()


def _load(path: Path) -> LoadedExtension:
    started = time.perf_counter()
    entry = path if path.is_file() else path / "__init__.py"
    name = path.stem if path.is_file() else path.name
    error: str | None = None
    if name in sys.modules and not _same_file(sys.modules[name], entry):
        error = f"its name shadows the installed module '{name}'; rename the folder"
        log.error("Extension %s was not imported: %s", path, error)
    else:
        spec = importlib.util.spec_from_file_location(
            name, entry, submodule_search_locations=None if path.is_file() else [str(path)]
        )
        if spec is None or spec.loader is None:
            error = "no import machinery accepts the file"
        else:
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            try:
                spec.loader.exec_module(module)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as cause:
                sys.modules.pop(name, None)
                error = f"{type(cause).__name__}: {cause}"
                log.exception("Extension %s failed to import", path)
    if error is not None:
        record_failed_extension(str(path), error)
    return LoadedExtension(path, time.perf_counter() - started, error)


def _same_file(module: object, entry: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve() == entry.resolve()
