"""What a study starts from: which samples are calibrated on, which are judged, with which labels, and what is said of that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models import FIXED, save_model
from trtcalib.accuracy.result import Setting
from trtcalib.accuracy.task import OpenTask, Task, open_task
from trtcalib.batches import Batching
from trtcalib.errors import DataError, MetricError, ModelError
from trtcalib.judging.judge import JudgedSamples, ModelRunner, judge

CLASSES = "c (float[N,3] x) => (float[N,2] y) <float[3,2] w = {1, 0, 0, 1, 1, 1}> { y = MatMul(x, w) }"

CLASSES_OF_4 = CLASSES.replace("N", "4")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model.onnx", CLASSES)


def rows(samples: int) -> np.ndarray:
    """Row i holds i, 1, 1."""
    return np.array([[i, 1, 1] for i in range(samples)], np.float32)


def numbers(samples: JudgedSamples) -> list[int]:
    return [int(row) for run in samples.batches.runs() for row in run.load()["x"][:, 0]]


def calibrated_on(opened: OpenTask) -> list[int]:
    samples = opened.calibration_samples()
    return numbers(samples)


def own(samples: JudgedSamples) -> bool:
    """Whether each sample's label is its number."""
    return [samples.label(i) for i in range(len(found))] == found if (found := numbers(samples)) else False


def value(outputs: Any, label: Any) -> float:
    return float(label)


def setting(opened: OpenTask, calibration: Any, folder: Path) -> Setting:
    """The facts of a task that was judged."""
    runner = ModelRunner(opened.graph)
    judge(runner, [runner], opened.samples)
    return Setting(**opened.facts(calibration, folder), reference={"value": 1, "interval": None})


class TestSplit:
    """Every fourth sample is held out where nothing else is given to judge on."""

    def test_every_fourth_with_its_label(self, model: Path) -> None:
        opened = open_task(Task(model=model, data=rows(11), labels=np.arange(11), metric=value), split=True)
        assert numbers(opened.samples) == [3, 7]
        assert calibrated_on(opened) == [0, 1, 2, 4, 5, 6, 8, 9, 10]
        assert own(opened.samples)
        assert own(opened.calibration_samples())
        assert opened.held_out

    @given(samples=st.integers(4, 60), most=st.none() | st.integers(4, 70), held=st.none() | st.integers(1, 20))
    def test_the_parts_share_nothing_and_are_all_that_is_used(
        self, tmp_path_factory: Any, samples: int, most: int | None, held: int | None
    ) -> None:
        model = save_model(tmp_path_factory.getbasetemp() / "split.onnx", CLASSES)
        task = Task(
            model=model,
            data=rows(samples),
            labels=np.arange(samples),
            metric=value,
            batching=Batching(max_samples=most),
            max_eval_samples=held,
        )
        opened = open_task(task, split=True)
        used = min(samples, most or samples)
        assert numbers(opened.samples) == list(range(3, used, 4))[:held]
        assert calibrated_on(opened) == [i for i in range(used) if i % 4 != 3]
        assert own(opened.samples)
        assert own(opened.calibration_samples())
        judge(ModelRunner(opened.graph), [], opened.samples)  # which counts the labels

    def test_whole_feeds_of_a_fixed_batch_keep_their_labels(self, tmp_path: Path) -> None:
        model = save_model(tmp_path / "model.onnx", CLASSES_OF_4)
        feeds = {"x": rows(4)}, {"x": rows(8)[4:]}
        task = Task(model=model, data=[*feeds, *feeds], labels=[*range(8)] * 2, metric=value)
        assert own(open_task(task).samples)
        with pytest.raises(DataError, match="one order only, so that none can be held out: give --eval-data"):
            open_task(task, split=True)

    def test_arrays_of_whole_feeds_keep_the_labels_of_each_row(self, tmp_path: Path) -> None:
        text = "s (float[2, 3] x, float factor) => (float[2, 3] y) { y = Mul(x, factor) }"
        model = save_model(tmp_path / "model.onnx", text)
        data = {"x": rows(18).reshape(9, 2, 3), "factor": np.ones(9, np.float32)}
        opened = open_task(
            Task(model=model, data=data, labels=np.arange(18), metric=value, max_eval_samples=3), split=True
        )
        assert numbers(opened.samples) == [6, 7]
        assert opened.samples.labels is not None
        assert opened.samples.labels.values.tolist() == [6, 7]
        assert calibrated_on(opened) == [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 16, 17]
        assert opened.calibration_labels is not None
        assert opened.calibration_labels.values.tolist() == calibrated_on(opened)

    def test_a_fixed_batch_takes_what_fills_it(self, tmp_path: Path) -> None:
        model = save_model(tmp_path / "model.onnx", CLASSES_OF_4)
        opened = open_task(Task(model=model, data=rows(35), labels=np.arange(35), metric=value), split=True)
        assert numbers(opened.samples) == [3, 7, 11, 15, 19, 23, 27, 31]
        assert own(opened.samples)

    def test_evaluation_data_go_before(self, model: Path) -> None:
        opened = open_task(Task(model=model, data=rows(8), eval_data=rows(3) + 100), split=True)
        assert numbers(opened.samples) == [100, 101, 102]
        assert calibrated_on(opened) == [*range(8)]

    def test_without_a_split_the_same_samples_serve_twice(self, model: Path) -> None:
        opened = open_task(Task(model=model, data=rows(8)))
        assert numbers(opened.samples) == calibrated_on(opened) == [*range(8)]
        assert not opened.held_out

    @pytest.mark.parametrize("samples", [1, 3])
    def test_too_few_to_hold_one_out(self, model: Path, samples: int) -> None:
        with pytest.raises(DataError, match="every fourth sample would be none: there are too few samples"):
            open_task(Task(model=model, data=rows(samples)), split=True)

    def test_a_function_cannot_be_split(self, model: Path) -> None:
        task = Task(model=model, data=lambda: iter([{"x": rows(1)}]))
        with pytest.raises(DataError, match="none can be held out: give --eval-data"):
            open_task(task, split=True)


class TestLabels:
    """Whose labels they are."""

    def test_max_samples_is_the_calibration_s_where_other_data_are_judged(self, model: Path) -> None:
        task = Task(
            model=model,
            data=rows(8),
            eval_data=rows(6),
            labels=np.arange(6),
            metric=value,
            batching=Batching(max_samples=2),
        )
        opened = open_task(task)
        assert numbers(opened.samples) == [*range(6)]
        assert calibrated_on(opened) == [0, 1]
        assert own(opened.samples)

    def test_labels_of_the_judged_data_are_never_those_of_the_calibration_data(self, model: Path) -> None:
        opened = open_task(Task(model=model, data=rows(8), eval_data=rows(6), labels=[0, 1] * 3))
        assert opened.metric.name == "top1"
        assert opened.calibration_labels is None
        assert opened.calibration_samples().metric.name == "agreement"
        by_function = open_task(Task(model=model, data=rows(8), eval_data=rows(6), labels=[0, 1] * 3, metric=value))
        assert by_function.calibration_samples().metric.name == "agreement"

    def test_a_dataset_yaml_states_its_own(self, model: Path, tmp_path: Path) -> None:
        for name, samples in (("calibration", 8), ("evaluation", 5)):
            np.save(tmp_path / f"{name}.npy", rows(samples))
            (tmp_path / f"{name}.txt").write_text("".join(f"{i % 2}\n" for i in range(samples)))
            (tmp_path / f"{name}.yaml").write_text(f"source: {name}.npy\nlabels: {name}.txt\n")
        opened = open_task(
            Task(model=model, data=str(tmp_path / "calibration.yaml"), eval_data=tmp_path / "evaluation.yaml")
        )
        assert opened.calibration_labels is not None
        assert opened.samples.labels is not None
        assert opened.calibration_labels.values.tolist() == [0, 1] * 4
        assert opened.samples.labels.values.tolist() == [0, 1, 0, 1, 0]
        assert opened.calibration_samples().metric == opened.metric

    @pytest.mark.parametrize("count", [5, 7])
    def test_another_number_of_labels_is_refused(self, model: Path, count: int) -> None:
        with pytest.raises(
            DataError, match=f"found {count} labels for the 6 samples of <arrays>, expected one per sample"
        ):
            open_task(Task(model=model, data=rows(6), labels=np.zeros(count, int)))

    def test_without_labels_top1_is_refused(self, model: Path) -> None:
        with pytest.raises(MetricError, match="top1 needs labels"):
            open_task(Task(model=model, data=rows(6), metric="top1"))


class TestFacts:
    """What stands at the head of a result."""

    def test_the_same_samples_for_both_are_told(self, model: Path, tmp_path: Path) -> None:
        np.save(tmp_path / "data.npy", rows(6))
        opened = open_task(Task(model=model, data=tmp_path / "data.npy", labels=[0, 1] * 3))
        found = setting(opened, opened.calibrate("minmax"), tmp_path / "results")
        assert (found.held_out, found.labels, found.metric.name, found.metric.output) == (
            False,
            "<labels>",
            "top1",
            "y",
        )
        assert (found.model.path, found.evaluation.path) == ("../model.onnx", "../data.npy")
        assert found.calibration is not None
        assert (found.calibration.path, found.calibration.samples, found.calibration.sha256) == (
            "../data.npy",
            6,
            found.evaluation.sha256,
        )
        assert found.notes == [
            "the samples that are judged are those that the scales were made from: give --eval-data, or --hold-out, for an honest figure",
            "6 samples are few: look at the intervals before the values",
        ]
        assert str(tmp_path) not in found.model_dump_json()

    def test_evaluation_data_with_the_same_content_are_not_held_out(self, model: Path, tmp_path: Path) -> None:
        for name in ("data", "same", "other"):
            np.save(tmp_path / f"{name}.npy", rows(6) + (name == "other"))
        for name, held_out in (("same", False), ("other", True)):
            opened = open_task(Task(model=model, data=tmp_path / "data.npy", eval_data=tmp_path / f"{name}.npy"))
            found = setting(opened, opened.calibrate("minmax"), tmp_path)
            assert found.held_out is held_out
            assert any("give --eval-data" in note for note in found.notes) is not held_out

    def test_a_split_is_told_with_both_numbers(self, model: Path, tmp_path: Path) -> None:
        np.save(tmp_path / "data.npy", rows(400))
        opened = open_task(Task(model=model, data=tmp_path / "data.npy"), split=True)
        found = setting(opened, opened.calibrate("minmax"), tmp_path)
        assert (found.held_out, found.evaluation.samples) == (True, 100)
        assert found.calibration is not None
        assert (found.calibration.samples, found.calibration.path) == (300, "data.npy")
        assert found.calibration.sha256 != found.evaluation.sha256
        assert found.notes == ["every fourth sample was held out for the judging; the scales were made from the others"]
        assert found.batching is not None
        assert found.batching.batches == 10

    def test_without_a_calibration_it_is_not_known_what_the_scales_were_made_from(
        self, model: Path, tmp_path: Path
    ) -> None:
        found = setting(open_task(Task(model=model, data=rows(200))), None, tmp_path)
        assert (found.calibration, found.batching, found.held_out) == (None, None, False)
        assert found.notes == [
            "whether the scales were made from the judged samples is not known here; if they were, the figures flatter"
        ]
        assert setting(open_task(Task(model=model, data=rows(2), eval_data=rows(200))), None, tmp_path).notes == []

    def test_samples_that_fill_no_batch_are_told(self, tmp_path: Path) -> None:
        model = save_model(tmp_path / "model.onnx", CLASSES_OF_4)
        found = setting(open_task(Task(model=model, data=rows(403), labels=np.arange(403) % 2)), None, tmp_path)
        assert found.evaluation.samples == 400
        assert "3 samples at the end fill no batch of the model and are not judged" in found.notes

    def test_nothing_depends_on_the_number_of_workers(self, model: Path, tmp_path: Path) -> None:
        found = []
        for workers in (1, 3):
            opened = open_task(Task(model=model, data=rows(20), workers=workers))
            found.append(setting(opened, opened.calibrate("entropy"), tmp_path).model_dump_json())
        assert found[0] == found[1]
        assert json.loads(found[0])["evaluation"]["samples"] == 20


class TestErrors:
    """What cannot be used."""

    def test_no_model(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="nowhere"):
            open_task(Task(model=tmp_path / "nowhere.onnx", data=rows(2)))

    def test_data_that_do_not_fit(self, tmp_path: Path) -> None:
        model = save_model(tmp_path / "model.onnx", FIXED)
        opened = open_task(Task(model=model, data=np.ones((8, 5), np.float32)))
        with pytest.raises(DataError, match=r"input 'x' has shape \(1, 5\), the model takes \[4, 3\]"):
            numbers(opened.samples)

    def test_no_data(self, model: Path) -> None:
        with pytest.raises(DataError, match="no such file or folder"):
            open_task(Task(model=model, data="nowhere.npz"))

    def test_an_output_that_does_not_exist(self, model: Path) -> None:
        with pytest.raises(MetricError, match="finds no output 'boxes'"):
            open_task(Task(model=model, data=rows(4), output="boxes"))
