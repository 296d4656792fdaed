"""The way from histograms to scales, and who carries whose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import trtcalib
from trtcalib.calibration import Calibration, solve
from trtcalib.core.scale import bits_from_scale
from trtcalib.errors import OutputError, SpecError, TensorRTVersionError
from trtcalib.manifest import Manifest, manifest_path
from trtcalib.specs import EntropyRecipe, MinMaxRecipe

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "data" / "digits"


def save(folder: Path, text: str) -> Path:
    path = folder / "model.onnx"
    onnx.save(onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]>\n' + text), path)
    return path


@pytest.fixture(scope="module")
def digits() -> Calibration:
    return trtcalib.calibrate(DIGITS / "model.onnx", ROOT / "data/digits-calibration.yaml", drop_last=True)


def test_the_sample_has_every_structure_that_it_is_there_for() -> None:
    model = onnx.load(DIGITS / "model.onnx")
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    kinds = set(made_by.values())
    assert {"Relu", "MaxPool", "GlobalAveragePool", "Gemm", "Softmax", "Sigmoid", "Mul"} <= kinds
    unfolded = [n for n in model.graph.node if n.op_type == "BatchNormalization" and made_by[n.input[0]] == "Conv"]
    assert len(unfolded) >= 3
    weights = {tensor.name for tensor in model.graph.initializer}
    assert any(n.op_type == "Add" and not weights & set(n.input) for n in model.graph.node), "no residual Add"
    assert any(n.op_type == "Concat" and len(n.input) >= 2 for n in model.graph.node)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    size = sum(file.stat().st_size for file in DIGITS.iterdir() if file.is_file())
    assert size < 1_000_000


def test_the_sample_model_is_at_least_98_percent_right_on_held_out_digits() -> None:
    images = np.load(DIGITS / "validation-images.npy").astype(np.float32) / np.float32(16)
    labels = np.load(DIGITS / "validation-labels.npy")
    session = onnxruntime.InferenceSession(DIGITS / "model.onnx", providers=["CPUExecutionProvider"])
    right = session.run(None, {"image": images})[0].argmax(axis=1) == labels
    assert len(labels) == 500
    assert right.mean() >= 0.98


def test_calibration_and_validation_are_apart_and_are_all_the_digits() -> None:
    calibration = np.load(DIGITS / "calibration-images.npy")
    validation = np.load(DIGITS / "validation-images.npy")
    assert len(calibration) + len(validation) == 1797
    assert not {image.tobytes() for image in calibration} & {image.tobytes() for image in validation}


def test_a_pool_carries_its_inputs_scale_and_a_view_its_sources_histogram(digits: Calibration) -> None:
    assert digits.origins["pool"] == "concat"
    assert digits.scales["pool"] == digits.scales["concat"]
    assert digits.origins["flatten"] == "global_pool"
    assert "pool" not in digits.histograms
    assert "flatten" not in digits.histograms


def test_a_view_of_a_pool_shows_the_values_own_range(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        """
        g (float[N, 1, 2, 2] x) => (float[N, 1] flat) {
          pool = AveragePool <kernel_shape = [2, 2]> (x)
          again = MaxPool <kernel_shape = [1, 1]> (pool)
          flat = Flatten(again)
          wide = Unsqueeze(flat, axes)
        }
        """.replace("(float[N, 1] flat) {", "(float[N, 1, 1] wide) <int64[1] axes = {2}> {"),
    )
    x = np.array([[1, 2, 3, 6]], np.float32).reshape(1, 1, 2, 2)
    scales = trtcalib.calibrate(path, x, "minmax").scales
    maxima = {name: round(float(scale) * 127, 4) for name, scale in scales.items()}
    # The pools say 6, their input's; what looks at their values says 3, the mean.
    assert maxima == {"x": 6, "pool": 6, "again": 6, "flat": 3, "wide": 3}


def test_the_order_of_the_cache_is_the_order_of_the_graph(digits: Calibration) -> None:
    names = [entry.name for entry in digits.cache().entries]
    graph = onnx.load(DIGITS / "model.onnx").graph
    made = [name for node in graph.node for name in node.output]
    assert names[0] == "image"
    assert [name for name in names if name in made] == made


def test_solving_again_equals_calibrating_again(digits: Calibration) -> None:
    for method in ("minmax", "percentile-99.9", "entropy"):
        anew = trtcalib.calibrate(DIGITS / "model.onnx", ROOT / "data/digits-calibration.yaml", method, drop_last=True)
        assert solve(digits, method).scales == anew.scales


def test_solving_with_another_range_or_other_bins_is_refused(digits: Calibration) -> None:
    with pytest.raises(SpecError, match="asks for range 'global' and 2048 bins, but .* 'doubling' and 2048 bins"):
        solve(digits, MinMaxRecipe(method="minmax", range="global"))
    with pytest.raises(SpecError, match="asks for range 'doubling' and 4096 bins"):
        solve(digits, EntropyRecipe(method="entropy", bins=4096))


@pytest.mark.parametrize("policy", ["global", "square", "extend"])
def test_other_range_policies_run_on_the_sample(policy: str) -> None:
    recipe = EntropyRecipe(method="entropy", range=policy)
    found = trtcalib.calibrate(DIGITS / "model.onnx", ROOT / "data/digits-calibration.yaml", recipe, max_samples=96)
    doubling = trtcalib.calibrate(DIGITS / "model.onnx", ROOT / "data/digits-calibration.yaml", max_samples=96)
    assert found.provenance.range == policy
    assert found.scales.keys() == doubling.scales.keys()
    assert found.scales != doubling.scales


def test_constants_with_infinities_get_an_infinite_scale_as_in_real_caches(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        """
        g (float[N, 2] x) => (float[N, 2] y, float[N, 2] z) <float[1] zero = {0}, float[2] most = {1, -3.4028234e38}> {
          endless = Log(zero)
          y = Max(x, endless)
          z = Max(x, most)
        }
        """,
    )
    result = trtcalib.calibrate(path, np.ones((2, 2), np.float32))
    bits = {name: f"{bits_from_scale(scale):x}" for name, scale in result.scales.items()}
    assert bits["endless"] == bits["most"] == "7f800000"
    assert bits["x"] == bits["y"] == bits["z"] == "3c010a14"
    assert {f.code for f in result.manifest("x.cache").findings} >= {"infinite-values", "infinite-scale"}


def test_writing_puts_the_cache_and_its_manifest_side_by_side(digits: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "digits.cache"
    digits.write_cache(path, tensorrt_version="8.6.1")
    written = trtcalib.parse_cache(path.read_bytes())
    assert written.header == "TRT-8601-EntropyCalibration2"
    assert written.scales == digits.scales
    manifest = Manifest.model_validate_json(manifest_path(path).read_bytes())
    assert [tensor.name for tensor in manifest.tensors] == list(digits.scales)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["digits.cache", "digits.cache.json"]


def test_nothing_is_left_when_the_manifest_cannot_be_written(digits: Calibration, tmp_path: Path) -> None:
    manifest_path(tmp_path / "digits.cache").mkdir()
    with pytest.raises(OutputError):
        digits.write_cache(tmp_path / "digits.cache")
    assert [file.name for file in tmp_path.iterdir()] == ["digits.cache.json"]


def test_tensorrt_11_is_refused_with_the_way_out(digits: Calibration) -> None:
    with pytest.raises(TensorRTVersionError, match=r"removed calibrators.*explicit Q/DQ"):
        digits.cache("11.0.0")


def test_the_same_call_gives_the_same_bytes_with_any_number_of_workers(digits: Calibration) -> None:
    again = trtcalib.calibrate(DIGITS / "model.onnx", ROOT / "data/digits-calibration.yaml", drop_last=True, workers=3)
    assert again.cache() == digits.cache()
    assert again.manifest("x.cache") == digits.manifest("x.cache")
