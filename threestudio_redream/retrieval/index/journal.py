"""Which files a writer is moving right now, so that a kill between two moves does no harm.

A writer notes its moves, makes them, switches the manifest, deletes what the new one does not name, and takes the
note away. While the note exists, readers overlook the files it names unless the manifest names them too. Whoever
writes next finishes what the note says if the manifest was switched, and undoes it if not.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from threestudio_redream.runtime.files import atomic_write_text

__all__ = ["STAGING", "Journal", "delete"]

STAGING = ".staging"
_NAME = "journal.json"


@dataclass(frozen=True)
class Journal:
    """Paths are below the index folder, with forward slashes.

    Attributes:
        generation: of the manifest that completes the write.
        moves: (staged, final) paths of files and folders that the new manifest names.
        drops: paths that only the old manifest names, and staged folders that are done with.
    """

    generation: int = 0
    moves: tuple[tuple[str, str], ...] = ()
    drops: tuple[str, ...] = ()

    @staticmethod
    def read(folder: Path) -> Journal:
        """The note of an interrupted or running writer; an empty one if there is none, or none that makes sense."""
        try:
            values = json.loads((folder / STAGING / _NAME).read_text())
            moves = tuple((str(staged), str(final)) for staged, final in values["moves"])
            journal = Journal(int(values["generation"]), moves, tuple(map(str, values["drops"])))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return Journal()
        paths = [path for move in journal.moves for path in move] + list(journal.drops)
        return journal if all(map(_is_inside, paths)) else Journal()

    def write(self, folder: Path) -> None:
        """Leave the note."""
        atomic_write_text(folder / STAGING / _NAME, json.dumps(asdict(self)))

    def covers(self, path: str) -> bool:
        """Whether a path is one that the note names, or lies in a folder that it names."""
        named = {final for _, final in self.moves}.union(self.drops)
        return path in named or any(str(parent) in named for parent in PurePosixPath(path).parents)

    def carry_out(self, folder: Path) -> None:
        """Make the moves. What is in place already has the same content, as all names are content hashes."""
        for staged, final in self.moves:
            if not (folder / final).exists():
                (folder / final).parent.mkdir(parents=True, exist_ok=True)
                os.rename(folder / staged, folder / final)

    def settle(self, folder: Path, generation: int) -> None:
        """Finish the write if the manifest of ``generation`` completes it, else undo its moves; forget the note."""
        if generation >= self.generation:
            for path in self.drops:
                delete(folder / path)
        else:
            for staged, final in self.moves:
                if (folder / final).exists() and not (folder / staged).exists():
                    (folder / staged).parent.mkdir(parents=True, exist_ok=True)
                    os.rename(folder / final, folder / staged)
        (folder / STAGING / _NAME).unlink(missing_ok=True)


def delete(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_inside(path: str) -> bool:
    parts = path.split("/")
    known = (parts[0] in (STAGING, "parts", "assets", "ann") and len(parts) > 1) or parts[0].startswith("rejected-")
    return known and all(part not in ("", ".", "..") for part in parts)
