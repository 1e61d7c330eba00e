"""Read numbers out of line-oriented text at array speed, without a Python loop over lines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.formats.numbers import count_tokens, parse_floats
from threestudio_redream.assets.limits import Limits, check_limit
from threestudio_redream.errors import AssetError, AssetLimitError

__all__ = ["NumberRows", "TextLines"]

_SPACE, _NEWLINE, _HASH = 32, 10, 35
_BLANKS = bytes(0x20 if c in (0x09, 0x0B, 0x0C) else c for c in range(256))
_MAX_INDENT = 64


class NumberRows:
    """Rows of numbers of different lengths: ``values`` flat, ``counts`` per row."""

    def __init__(self, values: NDArray[np.float64], counts: NDArray[np.int64]) -> None:
        self.values, self.counts = values, counts

    def columns(self, n: int, what: str) -> NDArray[np.float64]:
        """The first ``n`` numbers of each row, ``[rows, n]``; rows may hold more, not fewer."""
        if len(self.counts) and int(self.counts.min()) < n:
            raise AssetError(
                f"{what} need {n} numbers a line", received=int(self.counts.min()), fix="Export the file again"
            )
        first = np.cumsum(self.counts) - self.counts
        return self.values[first[:, None] + np.arange(n)]


class TextLines:
    """A table of the lines of a text file.

    Carriage returns become line ends, a backslash at a line end joins lines, tabs count as blanks,
    indentation is skipped, and ``#`` starts a comment wherever numbers are read.
    """

    def __init__(self, data: bytes, limits: Limits) -> None:
        check_limit(limits, "max_text_bytes", len(data), "bytes of text")
        data = data.removeprefix(b"\xef\xbb\xbf").translate(_BLANKS).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\\\n" in data:
            data = data.replace(b"\\\n", b"  ")
        self._bytes = np.frombuffer(data + b"\n" * 10, np.uint8)  # padded: prefixes are compared past the last line
        ends = np.flatnonzero(self._bytes[: len(data) + 1] == _NEWLINE)
        if len(ends) > limits.max_text_bytes // 4:
            raise AssetLimitError("the text has far too many lines", received=len(ends), fix="Remove the empty lines")
        begins = np.concatenate([[0], ends[:-1] + 1])
        starts = begins
        for _ in range(_MAX_INDENT):
            indented = self._bytes[starts] == _SPACE
            if not indented.any():
                break
            starts = starts + indented
        self._begins, self.starts, self.ends = begins, starts, ends

    def rows(self, prefix: bytes) -> NDArray[np.int64]:
        """Numbers of the lines that start with ``prefix`` (at most 9 characters) and a blank."""
        rows = np.arange(len(self.starts))
        for offset, character in enumerate(prefix + b" "):
            rows = rows[self._bytes[self.starts[rows] + offset] == character]
        return rows

    def content_rows(self) -> NDArray[np.int64]:
        """Numbers of the lines that are neither empty nor comments."""
        first = self._bytes[self.starts]
        return np.flatnonzero((first != _NEWLINE) & (first != _HASH))

    def text(self, row: int) -> bytes:
        """One line without its indentation and line end."""
        return self._bytes[self.starts[row] : self.ends[row]].tobytes().strip()

    def block(self, rows: NDArray[np.int64], skip: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The given lines as one array, ``skip`` leading characters and comments blanked.

        Returns:
            the characters, writable, and the position in them at which each line starts.
        """
        chosen = np.zeros(len(self.ends), bool)
        chosen[rows] = True
        widths = self.ends + 1 - self._begins
        block = self._bytes[: int(self.ends[-1]) + 1][np.repeat(chosen, widths)]
        lengths = widths[rows]
        first = np.cumsum(lengths) - lengths
        for offset in range(skip):
            block[first + (self.starts - self._begins)[rows] + offset] = _SPACE
        if (block == _HASH).any():
            hashes = np.cumsum(block == _HASH)
            before = hashes[first] - (block[first] == _HASH)
            block[(hashes > np.repeat(before, lengths)) & (block != _NEWLINE)] = _SPACE
        return block, first

    def numbers(self, rows: NDArray[np.int64], skip: int, what: str) -> NumberRows:
        """The numbers on the given lines, after ``skip`` leading characters.

        Raises:
            AssetError: a line holds something else.
        """
        block, first = self.block(rows, skip)
        return NumberRows(parse_floats(block.tobytes(), what), count_tokens(block, first))
