"""Pages about a run and about a sweep that open anywhere, without a network and without other files."""

from __future__ import annotations

from threestudio_redream.evaluation.report.reading import prompt_of
from threestudio_redream.evaluation.report.run import write_report

__all__ = ["prompt_of", "write_report"]
