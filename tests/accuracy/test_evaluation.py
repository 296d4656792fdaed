"""FP32 against INT8 from end to end: on the sample beside plain ONNX Runtime, on small models by hand, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import trtcalib
from tests.models import save_model
from tests.trt.fakes import hide
from trtcalib.accuracy.evaluation import Under, evaluate
from trtcalib.accuracy.result import Evaluation
from trtcalib.accuracy.task import Task
from trtcalib.batches import Batching
from trtcalib.core.cache import format_cache, make_cache
from trtcalib.errors import CacheMismatchError, DataError, MetricError, MissingPackageError, ModelError
from trtcalib.files import sample_folder
from trtcalib.onnx_graph import read_model
from trtcalib.qdq.convert import convert
from trtcalib.qdq.prepared import QdqOptions

DIGITS = sample_folder() / "digits"

CLASSES = "c (float[N,3] x) => (float[N,2] y) <float[3,2] w = {1, 0, 0, 1, 1, 1}> { y = MatMul(x, w) }"

TWO = """
two (float[N,3] x) => (float[N,2] y, int64[N] k, float[N,2] z) <float[3,2] w = {1, 0, 0, 1, 1, 1}, float[2,2] v = {1, 2, 3, 4}> {
    y = MatMul(x, w)
    k = ArgMax<axis = 1, keepdims = 0>(y)
    z = MatMul(y, v)
}
"""

MAP = "m (float[N,1,4,4] x) => (float[N,2,4,4] y) <float[2,1,1,1] w = {0.7, -0.3}> { y = Conv(x, w) }"


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def write_cache(path: Path, scales: dict[str, float]) -> Path:
    cache = make_cache({name: np.float32(scale) for name, scale in scales.items()}, "10.16.1", "EntropyCalibration2")
    path.write_bytes(format_cache(cache))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model.onnx", CLASSES)


@pytest.fixture(scope="module")
def task() -> Task:
    """The sample with few calibration images."""
    return Task(
        model=DIGITS / "model.onnx",
        data=sample_folder() / "digits-calibration.yaml",
        eval_data=sample_folder() / "digits-validation.yaml",
        batching=Batching(max_samples=64),
    )


@pytest.fixture(scope="module")
def found(task: Task) -> Evaluation:
    return evaluate(task, Under(calibrator="percentile-99"))


@pytest.fixture(scope="module")
def plain(task: Task) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, FP32's classes and INT8's, by ONNX Runtime alone on what the qdq command writes."""
    scales = trtcalib.calibrate(task.model, task.data, "percentile-99", max_samples=64).scales
    model = read_model(task.model)
    converted = convert(model, scales, QdqOptions()).proto
    images = np.load(DIGITS / "validation-images.npy").astype(np.float32).reshape(500, 1, 8, 8) / np.float32(16)
    found = [classes(proto, images) for proto in (model.proto, converted)]
    return np.load(DIGITS / "validation-labels.npy").astype(int), found[0], found[1]


def classes(proto: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.array([int(session.run(None, {"image": image[None]})[0].argmax()) for image in images])


class TestTheSample:
    """The embedded sample, clipped at 99 %, so that INT8 costs something."""

    def test_shares_are_what_a_plain_loop_counts(self, found: Evaluation, plain: Any) -> None:
        labels, fp32, int8 = plain
        assert found.metric.name == "top1"
        assert found.reference.value == (fp32 == labels).mean() == 0.996
        assert found.judgement.value == (int8 == labels).mean()
        assert found.judgement.loss == pytest.approx((fp32 == labels).mean() - (int8 == labels).mean())
        assert 0 < found.judgement.loss < 0.1
        assert found.only_reference == ((fp32 == labels) & (int8 != labels)).sum()
        assert found.only_variant == ((fp32 != labels) & (int8 == labels)).sum()

    def test_mcnemar_s_p_is_that_of_a_fair_coin(self, found: Evaluation) -> None:
        assert found.only_reference is not None
        assert found.only_variant is not None
        tosses, fewer = found.only_reference + found.only_variant, min(found.only_reference, found.only_variant)
        heads = sum(math.comb(tosses, k) for k in range(fewer + 1))
        assert found.judgement.p_value == pytest.approx(min(1, 2 * heads / 2**tosses))

    def test_classes_are_what_a_plain_loop_counts(self, found: Evaluation, plain: Any) -> None:
        labels, fp32, int8 = plain
        assert [c.label for c in found.classes] == [*range(10)]
        for c in found.classes:
            mine = labels == c.label
            assert (c.samples, c.reference, c.right) == (
                mine.sum(),
                (mine & (fp32 == labels)).sum(),
                (mine & (int8 == labels)).sum(),
            )
            assert c.interval.low is not None
            assert c.interval.high is not None
            assert 0 <= c.interval.low <= c.right / c.samples <= c.interval.high <= 1

    def test_agreement_is_what_a_plain_loop_counts(self, task: Task, found: Evaluation, plain: Any) -> None:
        _, fp32, int8 = plain
        agreed = evaluate(replace(task, metric="agreement"), Under(calibrator="percentile-99"))
        assert agreed.judgement.value == (fp32 == int8).mean() == found.judgement.outputs[0].agreement
        assert agreed.classes == []
        assert agreed.reference.value == 1

    def test_the_head_says_how_it_was_made(self, found: Evaluation) -> None:
        assert (found.simulated, found.held_out, found.labels) == (True, True, "validation-labels.npy")
        assert (found.quantized, found.weighted) == (8, 8)
        assert found.variant.method == "percentile 99"
        assert (found.cache, found.engine) == (None, None)
        assert found.calibration is not None
        assert (found.calibration.samples, found.evaluation.samples) == (64, 500)
        assert Evaluation.model_validate_json(found.model_dump_json()) == found

    def test_a_cache_gives_the_same_as_the_calibration_that_wrote_it(
        self, task: Task, found: Evaluation, tmp_path: Path
    ) -> None:
        result = trtcalib.calibrate(task.model, task.data, "percentile-99", max_samples=64)
        result.write_cache(tmp_path / "a.cache")
        cached = evaluate(task, Under(cache=tmp_path / "a.cache"), folder=tmp_path)
        assert cached.judgement == found.judgement
        assert cached.classes == found.classes
        assert (cached.cache, cached.variant.method, cached.calibration) == ("a.cache", "cache a.cache", None)
        assert not any("names are no tensors" in note for note in cached.notes)


def test_the_schema_is_the_model_s_own() -> None:
    path = Path(trtcalib.__file__).parent / "schemas" / "evaluation.schema.json"
    schema = Evaluation.model_json_schema(mode="serialization")
    assert path.read_text(encoding="utf-8") == json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


class TestByHand:
    """Small models."""

    def test_scores_by_hand(self, model: Path) -> None:
        """Scores (x0 + x2, x1 + x2); at a scale of 1, 0.4 and 0.3 are 0, and of equal scores the first counts."""
        data = np.array([[0.4, 0.3, 0], [0.3, 0.4, 0], [0, 2, 0], [2, 0, 0], [0.3, 0.4, 0]], np.float32)
        cache = write_cache(model.parent / "a.cache", {"x": 1.0})
        found = evaluate(Task(model=model, data=data, labels=[0, 1, 1, 1, 0]), Under(cache=cache))
        # FP32 says 0, 1, 1, 0, 1; INT8 0, 0, 1, 0, 0.
        assert (found.reference.value, found.judgement.value) == (0.6, 0.6)
        assert (found.judgement.loss, found.only_reference, found.only_variant, found.judgement.p_value) == (0, 1, 1, 1)
        assert [(c.label, c.samples, c.reference, c.right) for c in found.classes] == [(0, 2, 1, 2), (1, 3, 2, 1)]
        (output,) = found.judgement.outputs
        assert output.agreement == 0.6

    def test_without_labels_it_is_agreement_and_for_maps_the_noise(self, tmp_path: Path, model: Path) -> None:
        assert evaluate(Task(model=model, data=normal(20, 3))).metric.name == "agreement"
        other = save_model(tmp_path / "map.onnx", MAP)
        found = evaluate(Task(model=other, data=normal(20, 1, 4, 4)))
        assert (found.metric.name, found.metric.output, found.reference.value) == ("sqnr", None, None)
        assert (found.only_reference, found.only_variant, found.classes) == (None, None, [])
        assert found.judgement.value is not None
        assert found.judgement.loss == pytest.approx(10 ** (-found.judgement.value / 10))
        assert 20 < found.judgement.value < 60

    def test_integer_outputs_do_not_decide_the_noise(self, tmp_path: Path) -> None:
        model = save_model(tmp_path / "model.onnx", TWO)
        found = evaluate(Task(model=model, data=normal(60, 3), metric="sqnr"), Under(calibrator="percentile-90"))
        y, k, z = found.judgement.outputs
        assert (y.name, k.name, z.name) == ("y", "k", "z")
        assert k.cosine is None
        assert found.judgement.value == pytest.approx(min(y.sqnr_db or math.inf, z.sqnr_db or math.inf))

    def test_a_function_is_the_metric(self, model: Path) -> None:
        def first(outputs: Any, label: Any) -> float:
            return float(outputs["y"][0, 0]) * label

        data, labels = normal(30, 3), np.arange(30) / 10
        found = evaluate(Task(model=model, data=data, labels=labels, metric=first))
        assert found.metric.name.endswith("first")
        expected = ((data[:, 0] + data[:, 2]) * labels).mean()
        assert found.reference.value == pytest.approx(expected, rel=1e-5)
        assert found.judgement.loss == pytest.approx(found.reference.value - (found.judgement.value or 0), abs=1e-9)

    def test_one_sample_has_no_interval_that_says_anything(self, model: Path) -> None:
        found = evaluate(Task(model=model, data=normal(1, 3), labels=[0]))
        assert "1 sample is few: look at the intervals before the values" in found.notes
        assert found.judgement.interval is not None
        assert found.judgement.interval.low is not None
        assert found.judgement.interval.high is not None
        assert found.judgement.interval.high - found.judgement.interval.low > 0.7
        noise = evaluate(Task(model=model, data=normal(1, 3), metric="sqnr"))
        assert noise.judgement.loss_interval is not None
        assert noise.judgement.loss_interval.high is None

    def test_the_number_of_workers_changes_nothing(self, model: Path) -> None:
        one, four = (evaluate(Task(model=model, data=normal(50, 3), workers=n)) for n in (1, 4))
        assert one == four

    def test_the_public_names(self, model: Path) -> None:
        found = trtcalib.evaluate(trtcalib.Task(model=model, data=normal(10, 3)))
        assert found == evaluate(Task(model=model, data=normal(10, 3)))


class TestCaches:
    """Scales from a file."""

    def test_stale_names_are_counted_and_named(self, tmp_path: Path) -> None:
        model = save_model(tmp_path / "model.onnx", TWO)
        cache = write_cache(
            tmp_path / "a.cache", {"x": 0.02, "old_1": 0.5, "y": 0.02, "(Unnamed Layer* 3) [Shuffle]_output": 1}
        )
        found = evaluate(Task(model=model, data=normal(8, 3), output="y"), Under(cache=cache))
        (note,) = [note for note in found.notes if "names" in note]
        assert note.startswith(
            "2 of the cache's 4 names are no tensors of the model, the first 'old_1': trtcalib cache lint"
        )
        assert (found.quantized, found.weighted) == (2, 2)

    def test_a_missing_scale_leaves_a_node_in_float(self, tmp_path: Path) -> None:
        model = save_model(tmp_path / "model.onnx", TWO)
        found = evaluate(
            Task(model=model, data=normal(8, 3), output="y"),
            Under(cache=write_cache(tmp_path / "a.cache", {"x": 0.02})),
        )
        assert (found.quantized, found.weighted) == (1, 2)

    def test_names_map_what_the_parser_made(self, tmp_path: Path, model: Path) -> None:
        cache = write_cache(tmp_path / "a.cache", {"old": 0.02})
        with pytest.raises(
            CacheMismatchError, match="no usable scale for an input of any of the 1 weighted nodes"
        ) as raised:
            evaluate(Task(model=model, data=normal(8, 3)), Under(cache=cache))
        assert "a.cache" in str(raised.value)
        (tmp_path / "names.yaml").write_text("old: x\n")
        found = evaluate(Task(model=model, data=normal(8, 3)), Under(cache=cache, names=tmp_path / "names.yaml"))
        assert found.quantized == 1

    def test_a_file_that_is_no_cache(self, tmp_path: Path, model: Path) -> None:
        (tmp_path / "a.cache").write_text("hello")
        with pytest.raises(trtcalib.TrtcalibError, match=r"a\.cache"):
            evaluate(Task(model=model, data=normal(8, 3)), Under(cache=tmp_path / "a.cache"))


class TestErrors:
    """What cannot be judged."""

    def test_a_model_without_weights(self, tmp_path: Path) -> None:
        model = save_model(tmp_path / "model.onnx", "r (float[N,3] x) => (float[N,3] y) { y = Relu(x) }")
        with pytest.raises(ModelError, match="there is nothing to quantize"):
            evaluate(Task(model=model, data=normal(8, 3)))

    def test_a_model_that_is_quantized_already(self, tmp_path: Path) -> None:
        text = """q (float[N,3] x) => (float[N,3] y) <float s = {0.5}, int8 z = {0}> {
            i = QuantizeLinear(x, s, z)
            y = DequantizeLinear(i, s, z)
        }"""
        with pytest.raises(ModelError, match="Q/DQ nodes already"):
            evaluate(Task(model=save_model(tmp_path / "model.onnx", text), data=normal(8, 3)))

    def test_a_model_that_is_no_classifier_is_not_judged_by_top1(self, tmp_path: Path) -> None:
        model = save_model(tmp_path / "map.onnx", MAP)
        with pytest.raises(MetricError, match="needs one row of class scores per sample") as raised:
            evaluate(Task(model=model, data=normal(4, 1, 4, 4), labels=[0, 1, 0, 1]))
        assert "use --metric sqnr" in str(raised.value)

    def test_labels_from_one(self, model: Path) -> None:
        with pytest.raises(DataError, match=r"the label is 2 and output 'y' has 2 classes: labels from 1\?"):
            evaluate(Task(model=model, data=normal(3, 3), labels=[1, 2, 1]))

    def test_a_metric_that_raises_shows_where_and_at_which_sample(self, model: Path) -> None:
        def broken(outputs: Any, label: Any) -> float:
            return float(outputs["boxes"].sum() if label == 2 else 1)

        with pytest.raises(MetricError) as raised:
            evaluate(Task(model=model, data=normal(5, 3), labels=np.arange(5), metric=broken))
        assert raised.value.sample == "2"
        assert "raised KeyError: 'boxes'" in str(raised.value)
        assert 'return float(outputs["boxes"].sum()' in (raised.value.traceback or "")

    def test_an_engine_without_tensorrt(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hide(monkeypatch)
        with pytest.raises(MissingPackageError) as raised:
            evaluate(Task(model=model, data=normal(5, 3)), Under(engine=model.parent / "out.engine"))
        assert (raised.value.package, raised.value.exit_code) == ("tensorrt", 3)
