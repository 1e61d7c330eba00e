"""Files that come with the project: ``custom_configs`` and ``retrieval_index``, by the paths they have in a clone.

A clone and an editable installation have them beside the package, a wheel within it (``shipped/``, see ``setup.py``).
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["FOLDERS", "shipped"]

FOLDERS = ("custom_configs", "retrieval_index")
_PACKAGE = Path(__file__).resolve().parent


def shipped(path: str | Path) -> Path:
    """``path`` if it is there, seen from the current folder; else the project's own file or folder of that name.

    Args:
        path: absolute, or relative as in ``custom_configs/redream.yaml``; ``~`` is the home folder.

    Returns:
        An existing path if there is one, and ``path`` as it is given otherwise, for the caller's own message.
    """
    given = Path(path).expanduser()
    if given.exists() or given.is_absolute() or given.parts[:1] not in {(name,) for name in FOLDERS}:
        return given
    if ".." in given.parts:
        return given
    ours = (home / given for home in (_PACKAGE / "shipped", _PACKAGE.parent))
    return next((place for place in ours if place.exists()), given)
