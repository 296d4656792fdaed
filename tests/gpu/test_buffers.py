"""Device memory on a real GPU, through PyCUDA and through cuda-python; no TensorRT needed."""

from __future__ import annotations

import ctypes
import threading
from importlib.util import find_spec

import numpy as np
import pytest

from trtcalib.errors import DeviceError
from trtcalib.trt.buffers import Device, open_device
from trtcalib.trt.feeder import BatchFeeder
from trtcalib.trt.input_profile import InputProfile


@pytest.fixture(params=["pycuda", "cuda-python"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each in its turn."""
    return str(request.param)


def ask_driver(device: Device, function: str, *arguments: object) -> None:
    """Call the driver itself: another way than PyCUDA's and cuda-python's."""
    with device.current():
        assert getattr(ctypes.CDLL("libcuda.so.1"), function)(*arguments) == 0


def read_back(device: Device, pointer: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Copy from an address as TensorRT would read it: another way than the buffer's own."""
    found = np.empty(shape, dtype)
    arguments = ctypes.c_void_p(found.ctypes.data), ctypes.c_uint64(pointer), ctypes.c_size_t(found.nbytes)
    ask_driver(device, "cuMemcpyDtoH_v2", *arguments)
    return found


def free_memory(device: Device) -> int:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ask_driver(device, "cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    assert 0 < device.free_memory() <= total.value
    return free.value


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64, np.bool_, np.float16])
def test_what_goes_up_comes_down(device: Device, dtype: type) -> None:
    sent = np.random.default_rng(0).integers(0, 2, (3, 5, 7)).astype(dtype)
    buffer = device.allocate(sent.nbytes)
    with device.current():
        buffer.upload(sent)
        device.synchronize()
    assert np.array_equal(read_back(device, buffer.pointer, sent.shape, dtype), sent)
    found = np.empty_like(sent)
    buffer.download(found)
    assert np.array_equal(found, sent)
    buffer.free()


def test_an_array_that_is_not_contiguous(device: Device) -> None:
    sent = np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::3]
    buffer = device.allocate(1024)
    buffer.upload(sent)
    device.synchronize()
    assert np.array_equal(read_back(device, buffer.pointer, sent.shape, np.float32), sent)
    buffer.free()


def test_free_gives_the_memory_back(device: Device) -> None:
    before = free_memory(device)
    buffers = [device.allocate(64 << 20) for _ in range(4)]
    assert free_memory(device) <= before - (200 << 20)
    for buffer in buffers:
        buffer.free()
        buffer.free()
    assert free_memory(device) >= before - (32 << 20)


def test_more_memory_than_there_is_says_how_much_was_asked_for(device: Device) -> None:
    with pytest.raises(DeviceError, match=f"asked for {1 << 50} bytes") as caught:
        device.allocate(1 << 50)
    assert caught.value.asked == 1 << 50


def test_a_feeder_in_another_thread_puts_every_batch_where_its_pointer_says(device: Device) -> None:
    rng = np.random.default_rng(1)
    batches = [
        {
            "image": rng.normal(size=(4, 3, 8, 8)).astype(np.float32),
            "length": rng.integers(0, 99, (4,)).astype(np.int64),
        }
        for _ in range(5)
    ]
    profile = InputProfile({"image": (4, 3, 8, 8), "length": (4,)}, {"length": np.dtype(np.int32)})
    feeder = BatchFeeder(batches, profile, device)
    seen: list[dict[str, np.ndarray]] = []

    def feed() -> None:
        while pointers := feeder.next_pointers(["length", "image"]):
            length = read_back(device, pointers[0], (4,), np.int32)
            image = read_back(device, pointers[1], (4, 3, 8, 8), np.float32)
            seen.append({"image": image, "length": length})

    thread = threading.Thread(target=feed)
    thread.start()
    thread.join()
    feeder.free()
    assert not feeder.failed
    assert len(seen) == 5
    for sent, found in zip(batches, seen, strict=True):
        assert np.array_equal(sent["image"], found["image"])
        assert np.array_equal(sent["length"], found["length"])


def test_two_devices_share_the_primary_context(device: Device) -> None:
    other = open_device(backend="pycuda")
    buffer = device.allocate(16)
    buffer.upload(np.arange(4, dtype=np.float32))
    device.synchronize()
    assert np.array_equal(read_back(other, buffer.pointer, (4,), np.float32), [0, 1, 2, 3])
    buffer.free()
    other.close()


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_works_beside_torch(device: Device) -> None:
    import torch

    theirs = torch.arange(4, dtype=torch.float32, device="cuda")
    buffer = device.allocate(16)
    buffer.upload(np.ones(4, np.float32))
    device.synchronize()
    assert np.array_equal(read_back(device, theirs.data_ptr(), (4,), np.float32), [0, 1, 2, 3])
    assert (theirs + 1).cpu().tolist() == [1, 2, 3, 4]
    buffer.free()
