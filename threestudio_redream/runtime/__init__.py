"""The threestudio contract: base classes, registry, configuration, saving.

Import everything a threestudio class needs from here. The names resolve, when first used, to
upstream's own objects if upstream launched this process, and to ours otherwise (see ``host``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from threestudio_redream.runtime.host import resolve, upstream

if TYPE_CHECKING:  # static checkers see our own classes
    from threestudio_redream.runtime.backgrounds.base import (
        BaseBackground as BaseBackground,
    )
    from threestudio_redream.runtime.base import (
        BaseModule as BaseModule,
    )
    from threestudio_redream.runtime.base import (
        BaseObject as BaseObject,
    )
    from threestudio_redream.runtime.base import (
        Updateable as Updateable,
    )
    from threestudio_redream.runtime.config import (
        ExperimentConfig as ExperimentConfig,
    )
    from threestudio_redream.runtime.config import (
        dump_config as dump_config,
    )
    from threestudio_redream.runtime.config import (
        load_config as load_config,
    )
    from threestudio_redream.runtime.config import (
        parse_structured as parse_structured,
    )
    from threestudio_redream.runtime.device import (
        cleanup as cleanup,
    )
    from threestudio_redream.runtime.device import (
        get_device as get_device,
    )
    from threestudio_redream.runtime.device import (
        get_rank as get_rank,
    )
    from threestudio_redream.runtime.exporters.base import (
        Exporter as Exporter,
    )
    from threestudio_redream.runtime.exporters.base import (
        ExporterOutput as ExporterOutput,
    )
    from threestudio_redream.runtime.geometry.base import (
        BaseGeometry as BaseGeometry,
    )
    from threestudio_redream.runtime.geometry.base import (
        BaseImplicitGeometry as BaseImplicitGeometry,
    )
    from threestudio_redream.runtime.materials.base import (
        BaseMaterial as BaseMaterial,
    )
    from threestudio_redream.runtime.networks import (
        get_encoding as get_encoding,
    )
    from threestudio_redream.runtime.networks import (
        get_mlp as get_mlp,
    )
    from threestudio_redream.runtime.prompt_processors.base import (
        PromptProcessor as PromptProcessor,
    )
    from threestudio_redream.runtime.prompt_processors.base import (
        PromptProcessorOutput as PromptProcessorOutput,
    )
    from threestudio_redream.runtime.registry import (
        find as find,
    )
    from threestudio_redream.runtime.registry import (
        register as register,
    )
    from threestudio_redream.runtime.renderers.base import (
        Renderer as Renderer,
    )
    from threestudio_redream.runtime.renderers.base import (
        VolumeRenderer as VolumeRenderer,
    )
    from threestudio_redream.runtime.saving import (
        SaverMixin as SaverMixin,
    )
    from threestudio_redream.runtime.schedule import (
        C as C,
    )
    from threestudio_redream.runtime.system import (
        BaseLift3DSystem as BaseLift3DSystem,
    )
    from threestudio_redream.runtime.system import (
        BaseSystem as BaseSystem,
    )

#: name -> (where ours lives, where it is inside upstream: upstream's own, or upstream's with what our classes rely on)
_NAMES: dict[str, tuple[str, str]] = {
    "BaseBackground": ("backgrounds.base", "threestudio.models.background.base"),
    "BaseGeometry": ("geometry.base", "threestudio.models.geometry.base"),
    "BaseImplicitGeometry": ("geometry.base", "threestudio.models.geometry.base"),
    "BaseLift3DSystem": ("system", "threestudio_redream.hosting.system"),
    "BaseMaterial": ("materials.base", "threestudio.models.materials.base"),
    "BaseModule": ("base", "threestudio.utils.base"),
    "BaseObject": ("base", "threestudio.utils.base"),
    "BaseSystem": ("system", "threestudio_redream.hosting.system"),
    "C": ("schedule", "threestudio.utils.misc"),
    "Exporter": ("exporters.base", "threestudio.models.exporters.base"),
    "ExporterOutput": ("exporters.base", "threestudio.models.exporters.base"),
    "ExperimentConfig": ("config", "threestudio.utils.config"),
    "PromptProcessor": ("prompt_processors.base", "threestudio_redream.hosting.prompts"),
    "PromptProcessorOutput": ("prompt_processors.base", "threestudio_redream.runtime.prompt_processors.base"),
    "Renderer": ("renderers.base", "threestudio.models.renderers.base"),
    "SaverMixin": ("saving", "threestudio.utils.saving"),
    "Updateable": ("base", "threestudio.utils.base"),
    "VolumeRenderer": ("renderers.base", "threestudio.models.renderers.base"),
    "cleanup": ("device", "threestudio.utils.misc"),
    "dump_config": ("config", "threestudio.utils.config"),
    "find": ("registry", "threestudio_redream.hosting.names"),
    "get_device": ("device", "threestudio.utils.misc"),
    "get_encoding": ("networks", "threestudio.models.networks"),
    "get_mlp": ("networks", "threestudio.models.networks"),
    "get_rank": ("device", "threestudio.utils.misc"),
    "load_config": ("config", "threestudio.utils.config"),
    "parse_structured": ("config", "threestudio_redream.runtime.config"),
    "register": ("registry", "threestudio_redream.hosting.names"),
}

__all__ = [
    "BaseBackground",
    "BaseGeometry",
    "BaseImplicitGeometry",
    "BaseLift3DSystem",
    "BaseMaterial",
    "BaseModule",
    "BaseObject",
    "BaseSystem",
    "C",
    "ExperimentConfig",
    "Exporter",
    "ExporterOutput",
    "PromptProcessor",
    "PromptProcessorOutput",
    "Renderer",
    "SaverMixin",
    "Updateable",
    "VolumeRenderer",
    "cleanup",
    "dump_config",
    "find",
    "get_device",
    "get_encoding",
    "get_mlp",
    "get_rank",
    "load_config",
    "parse_structured",
    "register",
]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    ours, theirs = _NAMES[name]
    return resolve(f"{theirs}:{name}" if upstream() is not None else f"{__name__}.{ours}:{name}")


def __dir__() -> list[str]:
    return sorted(__all__)
