"""A checkout of upstream threestudio beside this runtime: modules that are not here come from it.

``THREESTUDIO_DIR=/path/to/threestudio python launch.py ...`` names one. Its files run on the base classes of this
runtime, which keep their own modules; what needs CUDA packages still needs them. Nothing of it is copied.
"""

from __future__ import annotations

import os
from pathlib import Path

from threestudio_redream.errors import ConfigError

__all__ = ["VARIABLE", "file_of", "root"]

VARIABLE = "THREESTUDIO_DIR"


def root() -> Path | None:
    """The checkout that the environment names, or None.

    Raises:
        ConfigError: the folder is not a checkout.
    """
    named = os.environ.get(VARIABLE, "")
    if not named:
        return None
    path = Path(named).expanduser().resolve()
    if not (path / "threestudio" / "__init__.py").is_file():
        raise ConfigError(
            f"{VARIABLE} is no checkout of threestudio",
            received=named,
            fix="Name the folder that holds launch.py and threestudio/, or unset the variable.",
        )
    return path


def file_of(module: str) -> Path | None:
    """The checkout's file for a module such as ``threestudio.systems.dreamfusion``, or None."""
    path = root()
    if path is None:
        return None
    place = path.joinpath(*module.split("."))
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)
