"""The calibration cache: every byte comes back, every fault and every oddity is told."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtcalib.core.cache import (
    ALGORITHMS,
    CacheEntry,
    CalibrationCache,
    encode_version,
    format_cache,
    make_cache,
    oddities,
    parse_cache,
    parse_version,
    version_text,
)
from trtcalib.errors import CacheFormatError, TensorRTVersionError

LITERAL = b"TRT-8601-EntropyCalibration2\nonnx::Conv_329: 3c010a14\na: b: 0\n"
HEADER = b"TRT-101601-EntropyCalibration2\n"

blank = st.text(" \t\r", max_size=3).map(str.encode)
blank_lines = st.lists(blank, max_size=2).map(lambda lines: b"".join(line + b"\n" for line in lines))
line_end = st.builds(lambda trail, lines: trail + b"\n" + lines, blank, blank_lines)
raw_names = st.one_of(
    st.binary(min_size=1, max_size=12),
    st.text(min_size=1, max_size=12).map(lambda text: text.encode("utf-8", "replace")),
    st.sampled_from(
        [b"a: b", b": ", b"x:", b" ", b"onnx::Conv_1", b"(Unnamed Layer* 4) [Fully Connected]_output", b"\xff"]
    ),
).map(lambda name: name.replace(b"\n", b"?"))
digits = st.text("0123456789abcdefABCDEF", min_size=1, max_size=8).map(str.encode)
rows = st.lists(st.tuples(raw_names, digits, line_end), max_size=5)
algorithms = st.sampled_from(ALGORITHMS) | st.text("abcXYZ-_.2\u00e9", min_size=1, max_size=8)
scales = st.floats(width=32, allow_nan=False)
good_names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), min_size=1, max_size=10).filter(
    lambda name: name == name.strip(" \t\r")
)


@given(st.integers(0, 10**7), algorithms, st.text(" \t", max_size=2), blank_lines, rows, st.booleans())
def test_any_cache_comes_back_byte_for_byte(
    version: int,
    algorithm: str,
    trail: str,
    after_header: bytes,
    entries: list[tuple[bytes, bytes, bytes]],
    cut_last_line_end: bool,
) -> None:
    content = f"TRT-{version}-{algorithm}{trail}\n".encode() + after_header
    content += b"".join(name + b": " + hex_ + end for name, hex_, end in entries)
    if cut_last_line_end:
        content = content.rstrip(b"\n")
    cache = parse_cache(content)
    assert format_cache(cache) == content
    assert (cache.version, cache.algorithm) == (version, algorithm)
    found = [(entry.name.encode("utf-8", "surrogateescape"), entry.hex.encode(), entry.bits) for entry in cache.entries]
    assert found == [(name, hex_, int(hex_, 16)) for name, hex_, _ in entries]


def parsed(content: bytes) -> CalibrationCache | CacheFormatError:
    """The cache, or why it is none."""
    try:
        return parse_cache(content)
    except CacheFormatError as error:
        return error


@given(st.binary(max_size=60).map(lambda tail: HEADER + tail) | st.binary(max_size=60))
def test_any_bytes_come_back_or_are_refused_with_a_line(content: bytes) -> None:
    cache = parsed(content)
    if isinstance(cache, CacheFormatError):
        assert 1 <= cache.line <= content.count(b"\n") + 1
        assert str(cache).startswith(f"<calibration cache>:{cache.line}: ")
        assert "expected " in str(cache)
    else:
        assert format_cache(cache) == content


@given(st.dictionaries(good_names, scales, max_size=5), st.sampled_from(ALGORITHMS))
def test_a_made_cache_reads_back_as_what_it_was_made_from(values: dict[str, float], algorithm: str) -> None:
    given_scales = {name: np.float32(value) for name, value in values.items()}
    cache = parse_cache(format_cache(make_cache(given_scales, "10.16.1", algorithm)))
    assert (cache.version, cache.algorithm) == (101601, algorithm)
    assert cache.header == f"TRT-101601-{algorithm}"
    assert list(cache.scales) == list(given_scales)
    assert [scale.tobytes() for scale in cache.scales.values()] == [scale.tobytes() for scale in given_scales.values()]


def test_literal_cache() -> None:
    cache = parse_cache(LITERAL)
    assert (cache.version, cache.algorithm, cache.header) == (
        8601,
        "EntropyCalibration2",
        "TRT-8601-EntropyCalibration2",
    )
    assert cache.entries == (
        CacheEntry("onnx::Conv_329", 0x3C010A14, "3c010a14", "\n"),
        CacheEntry("a: b", 0, "0", "\n"),
    )
    assert cache.scales == {"onnx::Conv_329": np.float32(2048.5 / 2048) / np.float32(127), "a: b": 0}
    assert all(isinstance(scale, np.float32) for scale in cache.scales.values())
    assert oddities(cache) == ["tensor 'a: b' has a zero scale"]


def test_a_made_cache_is_written_in_canonical_form() -> None:
    values = {"onnx::Conv_329": np.float32(2048.5 / 2048) / np.float32(127), "a: b": np.float32(0)}
    assert format_cache(make_cache(values, "8.6.1", "EntropyCalibration2")) == LITERAL


def test_digits_have_no_leading_zeros() -> None:
    cache = make_cache({"small": np.float32(2.0**-149), "one": np.float32(1)}, "10.0.1", "MinMaxCalibration")
    assert format_cache(cache) == b"TRT-100001-MinMaxCalibration\nsmall: 1\none: 3f800000\n"


def test_of_a_name_that_stands_twice_the_last_scale_is_used() -> None:
    cache = parse_cache(HEADER + b"x: 3f800000\ny: 40000000\nx: 40400000")
    assert cache.scales == {"x": 3.0, "y": 2.0}
    assert oddities(cache) == ["tensor 'x' stands 2 times; the last is used"]


def test_crlf_blank_lines_upper_case_and_leading_zeros_are_kept() -> None:
    content = b"TRT-8601-EntropyCalibration2 \r\n\r\n\tx: 003C010A \r\n \r\ny: 00000001"
    cache = parse_cache(content)
    assert format_cache(cache) == content
    assert [(entry.name, entry.bits) for entry in cache.entries] == [("\tx", 0x3C010A), ("y", 1)]


def test_a_name_that_is_not_utf8_is_kept_and_told() -> None:
    cache = parse_cache(HEADER + b"caf\xe9: 3f800000\n")
    assert cache.entries[0].name == "caf\udce9"
    assert format_cache(cache) == HEADER + b"caf\xe9: 3f800000\n"
    assert oddities(cache) == ["the name 'caf\\udce9' is not UTF-8"]


def test_a_cache_as_usual_has_no_oddities() -> None:
    for algorithm in ALGORITHMS:
        assert oddities(parse_cache(f"TRT-101601-{algorithm}\n\u00e9: 3f800000\n".encode())) == []


@pytest.mark.parametrize(
    ("bits", "kind"),
    [
        ("7fc00000", "a NaN"),
        ("ffc00000", "a NaN"),
        ("7f800000", "an infinite"),
        ("ff800000", "an infinite"),
        ("0", "a zero"),
        ("80000000", "a zero"),
        ("bf800000", "a negative"),
    ],
)
def test_scales_that_quantize_nothing_are_told(bits: str, kind: str) -> None:
    cache = parse_cache(HEADER + f"good: 3f800000\nbad: {bits}\n".encode())
    assert oddities(cache) == [f"tensor 'bad' has {kind} scale"]


def test_an_unknown_algorithm_is_kept_and_told() -> None:
    cache = parse_cache(b"TRT-8601-EntropyCalibration3\n")
    assert cache.algorithm == "EntropyCalibration3"
    known = "EntropyCalibration2, MinMaxCalibration, EntropyCalibration, LegacyCalibration"
    assert oddities(cache) == [f"unknown algorithm 'EntropyCalibration3' in the header: expected one of {known}"]


EXPECTED_HEADER = r"expected a header such as 'TRT-101601-EntropyCalibration2': is it a calibration cache\?$"
EXPECTED_LINE = "expected 'tensor name: hexadecimal scale'$"
EXPECTED_HEX = "expected one to eight hexadecimal digits$"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "^<calibration cache>:1: found nothing, " + EXPECTED_HEADER),
        (b" \r\nTRT-8601-EntropyCalibration2\n", "^<calibration cache>:1: found nothing, " + EXPECTED_HEADER),
        (b"x: 3f800000\n", "^<calibration cache>:1: found 'x: 3f800000', " + EXPECTED_HEADER),
        (b"TRT-8.6.1-EntropyCalibration2", "^<calibration cache>:1: found 'TRT-8.6.1-E.*', " + EXPECTED_HEADER),
        (b"TRT-8601-\n", "^<calibration cache>:1: found 'TRT-8601-', " + EXPECTED_HEADER),
        (b"TRT-8601-Entropy Calibration\n", "^<calibration cache>:1: found 'TRT-8601-E.*', " + EXPECTED_HEADER),
        ("TRT-\u0661-Entropy".encode(), "^<calibration cache>:1: found 'TRT-\u0661-Entropy', " + EXPECTED_HEADER),
        (b"y" * 100, f"^<calibration cache>:1: found '{'y' * 80}', " + EXPECTED_HEADER),
        (HEADER + b"\nx 3f800000", "^<calibration cache>:3: found 'x 3f800000', " + EXPECTED_LINE),
        (HEADER + b"x:3f800000", "^<calibration cache>:2: found 'x:3f800000', " + EXPECTED_LINE),
        (HEADER + b": 3f800000", "^<calibration cache>:2: found ': 3f800000', " + EXPECTED_LINE),
        (HEADER + b"x: ", "^<calibration cache>:2: found 'x:', " + EXPECTED_LINE),
        (HEADER + b"y" * 100, f"^<calibration cache>:2: found '{'y' * 80}', " + EXPECTED_LINE),
        (HEADER + b"x: 1\ny: 3f8000000\n", "^<calibration cache>:3: tensor 'y' has scale '3f8000000', " + EXPECTED_HEX),
        (HEADER + b"x: 0.5", r"^<calibration cache>:2: tensor 'x' has scale '0\.5', " + EXPECTED_HEX),
        (HEADER + b"x: 0x3f", "^<calibration cache>:2: tensor 'x' has scale '0x3f', " + EXPECTED_HEX),
        (HEADER + b"x: -1", "^<calibration cache>:2: tensor 'x' has scale '-1', " + EXPECTED_HEX),
        (HEADER + "x: \u0663".encode(), "^<calibration cache>:2: tensor 'x' has scale '\u0663', " + EXPECTED_HEX),
        (HEADER + b"x: " + b"z" * 100, f"^<calibration cache>:2: tensor 'x' has scale '{'z' * 80}', " + EXPECTED_HEX),
    ],
)
def test_what_is_no_cache_is_refused_with_its_line(content: bytes, message: str) -> None:
    with pytest.raises(CacheFormatError, match=message):
        parse_cache(content)


def test_a_header_with_an_endless_version_is_refused_like_any_other() -> None:
    assert isinstance(parsed(b"TRT-" + b"9" * 5000 + b"-EntropyCalibration2\n"), CacheFormatError)


@pytest.mark.parametrize("name", ["", "a\nb", " a", "a ", "a\t", "a\r"])
def test_a_name_that_cannot_stand_on_a_line_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="^tensor name '.*' cannot stand on a line of a calibration cache$"):
        make_cache({name: np.float32(1)}, "8.6.1", "EntropyCalibration2")


def test_an_unknown_algorithm_is_not_written() -> None:
    with pytest.raises(
        ValueError, match=r"^unknown algorithm 'Entropy2': expected one of EntropyCalibration2, MinMax.*"
    ):
        make_cache({}, "8.6.1", "Entropy2")


VERSIONS = [
    ("5.1.5", 5105),
    ("7.0.0", 7000),
    ("7.2.2", 7202),
    ("8.2.4", 8204),
    ("8.6.1", 8601),
    ("9.3.0", 9300),
    ("10.0.1", 100001),
    ("10.6.0", 100600),
    ("10.14.1", 101401),
    ("10.16.1", 101601),
]


@pytest.mark.parametrize(("text", "number"), VERSIONS)
def test_literal_versions_both_ways(text: str, number: int) -> None:
    assert encode_version(text) == number
    assert version_text(number) == text
    assert make_cache({}, text, "MinMaxCalibration").version == number


@given(
    st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 99))
    | st.tuples(st.just(10), st.integers(0, 99), st.integers(0, 99))
)
def test_versions_survive_the_way_through_the_header(version: tuple[int, int, int]) -> None:
    text = ".".join(map(str, version))
    assert parse_version(text) == version
    assert version_text(encode_version(text)) == text


def test_the_build_number_is_left_out() -> None:
    assert parse_version("10.16.1.11") == (10, 16, 1)
    assert encode_version("10.16.1.11") == 101601


@pytest.mark.parametrize("version", ["11.0.0", "11.2.1.5", "12.0.0"])
def test_versions_without_calibrators_are_refused_with_the_way_out(version: str) -> None:
    expected = (
        rf"^TensorRT version '{version}': TensorRT 11 removed calibrators and reads no calibration cache; it takes "
        r"INT8 only as explicit Q/DQ nodes\. Write the cache for a TensorRT that reads it \(up to 10\.16\.1\) and "
        r"convert the model to Q/DQ with it$"
    )
    with pytest.raises(TensorRTVersionError, match=expected) as caught:
        make_cache({}, version, "EntropyCalibration2")
    assert caught.value.version == version
    assert parse_version(version)[0] >= 11


@pytest.mark.parametrize(
    "version",
    ["", "8", "8.6", "8.6.x", "v8.6.1", "8.6.1.", "8.6.1.2.3", "8.100.1", " 8.6.1", "8.6.1\n", "-8.6.1", "\u0668.6.1"],
)
def test_a_malformed_version_is_refused(version: str) -> None:
    for function in (parse_version, encode_version):
        with pytest.raises(
            TensorRTVersionError, match=r": expected MAJOR\.MINOR\.PATCH, such as 10\.16\.1 or 8\.6\.1$"
        ):
            function(version)


def test_entries_and_caches_are_values() -> None:
    assert parse_cache(LITERAL) == parse_cache(LITERAL)
    assert hash(parse_cache(LITERAL)) == hash(parse_cache(LITERAL))
    made = CalibrationCache(8601, "MinMaxCalibration", (CacheEntry("x", 0x3F800000),))
    assert format_cache(made) == b"TRT-8601-MinMaxCalibration\nx: 3f800000\n"
    assert made.entries[0].scale == 1
    assert math.isnan(CacheEntry("x", 0x7FC00000).scale)
