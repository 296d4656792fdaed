"""Bandwidth of the histogram kernel against the device's own copies; needs a GPU, PyCUDA and nvcc.

    python tests/bench/kernel.py [--values 100000000] [--rounds 20]

One launch of the kernel reads every value once. A copy within the device (cuMemcpyDtoD) of as many values reads and writes each, so its
bandwidth counts both. Kernel and copy take turns; medians of the rounds, timed by events on the device's stream. The goal is 80 %.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.trt.buffers import DeviceBuffer, PyCudaDevice
from trtcalib.trt.histograms import DeviceArray, DeviceHistograms

GOAL = 0.8
REPEATS = 10


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, default=100_000_000)
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    with contextlib.closing(PyCudaDevice()) as device:
        facts = device.facts
        if "simulated" in facts.name:
            raise SystemExit("the CUDA here is simulated: its speed says nothing")
        print(f"{facts.name}, compute capability {facts.compute_capability}, driver {facts.driver}, CUDA {facts.cuda}")
        print(f"{given.values:,} values, {given.rounds} rounds, medians (min .. max)\n")
        print("| values | kernel GB/s | copy GB/s | kernel / copy | goal |")
        print("|---|---|---|---|---|")
        for name, dtype, values in cases(given.values):
            kernel, copy = measure(device, values.astype(dtype, copy=False), given.rounds)
            nbytes = values.size * np.dtype(dtype).itemsize
            ours, theirs = [nbytes / s / 1e9 for s in kernel], [2 * nbytes / s / 1e9 for s in copy]
            share = median(ours) / median(theirs)
            print(
                f"| {name} | {spread(ours)} | {spread(theirs)} | {share:.0%} | {'met' if share >= GOAL else 'missed'} |"
            )


def cases(size: int) -> list[tuple[str, Any, NDArray[np.float32]]]:
    """Return what is measured: name, dtype, values."""
    normal = np.random.default_rng(0).standard_normal(size, np.float32)
    return [
        ("normal", np.float32, normal),
        ("normal after ReLU", np.float32, np.maximum(normal, 0)),
        ("all equal", np.float32, np.full(size, 0.25, np.float32)),
        ("uniform", np.float32, np.random.default_rng(1).random(size, np.float32)),
        ("normal, float16", np.float16, normal),
    ]


def measure(device: PyCudaDevice, values: NDArray[Any], rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds of each kernel launch and of each copy."""
    import pycuda.driver as cuda

    source, target = device.allocate(values.nbytes), device.allocate(values.nbytes, copies=False)
    try:
        source.upload(values)
        device.synchronize()
        array = DeviceArray(source.pointer, values.size, values.dtype)
        with DeviceHistograms(device, ["x"]) as histograms, device.current():
            histograms.add(0, [array])  # settles the range, and warms up
            kernel: list[float] = []
            copy: list[float] = []
            for _ in range(rounds):
                kernel.append(timed(device, lambda: histograms._tally(0, array, smallest=0)))
                copy.append(
                    timed(
                        device,
                        lambda: cuda.memcpy_dtod_async(target.pointer, source.pointer, values.nbytes, device._stream),
                    )
                )
        return kernel, copy
    finally:
        free(source, target)


def timed(device: PyCudaDevice, work: Callable[[], object]) -> float:
    """Return the seconds that work takes on the device; queued several times, so that starting it costs nothing."""
    import pycuda.driver as cuda

    start, end = cuda.Event(), cuda.Event()
    start.record(device._stream)
    for _ in range(REPEATS):
        work()
    end.record(device._stream)
    end.synchronize()
    return float(start.time_till(end)) / 1e3 / REPEATS


def spread(values: list[float]) -> str:
    """Return median and extremes."""
    return f"{median(values):.0f} ({min(values):.0f} .. {max(values):.0f})"


def free(*buffers: DeviceBuffer) -> None:
    """Free device memory."""
    for buffer in buffers:
        buffer.free()


if __name__ == "__main__":
    main()
