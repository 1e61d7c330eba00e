"""What this machine can do: each component found, missing or broken, and the command that cures it.

Every component is tried in a child process, so one that crashes on import costs its own line and nothing else.
"""

from __future__ import annotations

from threestudio_redream.doctor.examine import Finding, examine
from threestudio_redream.doctor.probes import CAPABILITIES, PROBES, Capability, Probe
from threestudio_redream.doctor.report import Diagnosis, diagnose, render

__all__ = ["CAPABILITIES", "PROBES", "Capability", "Diagnosis", "Finding", "Probe", "diagnose", "examine", "render"]
