"""The outer layers of GLB and glTF: chunks, and JSON that is measured before it is parsed.

Nothing in a glTF document can be trusted to have the type that the specification gives it. All access
goes through the ``as_*`` functions and :class:`Document`, which raise a named error instead of TypeError.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any, NoReturn

import numpy as np

from threestudio_redream.assets.limits import Limits, check_limit
from threestudio_redream.errors import AssetError

__all__ = [
    "Document",
    "as_index",
    "as_int",
    "as_number",
    "as_numbers",
    "as_object",
    "as_text",
    "extension",
    "objects",
    "parse_document",
    "split_glb",
]

_JSON_CHUNK, _BIN_CHUNK = 0x4E4F534A, 0x004E4942
_MAX_CHUNKS = 64
_RE_EXPORT = "Export the file again, for example with Blender"


def split_glb(data: bytes) -> tuple[memoryview, memoryview | None]:
    """The JSON chunk and the binary chunk (None if absent) of a GLB file.

    Raises:
        AssetError: a version other than 2, truncated, or without JSON.
    """
    if len(data) < 20:
        raise AssetError("the GLB file is truncated", received=len(data), fix="Download or export it again")
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise AssetError("only version 2 of GLB can be loaded", received=version, fix=_RE_EXPORT)
    if length > len(data):
        raise AssetError(
            f"the GLB file is truncated: its header announces {length} bytes",
            received=len(data),
            fix="Download it again",
        )
    view, at = memoryview(data)[:length], 12
    chunks: dict[int, memoryview] = {}
    for _ in range(_MAX_CHUNKS):
        if at + 8 > length:
            break
        size, kind = struct.unpack_from("<II", data, at)
        if at + 8 + size > length:
            raise AssetError(
                "a GLB chunk reaches past the end of the file", received=size, fix="Download or export it again"
            )
        chunks.setdefault(kind, view[at + 8 : at + 8 + size])
        at += 8 + size
    if _JSON_CHUNK not in chunks:
        raise AssetError("the GLB file has no JSON chunk", received=[hex(kind) for kind in chunks][:4], fix=_RE_EXPORT)
    return chunks[_JSON_CHUNK], chunks.get(_BIN_CHUNK)


def _outside_strings(data: bytes) -> np.ndarray:
    """The characters of JSON text that are not inside a string, as uint8."""
    if b"\\" in data:
        data = data.replace(b"\\\\", b"__").replace(b'\\"', b"__")  # left to right: only quotes that end a string stay
    characters = np.frombuffer(data, np.uint8)
    inside = np.cumsum(characters == ord('"'), dtype=np.uint8) & 1
    return characters[inside == 0]


def parse_document(data: bytes | memoryview, limits: Limits) -> Document:
    """Parse glTF JSON after its size outside strings (data URIs are strings) and its depth are checked.

    Raises:
        AssetLimitError: too large or too deep. AssetError: no JSON, or not glTF 2.
    """
    text = bytes(data)
    check_limit(limits, "max_text_bytes", len(text), "bytes of JSON")
    structure = _outside_strings(text)
    check_limit(limits, "max_json_bytes", len(structure), "bytes of JSON outside strings")
    opening = (structure == ord("[")) | (structure == ord("{"))
    closing = (structure == ord("]")) | (structure == ord("}"))
    depth = int(np.cumsum(opening.astype(np.int32) - closing.astype(np.int32)).max(initial=0))
    check_limit(limits, "max_json_depth", depth, "levels of nested JSON")
    try:
        root = json.loads(text.decode("utf-8-sig"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise AssetError(
            f"the glTF JSON cannot be parsed: {str(error)[:120]}", received=text[:40], fix=_RE_EXPORT
        ) from error
    document = Document(root)
    version = as_text(as_object(document.root.get("asset"), "asset").get("version"), "asset.version")
    if not version.startswith("2."):
        raise AssetError("only glTF 2.x can be loaded", received=version, fix=_RE_EXPORT)
    check_limit(limits, "max_nodes", len(document.items("nodes")), "nodes")
    check_limit(limits, "max_materials", len(document.items("materials")), "materials")
    return document


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _wrong(what: str, wanted: str, value: object) -> AssetError:
    return AssetError(f"glTF {what} is not {wanted}", received=value, fix=_RE_EXPORT)


def as_object(value: Any, what: str) -> dict[str, Any]:
    """``value`` if it is a JSON object, else a named error."""
    if not isinstance(value, dict):
        raise _wrong(what, "an object", value)
    return value


def as_text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise _wrong(what, "a string", value)
    return value


def as_int(value: Any, what: str, low: int = 0, high: int = 2**53) -> int:
    """An integer in ``[low, high]``; 3.0 counts as one, true does not."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not low <= value <= high
        or value != int(value)
    ):
        raise _wrong(what, f"an integer from {low} to {high}", value)
    return int(value)


def as_number(value: Any, what: str) -> float:
    """A finite number."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not abs(value) < 1e300
        or not math.isfinite(value)
    ):
        raise _wrong(what, "a finite number", value)
    return float(value)


def as_numbers(value: Any, count: int, what: str) -> list[float]:
    if not isinstance(value, list) or len(value) != count:
        raise _wrong(what, f"a list of {count} numbers", value)
    return [as_number(item, what) for item in value]


def as_index(value: Any, items: list[dict[str, Any]], what: str) -> int:
    """An index into ``items``."""
    if not items:
        raise _wrong(what, "possible, because the list it refers to is empty", value)
    return as_int(value, what, 0, len(items) - 1)


class Document:
    """A glTF document whose top-level lists are known to be lists of objects."""

    def __init__(self, root: Any) -> None:
        self.root = as_object(root, "document")
        self._lists: dict[str, list[dict[str, Any]]] = {}

    def items(self, name: str) -> list[dict[str, Any]]:
        """A top-level list, empty if absent."""
        if name not in self._lists:
            self._lists[name] = objects(self.root.get(name, []), name)
        return self._lists[name]

    def get(self, name: str, index: Any, what: str) -> dict[str, Any]:
        """One entry of a top-level list."""
        items = self.items(name)
        return items[as_index(index, items, what)]

    def extensions(self, key: str) -> list[str]:
        """``extensionsUsed`` or ``extensionsRequired``."""
        value = self.root.get(key, [])
        return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def objects(value: Any, what: str) -> list[dict[str, Any]]:
    """``value`` if it is a list of objects."""
    if not isinstance(value, list):
        raise _wrong(what, "a list", value)
    for item in value:
        as_object(item, what)
    return value


def extension(holder: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The object of an extension, or None."""
    value = holder.get("extensions")
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else None
