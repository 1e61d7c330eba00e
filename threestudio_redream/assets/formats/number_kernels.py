"""Compiled readers of decimal numbers: one pass over the bytes.

The references are the array programs of :mod:`threestudio_redream.assets.formats.numbers`, which also run where numba
does not.
"""

from __future__ import annotations

from threestudio_redream.kernels.jit import njit

__all__ = ["count_tokens", "read_floats", "read_integers"]

_MOST = 10**17  # beyond it another digit might not fit into 64 bits
_LIMIT = 2**63 - 1
_FAR = 400  # exponents beyond it are 0 or infinite anyway


@njit(nogil=True, error_model="numpy")
def _is_blank(character):
    return character == 32 or 9 <= character <= 13


@njit(nogil=True, error_model="numpy")
def _skip_word(text, at, word):
    """Position behind ``word`` (lower case) if it stands at ``at`` in any case, else ``at``."""
    if at + len(word) > len(text):
        return at
    for offset in range(len(word)):
        if text[at + offset] | 32 != word[offset]:
            return at
    return at + len(word)


@njit(nogil=True, error_model="numpy")
def read_floats(text, powers, words, out):
    """Read blank-separated numbers.

    Args:
        text: ``[N]`` uint8. powers: ``[617]`` float64, 10 to the power of -308 to 308.
        words: ``[3, 8]`` uint8: "nan", "infinity", "inf", each padded with zeros.
        out: float64, at least ``N // 2 + 1`` long.

    Returns:
        how many there were, or -1 - p if the token at position p is not a number.
    """
    at, count, size = 0, 0, len(text)
    while True:
        while at < size and _is_blank(text[at]):
            at += 1
        if at == size:
            return count
        begin = at
        negative = text[at] == 45
        if negative or text[at] == 43:
            at += 1
        mantissa, exponent, digits = 0, 0, 0
        while at < size and 48 <= text[at] <= 57:
            if mantissa < _MOST:
                mantissa = mantissa * 10 + (text[at] - 48)
            else:
                exponent += 1
            digits += 1
            at += 1
        if at < size and text[at] == 46:
            at += 1
            while at < size and 48 <= text[at] <= 57:
                if mantissa < _MOST:
                    mantissa = mantissa * 10 + (text[at] - 48)
                    exponent -= 1
                digits += 1
                at += 1
        value = float(mantissa)
        if digits == 0:
            for row in range(3):
                length = 3 if row != 1 else 8
                behind = _skip_word(text, at, words[row, :length])
                if behind > at and (behind == size or _is_blank(text[behind])):
                    value = float("nan") if row == 0 else float("inf")
                    at = behind
                    digits = 1
                    break
        elif at < size and text[at] | 32 == 101:
            at += 1
            down = at < size and text[at] == 45
            if down or (at < size and text[at] == 43):
                at += 1
            power, places = 0, 0
            while at < size and 48 <= text[at] <= 57:
                if power < 100_000_000:
                    power = power * 10 + (text[at] - 48)
                places += 1
                at += 1
            if places == 0:
                digits = 0
            exponent += -power if down else power
        if digits == 0 or (at < size and not _is_blank(text[at])):
            return -1 - begin
        if mantissa != 0 and exponent != 0:
            if exponent < 0:
                # Division by a power that is exact (up to 22) rounds once; one by an inexact one hardly worse.
                if exponent >= -308:
                    value /= powers[308 - exponent]
                else:
                    value = value / powers[616] / powers[308 + min(-exponent - 308, 308)]
            elif exponent <= 308:
                value *= powers[308 + exponent]
            else:
                value = value * powers[616] * powers[308 + min(exponent - 308, 308)]
        out[count] = -value if negative else value
        count += 1


@njit(nogil=True, error_model="numpy")
def read_integers(text, out):
    """Read blank-separated integers; beyond 64 bits they saturate. Arguments and result as of :func:`read_floats`."""
    at, count, size = 0, 0, len(text)
    while True:
        while at < size and _is_blank(text[at]):
            at += 1
        if at == size:
            return count
        begin = at
        negative = text[at] == 45
        if negative or text[at] == 43:
            at += 1
        value, digits = 0, 0
        while at < size and 48 <= text[at] <= 57:
            digit = text[at] - 48
            value = value * 10 + digit if value <= (_LIMIT - digit) // 10 else _LIMIT
            digits += 1
            at += 1
        if digits == 0 or (at < size and not _is_blank(text[at])):
            return -1 - begin
        out[count] = -value if negative else value
        count += 1


@njit(nogil=True, error_model="numpy")
def count_tokens(text, starts, counts):
    """How many blank-separated tokens begin between consecutive ``starts``; control characters count as blanks.

    Args:
        text: ``[N]`` uint8. starts: ``[R]`` int64, ascending. counts: ``[R]`` int64, the result.
    """
    for row in range(len(starts)):
        end = starts[row + 1] if row + 1 < len(starts) else len(text)
        total, before = 0, True
        for at in range(starts[row], end):
            blank = text[at] <= 32
            total += before and not blank
            before = blank
        counts[row] = total
