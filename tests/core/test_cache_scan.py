"""The tolerant reader: all faults with their lines, and the strict reader's verdict in every case."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trtcalib.core.cache import format_cache, make_cache, parse_cache
from trtcalib.core.cache_scan import BREAKING, MOST_FAULTS, ScannedEntry, scan_cache
from trtcalib.errors import CacheFormatError

HEADER = b"TRT-101601-EntropyCalibration2\n"

pieces = st.sampled_from(
    (
        *(
            b"TRT-",
            b"8601",
            b"-EntropyCalibration2",
            b"\n",
            b"\r\n",
            b"\r",
            b": ",
            b":",
            b" ",
            b"\t",
            b"x",
            b"3c010a14",
            b"0",
            b"7F",
        ),
        *(b"123456789", b"\xff", b"\0", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\x0b", b"\x85", HEADER, b"x: 1\n"),
    )
)
mostly_caches = st.lists(pieces, max_size=25).map(b"".join)


@pytest.mark.parametrize("start", [b"", HEADER])
@given(content=st.binary(max_size=60) | mostly_caches)
@example(content=b"")
@example(content=b"\n")
@example(content=b"TRT-1-A\r \r\nx: 1")
@example(content=b"\xef\xbb\xbfTRT-1-A\n")
@example(content=b"TRT-1-A \t\r\r")
@example(content="TRT-\N{FULLWIDTH DIGIT ONE}-A".encode())
def test_any_bytes_can_be_scanned_and_the_strict_reader_agrees(start: bytes, content: bytes) -> None:
    scan = scan_cache(start + content)
    if not scan.readable:
        with pytest.raises(CacheFormatError) as error:
            parse_cache(start + content)
        assert error.value.line == min(fault.line for fault in scan.faults if fault.kind in BREAKING)
        return
    cache = parse_cache(start + content)
    assert (scan.version, scan.algorithm) == (cache.version, cache.algorithm)
    assert [(entry.name, entry.bits) for entry in scan.entries] == [(entry.name, entry.bits) for entry in cache.entries]


@given(content=st.binary(max_size=60) | mostly_caches)
def test_lines_grow_and_lie_in_the_file(content: bytes) -> None:
    scan = scan_cache(content)
    lines = [entry.line for entry in scan.entries]
    assert lines == sorted(set(lines))
    assert all(1 <= fault.line <= content.count(b"\n") + 1 for fault in scan.faults)
    assert sum(scan.counts.values()) == len(scan.faults)


@given(scales=st.dictionaries(st.text("abc:/_ 0é", min_size=1).map(str.strip).filter(bool), st.floats(width=32)))
def test_what_trtcalib_writes_has_no_fault(scales: dict[str, float]) -> None:
    cache = make_cache({name: np.float32(scale) for name, scale in scales.items()}, "10.16.1", "MinMaxCalibration")
    scan = scan_cache(format_cache(cache))
    assert scan.faults == ()
    assert [entry.line for entry in scan.entries] == list(range(2, 2 + len(scales)))


def kinds(content: bytes) -> list[tuple[str, int]]:
    return [(fault.kind, fault.line) for fault in scan_cache(content).faults]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", [("header", 1)]),
        (HEADER, []),
        (HEADER + b"x: 3c010a14\n", []),
        (b"\xef\xbb\xbf" + HEADER, [("byte-order-mark", 1)]),
        (b"TRT-08601-A\n", [("unusual-digits", 1)]),
        (b"TRT-8601-A \n", [("white-space", 1)]),
        (b"TRT-8601\n", [("header", 1)]),
        (HEADER + b"x: 3C010A14\n", [("unusual-digits", 2)]),
        (HEADER + b"x: 03c010a1\n", [("unusual-digits", 2)]),
        (HEADER + b"x: 0\n", []),
        (HEADER + b"x: 00\n", [("unusual-digits", 2)]),
        (HEADER + b"x: 3c010a145\n", [("digits", 2)]),
        (HEADER + b"x: 0x3c\n", [("digits", 2)]),
        (HEADER + b"x:3c010a14\n", [("line", 2)]),
        (HEADER + b": 3c010a14\n", [("line", 2)]),
        (HEADER + b"x: 1\r\n", [("carriage-return", 2)]),
        (HEADER + b"x: 1 \r\n", [("white-space", 2)]),
        (HEADER + b"x: 1", [("no-line-end", 2)]),
        (HEADER + b"\nx: 1\n\n", [("blank-line", 2), ("blank-line", 4)]),
        (HEADER + b"x: 1\n \n", [("white-space", 3), ("blank-line", 3)]),
        (HEADER + b"x\0y: 1\n", [("nul", 2)]),
        (HEADER + b"bad\nx: g\nx: 1\nworse", [("line", 2), ("digits", 3), ("no-line-end", 5), ("line", 5)]),
    ],
)
def test_faults_have_their_lines(content: bytes, expected: list[tuple[str, int]]) -> None:
    assert kinds(content) == expected


def test_what_can_be_read_around_faults_is_read() -> None:
    scan = scan_cache(HEADER + b"a: 1\nbad\nb: c: zz\nc:: d: 7f800000\r\n")
    assert scan.entries == (ScannedEntry(2, "a", 1), ScannedEntry(5, "c:: d", 0x7F800000))
    assert [(fault.found, fault.name) for fault in scan.faults[:2]] == [("bad", None), ("zz", "b: c")]


def test_a_missing_header_costs_no_tensor() -> None:
    scan = scan_cache(b"a: 1\nb: 2\n")
    assert (scan.version, scan.algorithm, scan.readable) == (None, None, False)
    assert [entry.name for entry in scan.entries] == ["a", "b"]


def test_a_header_behind_a_byte_order_mark_is_read() -> None:
    assert scan_cache(b"\xef\xbb\xbf" + HEADER).version == 101601


def test_faults_are_kept_up_to_a_number_and_counted_all() -> None:
    scan = scan_cache(HEADER + b"bad\n" * (MOST_FAULTS + 5) + b"x: g\n")
    assert scan.counts == {"line": MOST_FAULTS + 5, "digits": 1}
    assert len(scan.faults) == MOST_FAULTS + 1


def test_a_quote_is_cut() -> None:
    assert scan_cache(HEADER + b"y" * 10_000).faults[-1].found == "y" * 80
