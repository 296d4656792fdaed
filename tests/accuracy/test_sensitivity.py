"""The sensitivity study: planted culprits come first, what it says to leave in float helps, and what was interrupted goes on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.accuracy import planted
from tests.accuracy.planted import Planted
from tests.cli.helpers import NET, RELU, listing, normal, save_model
from trtcalib.accuracy import sensitivity as module
from trtcalib.accuracy.evaluation import Under, evaluate
from trtcalib.accuracy.layers import measure_layers
from trtcalib.accuracy.result import Sensitivity
from trtcalib.accuracy.sensitivity import JOURNAL, RESULT, measure_sensitivity
from trtcalib.accuracy.task import Task
from trtcalib.batches import Batching
from trtcalib.calibration import calibrate
from trtcalib.cli.qdq import conversion_options
from trtcalib.errors import CacheMismatchError, DataError, ModelError, OutputError, SpecError
from trtcalib.onnx_graph import read_model
from trtcalib.qdq.convert import convert
from trtcalib.samples.sources import open_source
from trtcalib.sessions import Session

MAX_LOSS = 0.01

TWO = """two (float[N, 4] x) => (float[N, 3] y)
<float[4, 4] v = {0.5, -1, 2, 0.25, 1.5, -0.5, 1, 0.125, -2, 0.75, -1.25, 0.375, 1, 2, 3, -4}, float[4, 3] w = {0.3, -1, 2, 0.7, 1.5, -0.2, 1, 0.1, -2, 0.6, -1.2, 0.4}>
{ a = MatMul(x, v) r = Relu(a) y = MatMul(r, w) }"""


def faulty(fault: Planted) -> Task:
    return Task(model=fault.model, data=fault.calibration, eval_data=fault.evaluation)


@pytest.fixture
def net(tmp_path: Path) -> Task:
    """Two layers and 40 unlabelled samples."""
    save_model(tmp_path / "model.onnx", TWO)
    np.save(tmp_path / "data.npy", normal(40, 4))
    return Task(model=tmp_path / "model.onnx", data=tmp_path / "data.npy", metric="sqnr")


def accuracy_with(fault: Planted, line: str) -> float:
    """Convert as ``trtcalib qdq`` with these options does, and count right images one by one."""
    patterns = shlex.split(line)[1::2]
    options = conversion_options("Conv,Gemm,MatMul", patterns, "error", "tensorrt", int8_weights=False, half=False)
    graph = read_model(fault.model)
    scales = calibrate(fault.model, fault.calibration, "entropy").scales
    session = Session(replace(graph, proto=convert(graph, scales, options).proto), ["probabilities"], simulate=True)
    labels = np.load(fault.labels)
    right = 0
    for label, sample in zip(labels, open_source(fault.evaluation, graph.inputs).samples(None), strict=True):
        (row,) = session.run(["probabilities"], {"image": sample.load()["image"]}, "", "")
        right += int(row.argmax() == label)
    return right / len(labels)


@pytest.mark.parametrize("plant", [planted.outlier_channel, planted.rare_values, planted.broken_image])
def test_the_planted_culprit_is_ranked_first_and_in_float_it_brings_the_accuracy_back(
    tmp_path: Path, plant: Callable[[Path], Planted]
) -> None:
    fault = plant(tmp_path)
    result = measure_sensitivity(faulty(fault), tmp_path / "out", max_loss=MAX_LOSS)
    first = result.layers[0]
    assert (first.rank, first.name, first.tensor, first.output) == (
        1,
        fault.culprit,
        fault.activation,
        fault.culprit_output,
    )
    assert first.gain == pytest.approx(result.full.loss, abs=MAX_LOSS)
    assert result.full.loss > 0.05
    assert result.held_out
    found = result.fallback
    assert found is not None
    assert (found.nodes, found.outputs, found.reached) == ([fault.culprit], [fault.culprit_output], True)
    float32 = result.reference.value
    assert float32 is not None
    assert accuracy_with(fault, "") == pytest.approx(float32 - result.full.loss, abs=1e-9)
    with_it = accuracy_with(fault, found.dialects["qdq"])
    assert with_it == pytest.approx(float32 - found.loss, abs=1e-9)
    assert with_it >= float32 - MAX_LOSS


def test_the_share_that_is_clipped_tells_clipping_from_rounding(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    rare = measure_sensitivity(faulty(planted.rare_values(tmp_path / "a")), tmp_path / "a" / "out").layers[0]
    broken = measure_sensitivity(faulty(planted.broken_image(tmp_path / "b")), tmp_path / "b" / "out").layers[0]
    assert rare.clipped_share is not None
    assert rare.clipped_share > 0.9
    assert broken.clipped_share == pytest.approx(0, abs=1e-3)


class TestResult:
    def test_full_int8_is_what_evaluate_says(self, net: Task, tmp_path: Path) -> None:
        result = measure_sensitivity(net, tmp_path / "out")
        alone = evaluate(net, Under(calibrator="entropy"), folder=tmp_path / "out")
        assert result.full == alone.judgement
        assert (result.evaluation, result.calibration) == (alone.evaluation, alone.calibration)
        assert result.variant.method == "entropy"
        assert result.fallback is None

    def test_the_file_is_the_result_and_the_journal_goes(self, net: Task, tmp_path: Path) -> None:
        result = measure_sensitivity(net, tmp_path / "out")
        assert Sensitivity.model_validate_json((tmp_path / "out" / RESULT).read_bytes()) == result
        assert [file.name for file in (tmp_path / "out").iterdir()] == [RESULT]

    def test_ranks_follow_the_noise_and_the_network_the_graph(self, net: Task, tmp_path: Path) -> None:
        result = measure_sensitivity(net, tmp_path / "out")
        decibels = [layer.only_sqnr_db for layer in result.layers]
        assert decibels == sorted(decibels, key=lambda value: value or 0)
        assert [layer.rank for layer in result.layers] == [1, 2]
        assert [tensor.output for tensor in result.network] == ["a", "y"]

    def test_what_stays_in_int8_is_told_of_all_multiplications(self, net: Task, tmp_path: Path) -> None:
        """16 and 12 of 28."""
        result = measure_sensitivity(net, tmp_path / "out", max_loss=0)
        assert {layer.output: layer.macs for layer in result.layers} == {"a": 16, "y": 12}
        assert result.fallback is not None
        assert (result.fallback.loss, result.fallback.reached, result.fallback.macs_int8) == (0, True, 0)
        assert sorted(result.fallback.outputs) == ["a", "y"]

    def test_a_bound_that_full_int8_meets_needs_no_set(self, net: Task, tmp_path: Path) -> None:
        full = measure_sensitivity(net, tmp_path / "out").full
        assert measure_sensitivity(net, tmp_path / "again", max_loss=full.loss).fallback is None

    def test_one_node_is_enough_where_its_measurement_says_so(self, net: Task, tmp_path: Path) -> None:
        layers = measure_sensitivity(net, tmp_path / "out").layers
        best = min(layers, key=lambda layer: layer.all_but_loss)
        found = measure_sensitivity(net, tmp_path / "again", max_loss=best.all_but_loss * 1.0001).fallback
        assert found is not None
        assert (found.outputs, found.evaluations) == ([best.output], 1)
        assert found.loss == pytest.approx(best.all_but_loss, rel=1e-6)

    def test_nodes_without_names_are_told_to_qdq_and_noted_for_the_others(self, net: Task, tmp_path: Path) -> None:
        result = measure_sensitivity(net, tmp_path / "out", max_loss=0)
        assert result.fallback is not None
        assert list(result.fallback.dialects) == ["qdq"]
        assert [note.split()[0] for note in result.notes if "cannot be told" in note] == [
            "build",
            "trtexec",
            "modelopt",
        ]

    def test_without_labels_classes_agree(self, tmp_path: Path) -> None:
        fault = planted.outlier_channel(tmp_path)
        images = np.load(tmp_path / "validation-images.npy").astype(np.float32) / 16
        task = Task(model=fault.model, data=fault.calibration, eval_data=images, output="probabilities")
        result = measure_sensitivity(task, tmp_path / "out", max_loss=MAX_LOSS)
        assert (result.metric.name, result.labels) == ("agreement", None)
        assert result.layers[0].name == fault.culprit
        assert result.fallback is not None
        assert result.fallback.nodes == [fault.culprit]

    def test_workers_change_nothing(self, net: Task, tmp_path: Path) -> None:
        measure_sensitivity(replace(net, workers=1), tmp_path / "one", max_loss=0)
        measure_sensitivity(replace(net, workers=4), tmp_path / "two", max_loss=0)
        assert listing(tmp_path / "one") == listing(tmp_path / "two")


class TestCache:
    def test_the_scales_of_a_cache_are_those_of_the_calibration(self, net: Task, tmp_path: Path) -> None:
        calibrate(net.model, net.data, "minmax").write_cache(tmp_path / "model.cache")
        ours = measure_sensitivity(net, tmp_path / "out", calibrator="minmax")
        theirs = measure_sensitivity(net, tmp_path / "again", cache=tmp_path / "model.cache")
        assert theirs.layers == ours.layers
        assert theirs.full == ours.full
        assert theirs.variant.method == "cache model.cache"
        assert (theirs.calibration, theirs.held_out) == (None, False)
        assert any("the scales are those of the cache" in note for note in theirs.notes)

    def test_a_cache_of_another_model_is_refused_and_leaves_nothing(self, net: Task, tmp_path: Path) -> None:
        save_model(tmp_path / "other.onnx", RELU.replace("x", "u").replace("y", "v"))
        calibrate(tmp_path / "other.onnx", normal(8, 4)).write_cache(tmp_path / "other.cache")
        with pytest.raises(CacheMismatchError, match="no usable scale for an input of any of the 2 weighted nodes"):
            measure_sensitivity(net, tmp_path / "out", cache=tmp_path / "other.cache")
        assert not (tmp_path / "out").exists()

    def test_names_map_what_the_parser_made(self, net: Task, tmp_path: Path) -> None:
        calibrate(net.model, net.data, "minmax").write_cache(tmp_path / "model.cache")
        text = (tmp_path / "model.cache").read_text(encoding="utf-8").replace("r: ", "parsed: ")
        (tmp_path / "model.cache").write_text(text, encoding="utf-8")
        (tmp_path / "names.yaml").write_text("parsed: r\n", encoding="utf-8")
        without = measure_sensitivity(net, tmp_path / "out", cache=tmp_path / "model.cache")
        mapped = measure_sensitivity(
            net, tmp_path / "again", cache=tmp_path / "model.cache", names=tmp_path / "names.yaml"
        )
        assert [layer.output for layer in without.network] == ["a"]
        assert [layer.output for layer in mapped.network] == ["a", "y"]


class TestGoingOn:
    @pytest.fixture(autouse=True)
    def one_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "group_size", lambda _: 1)

    def measured(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Note which nodes are measured from now on."""
        nodes: list[str] = []

        def spy(simulation: Any, choice: Any, group: Any, *rest: Any, **more: Any) -> Any:
            nodes.extend(group)
            return measure_layers(simulation, choice, group, *rest, **more)

        monkeypatch.setattr(module, "measure_layers", spy)
        return nodes

    def interrupted(self, task: Task, folder: Path, after: int, **options: Any) -> None:
        """Run until so many samples are done."""

        def progress(done: int, total: int | None) -> None:
            if done >= after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            measure_sensitivity(task, folder, progress=progress, **options)

    @pytest.mark.parametrize(
        ("after", "left"), [(40 + 40 + 1, ["a", "y"]), (40 + 40 + 80 + 1, ["y"]), (40 + 40 + 160 + 1, [])]
    )
    def test_the_same_call_measures_what_is_missing_and_writes_the_same_bytes(
        self, net: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, left: list[str]
    ) -> None:
        """40 samples to calibrate, 40 of full INT8, two variants of each node, and the search."""
        measure_sensitivity(net, tmp_path / "whole", max_loss=0)
        self.interrupted(net, tmp_path / "out", after, max_loss=0)
        assert [file.name for file in (tmp_path / "out").iterdir()] == [JOURNAL]
        nodes = self.measured(monkeypatch)
        measure_sensitivity(net, tmp_path / "out", max_loss=0)
        assert nodes == left
        assert listing(tmp_path / "out") == listing(tmp_path / "whole")

    def test_another_bound_measures_no_node_again(
        self, net: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.interrupted(net, tmp_path / "out", 40 + 40 + 160 + 1, max_loss=0)
        nodes = self.measured(monkeypatch)
        result = measure_sensitivity(net, tmp_path / "out")
        assert nodes == []
        assert result == measure_sensitivity(net, tmp_path / "whole")

    def test_other_scales_begin_anew(self, net: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.interrupted(net, tmp_path / "out", 40 + 40 + 80 + 1)
        nodes = self.measured(monkeypatch)
        assert measure_sensitivity(net, tmp_path / "out", calibrator="percentile-90") == measure_sensitivity(
            net, tmp_path / "whole", calibrator="percentile-90"
        )
        assert nodes == ["a", "y", "a", "y"]

    def test_a_damaged_entry_is_measured_again(
        self, net: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.interrupted(net, tmp_path / "out", 40 + 40 + 80 + 1)
        journal = tmp_path / "out" / JOURNAL
        lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
        for line in lines[1:]:
            if line["name"].endswith("node a"):
                line["value"] = {"noise": "much"}
        journal.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        nodes = self.measured(monkeypatch)
        result = measure_sensitivity(net, tmp_path / "out")
        assert nodes == ["a", "y"]
        assert result == measure_sensitivity(net, tmp_path / "whole")

    def test_data_from_a_function_leave_no_journal(self, net: Task, tmp_path: Path) -> None:
        data = normal(40, 4)
        task = replace(net, data=lambda: ({"x": row[np.newaxis]} for row in data))
        self.interrupted(task, tmp_path / "out", 100)
        assert not (tmp_path / "out").exists()
        assert measure_sensitivity(task, tmp_path / "out").evaluation.samples == 40


class TestRefused:
    @pytest.mark.parametrize("max_loss", [-0.5, float("nan")])
    def test_a_bound_that_is_none(self, net: Task, tmp_path: Path, max_loss: float) -> None:
        with pytest.raises(SpecError, match="expected a number of at least 0"):
            measure_sensitivity(net, tmp_path / "out", max_loss=max_loss)
        assert not (tmp_path / "out").exists()

    def test_a_model_without_weights(self, net: Task, tmp_path: Path) -> None:
        save_model(tmp_path / "model.onnx", RELU)
        with pytest.raises(ModelError, match="there is nothing to quantize"):
            measure_sensitivity(net, tmp_path / "out")

    def test_labels_that_do_not_fit(self, net: Task, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="39"):
            measure_sensitivity(replace(net, labels=np.zeros(39, int), metric="top1"), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_a_result_that_would_be_an_input(self, tmp_path: Path) -> None:
        save_model(tmp_path / RESULT, NET)
        task = Task(model=tmp_path / RESULT, data=normal(8, 4))
        with pytest.raises(OutputError, match="is an input of this study"):
            measure_sensitivity(task, tmp_path)


def test_progress_never_falls_and_never_passes_its_total(net: Task, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    measure_sensitivity(
        replace(net, batching=Batching(max_samples=16)),
        tmp_path / "out",
        max_loss=0,
        progress=lambda done, total: told.append((done, total)),
    )
    done = [each for each, _ in told]
    assert done == sorted(done)
    assert len({total for _, total in told}) == 1
    assert told[-1][0] <= (told[-1][1] or 0)
