"""ONNX Runtime's calibration tables and plain dynamic ranges: strict, and safe with anything."""

from __future__ import annotations

import contextlib
import json
import math
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trtcalib.cache_tools.scale_tables import parse_table
from trtcalib.errors import CacheFormatError

ranges = st.tuples(st.floats(width=32, allow_nan=False), st.floats(width=32, allow_nan=False))
names = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0"), min_size=1).filter(lambda n: n == n.strip())


def array(data, dtype="float32"):
    return {"data": data, "dtype": dtype, "CLS": "numpy.array"}


def refused(content) -> str:
    with pytest.raises(CacheFormatError) as caught:
        parse_table(content if isinstance(content, bytes) else json.dumps(content).encode())
    return str(caught.value)


# laws


@given(st.dictionaries(names, ranges, min_size=1), st.sampled_from(["list", "object", "wrapped", "numbers"]))
def test_every_json_form_gives_the_larger_magnitude(tensors, form):
    expected = {name: max(abs(low), abs(high)) for name, (low, high) in tensors.items()}
    content = {
        "list": {name: list(pair) for name, pair in tensors.items()},
        "object": {
            name: {"lowest": array(low), "highest": array([high]), "CLS": "TensorData"}
            for name, (low, high) in tensors.items()
        },
        "wrapped": {
            "CLS": "TensorsData",
            "data": {name: {"lowest": low, "highest": high} for name, (low, high) in tensors.items()},
            "calibration_method": {"CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax"},
            "smooth_quant": False,
        },
        "numbers": expected,
    }[form]
    if "CLS" in tensors or "data" in tensors:
        return
    found = parse_table(json.dumps(content).encode())
    assert found.amax == expected
    assert found.format == ("dynamic-ranges-json" if form == "numbers" else "onnxruntime-json")


@given(st.dictionaries(names, st.floats(width=32, allow_nan=False), min_size=1), st.sampled_from(["\n", "\r\n"]))
def test_lines_of_name_and_number_come_back(tensors, end):
    text = "".join(f"{name} {number}{end}" for name, number in tensors.items())
    if text.lstrip()[:1] == "{":
        return
    found = parse_table(text.encode())
    assert (found.format, found.amax) == ("onnxruntime-text", tensors)


@given(st.binary())
@example(b"{")
@example(b'{"a": 1, "a": 2}')
@example(b"\xef\xbb\xbfa 1")
def test_any_bytes_are_a_table_or_refused_in_words(content):
    with contextlib.suppress(CacheFormatError):
        found = parse_table(content)
        assert found.amax
        assert all(isinstance(amax, float) for amax in found.amax.values())


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["CLS", "data", "lowest", "highest", "hist", "dtype"]) | st.text(), inner)
        | inner.map(array)
    ),
)


@given(st.dictionaries(st.text(), json_values) | json_values)
def test_any_json_is_a_table_or_refused_in_words(value):
    with contextlib.suppress(CacheFormatError):
        found = parse_table(json.dumps(value).encode())
        assert all(isinstance(amax, float) for amax in found.amax.values())


# literals


def test_what_onnx_runtime_writes_is_read(tmp_path):
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    utils = pytest.importorskip("onnxruntime.quantization.quant_utils")
    data = {
        "x: y": calibrate.TensorData(lowest=np.array(-0.5, np.float32), highest=np.array(1.5, np.float32)),
        "conv 1": calibrate.TensorData(
            lowest=np.array(-4, np.float32),
            highest=np.array(0.25, np.float32),
            hist=np.array([1, 2]),
            hist_edges=np.array([-4, 0, 4], np.float32),
        ),
    }
    whole = calibrate.TensorsData(calibrate.CalibrationMethod.Entropy, data)
    pairs = {"x: y": (-0.5, 1.5), "conv 1": (-4.0, 0.25)}
    written = 0
    for place, content in enumerate((pairs, data, whole)):
        folder = tmp_path / str(place)
        folder.mkdir()
        try:
            utils.write_calibration_table(content, str(folder))
        except (AttributeError, TypeError):
            continue  # 1.18 takes pairs and nothing else, 1.31 objects
        written += 1
        assert parse_table((folder / "calibration.json").read_bytes()).amax == {"x: y": 1.5, "conv 1": 4.0}
        # Of objects the larger of lowest and highest: what stands in the file, and not the largest magnitude.
        largest = 4.0 if content is pairs else 0.25
        assert parse_table((folder / "calibration.cache").read_bytes()).amax == {"conv 1": largest, "x: y": 1.5}
        assert "take calibration.json or calibration.cache" in refused(
            (folder / "calibration.flatbuffers").read_bytes()
        )
    assert written


def test_older_pairs_with_a_histogram_behind_them_are_read():
    found = parse_table(b'{"a": [-3.5, 2, [1, 2, 3], 3], "b": [[-1.0], [0.5]]}')
    assert found.amax == {"a": 3.5, "b": 1.0}


def test_a_range_per_channel_counts_by_its_largest_and_is_told():
    found = parse_table(json.dumps({"a": {"lowest": array([-1, -7.5]), "highest": array([[2], [3]])}}).encode())
    assert found.amax == {"a": 7.5}
    assert found.notes == ("1 tensors have a range per channel, of which the largest counts: 'a'",)


def test_numbers_that_json_has_no_words_for_are_taken():
    found = parse_table(b'{"a": NaN, "b": [-Infinity, 1], "c": [1, NaN], "d": {"lowest": NaN, "highest": 2}}')
    assert math.isnan(found.amax["a"])
    assert found.amax["b"] == math.inf
    assert math.isnan(found.amax["c"])
    assert math.isnan(found.amax["d"])


def test_names_that_stand_twice_are_told_and_the_last_counts():
    for content in (b'{"a": 1, "b": 3, "a": 2}', b"a 1\nb 3\na 2\n"):
        found = parse_table(content)
        assert found.amax == {"a": 2.0, "b": 3.0}
        assert found.notes == ("1 names stand more than once, and the last range of each counts: 'a'",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{}", "names no tensor"),
        (b'{"a": }', "<calibration cache>:1: is no JSON: Expecting value at column 7"),
        ({"a": "1"}, "tensor 'a' has the text '1', expected a number, a pair of numbers"),
        ({"a": [1]}, "tensor 'a' has a list of 1"),
        ({"a": True}, "tensor 'a' has true"),
        ({"a": None}, "tensor 'a' has null"),
        ({"a": {"avg": 1, "std": 2}}, "an object without numbers as 'lowest' and 'highest'"),
        ({"a": {"lowest": "x", "highest": 2}}, "an object without numbers as 'lowest' and 'highest'"),
        ({"a": {"lowest": array([]), "highest": array([])}}, "an object without numbers"),
        ({"CLS": "TensorsData", "data": 7}, "holds 7.0, expected an object of tensor names and ranges"),
        ({"schema_version": 1, "tool": "trtcalib"}, "is a manifest that trtcalib wrote: name the cache beside it"),
        (b"a 1\nb one\n", "<calibration cache>:2: found 'b one', expected a calibration cache with a header"),
        (b"[1, 2]", "found '[1, 2]', expected"),
        (b" 1\n", "found '1', expected"),
        (b"input: 3c010a14\nconv1: 3e110946\n", "found 'input: 3c010a14'"),
        (b"input: 30010114\nconv1: 3e09\n", "there is no header such as 'TRT-101601-EntropyCalibration2'"),
        (b"\xff\xfe", "is not UTF-8 at byte 0"),
        (b"\x08\0\0\0abc", "is binary"),
    ],
)
def test_what_is_no_table_is_refused(content, words):
    assert words in refused(content)


def test_deep_nesting_and_long_numbers_are_refused_or_read_at_once():
    assert "nested too deeply" in refused(b'{"a": ' + b"[" * 2_000_000)
    start = time.perf_counter()
    assert parse_table(b'{"a": ' + b"9" * 2_000_000 + b"}").amax == {"a": math.inf}
    assert "found" in refused(b"a " * 500_000 + b"e\n")
    assert time.perf_counter() - start < 5


def test_histograms_are_not_held_while_a_table_is_read():
    histogram = array([1] * 20_000, "int64")
    tensors = {f"t{i}": {"lowest": array(-1.0), "highest": array(2.0), "hist": histogram} for i in range(20)}
    content = json.dumps(tensors).encode()
    tracemalloc.start()
    try:
        assert len(parse_table(content).amax) == 20
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # 20 histograms of 20000 numbers are 13 MB as Python objects; the text itself is 1.2 MB.
    assert peak < 3 * len(content)
