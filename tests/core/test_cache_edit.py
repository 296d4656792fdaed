"""Editing caches as values: what changes, and the bytes that must not."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtcalib.core.cache import CalibrationCache, format_cache, parse_cache
from trtcalib.core.cache_edit import (
    MERGES,
    How,
    convert_header,
    line_numbers,
    merge_caches,
    rename_tensors,
    set_scales,
)
from trtcalib.core.scale import bits_from_scale, scale_from_amax

HEADER = "TRT-101601-EntropyCalibration2"

finite = st.floats(min_value=0, max_value=float(np.finfo(np.float32).max), width=32)
tables = st.lists(st.dictionaries(st.sampled_from("abcd"), finite, min_size=1), min_size=1, max_size=5)


def made(scales: dict[str, float]) -> CalibrationCache:
    lines = [f"{name}: {bits_from_scale(scale):x}" for name, scale in scales.items()]
    return parse_cache("\n".join([HEADER, *lines, ""]).encode())


def text(cache: CalibrationCache) -> str:
    return format_cache(cache).decode()


class TestMerge:
    @pytest.mark.parametrize(
        ("how", "expected"),
        [
            ("max", [4.0, 8.0, 0.5]),
            ("mean", [7 / 3, 8.0, 0.5]),
            ("median", [2.0, 8.0, 0.5]),
            ("first", [1.0, 8.0, 0.5]),
        ],
    )
    def test_three_caches(self, how: How, expected: list[float]) -> None:
        merged = merge_caches([made({"a": 1.0}), made({"b": 8.0, "a": 4.0}), made({"c": 0.5, "a": 2.0})], how)
        assert list(merged.cache.scales) == ["a", "b", "c"]
        assert list(merged.cache.scales.values()) == [np.float32(value) for value in expected]
        assert merged.partial == ("b", "c")

    @given(tables, st.sampled_from(MERGES))
    def test_against_exact_fractions(self, scales: list[dict[str, float]], how: How) -> None:
        merged = merge_caches([made(own) for own in scales], how).cache.scales
        assert list(merged) == list(dict.fromkeys(name for own in scales for name in own))
        for name, got in merged.items():
            values = [own[name] for own in scales if name in own]
            used = values if how in ("max", "first") else [v for v in values if v != 0] or [0.0]
            ordered = sorted(map(Fraction, used))
            middle = len(ordered) // 2
            exact = {
                "first": Fraction(used[0]),
                "max": ordered[-1],
                "mean": sum(ordered) / len(ordered),
                "median": (ordered[middle] + ordered[-middle - 1]) / 2,
            }[how]
            error = abs(Fraction(float(got)) - exact)
            with np.errstate(all="ignore"):
                below, above = np.nextafter(got, np.float32(0)), np.nextafter(got, np.float32(np.inf))
            # A float32 that no neighbour is nearer than, but for the float64 rounding before it.
            slack = exact * Fraction(1, 2**52)
            assert error <= abs(Fraction(float(below)) - exact) + slack or got == 0
            assert not np.isfinite(above) or error <= abs(Fraction(float(above)) - exact) + slack

    @given(st.dictionaries(st.sampled_from("abcd"), finite, min_size=1), st.sampled_from(MERGES), st.integers(1, 4))
    def test_a_cache_with_itself_is_itself(self, scales: dict[str, float], how: How, times: int) -> None:
        cache = made(scales)
        assert format_cache(merge_caches([cache] * times, how).cache) == format_cache(cache)

    @pytest.mark.parametrize(
        ("how", "scale", "left_out"),
        [("max", 3.0, ()), ("mean", 3.0, ("a",)), ("median", 3.0, ("a",)), ("first", 0.0, ())],
    )
    def test_a_zero_is_no_range(self, how: How, scale: float, left_out: tuple[str, ...]) -> None:
        merged = merge_caches([made({"a": 0.0, "z": 0.0}), made({"a": 3.0, "z": 0.0})], how)
        assert merged.cache.scales == {"a": scale, "z": 0.0}
        assert merged.zeros_left_out == left_out

    @pytest.mark.parametrize(("how", "scale"), [("max", np.inf), ("mean", np.inf), ("median", 2.0), ("first", 1.0)])
    def test_infinity_is_larger_than_all(self, how: How, scale: float) -> None:
        merged = merge_caches([made({"a": 1.0}), made({"a": np.inf}), made({"a": 2.0})], how)
        assert merged.cache.scales == {"a": scale}

    def test_lines_that_stay_keep_their_bytes(self) -> None:
        first = parse_cache(
            f"{HEADER} \r\na: 0003F800000\r\n".replace("0003F", "3F").encode() + b"b: 00000001 \r\n\r\nc: 2"
        )
        merged = merge_caches([first, made({"b": 1.0, "d": 0.5, "c": 0.0})], "max").cache
        assert text(merged) == f"{HEADER} \r\na: 3F800000\r\nb: 3f800000 \r\n\r\nc: 2\r\nd: 3f000000\r\n"

    def test_the_last_of_a_names_lines_counts(self) -> None:
        first = parse_cache(f"{HEADER}\na: 41000000\na: 3f800000\n".encode())
        assert text(merge_caches([first, made({"a": 2.0})], "max").cache) == f"{HEADER}\na: 40000000\na: 40000000\n"

    def test_its_arguments_stay(self) -> None:
        caches = [made({"a": 1.0}), made({"a": 2.0, "b": 1.0})]
        before = [format_cache(cache) for cache in caches]
        merge_caches(caches, "mean")
        assert [format_cache(cache) for cache in caches] == before


class TestSet:
    def test_one_line_changes_and_the_others_keep_their_bytes(self) -> None:
        cache = parse_cache(f"{HEADER}\r\na: 0000ABCD \r\n\r\nb: 3F800000".encode())
        # 3.5 / 127 = 0.0275590551..., whose float32 is 0x3ce1c387: 1.7637795 * 2**-6.
        changed = set_scales(cache, {"b": scale_from_amax(3.5)})
        assert text(changed) == f"{HEADER}\r\na: 0000ABCD \r\n\r\nb: 3ce1c387"

    def test_the_same_scale_changes_nothing(self) -> None:
        cache = parse_cache(f"{HEADER}\na: 3F800000\n".encode())
        assert text(set_scales(cache, {"a": np.float32(1)})) == f"{HEADER}\na: 3F800000\n"

    @pytest.mark.parametrize("end", ["", "\n"])
    def test_new_tensors_come_last(self, end: str) -> None:
        cache = parse_cache(f"{HEADER}\na: 1{end}".encode())
        assert text(set_scales(cache, {"b: c": np.float32(1)})) == f"{HEADER}\na: 1\nb: c: 3f800000\n"
        empty = parse_cache(f"{HEADER}{end}".encode())
        assert text(set_scales(empty, {"b": np.float32(1)})) == f"{HEADER}\nb: 3f800000\n"


class TestConvert:
    @pytest.mark.parametrize("rest", ["", "\n", " \t\r\n\r\n", "\na: 3F800000 \r\nb: 1"])
    def test_only_the_header_changes(self, rest: str) -> None:
        cache = parse_cache(f"TRT-0008601-MinMaxCalibration{rest}".encode())
        converted = convert_header(cache, 101601, "EntropyCalibration2")
        assert text(converted) == HEADER + rest
        assert (converted.version, converted.algorithm) == (101601, "EntropyCalibration2")
        assert parse_cache(format_cache(converted)) == converted

    def test_the_same_header_keeps_its_spelling(self) -> None:
        cache = parse_cache(b"TRT-0008601-MinMaxCalibration\n")
        assert text(convert_header(cache, 8601, "MinMaxCalibration")) == "TRT-0008601-MinMaxCalibration\n"

    @given(st.integers(0, 10**9 - 1), st.sampled_from(["EntropyCalibration2", "MinMaxCalibration"]))
    def test_back_and_forth(self, version: int, algorithm: str) -> None:
        cache = parse_cache(f"{HEADER}\na: 3F800000\n".encode())
        there = convert_header(cache, version, algorithm)
        assert convert_header(there, cache.version, cache.algorithm) == cache


class TestRename:
    def test_a_swap_and_a_chain_at_once(self) -> None:
        cache = parse_cache(f"{HEADER}\na: 1\nb: 2 \nc: 0003\nd: 4\n".encode())
        renamed = rename_tensors(cache, {"a": "b", "b": "a", "c": "d", "d": "e"})
        assert text(renamed) == f"{HEADER}\nb: 1\na: 2 \nd: 0003\ne: 4\n"

    @given(st.permutations("abcd"))
    def test_a_permutation_and_its_inverse(self, order: list[str]) -> None:
        cache = made({"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0})
        names = dict(zip("abcd", order, strict=True))
        renamed = rename_tensors(cache, names)
        assert renamed.scales == {names[name]: scale for name, scale in cache.scales.items()}
        assert rename_tensors(renamed, {new: old for old, new in names.items()}) == cache


def test_line_numbers_count_blank_lines() -> None:
    cache = parse_cache(f"{HEADER}\r\n\r\na: 1\n\n\nb: 2\nc: 3".encode())
    assert line_numbers(cache) == [3, 6, 7]
