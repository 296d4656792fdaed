"""What `import trtcalib` promises."""

from __future__ import annotations

import subprocess
import sys

import pytest

import trtcalib


def test_every_name_of_all_resolves_and_dir_lists_them() -> None:
    for name in trtcalib.__all__:
        assert getattr(trtcalib, name) is not None
    assert dir(trtcalib) == sorted(trtcalib.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'trtcalib' has no attribute 'nosuch'"):
        _ = trtcalib.nosuch


def test_functions_and_modules_do_not_collide() -> None:
    assert callable(trtcalib.calibrate)
    assert callable(trtcalib.solve)


@pytest.mark.parametrize("statement", ["import trtcalib", "import trtcalib.cli.main"])
def test_importing_stays_light(statement: str) -> None:
    heavy = ("onnxruntime", "tensorrt", "pycuda", "numba", "torch", "matplotlib")
    code = f"import sys; {statement}; print([m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
