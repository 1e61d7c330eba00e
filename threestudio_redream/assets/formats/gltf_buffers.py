"""Buffers, buffer views and accessors of glTF, with every offset checked before memory is touched."""

from __future__ import annotations

import base64
import binascii
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.files import SideFiles
from threestudio_redream.assets.formats.gltf_json import Document, as_index, as_int, as_object, as_text, extension
from threestudio_redream.assets.limits import Limits
from threestudio_redream.errors import AssetError

__all__ = ["Buffers", "scaled"]

_COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_RE_EXPORT = "Export the file again"


def scaled(values: NDArray, normalized: bool) -> NDArray[np.float64]:
    """Float64 values of an accessor; normalised integers become [0, 1] or [-1, 1]."""
    if values.dtype.kind == "f" or not normalized:
        return values.astype(np.float64)
    return np.maximum(values.astype(np.float64) / np.iinfo(values.dtype).max, -1.0)


class Buffers:
    """Lazy access to the binary data of a document."""

    def __init__(self, document: Document, binary: memoryview | None, files: SideFiles, limits: Limits) -> None:
        self._document, self._binary, self._files = document, binary, files
        self._max_count = max(limits.max_vertices, 3 * limits.max_faces)
        self._loaded: dict[int, memoryview] = {}
        self._arrays: dict[tuple[int, int], NDArray] = {}

    def uri_bytes(self, uri: str, what: str) -> bytes:
        """Bytes of a data URI, or of a file beside the asset.

        Raises:
            AssetError: remote, outside the folder, or broken base64. AssetLimitError: a file too large.
        """
        if not uri.startswith("data:"):
            return self._files.read(unquote(uri), what)
        head, _, payload = uri.partition(",")
        if not head.endswith(";base64"):
            raise AssetError(f"{what} in a data URI is not base64", received=head[:80], fix=_RE_EXPORT)
        try:
            return base64.b64decode(payload, validate=True)
        except (binascii.Error, ValueError) as error:
            raise AssetError(f"{what} in a data URI is damaged base64", received=str(error), fix=_RE_EXPORT) from error

    def _buffer(self, index: int) -> memoryview:
        if index not in self._loaded:
            entry = self._document.items("buffers")[index]
            length = as_int(entry.get("byteLength"), "buffer.byteLength")
            if "uri" in entry:
                data = memoryview(self.uri_bytes(as_text(entry["uri"], "buffer.uri"), "a glTF buffer"))
            elif index == 0 and self._binary is not None:
                data = self._binary
            else:
                raise AssetError("a glTF buffer has no data", received=index, fix=_RE_EXPORT)
            if length > len(data):
                raise AssetError(
                    f"a glTF buffer is truncated: {length} bytes were announced", received=len(data), fix=_RE_EXPORT
                )
            self._loaded[index] = data[:length]
        return self._loaded[index]

    def view(self, index: Any) -> tuple[memoryview, int]:
        """Bytes of a buffer view and its byte stride (0 if packed)."""
        entry = self._document.get("bufferViews", index, "bufferView")
        if any(extension(entry, f"{owner}_meshopt_compression") is not None for owner in ("EXT", "KHR")):
            raise AssetError(
                "the geometry is compressed with meshopt, which cannot be decoded here",
                received="EXT_meshopt_compression",
                fix="Export without it, or with Draco",
            )
        buffers = self._document.items("buffers")
        which = as_int(entry.get("buffer"), "bufferView.buffer", 0, len(buffers) - 1)
        offset = as_int(entry.get("byteOffset", 0), "bufferView.byteOffset")
        length = as_int(entry.get("byteLength"), "bufferView.byteLength")
        data = self._buffer(which)
        if offset + length > len(data):
            raise AssetError(
                f"a glTF buffer view reaches past its buffer of {len(data)} bytes",
                received=offset + length,
                fix=_RE_EXPORT,
            )
        stride = as_int(entry.get("byteStride", 0), "bufferView.byteStride", 0, 252)
        return data[offset : offset + length], stride

    def count(self, index: Any, what: str) -> int:
        """Number of elements of an accessor, before anything is read."""
        entry = self._document.get("accessors", index, what)
        return as_int(entry.get("count"), "accessor.count", 0, self._max_count)

    def is_normalized(self, index: Any, what: str) -> bool:
        return self._document.get("accessors", index, what).get("normalized") is True

    def accessor(self, index: Any, width: int, what: str) -> NDArray:
        """``[count, width]`` in the stored dtype, sparse values filled in; not to be written to.

        Raises:
            AssetError: another element type, or data outside its buffer view.
        """
        key = (as_index(index, self._document.items("accessors"), what), width)
        if key not in self._arrays:  # primitives often share accessors
            self._arrays[key] = self._read(
                self._document.items("accessors")[key[0]], self.count(index, what), width, what
            )
        return self._arrays[key]

    def _read(self, entry: dict[str, Any], count: int, width: int, what: str) -> NDArray:
        stored = as_text(entry.get("type"), "accessor.type")
        if _WIDTHS.get(stored) != width:
            raise AssetError(f"glTF {what} has the wrong element type", received=stored, fix=_RE_EXPORT)
        dtype = self._dtype(entry.get("componentType"))
        if "bufferView" in entry:
            values = self._strided(entry["bufferView"], entry.get("byteOffset", 0), count, width, dtype)
        else:
            values = np.zeros((count, width), dtype)
        if "sparse" in entry:
            values = self._with_sparse(values, as_object(entry["sparse"], "accessor.sparse"), dtype)
        return values

    @staticmethod
    def _dtype(code: Any) -> np.dtype:
        number = as_int(code, "accessor.componentType")
        if number not in _COMPONENTS:
            raise AssetError("a glTF accessor has an unknown component type", received=number, fix=_RE_EXPORT)
        return np.dtype(_COMPONENTS[number])

    def _strided(self, view: Any, offset: Any, count: int, width: int, dtype: np.dtype) -> NDArray:
        data, stride = self.view(view)
        start, element = as_int(offset, "accessor.byteOffset"), width * dtype.itemsize
        stride = stride or element
        if count and start + stride * (count - 1) + element > len(data):
            raise AssetError(
                f"a glTF accessor of {count} elements reaches past its buffer view", received=len(data), fix=_RE_EXPORT
            )
        if not count:
            return np.zeros((0, width), dtype)
        return np.ndarray((count, width), dtype, data, start, (stride, dtype.itemsize)).copy()

    def _with_sparse(self, values: NDArray, sparse: dict[str, Any], dtype: np.dtype) -> NDArray:
        count = as_int(sparse.get("count"), "sparse.count", 0, len(values))
        where, what = (
            as_object(sparse.get("indices"), "sparse.indices"),
            as_object(sparse.get("values"), "sparse.values"),
        )
        index_type = self._dtype(where.get("componentType"))
        indices = self._strided(where.get("bufferView"), where.get("byteOffset", 0), count, 1, index_type)[:, 0]
        if index_type.kind != "u" or (count and int(indices.max()) >= len(values)):
            raise AssetError(
                "a sparse glTF accessor changes elements that do not exist", received=count, fix=_RE_EXPORT
            )
        values[indices] = self._strided(
            what.get("bufferView"), what.get("byteOffset", 0), count, values.shape[1], dtype
        )
        return values
