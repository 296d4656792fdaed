"""cuda-python in PyCUDA's place: when it is taken, what is said where it cannot be, kernels; real cuda-python, simulated driver.

That it allocates, copies and frees as PyCUDA does is tested with both in test_quirks_memory.py and test_quirks_contexts.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tests.rig import nvcc
from tests.rig.driving import BACKENDS, opened_device
from tests.rig.flow import ROOT, calibrating_flow
from trtcalib.core.histogram import collect_histogram
from trtcalib.errors import DeviceError
from trtcalib.trt.buffers import PyCudaDevice, open_device
from trtcalib.trt.cuda_python import CudaPythonDevice


@pytest.fixture
def device(cuda):
    with opened_device("cuda-python") as opened:
        yield opened


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    """A folder on the PATH with the simulated nvcc."""
    nvcc.install(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def program(text, hidden=(), **switches):
    """Run a program in a process of its own, over the simulated driver and without some packages."""
    start = f"""
import importlib.abc, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
"""
    done = subprocess.run(
        [sys.executable, "-B", "-c", start + text],
        env={**os.environ, "PYTHONPATH": str(ROOT), **switches},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr.rpartition("trtcalib.errors.")[2]


OPEN = """
from tests.rig import fake_cuda
fake_cuda.load()
from trtcalib.trt.buffers import open_device
print(type(open_device({})).__name__)
"""


# Which one is taken


def test_simulated_device_is_pycudas_unless_it_is_asked_for(cuda):
    for arguments, kind in (({}, PyCudaDevice), ({"backend": "pycuda"}, PyCudaDevice)):
        opened = open_device(**arguments)
        assert type(opened) is kind
        opened.close()
    with opened_device("cuda-python") as opened:
        assert type(opened) is CudaPythonDevice


def test_simulated_device_is_cuda_pythons_where_pycuda_is_not_installed():
    assert program(OPEN.format(""), ("pycuda",)) == "CudaPythonDevice\n"
    assert program(OPEN.format("backend='pycuda'"), ("pycuda",)).startswith("MissingPackageError: the package 'pycuda'")


def test_neither_is_installed_so_pycuda_is_named():
    said = program(OPEN.format(""), ("pycuda", "cuda"))
    assert said.startswith(
        "MissingPackageError: the package 'pycuda' is missing: it moves batches to the GPU; install it"
    )


def test_cuda_python_is_asked_for_and_not_installed():
    assert program(OPEN.format("backend='cuda-python'"), ("cuda",)) == (
        "MissingPackageError: the package 'cuda.bindings' is missing: it moves batches to the GPU in PyCUDA's place; install it with: "
        "pip install cuda-bindings\n"
    )


def test_a_broken_pycuda_is_told_and_nothing_taken_in_its_place(tmp_path):
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda" / "__init__.py").write_text("")
    (tmp_path / "pycuda" / "driver.py").write_text("raise ImportError('libcurand.so.10: cannot open')")
    said = program(f"sys.path.insert(0, {str(tmp_path)!r})\n" + OPEN.format(""))
    assert said.startswith("MissingPackageError: the package 'pycuda' is missing: it is installed and cannot be loaded")


def test_no_such_backend():
    with pytest.raises(ValueError, match="backend is 'torch', expected 'auto', 'pycuda' or 'cuda-python'"):
        open_device(backend="torch")


def test_simulated_build_with_cuda_python_alone_is_that_with_pycuda(tmp_path, version):
    flow = calibrating_flow(tmp_path, version)
    flow.model()
    data = flow.data(12)
    build = ["build", "model.onnx", "--data", "data.npy", "--batch-size", "4", "--no-crosscheck", "-o"]
    flow.done(*build, "out.engine")
    arguments = ["simulated_cli", version, *build, "alone.engine"]
    run = f"""
import os, runpy
os.chdir({str(flow.folder)!r})
sys.argv[:] = {arguments!r}
runpy.run_module("tests.rig.simulated_cli", run_name="__main__", alter_sys=False)
"""
    record = tmp_path / "record.npz"
    program(run, ("pycuda",), TRTCALIB_RIG_RECORD=str(record))
    assert (flow.folder / "alone.cache").read_bytes() == (flow.folder / "out.cache").read_bytes()
    assert flow.engine_manifest("alone.engine").device == flow.engine_manifest().device
    with np.load(record) as seen:
        saw = json.loads(str(seen["record"]))
        assert np.concatenate([seen[f"0/{batch}/x"] for batch in range(3)]).tobytes() == data.tobytes()
    assert (saw["errors"], saw["unimplemented"]) == ([], [])


# What is said


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("switch", "said"),
    [
        (
            "SIMULATED_CUDA_NO_DEVICE",
            "the NVIDIA driver sees no GPU (cuInit failed: no CUDA-capable device is detected): check",
        ),
        ("SIMULATED_CUDA_OLD_DRIVER", "the NVIDIA driver is too old for this CUDA (cuInit failed: "),
    ],
)
def test_simulated_driver_that_does_not_start(backend, switch, said):
    assert program(OPEN.format(f"backend={backend!r}"), **{switch: "1"}).startswith(f"DeviceError: {said}")


def test_there_is_no_driver():
    said = program(OPEN.format("backend='cuda-python'").replace("fake_cuda.load()", ""))
    assert said.startswith("DeviceError: there is no NVIDIA driver here (")
    assert said.endswith("): install one, or start the container with --gpus all\n")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("index", [-1, 1])
def test_simulated_gpu_that_is_not_there(cuda, backend, index):
    with pytest.raises(DeviceError, match=f"^there is no GPU {index}: the driver sees 1$"):
        open_device(index, backend)


def test_both_say_the_same_of_a_simulated_device(device, cuda):
    with opened_device("pycuda") as pycudas:
        assert device.facts == pycudas.facts
        assert device.resident_threads == pycudas.resident_threads
        assert device.free_memory() == pycudas.free_memory()


@pytest.mark.parametrize("backend", BACKENDS)
def test_simulated_memory_that_is_not_there(cuda, backend):
    with opened_device(backend) as device:
        before, total = cuda.counts(), device.facts.memory
        with pytest.raises(DeviceError) as caught:
            device.allocate(1 << 50)
        assert str(caught.value) == (
            f"out of device memory: asked for {1 << 50} bytes, {total - before.live_bytes} of {total} are free: take a smaller batch, "
            "or stop what else runs on the GPU"
        )
        assert caught.value.asked == 1 << 50
        assert cuda.counts().live_allocations == before.live_allocations


def test_simulated_host_memory_that_cannot_be_pinned_leaves_no_device_memory(device, cuda, monkeypatch):
    module = device._driver._module
    refusal = module.CUresult.CUDA_ERROR_OUT_OF_MEMORY, None
    changed = SimpleNamespace(**{**vars(module), "cuMemHostAlloc": lambda *_: refusal})
    before = cuda.counts().live_allocations
    with monkeypatch.context() as patch:
        patch.setattr(device._driver, "_module", changed)
        with pytest.raises(DeviceError, match="out of device memory: asked for 64 bytes"):
            device.allocate(64)
    assert cuda.counts().live_allocations == before


# Copies and kernels


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_, np.float16])
def test_simulated_what_goes_up_comes_down(device, cuda, dtype):
    sent = np.random.default_rng(0).integers(0, 2, (3, 5, 7)).astype(dtype)
    buffer = device.allocate(sent.nbytes)
    buffer.upload(sent)
    found = np.empty_like(sent)
    buffer.download(found)
    assert np.array_equal(found, sent)
    assert cuda.counts().pageable_async_copies == 0
    buffer.free()
    with pytest.raises(DeviceError, match="a download of"):
        buffer.download(found)


def test_simulated_copy_waits_for_the_stream(device, cuda):
    buffer = device.allocate(4)
    buffer.upload(np.ones(1, np.float32))
    assert cuda.counts().pending_copies == 1
    device.synchronize()
    assert cuda.counts().pending_copies == 0
    assert cuda.read(buffer.pointer, 4) == np.float32(1).tobytes()
    buffer.free()


def test_simulated_buffer_without_copies_has_no_host_memory(device, cuda):
    before = cuda.counts().pinned_allocations
    buffer = device.allocate(64, copies=False)
    assert cuda.counts().pinned_allocations == before
    with pytest.raises(DeviceError, match="an upload of 4 bytes"):
        buffer.upload(np.zeros(1, np.float32))
    buffer.free()


def test_simulated_device_is_closed_twice(cuda):
    with opened_device("cuda-python") as device:
        device.close()


def test_simulated_kernels_count_as_the_core_does(device, cuda, on_path):
    from trtcalib.trt.histograms import DeviceArray, DeviceHistograms

    batches = [np.random.default_rng(seed).normal(size=5001).astype(np.float32) * 4**seed for seed in range(3)]
    buffer = device.allocate(batches[0].nbytes)
    with DeviceHistograms(device, ["x"]) as histograms:
        for number, batch in enumerate(batches):
            buffer.upload(batch)
            histograms.add(number, [DeviceArray(buffer.pointer, batch.size, batch.dtype)])
            device.synchronize()
        assert histograms.result()["x"] == collect_histogram(batches)
    buffer.free()
    assert cuda._library.simulated_cuda_modules() == 1
    device.close()
    assert cuda._library.simulated_cuda_modules() == 0


def test_simulated_kernel_that_is_not_there(device, on_path):
    from trtcalib.trt.histograms import kernel_source

    kernels = device.compile(kernel_source())
    with pytest.raises(
        DeviceError, match="the kernel 'nobody' cannot be started: cuModuleGetFunction failed: named symbol"
    ):
        kernels.launch("nobody", 1, 32, [np.uint64(0)])


def test_simulated_compiler_that_refuses(device, tmp_path, monkeypatch):
    (tmp_path / "nvcc").write_text("#!/bin/sh\necho 'kernels.cu(1): error: no' >&2\nexit 1\n")
    (tmp_path / "nvcc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(
        DeviceError, match=r"nvcc cannot compile the kernels for this GPU: kernels\.cu\(1\): error: no$"
    ):
        device.compile("")


def test_arguments_are_packed_by_their_size():
    from trtcalib.trt.cuda_python import _packed

    packed = _packed([np.uint32(1), np.uint64(2), np.uint8(3), np.float32(1)])
    assert packed == bytes([1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0]) + np.float32(1).tobytes()
