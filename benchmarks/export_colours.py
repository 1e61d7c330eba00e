"""How close is the exported mesh to the field's own pictures, for each way of painting it?

    python benchmarks/export_colours.py TRIAL [TRIAL ...]

Every trial (of redream.yaml, say) is exported from its last checkpoint with ``colour_from: surface`` and ``views``. The
mesh is then seen from 12 cameras that no texture was taken from, beside the field: PSNR on white over the whole
picture, and where both are opaque.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import environment, write_results

from threestudio_redream.assets.rasteriser import AssetRenderer
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.meshing import as_asset
from threestudio_redream.runtime import register
from threestudio_redream.runtime.exporters.field_pictures import FieldPictures
from threestudio_redream.runtime.exporters.mesh_exporter import COLOURS, MeshExporter
from threestudio_redream.runtime.launch import main as launch

SIDE, FOVY_DEG = 192, 40.0
AZIMUTHS_DEG = np.arange(0.0, 360.0, 30.0) + 7.0
ELEVATIONS_DEG = np.tile([15.0, 40.0, -10.0], 4)
NAME = "colour-comparison-exporter"

found: list[dict[str, Any]] = []


def psnr(error: np.ndarray) -> float:
    return float(-10.0 * np.log10(np.mean(error)))


@register(NAME)
class ColourComparison(MeshExporter):
    """Exports once for each way, writes nothing, and leaves the figures in ``found``."""

    def __call__(self, *args: Any, **kwargs: Any) -> list[Any]:
        cameras = orbit_c2w(AZIMUTHS_DEG, ELEVATIONS_DEG, 1.46)
        field = FieldPictures(self.geometry.bbox, self.geometry.forward_density, self._albedo)(cameras, FOVY_DEG, SIDE)
        truth = field[..., :3] + 1.0 - field[..., 3:]
        scores: dict[str, Any] = {}
        for way in COLOURS:
            self.cfg.colour_from = way
            started = time.perf_counter()
            mesh = super().__call__()[0].params["mesh"]
            seconds = time.perf_counter() - started
            renders = AssetRenderer(as_asset(mesh), supersample=3)(cameras, np.full(12, FOVY_DEG), SIDE, SIDE)
            error = (renders.over(1.0) - truth) ** 2
            opaque = (renders.mask[..., 0] > 0.99) & (field[..., 3] > 0.95)
            scores[way] = {
                "psnr": round(float(np.mean([psnr(view) for view in error])), 2),
                "psnr_where_opaque": round(float(np.mean([psnr(v[o]) for v, o in zip(error, opaque)])), 2),
                "seconds": round(seconds, 1),
            }
        found.append(scores)
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", nargs="+", type=Path)
    args = parser.parse_args()
    for trial in args.trials:
        words = ["--config", str(trial / "configs" / "parsed.yaml"), "--export", "resume=last"]
        if launch([*words, f"system.exporter_type={NAME}"]) != 0:
            raise SystemExit(f"{trial}: the export failed")
    runs = [{"trial": trial.name, **scores} for trial, scores in zip(args.trials, found, strict=True)]
    write_results("export_colours", {"environment": environment(), "runs": runs})


if __name__ == "__main__":
    main()
