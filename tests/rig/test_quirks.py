"""The quirk table of TensorRT's calibrators, ``get_batch``: our calibrators, called from C++ through the real bindings.

Each test names the row of the table that it is about. TensorRT itself is not here: its calls are made by ``driving.py``.
"""

from __future__ import annotations

import gc
import logging

import numpy as np
import pytest

from tests.rig.driving import (
    ALGORITHMS,
    FED,
    HostDevice,
    batches_of,
    cache_for,
    calibrate,
    driver_of,
    header_of,
    our_calibrators,
)
from tests.rig.vtable import UNTOUCHED, address_of
from trtcalib.errors import CalibrationError, DeviceError
from trtcalib.trt.input_profile import InputProfile

SLOTS = ("get_batch_size", "get_batch", "read_calibration_cache", "write_calibration_cache")
PROFILE = InputProfile({"x": (2, 3)})


@pytest.fixture
def calibrators(trt, version):
    return our_calibrators(version)


@pytest.fixture(params=FED)
def kind(request):
    return request.param


@pytest.fixture
def fed(calibrators, kind, version):
    """Make a calibrator over host memory, and what calls it."""

    def make(batches, profile=PROFILE, device=None, **options):
        calibrator = getattr(calibrators, kind)(batches, profile, device or HostDevice(), **options)
        return calibrator, driver_of(calibrator, version)

    return make


def failing_after(count, error):
    yield from batches_of(*range(count))
    raise error


# Row: any exception in get_batch, KeyboardInterrupt too, becomes "no more data", and the cache is written


@pytest.mark.parametrize(
    "error",
    [ValueError("broken sample"), OSError(5, "Input/output error"), AssertionError(), GeneratorExit()],
    ids=lambda error: type(error).__name__,
)
def test_row_exception_in_get_batch_is_held_and_no_cache_kept(fed, kind, version, tmp_path, capfd, error):
    path = tmp_path / "x.cache"
    calibrator, driver = fed(failing_after(2, error), cache=path)
    assert len(calibrate(driver, cache_for(version, kind))) == 2
    assert capfd.readouterr() == ("", "")
    assert calibrator.feeder.failed
    assert calibrator.feeder.written is None
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(
        CalibrationError, match=f"stopped after 2 batches, nothing was kept: {type(error).__name__}"
    ) as e:
        calibrator.raise_if_failed()
    assert e.value.__cause__ is error
    assert e.value.batches_fed == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=lambda error: type(error).__name__)
def test_row_ctrl_c_in_get_batch_is_held_and_raised_as_it_is(fed, kind, version, tmp_path, capfd, error):
    path = tmp_path / "x.cache"
    calibrator, driver = fed(failing_after(1, error), cache=path)
    assert len(calibrate(driver, cache_for(version, kind))) == 1
    assert capfd.readouterr() == ("", "")
    assert calibrator.feeder.written is None
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(type(error)) as e:
        calibrator.raise_if_failed()
    assert e.value is error


def test_row_exception_in_get_batch_is_the_end_even_if_the_next_batch_would_do(fed, version):
    calibrator, driver = fed([*batches_of(1), {"x": np.ones((1, 3), np.float32)}, *batches_of(2)])
    assert [driver.batch(["x"])[0] for _ in range(4)] == [True, False, False, False]
    assert calibrator.feeder.batches_fed == 1


def test_row_exception_in_get_batch_also_when_the_device_fails(fed, kind, version, capfd):
    device = HostDevice()
    device.allocate = lambda nbytes: (_ for _ in ()).throw(DeviceError("out of device memory", nbytes))
    calibrator, driver = fed(batches_of(1), device=device)
    assert calibrate(driver, cache_for(version, kind)) == []
    assert capfd.readouterr() == ("", "")
    with pytest.raises(CalibrationError, match="out of device memory") as e:
        calibrator.raise_if_failed()
    assert e.value.exit_code == 3


def test_row_exception_in_get_batch_also_when_nobody_can_tell_it(fed, kind, version, capfd, monkeypatch):
    """A log handler that raises, and an exception without a text, must not come between."""

    class Wordless(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    class Handler(logging.Handler):
        def emit(self, record):
            raise KeyboardInterrupt

    monkeypatch.setattr(logging.getLogger("trtcalib.trt.feeder"), "handlers", [Handler()])
    for error in (ValueError("broken"), Wordless()):
        calibrator, driver = fed(failing_after(1, error))
        assert len(calibrate(driver, cache_for(version, kind))) == 1
        assert capfd.readouterr() == ("", "")
        with pytest.raises(CalibrationError) as e:
            calibrator.raise_if_failed()
        assert e.value.__cause__ is error


def test_row_exception_in_get_batch_a_batch_that_is_none_is_one_and_not_the_end(fed, kind, version):
    calibrator, driver = fed([*batches_of(1), None, *batches_of(2)])
    assert len(calibrate(driver, cache_for(version, kind))) == 1
    assert calibrator.feeder.written is None
    with pytest.raises(CalibrationError, match="NoneType"):
        calibrator.raise_if_failed()


def test_row_exception_in_get_batch_leaves_the_block_when_the_calibrator_is_a_context_manager(fed, kind, version):
    with pytest.raises(CalibrationError, match="broken"), fed(failing_after(1, ValueError("broken")))[0] as calibrator:
        calibrate(driver_of(calibrator, version), cache_for(version, kind))


def test_row_exception_that_no_guard_could_see_is_found_when_the_cache_is_written(fed, kind, version, tmp_path):
    """Ctrl-C before the first line of get_batch, for instance: the batches have not come to their end."""
    path = tmp_path / "x.cache"
    calibrator, driver = fed(batches_of(1, 2, 3), cache=path)
    assert driver.batch(["x"])[0]
    driver.write(cache_for(version, kind))
    assert calibrator.feeder.written is None
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CalibrationError, match="before the batches had come to their end"):
        calibrator.raise_if_failed()


def test_row_ctrl_c_that_is_held_after_the_last_batch_keeps_the_cache_out(fed, kind, version, tmp_path):
    calibrator, driver = fed(batches_of(1), cache=tmp_path / "x.cache")
    while driver.batch(["x"])[0]:
        pass
    calibrator.feeder.hold(KeyboardInterrupt())
    driver.write(cache_for(version, kind))
    assert calibrator.feeder.written is None
    assert list(tmp_path.iterdir()) == []


# Row: fewer pointers than names


@pytest.mark.parametrize("count", [1, 2, 40])
def test_row_fewer_pointers_than_names_there_are_as_many(fed, count):
    names = [f"in{i}" for i in range(count)]
    batch = {name: np.ones((2, 3), np.float32) for name in names}
    _, driver = fed([batch], InputProfile(dict.fromkeys(names, (2, 3))))
    answered, pointers = driver.batch(names)
    assert answered
    assert len(set(pointers)) == count
    assert not set(pointers) & {UNTOUCHED + i for i in range(count)}


@pytest.mark.parametrize("where", ["batch", "profile"])
def test_row_fewer_pointers_than_names_is_an_error_that_names_the_input(fed, kind, version, where):
    names = {"batch": ["x"], "profile": ["x", "mask"]}[where]
    shapes = {"batch": ["x", "mask"], "profile": ["x"]}[where]
    batch = {name: np.ones((2, 3), np.float32) for name in names}
    calibrator, driver = fed([batch], InputProfile(dict.fromkeys(shapes, (2, 3))))
    assert driver.batch(["x", "mask"]) == (False, [UNTOUCHED, UNTOUCHED + 1])
    with pytest.raises(CalibrationError, match="the network has the input 'mask'"):
        calibrator.raise_if_failed()


# Rows: the result is converted twice; anything else than an int in the list is silently "no more data"


class Address:
    """Like PyCUDA's DeviceAllocation: an int on request only."""

    def __init__(self, value):
        self.value = value

    def __int__(self):
        return self.value


@pytest.mark.parametrize("as_pointer", [int, np.uint64, Address], ids=lambda kind: kind.__name__)
def test_row_result_is_a_plain_list_of_int(fed, as_pointer):
    device = HostDevice(as_pointer)
    calibrator, driver = fed(batches_of(1, 2), device=device)
    result = calibrator.get_batch(["x"])  # from Python first: from C++ a generator ends the process
    assert type(result) is list
    assert [type(pointer) for pointer in result] == [int]
    assert driver.batch(["x"]) == (True, [int(device.buffers[0].pointer)])
    assert driver.batch(["x"]) == (False, [UNTOUCHED])
    assert calibrator.get_batch(["x"]) is None


def test_row_address_0_is_an_error(fed):
    calibrator, driver = fed(batches_of(1), device=HostDevice(lambda _: 0))
    assert driver.batch(["x"]) == (False, [UNTOUCHED])
    with pytest.raises(CalibrationError, match="no address"):
        calibrator.raise_if_failed()


def test_row_highest_address_passes(fed):
    _, driver = fed(batches_of(1), device=HostDevice(lambda _: 2**64 - 1))
    assert driver.batch(["x"]) == (True, [2**64 - 1])


# Row: names arrive in network order


def test_row_network_order_decides_not_the_batch_nor_the_profile(fed):
    names = ["image", "é/ü:0", "mask", "a"]
    batch = {name: np.full((2,), number, np.float32) for number, name in enumerate(names)}
    device = HostDevice()
    shapes = dict.fromkeys(sorted(names), (2,))
    _, driver = fed([dict(reversed(batch.items())), batch], InputProfile(shapes), device)
    for order in (names, names[::-1]):
        answered, pointers = driver.batch(order)
        assert answered
        content = {buffer.pointer: np.frombuffer(buffer._memory, np.float32) for buffer in device.buffers}
        assert [content[pointer].tolist() for pointer in pointers] == [batch[name].tolist() for name in order]


def test_row_network_order_a_name_that_is_no_utf_8_is_no_crash(fed, kind, version, capfd):
    calibrator, driver = fed(batches_of(1))
    assert not driver.batch([b"\xff\xfe"])[0]
    driver.write(cache_for(version, kind))
    assert calibrator.feeder.written is None


# Rows: an override that is missing; base __init__ not called; get_batch_size


@pytest.fixture
def each(calibrators, version):
    """One calibrator of each class, ready to be called."""
    made = {
        "EntropyCalibrator": calibrators.EntropyCalibrator([], PROFILE, None),
        "MinMaxCalibrator": calibrators.MinMaxCalibrator([], PROFILE, None),
        "PercentileCalibrator": calibrators.PercentileCalibrator({"x": 0.5}, PROFILE),
    }
    return {name: (calibrator, driver_of(calibrator, version)) for name, calibrator in made.items()}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_row_missing_override_all_four_are_ours_and_none_calls_super(each, name):
    calibrator, driver = each[name]
    for slot in SLOTS:
        method = getattr(type(calibrator), slot)
        assert getattr(method, "__module__", None) == "trtcalib.trt.calibrators", f"{name}.{slot} is the bindings'"
        assert "super" not in method.__code__.co_names, f"{name}.{slot} calls super()"
    gc.collect()
    assert driver.batch_size() == 2
    assert (driver.read() is None) == (name != "PercentileCalibrator")
    assert driver.batch(["x"]) == (False, [UNTOUCHED])
    driver.write(b"")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_row_base_init_is_called(trt, each, name):
    calibrator, driver = each[name]
    assert isinstance(calibrator, trt.IInt8Calibrator)
    assert address_of(calibrator)
    assert driver.algorithm() == int(
        trt.CalibrationAlgoType.MINMAX_CALIBRATION
        if name == "MinMaxCalibrator"
        else trt.CalibrationAlgoType.ENTROPY_CALIBRATION_2
    )


@pytest.mark.parametrize("size", [8, np.int64(8)], ids=["int", "int64"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_row_batch_size_is_an_int(calibrators, version, name, size):
    profile = InputProfile({"scalar": (), "x": (size, 3)})
    arguments = ({"x": 0.5}, profile) if name == "PercentileCalibrator" else ([], profile, None)
    calibrator = getattr(calibrators, name)(*arguments)
    assert type(calibrator.get_batch_size()) is int
    assert driver_of(calibrator, version).batch_size() == 8


# Row: percentile scales reach TensorRT as a cache, through an Entropy2 calibrator


def test_row_percentile_answers_its_scales_and_feeds_nothing(each, version):
    calibrator, driver = each["PercentileCalibrator"]
    assert driver.read() == f"{header_of(version)}\nx: 3f000000\n".encode()
    calibrator.raise_if_failed()
    assert calibrator.feeder.batches_fed == 0


def test_row_percentile_without_scales_is_an_error(calibrators):
    with pytest.raises(CalibrationError, match="no scale"):
        calibrators.PercentileCalibrator({})


# A calibration that comes to its end, and those that never began


def test_calibration_that_ends_well_keeps_the_cache(fed, kind, version, tmp_path, capfd):
    path = tmp_path / "x.cache"
    calibrator, driver = fed(batches_of(1, 2, 3), cache=path)
    content = cache_for(version, kind)
    assert len(calibrate(driver, content)) == 3
    calibrator.raise_if_failed()
    assert calibrator.feeder.batches_fed == 3
    assert calibrator.feeder.written == path.read_bytes() == content
    assert calibrator.feeder.seconds > 0
    assert capfd.readouterr() == ("", "")


def test_calibration_without_a_batch_is_an_error_and_no_cache(fed, kind, version):
    calibrator, driver = fed([])
    assert calibrate(driver, b"") == []
    with pytest.raises(CalibrationError):
        calibrator.raise_if_failed()


def test_calibration_that_never_began_says_why_it_may_be_so(fed):
    with pytest.raises(CalibrationError, match="asked for no batch: BuilderFlag.INT8 is not set"):
        fed(batches_of(1))[0].raise_if_failed()


def test_calibration_without_a_cache_at_its_end_is_an_error(fed):
    calibrator, driver = fed(batches_of(1))
    while driver.batch(["x"])[0]:
        pass
    with pytest.raises(CalibrationError, match="took 1 batches and wrote no cache"):
        calibrator.raise_if_failed()
