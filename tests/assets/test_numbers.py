"""Numbers out of text: the compiled readers against Python's own and against the array programs."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threestudio_redream.assets.formats import numbers
from threestudio_redream.assets.formats.numbers import count_tokens, parse_floats, parse_integers
from threestudio_redream.errors import AssetError


@pytest.fixture(params=["numba", "torch"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two implementations; "torch" stands for the one without numba."""
    monkeypatch.setenv("REDREAM_KERNELS", request.param)
    return request.param


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("template", ["%.6f", "%g", "%.17g", "%.3e", "%d"])
def test_floats_agree_with_python(template: str) -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=2000) * 10.0 ** generator.integers(-12, 12, 2000)
    text = " ".join(template % value for value in values)
    np.testing.assert_allclose(parse_floats(text.encode(), "x"), [float(t) for t in text.split()], rtol=3e-16)


@given(st.lists(st.floats(), max_size=20))
@settings(max_examples=200, deadline=None)
def test_any_float_is_read_within_two_units_in_the_last_place(values: list[float]) -> None:
    read = parse_floats("\n".join(map(repr, values)).encode(), "x")
    expected = np.array(values, np.float64)
    np.testing.assert_array_equal(np.isnan(read), np.isnan(expected))
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(read[np.isinf(expected)], expected[np.isinf(expected)])
    below = expected[finite]
    with np.errstate(over="ignore"):
        assert (np.abs(read[finite] - below) <= 2.0 * np.spacing(np.abs(below))).all()


@pytest.mark.usefixtures("kernels")
def test_unusual_notations() -> None:
    text = b"\t+.5 -5. 1E+2 1e-400 -1e400 nan -Infinity INF 00012 1e00000000000001\r\n"
    text += b" 123456789012345678901234e-20\v\f"
    expected = [0.5, -5.0, 100.0, 0.0, -np.inf, np.nan, -np.inf, np.inf, 12.0, 10.0, 1234.5678901234567]
    np.testing.assert_allclose(parse_floats(text, "x"), expected, rtol=3e-16)
    assert parse_floats(b" \n ", "x").shape == (0,)
    assert parse_floats(b"", "x").dtype == np.float64


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    "token",
    ["x", "1x", "--1", "+", "-", ".", "+.", "1e", "1e+", "e5", "1.2.3", "0x10", "1_0", "na", "nano", "1,5", "\0"],
)
def test_what_is_not_a_number_is_refused(token: str) -> None:
    for text in (f"1 2 {token}", f"{token} 1 2", f"1 {token}\n2"):
        with pytest.raises(AssetError, match="things hold something that is not a number"):
            parse_floats(text.encode(), "things")


@pytest.mark.usefixtures("kernels")
def test_integers() -> None:
    text = b"0 -7 +12\n9223372036854775807 9223372036854775806 -9223372036854775807 99999999999999999999 007"
    largest = 2**63 - 1
    values = parse_integers(text, "x")
    assert values.dtype == np.int64
    assert values[:6].tolist() == [0, -7, 12, largest, largest - 1, -largest]
    assert values[6] >= largest - 1
    assert values[7] == 7
    assert parse_integers(b" ", "x").tolist() == []
    for token in ("1.5", "1e3", "x", "-", "1-2"):
        with pytest.raises(AssetError, match="not a number"):
            parse_integers(f"4 {token} 5".encode(), "x")


def test_the_refusal_shows_the_token() -> None:
    with pytest.raises(AssetError) as caught:
        parse_floats(b"1 2 hello" + b"o" * 90 + b" 3", "things")
    assert caught.value.received == b"hello" + b"o" * 35


@pytest.mark.usefixtures("kernels")
def test_long_texts_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "_CHUNK", 7)
    values = np.arange(-50, 50)
    text = " \n".join(map(str, values)).encode()
    np.testing.assert_array_equal(parse_floats(text, "x"), values)
    np.testing.assert_array_equal(parse_integers(text, "x"), values)


@pytest.mark.usefixtures("kernels")
def test_tokens_are_counted_by_row() -> None:
    text = b"  1 2\t33\n\n4\n \x01 5 6"
    starts = np.array([0, 9, 10, 12])
    assert count_tokens(np.frombuffer(text, np.uint8), starts).tolist() == [3, 0, 1, 2]
    assert count_tokens(np.frombuffer(text, np.uint8), np.zeros(0, np.int64)).tolist() == []


def test_numpy_that_stops_at_the_first_oddity_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDREAM_KERNELS", "torch")
    fromstring = np.fromstring

    def stopping(text: bytes, **keywords: object) -> np.ndarray:
        """As numpy before 2.3: what was read so far, also of a token that goes on with something else."""
        found = re.match(rb"\s*([+-]?\d+\s*)*", text)
        assert found is not None
        return fromstring(found[0], **keywords)

    monkeypatch.setattr(numbers.np, "fromstring", stopping)
    for parse in (parse_floats, parse_integers):
        for token, read in ((b"x", 2), (b"3x", 3), (b"3,5", 3), (b"3_0", 3)):
            with pytest.raises(AssetError, match="not a number") as caught:
                parse(b"1 2 " + token, "things")
            assert parse is parse_floats or caught.value.received == read
        np.testing.assert_array_equal(parse(b"1 2 +30\n", "things"), [1, 2, 30])
