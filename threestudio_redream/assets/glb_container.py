"""A GLB file under construction: the binary chunk, the JSON lists that describe it, and the container around both."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.errors import ConfigError

__all__ = ["ARRAY_BUFFER", "ELEMENT_ARRAY_BUFFER", "GlbContainer"]

# Numbers of the glTF 2.0 specification.
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
_COMPONENTS = {"|i1": 5120, "<u2": 5123, "<u4": 5125, "<f4": 5126}
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}


class GlbContainer:
    """Collects views on 4-byte boundaries, as accessors need them; the same calls give the same bytes.

    Attributes:
        root: the document so far: ``bufferViews``, ``accessors``, and what the user adds.
    """

    def __init__(self) -> None:
        self._binary = bytearray()
        self.root: dict[str, Any] = {"bufferViews": [], "accessors": []}

    def view(self, data: bytes, *, stride: int = 0, target: int | None = None) -> int:
        """Add bytes; returns the index of the new ``bufferView``."""
        self._pad()
        entry: dict[str, Any] = {"buffer": 0, "byteOffset": len(self._binary), "byteLength": len(data)}
        if stride:
            entry["byteStride"] = stride
        if target is not None:
            entry["target"] = target
        self.root["bufferViews"].append(entry)
        self._binary += data
        return len(self.root["bufferViews"]) - 1

    def accessor(self, values: NDArray, dtype: str, *, normalized: bool = False, target: int | None = None) -> int:
        """Add an array; returns the index of the new accessor.

        Args:
            values: ``[N]`` (indices) or ``[N, C]`` (a vertex attribute, each row padded to whole 4 bytes).
            dtype: ``|i1``, ``<u2``, ``<u4`` or ``<f4``. normalized: integers stand for [0, 1] or [-1, 1].
            target: what the view is for.
        """
        array = np.ascontiguousarray(values, dtype)
        rows, stride = array, 0
        if array.ndim == 2 and (spare := -array.itemsize * array.shape[1] % 4):
            rows = np.pad(array, ((0, 0), (0, spare // array.itemsize)))
            stride = rows.itemsize * rows.shape[1]
        entry = {
            "bufferView": self.view(rows.tobytes(), stride=stride, target=target),
            "componentType": _COMPONENTS[array.dtype.str],
            "count": len(array),
            "type": _TYPES[1 if array.ndim == 1 else array.shape[1]],
        }
        if normalized:
            entry["normalized"] = True
        elif array.ndim == 2 and array.shape[1] == 3:  # required for positions, harmless for normals
            entry |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
        self.root["accessors"].append(entry)
        return len(self.root["accessors"]) - 1

    def finish(self, document: Mapping[str, Any]) -> bytes:
        """The file: a 12-byte header, a JSON chunk padded with spaces, the binary chunk padded with zeros.

        Args:
            document: the rest of it: asset, scenes, nodes, meshes.

        Raises:
            ConfigError: something in it is no JSON.
        """
        self._pad()
        root = {**document, "buffers": [{"byteLength": len(self._binary)}], **self.root}
        try:
            text = json.dumps(root, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"The extras of a GLB must be JSON ({error})",
                received=document["asset"].get("extras"),
                fix="Use strings, finite numbers, lists and dicts with string keys.",
            ) from error
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(self._binary), b"BIN\0") + self._binary
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks

    def _pad(self) -> None:
        self._binary += b"\0" * (-len(self._binary) % 4)
