"""Histograms that kernels make, over real PyCUDA and a simulated device that runs the same source on the CPU.

The arithmetic is C++'s and IEEE's; what NVIDIA's compiler makes of the source runs in tests/gpu only. That it takes the source is
shown by its own library, NVRTC, which compiles without a GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.rig import nvcc
from trtcalib.core.histogram import Histogram, collect_histogram
from trtcalib.errors import ActivationError, DeviceError

FLT_MAX = np.float32(np.finfo(np.float32).max)
SMALLEST = np.float32(1e-45)


@pytest.fixture
def on_path(tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the PATH with the simulated nvcc."""
    folder = tmp_path_factory.mktemp("bin")
    nvcc.install(folder)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def device(cuda: Any, on_path: Path) -> Iterator[Any]:
    """PyCUDA's device over the simulated driver."""
    from trtcalib.trt.buffers import open_device

    with contextlib.closing(open_device()) as opened:
        yield opened
    assert cuda._library.simulated_cuda_modules() == 0


class Placed:
    """Device memory that holds arrays, each at a chosen distance from a 16-byte boundary."""

    def __init__(self, device: Any, nbytes: int = 1 << 20) -> None:
        self.device = device
        self.buffer = device.allocate(nbytes)

    def put(self, arrays: Sequence[NDArray[Any]], misaligned: int = 0) -> list[Any]:
        """Copy arrays to the device and say where they lie; ``misaligned`` in values."""
        from trtcalib.trt.histograms import DeviceArray

        content, places = bytearray(), []
        for array in arrays:
            content += bytes(-len(content) % 16) + bytes(misaligned * array.itemsize)
            places.append(DeviceArray(self.buffer.pointer + len(content), array.size, array.dtype))
            content += array.tobytes()
        self.buffer.upload(np.frombuffer(bytes(content) or bytes(1), np.uint8))
        self.device.synchronize()
        return places


def collect(device: Any, batches: Sequence[NDArray[Any]], misaligned: int = 0) -> tuple[Histogram, Any]:
    """Return the histogram that the kernels make of one tensor, and what made it."""
    from trtcalib.trt.histograms import DeviceHistograms

    placed = Placed(device, max(16, *(2 * b.nbytes + 64 for b in batches)))
    try:
        with DeviceHistograms(device, ["x"]) as made:
            for number, batch in enumerate(batches):
                made.add(number, placed.put([batch], misaligned))
            return made.result()["x"], made
    finally:
        placed.buffer.free()


def expected(batches: Sequence[NDArray[Any]]) -> Histogram:
    """Return what the core makes of the finite values."""
    return collect_histogram([batch[np.isfinite(batch)] for batch in batches])


def same(device: Any, *batches: Any, misaligned: int = 0) -> Histogram:
    """Check the kernels against the core and return the histogram."""
    arrays = [b if getattr(b, "dtype", None) == np.float16 else np.asarray(b, np.float32) for b in batches]
    found, _ = collect(device, arrays, misaligned)
    wanted = expected(arrays)
    assert found == wanted, (found, wanted)
    return found


def normal(size: int, seed: int = 0, scale: float = 1.0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).normal(size=size) * scale).astype(np.float32)


# What is counted, on the simulated device


def test_simulated_counts_by_hand(device: Any) -> None:
    found = same(device, [0.0, -1.0, 2.0, 2048.0, 1.5])
    assert (found.range, found.maximum, found.doublings, found.clamped) == (2048, 2048, 0, 1)
    assert {b: int(n) for b, n in enumerate(found.counts) if n} == {0: 1, 1: 2, 2: 1, 2047: 1}


@pytest.mark.parametrize("misaligned", range(4))
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 31, 511, 512, 513, 8191, 8192, 8193, 16385, 70001])
def test_simulated_sizes_around_blocks_and_misaligned_addresses(device: Any, size: int, misaligned: int) -> None:
    same(device, normal(size), misaligned=misaligned)


@pytest.mark.parametrize("misaligned", range(8))
@pytest.mark.parametrize("size", [1, 7, 8, 9, 4097, 20001])
def test_simulated_float16(device: Any, size: int, misaligned: int) -> None:
    same(device, normal(size).astype(np.float16), normal(size, 1, 3).astype(np.float16), misaligned=misaligned)


def test_simulated_every_float16(device: Any) -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    found = same(device, every[~np.isnan(every)])
    assert found.total == 2 * 0x7C00
    assert found.maximum == 65504


def test_simulated_doublings_fold_and_recount(device: Any) -> None:
    found = same(device, normal(5000), normal(5000, 1), normal(5000, 2, 300), normal(9000, 3, 0.01), normal(5, 4, 1e30))
    assert found.doublings > 50


@pytest.mark.parametrize("times", range(14))
def test_simulated_a_clamped_value_ends_one_bin_lower(device: Any, times: int) -> None:
    found = same(device, [1.0, 0.3], [1.0, -1.0, 0.99], [2.0**times * 0.999], [2.0**times])
    assert found.doublings == times


def test_simulated_values_equal_to_a_range_that_doubles_are_taken_back(device: Any) -> None:
    found = same(device, [1.0], [1.0, 1.0, 3.0, 4.0], [4.0, 2.0, 0.0])
    assert (found.doublings, found.clamped) == (2, 3)


def test_simulated_zeros_first(device: Any) -> None:
    found = same(device, np.zeros(1000), [0.0, -0.0], [0.5, 0.0], [3.0])
    assert found.first_max == np.float32(0.5)
    assert found.counts[0] == 1003


def test_simulated_only_zeros(device: Any) -> None:
    found = same(device, np.zeros(77), -np.zeros(5))
    assert (found.range, found.total) == (0, 82)


def test_simulated_negative_zero_is_zero(device: Any) -> None:
    assert same(device, [-0.0, 1.0, -0.0]).counts[0] == 2


def test_simulated_subnormals_are_not_flushed(device: Any) -> None:
    bits = np.random.default_rng(0).integers(0, 0x800000, 3000, np.uint32)
    found = same(device, bits.view(np.float32), bits[:7].view(np.float32) * 3)
    assert np.count_nonzero(found.counts) > 500


def test_simulated_the_smallest_range_there_is(device: Any) -> None:
    same(device, [SMALLEST, 0.0], [SMALLEST * np.float32(3)], [1.0], [FLT_MAX])


def test_simulated_a_range_past_float32(device: Any) -> None:
    found = same(device, [2e38, 1.0], [FLT_MAX, -3e38, 1e38], [FLT_MAX, 2e38, SMALLEST])
    assert np.isinf(found.range)
    assert found.exact_range == 2 * float(np.float32(2e38))


def test_simulated_a_range_of_flt_max(device: Any) -> None:
    assert same(device, [FLT_MAX, 1.0], [FLT_MAX]).clamped == 2


def test_simulated_empty_tensors_contribute_nothing(device: Any) -> None:
    assert same(device, [], [1.0], [], [2.0]).total == 2
    assert same(device, []).total == 0


def test_simulated_relu_like_and_constant_values(device: Any) -> None:
    same(device, np.maximum(normal(50000), 0), np.full(50000, 0.25, np.float32), np.full(3, 7.0))


def test_simulated_many_more_values_than_threads(device: Any) -> None:
    same(device, normal(1 << 20), normal((1 << 20) + 1, 1, 2))


def test_simulated_launches_of_few_values_count_together(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from trtcalib.trt import histograms

    monkeypatch.setattr(histograms, "_MOST_VALUES", 1000)
    same(device, normal(4500), normal(3001, 1, 5), misaligned=3)


def test_simulated_real_threads_lose_no_count(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from trtcalib.trt import histograms

    monkeypatch.setenv("KERNEL_HOST_THREADS", "1")
    same(device, np.maximum(normal(60001), 0), normal(60001, 1, 4))
    monkeypatch.setattr(histograms, "_VALUES_PER_THREAD", 1 << 20)  # all in one block, and all in one bin
    same(device, np.full(2_000_000, 0.25), np.full(2_000_000, 0.25))


magnitudes = st.one_of(
    st.floats(width=32, allow_nan=False),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 4.0, float(SMALLEST), float(FLT_MAX), np.inf, -np.inf]),
    st.integers(0, 2048).map(lambda i: float(np.float32(i / 2048))),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.lists(magnitudes, max_size=40), min_size=1, max_size=6),
    st.integers(0, 3),
    st.sampled_from([1, 1, 7, 600]),
)
def test_simulated_law_the_kernels_count_as_the_core(
    shared: Any, batches: list[list[float]], misaligned: int, times: int
) -> None:
    arrays = [np.tile(np.array(batch, np.float32), times) for batch in batches]
    found, made = shared.collect(arrays, misaligned)
    assert found == expected(arrays)
    assert made.infinite.get("x", 0) == sum(int(np.isinf(array).sum()) for array in arrays)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.lists(st.floats(width=16, allow_nan=False), max_size=40), min_size=1, max_size=5))
def test_simulated_law_float16_is_cast_to_float32(shared: Any, batches: list[list[float]]) -> None:
    arrays = [np.array(batch, np.float16) for batch in batches]
    found, _ = shared.collect(arrays)
    assert found == expected([array.astype(np.float32) for array in arrays])


@pytest.fixture
def shared(device: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same device for all examples of a law; the kernels are compiled once."""
    kernels = None

    def compile_once(source: str) -> Any:
        nonlocal kernels
        kernels = kernels or type(device).compile(device, source)
        return kernels

    monkeypatch.setattr(device, "compile", compile_once)

    class Shared:
        @staticmethod
        def collect(arrays: Sequence[NDArray[Any]], misaligned: int = 0) -> Any:
            return collect(device, arrays, misaligned)

    return Shared


# Several tensors, and what stops


def test_simulated_several_tensors_in_one_pass(device: Any, cuda: Any) -> None:
    from trtcalib.trt.histograms import DeviceHistograms

    names = ["a", "b", "half", "empty", "zero", "late"]
    batches = [
        [
            normal(300, seed, seed + 1),
            normal(9000, seed + 50, 1 / (seed + 1)),
            normal(33, seed).astype(np.float16),
            np.zeros(0, np.float32),
            np.zeros(12, np.float32),
            normal(10, seed) * np.float32(seed > 1),
        ]
        for seed in range(5)
    ]
    placed = Placed(device)
    with DeviceHistograms(device, names) as made:
        for number, batch in enumerate(batches):
            made.add(number, placed.put(batch))
        found = made.result()
    placed.buffer.free()
    assert found == {name: expected([batch[t] for batch in batches]) for t, name in enumerate(names)}
    assert made.late == ("late",)
    assert made.infinite == {}


def test_simulated_a_tensor_within_its_range_is_read_once(device: Any, cuda: Any) -> None:
    from trtcalib.trt.histograms import DeviceHistograms

    placed = Placed(device)
    with DeviceHistograms(device, ["x"]) as made:
        launches = [cuda._library.simulated_cuda_launches()]
        for batch in ([1.0, 2.0], [2.0, 0.5], [-1.0], [5.0]):
            made.add(0, placed.put([np.array(batch, np.float32)]))
            launches.append(cuda._library.simulated_cuda_launches())
    placed.buffer.free()
    assert np.diff(launches).tolist() == [2, 1, 1, 3]  # look and tally; tally; tally; tally, fold and tally


def test_simulated_infinities_are_left_out_and_counted(device: Any) -> None:
    batches = [np.array(b, np.float32) for b in ([np.inf], [-np.inf, 1.0, np.inf], [np.inf, 2.0], [0.5])]
    found, made = collect(device, batches)
    assert found == expected(batches)
    assert made.infinite == {"x": 4}
    assert made.late == ("x",)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("at", [0, 1, 5000, -1])
def test_simulated_nan_names_tensor_and_batch(device: Any, dtype: Any, at: int) -> None:
    values = normal(10001).astype(dtype)
    values[at] = np.nan
    with pytest.raises(ActivationError, match=r"tensor 'x' at sample 1: holds NaN") as caught:
        collect(device, [normal(10).astype(dtype), values])
    assert (caught.value.tensor, caught.value.sample) == ("x", 1)


def test_simulated_out_of_memory_leaves_nothing_behind(device: Any, cuda: Any) -> None:
    from trtcalib.trt.histograms import DeviceHistograms

    cuda.fail_allocation_after(1)
    with pytest.raises(DeviceError, match="out of device memory"):
        DeviceHistograms(device, ["x"])
    cuda.reset()


def test_without_nvcc_the_error_says_what_to_install(
    cuda: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trtcalib.trt import require
    from trtcalib.trt.buffers import open_device
    from trtcalib.trt.histograms import kernel_source

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(require, "TOOLKIT", str(tmp_path))
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    with contextlib.closing(open_device()) as device, pytest.raises(DeviceError) as caught:
        device.compile(kernel_source())
    assert "no CUDA compiler here, and PyCUDA compiles kernels with nvcc: install the CUDA toolkit" in str(caught.value)
    assert caught.value.exit_code == 3


def test_simulated_nvcc_is_found_below_cuda_home(cuda: Any, on_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trtcalib.trt.require import find_nvcc

    (on_path / "bin").mkdir()
    (on_path / "nvcc").rename(on_path / "bin" / "nvcc")
    monkeypatch.setenv("PATH", str(on_path))
    monkeypatch.setenv("CUDA_HOME", str(on_path))
    assert find_nvcc() == str(on_path / "bin" / "nvcc")


def test_simulated_a_source_that_does_not_compile_is_told(device: Any) -> None:
    with pytest.raises(DeviceError, match=r"nvcc cannot compile the kernels for this GPU: \S"):
        device.compile("no CUDA at all")


def test_simulated_a_kernel_that_is_not_there_is_told(device: Any) -> None:
    from trtcalib.trt.histograms import kernel_source

    with pytest.raises(DeviceError, match="the kernel 'nonsense' cannot be started: .*not found"):
        device.compile(kernel_source()).launch("nonsense", 1, 32, ())


def test_simulated_flags_of_the_user_do_not_reach_the_compiler(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import pycuda.compiler

    from trtcalib.trt.histograms import kernel_source

    monkeypatch.setattr(pycuda.compiler, "DEFAULT_NVCC_FLAGS", ["-use_fast_math"])  # which the simulated nvcc refuses
    device.compile(kernel_source())


# NVIDIA's compiler, for real


@pytest.fixture(scope="module")
def nvrtc() -> ctypes.CDLL:
    """NVRTC; compiles without a GPU."""
    folder = Path(os.environ["TRTCALIB_RIG"], "cuda", "nvrtc", "nvidia", "cuda_nvrtc", "lib")
    (builtins,) = folder.glob("libnvrtc-builtins.so.*")
    ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(folder / "libnvrtc.so.12"))


def compiled(nvrtc: ctypes.CDLL, source: str, *options: str) -> tuple[str, bytes]:
    """Return what NVRTC says, and what it makes: for a virtual architecture PTX, for a real one machine code."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"histograms.cu", 0, None, None) == 0
    given_options = [option.encode() for option in options]
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*given_options))
    what = "CUBIN" if any("=sm_" in option for option in options) else "PTX"
    texts = []
    for name in ("ProgramLog", *(() if failed else (what,))):
        getattr(nvrtc, f"nvrtcGet{name}Size")(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(nvrtc, f"nvrtcGet{name}")(program, text)
        texts.append(text.raw)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return texts[0].rstrip(b"\0").decode(), b"" if failed else texts[1]


KERNELS = ("look_float32", "look_float16", "tally_float32", "tally_float16", "fold")


@pytest.mark.parametrize("architecture", ["75", "80", "86", "89", "90"])
def test_nvrtc_compiles_the_kernels_without_a_word(nvrtc: ctypes.CDLL, architecture: str) -> None:
    from trtcalib.trt.histograms import kernel_source
    from trtcalib.trt.kernels import COMPILER_OPTIONS

    for kind in ("compute", "sm"):
        said, made = compiled(nvrtc, kernel_source(), f"--gpu-architecture={kind}_{architecture}", *COMPILER_OPTIONS)
        assert said == ""
        assert all(name.encode() in made for name in KERNELS)


def test_nvrtc_makes_an_ieee_division_that_flushes_nothing(nvrtc: ctypes.CDLL) -> None:
    from trtcalib.trt.histograms import kernel_source

    _, ptx = compiled(nvrtc, kernel_source(), "--gpu-architecture=compute_86", "--use_fast_math", "-ftz=false")
    assert b"div.rn.f32" in ptx
    for wrong in (b"div.approx", b"div.full", b".ftz", b"rcp."):
        assert wrong not in ptx


def test_nvrtc_says_what_is_wrong_with_a_source(nvrtc: ctypes.CDLL) -> None:
    said, made = compiled(nvrtc, "__global__ void wrong() { nonsense(); }", "--gpu-architecture=compute_86")
    assert "nonsense" in said
    assert made == b""
