"""ReDream: retrieval-augmented score distillation for text-to-3D, as a threestudio extension.

Importing the package is cheap and makes every ``redream-*`` name known to the registry of whoever
hosts us: our own launcher loads each class when its name is first looked up; inside upstream
threestudio the classes register at once.
"""

from __future__ import annotations

from threestudio_redream.runtime.host import upstream
from threestudio_redream.runtime.torchvision_shim import guard_torchvision

__all__ = ["__version__", "enter_host"]

__version__ = "0.1.0"


def enter_host() -> None:
    """Register our classes in upstream threestudio if it is imported, else do nothing.

    Importing the package does this; the ways in repeat it, for a package that was imported before threestudio.

    Raises:
        HostError: this environment does not hold what our classes need, see :mod:`threestudio_redream.hosting.gate`.
    """
    host = upstream()
    if host is not None:
        from threestudio_redream.hosting.enter import enter

        enter(host)


guard_torchvision()
enter_host()
