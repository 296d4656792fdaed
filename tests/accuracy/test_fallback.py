"""The search for nodes to leave in float: small sets, judged as they are, in few evaluations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtcalib.accuracy.fallback import AT_ONCE, Found, find_fallback, macs_left, most_evaluations
from trtcalib.accuracy.result import Judgement
from trtcalib.qdq.coverage import NodeFacts

Loss = Callable[[frozenset[str]], float]


class Judge:
    """Judges sets by a loss, and notes what it was asked."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        self.passes: list[list[frozenset[str]]] = []

    def __call__(self, sets: Sequence[frozenset[str]]) -> list[Judgement]:
        self.passes.append(list(sets))
        return [
            Judgement(value=None, interval=None, loss=self.loss(nodes), loss_interval=None, p_value=None, outputs=[])
            for nodes in sets
        ]

    @property
    def asked(self) -> list[frozenset[str]]:
        return [nodes for each in self.passes for nodes in each]


def find(loss: Loss, nodes: Sequence[str], max_loss: float, *more: Sequence[str]) -> tuple[Found, Judge]:
    judge = Judge(loss)
    singles = {node: loss(frozenset({node})) for node in nodes}
    return find_fallback([nodes, *(more or [nodes])], singles, max_loss, judge), judge


def added(costs: dict[str, float]) -> Loss:
    """Every node costs something of its own."""
    return lambda floats: sum(cost for node, cost in costs.items() if node not in floats)


class TestOneNode:
    def test_is_told_from_what_was_measured_and_judged_once(self) -> None:
        found, judge = find(added({"a": 1, "b": 16, "c": 2}), ["a", "b", "c"], 4)
        assert found.outputs == ("b",)
        assert (found.judgement.loss, found.reached, found.evaluations) == (3, True, 1)
        assert judge.asked == [frozenset("b")]

    def test_of_several_that_relieves_most_and_of_equal_ones_the_first_in_the_order(self) -> None:
        relief = {"a": 1.0, "b": 3.0, "c": 3.0}
        loss: Loss = lambda floats: 4 - max((relief[node] for node in floats), default=0)  # noqa: E731 - a case
        assert find(loss, ["a", "c", "b"], 3)[0].outputs == ("c",)
        assert find(loss, ["a", "b", "c"], 3)[0].outputs == ("b",)

    def test_a_measurement_that_does_not_hold_leads_to_the_next(self) -> None:
        judge = Judge(lambda floats: 1.0 if "c" in floats else 9.0)
        found = find_fallback([["a", "b", "c"]], {"a": 0.5, "b": 0.75, "c": 1.0}, 2, judge)
        assert found.outputs == ("c",)
        assert judge.passes == [[frozenset("a")], [frozenset("b"), frozenset("c")]]
        assert found.evaluations == 3


class TestSets:
    def test_two_culprits_that_hide_each_other(self) -> None:
        """Without either alone nothing gets better: no single node tells."""
        nodes = list("qwertyuiopasdfgh")
        loss: Loss = lambda floats: 0.125 if {"e", "g"} <= floats else 1.0  # noqa: E731 - a case
        ranked = ["e", "g", *(node for node in nodes if node not in "eg")]
        found, _ = find(loss, ranked, 0.25, nodes)
        assert found.outputs == ("e", "g")
        assert found.reached

    def test_two_culprits_at_the_ends_of_every_order_are_found_by_putting_the_others_back(self) -> None:
        nodes = list("abcdefghijklmnop")
        loss: Loss = lambda floats: 0.125 if {"a", "p"} <= floats else 1.0  # noqa: E731 - a case
        found, judge = find(loss, nodes, 0.25)
        assert found.outputs == ("a", "p")
        assert found.evaluations == len(set(judge.asked)) <= most_evaluations(16, 2)

    def test_the_shorter_of_two_orders_counts(self) -> None:
        costs = dict.fromkeys("abcdefgh", 1.0) | {"x": 5.0, "y": 5.0}
        wrong = [*"abcdefgh", "x", "y"]
        found, _ = find(added(costs), wrong, 8, ["x", "y", *"abcdefgh"])
        assert set(found.outputs) == {"x", "y"}

    def test_a_loss_that_rises_with_more_nodes_in_float_is_judged_not_guessed(self) -> None:
        """One node's error takes back another's: without c alone it is worse than without any."""
        table = {frozenset("ab"): 1.0, frozenset("abc"): 9.0, frozenset("abcd"): 0.0}
        found, judge = find(lambda floats: table.get(floats, 5.0), list("abcd"), 2)
        assert found.outputs == ("a", "b")
        assert found.judgement.loss == 1
        assert frozenset("ab") in judge.asked

    def test_where_only_everything_is_enough_everything_is_told_and_was_judged(self) -> None:
        nodes = list("abcdefg")
        found, judge = find(lambda floats: 0.0 if len(floats) == 7 else 1.0, nodes, 0.5)
        assert found.outputs == tuple(nodes)
        assert found.reached
        assert frozenset(nodes) in judge.asked

    def test_a_bound_that_nothing_reaches_is_said_not_to_be_reached(self) -> None:
        found, judge = find(lambda _: 1.0, list("abcdefg"), 0.5)
        assert not found.reached
        assert (found.outputs, found.judgement.loss) == (tuple("abcdefg"), 1)
        assert judge.asked.count(frozenset("abcdefg")) == 1

    def test_a_loss_that_is_no_number_reaches_nothing(self) -> None:
        assert not find(lambda _: float("nan"), list("abc"), 0.5)[0].reached

    def test_a_single_node(self) -> None:
        found, _ = find(lambda floats: 0.0 if floats else 1.0, ["a"], 0.5)
        assert (found.outputs, found.reached, found.evaluations) == (("a",), True, 1)

    def test_few_evaluations_in_few_passes(self) -> None:
        """64 nodes, of which the three first in the order matter."""
        nodes = [f"n{i}" for i in range(64)]
        costs = dict.fromkeys(nodes, 0.001) | {"n0": 1.0, "n1": 1.0, "n2": 1.0}
        found, judge = find(added(costs), nodes, 0.1)
        assert found.outputs == ("n0", "n1", "n2")
        assert len(judge.passes) <= 6
        assert found.evaluations <= 20


@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=12),
    st.integers(0, 20),
    st.randoms(use_true_random=False),
)
def test_with_costs_that_add_up_the_set_is_enough_and_no_node_of_it_can_be_put_back(costs, max_loss, random) -> None:
    table = {f"n{i}": float(cost) for i, cost in enumerate(costs)}
    if sum(costs) <= max_loss:
        return
    orders = [random.sample(list(table), len(table)) for _ in range(2)]
    judge = Judge(added(table))
    singles = {node: judge.loss(frozenset({node})) for node in table}
    found = find_fallback(orders, singles, max_loss, judge)
    assert found.reached
    assert found.judgement.loss == judge.loss(frozenset(found.outputs)) <= max_loss
    for node in found.outputs:
        assert judge.loss(frozenset(found.outputs) - {node}) > max_loss
    assert found.evaluations == len(set(judge.asked)) == len(judge.asked) <= most_evaluations(len(table), 2)
    assert all(len(each) <= AT_ONCE for each in judge.passes)
    assert list(found.outputs) == sorted(found.outputs, key=orders[0].index)
    assert find_fallback(orders, singles, max_loss, Judge(added(table))) == found


@given(st.dictionaries(st.frozensets(st.sampled_from("abcde")), st.integers(0, 9)), st.integers(0, 9))
def test_whatever_the_loss_is_the_set_was_judged_and_told_honestly(table, max_loss) -> None:
    loss: Loss = lambda floats: float(table.get(floats, 5))  # noqa: E731 - a case
    found, judge = find(loss, list("abcde"), max_loss, list("ecdba"))
    assert frozenset(found.outputs) in judge.asked
    assert found.outputs
    assert found.judgement.loss == loss(frozenset(found.outputs))
    assert found.reached == (found.judgement.loss <= max_loss)


class TestMacsLeft:
    def node(self, output: str, macs: int | None, *, quantized: bool = True) -> NodeFacts:
        return NodeFacts(name=output, operator="Conv", output=output, quantized=quantized, reason=None, macs=macs)

    def test_is_the_share_of_quantized_nodes_that_stay_so(self) -> None:
        nodes = [self.node("a", 50), self.node("b", 30), self.node("c", 20, quantized=False), self.node("d", None)]
        assert macs_left(nodes, ["a"]) == pytest.approx(0.3)
        assert macs_left(nodes, []) == pytest.approx(0.8)

    def test_is_not_known_where_no_shapes_are(self) -> None:
        assert macs_left([self.node("a", None)], []) is None
