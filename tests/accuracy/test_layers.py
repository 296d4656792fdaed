"""What is measured node by node from parts is what whole models give, run one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.accuracy.test_parts import MORE
from tests.models import make_model
from tests.qdq.graphs import ACCEPTED, cache, fill_in, save
from trtcalib.accuracy import layers as module
from trtcalib.accuracy.layers import GROUP, PARTS, MeasuredLayer, group_size, measure_layers
from trtcalib.accuracy.simulation import Choice, Simulation
from trtcalib.accuracy.task import OpenTask, Task, open_task
from trtcalib.judging.judge import NOISE, SIGNAL
from trtcalib.onnx_graph import ModelGraph, read_model
from trtcalib.qdq.convert import convert
from trtcalib.qdq.prepared import QdqOptions
from trtcalib.sessions import Session

NOISE_OF_FLOAT = 1e-5
"""Of sums: whole models fold batch normalizations in another place, and fuse across where a part begins."""


@dataclass(frozen=True, slots=True)
class Case:
    """A graph, its cache, and whether its fixed batch holds several samples."""

    text: str
    scales: Mapping[str, float]


CASES = {
    "two skip adds, two outputs and a dead branch": Case(
        """g (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] z)
        <float[2,2,1,1] v, float[2,2,1,1] w, float[2,2,1,1] u, float[2,2,1,1] d> {
            a = Conv(x, v)
            r = Relu(a)
            b = Conv(r, w)
            s = Add(b, x)
            c = Conv(s, u)
            y = Add(c, s)
            z = Relu(s)
            dead = Conv(r, d)
        }""",
        {"x": 1 / 16, "r": 1 / 4, "s": 1 / 2},
    ),
    "attention": Case(
        """g (float[1,3,4] x) => (float[1,3,4] y) <float[4,4] q, float[4,4] k, float[4,4] v> {
            a = MatMul(x, q)
            b = MatMul(x, k)
            t = Transpose<perm=[0,2,1]>(b)
            p = MatMul(a, t)
            c = MatMul(x, v)
            y = MatMul(p, c)
        }""",
        {"x": 1 / 16, "a": 1 / 4, "t": 1 / 4, "b": 1 / 4, "p": 1.0, "c": 1 / 4},
    ),
    "a fixed batch of three": Case(
        """g (float[3,4] x) => (float[3,4] y, float[3,2] z) <float[4,4] v, float[4,4] w, float[4,2] u> {
            a = MatMul(x, v)
            r = Relu(a)
            y = MatMul(r, w)
            z = MatMul(r, u)
        }""",
        {"x": 1 / 16, "r": 1 / 4},
    ),
    "a free batch": Case(
        "g (float[N,4] x) => (float[N,3] y) <float[4,4] v, float[4,3] w> { a = MatMul(x, v) \n y = MatMul(a, w) }",
        {"x": 1 / 16, "a": 1 / 2},
    ),
    "a batch norm": Case(ACCEPTED["conv and batch norm"].text, ACCEPTED["conv and batch norm"].scales),
    "weights of two nodes": Case(ACCEPTED["weights of two nodes"].text, ACCEPTED["weights of two nodes"].scales),
    "a Loop": Case(MORE["a Loop whose body takes an outer tensor"], {"x": 1 / 16}),
    "an If": Case(
        """g (float[1,2] x, bool[1] c) => (float[1,2] y, float[1,2] z) <float[2,2] v, float[2,2] w> {
            a = MatMul(x, v)
            b = Relu(a)
            y = If(c) <
                then_branch = t () => (float[1,2] o) { i = Add(a, b) o = Neg(i) },
                else_branch = e () => (float[1,2] q) { i = Mul(b, b) q = Identity(i) }
            >
            z = MatMul(y, w)
        }""",
        {"x": 1 / 16, "y": 1 / 2},
    ),
    "an output that lies before": Case(
        MORE["several outputs, one of them before the weights"], {"x": 1 / 16, "r": 1 / 16}
    ),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def open_case(folder: Path, case: Case, metric: Any = "sqnr") -> tuple[OpenTask, Choice]:
    path = folder / "model.onnx"
    path.write_bytes(fill_in(make_model(case.text)).SerializeToString())
    graph = read_model(path)
    random = np.random.default_rng(5)
    data = {}
    for given in graph.inputs:
        # Six samples, in steps of 1/64: ties to round, and values that saturate.
        shape = [6, *[2 if isinstance(axis, str) or axis is None else axis for axis in given.shape[1:]]]
        values = (random.integers(-300, 300, shape) / 64).astype(np.float32)
        data[given.name] = values > 0 if given.dtype == np.bool_ else values
    return open_task(Task(model=path, data=data, metric=metric)), Choice(scales=cache(case.scales))


def whole(graph: ModelGraph, scales: Mapping[str, np.float32], floats: frozenset[str]) -> ModelGraph:
    """Convert the model as ``trtcalib qdq`` does."""
    options = QdqOptions(partial="skip", float_outputs=floats)
    return replace(graph, proto=convert(graph, scales, options).proto)


def outputs(opened: OpenTask, graph: ModelGraph, names: list[str]) -> list[dict[str, np.ndarray]]:
    """Run a model over the samples, one inference after the other."""
    session = Session(graph, names, simulate=True)
    runs = opened.samples.batches.runs()
    return [dict(zip(names, session.run(names, run.load(), "", run.label), strict=True)) for run in runs]


def sums(exact: list[np.ndarray], other: list[np.ndarray]) -> tuple[float, float]:
    """Add up signal and noise, number by number."""
    signal = noise = 0.0
    for a, b in zip(exact, other, strict=True):
        for x, y in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True):
            signal += x * x
            noise += (y - x) * (y - x)
    return signal, noise


def measure(opened: OpenTask, choice: Choice, **options: Any) -> list[MeasuredLayer]:
    simulation = Simulation(opened.graph)
    return measure_layers(simulation, choice, simulation.plan(choice).weighted, opened.samples, **options)


def assert_near(found: tuple[float, float], expected: tuple[float, float]) -> None:
    assert found[0] == pytest.approx(expected[0], rel=NOISE_OF_FLOAT)
    assert found[1] == pytest.approx(expected[1], rel=NOISE_OF_FLOAT, abs=1e-9 * expected[0])


def test_every_number_is_that_of_whole_models(tmp_path: Path, case: Case) -> None:
    opened, choice = open_case(tmp_path, case)
    graph = opened.graph
    plan = Simulation(graph).plan(choice)
    shown = [output.name for output in graph.proto.graph.output]
    nodes = list(plan.weighted)
    assert nodes
    every = list(dict.fromkeys([*shown, *nodes]))
    exact = outputs(opened, graph, every)
    full = outputs(opened, whole(graph, choice.scales, frozenset()), every)
    measured = measure(opened, choice)
    assert [layer.output for layer in measured] == nodes
    for layer in measured:
        alone = outputs(opened, whole(graph, choice.scales, frozenset(plan.decisions) - {layer.output}), every)
        others = outputs(opened, whole(graph, choice.scales, frozenset({layer.output})), every)
        for judged, found in ((layer.only, alone), (layer.all_but, others)):
            assert len(judged.compared) == 6
            for i, name in enumerate(judged.outputs):
                told = judged.compared[:, i, [SIGNAL, NOISE]].sum(axis=0)
                assert_near(tuple(told), sums([run[name] for run in exact], [run[name] for run in found]))
        own = layer.output
        assert_near(layer.local, sums([run[own] for run in exact], [run[own] for run in alone]))
        assert_near(layer.network, sums([run[own] for run in exact], [run[own] for run in full]))


def test_int8_costs_something_in_every_case(tmp_path: Path, case: Case) -> None:
    """Else the test above would compare zeros."""
    opened, choice = open_case(tmp_path, case)
    assert any(layer.local[1] > 0 and layer.only.compared[..., NOISE].sum() > 0 for layer in measure(opened, choice))


def test_a_node_that_no_output_depends_on_costs_nothing_and_has_a_local_error(tmp_path: Path) -> None:
    opened, choice = open_case(tmp_path, CASES["two skip adds, two outputs and a dead branch"])
    dead = next(layer for layer in measure(opened, choice) if layer.output == "dead")
    assert dead.only.compared[..., NOISE].sum() == 0
    assert dead.local[1] > 0


@pytest.mark.parametrize("metric", ["sqnr", "cosine"])
def test_the_number_of_workers_changes_no_bit(tmp_path: Path, case: Case, metric: str) -> None:
    opened, choice = open_case(tmp_path, case, metric)
    one, four = measure(opened, choice, workers=1), measure(opened, choice, workers=4)
    for first, second in zip(one, four, strict=True):
        assert (first.local, first.network) == (second.local, second.network)
        for a, b in ((first.only, second.only), (first.all_but, second.all_but)):
            assert a.compared.tobytes() == b.compared.tobytes()
            assert a.scores.tobytes() == b.scores.tobytes()


def test_groups_do_not_change_a_number(tmp_path: Path) -> None:
    opened, choice = open_case(tmp_path, CASES["attention"])
    simulation = Simulation(opened.graph)
    together = measure(opened, choice)
    for layer in together:
        (alone,) = measure_layers(simulation, choice, [layer.output], opened.samples)
        assert (alone.local, alone.network) == (layer.local, layer.network)
        assert alone.only.compared.tobytes() == layer.only.compared.tobytes()
        assert alone.all_but.compared.tobytes() == layer.all_but.compared.tobytes()


def test_a_function_is_called_with_each_samples_outputs(tmp_path: Path) -> None:
    def largest(found: Mapping[str, np.ndarray], label: Any) -> float:
        assert label is None
        assert found["y"].shape == (1, 4)
        return float(found["y"].max())

    opened, choice = open_case(tmp_path, CASES["a fixed batch of three"], largest)
    graph = opened.graph
    exact = [row.max() for run in outputs(opened, graph, ["y"]) for row in run["y"]]
    for layer in measure(opened, choice):
        others = outputs(opened, whole(graph, choice.scales, frozenset({layer.output})), ["y"])
        assert layer.all_but.scores.tolist() == [row.max() for run in others for row in run["y"]]
        assert layer.all_but.reference_scores.tolist() == exact


def test_progress_counts_samples(tmp_path: Path) -> None:
    opened, choice = open_case(tmp_path, CASES["a fixed batch of three"])
    told: list[tuple[int, int | None]] = []
    measure(opened, choice, workers=1, progress=lambda done, total: told.append((done, total)))
    assert told == [(3, 6), (6, 6)]


class TestGroupSize:
    def graph(self, folder: Path) -> ModelGraph:
        """Weights of 48 and 24 bytes, 72 in all."""
        return read_model(
            save(
                folder,
                "g (float[N,4] x) => (float[N,2] y) <float[4,3] v, float[3,2] w> { a = MatMul(x, v) \n y = MatMul(a, w) }",
            )
        )

    def test_a_small_model_is_measured_in_groups_of_the_most(self, tmp_path: Path) -> None:
        assert group_size(self.graph(tmp_path)) == GROUP

    def test_weights_in_a_file_of_their_own_count_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = self.graph(tmp_path).path
        onnx.save_model(onnx.load(path), path, save_as_external_data=True, size_threshold=0)
        monkeypatch.setattr(module, "_OPEN_BYTES", PARTS * 72 * 3)
        assert group_size(read_model(path)) == 3

    @pytest.mark.parametrize(("room", "nodes"), [(PARTS * 72 * 5, 5), (PARTS * 72 * 5 - 1, 4), (1, 1)])
    def test_what_a_group_holds_is_bounded_by_the_weights(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, nodes: int
    ) -> None:
        monkeypatch.setattr(module, "_OPEN_BYTES", room)
        assert group_size(self.graph(tmp_path)) == nodes


def test_what_is_shown_before_a_transpose_is_not_what_int8_rounds_behind_it(tmp_path: Path) -> None:
    case = Case(
        """g (float[1,2,3] x) => (float[1,2,2] b, float[1,2,3] y) <float[3,2] v, float[2,3] w> {
            b = MatMul(x, v)
            t = Transpose<perm=[0,2,1]>(b)
            y = MatMul(t, w)
        }""",
        {"x": 1 / 16, "t": 2.0},
    )
    opened, choice = open_case(tmp_path, case)
    variant = whole(opened.graph, choice.scales, frozenset({"b"}))
    exact, found = outputs(opened, opened.graph, ["b", "y"]), outputs(opened, variant, ["b", "y"])
    assert all(np.array_equal(a["b"], b["b"]) for a, b in zip(exact, found, strict=True))
    assert not all(np.array_equal(a["y"], b["y"]) for a, b in zip(exact, found, strict=True))
