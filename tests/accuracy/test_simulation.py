"""Variants are what ``trtcalib qdq`` writes, bit for bit, and what INT8 arithmetic gives, exactly."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache as cached
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trtcalib
from tests.accuracy import int8_reference as int8
from tests.models import make_model
from tests.qdq.graphs import ACCEPTED, cache, graph, samples
from trtcalib.accuracy.simulation import Choice, Simulation, check_quantized, weight_scales
from trtcalib.core.scale import scale_from_amax
from trtcalib.errors import CacheMismatchError, ModelError
from trtcalib.files import sample_folder
from trtcalib.onnx_graph import ModelGraph, read_model
from trtcalib.qdq.convert import convert
from trtcalib.qdq.prepared import QdqOptions
from trtcalib.sessions import Session
from trtcalib.specs import load_recipe

DIGITS = sample_folder() / "digits"


def outputs_of(model: ModelGraph, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    names = [output.name for output in model.proto.graph.output]
    return Session(model, names, simulate=True).run(names, feeds, "data", "sample")


def assert_same_bits(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert [(a.dtype, a.shape) for a in found] == [(a.dtype, a.shape) for a in expected]
    assert [a.tobytes() for a in found] == [a.tobytes() for a in expected]


class TestWhatQdqWrites:
    """A variant against :func:`trtcalib.qdq.convert.convert`."""

    @pytest.mark.parametrize("name", ACCEPTED)
    def test_every_graph_that_converts_gives_the_same_bits(self, tmp_path: Path, name: str) -> None:
        case = ACCEPTED[name]
        model = graph(tmp_path, case.text)
        simulation = Simulation(model)
        plan = simulation.plan(Choice(scales=cache(case.scales)))
        converted = convert(model, cache(case.scales), replace(case.options, partial="skip"))
        feeds = samples(model.proto)
        found = outputs_of(simulation.model(plan), feeds)
        assert_same_bits(found, outputs_of(replace(model, proto=converted.proto), feeds))
        assert len(plan.weighted) == converted.coverage.quantized == case.quantized

    @settings(max_examples=12)
    @given(data=st.data())
    def test_the_sample_with_any_nodes_in_float_gives_the_same_bits(self, data: st.DataObject) -> None:
        model, scales, simulation, images = sample()
        names = [output for node in simulation.prepared.proto.graph.node for output in node.output]
        floats = data.draw(st.frozensets(st.sampled_from(names), max_size=8))
        plan = simulation.plan(Choice(scales=scales, float_outputs=floats))
        converted = convert(model, scales, QdqOptions(partial="skip", float_outputs=floats))
        assert len(plan.weighted) == converted.coverage.quantized
        assert not floats & plan.decisions.keys()
        feeds = {"image": images}
        expected = outputs_of(replace(model, proto=converted.proto), feeds)
        assert_same_bits(outputs_of(simulation.model(plan), feeds), expected)

    def test_a_variant_leaves_the_model_and_the_preparation_as_they_were(self) -> None:
        model, scales, simulation, _ = sample()
        before = model.proto.SerializeToString(), simulation.prepared.proto.SerializeToString()
        simulation.model(simulation.plan(Choice(scales=scales, weights="tensor")))
        simulation.downstream(simulation.plan(Choice(scales=scales)), {"residual_bn2"})
        assert (model.proto.SerializeToString(), simulation.prepared.proto.SerializeToString()) == before

    def test_the_reference_gives_the_model_s_own_outputs(self) -> None:
        model, _, simulation, images = sample()
        (found,), (expected,) = (outputs_of(each, {"image": images}) for each in (simulation.reference, model))
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_nothing_quantized_is_the_reference(self) -> None:
        _, scales, simulation, images = sample()
        for choice in (Choice(scales={}), Choice(scales=scales, activations=False, weights="float")):
            plan = simulation.plan(choice)
            assert (plan.decisions, plan.weighted, plan.of) == ({}, (), 8)
            found = outputs_of(simulation.model(plan), {"image": images})
            assert_same_bits(found, outputs_of(simulation.reference, {"image": images}))


@cached
def sample() -> tuple[ModelGraph, dict[str, np.float32], Simulation, np.ndarray]:
    """The embedded sample with scales of 64 images, and 32 validation images as one batch."""
    model = read_model(DIGITS / "model.onnx")
    scales = dict(
        trtcalib.calibrate(model.path, sample_folder() / "digits-calibration.yaml", max_samples=64, workers=1).scales
    )
    images = np.load(DIGITS / "validation-images.npy")[:32].reshape(32, 1, *model.inputs[0].shape[2:])
    return model, scales, Simulation(model), images.astype(np.float32) / np.float32(16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """A graph of one weighted node, and what it computes from (x, w)."""

    text: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    axis: int
    compute: Callable[[np.ndarray, np.ndarray], np.ndarray]


SMALL = {
    "conv": Small(
        text="g (float[2,2,5,5] x) => (float[2,3,5,5] y) <float[3,2,3,3] w> { y = Conv<pads=[1,1,1,1]>(x, w) }",
        x=(2, 2, 5, 5),
        w=(3, 2, 3, 3),
        axis=0,
        compute=lambda x, w: int8.conv(x, w, pad=1),
    ),
    "strided, grouped conv": Small(
        text="g (float[1,4,5,5] x) => (float[1,4,2,2] y) <float[4,2,3,3] w> { y = Conv<group=2, strides=[2,2]>(x, w) }",
        x=(1, 4, 5, 5),
        w=(4, 2, 3, 3),
        axis=0,
        compute=lambda x, w: int8.conv(x, w, stride=2, group=2),
    ),
    "transposed conv": Small(
        text="g (float[1,2,3,3] x) => (float[1,3,6,6] y) <float[2,3,2,2] w> { y = ConvTranspose<strides=[2,2]>(x, w) }",
        x=(1, 2, 3, 3),
        w=(2, 3, 2, 2),
        axis=1,
        compute=lambda x, w: int8.conv_transpose(x, w, stride=2),
    ),
    "matmul": Small(
        text="g (float[5,6] x) => (float[5,4] y) <float[6,4] w> { y = MatMul(x, w) }",
        x=(5, 6),
        w=(6, 4),
        axis=1,
        compute=int8.matmul,
    ),
    "gemm": Small(
        text="g (float[5,6] x) => (float[5,4] y) <float[4,6] w, float[4] b = {1, -2, 0.5, 8}> { y = Gemm<transB=1, alpha=0.5>(x, w, b) }",
        x=(5, 6),
        w=(4, 6),
        axis=0,
        compute=lambda x, w: 0.5 * int8.matmul(x, w.T) + [1, -2, 0.5, 8],
    ),
}
"""Scales are powers of two, so that float32 sums have no rounding."""

PARTS = [(activations, weights) for activations in (True, False) for weights in ("float", "tensor", "channel")]


class TestAgainstNumpy:
    """Variants against plain loops that share no code."""

    @pytest.mark.parametrize(("activations", "weights"), PARTS)
    @pytest.mark.parametrize("name", SMALL)
    def test_every_part_of_every_operator_is_exact(
        self, tmp_path: Path, name: str, activations: bool, weights: str
    ) -> None:
        small = SMALL[name]
        model, w = self.saved(tmp_path, small)
        simulation = Simulation(model)
        choice = Choice(scales={"x": np.float32(1 / 16)}, activations=activations, weights=weights)
        plan = simulation.plan(choice)
        assert len(plan.weighted) == (activations or weights != "float")
        x = int8.exact_samples(small.x, seed=11)
        (found,) = outputs_of(simulation.model(plan), {"x": x})
        expected = small.compute(
            int8.activations(x.astype(np.float64), 1 / 16 if activations else None),
            int8.weights(w.astype(np.float64), weights, small.axis),
        )
        np.testing.assert_array_equal(found.astype(np.float64), expected)

    @staticmethod
    def saved(folder: Path, small: Small) -> tuple[ModelGraph, np.ndarray]:
        proto = make_model(small.text)
        w = int8.exact_weights(small.w, small.axis, seed=5)
        (declared,) = [info for info in proto.graph.value_info if info.name == "w"]
        proto.graph.value_info.remove(declared)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
        onnx.save_model(proto, folder / "model.onnx")
        return read_model(folder / "model.onnx"), w

    def test_the_samples_and_weights_need_rounding_and_saturate(self) -> None:
        x = int8.exact_samples((500,), seed=11).astype(np.float64) * 16
        assert (x < -128.5).any()
        assert (x > 127.5).any()
        assert (np.abs(x) % 1 == 0.5).any()
        w = int8.exact_weights((4, 60), 0, seed=5)
        assert [float(np.abs(row).max()) for row in w] == [127 / 32, 127 / 64, 127 / 128, 127 / 256]
        assert all((np.abs(row * 2.0 ** (5 + c)) % 1 == 0.5).any() for c, row in enumerate(w))

    def test_one_conv_by_hand(self, tmp_path: Path) -> None:
        """x = 0.53125 is 8.5 scales of 1/16 and a tie: 8, which is 0.5; 20 saturates to 127/16; w = 127/32 and 1.5/32 -> 2/32."""
        text = "g (float[1,2] x) => (float[1,1] y) <float[2,1] w = {3.96875, 0.046875}> { y = MatMul(x, w) }"
        simulation = Simulation(graph(tmp_path, text))
        plan = simulation.plan(Choice(scales={"x": np.float32(1 / 16)}))
        ((found,),) = outputs_of(simulation.model(plan), {"x": np.array([[0.53125, 20]], np.float32)})
        assert found[0] == 0.5 * 127 / 32 + (127 / 16) * (2 / 32)


class TestWeightScales:
    """The scales of weights by method."""

    @pytest.mark.parametrize("recipe", ["minmax", "mse", "percentile-99", "percentile-99.99", "entropy"])
    @pytest.mark.parametrize("axis", [0, 1, 2, None])
    def test_a_channel_s_scale_is_what_the_method_says_of_the_channel_alone(
        self, recipe: str, axis: int | None
    ) -> None:
        weights = np.random.default_rng(2).normal(size=(3, 4, 50)).astype(np.float32)
        weights[0, :, 0] *= 20
        found = weight_scales(weights, axis, load_recipe(recipe))
        assert found.dtype == np.float32
        assert found.shape == (() if axis is None else (weights.shape[axis],))
        channels = [weights] if axis is None else [weights.take(i, axis) for i in range(weights.shape[axis])]
        expected = [slow_scale(np.ascontiguousarray(channel), recipe) for channel in channels]
        assert [float(scale) for scale in found.ravel()] == [float(scale) for scale in expected]

    @pytest.mark.parametrize("recipe", ["minmax", "mse", "percentile-99"])
    def test_a_dead_channel_has_the_smallest_scale_that_tensorrt_takes(self, recipe: str) -> None:
        weights = np.array([[0, 0, 0], [1, -2, 1.27]], np.float32)
        found = weight_scales(weights, 0, load_recipe(recipe))
        assert found[0] == np.float32(1e-8)
        assert found[1] > np.float32(1e-8)

    def test_clipped_weights_reach_the_model(self, tmp_path: Path) -> None:
        values = np.ones((100, 2), np.float32) / 4
        values[0] = 100, -100
        listed = ", ".join(map(str, values.ravel()))
        model = graph(
            tmp_path, f"g (float[1,100] x) => (float[1,2] y) <float[100,2] w = {{{listed}}}> {{ y = MatMul(x, w) }}"
        )
        simulation = Simulation(model)
        recipe = load_recipe("percentile-90")
        plan = simulation.plan(Choice(scales={"x": np.float32(1)}, activations=False, weight_recipe=recipe))
        (found,) = outputs_of(simulation.model(plan), {"x": np.ones((1, 100), np.float32)})
        scale = float(slow_scale(values[:, 0].copy(), "percentile-90"))
        assert scale < 0.01  # of 100 / 127, if nothing was clipped
        column = [int8.rounded(float(v), scale) for v in values[:, 0]]
        other = [int8.rounded(float(v), scale) for v in values[:, 1]]
        np.testing.assert_allclose(found, [[sum(column), sum(other)]], rtol=1e-5)


def slow_scale(channel: np.ndarray, recipe: str) -> np.float32:
    """The scale of one channel by the package's public functions."""
    histogram = trtcalib.collect_histogram([channel])
    if recipe.startswith("percentile-"):
        amax = trtcalib.percentile_amax(histogram, percentile=float(recipe.removeprefix("percentile-")))
    else:
        amax = {"minmax": trtcalib.minmax_amax, "mse": trtcalib.mse_amax, "entropy": trtcalib.entropy_amax}[recipe](
            histogram
        )
    return scale_from_amax(amax)


class TestPlans:
    """What a plan says."""

    def test_plans_differ_in_the_nodes_that_they_treat_differently(self) -> None:
        _, scales, simulation, _ = sample()
        full = simulation.plan(Choice(scales=scales))
        assert len(full.weighted) == full.of == 8
        assert full.changed(full) == set()
        for name in full.weighted:
            without = simulation.plan(Choice(scales=scales, float_outputs=frozenset({name})))
            # A skip Add is quantized for the sake of the convolution before it.
            assert {name} <= full.changed(without) == without.changed(full)
            assert full.changed(without) & set(full.weighted) == {name}
            assert without.weighted == tuple(other for other in full.weighted if other != name)
        other = simulation.plan(Choice(scales={**scales, "residual_relu1": scales["residual_relu1"] * np.float32(2)}))
        assert full.changed(other) == {"residual_bn2"}

    def test_a_model_without_weights_has_nothing_to_quantize(self, tmp_path: Path) -> None:
        model = graph(tmp_path, "g (float[1,2] x) => (float[1,2] y) { y = Relu(x) }")
        plan = Simulation(model).plan(Choice(scales={"x": np.float32(1)}))
        with pytest.raises(
            ModelError,
            match=r"it has no Conv, ConvTranspose, MatMul or Gemm outside of control flow \(If, Loop, Scan\): there is nothing to quantize",
        ):
            check_quantized(model, plan)

    def test_a_cache_without_a_usable_scale_is_refused(self, tmp_path: Path) -> None:
        model = graph(tmp_path, "g (float[1,2] x) => (float[1,2] y) <float[2,2] w> { y = MatMul(x, w) }")
        said = "no usable scale for an input of any of the 1 weighted nodes"
        for scales in ({}, {"x": np.float32(np.nan)}, {"other": np.float32(1)}):
            plan = Simulation(model).plan(Choice(scales=scales))
            with pytest.raises(CacheMismatchError, match=re.escape(said)) as raised:
                check_quantized(model, plan, Path("a.cache"))
            assert raised.value.path == Path("a.cache")
        check_quantized(model, Simulation(model).plan(Choice(scales={"x": np.float32(1)})))
