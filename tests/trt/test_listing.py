"""Which tensors of a network can be observed; TensorRT's objects are stood in for by plain ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from trtcalib.trt.listing import list_tensors

FLOAT, HALF, INT = (SimpleNamespace(name=name) for name in ("FLOAT", "HALF", "INT32"))


class Weights(SimpleNamespace):
    """Stands in for the class that a constant's layer is made one of."""


KINDS = {
    name: SimpleNamespace(name=name)
    for name in (
        "ACTIVATION",
        "CONSTANT",
        "POOLING",
        "SHUFFLE",
        "RECURRENCE",
        "LOOP_OUTPUT",
        "CONDITIONAL_INPUT",
        "CONDITIONAL_OUTPUT",
    )
}
TRT = SimpleNamespace(float32=FLOAT, float16=HALF, LayerType=SimpleNamespace(**KINDS), IConstantLayer=Weights)


def tensor(name: str, shape: tuple[int, ...] = (-1, 3), dtype: Any = FLOAT, *, is_shape: bool = False) -> Any:
    return SimpleNamespace(name=name, shape=shape, dtype=dtype, is_shape_tensor=is_shape)


class Layer(SimpleNamespace):
    """A layer with fixed inputs and outputs."""

    def get_input(self, i: int) -> Any:
        return self.inputs[i] if i < len(self.inputs) else None

    def get_output(self, i: int) -> Any:
        return self.outputs[i]


def layer(kind: str, inputs: list[Any], *outputs: Any, **more: Any) -> Any:
    return Layer(
        type=KINDS[kind], inputs=inputs, outputs=outputs, num_inputs=len(inputs), num_outputs=len(outputs), **more
    )


def network(inputs: list[Any], *layers: Any) -> Any:
    return SimpleNamespace(
        num_inputs=len(inputs), get_input=inputs.__getitem__, num_layers=len(layers), get_layer=layers.__getitem__
    )


def test_floating_point_tensors_are_listed_once_in_network_order() -> None:
    x, ids = tensor("x"), tensor("ids", dtype=INT)
    a, size, again = tensor("a", dtype=HALF), tensor("size", is_shape=True), tensor("a")
    found = list_tensors(
        TRT, network([x, ids], layer("ACTIVATION", [x], a, ids), layer("SHUFFLE", [a], size, again)), 8
    )
    assert [(t.name, t.kind) for t in found.tensors] == [("x", "input"), ("a", "activation")]
    assert [(o.name, o.nbytes) for o in found.outputs] == [("a", 8 * 3 * 2)]


def test_a_free_axis_other_than_the_batch_counts_as_one() -> None:
    x, a = tensor("x"), tensor("a", (-1, 5, -1))
    assert list_tensors(TRT, network([x], layer("ACTIVATION", [x], a)), 4).outputs[0].nbytes == 4 * 5 * 4


def test_a_pool_inherits_and_what_follows_it_does_not() -> None:
    x, p, s = tensor("x"), tensor("p"), tensor("s")
    found = list_tensors(TRT, network([x], layer("POOLING", [x], p), layer("SHUFFLE", [p], s)), 1)
    assert [(t.name, t.scale_of) for t in found.tensors] == [("x", None), ("p", "x"), ("s", None)]
    assert [o.name for o in found.outputs] == ["s"]


def test_a_pool_of_what_has_no_scale_is_observed() -> None:
    ids, p = tensor("ids", dtype=INT), tensor("p")
    assert [o.name for o in list_tensors(TRT, network([ids], layer("POOLING", [ids], p)), 1).outputs] == ["p"]


def test_constants_keep_their_values_whatever_strides_the_bindings_give() -> None:
    values = np.array([1, -4, 0], np.float32)
    broken = np.lib.stride_tricks.as_strided(values, (3,), (0,))
    found = list_tensors(TRT, network([], layer("CONSTANT", [], tensor("w", (3,)), weights=broken)), 1)
    assert found.constants["w"].tolist() == [1, -4, 0]
    assert found.constants["w"].base is None
    assert not found.outputs


def test_what_lies_inside_control_flow_is_hidden() -> None:
    x, inner, body, out, last = (tensor(name) for name in ("x", "inner", "body", "out", "last"))
    loop = [
        layer("RECURRENCE", [x], inner),
        layer("ACTIVATION", [inner], body),
        layer("LOOP_OUTPUT", [body], out),
        layer("ACTIVATION", [out], last),
    ]
    found = list_tensors(TRT, network([x], *loop), 1)
    assert found.hidden == {"inner", "body"}
    assert [t.name for t in found.tensors] == ["x", "out", "last"]


def test_branches_of_a_condition_are_hidden() -> None:
    x, taken, branch, out = (tensor(name) for name in ("x", "taken", "branch", "out"))
    layers = [
        layer("CONDITIONAL_INPUT", [x], taken),
        layer("ACTIVATION", [taken], branch),
        layer("CONDITIONAL_OUTPUT", [branch, x], out),
    ]
    assert list_tensors(TRT, network([x], *layers), 1).hidden == {"taken", "branch"}
