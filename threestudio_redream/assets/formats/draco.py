"""Draco decoding in a child process.

The decoder is native code, and a few bytes of a Draco stream can ask for gigabytes. So it runs where a
crash, an endless loop or an allocation beyond the cap ends a child and becomes a named error here.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import threestudio_redream
from threestudio_redream.assets.limits import Limits
from threestudio_redream.errors import AssetError

__all__ = ["BAD_STREAM", "NO_DECODER", "DracoMesh", "decode_draco"]

#: Exit statuses of the worker.
NO_DECODER, BAD_STREAM = 3, 4
_TIMEOUT_S = 20.0
_COMMAND = "from threestudio_redream.assets.formats.draco_worker import main; main()"


class DracoMesh(NamedTuple):
    """``faces`` ``[F, 3]``; ``attributes`` by the unique id that glTF refers to, each ``[V, C]``."""

    faces: NDArray[np.int64]
    attributes: dict[int, NDArray]


def decode_draco(streams: Sequence[bytes], limits: Limits) -> list[DracoMesh]:
    """Decode Draco streams.

    Raises:
        AssetError: a stream is damaged, or too much for the child's memory and time, or
            DracoPy is not installed.
    """
    if not streams:
        return []
    package_parent = Path(threestudio_redream.__file__).resolve().parent.parent
    environment = dict(os.environ) | {
        "PYTHONPATH": os.pathsep.join([str(package_parent), *(entry for entry in sys.path if entry)]),
        "OPENBLAS_NUM_THREADS": "1",  # each thread reserves address space, which is capped
        "OMP_NUM_THREADS": "1",
    }
    request = struct.pack("<QQ", limits.max_vertices, 3 * limits.max_faces)
    request += b"".join(struct.pack("<Q", len(stream)) + stream for stream in streams)
    try:
        reply = subprocess.run(
            [sys.executable, "-c", _COMMAND],
            input=request,
            capture_output=True,
            timeout=_TIMEOUT_S,
            env=environment,
            cwd=package_parent,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(type(error).__name__) from error
    message = reply.stderr.decode("utf-8", "replace").strip()[-200:]
    if reply.returncode == NO_DECODER:
        problem = "the geometry is Draco-compressed, and the package DracoPy did not import"
        raise AssetError(problem, received=message, fix="Install it with: pip install DracoPy")
    if reply.returncode != 0:
        raise _failed(
            message if reply.returncode == BAD_STREAM else f"the decoder ended with status {reply.returncode}"
        )
    with np.load(BytesIO(reply.stdout), allow_pickle=False) as arrays:
        meshes = [DracoMesh(arrays[f"{index}/faces"].astype(np.int64), {}) for index in range(len(streams))]
        for key in arrays.files:
            index, _, identifier = key.partition("/")
            if identifier != "faces":
                meshes[int(index)].attributes[int(identifier)] = arrays[key]
    return meshes


def _failed(detail: str) -> AssetError:
    return AssetError(
        "the Draco-compressed geometry cannot be decoded",
        received=detail,
        fix="Export the file without Draco compression or download it again",
    )
