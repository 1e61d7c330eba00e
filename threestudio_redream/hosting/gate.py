"""Does this environment hold what our classes need? One answer for everything that is too old or missing."""

from __future__ import annotations

import importlib.metadata
import re
from types import ModuleType

from threestudio_redream.doctor.probes import PROBES
from threestudio_redream.errors import RedreamError

__all__ = ["OLDEST_THREESTUDIO", "HostError", "check_host", "unmet"]

#: The first version that says which it is; 0.2.3, the newest known, is the one that we run in.
OLDEST_THREESTUDIO = "0.2.0"

#: What is missing in older releases, where it is worth knowing.
_REASONS = {
    "diffusers": "our LoRA adapters are peft layers of its UNet; 0.19, which upstream pins, has none, and 0.24 does "
    "not open our models. For VSD use redream-vsd-guidance: upstream's own wants diffusers below 0.26",
    "peft": "it holds the LoRA adapters of the guidances",
    "transformers": "text encoders and CLIP are opened through it",
}


class HostError(RedreamError, ImportError):
    """threestudio-redream cannot work inside this threestudio."""


def check_host(host: ModuleType) -> None:
    """Compare the host and every package of the base install with what we need. Imports nothing.

    Args:
        host: upstream's ``threestudio``.

    Raises:
        HostError: with every shortcoming, and the command that cures it.
    """
    version = str(getattr(host, "__version__", "")) or "of no known version"
    if _numbers(version) < _numbers(OLDEST_THREESTUDIO):
        raise HostError(
            f"threestudio-redream needs threestudio {OLDEST_THREESTUDIO} or newer",
            received=version,
            fix="Update the checkout: git pull.",
        )
    lacking = unmet()
    if not lacking:
        return
    words = [_describe(name, floor, found) for name, floor, found in lacking]
    wanted = " ".join(f"'{name}>={floor}'" for name, floor, _ in lacking)
    raise HostError(
        f"threestudio-redream cannot work in this environment: {'; '.join(words)}",
        fix=f"In the environment that runs threestudio: python -m pip install {wanted}"
        " (or keep that environment as it is and use launch.py of threestudio-redream).",
    )


def unmet() -> list[tuple[str, str, str | None]]:
    """``(package, lowest version, version found or None)`` of each that is missing or too old."""
    found = []
    for probe in PROBES:
        if not probe.required:
            continue
        try:
            version: str | None = importlib.metadata.version(probe.name)
        except importlib.metadata.PackageNotFoundError:
            version = None
        if version is None or _numbers(version) < _numbers(probe.floor):
            found.append((probe.name, probe.floor, version))
    return found


def _describe(name: str, floor: str, found: str | None) -> str:
    have = f"{name} is not installed ({floor} or newer)" if found is None else f"{name} {found} is older than {floor}"
    return f"{have}: {_REASONS[name]}" if name in _REASONS else have


def _numbers(version: str) -> tuple[int, ...]:
    """Release numbers of a version, without trailing zeros: ``"2.13.0+cpu"`` is ``(2, 13)``."""
    numbers = [int(part) for part in re.findall(r"\d+", re.split(r"[+a-zA-Z]", version, maxsplit=1)[0])]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
