"""Picture of a finished fit-asset run for the docs: asset, field and exported mesh from three sides.

python tools/fit_figure.py TRIAL_DIR OUT.jpg
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from threestudio_redream.assets import Asset, load_asset
from threestudio_redream.assets.normalise import axis_rotation
from threestudio_redream.assets.rasteriser import AssetRenderer
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.runtime.config import load_config, parse_structured

AZIMUTHS = (30.0, 150.0, 270.0)  # degrees


def in_world(mesh: Asset) -> Asset:
    """An exported GLB in the frame that it was made in: scale and place are right already."""
    turn = axis_rotation("+y", "+z").T.astype(np.float32)
    return replace(mesh, vertices=mesh.vertices @ turn, normals=mesh.normals @ turn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trial", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()

    from PIL import Image

    from threestudio_redream.data.asset_views import AssetViewsConfig, open_asset

    cfg = load_config(args.trial / "configs" / "parsed.yaml")
    step = json.loads((args.trial / "save" / "metrics.json").read_text())["step"]
    views = parse_structured(AssetViewsConfig, cfg.data)
    size = views.eval_height
    mesh = in_world(load_asset(args.trial / "save" / f"it{step}-export" / "model.glb"))
    cameras = orbit_c2w(np.array(AZIMUTHS), views.eval_elevation_deg, views.eval_camera_distance)
    count = len(list((args.trial / "save" / f"it{step}-test").glob("*.png")))

    def row(asset: Asset) -> np.ndarray:
        rgba = AssetRenderer(asset)(cameras, views.fovy_deg, size, size).rgba
        return np.concatenate(list(rgba[..., :3] + 1.0 - rgba[..., 3:]), axis=1)

    frames = [args.trial / "save" / f"it{step}-test" / f"{round(a / 360 * count) % count}.png" for a in AZIMUTHS]
    field = np.concatenate([np.asarray(Image.open(frame).convert("RGB")) / 255.0 for frame in frames], axis=1)
    picture = np.concatenate([row(open_asset(cfg.system.asset)), field, row(mesh)], axis=1)
    Image.fromarray((picture * 255).clip(0, 255).astype(np.uint8)).save(args.out, quality=88)


if __name__ == "__main__":
    main()
