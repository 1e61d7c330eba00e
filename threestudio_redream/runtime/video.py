"""Picture sequences -> MP4 or GIF, without an ffmpeg program on the machine."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.files import atomic_path, visible

__all__ = ["matching_frames", "write_video"]


def matching_frames(folder: str | Path, matcher: str) -> list[Path]:
    """Files of ``folder`` whose name matches the regular expression, ordered by its first group as a number.

    Hidden files are left out: a run that was killed may have left half a picture.
    """
    pattern = re.compile(matcher)
    matches = [(pattern.search(path.name), path) for path in visible(Path(folder).iterdir())]
    found = [(int(match.group(1)), path) for match, path in matches if match]
    return [path for _, path in sorted(found)]


def write_video(path: str | Path, frames: Iterable[NDArray[np.uint8]], fps: int = 30) -> Path:
    """Encode ``uint8 [H, W, 3]`` frames by the suffix of ``path``: ``.mp4`` (H.264, plays everywhere) or ``.gif``.

    Odd heights and widths are padded by one pixel, as yuv420p needs even ones. Written atomically.

    Raises:
        ConfigError: if there is no frame or the suffix is unknown.
    """
    path = Path(path)
    images = [np.ascontiguousarray(frame[..., :3]) for frame in frames]
    if not images:
        raise ConfigError("A video needs at least one frame", received=0, fix="Check that the views were saved.")
    if path.suffix == ".gif":
        from PIL import Image

        first, *rest = [Image.fromarray(image) for image in images]
        with atomic_path(path) as temporary:
            first.save(temporary, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, format="GIF")
        return path
    if path.suffix != ".mp4":
        raise ConfigError("Unknown video format", received=path.suffix, fix="Use .mp4 or .gif.")
    import av

    height, width = (n + n % 2 for n in images[0].shape[:2])
    with (
        atomic_path(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"movflags": "faststart"}) as file,
    ):
        stream = file.add_stream("libx264", rate=fps, options={"crf": "18", "preset": "medium"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for image in images:
            padded = np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)), mode="edge")
            for packet in stream.encode(av.VideoFrame.from_ndarray(padded, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return path
