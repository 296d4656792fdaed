"""The sweep: searched on calibration samples, judged on others, its cache and what the manifest tells of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.accuracy import planted
from tests.accuracy.test_ablation import faulty, spy_on_groups
from tests.cli.helpers import NET, RELU, listing, manifest, normal, save_model
from trtcalib.accuracy.evaluation import Under, evaluate
from trtcalib.accuracy.sweep import CACHE, JOURNAL, RESULT, sweep
from trtcalib.accuracy.task import Task
from trtcalib.batches import Batching, plan_batches
from trtcalib.calibration import calibrate
from trtcalib.core.cache import parse_cache
from trtcalib.errors import DataError, MetricError, ModelError, OutputError, SpecError, TensorRTVersionError
from trtcalib.files import sha256_of
from trtcalib.onnx_graph import read_model
from trtcalib.reuse import Wanted, find_reusable
from trtcalib.samples.sources import open_source
from trtcalib.specs import load_recipe
from trtcalib.verification import verify_cache

BUDGET = 8
"""Enough for some of every kind, and quick."""


@pytest.fixture
def net(tmp_path: Path) -> Task:
    """A small model, 40 samples to calibrate on and 24 others."""
    save_model(tmp_path / "model.onnx", NET)
    np.save(tmp_path / "data.npy", normal(40, 4))
    np.save(tmp_path / "other.npy", normal(24, 4, seed=1))
    return Task(
        model=tmp_path / "model.onnx", data=tmp_path / "data.npy", eval_data=tmp_path / "other.npy", metric="sqnr"
    )


class TestResult:
    def test_winner_and_baseline_are_judged_on_the_held_out_samples(self, net: Task, tmp_path: Path) -> None:
        result = sweep(net, tmp_path / "out", budget=BUDGET)
        assert (result.evaluation.samples, result.searched.samples, result.held_out) == (24, 40, True)
        baseline = evaluate(net, Under(calibrator="entropy"))
        assert (result.baseline.judgement, result.reference) == (baseline.judgement, baseline.reference)
        recipe = load_recipe(next(n for n in ("mse", "minmax") if n == result.winner.method))
        assert result.winner.judgement == evaluate(net, Under(calibrator=recipe)).judgement
        assert result.gain == result.baseline.judgement.loss - result.winner.judgement.loss
        assert result.gain_interval is not None
        assert result.gain_interval.low is not None
        assert result.is_significant == (result.gain_interval.low > 0)

    def test_candidates_are_judged_on_the_calibration_samples(self, net: Task, tmp_path: Path) -> None:
        result = sweep(net, tmp_path / "out", budget=BUDGET)
        on_themselves = replace(net, eval_data=None)
        assert [each.method for each in result.candidates[:2]] == ["entropy", "minmax"]
        for candidate in result.candidates[:2]:
            alone = evaluate(on_themselves, Under(calibrator=candidate.method))
            assert candidate.judgement == alone.judgement

    def test_the_winner_loses_least_of_the_candidates(self, net: Task, tmp_path: Path) -> None:
        result = sweep(net, tmp_path / "out", budget=BUDGET)
        best = min(result.candidates, key=lambda each: each.judgement.loss)
        assert (result.winner.method, result.winner.recipe) == (best.method, best.recipe)

    def test_without_other_data_every_fourth_sample_is_held_out(self, net: Task, tmp_path: Path) -> None:
        result = sweep(replace(net, eval_data=None), tmp_path / "out", budget=2)
        assert (result.searched.samples, result.evaluation.samples, result.held_out) == (30, 10, True)
        assert result.calibration is not None
        assert result.calibration.samples == 30
        assert "every fourth sample was held out for the judging; the scales were made from the others" in result.notes
        entry = parse_cache((tmp_path / "out" / CACHE).read_bytes())
        rest = np.load(tmp_path / "data.npy")[[i for i in range(40) if i % 4 != 3]]
        assert dict(entry.scales) == calibrate(net.model, rest, load_recipe(result.winner.method)).scales

    @pytest.mark.parametrize("budget", [1, 2, 5, 20])
    def test_the_budget_is_kept(self, net: Task, tmp_path: Path, budget: int) -> None:
        result = sweep(net, tmp_path / "out", budget=budget)
        assert len(result.candidates) <= budget
        assert result.evaluations == len(result.candidates) + (1 if result.winner.method == "entropy" else 2)

    def test_with_a_budget_of_one_entropy_wins(self, net: Task, tmp_path: Path) -> None:
        result = sweep(net, tmp_path / "out", budget=1)
        assert (result.winner, result.gain, result.is_significant) == (result.baseline, 0.0, False)
        assert "no candidate did better than entropy, whose scales winner.cache holds" in result.notes

    def test_equal_candidates_are_told_apart_by_noise(self, net: Task, tmp_path: Path) -> None:
        task = replace(net, metric=lambda outputs, label: 1.0)
        result = sweep(task, tmp_path / "out", budget=BUDGET)
        assert {each.judgement.loss for each in result.candidates} == {0.0}
        noise = {each.method: each.judgement.outputs[0].sqnr_db for each in result.candidates}
        assert noise[result.winner.method] == max(value for value in noise.values() if value is not None)
        assert any("the highest SQNR" in note for note in result.notes)
        assert any("lies within its 95 % confidence interval: 24 held-out samples" in note for note in result.notes)

    def test_calibration_samples_without_labels_are_compared_by_agreement(self, net: Task, tmp_path: Path) -> None:
        labels = np.arange(24) % 3
        result = sweep(replace(net, metric="top1", labels=labels), tmp_path / "out", budget=3)
        assert result.metric.name == "top1"
        assert result.search_metric is not None
        assert result.search_metric.name == "agreement"
        assert any("have no labels, so that candidates were compared by agreement" in note for note in result.notes)

    def test_workers_change_nothing(self, net: Task, tmp_path: Path) -> None:
        sweep(net, tmp_path / "one", budget=BUDGET)
        sweep(replace(net, workers=3), tmp_path / "two", budget=BUDGET)
        assert listing(tmp_path / "one") == listing(tmp_path / "two")

    def test_progress_counts_samples_and_ends_early_at_most(self, net: Task, tmp_path: Path) -> None:
        told: list[tuple[int, int | None]] = []
        sweep(net, tmp_path / "out", budget=2, progress=lambda *now: told.append(now))
        assert told == sorted(told)
        assert told[-1] == (40 + 2 * 40 + 2 * 24, 40 + 2 * 40 + 2 * 24)


class TestCache:
    def test_it_is_calibrates_with_that_recipe(self, net: Task, tmp_path: Path) -> None:
        result = sweep(net, tmp_path / "out", budget=BUDGET, tensorrt_version="8.6.1")
        recipe = load_recipe("mse").model_validate(result.winner.recipe) if result.winner.method == "mse" else None
        made = calibrate(net.model, net.data, recipe or result.winner.method)
        made.write_cache(tmp_path / "out" / "own.cache", "8.6.1")
        assert (tmp_path / "out" / CACHE).read_bytes() == (tmp_path / "out" / "own.cache").read_bytes()
        ours, own = manifest(tmp_path / "out" / CACHE), manifest(tmp_path / "out" / "own.cache")
        assert own.chosen_by is None
        assert ours.model_copy(update={"chosen_by": None, "cache": own.cache}) == own

    def test_its_manifest_tells_how_it_was_chosen(self, net: Task, tmp_path: Path) -> None:
        result = sweep(net, tmp_path / "out", budget=BUDGET)
        told = manifest(tmp_path / "out" / CACHE).chosen_by
        assert told is not None
        assert told.model_dump() == {
            "study": "sweep",
            "file": "sweep.json",
            "file_sha256": sha256_of(tmp_path / "out" / RESULT),
            "metric": "sqnr",
            "candidates": len(result.candidates),
            "baseline": "entropy",
            "gain": result.gain,
            "is_significant": result.is_significant,
            "samples": 24,
        }

    def test_it_is_verified_and_reused_like_any_other(self, net: Task, tmp_path: Path) -> None:
        result = sweep(net, tmp_path / "out", budget=BUDGET)
        path = tmp_path / "out" / CACHE
        assert {check.what: check.status for check in verify_cache(path)} == dict.fromkeys(
            ("cache", "model", "data", "versions", "cpu"), "same"
        )
        graph = read_model(net.model)
        batches = plan_batches(open_source(net.data, graph.inputs, skip_bad_images=False), None, Batching())
        wanted = Wanted(
            batches=batches,
            recipe=load_recipe(result.winner.method),
            header=parse_cache(path.read_bytes()).header,
            shapes=None,
            tf32=False,
            skip_bad_images=False,
        )
        assert find_reusable(path, graph, wanted).differences == ()
        assert find_reusable(path, graph, replace(wanted, recipe=load_recipe("entropy"))).differences != ()


class TestPlantedFaults:
    def test_rare_values_need_what_does_not_clip(self, tmp_path: Path) -> None:
        task = replace(faulty(planted.rare_values(tmp_path)), batching=Batching(max_samples=128))
        result = sweep(task, tmp_path / "out", budget=14)
        assert result.gain > 0.4
        assert result.is_significant
        assert result.winner.judgement.loss <= 0.01
        assert not any("cannot tell it from chance" in note for note in result.notes)

    def test_no_method_helps_against_an_outlier_channel(self, tmp_path: Path) -> None:
        task = replace(faulty(planted.outlier_channel(tmp_path)), batching=Batching(max_samples=128))
        result = sweep(task, tmp_path / "out", budget=14)
        assert result.winner.judgement.loss > 0.05

    def test_a_broken_image_is_clipped(self, tmp_path: Path) -> None:
        task = replace(faulty(planted.broken_image(tmp_path)), batching=Batching(max_samples=128))
        result = sweep(task, tmp_path / "out", budget=18)
        assert result.winner.method.startswith("percentile")
        minmax = next(each for each in result.candidates if each.method == "minmax")
        best = next(each for each in result.candidates if each.method == result.winner.method)
        assert minmax.judgement.loss - best.judgement.loss > 0.05


class TestGoingOn:
    @pytest.mark.parametrize("after", [40 + 40, 40 + 7 * 40 + 3])
    def test_the_same_call_goes_on_and_writes_the_same_bytes(
        self, net: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
    ) -> None:
        with monkeypatch.context() as patch:
            groups = spy_on_groups(patch)
            sweep(net, tmp_path / "whole", budget=12)

        def progress(done: int, total: int | None) -> None:
            if done >= after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            sweep(net, tmp_path / "out", budget=12, progress=progress)
        left = [file.name for file in tmp_path.glob("out/*")]
        assert left == ([] if after == 40 + 40 else [JOURNAL])
        again = spy_on_groups(monkeypatch)
        sweep(net, tmp_path / "out", budget=12)
        assert listing(tmp_path / "out") == listing(tmp_path / "whole")
        assert (sum(again) < sum(groups)) == bool(left)

    def test_a_larger_budget_goes_on_from_there_too(
        self, net: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def progress(done: int, total: int | None) -> None:
            if done > 40 + 3 * 40:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            sweep(net, tmp_path / "out", budget=3, progress=progress)
        groups = spy_on_groups(monkeypatch)
        result = sweep(net, tmp_path / "out", budget=5)
        assert len(result.candidates) == 5
        assert groups == [2, 2]


class TestRefusals:
    def refused(self, expected: type[Exception], text: str, task: Task, folder: Path, **options: Any) -> None:
        with pytest.raises(expected) as caught:
            sweep(task, folder, **options)
        assert text in str(caught.value)
        assert not folder.exists()

    def test_no_budget(self, net: Task, tmp_path: Path) -> None:
        self.refused(SpecError, "found 0, expected at least 1 evaluation", net, tmp_path / "out", budget=0)

    def test_tensorrt_11(self, net: Task, tmp_path: Path) -> None:
        self.refused(TensorRTVersionError, "'11.0.0'", net, tmp_path / "out", tensorrt_version="11.0.0")

    def test_a_model_without_weighted_nodes(self, net: Task, tmp_path: Path) -> None:
        save_model(tmp_path / "model.onnx", RELU)
        self.refused(ModelError, "there is nothing to quantize", net, tmp_path / "out")

    def test_too_few_samples_to_hold_some_out(self, net: Task, tmp_path: Path) -> None:
        np.save(tmp_path / "data.npy", normal(3, 4))
        self.refused(DataError, "too few samples", replace(net, eval_data=None), tmp_path / "out")

    def test_a_function_without_other_data(self, net: Task, tmp_path: Path) -> None:
        task = replace(net, data=lambda: [{"x": normal(1, 4)}], eval_data=None)
        self.refused(DataError, "give --eval-data", task, tmp_path / "out")

    def test_labels_that_do_not_match(self, net: Task, tmp_path: Path) -> None:
        self.refused(DataError, "23", replace(net, labels=np.zeros(23, np.int64)), tmp_path / "out")

    def test_top1_without_labels(self, net: Task, tmp_path: Path) -> None:
        self.refused(MetricError, "needs labels: give --labels", replace(net, metric="top1"), tmp_path / "out")

    def test_a_metric_that_raises_names_the_sample(self, net: Task, tmp_path: Path) -> None:
        def metric(outputs: Any, label: Any) -> float:
            raise RuntimeError("no")

        self.refused(MetricError, "at sample 0 raised RuntimeError: no", replace(net, metric=metric), tmp_path / "out")

    def test_nan_in_the_data(self, net: Task, tmp_path: Path) -> None:
        data = np.load(tmp_path / "data.npy")
        data[7, 2] = np.nan
        np.save(tmp_path / "data.npy", data)
        self.refused(DataError, "data.npy: sample 7: input 'x' holds NaN", net, tmp_path / "out", budget=2)

    def test_a_cache_in_place_of_the_model(self, net: Task, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "model.onnx").rename(tmp_path / "out" / CACHE)
        with pytest.raises((OutputError, ModelError)):
            sweep(replace(net, model=tmp_path / "out" / CACHE), tmp_path / "out")
