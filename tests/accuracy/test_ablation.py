"""The ablation: its cells are evaluate's, one pass collects for all rows, what was interrupted goes on, and planted faults come out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.accuracy import planted
from tests.cli.helpers import NET, RELU, listing, normal, save_model
from trtcalib.accuracy import ablation as module
from trtcalib.accuracy import rounds
from trtcalib.accuracy.ablation import JOURNAL, METHODS, RESULT, ablate
from trtcalib.accuracy.evaluation import Under, evaluate
from trtcalib.accuracy.result import Ablation
from trtcalib.accuracy.simulation import Choice, Simulation
from trtcalib.accuracy.task import Task, open_task
from trtcalib.batches import Batching
from trtcalib.calibration import calibrate
from trtcalib.errors import DataError, MetricError, ModelError, OutputError, SpecError
from trtcalib.judging.judge import ModelRunner, judge
from trtcalib.judging.judgements import judgement
from trtcalib.specs import load_recipe

COLUMNS = [(False, "tensor"), (False, "channel"), (True, "float"), (True, "channel")]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """The sample, 64 images to calibrate on and 60 others to judge on."""
    fault = planted.sound(tmp_path_factory.mktemp("sound"))
    return Task(
        model=fault.model,
        data=fault.calibration,
        eval_data=fault.evaluation,
        batching=Batching(max_samples=64),
        max_eval_samples=60,
    )


@pytest.fixture(scope="module")
def whole(sample: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ablation, Path]:
    """The sample's ablation with all methods, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return ablate(sample, folder), folder


@pytest.fixture
def net(tmp_path: Path) -> Task:
    """A small model on 40 unlabelled samples."""
    save_model(tmp_path / "model.onnx", NET)
    np.save(tmp_path / "data.npy", normal(40, 4))
    return Task(model=tmp_path / "model.onnx", data=tmp_path / "data.npy")


def both(result: Ablation) -> dict[str, float]:
    """The loss of each method with everything in INT8."""
    return {row.method: row.cells[3].judgement.loss for row in result.rows}


class TestCells:
    def test_a_row_per_method_and_four_cells_each(self, whole: tuple[Ablation, Path]) -> None:
        result, _ = whole
        assert [row.method for row in result.rows] == [
            "minmax",
            "entropy",
            "percentile 99.9",
            "percentile 99.99",
            "percentile 99.999",
            "percentile 99.9999",
            "mse",
        ]
        assert [load_recipe(name).model_dump() for name in METHODS] == [row.recipe for row in result.rows]
        for row in result.rows:
            assert [(cell.activations, cell.weights) for cell in row.cells] == COLUMNS
            assert [cell.weight_method for cell in row.cells] == [row.method, row.method, None, "minmax"]
        assert any("largest magnitude, which is what TensorRT does" in note for note in result.notes)

    @pytest.mark.parametrize("method", ["entropy", "percentile-99.9"])
    def test_both_is_evaluates_judgement(self, sample: Task, whole: tuple[Ablation, Path], method: str) -> None:
        result, folder = whole
        row = result.rows[METHODS.index(method)]
        alone = evaluate(sample, Under(calibrator=method), folder=folder)
        assert row.cells[3].judgement == alone.judgement
        assert result.reference == alone.reference
        assert (result.evaluation, result.calibration) == (alone.evaluation, alone.calibration)

    @pytest.mark.parametrize("column", [0, 1, 2])
    def test_the_other_cells_are_their_variants_judged_alone(
        self, sample: Task, whole: tuple[Ablation, Path], column: int
    ) -> None:
        opened = open_task(sample)
        scales = opened.calibrate("mse").scales
        choice = [
            Choice(scales=scales, activations=False, weights="tensor", weight_recipe=load_recipe("mse")),
            Choice(scales=scales, activations=False, weights="channel", weight_recipe=load_recipe("mse")),
            Choice(scales=scales, weights="float"),
        ][column]
        simulation = Simulation(opened.graph)
        variant = ModelRunner(simulation.model(simulation.plan(choice)))
        (judged,) = judge(ModelRunner(opened.graph), [variant], opened.samples)
        assert whole[0].rows[-1].cells[column].judgement == judgement(judged, opened.metric)

    def test_the_model_is_collected_from_once_and_float32_runs_once_per_group(
        self, net: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        collected: list[Any] = []
        monkeypatch.setattr(
            "trtcalib.accuracy.task.calibrate", lambda *a, **k: collected.append(a) or calibrate(*a, **k)
        )
        groups = spy_on_groups(monkeypatch)
        ablate(net, tmp_path / "out")
        assert len(collected) == 1
        assert groups == [8, 8, 8, 4]

    def test_few_variants_at_a_time_where_models_are_large_give_the_same(
        self, net: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result = ablate(net, tmp_path / "out")
        monkeypatch.setattr(rounds, "GROUP_BYTES", 1)
        groups = spy_on_groups(monkeypatch)
        assert ablate(net, tmp_path / "out") == result
        assert groups == [1] * 28

    def test_workers_change_nothing(self, net: Task, tmp_path: Path) -> None:
        ablate(net, tmp_path / "one")
        ablate(replace(net, workers=3), tmp_path / "two")
        assert listing(tmp_path / "one") == listing(tmp_path / "two")


def spy_on_groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note how many variants are judged in each pass."""
    groups: list[int] = []

    def spy(reference: Any, variants: Any, *rest: Any, **more: Any) -> Any:
        groups.append(len(variants))
        return judge(reference, variants, *rest, **more)

    monkeypatch.setattr(rounds, "judge", spy)
    return groups


class TestBest:
    def test_of_equals_the_one_with_least_noise_and_all_equals_cannot_be_told_apart(
        self, whole: tuple[Ablation, Path]
    ) -> None:
        result, _ = whole
        least = min(both(result).values())
        equal = {row.method: row for row in result.rows if both(result)[row.method] == least}
        assert len(equal) > 1
        sqnr = {name: row.cells[3].judgement.outputs[0].sqnr_db or 0.0 for name, row in equal.items()}
        assert result.best == max(sqnr, key=lambda name: sqnr[name])
        assert set(equal) - {result.best} <= set(result.indistinguishable)
        assert result.best not in result.indistinguishable

    def test_a_method_that_loses_clearly_is_told_apart(self, tmp_path: Path) -> None:
        task = faulty(planted.rare_values(tmp_path))
        result = ablate(task, tmp_path / "out", methods=["minmax", "entropy"])
        assert (result.best, result.indistinguishable) == ("minmax", [])


def faulty(fault: planted.Planted) -> Task:
    """The task of a planted fault, judged on held-out images."""
    return Task(model=fault.model, data=fault.calibration, eval_data=fault.evaluation, max_eval_samples=200)


class TestPlantedFaults:
    def test_rare_values_are_lost_by_what_clips(self, tmp_path: Path) -> None:
        losses = both(ablate(faulty(planted.rare_values(tmp_path)), tmp_path / "out"))
        ranked = sorted(losses, key=lambda name: losses[name])
        assert ranked[-1] in ("entropy", "percentile 99.9")
        assert losses["entropy"] > 0.4
        assert {"minmax", "percentile 99.99"} <= {name for name, loss in losses.items() if loss <= 0.01}

    def test_a_broken_image_is_clipped_by_percentiles(self, tmp_path: Path) -> None:
        result = ablate(faulty(planted.broken_image(tmp_path)), tmp_path / "out")
        losses = both(result)
        assert result.best.startswith("percentile")
        assert losses["minmax"] - losses[result.best] > 0.05
        assert "minmax" not in result.indistinguishable
        # The weights alone are not to blame.
        assert abs(result.rows[0].cells[1].judgement.loss) <= 0.01

    def test_no_method_helps_against_an_outlier_channel(self, tmp_path: Path) -> None:
        losses = both(ablate(faulty(planted.outlier_channel(tmp_path)), tmp_path / "out"))
        assert min(losses.values()) > 0.05


class TestGoingOn:
    def interrupted(self, task: Task, folder: Path, after: int, **options: Any) -> None:
        """Run until so many samples are done."""

        def progress(done: int, total: int | None) -> None:
            if done >= after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            ablate(task, folder, progress=progress, **options)

    def test_the_same_call_goes_on_and_writes_the_same_bytes(
        self, net: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ablate(net, tmp_path / "whole")
        # 40 to calibrate, and two groups of eight.
        self.interrupted(net, tmp_path / "out", 40 + 16 * 40 + 8)
        assert [file.name for file in (tmp_path / "out").iterdir()] == [JOURNAL]
        groups = spy_on_groups(monkeypatch)
        ablate(net, tmp_path / "out")
        assert groups == [8, 4]
        assert listing(tmp_path / "out") == listing(tmp_path / "whole")

    def test_after_the_last_judging_nothing_is_judged_again(
        self, net: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result = ablate(net, tmp_path / "whole")

        def full_disk(*_: Any) -> None:
            raise OutputError("ablation.json", "cannot be written: no space")

        with monkeypatch.context() as patch:
            patch.setattr(module, "write_files", full_disk)
            with pytest.raises(OutputError):
                ablate(net, tmp_path / "out")
        groups = spy_on_groups(monkeypatch)
        assert ablate(net, tmp_path / "out") == result
        assert groups == []

    def test_other_data_begin_anew(self, net: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.interrupted(net, tmp_path / "out", 40 + 16 * 40)
        np.save(tmp_path / "data.npy", normal(40, 4, seed=1))
        groups = spy_on_groups(monkeypatch)
        ablate(net, tmp_path / "out")
        assert groups == [8, 8, 8, 4]

    def test_other_rows_are_added_to_what_is_there(
        self, net: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.interrupted(net, tmp_path / "out", 40 + 9 * 40, methods=["minmax", "entropy", "mse"])
        groups = spy_on_groups(monkeypatch)
        result = ablate(net, tmp_path / "out", methods=["entropy", "percentile-99"])
        assert groups == [4]
        assert result == ablate(net, tmp_path / "again", methods=["entropy", "percentile-99"])

    def test_a_damaged_entry_is_judged_again(self, net: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        result = ablate(net, tmp_path / "whole", methods=["entropy", "minmax", "mse"])
        self.interrupted(net, tmp_path / "out", 40 + 9 * 40, methods=["entropy", "minmax", "mse"])
        journal = tmp_path / "out" / JOURNAL
        lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
        lines[2]["value"]["samples"] = "AAAA"
        lines[3]["value"]["judgement"] = {"loss": "much"}
        lines[4]["value"] = 7
        journal.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        groups = spy_on_groups(monkeypatch)
        assert ablate(net, tmp_path / "out", methods=["entropy", "minmax", "mse"]) == result
        assert groups == [3 + 4]

    def test_an_interrupted_collection_leaves_nothing(self, net: Task, tmp_path: Path) -> None:
        self.interrupted(net, tmp_path / "out", 5)
        assert not (tmp_path / "out").exists()

    def test_data_of_a_function_begin_anew(self, net: Task, tmp_path: Path) -> None:
        def feeds() -> list[dict[str, Any]]:
            return [{"x": row[np.newaxis]} for row in normal(40, 4)]

        self.interrupted(replace(net, data=feeds), tmp_path / "out", 40 + 16 * 40)
        assert not (tmp_path / "out").exists()


class TestProgress:
    def test_each_sample_of_each_variant_counts(self, net: Task, tmp_path: Path) -> None:
        told: list[tuple[int, int | None]] = []
        ablate(net, tmp_path / "out", methods=["minmax", "mse"], progress=lambda *now: told.append(now))
        assert told == sorted(told)
        assert told[-1] == (40 + 8 * 40, 40 + 8 * 40)
        assert {total for _, total in told} == {40 + 8 * 40}


class TestMetrics:
    @pytest.mark.parametrize("metric", ["agreement", "cosine", "sqnr"])
    def test_unlabelled_data_are_judged_against_float32(self, net: Task, tmp_path: Path, metric: str) -> None:
        result = ablate(replace(net, metric=metric), tmp_path / "out", methods=["percentile-50", "minmax"])
        assert result.metric.name == metric
        assert result.best == "minmax"
        losses = both(result)
        assert losses["minmax"] < losses["percentile 50"]
        alone = evaluate(replace(net, metric=metric), Under(calibrator="percentile-50"))
        assert result.rows[0].cells[3].judgement == alone.judgement

    def test_much_noise_is_told_from_little_in_pairs(self, net: Task, tmp_path: Path) -> None:
        result = ablate(replace(net, metric="sqnr"), tmp_path / "out", methods=["percentile-50", "minmax"])
        assert result.indistinguishable == []


class TestRefusals:
    def refused(self, expected: type[Exception], text: str, task: Task, folder: Path, **options: Any) -> None:
        with pytest.raises(expected) as caught:
            ablate(task, folder, **options)
        assert text in str(caught.value)
        assert not folder.exists()

    def test_a_model_without_weighted_nodes(self, net: Task, tmp_path: Path) -> None:
        save_model(tmp_path / "model.onnx", RELU)
        self.refused(ModelError, "there is nothing to quantize", net, tmp_path / "out")

    def test_labels_that_do_not_match(self, net: Task, tmp_path: Path) -> None:
        task = replace(net, labels=np.zeros(39, np.int64))
        self.refused(DataError, "39", task, tmp_path / "out")

    def test_top1_without_labels(self, net: Task, tmp_path: Path) -> None:
        self.refused(MetricError, "needs labels: give --labels", replace(net, metric="top1"), tmp_path / "out")

    def test_a_metric_that_raises_names_the_sample(self, net: Task, tmp_path: Path) -> None:
        def metric(outputs: Any, label: Any) -> float:
            raise RuntimeError("no")

        self.refused(MetricError, "at sample 0 raised RuntimeError: no", replace(net, metric=metric), tmp_path / "out")

    def test_nan_in_the_data(self, net: Task, tmp_path: Path) -> None:
        data = normal(40, 4)
        data[7, 2] = np.nan
        np.save(tmp_path / "data.npy", data)
        self.refused(DataError, "sample 7: input 'x' holds NaN", net, tmp_path / "out")

    @pytest.mark.parametrize(
        ("methods", "text"),
        [
            ([], "there is none; expected some, such as minmax, entropy"),
            (["entropy", "minmax", "entropy"], "methods: entropy: stands there 2 times"),
            (["percentile-99.9", "percentile-99.90"], "percentile 99.9: stands there 2 times"),
            (["entrop"], "entrop: no such calibrator"),
            (["percentile-0"], "percentile: 0.0 is not in (0, 100]"),
        ],
    )
    def test_methods(self, net: Task, tmp_path: Path, methods: list[str], text: str) -> None:
        self.refused(SpecError, text, net, tmp_path / "out", methods=methods)

    def test_methods_of_other_histograms(self, net: Task, tmp_path: Path) -> None:
        wide = load_recipe("mse").model_copy(update={"bins": 4096})
        text = "mse: asks for range 'doubling' and 4096 bins, and entropy for 'doubling' and 2048"
        self.refused(SpecError, text, net, tmp_path / "out", methods=["entropy", wide])

    def test_a_result_in_place_of_an_input(self, net: Task, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        np.savez(tmp_path / "x.npz", x=normal(8, 4))
        (tmp_path / "x.npz").rename(tmp_path / "out" / RESULT)
        with pytest.raises((OutputError, DataError)):
            ablate(replace(net, data=tmp_path / "out" / RESULT), tmp_path / "out")

    def test_a_folder_that_is_a_file(self, net: Task, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="cannot be made a folder"):
            ablate(net, tmp_path / "data.npy")


def test_further_files_are_written_with_the_result_or_not_at_all(net: Task, tmp_path: Path) -> None:
    def views(result: Ablation) -> dict[str, bytes]:
        return {"ablation.md": result.best.encode()}

    result = ablate(net, tmp_path / "out", methods=["minmax"], views=views)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {RESULT, "ablation.md"}
    assert (tmp_path / "out" / RESULT).read_text(encoding="utf-8") == result.model_dump_json(indent=2) + "\n"
    (tmp_path / "out" / "ablation.md").unlink()
    (tmp_path / "out" / "ablation.md").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        ablate(net, tmp_path / "out", methods=["mse"], views=views)
    assert Ablation.model_validate_json((tmp_path / "out" / RESULT).read_bytes()) == result
