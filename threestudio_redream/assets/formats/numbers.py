"""Parse whitespace-separated decimal numbers.

A compiled kernel reads them in one pass. Where numba does not run, array programs do it; they are also its reference.
numpy reads integers from text five times faster than floats. So they take the decimal points out, read integers, and
divide each by the power of ten that its point stood for; the few tokens that do not fit this scheme (exponents, nan,
more than 18 digits) go through numpy's float parser.

Both differ from correctly rounded parsing by at most one unit in the last place of a float64, the kernel by two where
the power of ten is beyond 22.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.assets.formats import number_kernels
from threestudio_redream.errors import AssetError
from threestudio_redream.kernels.jit import use_numba

__all__ = ["count_tokens", "parse_floats", "parse_integers", "token_starts"]

_CHUNK = 2 * 1024**2  # stays in the cache, and bounds the memory for intermediate arrays
_BLANK = re.compile(rb"\s")
_MAX_DIGITS = 18
_POWERS = 10.0 ** np.arange(_MAX_DIGITS + 1)
_PLAIN = np.zeros(256, bool)
_PLAIN[list(b"0123456789.+- \t\n\r\v\f")] = True
_PLUS, _MINUS, _DOT, _ZERO = b"+-.0"
_ALL_POWERS = np.array([float(f"1e{exponent}") for exponent in range(-308, 309)])
_WORDS = np.array(["nan", "infinity", "inf"], "S8").view(np.uint8).reshape(3, 8)
_SHOWN = 40


def token_starts(characters: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where a run of characters other than blanks and control characters begins."""
    starts = characters > 32
    starts[1:] &= characters[:-1] <= 32
    return starts


def count_tokens(block: NDArray[np.uint8], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many tokens begin between consecutive ``starts`` (ascending) in ``block``."""
    counts = np.zeros(len(starts), np.int64)
    if len(starts) and use_numba():
        number_kernels.count_tokens(block, starts, counts)
    elif len(starts):
        np.add.reduceat(token_starts(block), starts, dtype=np.int64, out=counts)
    return counts


def _by_kernel(text: bytes, what: str, dtype: type[np.generic] = np.float64) -> NDArray:
    """All numbers of ``text`` by the kernels."""
    characters = np.frombuffer(text, np.uint8)
    out = np.zeros(len(text) // 2 + 1, dtype)
    if dtype is np.float64:
        count = number_kernels.read_floats(characters, _ALL_POWERS, _WORDS, out)
    else:
        count = number_kernels.read_integers(characters, out)
    if count < 0:
        token = text[-1 - count :][:_SHOWN].split(None, 1)[0]
        raise AssetError(f"{what} hold something that is not a number", received=token, fix="Export the file again")
    return out[:count].copy()


def _read(text: bytes, count: int, what: str, dtype: type[np.generic]) -> NDArray:
    """``count`` numbers of one kind."""
    problem = f"{what} hold something that is not a number"
    try:  # numpy 2.3 raises at an oddity; an older one stops there, after the 1 of "1x", and never comes to the 0
        values = np.fromstring(text + b" 0", dtype=dtype, sep=" ")
    except ValueError as error:
        raise AssetError(problem, received=str(error), fix="Export the file again") from error
    if len(values) != count + 1:
        raise AssetError(problem, received=len(values), fix="Export the file again")
    return values[:-1]


def parse_integers(text: bytes, what: str) -> NDArray[np.int64]:
    """All integers of ``text``; beyond 64 bits they saturate.

    Raises:
        AssetError: something else is among them. ``what`` names the numbers, e.g. "OBJ faces".
    """
    if use_numba():
        return _in_chunks(text, lambda chunk: _by_kernel(chunk, what, np.int64), np.int64)
    count = np.count_nonzero(token_starts(np.frombuffer(text, np.uint8)))
    return _read(text, int(count), what, np.int64)


def parse_floats(text: bytes, what: str) -> NDArray[np.float64]:
    """All numbers of ``text``, which may be ``nan`` or ``inf``.

    Raises:
        AssetError: something that is not a number is among them.
    """
    parse = _by_kernel if use_numba() else _by_arrays
    return _in_chunks(text, lambda chunk: parse(chunk, what), np.float64)


def _in_chunks(text: bytes, parse: Callable[[bytes], NDArray], dtype: type[np.generic]) -> NDArray:
    """``parse`` applied to pieces that end at blanks, joined."""
    pieces, at = [], 0
    while at < len(text):
        blank = _BLANK.search(text, at + _CHUNK)
        end = blank.start() if blank else len(text)
        pieces.append(parse(text[at:end]))
        at = end
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype)


def _by_arrays(text: bytes, what: str) -> NDArray[np.float64]:
    characters = np.frombuffer(text, np.uint8)
    starts = np.flatnonzero(token_starts(characters))
    solid = characters > 32
    ends = np.flatnonzero(solid & ~np.append(solid[1:], False)) + 1
    dots = np.flatnonzero(characters == _DOT)
    if len(dots) == len(starts) and ((starts <= dots) & (dots < ends)).all():
        token = np.arange(len(starts))  # one point in each number, the usual case
    else:
        token = np.searchsorted(starts, dots, "right") - 1
    first = characters[starts]
    digits = ends - starts - ((first == _MINUS) | (first == _PLUS))
    digits[token] -= 1
    odd = (digits < 1) | (digits > _MAX_DIGITS)
    odd[token[1:][token[1:] == token[:-1]]] = True  # two points
    if not (plain := _PLAIN[characters]).all():
        odd[np.searchsorted(starts, np.flatnonzero(~plain & solid), "right") - 1] = True

    if 2 * np.count_nonzero(odd) > len(odd):
        return _odd_values(text, starts, ends, what)

    places = np.zeros(len(starts), np.int64)
    places[token] = ends[token] - dots - 1
    if odd.any():
        values, places[odd] = _odd_values(text, starts[odd], ends[odd], what), 0
        blanked = characters.copy()
        blanked[_inside(starts[odd], ends[odd], len(characters))] = _ZERO
        text = blanked.tobytes()
    integers = _read(text.translate(None, b"."), len(starts), what, np.int64)
    result = integers / _POWERS[places]
    if odd.any():
        result[odd] = values
    return result


def _inside(starts: NDArray[np.int64], ends: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """Characters of the given tokens."""
    borders = np.stack([starts, ends], axis=1).ravel()
    lengths = np.diff(borders, prepend=0, append=size)
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)


def _odd_values(text: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64], what: str) -> NDArray[np.float64]:
    """The given tokens through numpy's own float parser."""
    characters = np.frombuffer(text, np.uint8)
    separated = np.minimum(ends + 1, len(characters))  # each token with the blank behind it
    return _read(characters[_inside(starts, separated, len(characters))].tobytes(), len(starts), what, np.float64)
