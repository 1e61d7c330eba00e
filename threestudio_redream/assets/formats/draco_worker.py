"""The child process of :mod:`draco`: reads streams on stdin, writes an ``.npz`` on stdout."""

from __future__ import annotations

import contextlib
import struct
import sys
from io import BytesIO
from typing import Any, NoReturn

import numpy as np

from threestudio_redream.assets.formats.draco import BAD_STREAM, NO_DECODER

__all__ = ["main"]

_MEMORY, _CPU_SECONDS = 768 * 1024**2, 2
_MAX_REPLY = 256 * 1024**2


def _restrict() -> None:
    """Cap address space and processor time, where the system can (POSIX)."""
    try:
        import resource
    except ImportError:
        return
    for kind, amount in ((resource.RLIMIT_AS, _MEMORY), (resource.RLIMIT_CPU, _CPU_SECONDS), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS knows RLIMIT_AS and refuses to set it
            resource.setrlimit(kind, (amount, amount))


def _fail(status: int, message: str) -> NoReturn:
    sys.stderr.write(message)
    sys.exit(status)


def _decode(decode: Any, request: bytes) -> dict[str, np.ndarray]:
    max_vertices, max_indices = struct.unpack_from("<QQ", request)
    arrays: dict[str, np.ndarray] = {}
    at, index, vertices, indices = 16, 0, 0, 0
    while at < len(request):
        size = struct.unpack_from("<Q", request, at)[0]
        mesh = decode(request[at + 8 : at + 8 + size])
        faces = np.asarray(getattr(mesh, "faces", np.zeros((0, 3))))
        vertices, indices = vertices + len(mesh.points), indices + faces.size
        if vertices > max_vertices or indices > max_indices:
            raise ValueError(f"{indices // 3} faces and {vertices} vertices are above the caps")
        arrays[f"{index}/faces"] = faces.reshape(-1, 3)
        for attribute in mesh.attributes:
            arrays[f"{index}/{int(attribute['unique_id'])}"] = np.asarray(attribute["data"])
        if sum(array.nbytes for array in arrays.values()) > _MAX_REPLY:
            raise ValueError("the decoded attributes are too large")
        at, index = at + 8 + size, index + 1
    return arrays


def main() -> None:
    """Decode everything on stdin; exit status 0, ``NO_DECODER`` or ``BAD_STREAM`` with a reason on stderr."""
    request = sys.stdin.buffer.read()
    try:
        import DracoPy
    except ImportError as error:
        _fail(NO_DECODER, str(error))
    _restrict()
    try:
        arrays = _decode(DracoPy.decode, request)
        stream = BytesIO()
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    except Exception as error:  # whatever the decoder raises becomes a sentence in the parent
        _fail(BAD_STREAM, f"{type(error).__name__}: {error}")
    sys.stdout.buffer.write(stream.getbuffer())
