"""ReDream: retrieval-augmented score distillation for text-to-3D, as a threestudio extension.

Importing the package is cheap and makes every ``redream-*`` name known to the registry of whoever
hosts us: our own launcher loads each class when its name is first looked up; inside upstream
threestudio the classes register at once.
"""

from __future__ import annotations

import importlib

from threestudio_redream.catalog import REDREAM_MODULES
from threestudio_redream.runtime.host import upstream
from threestudio_redream.runtime.torchvision_shim import guard_torchvision

__all__ = ["__version__"]

__version__ = "0.1.0.dev0"

guard_torchvision()

if upstream() is not None:
    for _module in sorted(set(REDREAM_MODULES.values())):
        importlib.import_module(_module)
