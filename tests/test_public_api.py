"""What `import trtcalib` promises."""

from __future__ import annotations

import subprocess
import sys

import pytest

import trtcalib
import trtcalib.trt
from tests.trt.fakes import hide
from trtcalib.errors import MissingPackageError


def test_every_name_of_all_resolves_and_dir_lists_them() -> None:
    for name in trtcalib.__all__:
        assert getattr(trtcalib, name) is not None
    assert dir(trtcalib) == sorted(trtcalib.__all__)


def test_every_method_is_a_public_function() -> None:
    assert {"entropy_amax", "minmax_amax", "mse_amax", "percentile_amax"} < set(trtcalib.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'trtcalib' has no attribute 'nosuch'"):
        _ = trtcalib.nosuch


def test_functions_and_modules_do_not_collide() -> None:
    assert callable(trtcalib.calibrate)
    assert callable(trtcalib.solve)


@pytest.mark.parametrize("statement", ["import trtcalib", "import trtcalib.cli.main", "import trtcalib.trt"])
def test_importing_stays_light(statement: str) -> None:
    heavy = ("onnxruntime", "tensorrt", "pycuda", "numba", "torch", "matplotlib")
    code = f"import sys; {statement}; print([m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


class TestTrt:
    """What `import trtcalib.trt` promises."""

    CALIBRATORS = ("EntropyCalibrator", "MinMaxCalibrator", "PercentileCalibrator")

    def test_dir_lists_all_and_every_other_name_is_an_attribute_error(self) -> None:
        assert dir(trtcalib.trt) == sorted(trtcalib.trt.__all__)
        assert set(self.CALIBRATORS) < set(trtcalib.trt.__all__)
        with pytest.raises(AttributeError, match=r"module 'trtcalib\.trt' has no attribute 'nosuch'"):
            _ = trtcalib.trt.nosuch

    def test_what_needs_no_tensorrt_resolves_without_importing_it(self) -> None:
        names = [name for name in trtcalib.trt.__all__ if name not in self.CALIBRATORS]
        code = f"import sys, trtcalib.trt as t; [getattr(t, n) for n in {names!r}]; print({{'tensorrt', 'pycuda'}} & set(sys.modules))"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert result.stdout.strip() == "set()"

    @pytest.mark.parametrize("name", CALIBRATORS)
    def test_a_calibrator_without_tensorrt_says_how_to_get_it(self, monkeypatch, name: str) -> None:
        hide(monkeypatch)
        monkeypatch.delitem(vars(trtcalib.trt), name, raising=False)
        with pytest.raises(MissingPackageError) as caught:
            getattr(trtcalib.trt, name)
        assert caught.value.package == "tensorrt"
        assert "pip install 'trtcalib[tensorrt]'" in str(caught.value)

    def test_a_device_without_pycuda_says_how_to_get_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hide(monkeypatch)
        with pytest.raises(MissingPackageError, match=r"the package 'pycuda' is missing: .*pip install"):
            trtcalib.trt.open_device()
