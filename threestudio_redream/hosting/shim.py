"""One small file in ``custom/`` of a threestudio checkout that imports the installed package.

The way in for people who install with pip. Classes then live in an importable package, which child processes can
import, too; the checkout gets no copy of anything.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.files import atomic_write_text
from threestudio_redream.shipped import shipped

__all__ = ["SHIM", "Shim", "install", "look", "remove"]

#: Not the package's own name: threestudio would import the file in its place.
SHIM = "threestudio_redream_shim.py"
MARK = "# Written by 'redream install-extension'; take it away with 'redream install-extension --remove'."
MAX_BYTES = 2**16
TEXT = f'''{MARK}
"""Loads threestudio-redream, which is installed as a package, into this threestudio."""

try:
    import threestudio_redream
except ModuleNotFoundError as cause:
    if cause.name != "threestudio_redream":
        raise
    raise ModuleNotFoundError(
        "threestudio-redream is not installed in the environment that runs threestudio. In that environment: "
        "python -m pip install -e FOLDER_OF_ITS_CLONE.",
        name=cause.name,
    ) from cause

threestudio_redream.enter_host()
'''


@dataclass(frozen=True)
class Shim:
    """What was done.

    Attributes:
        status: ``written``, ``updated``, ``unchanged``, ``removed`` or ``absent``; of :func:`look` ``in place``,
            ``outdated`` or ``absent``. file: the shim.
        configs: configurations of this package that threestudio can be given; none if they are not on this machine.
        clones: folders in ``custom/`` that hold the package, too.
    """

    status: str
    file: Path
    configs: tuple[Path, ...] = ()
    clones: tuple[Path, ...] = ()

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        return {
            "status": self.status,
            "file": str(self.file),
            **{key: [str(path) for path in values[key]] for key in ("configs", "clones")},
        }


def install(checkout: Path) -> Shim:
    """Write the shim into ``custom/`` of a checkout. Doing it again changes nothing.

    Raises:
        ConfigError: the folder is no threestudio checkout, is too old for extensions, cannot be written to, or a file
            that is not ours has the shim's name.
    """
    file = _place(checkout)
    there = _ours(file)
    status = {None: "written", TEXT: "unchanged"}.get(there, "updated")
    if status != "unchanged":
        try:
            atomic_write_text(file, TEXT)
        except OSError as cause:
            raise ConfigError(
                f"The file cannot be written: {cause}", received=str(file), fix="Check the rights of the folder."
            ) from cause
    return Shim(status, file, _configs(), _clones(file))


def look(checkout: Path) -> Shim:
    """What is there: ``in place``, ``outdated`` or ``absent``. Writes nothing.

    Raises:
        ConfigError: as :func:`install`.
    """
    file = _place(checkout)
    status = {None: "absent", TEXT: "in place"}.get(_ours(file), "outdated")
    return Shim(status, file, _configs(), _clones(file))


def remove(checkout: Path) -> Shim:
    """Delete the shim, if it is there.

    Raises:
        ConfigError: as :func:`install`.
    """
    file = _place(checkout)
    if _ours(file) is None:
        return Shim("absent", file)
    file.unlink()
    return Shim("removed", file)


def _place(checkout: Path) -> Path:
    lacking = [name for name in ("launch.py", "threestudio/__init__.py") if not (checkout / name).is_file()]
    if lacking:
        raise ConfigError(
            f"The folder is no checkout of threestudio: {' and '.join(lacking)} not found",
            received=str(checkout),
            fix="Give the folder that 'git clone' of threestudio made, the one with launch.py in it.",
        )
    folder = checkout / "custom"
    if not folder.is_dir() and "custom" not in (checkout / "launch.py").read_text("utf-8", errors="replace"):
        raise ConfigError(
            "This threestudio loads no extensions: its launch.py knows no folder 'custom'",
            received=str(checkout),
            fix="Update the checkout to version 0.2.0 or newer: git pull.",
        )
    return folder / SHIM


def _ours(file: Path) -> str | None:
    """Text of the shim that is there, None if there is none."""
    if not file.exists() and not file.is_symlink():
        return None
    try:
        text = file.read_text("utf-8") if file.stat().st_size <= MAX_BYTES else ""
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text.startswith(MARK) or file.is_symlink():
        raise ConfigError(
            "A file that redream has not written has this name",
            received=str(file),
            fix="Look at it, then move or rename it.",
        )
    return text


def _clones(file: Path) -> tuple[Path, ...]:
    return tuple(sorted(path.parents[1] for path in file.parent.glob("*/threestudio_redream/__init__.py")))


def _configs() -> tuple[Path, ...]:
    names = ("redream.yaml", "redream-sd21.yaml")
    places = (shipped(Path("custom_configs") / name).resolve() for name in names)
    return tuple(path for path in places if path.is_file())
