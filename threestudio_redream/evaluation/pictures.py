"""Numbered pictures of a turn, read as a stranger's files: every one of them, whole, alike, with something on it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from threestudio_redream.errors import RedreamError

__all__ = ["FORMATS", "PICTURE", "RendersError", "check_pictures", "content_digest", "open_pictures"]

MAX_VIEWS, MAX_SIDE = 4096, 4096
#: Of all pictures together; as floats they take 12 bytes each.
MAX_PIXELS = 2**28
BLANK = 2.0 / 255.0
#: Of pictures that are opened: others need decoders with a history, or start programs (EPS).
FORMATS = ("PNG", "JPEG", "WEBP")
PICTURE = re.compile(r"(\d{1,6})\.(png|jpg|jpeg|webp|npy)")

Kind = Literal["missing", "count", "stale", "blank", "nan", "resolution", "unreadable", "mesh"]


class RendersError(RedreamError, ValueError):
    """Pictures that cannot be scored.

    Attributes:
        kind: ``missing`` (a view, or all of them), ``count`` (more views than expected), ``stale`` (the run went on
            after they were made), ``blank`` (one colour), ``nan``, ``resolution`` (of two sizes, or too large to be
            held at once), ``unreadable`` (no picture), ``mesh`` (a 3D file that cannot be used).
    """

    def __init__(self, problem: str, *, kind: Kind, received: object = ..., fix: str = "") -> None:
        super().__init__(problem, received=received, fix=fix)
        self.kind = kind


def open_pictures(folder: Path, count: int | None, *, blank: bool = True) -> tuple[Tensor, str]:
    """Pictures ``0.png``, ``1.png``, ... of a folder: ``[A, H, W, 3 or 4]`` float32 in [0, 1], with a digest.

    Args:
        count: expected views; None: up to the largest number. blank: refuse views of one colour.

    Raises:
        RendersError: see its kinds.
    """
    named = [(int(match[1]), path) for path in folder.iterdir() if (match := PICTURE.fullmatch(path.name))]
    found = dict(named)
    if not found:
        raise RendersError(
            "The folder has no numbered pictures",
            kind="missing",
            received=str(folder),
            fix="Name them 0.png, 1.png, ...",
        )
    if len(found) < len(named):
        twice = sorted(path.name for number, path in named if sum(number == other for other, _ in named) > 1)
        raise RendersError(
            "A view is there twice", kind="count", received=twice[:10], fix="Keep one of each, or render again."
        )
    wanted = range(count if count is not None else max(found) + 1)
    if missing := [i for i in wanted if i not in found]:
        raise RendersError(
            f"{len(missing)} of {len(wanted)} views are missing",
            kind="missing",
            received=missing[:10],
            fix=f"Render them again, all {len(wanted)}.",
        )
    if extra := sorted(set(found) - set(wanted)):
        raise RendersError(
            f"There are {len(found)} views where {len(wanted)} are expected",
            kind="count",
            received=extra[:10],
            fix="Clear the folder and render again: left-over views belong to another run.",
        )
    if not 2 <= len(found) <= MAX_VIEWS:
        raise RendersError(
            f"A turn has 2 to {MAX_VIEWS} views", kind="count", received=len(found), fix="Render 120 of them."
        )
    paths = [found[i] for i in wanted]
    return check_pictures(_pictures(paths), [path.name for path in paths], blank), content_digest(paths)


def _pictures(paths: Sequence[Path]) -> Iterator[NDArray[np.float32]]:
    """One after the other, unless they cannot all be held."""
    for number, path in enumerate(paths):
        picture = _picture(path)
        height, width = picture.shape[:2]
        if not number and len(paths) * height * width > MAX_PIXELS:
            raise RendersError(
                f"Together the views have more than {MAX_PIXELS:,} pixels",
                kind="resolution",
                received=f"{len(paths)} of {width} x {height}",
                fix="Make them smaller; metrics look at 224 to 512 pixels.",
            )
        yield picture


def _picture(path: Path) -> NDArray[np.float32]:
    """``[H, W, 3]`` in [0, 1], or ``[H, W, 4]`` of a transparent picture; a ``.npy`` holds floats."""
    try:
        if path.suffix == ".npy":
            array = np.load(path, allow_pickle=False, mmap_mode="r")
            if not isinstance(array, np.ndarray):
                raise ValueError("it is an archive, not one array")
            if array.ndim != 3 or array.shape[2] != 3 or max(array.shape) > MAX_SIDE or array.dtype.kind != "f":
                raise ValueError(f"it holds {array.dtype} {array.shape}, not floats [H, W, 3]")
            return np.array(array, np.float32)
        with Image.open(path, formats=FORMATS) as image:
            if max(image.size) > MAX_SIDE:
                raise ValueError(f"it is larger than {MAX_SIDE} pixels")
            if image.mode[0] in "IF":
                raise ValueError(f"it is grey of more than 8 bits ({image.mode})")
            mode = "RGBA" if image.has_transparency_data else "RGB"
            return np.asarray(image.convert(mode), np.float32) / np.float32(255.0)
    except (OSError, EOFError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as cause:
        raise RendersError(
            f"A view cannot be read: {cause}", kind="unreadable", received=path.name, fix="Render it again."
        ) from cause


def check_pictures(pictures: Iterator[NDArray[np.float32]], names: Sequence[str], blank: bool) -> Tensor:
    """``[A, H, W, 3 or 4]``, all of one size, finite, in range, none of one colour if ``blank``.

    Raises:
        RendersError: at the first that is not.
    """
    stack: NDArray[np.float32] = np.zeros((0,), np.float32)
    for number, (picture, name) in enumerate(zip(pictures, names)):
        if not number:
            stack = np.zeros((len(names), *picture.shape), np.float32)
        if picture.shape != stack.shape[1:]:
            raise RendersError(
                "Views have different sizes",
                kind="resolution",
                received={names[0]: stack.shape[1:], name: picture.shape},
                fix="Render all of them alike, with or without transparency.",
            )
        if not np.isfinite(picture).all():
            raise RendersError("A view holds NaN or infinity", kind="nan", received=name, fix="Render it again.")
        if picture.min() < -1e-3 or picture.max() > 1.0 + 1e-3:
            raise RendersError(
                "A view holds values outside [0, 1]",
                kind="unreadable",
                received=(name, float(picture.min()), float(picture.max())),
                fix="Store pictures in [0, 1].",
            )
        seen = picture[..., :3] * picture[..., 3:] if picture.shape[2] == 4 else picture
        if blank and float(np.ptp(seen, axis=(0, 1)).max()) < BLANK and np.ptp(picture[..., -1]) < BLANK:
            colour = [round(float(c), 3) for c in seen[0, 0]]
            what = "all black" if max(colour) < BLANK else "of one colour"
            raise RendersError(
                f"A view is {what}: nothing is visible on it",
                kind="blank",
                received=(name, colour),
                fix="Look at the run: an empty scene has no score.",
            )
        stack[number] = picture
    return torch.from_numpy(stack).clamp_(0.0, 1.0)


def content_digest(paths: Sequence[Path]) -> str:
    """SHA-256 over names and contents."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(os.fsencode(path.name) + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
