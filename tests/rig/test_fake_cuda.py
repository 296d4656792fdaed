"""Real PyCUDA over the simulated driver: the mistakes that other tests rely on being caught are caught."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from tests.rig.fake_cuda import FakeCuda

VALUES = np.arange(64, dtype=np.float32)
POISON = bytes([FakeCuda.FRESH_POISON]) * VALUES.nbytes
BLOCKING, NON_BLOCKING = 0, 1  # CU_STREAM_DEFAULT, CU_STREAM_NON_BLOCKING


@pytest.fixture
def driver(cuda):
    """PyCUDA itself, and nothing current."""
    import pycuda.driver

    pycuda.driver.init()
    return pycuda.driver


@pytest.fixture
def primary(driver):
    """The primary context, current on this thread."""
    context = driver.Device(0).retain_primary_context()
    with current(context):
        yield context
    in_another_thread(let_go, context)


@contextmanager
def current(context):
    context.push()
    try:
        yield
    finally:
        context.pop()


def let_go(context):
    """Release a primary context on a thread that ends: PyCUDA leaves it on the stack of the thread that detaches."""
    context.push()
    context.detach()


def in_another_thread(function, *arguments):
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(function, *arguments).result()


def run_program(program, **switches):
    """Run a program in a process of its own, for what happens once in a process."""
    start = "from tests.rig.fake_cuda import load\ncuda = load()\nimport pycuda.driver as driver\ndriver.init()\n"
    return subprocess.run(
        [sys.executable, "-c", start + program], env=os.environ | switches, capture_output=True, text=True, check=False
    )


def pinned(driver, values=VALUES):
    array = driver.pagelocked_empty(values.shape, values.dtype)
    array[:] = values
    return array


def test_simulated_device_says_that_it_is_simulated(driver):
    device = driver.Device(0)
    assert "simulated" in device.name()
    assert device.compute_capability() == (8, 6)
    assert driver.Device.count() == 1


# Copies


def test_simulated_copy_goes_there_and_back(driver, primary, cuda):
    memory = driver.mem_alloc(VALUES.nbytes)
    assert cuda.read(int(memory), VALUES.nbytes) == POISON
    driver.memcpy_htod(memory, VALUES)
    back = np.empty_like(VALUES)
    driver.memcpy_dtoh(back, memory)
    np.testing.assert_array_equal(back, VALUES)


@pytest.mark.parametrize("flags", [BLOCKING, NON_BLOCKING], ids=["simulated blocking", "simulated non-blocking"])
def test_simulated_async_copy_arrives_when_its_stream_is_synchronised_and_not_before(driver, primary, cuda, flags):
    memory, stream, source = driver.mem_alloc(VALUES.nbytes), driver.Stream(flags), pinned(driver)
    driver.memcpy_htod_async(memory, source, stream)
    assert cuda.read(int(memory), VALUES.nbytes) == POISON
    assert cuda.counts().pending_copies == 1
    stream.synchronize()
    assert cuda.read(int(memory), VALUES.nbytes) == VALUES.tobytes()
    assert cuda.counts().pageable_async_copies == 0


def wait_for_context(driver, stream, event):
    driver.Context.synchronize()


def wait_for_event(driver, stream, event):
    event.synchronize()


def poll_stream(driver, stream, event):
    assert not stream.is_done()
    assert stream.is_done()


def poll_event(driver, stream, event):
    assert not event.query()
    assert event.query()


@pytest.mark.parametrize(
    "wait", [wait_for_context, wait_for_event, poll_stream, poll_event], ids=lambda wait: f"simulated {wait.__name__}"
)
def test_simulated_async_copy_arrives_for_every_way_of_waiting(driver, primary, cuda, wait):
    memory, stream, source = driver.mem_alloc(VALUES.nbytes), driver.Stream(), pinned(driver)
    driver.memcpy_htod_async(memory, source, stream)
    event = driver.Event().record(stream)
    wait(driver, stream, event)
    assert cuda.read(int(memory), VALUES.nbytes) == VALUES.tobytes()


def test_simulated_waiting_for_another_stream_does_not_help(driver, primary, cuda):
    memory, stream, other, source = driver.mem_alloc(VALUES.nbytes), driver.Stream(), driver.Stream(), pinned(driver)
    driver.memcpy_htod_async(memory, source, stream)
    other.synchronize()
    assert cuda.read(int(memory), VALUES.nbytes) == POISON
    other.wait_for_event(driver.Event().record(stream))
    other.synchronize()
    assert cuda.read(int(memory), VALUES.nbytes) == VALUES.tobytes()


def test_simulated_plain_copy_waits_for_blocking_streams_and_not_for_others(driver, primary):
    arrived = {}
    for flags in (BLOCKING, NON_BLOCKING):
        memory, stream, source = driver.mem_alloc(VALUES.nbytes), driver.Stream(flags), pinned(driver)
        driver.memcpy_htod_async(memory, source, stream)
        back = np.empty_like(VALUES)
        driver.memcpy_dtoh(back, memory)
        arrived[flags] = np.array_equal(back, VALUES)
        stream.synchronize()
    assert arrived == {BLOCKING: True, NON_BLOCKING: False}


def test_simulated_stream_waits_for_earlier_work_of_the_default_stream_and_for_no_other_stream(driver, primary, cuda):
    default, other, own, later = memories = [driver.mem_alloc(VALUES.nbytes) for _ in range(4)]
    stream, another, source = driver.Stream(), driver.Stream(), pinned(driver)
    driver.memcpy_htod_async(default, source, None)
    driver.memcpy_htod_async(other, source, another)
    driver.memcpy_htod_async(own, source, stream)
    driver.memcpy_htod_async(later, source, None)
    stream.synchronize()
    arrived = [cuda.read(int(memory), VALUES.nbytes) == VALUES.tobytes() for memory in memories]
    assert arrived == [True, False, True, False]
    driver.Context.synchronize()


def test_simulated_pinned_memory_that_changes_before_the_copy_is_what_arrives(driver, primary, cuda):
    memory, stream, source = driver.mem_alloc(VALUES.nbytes), driver.Stream(), pinned(driver)
    driver.memcpy_htod_async(memory, source, stream)
    source[:] = 0
    stream.synchronize()
    assert cuda.read(int(memory), VALUES.nbytes) == bytes(VALUES.nbytes)


def test_simulated_pageable_memory_is_copied_at_once_and_counted(driver, primary, cuda):
    memory, stream, source = driver.mem_alloc(VALUES.nbytes), driver.Stream(), VALUES.copy()
    driver.memcpy_htod_async(memory, source, stream)
    source[:] = 0
    assert cuda.counts().pageable_async_copies == 1
    assert cuda.read(int(memory), VALUES.nbytes) == POISON
    stream.synchronize()
    assert cuda.read(int(memory), VALUES.nbytes) == VALUES.tobytes()


def test_simulated_download_to_pageable_memory_waits_and_to_pinned_memory_does_not(driver, primary, cuda):
    memory, stream, back, late = driver.mem_alloc(VALUES.nbytes), driver.Stream(), np.empty_like(VALUES), pinned(driver)
    driver.memcpy_htod(memory, VALUES * 2)
    driver.memcpy_dtoh_async(back, memory, stream)
    np.testing.assert_array_equal(back, VALUES * 2)
    driver.memcpy_dtoh_async(late, memory, stream)
    np.testing.assert_array_equal(late, VALUES)
    stream.synchronize()
    np.testing.assert_array_equal(late, VALUES * 2)
    assert cuda.counts().pageable_async_copies == 1


@pytest.mark.parametrize("freed", ["pinned", "device"], ids=lambda freed: f"simulated {freed}")
def test_simulated_memory_that_is_freed_under_a_queued_copy_is_an_error_and_no_crash(driver, primary, cuda, freed):
    memory, stream, source = driver.mem_alloc(VALUES.nbytes), driver.Stream(), pinned(driver)
    driver.memcpy_htod_async(memory, source, stream)
    if freed == "pinned":
        source.base.free()
    else:
        memory.free()
    with pytest.raises(driver.LogicError, match="illegal memory access"):
        stream.synchronize()
    assert cuda.counts().lost_copies == 1
    cuda.reset()


def test_simulated_fill(driver, primary, cuda):
    memory = driver.mem_alloc(8)
    driver.memset_d32(memory, 0x01020304, 2)
    assert cuda.read(int(memory), 8) == bytes([4, 3, 2, 1] * 2)
    stream = driver.Stream()
    driver.memset_d8_async(memory, 7, 8, stream)
    assert cuda.read(int(memory), 8) == bytes([4, 3, 2, 1] * 2)
    stream.synchronize()
    assert cuda.read(int(memory), 8) == bytes([7] * 8)


def test_simulated_events_tell_the_time_between_them(driver, primary):
    start, end = driver.Event().record(), driver.Event().record()
    assert start.time_till(end) >= 0


# Memory


def test_simulated_copy_beyond_the_end_is_refused(driver, primary):
    memory = driver.mem_alloc(VALUES.nbytes - 1)
    with pytest.raises(driver.LogicError, match="invalid argument"):
        driver.memcpy_htod(memory, VALUES)
    with pytest.raises(driver.LogicError, match="invalid argument"):
        driver.memcpy_htod_async(memory, VALUES, None)


def test_simulated_host_address_is_no_device_address(driver, primary, cuda):
    assert not cuda.is_device(VALUES.ctypes.data)
    with pytest.raises(driver.LogicError, match="invalid argument"):
        driver.memcpy_htod(VALUES.ctypes.data, VALUES)


def test_simulated_double_free(driver, primary, cuda):
    memory = driver.mem_alloc(16)
    address = int(memory)
    assert cuda.is_device(address, 16)
    assert not cuda.is_device(address, 17)
    memory.free()
    assert not cuda.is_device(address)
    with pytest.raises(driver.LogicError):
        memory.free()  # PyCUDA's own check: the driver is not asked
    with pytest.raises(driver.LogicError, match="invalid argument"):
        driver.memcpy_htod(address, VALUES)
    with pytest.raises(ValueError, match="not device memory in use"):
        cuda.read(address, 16)


def test_simulated_memory_runs_out(driver, primary, cuda):
    cuda.set_capacity(1000)
    memory = driver.mem_alloc(600)
    with pytest.raises(driver.MemoryError, match="out of memory"):
        driver.mem_alloc(401)
    assert driver.mem_get_info() == (400, 1000)
    memory.free()
    driver.mem_alloc(1000).free()
    assert cuda.counts().peak_bytes == 1000


def test_simulated_allocation_fails_when_told_to(driver, primary, cuda):
    cuda.fail_allocation_after(1)
    memory = driver.mem_alloc(1)
    for _ in range(2):
        with pytest.raises(driver.MemoryError):
            driver.mem_alloc(1)
    cuda.reset()
    driver.mem_alloc(1).free()
    memory.free()


def test_simulated_leak_is_counted(driver, primary, cuda):
    kept = [driver.mem_alloc(size) for size in (100, 28)]
    now = cuda.counts()
    assert (now.live_allocations, now.live_bytes, now.peak_bytes) == (2, 128, 128)
    kept.clear()
    assert cuda.counts().live_allocations == 0
    assert cuda.counts().peak_bytes == 128


def test_simulated_memory_that_only_its_context_frees_is_counted_as_abandoned(driver, cuda):
    context = driver.Device(0).make_context()
    memory = driver.mem_alloc(16)
    assert cuda.counts().created_contexts == 1
    context.detach()
    now = cuda.counts()
    assert (now.created_contexts, now.live_allocations, now.abandoned_allocations) == (0, 0, 1)
    del memory
    cuda.reset()


# Contexts and threads


def test_simulated_call_on_a_thread_without_a_context(driver, primary, cuda):
    with pytest.raises(driver.LogicError, match="context"):
        in_another_thread(driver.mem_alloc, 16)
    memory = driver.mem_alloc(VALUES.nbytes)
    with pytest.raises(driver.LogicError, match="invalid device context"):
        in_another_thread(driver.memcpy_htod, memory, VALUES)
    assert cuda.read(int(memory), VALUES.nbytes) == POISON


def test_simulated_primary_context_is_current_where_it_is_pushed(driver, primary, cuda):
    memory = driver.mem_alloc(VALUES.nbytes)

    def copy():
        before = cuda.counts().contexts_on_this_thread
        with current(primary):
            driver.memcpy_htod(memory, VALUES)
            during = cuda.counts().contexts_on_this_thread
        return before, during, cuda.counts().contexts_on_this_thread

    assert in_another_thread(copy) == (0, 1, 0)
    assert cuda.counts().contexts_on_this_thread == 1
    assert cuda.read(int(memory), VALUES.nbytes) == VALUES.tobytes()


def test_simulated_primary_context_is_counted_by_who_retains_it(driver, cuda):
    before = cuda.counts().primary_retained  # by trtcalib, if another test has opened its device in this process
    first, second = (driver.Device(0).retain_primary_context() for _ in range(2))
    assert cuda.counts().primary_retained == before + 2
    with current(first):
        memory = driver.mem_alloc(16)
    in_another_thread(let_go, second)
    with current(first):
        driver.memcpy_htod(memory, VALUES[:4])
        memory.free()
    in_another_thread(let_go, first)
    assert cuda.counts().primary_retained == before


def test_simulated_stack_keeps_the_primary_context_that_pycuda_detached(driver, cuda):
    """PyCUDA pushes a context to detach it and counts on an implicit pop, which CUDA does not do for the primary one."""

    def detach():
        driver.Device(0).retain_primary_context().detach()
        return cuda.counts().contexts_on_this_thread

    before = cuda.counts().primary_retained
    assert in_another_thread(detach) == 1
    assert cuda.counts().primary_retained == before


def test_simulated_primary_context_stays_retained_when_pycuda_only_forgets_it():
    """PyCUDA's destructor of a primary context calls the wrong function: without detach() nothing is released."""
    done = run_program("""
context = driver.Device(0).retain_primary_context()
del context
print(cuda.counts().primary_retained)
""")
    assert done.stdout == "1\n"
    assert "cuCtxDetach failed: invalid device context" in done.stderr


# What is not there


def test_simulated_driver_refuses_what_it_has_not(driver, primary, cuda):
    with pytest.raises(driver.LogicError, match="not supported"):
        driver.mem_alloc_pitch(64, 4, 4)
    assert cuda.counts().refused_calls == 1
    assert cuda.last_refused().startswith("cuMemAllocPitch")


@pytest.mark.parametrize("image", [b"no kernels here", bytes(64)])
def test_simulated_driver_loads_no_kernels_from_anything_else(driver, primary, cuda, image):
    with pytest.raises(driver.LogicError, match="device kernel image is invalid"):
        driver.module_from_buffer(image)


@pytest.mark.parametrize(
    ("switch", "message"),
    [("SIMULATED_CUDA_NO_DEVICE", "no CUDA-capable device"), ("SIMULATED_CUDA_OLD_DRIVER", "driver combination")],
    ids=["simulated machine without a GPU", "simulated old driver"],
)
def test_simulated_driver_does_not_start(switch, message):
    done = run_program("", **{switch: "1"})
    assert message in done.stderr
    assert done.returncode == 1


def test_simulated_memory_is_what_the_environment_says():
    done = run_program("print(driver.Device(0).total_memory())", SIMULATED_CUDA_MEMORY="12345")
    assert done.stdout == "12345\n"


def test_simulated_driver_must_come_before_pycuda():
    program = """
import ctypes, os
ctypes.CDLL(os.environ["TRTCALIB_RIG"] + "/cuda/libcuda.so.1", ctypes.RTLD_GLOBAL)
import pycuda.driver
from tests.rig.fake_cuda import load
load()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "call load() first" in done.stderr
