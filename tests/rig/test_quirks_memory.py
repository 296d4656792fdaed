"""The quirk table of TensorRT's calibrators, device memory: copies, buffers; real PyCUDA, and real cuda-python, over a simulated driver."""

from __future__ import annotations

import gc
import warnings

import numpy as np
import pytest

from tests.models import DENSE, save_model
from tests.rig import simulated
from tests.rig.driving import (
    BACKENDS,
    FED,
    batches_of,
    cache_for,
    calibrate,
    driver_of,
    on_another_thread,
    opened_device,
    our_calibrators,
)
from trtcalib.engine_spec import BuilderSettings
from trtcalib.errors import CalibrationError, DeviceError, EngineError
from trtcalib.onnx_graph import read_model
from trtcalib.trt.input_profile import InputProfile

PROFILE = InputProfile({"x": (2, 3)})
TWO = InputProfile({"a": (2, 3), "b": (4,)})


@pytest.fixture
def calibrators(trt, version):
    return our_calibrators(version)


@pytest.fixture(params=BACKENDS)
def device(request, calibrators, cuda):
    with opened_device(request.param) as device:
        yield device


@pytest.fixture(params=FED)
def kind(request):
    return request.param


@pytest.fixture
def fed(calibrators, device, kind, version):
    """Make a calibrator, and what calls it; its memory is freed in the end."""
    made = []

    def make(batches, profile=PROFILE, **options):
        made.append(getattr(calibrators, kind)(batches, profile, device, **options))
        return made[-1], driver_of(made[-1], version)

    yield make
    for calibrator in made:
        calibrator.free()


def pairs(*values):
    return [{"b": np.full(4, -value, np.float32), "a": np.full((2, 3), value, np.float32)} for value in values]


# Pinned staging, asynchronous copies, and the wait before get_batch returns


def test_simulated_copies_are_done_when_get_batch_returns(fed, cuda):
    _, driver = fed(pairs(1, 2, 3), TWO)
    for value in (1, 2, 3):
        answered, (a, b) = driver.batch(["a", "b"])
        assert answered
        assert np.frombuffer(cuda.read(a, 24), np.float32).tolist() == [value] * 6
        assert np.frombuffer(cuda.read(b, 16), np.float32).tolist() == [-value] * 4
        counts = cuda.counts()
        assert (counts.pending_copies, counts.pageable_async_copies, counts.lost_copies) == (0, 0, 0)


def test_simulated_copies_go_through_pinned_memory(fed, cuda):
    _, driver = fed(pairs(1), TWO)
    before = cuda.counts().pinned_allocations
    driver.batch(["a", "b"])
    assert cuda.counts().pinned_allocations - before == 2


def test_simulated_copies_of_an_array_that_its_owner_uses_again(fed, cuda):
    array = np.zeros((2, 3), np.float32)

    def one_array():
        for value in (1, 2):
            array[:] = value
            yield {"x": array}
            array[:] = -1

    _, driver = fed(one_array())
    for value in (1, 2):
        _, (pointer,) = driver.batch(["x"])
        array[:] = -2
        assert np.frombuffer(cuda.read(pointer, 24), np.float32).tolist() == [value] * 6


@pytest.mark.parametrize("order", [["a", "b"], ["b", "a"]])
def test_row_network_order_the_right_memory_per_name_simulated(fed, cuda, order):
    _, driver = fed(pairs(5), TWO)
    _, pointers = driver.batch(order)
    first = {name: np.frombuffer(cuda.read(pointer, 4), np.float32)[0] for name, pointer in zip(order, pointers)}
    assert first == {"a": 5, "b": -5}


# Buffers: allocated once, freed when asked for


def test_simulated_buffers_are_allocated_once(fed, cuda):
    _, driver = fed(pairs(*range(6)), TWO)
    before = cuda.counts()
    seen, counts = [], []
    while (answer := driver.batch(["a", "b"]))[0]:
        seen.append(answer[1])
        counts.append(cuda.counts())
    assert len(seen) == 6
    assert seen == [seen[0]] * 6
    assert {each.live_allocations - before.live_allocations for each in counts} == {2}
    assert {each.pinned_allocations - before.pinned_allocations for each in counts} == {2}
    assert {each.peak_bytes for each in counts} == {counts[0].peak_bytes}


def test_simulated_buffers_are_as_large_as_what_tensorrt_reads(fed, cuda):
    _, driver = fed(pairs(1), TWO)
    _, (a, b) = driver.batch(["a", "b"])
    assert cuda.is_device(a, 24)
    assert not cuda.is_device(a, 25)
    assert cuda.is_device(b, 16)


@pytest.mark.parametrize("where", ["this thread", "another thread"])
def test_simulated_buffers_are_freed_when_asked_for(fed, cuda, where):
    calibrator, driver = fed(pairs(1), TWO)
    before = cuda.counts()
    _, (a, _) = driver.batch(["a", "b"])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        on_another_thread(calibrator.free) if where == "another thread" else calibrator.free()
        calibrator.free()
        after = cuda.counts()
        assert not cuda.is_device(a)
    assert told == []
    assert (after.live_allocations, after.pinned_allocations) == (before.live_allocations, before.pinned_allocations)


def test_simulated_buffer_freed_twice_is_freed_once(device, cuda):
    buffer = device.allocate(4)
    buffer.free()
    buffer.free()
    with pytest.raises(DeviceError, match="an upload of 4 bytes"):
        buffer.upload(np.zeros(1, np.float32))


def test_simulated_buffer_takes_an_array_in_its_logical_order(device, cuda):
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    buffer = device.allocate(array.nbytes)
    buffer.upload(array)
    device.synchronize()
    assert cuda.read(buffer.pointer, array.nbytes) == array.tobytes()
    buffer.free()


def test_simulated_buffers_are_freed_when_a_block_is_left(fed, cuda):
    before = cuda.counts().live_allocations
    with pytest.raises(CalibrationError, match="wrote no cache"), fed(batches_of(1))[0] as calibrator:
        calibrator.get_batch(["x"])
    assert cuda.counts().live_allocations == before


def test_simulated_device_without_memory_is_an_error_that_is_held(fed, cuda, version, capfd):
    cuda.fail_allocation_after(1)
    calibrator, driver = fed(pairs(1), TWO)
    assert calibrate(driver, cache_for(version), ["a", "b"]) == []
    assert capfd.readouterr() == ("", "")
    with pytest.raises(CalibrationError, match="out of device memory: asked for 16 bytes") as e:
        calibrator.raise_if_failed()
    assert isinstance(e.value.__cause__, DeviceError)
    assert e.value.exit_code == 3


# Rows: config.int8_calibrator warns; the config keeps the calibrator alive


@pytest.fixture
def simulation(trt, version, cuda):
    simulation = simulated.install(trt, version)
    simulation.knobs.is_device = cuda.is_device
    yield simulation
    gc.collect()
    assert (simulation.unimplemented, simulation.errors) == ([], [])


@pytest.fixture
def builder(calibrators, simulation, tmp_path):
    from trtcalib.trt.engine import EngineBuilder

    return EngineBuilder(read_model(save_model(tmp_path / "dense.onnx", DENSE)), None, BuilderSettings(), 2)


def test_row_warning_of_int8_calibrator_simulated_builder(builder, fed, version):
    """Under -W error the bindings make a SystemError of a DeprecationWarning."""
    calibrator, _ = fed(batches_of(1, 2), builder.profile)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("error")
        assert builder.build(calibrator).plan
    assert told == []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        builder._builder.create_builder_config().int8_calibrator = calibrator
    assert bool(told) == version.startswith("10.16")  # what would have been an error


def test_row_config_keeps_the_calibrator_its_memory_is_free_after_a_simulated_build(builder, fed, cuda, simulation):
    before = cuda.counts()
    calibrator, _ = fed(batches_of(1, 2), builder.profile)
    builder.build(calibrator)
    assert [batch["x"].max() for batch in simulation.calibration.batches] == [1, 2]
    assert cuda.counts().live_allocations == before.live_allocations
    assert cuda.counts().pinned_allocations == before.pinned_allocations
    assert calibrator.feeder.written == simulation.calibration.written


@pytest.mark.parametrize("why", ["TensorRT fails", "a batch is wrong", "Ctrl-C"])
def test_row_config_keeps_the_calibrator_its_memory_is_free_after_a_simulated_failure(
    builder, fed, cuda, simulation, why
):
    def batches():
        yield from batches_of(1)
        if why == "a batch is wrong":
            yield {"x": np.ones((1, 3), np.float32)}
        if why == "Ctrl-C":
            raise KeyboardInterrupt

    simulation.knobs.fail_build = why == "TensorRT fails"
    before = cuda.counts().live_allocations
    calibrator, _ = fed(batches(), builder.profile)
    expected = {"TensorRT fails": EngineError, "a batch is wrong": CalibrationError, "Ctrl-C": KeyboardInterrupt}[why]
    with pytest.raises(expected):
        builder.build(calibrator)
    assert cuda.counts().live_allocations == before


def test_second_simulated_build_with_the_same_calibrator_takes_its_cache(builder, fed, simulation):
    calibrator, _ = fed(batches_of(1, 2), builder.profile)
    assert builder.build(calibrator).plan
    assert builder.build(calibrator).plan
    assert [build.calibration.honoured for build in simulation.builds] == [False, True]


def test_simulated_build_in_another_thread(builder, fed, cuda, simulation):
    calibrator, _ = fed(batches_of(1, 2), builder.profile)
    assert on_another_thread(builder.build, calibrator).plan
    assert len(simulation.calibration.batches) == 2
