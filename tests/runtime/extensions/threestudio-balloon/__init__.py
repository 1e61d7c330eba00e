"""A third-party extension as its author would write it: only ``threestudio`` is imported."""

import threestudio

if tuple(int(part) for part in threestudio.__version__.split(".")[:2]) < (0, 2):
    raise ImportError(f"threestudio >= 0.2 is needed, not {threestudio.__version__}")

from . import geometry, guidance, system  # noqa: F401
