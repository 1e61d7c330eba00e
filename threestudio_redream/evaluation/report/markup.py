"""Pieces of a page: text from a file is escaped, pictures are decoded and encoded anew.

Films go in as they are, for the browser to decode; the policy of the page lets them fetch and run nothing.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

__all__ = ["details", "escaped", "figure", "page", "picture_data", "section", "strip", "table", "video"]

MAX_PICTURE, MAX_VIDEO = 2**25, 2**23
#: Of pictures that are opened: others need decoders with a history, or start programs (EPS).
FORMATS = ("PNG", "JPEG", "WEBP")
NOTHING = '<p class="faint">Nothing was recorded.</p>'
#: What a page may do: show and run what is in it. Nothing is ever fetched.
POLICY = (
    "default-src 'none'; img-src data: blob:; media-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src data: blob:"
)


def page(title: str, body: str) -> str:
    """A whole document."""
    style = resources.files(__package__).joinpath("static").joinpath("page.css").read_text("utf-8")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<style>{style}</style></head><body><main>{body}</main></body></html>\n"
    )


def escaped(value: Any) -> str:
    """Text of a value for a page; nothing for None."""
    return html.escape(str(value if value is not None else ""))


def section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body or NOTHING}</section>"


def details(title: str, text: str) -> str:
    """Long text behind a click; empty if there is none."""
    return f"<details><summary>{title}</summary><pre>{html.escape(text)}</pre></details>" if text else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """Cells are markup already. ``kind`` ``figures`` keeps each cell on one line and scrolls sideways."""
    titles = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    heading = f"<tr>{titles}</tr>" if head else ""
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide {kind}"><table>{heading}{lines}</table></div>' if lines else ""


def picture_data(path: Path, side: int) -> str:
    """A ``data:`` address of a picture at most ``side`` pixels wide and high; empty if it cannot be shown."""
    from PIL import Image, UnidentifiedImageError

    try:
        if path.stat().st_size > MAX_PICTURE:
            return ""
        with Image.open(path, formats=FORMATS) as image:
            image.thumbnail((side, side))
            sink = io.BytesIO()
            image.convert("RGB").save(sink, "PNG", optimize=True)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError):
        return ""
    return f"data:image/png;base64,{base64.b64encode(sink.getvalue()).decode()}"


def figure(path: Path, side: int, caption: str, alt: str) -> str:
    """A picture with what is seen on it as its ``alt`` text; a sentence if it cannot be shown."""
    data = picture_data(path, side)
    if not data:
        return f'<p class="faint">{html.escape(path.name)} cannot be shown</p>'
    said = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{html.escape(alt)}" src="{data}">{said}</figure>'


def strip(figures: Sequence[str], kind: str = "") -> str:
    """Pictures side by side; ``kind`` is ``four`` or ``eight`` for so many columns on a wide screen."""
    return f'<div class="strip {kind}">{"".join(figures)}</div>' if figures else ""


def video(path: Path, label: str) -> str:
    """A film that plays in a loop when started; empty if it is too large for a page."""
    try:
        if path.stat().st_size > MAX_VIDEO:
            return ""
        data = base64.b64encode(path.read_bytes()).decode()
    except OSError:
        return ""
    return (
        f'<video controls loop muted playsinline aria-label="{html.escape(label)}" '
        f'src="data:video/mp4;base64,{data}"></video>'
    )
