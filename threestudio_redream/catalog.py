"""Registry name -> module that registers it. Importing this costs nothing.

``REDREAM_MODULES`` are ours and also register inside upstream threestudio; ``BUILTIN_MODULES`` are
the names of the threestudio contract that upstream itself provides, needed under our own launcher.
``ALIASES`` are upstream's names for classes of ours that take the same keys and give the same output; an
extension may register another class under them.
"""

from __future__ import annotations

__all__ = ["ALIASES", "BUILTIN_MODULES", "REDREAM_MODULES"]

_RUNTIME = "threestudio_redream.runtime"

BUILTIN_MODULES: dict[str, str] = {
    "random-camera-datamodule": f"{_RUNTIME}.data.random_camera",
    "implicit-volume": f"{_RUNTIME}.geometry.implicit_volume",
    "no-material": f"{_RUNTIME}.materials.no_material",
    "diffuse-with-point-light-material": f"{_RUNTIME}.materials.diffuse_with_point_light",
    "solid-color-background": f"{_RUNTIME}.backgrounds.solid_color",
    "neural-environment-map-background": f"{_RUNTIME}.backgrounds.neural_environment_map",
    "nerf-volume-renderer": f"{_RUNTIME}.renderers.nerf_volume_renderer",
    "dummy-exporter": f"{_RUNTIME}.exporters.base",
    "mesh-exporter": f"{_RUNTIME}.exporters.mesh_exporter",
    "perceptual-loss": f"{_RUNTIME}.perceptual",
}

REDREAM_MODULES: dict[str, str] = {
    "redream-asset-datamodule": "threestudio_redream.data.asset_views",
    "redream-fit-asset-system": "threestudio_redream.systems.fit_asset",
    "redream-score-distillation-system": "threestudio_redream.systems.score_distillation",
    "redream-sds-guidance": "threestudio_redream.guidance.sds",
    "redream-system": "threestudio_redream.systems.redream",
    "redream-guidance": "threestudio_redream.guidance.redream",
    "redream-mesh-exporter": "threestudio_redream.hosting.exporter",
    "redream-vsd-guidance": "threestudio_redream.guidance.vsd",
    "redream-stable-diffusion-prompt-processor": "threestudio_redream.prompt_processors.stable_diffusion",
    "retrieved-asset-initializer": "threestudio_redream.geometry.retrieved_asset_initializer",
}

ALIASES: dict[str, str] = {
    "stable-diffusion-prompt-processor": "redream-stable-diffusion-prompt-processor",
}
