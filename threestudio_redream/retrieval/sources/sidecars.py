"""What people say about their assets: a JSON file beside each mesh, one CSV for all, or the glTF's own metadata.

Sidecar of ``chair.glb``: ``chair.glb.json``, else ``chair.json``. All keys are optional::

    {"caption": "a red chair", "name": "Red chair", "author": "A. Maker", "licence": "CC-BY-4.0",
     "licence_url": "https://...", "source_url": "https://...", "up": "+y", "front": "+z", "tags": ["furniture"]}

``front`` is the axis of the file that the object faces, or ``"none"`` (in JSON also null) for one that has no front;
``front_deg`` says instead where the front is once the file has been normalised by the rule of its format,
in degrees from +x towards +y. A CSV has the same words as columns, and ``path`` (``file`` will do); tags
are separated by ``;``. ``license`` is read like ``licence``. Where several sources speak, the JSON wins
over the CSV, and the CSV over the metadata inside the file.
"""

from __future__ import annotations

import csv
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from threestudio_redream.assets.files import read_asset_file
from threestudio_redream.assets.normalise import axis_rotation
from threestudio_redream.errors import ConfigError
from threestudio_redream.retrieval.curation.licences import licence_fields
from threestudio_redream.retrieval.errors import SourceError
from threestudio_redream.retrieval.sources.captions import MAX_CAPTION_CHARACTERS, clean_text

__all__ = ["Description", "describe_values", "embedded_description", "merge", "read_sidecar", "read_table"]

MAX_SIDECAR_BYTES = 256 * 1024
MAX_TABLE_ROWS = 2_000_000
MAX_FIELD_CHARACTERS = 64 * 1024
MAX_TAGS = 64
_MAX_GLTF_JSON = 4 * 1024**2
_KEYS = {"caption", "author", "licence", "licence_url", "source_url", "up", "front", "front_deg"}
_TEXTS = ("caption", "name", "author", "licence", "licence_url", "source_url", "sha256")


@dataclass(frozen=True)
class Description:
    """What is said about one asset; empty where nothing is said.

    Attributes:
        caption_source: who gave the caption: ``sidecar`` or ``csv``; empty without a caption.
        sha256: of the mesh that the description was written for; empty if it does not say.
        front: an axis, ``"none"``, or empty. front_deg: degrees, in [-180, 180), or None.
    """

    caption: str = ""
    caption_source: str = ""
    name: str = ""
    author: str = ""
    licence: str = ""
    licence_url: str = ""
    source_url: str = ""
    sha256: str = ""
    up: str = ""
    front: str = ""
    front_deg: float | None = None
    tags: tuple[str, ...] = ()


def describe_values(values: Mapping[str, Any], where: str, caption_source: str = "sidecar") -> Description:
    """Check the values of a sidecar or of a row; keys that mean nothing here are ignored.

    Raises:
        SourceError: a value of the wrong type, axes that make no frame, or an angle that is no number.
    """
    known = {_key(key): value for key, value in values.items()}
    texts = {key: _text(known.get(key), key, where) for key in _TEXTS}
    texts["licence"], texts["licence_url"] = licence_fields(texts["licence"], texts["licence_url"])
    if not texts["source_url"].startswith(("https://", "http://")):
        texts["source_url"] = ""
    if caption_source == "sidecar" and "front" in known and known["front"] is None:
        known["front"] = "none"
    up, front = (_text(known.get(key), key, where).lower() for key in ("up", "front"))
    try:
        axis_rotation(up or "+y", None if front in ("", "none") else front)
    except ConfigError as error:
        raise SourceError(f"{where}: {error.problem}", received=error.received, fix=error.fix) from error
    return Description(
        **texts,
        caption_source=caption_source if texts["caption"] else "",
        up=up,
        front=front,
        front_deg=_angle(known.get("front_deg"), where),
        tags=_tags(known.get("tags"), where),
    )


def read_sidecar(mesh: Path) -> Description | None:
    """The sidecar of a mesh, or None. A ``chair.json`` with none of our keys is no sidecar: other tools write such.

    Raises:
        SourceError: it is there but too large, not JSON, not an object, or holds a wrong value.
    """
    for path, certain in ((mesh.with_name(mesh.name + ".json"), True), (mesh.with_suffix(".json"), False)):
        if not path.is_file():
            continue
        try:
            values = json.loads(read_asset_file(path, MAX_SIDECAR_BYTES, "the sidecar"))
            if not isinstance(values, dict):
                raise ValueError(f"a {type(values).__name__} instead of an object")
        except (ValueError, RecursionError) as error:  # AssetError is a ValueError
            if not certain:
                continue
            raise SourceError(
                f"{path.name}: the sidecar cannot be read as a JSON object",
                received=str(error)[:200],
                fix='Write {"caption": "...", "licence": "..."}, or remove it',
            ) from error
        if certain or _KEYS & {_key(key) for key in values}:
            return describe_values(values, path.name)
    return None


def read_table(path: Path) -> tuple[dict[str, Description], list[tuple[str, str]]]:
    """A CSV with a row per asset.

    Returns:
        Descriptions by path below the root, with forward slashes; and ``(path, reason)`` for rows that cannot
        be used. The first of two rows for one path counts.

    Raises:
        SourceError: no such file, no column ``path``, not UTF-8, not a CSV, or above a cap.
    """
    found: dict[str, Description] = {}
    problems: list[tuple[str, str]] = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(rows_of(file, path.name), start=2):
                name = clean_text(str(row.get("path") or row.get("file") or "")).replace("\\", "/").removeprefix("./")
                label = name or f"row {number}"
                if not name or name in found:
                    problems.append((label, f"{path.name}, row {number}: " + ("a second row" if name else "no path")))
                    continue
                try:
                    found[name] = describe_values(row, f"{path.name}, row {number}", "csv")
                except SourceError as error:
                    problems.append((label, str(error)))
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"{path.name}: the table cannot be read", received=str(error)[:200], fix="Save it as CSV in UTF-8"
        ) from error
    return found, problems


def rows_of(file: Any, name: str) -> Any:
    """Rows of an open CSV as dictionaries with lower-case keys; checks header, length of fields, number of rows."""
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    reader = csv.reader(file, strict=True)
    try:
        header = [column.strip().lower() for column in next(reader, [])]
        if not {"path", "file"} & set(header):
            raise SourceError(
                f"{name}: the table has no column called path",
                received=header[:20],
                fix="Name the columns in its first row",
            )
        for number, row in enumerate(reader, start=2):
            if number > MAX_TABLE_ROWS:
                raise SourceError(f"{name}: the table has too many rows", received=number, fix="Split the library")
            if row:
                yield dict(zip(header, row, strict=False))
    except csv.Error as error:
        raise SourceError(
            f"{name}: the table is not a CSV", received=str(error)[:200], fix="Check quotes and commas near that row"
        ) from error


def embedded_description(path: Path) -> Description:
    """Author, licence, title and source that a GLB or glTF states about itself (``asset.extras``, ``copyright``).

    Nothing in there can make an asset unusable: whatever is odd is read as nothing said.
    """
    try:
        asset = _gltf_json(path).get("asset", {})
        extras = asset.get("extras", {})
        said = {key: extras.get(key, "") for key in ("author", "license", "source", "title")}
        values = {key: value if isinstance(value, str) else "" for key, value in said.items()}
        if not values["author"] and isinstance(asset.get("copyright"), str):
            values["author"] = asset["copyright"]
        return describe_values(
            {**values, "name": values["title"], "source_url": values["source"], "licence": values["license"]}, path.name
        )
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError, struct.error):
        return Description()


def merge(*descriptions: Description | None) -> Description:
    """One description out of several; the first that says something wins, field by field.

    Licence and its address go together, and so do ``up``, ``front`` and ``front_deg``.
    """
    result = Description()
    groups = (("caption", "caption_source"), ("licence", "licence_url"), ("up", "front", "front_deg"))
    single = {field.name for field in fields(Description)} - {name for group in groups for name in group}
    for group in (*groups, *((name,) for name in sorted(single))):
        for description in descriptions:
            values = {} if description is None else {name: getattr(description, name) for name in group}
            if any(value not in ("", None, ()) for value in values.values()):
                result = replace(result, **values)
                break
    return result


def _gltf_json(path: Path) -> Any:
    with open(path, "rb") as file:
        head = file.read(20)
        if head[:4] == b"glTF":
            length, kind = struct.unpack_from("<I4s", head, 12)
            data = file.read(length) if kind == b"JSON" and length <= _MAX_GLTF_JSON else b""
        elif head.lstrip()[:1] == b"{":
            data = head + file.read(_MAX_GLTF_JSON)
        else:
            data = b""
    return json.loads(data or b"{}")


def _key(key: str) -> str:
    return key.strip().lower().replace("license", "licence")


def _text(value: Any, key: str, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise SourceError(f"{where}: {key} is not a text", received=value, fix="Put it into quotes")
    return clean_text(value, MAX_CAPTION_CHARACTERS)


def _angle(value: Any, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        angle = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        angle = math.nan
    if not math.isfinite(angle) or abs(angle) > 360.0:
        raise SourceError(
            f"{where}: front_deg is not an angle", received=value, fix="Give degrees from -360 to 360, or leave it out"
        )
    return (angle + 180.0) % 360.0 - 180.0


def _tags(value: Any, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    words = value.split(";") if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise SourceError(f"{where}: tags is not a list of texts", received=value, fix='Write ["one", "two"]')
    cleaned = (clean_text(word, 64) for word in words[:MAX_TAGS])
    return tuple(dict.fromkeys(word for word in cleaned if word))
