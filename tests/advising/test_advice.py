"""advise: the planted fault comes first, and following the advice brings the accuracy back on samples that were held out."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.accuracy import planted
from tests.models import save_model
from trtcalib.accuracy.result import Ablation, Advice, Sensitivity
from trtcalib.accuracy.task import Task, open_task
from trtcalib.advising.advice import CACHE, RESULT, advise, choose_method
from trtcalib.advising.commands import Commands, cli_name
from trtcalib.advising.items import items_of_method
from trtcalib.advising.remedies import search_task
from trtcalib.core.cache import parse_cache
from trtcalib.errors import ModelError, SpecError

SOUND = 0.99


def advised(folder, fault):
    return advise(Task(model=fault.model, data=fault.calibration, eval_data=fault.evaluation), folder / "out")


@pytest.fixture(scope="module")
def outlier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outlier")
    fault = planted.outlier_channel(folder)
    return fault, advised(folder, fault), folder / "out"


def test_a_ruined_channel_is_answered_by_leaving_its_node_in_float(outlier):
    fault, advice, _ = outlier
    first = advice.items[0]
    assert advice.before.value < 0.3
    assert first.code == "fallback"
    assert fault.culprit in first.title
    assert "1 of 8 nodes" in first.title
    assert first.checked.value >= SOUND
    assert advice.after.value >= SOUND


def test_the_fallback_is_told_in_each_tools_own_words(outlier):
    fault, advice, folder = outlier
    command = advice.items[0].command.splitlines()
    assert f"--exclude '^{fault.culprit}$'" in command[0]
    assert command[0].startswith(f"trtcalib qdq {fault.model} {folder}/{CACHE}")
    assert f"--fallback fp16:{fault.culprit}" in command[1]
    method = next((item for item in advice.items if item.code == "method"), None)
    assert ("--calibrator entropy" in command[1]) == (method is None)
    assert f"--layerPrecisions={fault.culprit}:fp16" in command[2]


def test_what_it_rests_on_stands_beside_it_and_the_scales_that_it_ends_at(outlier):
    _, advice, folder = outlier
    for name in (RESULT, "study/study.json", "ablation.json", CACHE, f"{CACHE}.json"):
        assert (folder / name).is_file(), name
    assert Advice.model_validate_json((folder / RESULT).read_bytes()) == advice
    assert set(advice.sources) == {"study", "ablation", "sensitivity"}
    assert all((folder / path).is_file() for path in advice.sources.values())
    assert parse_cache((folder / CACHE).read_bytes()).scales


def test_results_that_were_given_are_not_made_again(outlier, tmp_path, monkeypatch):
    fault, advice, folder = outlier
    for name in ("study", "ablate", "measure_sensitivity"):
        monkeypatch.setattr(f"trtcalib.advising.advice.{name}", lambda *_, **__: pytest.fail("made again"))
    task = Task(model=fault.model, data=fault.calibration, eval_data=fault.evaluation)
    again = advise(task, tmp_path / "again", given=[folder])
    assert [item.title for item in again.items] == [item.title for item in advice.items]
    assert again.after == advice.after


def test_a_given_result_of_another_model_is_refused(outlier, tmp_path):
    *_, folder = outlier
    fault = planted.sound(tmp_path)
    task = Task(model=fault.model, data=fault.calibration, eval_data=fault.evaluation)
    with pytest.raises(SpecError, match="is of another model"):
        advise(task, tmp_path / "out", given=[folder / "ablation.json"])


def test_a_given_result_that_was_judged_otherwise_is_refused(outlier, tmp_path):
    fault, _, folder = outlier
    task = Task(model=fault.model, data=fault.calibration, eval_data=fault.evaluation, metric="sqnr")
    with pytest.raises(SpecError, match="judges by top1, and the advice is to be by sqnr: give --metric top1"):
        advise(task, tmp_path / "out", given=[folder / "ablation.json"])


def test_rare_large_values_are_answered_by_a_method_that_does_not_clip_them(tmp_path):
    fault = planted.rare_values(tmp_path)
    advice = advised(tmp_path, fault)
    first = advice.items[0]
    assert advice.before.value < 0.6
    assert first.code == "method"
    assert first.title == "Calibrate with percentile 99.999 instead of entropy"
    assert any(fault.culprit in said and "99 % of the noise" in said for said in first.evidence)
    assert first.command.endswith("--calibrator percentile-99.999 -o model.cache")
    assert first.checked.value >= SOUND
    assert advice.after.value >= SOUND


def test_a_broken_image_is_named_and_its_removal_tried(tmp_path):
    fault = planted.broken_image(tmp_path)
    advice = advised(tmp_path, fault)
    first = advice.items[0]
    assert advice.before.value < 0.95
    assert first.code == "samples"
    assert first.title.startswith(f"Leave sample '{fault.broken_sample}' out of the calibration")
    assert first.checked.value >= SOUND
    assert [item.code for item in advice.items][:2] == ["samples", "method"]
    assert advice.after.value >= SOUND


def test_calibration_data_that_nothing_scaled_are_told_before_anything_else(tmp_path):
    fault = planted.forgotten_scale(tmp_path, largest_pixel=255)
    advice = advised(tmp_path, fault)
    first = advice.items[0]
    assert advice.before.value < 0.2
    assert first.code == "inputs"
    assert first.title.startswith("Prepare the calibration inputs as x/255")
    assert "scale: 1/255" in first.command
    assert first.checked.value >= SOUND
    assert advice.after.value >= SOUND


def test_data_that_nothing_scaled_at_all_are_told_by_what_fp32_does_with_them(tmp_path):
    fault = planted.forgotten_scale(tmp_path, largest_pixel=16, evaluation_too=True)
    advice = advised(tmp_path, fault)
    first = advice.items[0]
    assert first.code == "inputs"
    assert first.title.startswith("Prepare the inputs, in calibration and in use, as x/16")
    assert any(
        "FP32 itself is right on 58.60 % of the judged samples as they are, and on 99.60 % with it" in said
        for said in first.evidence
    )
    assert advice.after.value >= SOUND


def test_a_sound_model_is_told_to_be_left_alone(tmp_path):
    fault = planted.sound(tmp_path)
    task = Task(model=fault.model, data=fault.evaluation)  # held out from one set of data
    advice = advise(task, tmp_path / "out")
    assert advice.held_out
    assert advice.evaluation.samples == 125
    assert advice.items[0].code == "fine"
    assert advice.after is None
    assert any("(95 %: " in said for said in advice.items[0].evidence)


def test_the_same_advice_is_the_same_bytes(tmp_path):
    fault = planted.sound(tmp_path)
    task = Task(model=fault.model, data=fault.evaluation, max_eval_samples=40)
    task = replace(task, batching=replace(task.batching, max_samples=120))
    texts = []
    for workers in (1, 3):
        advise(replace(task, workers=workers), tmp_path / f"out{workers}")
        texts.append((tmp_path / f"out{workers}" / RESULT).read_text().replace(f"out{workers}", "out"))
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["kind"] == "advice"


def test_without_labels_the_advice_is_by_agreement_with_fp32(tmp_path):
    fault = planted.rare_values(tmp_path)
    data = {"image": np.random.default_rng(5).random((40, 1, 8, 8)).astype(np.float32)}
    advice = advise(Task(model=fault.model, data=data), tmp_path / "out")
    assert advice.metric.name == "agreement"
    assert advice.labels is None
    assert advice.items


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ({"method": "percentile", "percentile": 99.99, "range": "doubling", "bins": 2048}, "percentile-99.99"),
        ({"method": "entropy", "variant": "tensorrt", "range": "doubling", "bins": 2048}, "entropy"),
        ({"method": "mse", "range": "doubling", "bins": 2048}, "mse"),
        ({"method": "entropy", "variant": "smoothed", "range": "doubling", "bins": 2048}, None),
        ({"method": "minmax", "range": "global", "bins": 2048}, None),
        ({"method": "minmax", "range": "doubling", "bins": 4096}, None),
        ({"method": "theirs", "options": {}, "range": "doubling", "bins": 2048}, None),
    ],
)
def test_a_recipe_is_named_as_the_command_line_takes_it(recipe, name):
    assert cli_name(recipe) == name


def test_commands_are_quoted_for_a_shell():
    commands = Commands("my model.onnx", ("--data", "a b.npz"), ("--data", "a b.npz"), "out put")
    assert commands.study("ablate", "-o", "x") == "trtcalib ablate 'my model.onnx' --data 'a b.npz' -o x"
    assert commands.calibrate("-o", "c") == "trtcalib calibrate 'my model.onnx' --data 'a b.npz' -o c"


def test_a_model_whose_feeds_have_no_batch_axis_is_advised_without_a_study(tmp_path):
    model = save_model(
        tmp_path / "whole.onnx",
        "whole (float[2, 2] x, float[3] s) => (float[2, 2] y) <float[2, 2] w = {1, -2, 3, 0.5}> { y = MatMul(x, w) }",
    )
    rng = np.random.default_rng(3)
    data = {name: rng.random((24, *shape), np.float32) for name, shape in (("x", (2, 2)), ("s", (3,)))}
    advice = advise(Task(model=model, data=data), tmp_path / "out")
    assert set(advice.sources) == {"ablation", "sensitivity"}
    assert "batch-size" not in [item.code for item in advice.items]


def test_nodes_are_searched_on_samples_that_do_not_judge_the_advice(outlier):
    *_, folder = outlier
    searched = Sensitivity.model_validate_json((folder / "sensitivity.json").read_bytes())
    judged = Advice.model_validate_json((folder / RESULT).read_bytes())
    assert searched.evaluation.sha256 != judged.evaluation.sha256
    assert searched.metric == judged.metric


def test_nodes_are_searched_by_agreement_where_calibration_samples_have_no_labels(tmp_path):
    fault = planted.sound(tmp_path)
    data = {"image": np.random.default_rng(5).random((40, 1, 8, 8)).astype(np.float32)}
    opened = open_task(Task(model=fault.model, data=data, eval_data=fault.evaluation, labels=fault.labels))
    task = search_task(opened)
    assert opened.metric.name == "top1"
    assert (task.metric, task.labels, task.eval_data) == ("agreement", None, None)


@pytest.mark.parametrize(
    ("losses", "alike", "taken"),
    [
        ({"minmax": 0.15, "entropy": 0.15}, ["entropy"], "entropy"),  # nothing is gained
        ({"minmax": 0.12, "entropy": 0.15}, ["entropy"], "entropy"),  # nor told from it
        ({"minmax": 0.005, "entropy": 0.015}, ["entropy"], "minmax"),  # without it nodes would go to float
        ({"minmax": 0.001, "entropy": 0.005}, [], "minmax"),  # seen to do better
    ],
)
def test_the_usual_method_stays_unless_another_is_seen_to_do_better_or_alone_suffices(losses, alike, taken):
    rows = [
        SimpleNamespace(method=name, cells=[SimpleNamespace(judgement=SimpleNamespace(loss=loss))])
        for name, loss in losses.items()
    ]
    ablation = SimpleNamespace(rows=rows, best="minmax", indistinguishable=alike)
    assert choose_method(ablation, 0.01) == taken


def test_a_loss_that_stays_is_said_to_stay(tmp_path):
    fault = planted.outlier_channel(tmp_path)
    task = Task(model=fault.model, data=fault.calibration, eval_data=fault.evaluation, max_eval_samples=60)
    advice = advise(task, tmp_path / "out", max_loss=0)
    assert advice.before.loss > 0
    assert ("open" in [item.code for item in advice.items]) == (advice.after.loss > 0)


def test_commands_to_leave_nodes_in_float_take_the_scales_that_the_advice_ends_at():
    commands = Commands("m.onnx", ("--data", "d"), ("--data", "d"), "out", 0.02)
    dialects = {"qdq": "Q", "build": "B", "trtexec": "T"}
    assert list(commands.fallback(dialects, "mse")) == [
        "trtcalib qdq m.onnx out/advised.cache Q -o model.qdq.onnx",
        "trtcalib build m.onnx --data d --calibrator mse --fp16 B -o model.engine",
        "trtexec --onnx=m.onnx --int8 --fp16 --calib=out/advised.cache T",
    ]
    assert "--cache out/advised.cache --reuse-cache --fp16 B" in list(commands.fallback(dialects, None))[1]
    assert commands.advise == "trtcalib advise m.onnx --data d --max-loss 0.02 -o out"


def test_where_nothing_comes_of_it_no_folder_stays(tmp_path):
    model = save_model(tmp_path / "relu.onnx", "relu (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }")
    with pytest.raises(ModelError, match="nothing to quantize"):
        advise(Task(model=model, data={"x": np.ones((8, 4), np.float32)}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_lose_by_themselves_are_told_as_tensorrt_quantizes_them(outlier):
    _, _, folder = outlier
    ablation = Ablation.model_validate_json((folder / "ablation.json").read_bytes())
    sensitivity = Sensitivity.model_validate_json((folder / "sensitivity.json").read_bytes())
    commands = Commands("m.onnx", ("--data", "d"), ("--data", "d"), "out")

    def evidence(method, loss):
        rows = []
        for row in ablation.rows:
            cell = row.cells[1]
            changed = cell.model_copy(update={"judgement": cell.judgement.model_copy(update={"loss": loss})})
            mends = [row.cells[0], changed, *row.cells[2:]]
            rows.append(row.model_copy(update={"cells": mends}) if row.method == method else row)
        (item,) = items_of_method(ablation.model_copy(update={"rows": rows}), "mse", sensitivity, commands, 0.01)
        return item.evidence

    said = "the weights alone, per channel by their largest magnitude as TensorRT has them, lose 25.00 points"
    assert any(line.startswith(said) for line in evidence("minmax", 0.25))
    assert not any("the weights alone" in line for line in evidence("mse", 0.25))
