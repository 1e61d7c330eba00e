"""What an exporter is: called once after training, it names savers of the system and their arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from threestudio_redream.runtime.base import BaseObject
from threestudio_redream.runtime.registry import register

__all__ = ["Exporter", "ExporterOutput"]


@dataclass
class ExporterOutput:
    """One file to write: the system's ``save_<save_type>(save_name, **params)`` is called."""

    save_name: str
    save_type: str
    params: dict[str, Any]


class Exporter(BaseObject):
    """Base of exporters; ``geometry``, ``material`` and ``background`` are those of the system.

    Keys:
        save_video: write the turn of test views while exporting, too.
    """

    @dataclass
    class Config(BaseObject.Config):
        save_video: bool = False

    cfg: Config

    def configure(self, geometry: Any, material: Any, background: Any) -> None:
        self.geometry, self.material, self.background = geometry, material, background

    def __call__(self, *args: Any, **kwargs: Any) -> list[ExporterOutput]:
        raise NotImplementedError(f"{type(self).__name__} must override __call__")


@register("dummy-exporter")
class DummyExporter(Exporter):
    """Writes nothing; for systems that only want the test video."""

    def __call__(self, *args: Any, **kwargs: Any) -> list[ExporterOutput]:
        return []
