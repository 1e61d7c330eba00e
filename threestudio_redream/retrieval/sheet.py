"""A contact sheet of search results."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.retrieval.index.reader import Index
from threestudio_redream.retrieval.types import Hit, SearchResult
from threestudio_redream.runtime.files import atomic_path

__all__ = ["write_sheet"]

_TILE, _LINE, _COLUMNS = 192, 16, 5
_INK, _PAPER, _EMPTY = (20, 20, 20), (255, 255, 255), (225, 225, 225)


def write_sheet(path: str | Path, index: Index, result: SearchResult) -> Path:
    """Write a PNG with a tile per hit: thumbnail (grey if there is none), rank, name, both scores, licence."""
    from PIL import Image, ImageDraw

    hits = result.results
    columns = max(1, min(_COLUMNS, len(hits)))
    rows = max(1, math.ceil(len(hits) / columns))
    height = _TILE + 3 * _LINE + 8
    sheet = Image.new("RGB", (columns * _TILE, rows * height + _LINE + 8), _PAPER)
    draw = ImageDraw.Draw(sheet)
    note = "" if result.outcome == "ok" else "  (nothing similar enough)"
    draw.text((4, 4), _fit(result.query + note, columns), fill=_INK)
    for number, hit in enumerate(hits):
        x, y = number % columns * _TILE, number // columns * height + _LINE + 8
        sheet.paste(_tile(index.thumb(hit.record.asset_id)), (x, y))
        for line, text in enumerate(_lines(number + 1, hit)):
            draw.text((x + 4, y + _TILE + 2 + line * _LINE), _fit(text), fill=_INK)
    path = Path(path)
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG")
    return path


def _tile(thumb: NDArray[np.uint8] | None) -> Any:
    from PIL import Image

    if thumb is None:
        return Image.new("RGB", (_TILE, _TILE), _EMPTY)
    return Image.fromarray(np.asarray(thumb)).resize((_TILE, _TILE), Image.Resampling.LANCZOS)


def _lines(rank: int, hit: Hit) -> tuple[str, str, str]:
    image = "-" if np.isnan(hit.score_image) else f"{hit.score_image:.3f}"
    return (
        f"{rank}. {hit.record.name}",
        f"text {hit.score_text:.3f}  image {image}",
        hit.record.licence or "licence unknown",
    )


def _fit(text: str, columns: int = 1) -> str:
    """What fits into the width, in the characters that Pillow's built-in font has."""
    text = text.encode("latin-1", "replace").decode("latin-1")
    room = columns * _TILE // 6 - 2
    return text if len(text) <= room else text[: room - 2] + ".."
