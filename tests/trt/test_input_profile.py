"""What one calibration batch must be: exact shapes, and dtypes that are reached without loss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trtcalib.errors import CalibrationError
from trtcalib.trt.input_profile import InputProfile

TAKEN = ("float32", "int32", "int64", "bool")


def prepare(value: object, dtype: object = np.float32) -> np.ndarray:
    """Prepare one input whose shape is right."""
    return InputProfile({"x": np.shape(value)}, {"x": np.dtype(dtype)}).prepare("x", value)


def refusal(value: object, dtype: object = np.float32) -> str:
    with pytest.raises(CalibrationError) as caught:
        prepare(value, dtype)
    return str(caught.value)


class TestSizes:
    @given(shape=hnp.array_shapes(min_dims=0, min_side=0), dtype=st.sampled_from(TAKEN))
    def test_nbytes_are_those_of_the_prepared_array(self, shape: tuple[int, ...], dtype: str) -> None:
        profile = InputProfile({"x": shape}, {"x": np.dtype(dtype)})
        assert profile.nbytes("x") == profile.prepare("x", np.zeros(shape, dtype)).nbytes

    def test_nbytes_beyond_32_bits(self) -> None:
        assert InputProfile({"x": (1 << 20, 1 << 20)}).nbytes("x") == 1 << 42

    @pytest.mark.parametrize(
        ("shapes", "expected"),
        [
            ({"x": (8, 3)}, 8),
            ({"scalar": (), "x": (4, 3), "y": (9,)}, 4),
            ({"scalar": ()}, 1),
            ({}, 1),
        ],
    )
    def test_the_batch_is_the_first_axis_of_the_first_input_that_has_one(self, shapes, expected: int) -> None:
        assert InputProfile(shapes).batch_size == expected

    def test_float32_unless_stated(self) -> None:
        profile = InputProfile({"x": (1,), "ids": (1,)}, {"ids": np.dtype(np.int64)})
        assert (profile.dtype("x"), profile.dtype("ids")) == (np.float32, np.int64)


class TestShapes:
    @pytest.mark.parametrize("shape", [(3, 3), (2, 3, 1), (6,), (3, 2), ()])
    def test_any_other_shape_is_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(CalibrationError) as caught:
            InputProfile({"x": (2, 3)}).prepare("x", np.zeros(shape, np.float32))
        assert str(caught.value) == (
            f"input 'x' got shape {shape}; TensorRT calibrates at (2, 3), the profile's kOPT shape, and reads that many values "
            "whatever the batch holds"
        )

    def test_a_shape_may_be_given_as_a_list(self) -> None:
        assert InputProfile({"x": [2, 3]}).prepare("x", np.zeros((2, 3), np.float32)).shape == (2, 3)

    @pytest.mark.parametrize(
        "view",
        [
            np.arange(12, dtype=np.float32).reshape(3, 4).T,
            np.arange(24, dtype=np.float32).reshape(4, 6)[:, ::2],
            np.arange(12, dtype=np.float32).reshape(4, 3)[::-1],
            np.broadcast_to(np.float32(3), (4, 3)),
        ],
    )
    def test_the_result_lies_in_memory_as_tensorrt_reads_it(self, view: np.ndarray) -> None:
        prepared = prepare(view)
        assert prepared.flags.c_contiguous
        np.testing.assert_array_equal(prepared, view)

    def test_a_single_number_keeps_no_axis(self) -> None:
        assert prepare(np.float32(3)).shape == ()


class TestDtypes:
    @given(hnp.arrays(np.float16, (7,), elements=st.floats(width=16, allow_nan=False, allow_infinity=False)))
    def test_float16_becomes_float32_exactly(self, values: np.ndarray) -> None:
        prepared = prepare(values)
        assert prepared.dtype == np.float32
        np.testing.assert_array_equal(prepared.astype(np.float16).view(np.uint16), values.view(np.uint16))

    @given(
        st.lists(
            st.integers(-(2**63), 2**63 - 1) | st.sampled_from([2**31 - 1, 2**31, -(2**31), -(2**31) - 1]), max_size=4
        )
    )
    def test_int64_becomes_int32_if_and_only_if_it_fits(self, numbers: list[int]) -> None:
        values = np.array(numbers, np.int64)
        if all(-(2**31) <= number < 2**31 for number in numbers):
            prepared = prepare(values, np.int32)
            assert prepared.dtype == np.int32
            assert prepared.tolist() == numbers
        else:
            expected = f"input 'x' holds {min(numbers)} to {max(numbers)}, which does not fit TensorRT's int32"
            assert refusal(values, np.int32) == expected

    @given(
        values=hnp.arrays(
            st.sampled_from(
                ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">f4", ">i4", "c8"]
            ),
            (3,),
        ),
        wanted=st.sampled_from(TAKEN),
    )
    def test_whatever_is_accepted_holds_the_same_numbers(self, values: np.ndarray, wanted: str) -> None:
        try:
            prepared = prepare(values, wanted)
        except CalibrationError:
            assert values.dtype != wanted or not np.isfinite(values).all()
        else:
            assert prepared.dtype == np.dtype(wanted)
            assert prepared.dtype.isnative
            assert prepared.tolist() == values.tolist()

    @pytest.mark.parametrize(
        ("dtype", "wanted"),
        [
            ("float64", "float32"),
            ("int32", "float32"),
            ("int64", "float32"),
            ("uint64", "float32"),
            ("complex64", "float32"),
            ("float32", "int32"),
            ("float32", "bool"),
            ("int64", "bool"),
            ("uint8", "bool"),
            ("object", "float32"),
            ("<U3", "float32"),
            ("datetime64[s]", "int64"),
        ],
    )
    def test_everything_else_is_refused_with_what_helps(self, dtype: str, wanted: str) -> None:
        expected = f"input 'x' is {dtype}, TensorRT takes {wanted}: convert it with .astype(numpy.{wanted})"
        assert refusal(np.zeros(3, dtype), wanted) == expected

    def test_unsigned_numbers_beyond_the_signed_ones(self) -> None:
        largest = np.array([0, 2**64 - 1], np.uint64)
        assert (
            refusal(largest, np.int64)
            == "input 'x' holds 0 to 18446744073709551615, which does not fit TensorRT's int64"
        )

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("dtype", [np.float16, np.float32])
    def test_values_that_are_no_numbers(self, bad: float, dtype: type) -> None:
        assert refusal(np.array([0, bad, 1], dtype)) == "input 'x' holds NaN or infinite values"

    def test_a_list_of_numbers_is_float64_and_refused(self) -> None:
        assert refusal([1.0, 2.0]).startswith("input 'x' is float64, TensorRT takes float32")

    def test_nothing_is_copied_where_nothing_changes(self) -> None:
        values = np.zeros((2, 3), np.float32)
        assert prepare(values) is values
