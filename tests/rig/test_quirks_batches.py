"""What our calibrators take as a batch, over real PyCUDA and a simulated driver: what lies on the device, or an error that is held."""

from __future__ import annotations

import numpy as np
import pytest

from tests.rig.driving import (
    batches_of,
    cache_for,
    calibrate,
    driver_of,
    opened_device,
    our_calibrators,
)
from trtcalib.errors import CalibrationError
from trtcalib.trt.input_profile import InputProfile

VALUES = np.array([[-1.5, 0, 2], [3, 1e-3, -7]], np.float32)


@pytest.fixture
def calibrators(trt, version):
    return our_calibrators(version)


@pytest.fixture
def device(calibrators, cuda):
    with opened_device() as device:
        yield device


@pytest.fixture
def fed(calibrators, device, version):
    """Make an entropy calibrator, and what calls it; its memory is freed in the end."""
    made = []

    def make(batches, shapes, **dtypes):
        profile = InputProfile(shapes, {name: np.dtype(dtype) for name, dtype in dtypes.items()})
        made.append(calibrators.EntropyCalibrator(batches, profile, device))
        return made[-1], driver_of(made[-1], version)

    yield make
    for calibrator in made:
        calibrator.free()


def on_device(cuda, pointer, like):
    """Return an array of device memory, as a kernel would find it now."""
    return np.frombuffer(cuda.read(pointer, like.nbytes), like.dtype).reshape(like.shape)


GIVEN = {
    "float32": VALUES,
    "float16": VALUES.astype(np.float16),
    "big-endian": VALUES.astype(">f4"),
    "Fortran order": np.asfortranarray(VALUES),
    "a transposed view": np.ascontiguousarray(VALUES.T).T,
    "a strided view": np.repeat(VALUES, 2, axis=1)[:, ::2],
    "a reversed view": np.ascontiguousarray(VALUES[::-1])[::-1],
    "a broadcast": np.broadcast_to(VALUES[:1], (2, 3)),
    "read-only": np.frombuffer(VALUES.tobytes(), np.float32).reshape(2, 3),
    "uint8": np.arange(6, dtype=np.uint8).reshape(2, 3),
    "bool": VALUES > 0,
}


@pytest.mark.parametrize("name", GIVEN)
def test_simulated_device_holds_the_values_as_float32(fed, cuda, name):
    _, driver = fed([{"x": GIVEN[name]}], {"x": (2, 3)})
    answered, (pointer,) = driver.batch(["x"])
    assert answered
    np.testing.assert_array_equal(on_device(cuda, pointer, VALUES), GIVEN[name].astype(np.float32))


@pytest.mark.parametrize(
    ("dtype", "given"),
    [
        ("int32", np.array([2**31 - 1, -(2**31)])),
        ("int32", np.array([7, 8], np.uint32)),
        ("int64", np.array([-1, 2**40])),
        ("int64", np.array([3, 4], np.int32)),
        ("bool", np.array([True, False])),
    ],
    ids=["int64 to int32", "uint32 to int32", "int64", "int32 to int64", "bool"],
)
def test_simulated_device_holds_integers_that_fit(fed, cuda, dtype, given):
    _, driver = fed([{"ids": given}], {"ids": (2,)}, ids=dtype)
    answered, (pointer,) = driver.batch(["ids"])
    assert answered
    np.testing.assert_array_equal(on_device(cuda, pointer, np.zeros(2, dtype)), given)


def test_simulated_device_holds_a_value_without_axes(fed, cuda):
    _, driver = fed([{"scale": np.float16(0.5), "n": np.array(3)}], {"scale": (), "n": ()}, n="int32")
    answered, (scale, number) = driver.batch(["scale", "n"])
    assert answered
    assert on_device(cuda, scale, np.zeros((), np.float32)) == 0.5
    assert on_device(cuda, number, np.zeros((), np.int32)) == 3


@pytest.mark.parametrize("shape", [(), (3, 2)])
def test_prepared_inputs_lie_in_order_and_keep_their_axes(shape):
    array = InputProfile({"x": shape}).prepare("x", np.ones(shape[::-1], np.float32).T)
    assert array.shape == shape
    assert array.flags.c_contiguous


@pytest.mark.parametrize(
    ("given", "dtype", "text"),
    [
        (np.ones((2, 4), np.float32), "float32", r"input 'x' got shape \(2, 4\); TensorRT calibrates at \(2, 3\)"),
        (np.ones((1, 3), np.float32), "float32", r"input 'x' got shape \(1, 3\)"),
        (np.ones((3, 3), np.float32), "float32", r"input 'x' got shape \(3, 3\)"),
        (np.ones(6, np.float32), "float32", r"input 'x' got shape \(6,\)"),
        (np.float32(1), "float32", r"input 'x' got shape \(\)"),
        (
            VALUES.astype(np.float64),
            "float32",
            r"input 'x' is float64, TensorRT takes float32: convert it with .astype",
        ),
        (VALUES.astype(np.int64), "float32", "input 'x' is int64, TensorRT takes float32"),
        (VALUES.astype(np.complex64), "float32", "input 'x' is complex64"),
        (VALUES.astype(object), "float32", "input 'x' is object"),
        (VALUES.astype(str), "float32", "input 'x' is <U"),
        (
            np.full((2, 3), 2**31),
            "int32",
            "input 'x' holds 2147483648 to 2147483648, which does not fit TensorRT's int32",
        ),
        (np.full((2, 3), -(2**31) - 1), "int32", "does not fit"),
        (np.full((2, 3), 2**63, np.uint64), "int64", "does not fit"),
        (VALUES, "int32", "input 'x' is float32, TensorRT takes int32"),
        (np.ones((2, 3), np.int32), "bool", "input 'x' is int32, TensorRT takes bool"),
        (np.where(VALUES == 0, np.nan, VALUES), "float32", "input 'x' holds NaN"),
        (np.where(VALUES == 0, -np.inf, VALUES), "float32", "input 'x' holds NaN or infinite"),
        (np.full((2, 3), np.nan, np.float16), "float32", "input 'x' holds NaN"),
    ],
)
def test_simulated_device_is_not_asked_when_a_batch_is_wrong(fed, version, capfd, *, given, dtype, text):
    calibrator, driver = fed([*batches_of(1), {"x": given}], {"x": (2, 3)}, x=dtype)
    if dtype != "float32":
        next(calibrator.feeder._batches)  # of the good one before, which is float32
    taken = calibrate(driver, cache_for(version))
    assert len(taken) == (dtype == "float32")
    assert capfd.readouterr() == ("", "")
    assert calibrator.feeder.written is None
    with pytest.raises(CalibrationError, match=text):
        calibrator.raise_if_failed()


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_simulated_partial_last_batch_is_an_error_and_not_padded(fed, version, samples):
    full = np.ones((4, 3), np.float32)
    calibrator, driver = fed([{"x": full}, {"x": full}, {"x": full[:samples]}], {"x": (4, 3)})
    assert len(calibrate(driver, cache_for(version))) == 2
    with pytest.raises(CalibrationError, match=rf"after 2 batches.*got shape \({samples}, 3\)"):
        calibrator.raise_if_failed()


def test_simulated_wrong_second_input_gives_no_batch_at_all(fed, version):
    batch = {"a": np.ones(2, np.float32), "b": np.ones(3, np.float32)}
    calibrator, driver = fed([batch], {"a": (2,), "b": (2,)})
    assert calibrate(driver, cache_for(version), ["a", "b"]) == []
    with pytest.raises(CalibrationError, match="input 'b' got shape"):
        calibrator.raise_if_failed()


@pytest.mark.parametrize("batch", [[VALUES], VALUES, 7, "x"], ids=["list", "array", "int", "str"])
def test_simulated_batch_that_is_no_mapping_is_an_error(fed, version, capfd, batch):
    calibrator, driver = fed([batch], {"x": (2, 3)})
    assert calibrate(driver, cache_for(version)) == []
    assert capfd.readouterr() == ("", "")
    with pytest.raises(CalibrationError):
        calibrator.raise_if_failed()


def test_simulated_batches_may_hold_more_than_the_network_takes(fed, cuda):
    _, driver = fed([{"label": np.array("cat"), "x": VALUES}], {"x": (2, 3)})
    answered, (pointer,) = driver.batch(["x"])
    assert answered
    np.testing.assert_array_equal(on_device(cuda, pointer, VALUES), VALUES)
