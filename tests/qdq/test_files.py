"""What is written: one model, its weights where they belong, all of it or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.models import make_model
from tests.qdq.graphs import fill_in, needs_opset_23, run, save
from trtcalib.errors import CacheFormatError, ModelError, OutputError
from trtcalib.onnx_graph import ModelGraph, read_model
from trtcalib.qdq import writing
from trtcalib.qdq.convert import Quantized, convert
from trtcalib.qdq.prepared import QdqOptions
from trtcalib.qdq_files import QdqInputs, quantize, read_inputs, write_quantized

TEXT = """
g (float[2,16] x) => (float[2,8] y) <float[16,64] v, float[64,8] w, float[8] b> {
    h = MatMul(x, v)
    r = Relu(h)
    y = Gemm(r, w, b)
}
"""

CACHE = "TRT-101601-EntropyCalibration2\nx: 3d800000\nr: 3f800000\n"


@pytest.fixture
def external(tmp_path: Path) -> QdqInputs:
    """A model whose larger weights stand in ``source/w.bin``."""
    folder = tmp_path / "source"
    folder.mkdir()
    proto = fill_in(make_model(TEXT))
    onnx.save(proto, folder / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=512)
    assert (folder / "w.bin").stat().st_size >= 4 * (16 * 64 + 64 * 8)
    (tmp_path / "m.cache").write_text(CACHE, encoding="utf-8")
    return read_inputs(folder / "model.onnx", tmp_path / "m.cache")


def write(inputs: QdqInputs, output: Path, **options: bool) -> Path | None:
    quantized, report = quantize(inputs, QdqOptions(**options))
    assert report.success
    return write_quantized(quantized, inputs.model, output)


def runs_like(output: Path, inputs: QdqInputs) -> None:
    """The written model is valid and gives what the conversion of the same model without external data gives."""
    import onnxruntime

    feeds = {"x": (np.arange(32, dtype=np.float32).reshape(2, 16) - 10) / 8}
    found = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    inline = ModelGraph(path=Path("m.onnx"), proto=onnx.load(str(inputs.model.path)), inputs=(), tensors=())
    (expected,) = run(convert(inline, inputs.scales, QdqOptions()).proto, feeds, optimised=True)
    np.testing.assert_array_equal(found, expected)
    onnx.checker.check_model(str(output), full_check=True)


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


class TestExternalData:
    def test_in_the_same_folder_it_stays_where_it_is(self, external: QdqInputs) -> None:
        folder = external.model.path.parent
        weights = (folder / "w.bin").read_bytes()
        assert write(external, folder / "q.onnx") is None
        assert names(folder) == {"model.onnx", "w.bin", "q.onnx"}
        assert (folder / "w.bin").read_bytes() == weights
        located = {
            t.name: t.external_data[0].value
            for t in onnx.load(folder / "q.onnx", load_external_data=False).graph.initializer
            if t.external_data
        }
        assert located == {"v": "w.bin", "w": "w.bin"}
        runs_like(folder / "q.onnx", external)

    def test_in_another_folder_a_copy_stands_beside_the_result(self, external: QdqInputs, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        assert write(external, tmp_path / "out" / "q.onnx") == tmp_path / "out" / "q.onnx.data"
        assert names(tmp_path / "out") == {"q.onnx", "q.onnx.data"}
        proto = onnx.load(tmp_path / "out" / "q.onnx", load_external_data=False)
        located = {
            t.name: {e.key: e.value for e in t.external_data} for t in proto.graph.initializer if t.external_data
        }
        assert {facts["location"] for facts in located.values()} == {"q.onnx.data"}
        assert all(int(facts["offset"]) % 4096 == 0 for facts in located.values())
        runs_like(tmp_path / "out" / "q.onnx", external)

    def test_int8_weights_need_none_of_it(self, external: QdqInputs, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        assert write(external, tmp_path / "out" / "q.onnx", int8_weights=True) is None
        assert names(tmp_path / "out") == {"q.onnx"}
        runs_like(tmp_path / "out" / "q.onnx", external)

    @needs_opset_23
    def test_half_of_an_external_model(self, external: QdqInputs, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        write(external, tmp_path / "out" / "q.onnx", half=True)
        onnx.checker.check_model(str(tmp_path / "out" / "q.onnx"), full_check=True)

    def test_the_model_s_own_weights_are_never_replaced(
        self, external: QdqInputs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = external.model.path.parent
        (folder / "w.bin").rename(folder / "q.onnx.data")
        proto = onnx.load(external.model.path, load_external_data=False)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                entry.value = "q.onnx.data" if entry.key == "location" else entry.value
        onnx.save(proto, external.model.path)
        inputs = read_inputs(external.model.path, external.cache.path)
        monkeypatch.setattr(writing, "MOST_INLINE", 100)
        with pytest.raises(OutputError, match=r"q\.onnx\.data: holds the model, its weights or another result: choose"):
            write(inputs, folder / "q.onnx", int8_weights=True)
        assert names(folder) == {"model.onnx", "q.onnx.data"}

    def test_results_never_take_each_other_s_place(self, external: QdqInputs, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        quantized, _ = quantize(external, QdqOptions())
        for output, report in (
            (external.model.path, tmp_path / "r.json"),
            (external.model.path.parent / "w.bin", tmp_path / "r.json"),
            (tmp_path / "out" / "q.onnx", tmp_path / "out" / "q.onnx"),
            (tmp_path / "out" / "q.onnx", tmp_path / "out" / "q.onnx.data"),
        ):
            with pytest.raises(OutputError, match="holds the model, its weights or another result"):
                write_quantized(quantized, external.model, output, (report, b"{}"))
        assert names(tmp_path / "out") == set()

    def test_a_batch_norm_with_external_weights_is_folded(self, tmp_path: Path) -> None:
        text = """g (float[1,8,4,4] x) => (float[1,8,4,4] y)
            <float[8,8,3,3] w, float[8] s = {1,2,1,2,1,2,1,2}, float[8] b, float[8] m, float[8] v = {1,1,1,1,2,2,2,2}> {
            c = Conv<pads=[1,1,1,1]>(x, w)
            y = BatchNormalization(c, s, b, m, v)
        }"""
        onnx.save(
            fill_in(make_model(text)),
            tmp_path / "model.onnx",
            save_as_external_data=True,
            location="w.bin",
            size_threshold=512,
        )
        (tmp_path / "m.cache").write_text(CACHE, encoding="utf-8")
        (tmp_path / "out").mkdir()
        inputs = read_inputs(tmp_path / "model.onnx", tmp_path / "m.cache")
        assert write(inputs, tmp_path / "out" / "q.onnx") is None
        onnx.checker.check_model(str(tmp_path / "out" / "q.onnx"), full_check=True)


class TestLargeInlineWeights:
    def test_they_move_out_where_they_are_too_much_for_one_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writing, "MOST_INLINE", 4096)
        (tmp_path / "m.cache").write_text(CACHE, encoding="utf-8")
        inputs = read_inputs(save(tmp_path, TEXT), tmp_path / "m.cache")
        assert write(inputs, tmp_path / "q.onnx") == tmp_path / "q.onnx.data"
        proto = onnx.load(tmp_path / "q.onnx", load_external_data=False)
        assert {t.name for t in proto.graph.initializer if t.external_data} == {"v", "w"}
        runs_like(tmp_path / "q.onnx", inputs)

    def test_the_same_weights_either_way(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "m.cache").write_text(CACHE, encoding="utf-8")
        inputs = read_inputs(save(tmp_path, TEXT), tmp_path / "m.cache")
        write(inputs, tmp_path / "inline.onnx")
        monkeypatch.setattr(writing, "MOST_INLINE", 4096)
        write(inputs, tmp_path / "outside.onnx")
        found = [
            {t.name: onnx.numpy_helper.to_array(t).tobytes() for t in onnx.load(tmp_path / name).graph.initializer}
            for name in ("inline.onnx", "outside.onnx")
        ]
        assert found[0] == found[1]


def test_nothing_is_left_where_writing_fails(
    external: QdqInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "q.onnx").write_bytes(b"was here")
    quantized, _ = quantize(external, QdqOptions())

    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trtcalib.qdq_files.serialised", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_quantized(quantized, external.model, out / "q.onnx", (out / "r.json", b"{}"))
    assert names(out) == {"q.onnx"}
    assert (out / "q.onnx").read_bytes() == b"was here"


@pytest.mark.parametrize(("ending", "refused"), [("k: 3c01", True), ("k: 3c010a14", False), ("k: 3c01\n", False)])
def test_a_cache_that_ends_within_a_number_is_refused(tmp_path: Path, ending: str, refused: bool) -> None:
    model = save(tmp_path, "relu (float[1, 2] x) => (float[1, 2] y) { y = Relu(x) }")
    (tmp_path / "m.cache").write_text(f"TRT-101601-EntropyCalibration2\nx: 3c010a14\n{ending}")
    if refused:
        with pytest.raises(
            CacheFormatError, match=r"m\.cache:3: the file ends within the scale of tensor 'k', 3c01, of which"
        ):
            read_inputs(model, tmp_path / "m.cache")
    else:
        assert len(read_inputs(model, tmp_path / "m.cache").scales) == 2


def test_external_data_that_got_shorter(external: QdqInputs, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    quantized, _ = quantize(external, QdqOptions())
    with (external.model.path.parent / "w.bin").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(ModelError, match=r"tensor '\w': its external data file 'w\.bin' ends too early"):
        write_quantized(quantized, external.model, tmp_path / "out" / "q.onnx")
    assert names(tmp_path / "out") == set()


def test_a_graph_that_is_too_large_alone(tmp_path: Path) -> None:
    class Huge:
        def SerializeToString(self, *, deterministic: bool) -> bytes:
            raise ValueError("exceeds maximum protobuf size of 2GB")

    with pytest.raises(ModelError, match="the graph without its weights is over protobuf's 2 GB"):
        writing.serialised(Huge(), read_model(save(tmp_path, TEXT)))


MEMORY = """
import resource, sys
from pathlib import Path
from trtcalib.qdq.prepared import QdqOptions
from trtcalib.qdq_files import quantize, read_inputs, write_quantized
import trtcalib.onnx_graph, onnx.reference, numpy

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before = peak()
inputs = read_inputs(Path("model.onnx"), Path("m.cache"))
quantized, report = quantize(inputs, QdqOptions(int8_weights=sys.argv[1] == "int8"))
assert report.coverage.quantized == 8
write_quantized(quantized, inputs.model, Path(sys.argv[2]) / "q.onnx")
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is counted in kilobytes on Linux alone")
@pytest.mark.parametrize(("weights", "folder"), [("float", "."), ("float", "out"), ("int8", ".")])
def test_memory_stays_below_the_model_s_size(tmp_path: Path, weights: str, folder: str) -> None:
    """Eight matrices of 32 MB in an external file: at most 1.2 times their size, mapped pages included."""
    side, count = 2896, 8
    size = side * side * 4
    body = "".join(f"a{i + 1} = MatMul(a{i}, w{i}) " for i in range(count))
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[1,{side}] a0) => (float[1,{side}] a{count}) {{ {body} }}'
    )
    with (tmp_path / "w.bin").open("wb") as file:
        block = np.random.default_rng(0).normal(size=side * side).astype(np.float32).tobytes()
        for index in range(count):
            tensor = proto.graph.initializer.add(name=f"w{index}", data_type=onnx.TensorProto.FLOAT, dims=[side, side])
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", "w.bin"), ("offset", index * size), ("length", size)):
                tensor.external_data.add(key=key, value=str(value))
            file.write(block)
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    lines = "".join(f"a{i}: 3d800000\n" for i in range(count))
    (tmp_path / "m.cache").write_text("TRT-101601-EntropyCalibration2\n" + lines, encoding="utf-8")
    (tmp_path / "out").mkdir()
    root = str(Path(writing.__file__).parents[2])
    found = subprocess.run(
        [sys.executable, "-c", MEMORY, weights, folder],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) < 1.2 * count * size


def test_the_result_of_a_conversion_is_a_value(external: QdqInputs) -> None:
    quantized, report = quantize(external, QdqOptions(), min_coverage=1.0)
    assert isinstance(quantized, Quantized)
    assert report.options.min_coverage == 1
    assert report.coverage.share == 1
