"""The check by TensorRT-RTX with a stand-in for it: what the process says, and all the ways in which it may end. tests/rtx has the real one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from tests.models import make_model, save_model
from tests.trt.fake_rtx import PACKAGE
from trtcalib.errors import DeviceError, EngineError, MissingPackageError, ModelError, SpecError
from trtcalib.trt import child_process, conformance
from trtcalib.trt.child_process import run_module
from trtcalib.trt.conformance import check_model
from trtcalib.trt.conformance_values import Conformance, NodeVerdict

ROOT = Path(__file__).parents[2]

MODEL = """
m (float[N, 4, 8, 8] x, float[4, 4, 1, 1] w) => (float[N, 4, 8, 8] y) { y = Conv(x, w) }
"""

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has neither these signals nor process groups")


@pytest.fixture
def rtx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Conformance]:
    """Check a model by the fake, which does what the name of the file says."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "tensorrt_rtx_bindings.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.syspath_prepend(str(ROOT))

    def run(name: str, node: str = "conv", **options: object) -> Conformance:
        file = tmp_path / f"{name}.onnx"
        model = make_model(MODEL)
        model.graph.node[0].name = node
        onnx.save_model(model, file)
        return check_model(file, **{"compute_capabilities": (86,), **options})

    return run


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Put a module of this text in the place of the process that asks TensorRT-RTX."""

    def write(text: str) -> str:
        (tmp_path / "some_child.py").write_text(f"import os, sys, time\ndef main(request):\n    {text}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(conformance, "_CHILD", "some_child")
        return "some_child"

    return write


def checked(tmp_path: Path, **options: object) -> Conformance:
    save_model(tmp_path / "m.onnx", MODEL)
    return check_model(tmp_path / "m.onnx", **{"compute_capabilities": (80, 86), "timeout": 30, **options})


class TestAnswers:
    def test_an_accepted_model(self, rtx):
        result = rtx("good", compute_capabilities=(80, 86, 80))
        assert result.passed
        assert (result.tensorrt_rtx_version, result.parser) == ("1.7.1.116", "accepted")
        assert [(b.compute_capability, b.outcome, b.engine_bytes) for b in result.builds] == [
            (80, "accepted", 1000),
            (86, "accepted", 1000),
        ]
        assert [(n.node, n.operator, n.layer, n.kind, n.int8_inputs) for n in result.nodes] == [
            ("conv", "Conv", "conv", "CONVOLUTION", True),
        ]

    def test_a_node_that_became_no_layer_is_told(self, rtx):
        (last,) = [node for node in rtx("good", node="").nodes if node.layer is None]
        assert last == NodeVerdict(
            node="node_of_y",
            operator="Conv",
            layer=None,
            kind=None,
            int8_inputs=False,
            reasons=("the parser made no convolution or matrix multiplication of it",),
        )

    def test_a_node_in_float(self, rtx):
        result = rtx("float")
        assert result.accepted
        assert not result.passed
        assert result.in_float[0].reasons == (
            "its input 'x': a float input of the network, no DequantizeLinear before it",
        )

    @pytest.mark.parametrize(
        ("name", "int8", "floats"), [("told-int8", 1, ()), ("told-float", 0, ("conv",)), ("good", None, ())]
    )
    def test_what_the_builder_lists(self, rtx, name, int8, floats):
        result = rtx(name)
        assert (result.builds[0].told_int8, result.builds[0].told_float) == (int8, floats)
        assert not floats or not result.model_copy(update={"nodes": ()}).passed

    def test_a_parser_that_refuses(self, rtx):
        result = rtx("refuse")
        assert (result.parser, result.builds, result.nodes) == ("rejected", (), ())
        assert result.parser_faults == (
            "node 'conv' (Conv): TensorRT-RTX does not support this operator here",
            "node number 3 (Relu): Assertion failed: no",
        )

    def test_a_warning_of_the_parser_is_a_failure(self, rtx):
        result = rtx("warn")
        assert result.parser_warnings == ("something is taken for something else",)
        assert (result.parser, result.builds[0].outcome, result.accepted) == ("accepted", "accepted", False)

    def test_thousands_of_long_warnings_are_cut_and_counted(self, rtx):
        warnings = rtx("chatty").parser_warnings
        assert len(warnings) == 101
        assert max(map(len, warnings)) == 1000
        assert warnings[-1] == "... and 4900 more"

    def test_a_builder_that_refuses(self, rtx):
        (build,) = rtx("reject").builds
        assert (build.outcome, build.reason, build.engine_bytes) == ("rejected", "this cannot be built", None)

    @pytest.mark.parametrize("wanted", [90, 1, 0])
    def test_a_capability_that_it_does_not_build_for(self, rtx, wanted):
        with pytest.raises(SpecError) as caught:
            rtx("good", compute_capabilities=(86, wanted))
        assert str(caught.value) == (
            f"--compute-capability: TensorRT-RTX 1.7.1.116 does not build for {wanted}; it builds for 75, 80, 86, 89, 120"
        )

    def test_no_capability(self, rtx):
        with pytest.raises(SpecError, match="none was given, expected such as 80,86,89,120"):
            rtx("good", compute_capabilities=())

    def test_a_free_batch_needs_no_shapes(self, rtx):
        assert rtx("free").passed

    def test_shapes_that_do_not_fit(self, rtx):
        shape = {"min": (1, 3, 8, 8), "opt": (1, 3, 8, 8), "max": (1, 3, 8, 8)}
        with pytest.raises(SpecError, match=r"x: axis 1 is fixed to 4 by the model"):
            rtx("good", shapes={"x": shape})

    def test_an_error_of_the_process_is_no_verdict(self, rtx):
        with pytest.raises(EngineError, match=r"the check by TensorRT-RTX failed: RuntimeError: odd"):
            rtx("raise")


class TestEndings:
    @posix
    def test_a_crash_names_the_node_with_a_computed_scale(self, rtx):
        (build,) = rtx("crash").builds
        assert build.outcome == "crashed"
        assert build.reason == (
            "the builder crashed (SIGSEGV); a scale that is computed while the engine runs is known to do that (seen with 1.7.1), "
            "and 'conv' has one; its last words: the library prints what it likes"
        )

    @posix
    def test_a_crash_of_the_parser(self, rtx):
        result = rtx("crash-early", compute_capabilities=(80, 86))
        assert (result.parser, result.builds) == ("crashed", ())
        assert result.parser_faults[0].startswith("the parser crashed (SIGSEGV); a scale that is computed while")

    @posix
    def test_a_process_that_the_system_kills(self, rtx):
        assert rtx("killed").parser_faults == (
            "the parser was killed (SIGKILL): either memory ran out, or someone ended it; its last words: the library prints what it likes",
        )

    def test_a_builder_that_hangs(self, rtx):
        start = time.monotonic()
        (build,) = rtx("hang", timeout=5).builds
        assert time.monotonic() - start < 60
        assert (build.outcome, build.reason.split(";")[0]) == (
            "timeout",
            "the builder did not end in time (5 s): give more with --timeout",
        )

    def test_an_exit_without_an_answer_tells_the_last_words(self, rtx):
        (build,) = rtx("leave").builds
        assert build.reason == "the builder ended with exit code 7; its last words: the last word"

    def test_garbage(self, tmp_path, child):
        child('print(\'{"stage": "built"}\\nnonsense\\xff\')')
        result = checked(tmp_path)
        assert result.parser_faults == ("the parser ended with exit code 0; what it printed is no answer",)
        assert (result.parser, result.tensorrt_rtx_version) == ("crashed", None)

    def test_endless_output_is_drained_and_not_kept(self, tmp_path, child, monkeypatch):
        monkeypatch.setattr(child_process, "MOST_OUTPUT", 1000)
        monkeypatch.setattr(child_process, "MOST_COMPLAINT", 100)
        child("[os.write(i, b'x' * 65536) for _ in range(500) for i in (1, 2)]")
        ended = run_module("some_child", "", 60)
        assert (ended.code, len(ended.output), len(ended.complaint)) == (0, 1000, 100)

    @posix
    @pytest.mark.skipif(
        shutil.which("ps") is None, reason="there is no ps, which tells a dead process from one that runs"
    )
    def test_what_the_process_started_ends_with_it(self, tmp_path, child):
        text = (
            "import subprocess; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
            "print(p.pid, flush=True); time.sleep(600)"
        )
        child(text)
        start = time.monotonic()
        ended = run_module("some_child", "", 3)
        assert ended.code is None
        assert time.monotonic() - start < 30
        for _ in range(100):
            if not _is_alive(int(ended.output)):
                return
            time.sleep(0.05)
        pytest.fail("the process that it started is still there")

    def test_no_process_can_be_started(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
        with pytest.raises(DeviceError, match=r"no process can be started here for TensorRT-RTX \('.*no-python'\)"):
            checked(tmp_path)


def _is_alive(process: int) -> bool:
    """Whether a process runs; one that has ended and that nobody waits for does not."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return bool(found.stdout.strip()) and not found.stdout.strip().startswith("Z")


class TestEnvironment:
    def test_the_package_is_missing(self, tmp_path, monkeypatch):
        folder = tmp_path / "packages"
        folder.mkdir()
        text = "raise ModuleNotFoundError('no', name='tensorrt_rtx_bindings')"
        (folder / "tensorrt_rtx_bindings.py").write_text(text)
        monkeypatch.syspath_prepend(str(folder))
        with pytest.raises(MissingPackageError) as caught:
            checked(tmp_path)
        assert str(caught.value) == (
            "the package 'tensorrt_rtx_bindings' is missing: it holds NVIDIA's parser and builder; install it with: "
            "pip install 'trtcalib[rtx]' (Linux on x86_64 and Windows on x86_64, Python 3.10 to 3.13)"
        )

    @pytest.mark.parametrize(
        "error", ["ImportError('libtensorrt_rtx.so.1: no such file')", "OSError('libtensorrt_rtx.so.1: no such file')"]
    )
    def test_the_package_cannot_be_loaded(self, tmp_path, monkeypatch, error):
        folder = tmp_path / "packages"
        folder.mkdir()
        (folder / "tensorrt_rtx_bindings.py").write_text(f"raise {error}")
        monkeypatch.syspath_prepend(str(folder))
        with pytest.raises(
            MissingPackageError, match=r"it is installed and cannot be loaded: libtensorrt_rtx.so.1: no such file"
        ):
            checked(tmp_path)

    def test_the_current_folder_is_not_imported_from(self, rtx, tmp_path, monkeypatch):
        (tmp_path / "tensorrt_rtx_bindings.py").write_text("raise ImportError('the wrong one')")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
        assert rtx("good").parser == "accepted"


class TestModels:
    @pytest.mark.parametrize("name", ["-o", "a b", "quote'\"", "new\nline", "é中", "$(touch x)"])
    @posix
    def test_odd_names_are_taken(self, rtx, name):
        assert rtx(name).parser == "accepted"

    @posix
    def test_a_name_that_is_no_utf8_is_refused(self, tmp_path):
        file = tmp_path / os.fsdecode(b"\xff.onnx")
        try:
            save_model(file, MODEL)
        except OSError:
            pytest.skip("this file system has no such names")
        with pytest.raises(ModelError, match=r"this name is no UTF-8, which TensorRT-RTX takes only"):
            check_model(file)

    def test_what_is_no_model_starts_no_process(self, tmp_path, monkeypatch):
        monkeypatch.setattr(conformance, "run_module", None)
        (tmp_path / "m.onnx").write_bytes(b"nonsense")
        with pytest.raises(ModelError, match="not an ONNX model"):
            check_model(tmp_path / "m.onnx")
