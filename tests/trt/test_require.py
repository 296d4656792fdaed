"""TensorRT, PyCUDA and cuda-python, or one clear error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from tests.trt.fakes import forget, hide, pycuda, tensorrt
from trtcalib.errors import DeviceError, EngineError, InstalledTensorRTError, MissingPackageError
from trtcalib.trt.require import (
    device_facts,
    import_cuda_python,
    import_pycuda,
    import_tensorrt,
    numpy_dtype,
    require_calibrators,
    version_of,
)

TOO_OLD = "{is too old for this CUDA (}): update the driver, or take an older CUDA and TensorRT"

CHECK = "check nvidia-smi, CUDA_VISIBLE_DEVICES and --gpus"

INSTALL = "pip install 'trtcalib[tensorrt]'"


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], None]:
    """Write a package that Python finds first."""

    def write(name: str, text: str) -> None:
        forget(monkeypatch)
        monkeypatch.syspath_prepend(str(tmp_path))
        path = tmp_path / f"{name.replace('.', '/')}.py"
        for folder in reversed(path.relative_to(tmp_path).parents[:-1]):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "__init__.py").touch()
        path.write_text(text, encoding="utf-8")

    return write


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """Install a fake PyCUDA."""

    def install(**options: object) -> ModuleType:
        for name, module in pycuda(**options).items():
            monkeypatch.setitem(sys.modules, name, module)
        return sys.modules["pycuda.driver"]

    return install


def missing(job: Callable[[], object]) -> str:
    with pytest.raises(MissingPackageError) as caught:
        job()
    assert caught.value.exit_code == 3
    return str(caught.value)


def device_fault(job: Callable[[], object]) -> str:
    with pytest.raises(DeviceError) as caught:
        job()
    assert caught.value.exit_code == 3
    return str(caught.value)


class TestTensorRT:
    @pytest.mark.parametrize("version", ["8.6.1", "8.6.1.6", "10.0.1", "10.16.1.11", "11.4.0.106"])
    def test_is_returned_from_8_6_on(self, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
        module = tensorrt(version)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        assert import_tensorrt() is module

    def test_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hide(monkeypatch)
        assert missing(import_tensorrt) == (
            f"the package 'tensorrt' is missing: it builds and runs engines; install it with: {INSTALL} (TensorRT 8.6 to 10.16)"
        )

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (
                "raise ImportError('libnvinfer.so.10: cannot open shared object file: No such file or directory')",
                "libnvinfer.so.10: cannot open shared object file: No such file or directory",
            ),
            ("raise OSError('libcudart.so.12: cannot open')", "libcudart.so.12: cannot open"),
            ("raise FileNotFoundError('libnvinfer.so.8')", "libnvinfer.so.8"),
            ("import tensorrt_no_such_bindings", "No module named 'tensorrt_no_such_bindings'"),
        ],
    )
    def test_is_installed_and_cannot_load_its_libraries(self, package, text: str, said: str) -> None:
        package("tensorrt", text)
        assert missing(import_tensorrt) == (
            f"the package 'tensorrt' is missing: it is installed and cannot be loaded: {said}"
        )

    def test_a_folder_of_that_name_is_not_it(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Python takes any folder for a package where there is no other."""
        forget(monkeypatch)
        (tmp_path / "tensorrt").mkdir()
        monkeypatch.setattr(sys, "path", [str(tmp_path)])
        said = missing(import_tensorrt)
        monkeypatch.delitem(sys.modules, "tensorrt")
        where = repr(str(tmp_path / "tensorrt"))
        assert said.endswith(f"is missing: what Python finds under that name is something else ({where})")

    @pytest.mark.parametrize("version", ["8.5.3.1", "7.2.3", "8.5.99", ""])
    def test_is_too_old(self, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
        monkeypatch.setitem(sys.modules, "tensorrt", tensorrt(version))
        with pytest.raises(InstalledTensorRTError) as caught:
            import_tensorrt()
        assert str(caught.value) == f"TensorRT {version} is installed and too old: trtcalib needs 8.6 or later"
        assert caught.value.exit_code == 3


class TestCalibrators:
    @pytest.mark.parametrize("version", ["8.6.1", "10.0.1", "10.16.1.11"])
    def test_are_there_up_to_10(self, version: str) -> None:
        require_calibrators(tensorrt(version))

    @pytest.mark.parametrize(
        "module", [tensorrt("11.4.0.106"), tensorrt("11.0.0", calibrators=False), tensorrt("10.99", calibrators=False)]
    )
    def test_are_gone_from_11_on(self, module: ModuleType) -> None:
        with pytest.raises(InstalledTensorRTError) as caught:
            require_calibrators(module)
        assert caught.value.exit_code == 3
        assert str(caught.value) == (
            f"TensorRT {module.__version__} is installed, and TensorRT 11 removed calibrators: it takes INT8 only from a model "
            "with explicit QuantizeLinear/DequantizeLinear (Q/DQ) nodes. Either give it such a model (trtcalib builds it without "
            "a calibrator; `trtcalib calibrate` makes the scales on the CPU), or install the last TensorRT with calibrators: "
            "pip install 'tensorrt>=8.6,<11' (10.16.1)"
        )

    @pytest.mark.parametrize(
        ("version", "expected"),
        [("10.16.1.11", "10.16.1"), ("8.6.1", "8.6.1"), ("8.6.1.post1", "8.6.1"), ("10.0.1.6", "10.0.1")],
    )
    def test_the_version_is_that_of_the_caches_header(self, version: str, expected: str) -> None:
        assert version_of(tensorrt(version)) == expected


class TestDtypes:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("FLOAT", "float32"),
            ("HALF", "float16"),
            ("INT8", "int8"),
            ("INT32", "int32"),
            ("INT64", "int64"),
            ("BOOL", "bool"),
            ("UINT8", "uint8"),
        ],
    )
    def test_numpy_knows_most(self, name: str, expected: str) -> None:
        assert numpy_dtype("x", SimpleNamespace(name=name)) == np.dtype(expected)

    @pytest.mark.parametrize("name", ["BF16", "FP8", "INT4", "FP4", "E8M0"])
    def test_and_not_all(self, name: str) -> None:
        with pytest.raises(EngineError) as caught:
            numpy_dtype("x", SimpleNamespace(name=name))
        assert str(caught.value) == f"x: this tensor is {name}, which NumPy does not know"


class TestPyCuda:
    def test_is_returned_initialised(self, cuda) -> None:
        driver = cuda()
        initialised = []
        driver.init = lambda: initialised.append(True)
        assert import_pycuda() is driver
        assert initialised == [True]

    def test_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hide(monkeypatch)
        expected = f"the package 'pycuda' is missing: it moves batches to the GPU; install it with: {INSTALL}"
        assert missing(import_pycuda) == expected

    def test_there_is_no_driver(self, package) -> None:
        said = "libcuda.so.1: cannot open shared object file: No such file or directory"
        package("pycuda.driver", f"raise ImportError({said!r})")
        assert device_fault(import_pycuda) == (
            f"there is no NVIDIA driver here ({said}): install one, or start the container with --gpus all"
        )

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("raise ImportError('libcurand.so.10: cannot open')", "libcurand.so.10: cannot open"),
            ("import pycuda._no_such_part", "No module named 'pycuda._no_such_part'"),
        ],
    )
    def test_is_installed_and_cannot_be_loaded(self, package, text: str, said: str) -> None:
        package("pycuda.driver", text)
        expected = f"the package 'pycuda' is missing: it is installed and cannot be loaded: {said}"
        assert missing(import_pycuda) == expected

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (
                "no CUDA-capable device is detected",
                "{sees no GPU (}): check nvidia-smi, CUDA_VISIBLE_DEVICES and --gpus",
            ),
            ("CUDA driver version is insufficient for CUDA runtime version", TOO_OLD),
            ("system has unsupported display driver / cuda driver combination", TOO_OLD),
            ("unknown error", "{cannot be used: }"),
            ("initialization error", "{cannot be used: }"),
        ],
    )
    def test_a_driver_that_does_not_start(self, cuda, text: str, said: str) -> None:
        cuda(fault=f"cuInit failed: {text}")
        expected = said.replace("{", "the NVIDIA driver ").replace("}", f"cuInit failed: {text}")
        assert device_fault(import_pycuda) == expected

    def test_a_driver_without_a_gpu(self, cuda) -> None:
        cuda(count=0)
        expected = "the NVIDIA driver sees no GPU: check nvidia-smi, CUDA_VISIBLE_DEVICES and --gpus"
        assert device_fault(import_pycuda) == expected


class TestCudaPython:
    DRIVER = """
    class CUresult:
        CUDA_SUCCESS = 0
    def cuInit(flags):
        {init}
    def cuDeviceGetCount():
        return 0, {count}
    def cuGetErrorString(code):
        return 0, b"no CUDA-capable device is detected"
    """

    def test_is_returned_initialised(self, package) -> None:
        package("cuda.bindings.driver", dedent(self.DRIVER.format(init="return (0,)", count=1)))
        assert import_cuda_python() is sys.modules["cuda.bindings.driver"]

    def test_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hide(monkeypatch)
        assert missing(import_cuda_python) == (
            "the package 'cuda.bindings' is missing: it moves batches to the GPU in PyCUDA's place; install it with: "
            "pip install cuda-bindings"
        )

    def test_is_older_than_its_name(self, package) -> None:
        package("cuda.cuda", "")
        assert missing(import_cuda_python).endswith("install it with: pip install cuda-bindings")

    def test_is_installed_and_cannot_be_loaded(self, package) -> None:
        package("cuda.bindings.driver", "raise ImportError('libstdc++.so.6: version not found')")
        assert missing(import_cuda_python) == (
            "the package 'cuda.bindings' is missing: it is installed and cannot be loaded: libstdc++.so.6: version not found"
        )

    @pytest.mark.parametrize(
        ("init", "count", "said"),
        [
            (
                "raise RuntimeError('Failed to dlopen libcuda.so.1')",
                1,
                "there is no NVIDIA driver here (Failed to dlopen libcuda.so.1): install one, or start the container with --gpus all",
            ),
            (
                "return (100,)",
                1,
                f"the NVIDIA driver sees no GPU (cuInit failed: no CUDA-capable device is detected): {CHECK}",
            ),
            ("return (0,)", 0, f"the NVIDIA driver sees no GPU: {CHECK}"),
        ],
    )
    def test_a_driver_that_cannot_be_used(self, package, init: str, count: int, said: str) -> None:
        package("cuda.bindings.driver", dedent(self.DRIVER.format(init=init, count=count)))
        assert device_fault(import_cuda_python) == said


class TestDeviceFacts:
    @pytest.fixture
    def kernel(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
        """Say what the driver's file in /proc holds."""
        read = Path.read_text

        def write(text: str | None) -> None:
            def answer(path: Path, *args: object, **options: object) -> str:
                if path != Path("/proc/driver/nvidia/version"):
                    return read(path, *args, **options)
                if text is None:
                    raise FileNotFoundError
                return text

            monkeypatch.setattr(Path, "read_text", answer)

        return write

    @pytest.mark.parametrize(
        ("text", "driver"),
        [
            ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n", "550.54.15"),
            (
                "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.51.03  Release Build\nGCC version:  gcc version 12.3.0\n",
                "575.51.03",
            ),
            ("something else", None),
            ("", None),
            (None, None),
        ],
    )
    def test_say_which_gpu_and_driver(self, cuda, kernel, text: str | None, driver: str | None) -> None:
        kernel(text)
        facts = device_facts(cuda(count=2), 1)
        assert facts.model_dump() == {
            "name": "Fake GPU 1",
            "compute_capability": "9.0",
            "memory": 80 << 30,
            "cuda": "12.4",
            "driver": driver,
        }

    @pytest.mark.parametrize("index", [-1, 2])
    def test_a_gpu_that_is_not_there(self, cuda, index: int) -> None:
        driver = cuda(count=2)
        assert device_fault(lambda: device_facts(driver, index)) == f"there is no GPU {index}: the driver sees 2"
