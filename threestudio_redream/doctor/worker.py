"""The doctor's child process: tries components one by one and reports each on its own line.

Run as a script, never imported by the parent. Standard input holds one JSON object::

    {"sys_path": [...], "probes": [{"name": ..., "module": ..., "check": ...}, ...]}

and standard output carries one line per probe, in the same order, as soon as it is done. So when the
process dies, the first probe without an answer is the one that killed it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import sys
import traceback
from typing import Any

__all__ = ["main"]


def try_component(name: str, module: str, check: str) -> dict[str, Any]:
    """Import one component and use it.

    Returns:
        ``status`` (``found`` or ``broken``), ``version``, and either the check's facts or ``error`` and
        ``where`` (the innermost frame).
    """
    result: dict[str, Any] = {"name": name, "version": ""}
    try:
        imported = importlib.import_module(module)
        result["version"] = _version(name, imported)
        if check:
            from threestudio_redream.doctor.checks import CHECKS

            facts = CHECKS[check]()
            result.update({"detail": facts} if isinstance(facts, str) else facts)
    except BaseException as error:  # SystemExit too: a component that ends the process on import is broken
        if isinstance(error, KeyboardInterrupt):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        result["where"] = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        return {**result, "status": "broken", "error": f"{type(error).__name__}: {error}"}
    return {**result, "status": "found"}


def _version(name: str, module: Any) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # not installed by pip: a folder on sys.path
        return str(getattr(module, "__version__", ""))


def main() -> None:
    """Answer the request on standard input."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a component prints on import must not mix with the answers
    request = json.load(sys.stdin)
    sys.path[:] = request["sys_path"]
    # Components are tried as this package meets them: it guards against a torchvision that breaks others.
    importlib.import_module("threestudio_redream")
    for probe in request["probes"]:
        answers.write(json.dumps(try_component(probe["name"], probe["module"], probe["check"])) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
