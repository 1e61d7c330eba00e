"""``redream-mesh-exporter``: the mesh exporter of this package under a name of its own."""

from __future__ import annotations

import dataclasses
from typing import Any

from threestudio_redream.runtime import find, register
from threestudio_redream.runtime.exporters.mesh_exporter import MeshExporter

__all__ = ["ReDreamMeshExporter", "exporter_for"]

THEIR_FORMATS = ("obj-mtl", "obj")


@register("redream-mesh-exporter")
class ReDreamMeshExporter(MeshExporter):
    """``mesh-exporter`` of our own launcher. Inside upstream threestudio it writes a GLB, needs neither OpenGL nor
    nvdiffrast, and works for every field with ``forward_density``.
    """


def exporter_for(kind: str, cfg: Any) -> str:
    """The exporter that a configuration means inside upstream.

    ``mesh-exporter`` is upstream's if upstream knows all its keys and its format, otherwise ours.
    """
    if kind != "mesh-exporter":
        return kind
    known = {field.name for field in dataclasses.fields(find(kind).Config)}
    theirs = set(cfg) <= known and cfg.get("fmt", THEIR_FORMATS[0]) in THEIR_FORMATS
    return kind if theirs else "redream-mesh-exporter"
