"""Named errors. Every message says what was wrong, the value received, and what to do next."""

from __future__ import annotations

from threestudio_redream.installed import keep_torch

__all__ = [
    "AssetError",
    "AssetLimitError",
    "CheckpointError",
    "ConfigError",
    "EmptySceneError",
    "MissingExtraError",
    "RedreamError",
    "RegistryError",
]


class RedreamError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        problem: what was wrong, as a full sentence without a final full stop.
        received: the value that caused it; shown with ``repr`` and shortened. Leave out when
            there is no single value.
        fix: what to do next, as an instruction.
    """

    def __init__(self, problem: str, *, received: object = ..., fix: str = "") -> None:
        self.problem, self.received, self.fix = problem, received, fix
        text = problem.rstrip(".")
        if received is not ...:
            shown = repr(received)
            text += f" (got {shown if len(shown) <= 300 else shown[:297] + '...'})"
        text += "."
        if fix:
            text += f" {fix}"
        super().__init__(text)


class AssetError(RedreamError, ValueError):
    """A 3D file cannot be used: unreadable, empty, degenerate, non-finite or unsafe."""


class AssetLimitError(AssetError):
    """A 3D file is larger than a cap of :class:`threestudio_redream.assets.Limits`."""


class ConfigError(RedreamError, ValueError, TypeError):
    """A configuration value or key is wrong."""


class RegistryError(RedreamError, KeyError, ValueError):
    """A name is not registered, or is registered twice."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0])


class CheckpointError(RedreamError, ValueError):
    """A checkpoint is damaged, foreign, or does not fit the run."""


class EmptySceneError(RedreamError, RuntimeError):
    """The field holds nothing that could be rendered or exported."""


class MissingExtraError(RedreamError, ImportError):
    """An optional dependency is absent or broken; the message names the extra that brings it.

    Args:
        package: the import name, e.g. ``"open_clip"``.
        extra: the pip extra of this project that installs it, e.g. ``"openclip"``.
        purpose: what it is needed for, e.g. ``"OpenCLIP encoders"``.
        cause: the original exception, whose text is kept.
    """

    def __init__(self, package: str, extra: str, purpose: str, cause: BaseException | None = None) -> None:
        self.package, self.extra = package, extra
        detail = f": {type(cause).__name__}: {cause}" if cause is not None else ""
        super().__init__(
            f"{purpose} needs the package '{package}', which did not import{detail}",
            fix=f"Install it with: pip install 'threestudio-redream[{extra}]'{keep_torch()}",
        )
