"""Rules on the network that a parser made; the network is a stand-in. tests/rtx holds them against TensorRT-RTX."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trt import fake_rtx as trt
from tests.trt.fake_rtx import DataType, MatrixOperation, Network, PoolingType, Tensor
from trtcalib.trt.conformance_values import LayerFacts
from trtcalib.trt.network_rules import judge_network

IMAGE = (1, 4, 8, 8)


def judged(network: Network) -> list[LayerFacts]:
    return judge_network(trt, network)


def reasons(network: Network) -> tuple[str, ...]:
    (only,) = judged(network)
    return only.reasons


def convolution(network: Network, data: Any, weights: Any = None, kind: str = "CONVOLUTION") -> tuple[str, ...]:
    weights = network.weights((4, 4, 1, 1), 0) if weights is None else weights
    network.add(kind, [data, weights], IMAGE, node="conv")
    return reasons(network)


@pytest.fixture
def net() -> Network:
    return Network()


@pytest.fixture
def x(net: Network) -> Tensor:
    return net.input("x", *IMAGE)


def test_a_convolution_as_it_should_be_has_nothing_against_it(net, x):
    data, weights = net.quantized(x), net.weights((4, 4, 1, 1), 0)
    net.add("CONVOLUTION", [data, weights], IMAGE, name="layer", node="conv | then (then_branch) | if (If)")
    assert judged(net) == [
        LayerFacts(layer="layer", kind="CONVOLUTION", node="conv | then (then_branch) | if (If)", reasons=())
    ]


def test_layers_without_weights_are_not_judged(net, x):
    net.add("POOLING", [net.add("ACTIVATION", [x], IMAGE)], IMAGE, pooling=PoolingType.MAX)
    assert judged(net) == []


def test_metadata_that_reads_otherwise_names_no_node(net, x):
    net.add("CONVOLUTION", [net.quantized(x), net.weights((4, 4, 1, 1), 0)], IMAGE)
    net.layers[-1].metadata = "something else"
    assert judged(net)[0].node == ""


def test_every_input_without_qdq_is_named(net, x):
    assert convolution(net, x, net.constant("w", np.ones((4, 4, 1, 1)))) == (
        "its input 'x': a float input of the network, no DequantizeLinear before it",
        "its weights 'w': a float constant, no DequantizeLinear before it",
    )


def test_weights_that_the_parser_put_into_the_layer_are_float(net, x):
    net.add("CONVOLUTION", [net.quantized(x)], IMAGE)
    assert reasons(net) == ("its weights are float constants: no DequantizeLinear before them",)


@pytest.mark.parametrize(("scale", "shape"), [([0.05], "[1]"), ([0.1, 0.2, 0.3, 0.4], "[4]")])
def test_an_activation_has_one_scale_of_no_axes(net, x, scale, shape):
    expected = f"the scale 'sx' of its input has shape {shape}, expected a single number of shape [] (per tensor)"
    assert convolution(net, net.quantized(x, scale)) == (expected,)


def test_a_scale_that_is_computed_from_constants_is_a_constant(net, x):
    scale = net.add("ACTIVATION", [net.constant("s", np.float32(1))], ())
    assert convolution(net, net.quantized(x, scale)) == ()


def test_a_scale_that_is_computed_from_an_input_is_told(net, x):
    scale = net.add("ACTIVATION", [x], (), name="s")
    assert convolution(net, net.quantized(x, scale)) == (
        "the scale 's_output' of its input is computed while the engine runs",
    )


def test_an_infinite_scale_is_told(net, x):
    assert convolution(net, net.quantized(x, np.inf)) == ("the scale 'sx' of its input is infinite",)


@pytest.mark.parametrize("dtype", [DataType.FP8, DataType.INT4])
def test_other_types_than_int8_are_told(net, x, dtype):
    weights = net.weights((4, 4, 1, 1), 0, dtype)
    assert convolution(net, net.quantized(x), weights) == (f"its weights 'w': {dtype.name}, not INT8",)


def test_a_transposed_convolution_is_float_whatever_its_inputs(net, x):
    found = convolution(net, net.quantized(x), net.weights((4, 4, 1, 1), 1), "DECONVOLUTION")
    assert found == ("TensorRT-RTX runs every ConvTranspose in float (seen with 1.7.1)",)


def test_a_quantize_without_a_dequantize_is_told(net, x):
    integers = net.add("QUANTIZE", [x, net.constant("s", np.float32(1))], IMAGE, name="q", dtype=DataType.INT8)
    expected = "its input 'q_output': from the QuantizeLinear 'q' without a DequantizeLinear"
    assert convolution(net, integers) == (expected,)


class TestAxes:
    @pytest.mark.parametrize("axis", [1, 2, 3])
    def test_of_a_convolution_only_0_counts_output_channels(self, net, x, axis):
        assert convolution(net, net.quantized(x), net.weights((4, 4, 3, 3), axis)) == (
            f"the scale 'sw' of its weights goes along axis {axis}, expected axis 0, the output channels",
        )

    @pytest.mark.parametrize(
        ("place", "operation", "right"),
        [
            (0, MatrixOperation.NONE, 0),
            (0, MatrixOperation.TRANSPOSE, 1),
            (1, MatrixOperation.NONE, 1),
            (1, MatrixOperation.TRANSPOSE, 0),
        ],
    )
    @pytest.mark.parametrize("axis", [0, 1])
    def test_of_a_product_of_matrices(self, net, place, operation, right, axis):
        operands = [net.weights((4, 4), axis)]
        operands.insert(1 - place, net.quantized(net.input("x", 4, 4)))
        net.add("MATRIX_MULTIPLY", operands, (4, 4), **{f"op{place}": operation})
        expected = f"the scale 'sw' of its weights goes along axis {axis}, expected axis {right}, the output channels"
        assert reasons(net) == (() if axis == right else (expected,))

    def test_of_a_vector_none_does(self, net):
        net.add("MATRIX_MULTIPLY", [net.quantized(net.input("x", 2, 4)), net.weights((4,), 0)], (2,))
        assert reasons(net) == (
            "the scale 'sw' of its weights goes along axis 0, expected one scale for all, the output channels",
        )

    @pytest.mark.parametrize(("axis", "fits"), [(0, False), (1, True)])
    def test_of_an_einsum_what_its_result_keeps(self, net, axis, fits):
        operands = [net.quantized(net.input("x", 2, 4)), net.weights((4, 4), axis)]
        net.add("EINSUM", operands, (2, 4), equation="ij, jk -> ik")
        assert (reasons(net) == ()) == fits

    def test_one_scale_for_all_weights_has_no_axis(self, net, x):
        weights = net.quantized(net.constant("w", np.ones((4, 4, 1, 1))), [0.02], axis=3)
        assert convolution(net, net.quantized(x), weights) == ()

    @given(st.permutations(range(4)), st.permutations(range(4)), st.integers(0, 3))
    def test_move_through_a_transpose(self, first, second, axis):
        """The oracle moves an array whose values say where they came from."""
        net = Network()
        shape = (2, 3, 5, 7)
        moved = np.moveaxis(np.arange(210).reshape(shape), 0, 0).transpose(first).transpose(second)
        places = {shape.index(size): place for place, size in enumerate(moved.shape)}
        scale = net.constant("sw", np.full(shape[axis], 0.02, np.float32))
        dequantized = net.add("DEQUANTIZE", [net.constant("w", np.ones(shape), DataType.INT8), scale], shape, axis=axis)
        turned = net.add(
            "SHUFFLE", [dequantized], moved.shape, first=(*first, *range(4, 8)), second=(*second, *range(4, 8))
        )
        found = convolution(net, net.quantized(net.input("x", *IMAGE)), turned)
        assert (found == ()) == (places[axis] == 0)

    @pytest.mark.parametrize("kind", ["SHUFFLE", "UNSQUEEZE"])
    def test_stay_where_axes_of_size_1_are_put_in(self, net, x, kind):
        widened = net.add(kind, [net.weights((4, 6), 0)], (4, 6, 1, 1))
        assert convolution(net, net.quantized(x), widened) == ()

    def test_are_lost_where_a_reshape_merges_them(self, net, x):
        merged = net.add("SHUFFLE", [net.weights((2, 3, 4), 0)], (6, 4, 1, 1))
        (found,) = convolution(net, net.quantized(x), merged)
        assert found.startswith("the scale 'sw' of its weights goes along axis 0, expected one scale for all")


class TestBetween:
    @pytest.mark.parametrize("kind", ["IDENTITY", "CAST", "SHUFFLE", "SQUEEZE", "UNSQUEEZE", "SLICE", "GATHER"])
    def test_layers_that_move_values_are_looked_through(self, net, x, kind):
        assert convolution(net, net.add(kind, [net.quantized(x)], IMAGE)) == ()

    @pytest.mark.parametrize("kind", ["ACTIVATION", "RESIZE", "CONDITIONAL_INPUT"])
    def test_layers_that_compute_are_not(self, net, x, kind):
        found = convolution(net, net.add(kind, [net.quantized(x)], IMAGE, name="between"))
        assert found == (f"its input 'between_output': from {kind} 'between', not from a DequantizeLinear",)

    def test_of_pools_maxima_only_are(self, net, x):
        largest = net.add("POOLING", [net.quantized(x)], IMAGE, pooling=PoolingType.MAX)
        assert convolution(net, largest) == ()
        mean = net.add("POOLING", [largest], IMAGE, pooling=PoolingType.AVERAGE, name="mean")
        net.add("CONVOLUTION", [mean, net.weights((4, 4, 1, 1), 0)], IMAGE)
        assert judged(net)[1].reasons == ("its input 'mean_output': from POOLING 'mean', not from a DequantizeLinear",)

    @pytest.mark.parametrize(
        ("second", "found"), [(0.05, ()), (0.06, ("its input 'c_output': joined of tensors with different scales",))]
    )
    def test_a_concat_joins_equal_scales_only(self, net, x, second, found):
        parts = [net.quantized(x), net.quantized(net.input("x2", *IMAGE), second, name="s2")]
        assert convolution(net, net.add("CONCATENATION", parts, IMAGE, name="c")) == found

    def test_a_concat_with_a_float_part_is_float(self, net, x):
        joined = net.add("CONCATENATION", [net.quantized(x), net.input("x2", *IMAGE)], IMAGE, name="c")
        assert convolution(net, joined) == (
            "its input 'c_output': a float input of the network, no DequantizeLinear before it",
        )

    def test_joins_of_joins_take_no_exponential_time(self, net, x):
        data = net.quantized(x)
        for _ in range(60):
            data = net.add("CONCATENATION", [data, data], IMAGE)
        assert convolution(net, data) == ()

    def test_a_chain_without_an_end_is_given_up(self, net, x):
        data = net.quantized(x)
        for _ in range(1100):
            data = net.add("IDENTITY", [data], IMAGE)
        (found,) = convolution(net, data)
        assert "behind more than 1000 layers, which are not followed" in found


def test_a_rank_that_is_not_known_is_no_error(net):
    operands = [Tensor("x", None), Tensor("b", None)]
    net.add("MATRIX_MULTIPLY", operands, None)
    assert [reason.split(",")[0] for reason in reasons(net)] == [
        "its input 'x': a float input of the network",
        "its input 'b': a float input of the network",
    ]


def test_the_order_of_judgements_is_the_networks(net, x):
    for order in permutations(range(3)):
        for i in order:
            net.add(
                "CONVOLUTION", [net.quantized(x), net.weights((4, 4, 1, 1), 0)], IMAGE, name=f"{len(net.layers)}-{i}"
            )
    assert [facts.layer for facts in judged(net)] == [
        layer.name for layer in net.layers if layer.type.name == "CONVOLUTION"
    ]
