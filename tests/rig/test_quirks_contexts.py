"""The quirk table of TensorRT's calibrators, contexts: get_batch on any thread, over any context; simulated driver."""

from __future__ import annotations

import ctypes
from contextlib import contextmanager

import numpy as np
import pytest

from tests.rig.driving import (
    BACKENDS,
    FED,
    HostDevice,
    batches_of,
    cache_for,
    calibrate,
    driver_of,
    on_another_thread,
    opened_device,
    our_calibrators,
)
from trtcalib.trt.buffers import PyCudaDevice
from trtcalib.trt.input_profile import InputProfile

PROFILE = InputProfile({"x": (2, 3)})


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

    def make(batches):
        made.append(getattr(calibrators, kind)(batches, PROFILE, device))
        return made[-1], driver_of(made[-1], version)

    yield make
    for calibrator in made:
        calibrator.free()


# Row: PyCUDA's context is per thread


def test_row_context_of_another_thread_simulated(fed, cuda, version):
    """The build runs in a worker thread; the device was opened in this one."""
    calibrator, driver = fed(batches_of(1, 2, 3))

    def build():
        taken = calibrate(driver, cache_for(version))
        return len(taken), cuda.counts().contexts_on_this_thread

    assert on_another_thread(build) == (3, 0)
    calibrator.raise_if_failed()
    assert cuda.counts().contexts_on_this_thread == 0


def test_row_context_every_batch_from_another_thread_simulated(fed, cuda):
    _, driver = fed(batches_of(1, 2, 3))
    answers = [on_another_thread(driver.batch, ["x"]) for _ in range(4)]
    assert [answered for answered, _ in answers] == [True, True, True, False]
    assert cuda.read(answers[0][1][0], 4) == np.float32(3).tobytes()


class Raw:
    """CUDA's driver functions without PyCUDA, as torch and CUDA's runtime API call them."""

    def __init__(self, cuda):
        self._library = cuda._library

    def current(self):
        context = ctypes.c_void_p()
        assert self._library.cuCtxGetCurrent(ctypes.byref(context)) == 0
        return context.value

    def create(self):
        context = ctypes.c_void_p()
        assert self._library.cuCtxCreate_v2(ctypes.byref(context), 0, 0) == 0
        return context

    def destroy(self, context):
        assert self._library.cuCtxDestroy_v2(context) == 0


@contextmanager
def pycudas_own(cuda):
    """Like pycuda.autoinit."""
    import pycuda.driver

    context = pycuda.driver.Device(0).make_context()
    try:
        yield
    finally:
        context.pop()
        context.detach()


@contextmanager
def somebody_elses(cuda):
    context = Raw(cuda).create()
    try:
        yield
    finally:
        Raw(cuda).destroy(context)


@contextmanager
def nothing(cuda):
    yield


@pytest.mark.parametrize("other", [nothing, pycudas_own, somebody_elses], ids=lambda other: other.__name__)
@pytest.mark.parametrize("ends", ["well", "in an error"])
def test_row_context_of_others_is_current_again_simulated(fed, cuda, other, ends):
    bad = {"x": np.ones((1, 3), np.float32)}
    calibrator, driver = fed([*batches_of(1), *(batches_of(2) if ends == "well" else [bad])])

    def build():
        with other(cuda):
            before = Raw(cuda).current(), cuda.counts().contexts_on_this_thread
            answers = [driver.batch(["x"]) for _ in range(3)]
            after = Raw(cuda).current(), cuda.counts().contexts_on_this_thread
            calibrator.free()
            freed = Raw(cuda).current(), cuda.counts().contexts_on_this_thread
        return [answered for answered, _ in answers], before, after, freed

    answered, before, after, freed = on_another_thread(build)
    assert answered == [True, ends == "well", False]
    assert before == after == freed


def test_row_context_that_lies_over_one_of_pycudas_is_current_again_simulated(request, calibrators, device, cuda):
    """torch beside pycuda.autoinit."""
    if isinstance(device, PyCudaDevice):
        why = "PyCUDA takes off whatever is current where it has a context of its own on this thread"
        request.applymarker(pytest.mark.xfail(reason=why, strict=True))

    def use():
        with pycudas_own(cuda), somebody_elses(cuda):
            before = Raw(cuda).current()
            with device.current():
                pass
            return before == Raw(cuda).current()

    assert on_another_thread(use)


def test_row_context_everything_is_asked_of_a_device_that_is_current(calibrators, version):
    device = HostDevice()
    driver = driver_of(kept := calibrators.EntropyCalibrator(batches_of(1), PROFILE, device), version)
    assert driver.batch(["x"])[0]
    assert device.calls == [("allocate", True), ("upload", True), ("synchronize", True)]
    kept.free()


@pytest.mark.parametrize("other", [pycudas_own, somebody_elses], ids=lambda other: other.__name__)
def test_row_context_of_others_does_not_get_the_memory_simulated(fed, cuda, other):
    """The memory must outlive their context."""
    _, driver = fed(batches_of(1))

    def build():
        with other(cuda):
            return driver.batch(["x"])

    answered, (pointer,) = on_another_thread(build)
    assert answered
    assert cuda.read(pointer, 4) == np.float32(1).tobytes()
