"""INT8 simulated: variants of one model that differ in what is quantized, made quickly, whole or only what lies downstream.

Activations pass QuantizeLinear and DequantizeLinear nodes, where ``trtcalib qdq`` puts them and with the cache's scales. Weights are rounded
to INT8 and back when the variant is made, which gives the same float32 values as nodes would. Everything else runs in float32: it is
what INT8 does to the numbers, and not TensorRT's kernels, which also fuse and sum in another order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from trtcalib.accuracy.parts import Parts
from trtcalib.core.histogram import collect_histogram
from trtcalib.core.scale import scale_from_amax
from trtcalib.errors import CacheMismatchError, ModelError
from trtcalib.methods import clip_point
from trtcalib.onnx_graph import ModelGraph
from trtcalib.qdq.placement import Decision, Slot, Weight
from trtcalib.qdq.prepared import QdqOptions, prepare
from trtcalib.qdq.weights import channel_scales, floored, quantized
from trtcalib.qdq.wiring import free_name
from trtcalib.specs import MinMaxRecipe, Recipe

__all__ = ["Choice", "Downstream", "Plan", "Simulation", "WeightParts", "check_quantized", "weight_scales"]

WeightParts = Literal["float", "tensor", "channel"]
"""Weights stay float, or get one scale per tensor, or one per output channel."""

_MINMAX = MinMaxRecipe(method="minmax")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a variant quantizes, and how.

    Attributes:
        scales: amax / 127 per tensor, as in a cache.
        activations: Whether the inputs of the weighted nodes are quantized; if not, the scales only say which nodes could be.
        weights: How the weights are.
        weight_recipe: The method that chooses where weights are clipped; TensorRT takes their largest magnitude.
        float_outputs: Nodes with one of these outputs stay float.
    """

    scales: Mapping[str, np.float32]
    activations: bool = True
    weights: WeightParts = "channel"
    weight_recipe: Recipe = _MINMAX
    float_outputs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is quantized, node by node.

    Attributes:
        decisions: By the first output of the node; only nodes of which something is quantized.
        weighted: First outputs of the weighted nodes among them; the others are skip Adds.
        of: How many weighted nodes the model has, outside of control flow.
        weight_recipe: How the weights' scales are chosen.
    """

    decisions: Mapping[str, tuple[tuple[Slot, ...], tuple[Weight, ...]]]
    weighted: tuple[str, ...]
    of: int
    weight_recipe: Recipe = _MINMAX

    def changed(self, other: Plan) -> set[str]:
        """Return the first outputs of the nodes that the two treat differently."""
        either = self.decisions.keys() | other.decisions.keys()
        return {name for name in either if self.decisions.get(name) != other.decisions.get(name)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Downstream:
    """A part of a variant: some nodes, and all that depends on them.

    Attributes:
        graph: The part as a model.
        feeds: What it takes: inputs of the model, and tensors that lie upstream.
        outputs: Which of the model's outputs it gives.
    """

    graph: ModelGraph
    feeds: tuple[str, ...]
    outputs: tuple[str, ...]


class Simulation:
    """A model whose variants are made.

    Attributes:
        reference: The model itself in float, with the tensors' names that variants have. At another opset than its file's where that
            lacks Q/DQ nodes, and with batch normalizations folded into the convolutions before them.
    """

    def __init__(self, model: ModelGraph) -> None:
        """Prepare a model.

        Raises:
            ModelError: If it is quantized already, or cannot be brought to an opset with Q/DQ nodes.
        """
        self.prepared = prepare(model)
        self.reference = replace(model, proto=self.prepared.proto)
        self._parts = Parts(self.prepared.proto, self.prepared.types)
        # TensorRT's own choice is asked for again and again, the others once each.
        self._usual: dict[tuple[str, int | None], onnx.TensorProto] = {}

    def plan(self, choice: Choice) -> Plan:
        """Decide what is quantized; tensors without a usable scale leave their nodes float."""
        options = QdqOptions(partial="skip", float_outputs=choice.float_outputs)
        weighted, residuals = self.prepared.decide(choice.scales, options)
        found = {}
        for decision in (*weighted, *residuals):
            if decision.quantized:
                slots = tuple(decision.activations) if choice.activations else ()
                weights = tuple(_weights(decision, choice.weights))
                if slots or weights:
                    found[decision.node.output[0]] = (slots, weights)
        names = tuple(each.node.output[0] for each in weighted if each.node.output[0] in found)
        return Plan(found, names, len(weighted), choice.weight_recipe)

    def model(self, plan: Plan) -> ModelGraph:
        """Return a variant as a whole."""
        return self._build(plan, self.prepared.proto.graph.node, None)

    def downstream(self, plan: Plan, changed: Collection[str]) -> Downstream:
        """Return of a variant the nodes with these first outputs, and all that depends on them.

        Args:
            plan: The variant.
            changed: First outputs.
        """
        nodes, feeds = self._parts.downstream(changed)
        made = {name for node in nodes for name in node.output}
        graph = self._build(plan, nodes, feeds)
        outputs = tuple(info.name for info in self.prepared.proto.graph.output if info.name in made)
        return Downstream(graph=graph, feeds=tuple(feeds), outputs=outputs)

    def _build(self, plan: Plan, nodes: Iterable[onnx.NodeProto], feeds: Mapping[str, int] | None) -> ModelGraph:
        proto = self._parts.empty(feeds)
        inserted = _Insertion(self, plan, proto.graph)
        for node in nodes:
            inserted.add(node)
        self._parts.finish(proto, whole=feeds is None)
        return replace(self.reference, proto=proto)

    def simulated_weights(self, weight: Weight, recipe: Recipe) -> onnx.TensorProto:
        """Return a weight tensor rounded to INT8 and back, float32."""
        key = (weight.name, weight.axis)
        if recipe == _MINMAX and key in self._usual:
            return self._usual[key]
        values = self.prepared.wiring.values(weight.name)
        assert values is not None  # for the type checker: placement saw them
        scales = weight_scales(values, weight.axis, recipe)
        levels = quantized(values, scales, weight.axis)
        shape = [-1 if axis == weight.axis else 1 for axis in range(values.ndim)]
        tensor = onnx.numpy_helper.from_array(levels * (scales if weight.axis is None else scales.reshape(shape)))
        if recipe == _MINMAX:
            self._usual[key] = tensor
        return tensor


def check_quantized(graph: ModelGraph, plan: Plan, cache: Path | None = None) -> None:
    """Refuse a plan that quantizes nothing.

    Args:
        graph: The model.
        plan: What would be quantized.
        cache: Where the scales come from, if from a file.

    Raises:
        ModelError: If the model has no weighted node.
        CacheMismatchError: If no weighted node has a usable scale.
    """
    if plan.weighted:
        return
    if plan.of == 0:
        raise ModelError(
            graph.path,
            "it has no Conv, ConvTranspose, MatMul or Gemm outside of control flow (If, Loop, Scan): there is nothing to quantize",
        )
    raise CacheMismatchError(
        cache,
        f"no usable scale for an input of any of the {plan.of} weighted nodes of {graph.path}: nothing would be quantized; trtcalib cache "
        "lint --model says why, --names maps names that TensorRT's parser made",
    )


def weight_scales(weights: NDArray[np.float32], axis: int | None, recipe: Recipe) -> NDArray[np.float32]:
    """Return the scale per channel of an axis, float32 ``[channels]``, or one 0-d scale, as a method chooses it.

    ``minmax`` is exactly what Q/DQ models hold; other methods see a histogram of the magnitudes of each channel.

    Args:
        weights: float32, all finite.
        axis: The output channels' axis; ``None``: one scale for all.
        recipe: The method; its range policy plays no part, since all weights are known at once.
    """
    if recipe == _MINMAX:
        return channel_scales(weights, axis)
    if axis is None:
        return np.asarray(_clipped_scale(weights, recipe), np.float32)
    channels = np.moveaxis(weights, axis, 0)
    return np.array([_clipped_scale(channel, recipe) for channel in channels], np.float32)


def _clipped_scale(weights: NDArray[np.float32], recipe: Recipe) -> np.float32:
    histogram = collect_histogram([weights], bins=recipe.bins)
    return floored(scale_from_amax(clip_point(histogram, recipe).amax))


def _weights(decision: Decision, parts: WeightParts) -> Iterator[Weight]:
    for weight in decision.weights:
        if parts == "channel":
            yield weight
        elif parts == "tensor":
            yield replace(weight, axis=None)


class _Insertion:
    """Puts nodes into a new graph, with what a plan quantizes of them."""

    def __init__(self, simulation: Simulation, plan: Plan, graph: onnx.GraphProto) -> None:
        self._simulation = simulation
        self._plan = plan
        self._graph = graph
        self._names = set(simulation.prepared.wiring.names)
        self._activations: dict[tuple[str, bytes], str] = {}
        self._weights: dict[tuple[str, int | None], str] = {}

    def add(self, node: onnx.NodeProto) -> None:
        found = self._plan.decisions.get(node.output[0]) if node.output else None
        if found is None:
            self._graph.node.append(node)
            return
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        slots, weights = found
        for slot in slots:
            changed.input[slot.slot] = self._activation(slot)
        for weight in weights:
            changed.input[weight.slot] = self._weight(weight)
        self._graph.node.append(changed)

    def _activation(self, slot: Slot) -> str:
        key = (slot.name, slot.scale.tobytes())
        if key not in self._activations:
            scale = self._constant(f"{slot.name}_scale", onnx.numpy_helper.from_array(np.asarray(slot.scale)))
            zero = self._constant(f"{slot.name}_zero_point", onnx.numpy_helper.from_array(np.zeros((), np.int8)))
            integers = self._new_name(f"{slot.name}_quantized")
            floats = self._new_name(f"{slot.name}_dequantized")
            make = onnx.helper.make_node
            self._graph.node.append(make("QuantizeLinear", [slot.name, scale, zero], [integers]))
            self._graph.node.append(make("DequantizeLinear", [integers, scale, zero], [floats]))
            self._activations[key] = floats
        return self._activations[key]

    def _weight(self, weight: Weight) -> str:
        key = (weight.name, weight.axis)
        if key not in self._weights:
            tensor = self._simulation.simulated_weights(weight, self._plan.weight_recipe)
            self._weights[key] = self._constant(f"{weight.name}_simulated", tensor)
        return self._weights[key]

    def _constant(self, wanted: str, tensor: onnx.TensorProto) -> str:
        name = self._new_name(wanted)
        self._graph.initializer.append(tensor)
        self._graph.initializer[-1].name = name
        return name

    def _new_name(self, wanted: str) -> str:
        name = free_name(wanted, self._names)
        self._names.add(name)
        return name
