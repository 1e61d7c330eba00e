"""CLIP as a guidance for threestudio: renders should look like the prompt to a CLIP model.

An extension as a third party would publish it: of the host it imports ``threestudio`` alone, its names have a prefix
of their own, and it loads in upstream threestudio and in threestudio-redream.
"""

import threestudio
from packaging.version import Version

if Version(threestudio.__version__) < Version("0.2.0"):
    raise ImportError(f"threestudio-clip needs threestudio 0.2 or later, this is {threestudio.__version__}")

from .guidance import clip_guidance  # noqa: F401
