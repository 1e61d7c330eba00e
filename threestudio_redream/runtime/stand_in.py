"""``import threestudio`` inside an extension, under our own launcher.

Extensions for upstream import their base classes from ``threestudio.*``. While our launcher is the
host, those modules are made from the table below; nothing is installed and no file is written.
A module or name that is not in the table is a named error, so that a plugin which needs more of
upstream says so at once. The hook is inactive unless :func:`install` is called.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import logging
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from threestudio_redream.runtime.host import STAND_IN_FLAG, resolve

__all__ = ["PROVIDED", "install", "uninstall"]

VERSION = "0.2.3"  # of the contract we stand in for
_R = "threestudio_redream.runtime"


def _same(module: str, *names: str) -> dict[str, str]:
    return {name: f"{_R}.{module}:{name}" for name in names}


#: upstream module -> {name: where ours is}
PROVIDED: dict[str, dict[str, str]] = {
    "threestudio": {
        **_same("registry", "register", "find"),
        **_same("stand_in", "debug", "info", "warn"),
        "logger": f"{_R}.stand_in:log",
    },
    "threestudio.utils": {},
    "threestudio.utils.base": _same(
        "base", "BaseModule", "BaseObject", "Updateable", "update_end_if_possible", "update_if_possible"
    ),
    "threestudio.utils.config": {
        **_same("config", "ExperimentConfig", "config_to_primitive", "dump_config", "load_config", "parse_structured"),
        "C_max": f"{_R}.schedule:largest_value",
    },
    "threestudio.utils.misc": {
        **_same("schedule", "C"),
        **_same("device", "cleanup", "get_device", "get_rank"),
        **_same("checkpoint", "load_module_weights"),
        **_same("config", "config_to_primitive"),
        "parse_version": "packaging.version:parse",
    },
    "threestudio.utils.ops": {
        "trunc_exp": f"{_R}.activations:trunc_exp",
        **_same(
            "ops",
            "binary_cross_entropy",
            "chunk_batch",
            "dot",
            "get_activation",
            "get_mvp_matrix",
            "get_projection_matrix",
            "get_ray_directions",
            "get_rays",
            "perpendicular_component",
            "reflect",
            "scale_tensor",
        ),
    },
    "threestudio.utils.saving": _same("saving", "SaverMixin"),
    "threestudio.utils.typing": {},  # filled from runtime.typing below
    "threestudio.data": {},
    "threestudio.data.uncond": _same(
        "data.random_camera",
        "RandomCameraDataModule",
        "RandomCameraDataModuleConfig",
        "RandomCameraDataset",
        "RandomCameraIterableDataset",
    ),
    "threestudio.systems": {},
    "threestudio.systems.base": _same("system", "BaseLift3DSystem", "BaseSystem"),
    "threestudio.systems.utils": _same("optim", "get_parameters", "parse_optimizer", "parse_scheduler"),
    "threestudio.models": {},
    "threestudio.models.background": {},
    "threestudio.models.background.base": _same("backgrounds.base", "BaseBackground"),
    "threestudio.models.background.neural_environment_map_background": _same(
        "backgrounds.neural_environment_map", "NeuralEnvironmentMapBackground"
    ),
    "threestudio.models.background.solid_color_background": _same("backgrounds.solid_color", "SolidColorBackground"),
    "threestudio.models.exporters": {},
    "threestudio.models.exporters.base": _same("exporters.base", "Exporter", "ExporterOutput"),
    "threestudio.models.geometry": {},
    "threestudio.models.geometry.base": _same(
        "geometry.base", "BaseExplicitGeometry", "BaseGeometry", "BaseImplicitGeometry", "contract_to_unisphere"
    ),
    "threestudio.models.geometry.implicit_volume": _same("geometry.implicit_volume", "ImplicitVolume"),
    "threestudio.models.guidance": {},
    "threestudio.models.materials": {},
    "threestudio.models.materials.base": _same("materials.base", "BaseMaterial"),
    "threestudio.models.materials.diffuse_with_point_light_material": _same(
        "materials.diffuse_with_point_light", "DiffuseWithPointLightMaterial"
    ),
    "threestudio.models.materials.no_material": _same("materials.no_material", "NoMaterial"),
    "threestudio.models.networks": _same(
        "networks",
        "CompositeEncoding",
        "NetworkWithInputEncoding",
        "ProgressiveBandFrequency",
        "ProgressiveBandHashGrid",
        "SphereInitVanillaMLP",
        "VanillaMLP",
        "create_network_with_input_encoding",
        "get_encoding",
        "get_mlp",
    ),
    "threestudio.models.prompt_processors": {},
    "threestudio.models.prompt_processors.base": _same(
        "prompt_processors.base", "PromptProcessor", "PromptProcessorOutput", "hash_prompt"
    ),
    "threestudio.models.renderers": {},
    "threestudio.models.renderers.base": _same("renderers.base", "Rasterizer", "Renderer", "VolumeRenderer"),
    "threestudio.models.renderers.nerf_volume_renderer": _same("renderers.nerf_volume_renderer", "NeRFVolumeRenderer"),
}

log = logging.getLogger("pytorch_lightning")
debug, info, warn = log.debug, log.info, log.warning


class _StandInModule(ModuleType):
    """Resolves its names when they are first used."""

    def __getattr__(self, name: str) -> Any:
        table = PROVIDED[self.__name__]
        if name in table:
            value = resolve(table[name])
            setattr(self, name, value)
            return value
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"'{self.__name__}.{name}' is not part of the threestudio stand-in of threestudio-redream. "
            "Run this extension inside upstream threestudio, or ask for the name in an issue."
        )


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if fullname != "threestudio" and not fullname.startswith("threestudio."):
            return None
        if fullname not in PROVIDED:
            raise ModuleNotFoundError(
                f"'{fullname}' is not part of the threestudio stand-in of threestudio-redream. "
                "Run this extension inside upstream threestudio, or ask for the module in an issue.",
                name=fullname,
            )
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _StandInModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, STAND_IN_FLAG, True)
        if module.__name__ == "threestudio":
            module.__version__ = VERSION  # type: ignore[attr-defined]
        if module.__name__ == "threestudio.utils.typing":
            from threestudio_redream.runtime import typing as names

            module.__dict__.update({name: getattr(names, name) for name in names.__all__})
        else:
            module.__all__ = sorted(PROVIDED[module.__name__])  # type: ignore[attr-defined]


_finder = _Finder()


def install() -> None:
    """Make ``import threestudio`` resolve to this runtime; does nothing if threestudio is imported already."""
    if "threestudio" not in sys.modules and _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def uninstall() -> None:
    """Take the hook and its modules away again."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    for name in [
        n for n, m in sys.modules.items() if n.split(".")[0] == "threestudio" and isinstance(m, _StandInModule)
    ]:
        del sys.modules[name]
