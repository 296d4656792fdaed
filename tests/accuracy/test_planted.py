"""The planted faults are what they say: float32 is unchanged, INT8 falls, and what is said to help does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tests.accuracy import planted
from tests.accuracy.planted import Planted
from trtcalib.calibration import Calibration, calibrate, solve
from trtcalib.files import sample_folder
from trtcalib.onnx_graph import ModelGraph, read_model
from trtcalib.qdq.convert import QdqOptions, convert
from trtcalib.samples.sources import open_source
from trtcalib.sessions import Session

METHODS = ("entropy", "minmax", "percentile-99.9", "percentile-99.99", "percentile-99.999", "percentile-99.9999")

SAMPLE = 0.996
"""The sample's float32 accuracy on its 500 validation images."""

UNCHANGED = 0.004
CLEAR = 0.05
RESTORED = 0.01
"""Shares of all images: a float32 accuracy that counts as the sample's, a fall that counts, and how near is restored."""

FAULTS: dict[str, Callable[[Path], Planted]] = {
    "sound": planted.sound,
    "outlier": planted.outlier_channel,
    "milder outlier": partial(planted.outlier_channel, exponent=8),
    "rare": planted.rare_values,
    "calibration of 16": planted.forgotten_scale,
    "calibration of 255": partial(planted.forgotten_scale, largest_pixel=255),
    "all of 16": partial(planted.forgotten_scale, evaluation_too=True),
    "all of 255": partial(planted.forgotten_scale, largest_pixel=255, evaluation_too=True),
    "twice": planted.scaled_twice,
    "broken": planted.broken_image,
}


class Case:
    """A planted fault with its accuracies, calibrated once."""

    def __init__(self, fault: Planted) -> None:
        self.fault = fault
        self.graph = read_model(fault.model)
        self.labels = np.load(fault.labels)
        self.collected = calibrate(fault.model, fault.calibration, "entropy")

    @cached_property
    def images(self) -> NDArray[np.float32]:
        source = open_source(self.fault.evaluation, self.graph.inputs)
        return np.concatenate([sample.load()["image"] for sample in source.samples(None)])

    @property
    def weighted(self) -> list[str]:
        return [node.name for node in self.graph.proto.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]

    def calibrated(self, method: str) -> Calibration:
        return solve(self.collected, method)

    def values(self, *names: str) -> list[NDArray[Any]]:
        return Session(self.graph, names).run(names, {"image": self.images}, "validation", "all")

    def float32(self) -> float:
        return self._accuracy(self.graph)

    def int8(self, method: str, *floats: str, calibration: Calibration | None = None) -> float:
        """The accuracy with everything quantized except the named nodes."""
        scales = (calibration or self.calibrated(method)).scales
        options = QdqOptions(exclude=[re.compile(f"^{re.escape(name)}$") for name in floats])
        return self._accuracy(replace(self.graph, proto=convert(self.graph, scales, options).proto))

    def int8_alone(self, method: str, node: str) -> float:
        """The accuracy with nothing quantized except one weighted node."""
        return self.int8(method, "residual_add", *(name for name in self.weighted if name != node))

    def _accuracy(self, graph: ModelGraph) -> float:
        session = Session(graph, ["probabilities"], simulate=True)
        (scores,) = session.run(["probabilities"], {"image": self.images}, "validation", "all")
        return float((scores.argmax(axis=1) == self.labels).mean())


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Case]]:
    made: dict[str, Case] = {}

    def get(name: str) -> Case:
        if name not in made:
            made[name] = Case(FAULTS[name](tmp_path_factory.mktemp("planted")))
        return made[name]

    return get


each_method = pytest.mark.parametrize("method", METHODS)


@pytest.mark.parametrize("name", [name for name in FAULTS if not name.startswith("all of")])
def test_float32_is_as_accurate_as_the_sample(case, name):
    assert case(name).float32() == pytest.approx(SAMPLE, abs=UNCHANGED)


@pytest.mark.parametrize(("name", "most"), [("outlier", 0), ("milder outlier", 0), ("rare", 1e-5)])
def test_a_rewritten_model_computes_what_the_sample_does(case, name, most):
    (sample,) = case("sound").values("probabilities")
    (rewritten,) = case(name).values("probabilities")
    assert np.abs(sample - rewritten).max() <= most
    assert np.array_equal(sample.argmax(axis=1), rewritten.argmax(axis=1))


@each_method
def test_the_sound_sample_loses_nothing_in_int8(case, method):
    assert case("sound").int8(method) >= SAMPLE - RESTORED


@each_method
def test_an_outlier_channel_ruins_every_method_and_one_node_in_float_mends_it(case, method):
    outlier = case("outlier")
    assert outlier.int8(method) <= SAMPLE - CLEAR
    assert outlier.int8(method, outlier.fault.culprit) >= SAMPLE - RESTORED


@each_method
def test_a_milder_outlier_channel_ruins_the_methods_that_do_not_clip_it(case, method):
    outlier = case("milder outlier")
    fell = outlier.int8(method) <= SAMPLE - CLEAR
    assert fell == (method != "entropy")
    assert outlier.int8(method, outlier.fault.culprit) >= SAMPLE - RESTORED


def test_beside_the_outlier_channel_nothing_of_the_other_channels_is_left(case):
    outlier = case("outlier")
    (activation,) = outlier.values(outlier.fault.activation)
    others = np.delete(activation, planted.OUTLIER_CHANNEL, axis=1)
    scale = outlier.calibrated("minmax").scales[outlier.fault.activation]
    assert activation[:, planted.OUTLIER_CHANNEL].max() >= 100 * others.max()
    assert np.rint(others / scale).max() <= 1
    assert (np.rint(others / scale) == 0).mean() > 0.999


def test_the_outlier_channel_s_weights_round_to_zero(case):
    outlier = case("outlier")
    prepared = convert(outlier.graph, outlier.calibrated("entropy").scales, QdqOptions()).proto
    node = next(node for node in prepared.graph.node if node.name == outlier.fault.culprit)
    producers = {output: n for n in prepared.graph.node for output in n.output}
    name = producers[producers[node.input[1]].input[0]].input[0]
    weights = onnx.numpy_helper.to_array(next(t for t in prepared.graph.initializer if t.name == name))
    levels = np.rint(weights / (np.abs(weights).max(axis=(1, 2, 3), keepdims=True) / 127))
    assert not levels[:, planted.OUTLIER_CHANNEL].any()
    assert np.delete(levels, planted.OUTLIER_CHANNEL, axis=1).any(axis=(0, 2, 3)).all()


def test_the_outlier_channel_itself_hardly_matters(case, tmp_path):
    """What is lost is the other channels' resolution: without this one's weights, float32 keeps its accuracy."""
    outlier = case("outlier")
    model = onnx.load_model(outlier.fault.model)
    weights = next(t for t in model.graph.initializer if t.name == "residual_conv2.weight")
    values = onnx.numpy_helper.to_array(weights).copy()
    values[:, planted.OUTLIER_CHANNEL] = 0
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    onnx.save_model(model, tmp_path / "model.onnx")
    without = Case(replace(outlier.fault, model=tmp_path / "model.onnx"))
    assert without.float32() >= SAMPLE - RESTORED


@each_method
def test_rare_values_are_ruined_by_the_methods_that_clip_them(case, method):
    rare = case("rare")
    accuracy = rare.int8(method)
    if method in ("entropy", "percentile-99.9"):
        assert accuracy <= SAMPLE - CLEAR
    else:
        assert accuracy >= SAMPLE - RESTORED
    assert rare.int8(method, rare.fault.culprit) >= SAMPLE - RESTORED


def test_the_rare_values_are_few_and_the_largest_of_each_image(case):
    rare = case("rare")
    (evidence,) = rare.values(rare.fault.activation)
    scores, small = evidence[:, -10:], evidence[:, :-10]
    assert scores.size / evidence.size < 0.005
    assert (scores.min(axis=1) > small.max(axis=1)).all()
    amax = rare.calibrated("entropy").amax[rare.fault.activation]
    assert ((scores > amax).sum(axis=1) >= 2).mean() > 0.5, "clipped, the largest scores of most images are equal"
    assert not (small > amax).any()


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("outlier", "entropy"),
        ("milder outlier", "minmax"),
        ("rare", "entropy"),
        ("rare", "percentile-99.9"),
        ("broken", "entropy"),
    ],
)
def test_the_culprit_alone_is_to_blame(case, name, method):
    """In float it mends the model and no other node does; in INT8 it ruins the model and no other node does."""
    planted_case = case(name)
    culprit = planted_case.fault.culprit
    ruined = planted_case.int8(method)
    assert ruined <= SAMPLE - CLEAR
    gains = {node: planted_case.int8(method, node) - ruined for node in planted_case.weighted}
    losses = {node: SAMPLE - planted_case.int8_alone(method, node) for node in planted_case.weighted}
    assert gains[culprit] >= SAMPLE - RESTORED - ruined
    assert losses[culprit] >= CLEAR
    assert [node for node in gains if gains[node] > 0.5 * gains[culprit]] == [culprit]
    assert [node for node in losses if losses[node] > RESTORED] == [culprit]


@pytest.mark.parametrize("name", ["outlier", "rare", "broken"])
def test_the_culprit_takes_the_named_activation_and_gives_the_named_output(case, name):
    fault, graph = case(name).fault, case(name).graph
    prepared = convert(graph, case(name).calibrated("entropy").scales, QdqOptions())
    facts = {facts.name: facts for facts in prepared.coverage.nodes}
    assert facts[fault.culprit].output == fault.culprit_output
    assert facts[fault.culprit].quantized
    node = next(node for node in graph.proto.graph.node if node.name == fault.culprit)
    assert node.input[0] == fault.activation


@each_method
def test_a_sixteenth_forgotten_in_calibration_costs_so_little_that_it_is_not_seen(case, method):
    """Scales up to 16 times too coarse leave eight levels or so above zero, which are enough for digits."""
    assert SAMPLE - 0.02 <= case("calibration of 16").int8(method) <= SAMPLE


@each_method
@pytest.mark.parametrize("name", ["calibration of 255", "twice"])
def test_a_larger_or_opposite_mistake_of_scale_ruins_every_method(case, name, method):
    assert case(name).int8(method) <= 0.2


@each_method
@pytest.mark.parametrize("name", ["all of 16", "all of 255"])
def test_a_scale_forgotten_everywhere_shows_against_the_labels_and_not_between_float32_and_int8(case, name, method):
    both = case(name)
    single = both.float32()
    assert single <= SAMPLE - 0.3
    assert both.int8(method) == pytest.approx(single, abs=0.03)


def test_one_broken_image_ruins_entropy_and_minmax_and_a_percentile_that_clips_enough_does_not_see_it(case):
    broken = case("broken")
    for method in ("entropy", "minmax", "percentile-99.999", "percentile-99.9999"):
        assert broken.int8(method) <= SAMPLE - CLEAR, method
    for method in ("percentile-99.9", "percentile-99.99"):
        assert broken.int8(method) >= SAMPLE - RESTORED, method


@pytest.mark.parametrize("method", ["entropy", "minmax"])
def test_without_the_broken_image_all_is_well(case, method):
    broken = case("broken")
    images = np.load(broken.fault.calibration.with_name("calibration-images.npy"))
    kept = np.delete(images, broken.fault.broken_sample, axis=0) * np.float32(1 / 16)
    assert images.max() == 1600
    assert kept.max() == 1
    mended = calibrate(broken.fault.model, kept, method)
    assert broken.int8(method, calibration=mended) >= SAMPLE - RESTORED


def test_under_minmax_no_one_node_is_to_blame_for_the_broken_image(case):
    broken = case("broken")
    best = max(broken.weighted, key=lambda node: broken.int8("minmax", node))
    assert best == broken.fault.culprit
    assert broken.int8("minmax", best) <= SAMPLE - CLEAR


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_written_the_same_way_twice(tmp_path, name):
    written = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        FAULTS[name](folder)
        written.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    assert written[0] == written[1]


def test_the_calibration_labels_are_those_of_the_images(case):
    folder = case("sound").fault.calibration.parent
    labels = np.load(folder / "calibration-labels.npy")
    assert len(labels) == len(np.load(folder / "calibration-images.npy")) == planted.CALIBRATION_SAMPLES
    assert np.array_equal(labels, np.load(sample_folder() / "digits" / "calibration-labels.npy")[: len(labels)])
