"""Reading values out of a foreign JSON document: each has its type and bounds, or a named error says which has not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from threestudio_redream.retrieval.errors import IndexDamagedError

__all__ = ["Document", "canonical_json", "plain_json"]

MAX_DEPTH = 16


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, no NaN, characters as they are.

    Raises:
        ValueError, TypeError: the value holds something that JSON has no word for.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def plain_json(value: Any) -> Any:
    """What a reader of the JSON gets back: tuples become lists, numpy scalars are refused (TypeError)."""
    return json.loads(canonical_json(value))


class Document:
    """An object of a foreign JSON file that knows where it is from.

    Args:
        file: for messages, e.g. ``manifest.json``.
        where: of the object within the file, e.g. ``parts[3].``.
    """

    def __init__(self, values: Any, file: str, where: str = "") -> None:
        self.file, self.where = file, where
        if not isinstance(values, Mapping):
            self.refuse(where or "the document", values, "an object")
        self.values = values

    @classmethod
    def read(cls, text: bytes, file: str) -> Document:
        """Parse UTF-8 JSON; repeated keys, NaN, infinities, lone surrogates and deep nesting are refused."""
        try:
            values = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
            if _depth(values) > MAX_DEPTH:
                raise ValueError("nested too deeply")
            canonical_json(values).encode()  # numbers such as 1e999, and surrogates that no UTF-8 holds
        except (ValueError, RecursionError) as error:
            raise IndexDamagedError(
                "this is not the JSON of an index",
                file=file,
                received=f"{type(error).__name__}: {error}",
                fix="Restore the file from a copy, or build the index again",
            ) from error
        return cls(values, file)

    def refuse(self, key: str, value: Any, wanted: str) -> NoReturn:
        """Raise IndexDamagedError for the value of ``key``."""
        raise IndexDamagedError(
            f"{self.where}{key} is not {wanted}",
            file=self.file,
            received=value,
            fix="Restore the file from a copy, or build the index again",
        )

    def only(self, *keys: str) -> None:
        """Refuse keys that this version does not know."""
        unknown = sorted(set(self.values) - set(keys))
        if unknown:
            self.refuse(unknown[0], self.values[unknown[0]], "a key of this format")

    def text(self, key: str, pattern: str = r"[^\0]*", most: int = 4096) -> str:
        """A string that matches ``pattern`` entirely."""
        value = self.values.get(key)
        if not isinstance(value, str) or len(value) > most or not re.fullmatch(pattern, value, re.DOTALL):
            self.refuse(key, value, f"a text of at most {most} characters of the form {pattern}")
        return value

    def whole(self, key: str, least: int = 0, most: int = 2**53) -> int:
        """An integer within bounds."""
        value = self.values.get(key)
        if type(value) is not int or not least <= value <= most:
            self.refuse(key, value, f"a whole number from {least} to {most}")
        return value

    def number(self, key: str, least: float = -1e6, most: float = 1e6) -> float:
        """A finite number within bounds."""
        value = self.values.get(key)
        if type(value) not in (int, float) or not least <= value <= most:  # type: ignore[operator]
            self.refuse(key, value, f"a number from {least:g} to {most:g}")
        return float(value)  # type: ignore[arg-type]

    def child(self, key: str) -> Document:
        """A nested object."""
        return Document(self.values.get(key), self.file, f"{self.where}{key}.")

    def children(self, key: str, most: int) -> list[Document]:
        """A list of objects."""
        items = self.items(key, most)
        return [Document(item, self.file, f"{self.where}{key}[{i}].") for i, item in enumerate(items)]

    def items(self, key: str, most: int, check: Callable[[Any], bool] = lambda _: True) -> list[Any]:
        """A list whose members pass ``check``."""
        value = self.values.get(key)
        if not isinstance(value, list) or len(value) > most or not all(map(check, value)):
            self.refuse(key, value, f"a list of at most {most} proper members")
        return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key is given twice")
    return values


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level and depth <= MAX_DEPTH:
        depth += 1
        nested = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list))]
        level = [member for members in nested for member in members]
    return depth
