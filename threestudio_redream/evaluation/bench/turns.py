"""The turn of a run as one small picture beside its row: what a table is about can be looked at without the runs."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.evaluation.report.reading import turn_frames
from threestudio_redream.runtime.files import atomic_write_bytes

__all__ = ["QUALITY", "SIDE", "TURN", "VIEWS", "keep_turn", "read_turn", "turn_of", "view_of_turn"]

TURN = "turn.webp"
#: Views side by side, the front first and 30 degrees apart; their size in pixels.
VIEWS, SIDE, QUALITY = 12, 112, 80
MAX_BYTES = 2**20
FORMATS = ("PNG", "JPEG", "WEBP")


def keep_turn(folder: Path) -> bool:
    """Write the newest turn of test views of a run's folder to its ``turn.webp``; whether there was one to write.

    A turn with a damaged picture, or with fewer than twelve, is none.
    """
    from PIL import Image

    frames = turn_frames(folder / "save")
    if len(frames) < VIEWS:
        return False
    sheet = np.zeros((SIDE, VIEWS * SIDE, 3), np.uint8)
    for i in range(VIEWS):
        try:
            with Image.open(frames[round(i * len(frames) / VIEWS)], formats=FORMATS) as image:
                view = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return False
        sheet[:, i * SIDE : (i + 1) * SIDE] = view
    sink = io.BytesIO()
    Image.fromarray(sheet).save(sink, "WEBP", quality=QUALITY, method=6)
    atomic_write_bytes(folder / TURN, sink.getvalue())
    return True


def read_turn(path: Path) -> bytes | None:
    """The file that :func:`keep_turn` wrote; None if there is none or it is something else."""
    from PIL import Image

    try:
        if path.stat().st_size > MAX_BYTES:
            return None
        data = path.read_bytes()
        with Image.open(io.BytesIO(data), formats=("WEBP",)) as image:
            return data if image.size == (VIEWS * SIDE, SIDE) else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def turn_of(folder: Path) -> bytes | None:
    """The turn of a run's folder, made now if it is not there yet; None without test views."""
    data = read_turn(folder / TURN)
    return data if data is not None or not keep_turn(folder) else read_turn(folder / TURN)


def view_of_turn(data: bytes, view: int) -> NDArray[np.float32]:
    """``[SIDE, SIDE, 3]`` in [0, 1]: what :func:`read_turn` gave, seen from ``30 view`` degrees."""
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=("WEBP",)) as image:
        sheet = np.asarray(image.convert("RGB"), np.float32) / 255.0
    return sheet[:, view * SIDE : (view + 1) * SIDE]
