"""What an extraction did, for logs, file metadata and the run's report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from threestudio_redream.meshing.types import Progress

__all__ = ["ExportReport", "Stages"]


@dataclass(frozen=True)
class ExportReport:
    """The figures of one extraction; ``to_dict`` is JSON-able.

    Attributes:
        threshold: level of the surface. automatic: whether a sweep found it.
        iou_table: ``(threshold, silhouette IoU)`` of the sweep; empty for a given threshold.
        iou: silhouette IoU of the final mesh with the given silhouettes, None without any.
        grid_shape: nodes per axis.
        surface_faces: faces before decimation. faces, vertices: of the result, after seams were cut.
        watertight: whether the surface was closed and manifold before seams were cut.
        texture_size: texels along a side. charts: their number. texture_fill: part of the texture in charts.
        timings: seconds per stage, field evaluation included in ``grid`` and ``bake``.
    """

    threshold: float
    automatic: bool
    iou_table: tuple[tuple[float, float], ...]
    iou: float | None
    grid_shape: tuple[int, int, int]
    surface_faces: int
    faces: int
    vertices: int
    watertight: bool
    texture_size: int
    charts: int
    texture_fill: float
    timings: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """A plain dict of numbers, strings and lists."""
        values = asdict(self)
        values["iou_table"] = [list(row) for row in self.iou_table]
        values["grid_shape"] = list(self.grid_shape)
        return values


class Stages:
    """Times named stages and passes their progress on."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.progress = progress
        self.timings: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Report 0 at the start and 1 at the end of ``name``, and add up the seconds between."""
        self.report(name, 0.0)
        start = time.perf_counter()
        yield
        self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - start
        self.report(name, 1.0)

    def report(self, name: str, fraction: float) -> None:
        """Tell the listener, if there is one."""
        if self.progress is not None:
            self.progress(name, fraction)
