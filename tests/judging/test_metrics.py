"""Metrics: scores of one sample, worked out by hand; which metric suits a model; and what each misfit says."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tests.models import save_model
from trtcalib.errors import DataError, MetricError, TrtcalibError
from trtcalib.judging.metrics import (
    METRICS,
    Agreement,
    Cosine,
    Function,
    Metric,
    OutputFacts,
    Sqnr,
    Top,
    find_metric,
    output_facts,
)
from trtcalib.onnx_graph import read_model

NAN = math.nan
INF = math.inf

SCORES = OutputFacts("y", (None, 10), is_float=True)
MAP = OutputFacts("map", (1, 84, 8400), is_float=True)
IDS = OutputFacts("ids", (None, 10), is_float=False)

HINT = "use --metric sqnr or agreement/cosine, a metric of your own (module:function), or name another output with --output-name"
ROWS_HINT = "use --metric sqnr or cosine, or name another output with --output-name"

FLOATS = st.floats(-100, 100, width=32)


def array(values: object) -> np.ndarray:
    return np.array(values, np.float32)


def score(metric: Metric, found: object, expected: object = None, label: object = None) -> float:
    """A score of one output called y."""
    outputs = {"y": array(found)}
    return metric.score(outputs, outputs if expected is None else {"y": array(expected)}, label, "a.png")


def find(wanted: object = None, *outputs: OutputFacts, output: str | None = None, labels: bool = False) -> Metric:
    return find_metric(wanted, output=output, has_labels=labels, outputs=outputs or (SCORES,))  # type: ignore[arg-type]


def refusal(wanted: object, *outputs: OutputFacts, output: str | None = None, labels: bool = True) -> str:
    with pytest.raises(MetricError) as caught:
        find(wanted, *outputs, output=output, labels=labels)
    return str(caught.value)


class TestTop:
    @pytest.mark.parametrize(
        ("row", "label", "top1", "top2"),
        [
            ([1, 3, 2], 1, 1, 1),
            ([1, 3, 2], 2, 0, 1),
            ([1, 3, 2], 0, 0, 0),
            ([5, 5, 5], 0, 1, 1),
            ([5, 5, 5], 1, 0, 1),
            ([5, 5, 5], 2, 0, 0),
            ([1, INF, -INF], 1, 1, 1),
            ([1, NAN, 2], 1, 0, 0),
            ([1, NAN, 2], 2, 0, 0),
            ([1, 2], 0, 0, 1),
        ],
    )
    def test_rank_of_the_label(self, row: list, label: int, top1: int, top2: int) -> None:
        assert score(Top(1, "y"), [row], label=label) == top1
        assert score(Top(2, "y"), [row], label=np.int64(label)) == top2

    @pytest.mark.parametrize("shape", [(3,), (1, 3), (1, 3, 1, 1), (1, 1, 3)])
    def test_axes_of_one_stand_around_the_row(self, shape: tuple[int, ...]) -> None:
        assert score(Top(1, "y"), array([1, 3, 2]).reshape(shape), label=1) == 1

    @pytest.mark.parametrize(
        ("found", "shape"),
        [([[1, 2], [3, 4]], "[2, 2]"), ([[1]], "[1, 1]"), (1, "[]"), (np.zeros((1, 0)), "[1, 0]"), (np.zeros((1, 84, 85)), "[1, 84, 85]")],
    )  # fmt: skip
    def test_what_is_no_row_of_class_scores(self, found: object, shape: str) -> None:
        with pytest.raises(MetricError) as caught:
            score(Top(5, "y"), found, label=0)
        assert str(caught.value) == (
            f"metric top5 at sample a.png needs one row of class scores per sample: output 'y' has shape {shape}; {HINT}"
        )
        assert (caught.value.metric, caught.value.sample, caught.value.traceback) == ("top5", "a.png", "")

    @pytest.mark.parametrize("label", [3, -1, 1000])
    def test_a_label_that_is_no_class_of_the_model(self, label: int) -> None:
        with pytest.raises(DataError) as caught:
            score(Top(1, "y"), [[1, 2, 3]], label=label)
        assert str(caught.value) == (
            f"labels: sample a.png: the label is {label} and output 'y' has 3 classes: labels from 1? expected 0 to 2"
        )

    @given(st.lists(FLOATS, min_size=2, max_size=12), st.integers(1, 12), st.data())
    def test_is_a_stable_sort_from_the_largest(self, row: list[float], k: int, data: st.DataObject) -> None:
        label = data.draw(st.integers(0, len(row) - 1))
        best = sorted(range(len(row)), key=lambda i: -row[i])[:k]
        assert score(Top(k, "y"), [row], label=label) == (label in best)

    @given(st.lists(st.integers(-3, 3), min_size=2, max_size=6))
    def test_exactly_k_labels_are_among_the_k_largest(self, row: list[int]) -> None:
        for k in range(1, len(row) + 1):
            assert sum(score(Top(k, "y"), [row], label=label) for label in range(len(row))) == k


class TestAgreement:
    @pytest.mark.parametrize(
        ("found", "expected", "share"),
        [
            ([[1, 3, 2]], [[0, 9, 0]], 1),
            ([[3, 1, 2]], [[0, 9, 0]], 0),
            ([[5, 5]], [[9, 0]], 1),
            ([[5, 5]], [[0, 9]], 0),
            ([[[1, 2], [2, 1], [1, 2], [0, 0]]], [[[1, 2], [1, 2], [1, 2], [1, 0]]], 0.75),
            ([1, 2], [3, 4], 1),
            ([[NAN, 1]], [[2, 1]], 0),
            ([[2, 1]], [[NAN, 1]], 0),
            ([[NAN, 1]], [[NAN, 2]], 1),
            ([[1, 2, 3]], [[1, 2]], 0),
            ([[1, 2], [1, 2]], [[1, 2]], 0),
            (np.zeros((0, 6)), np.zeros((0, 6)), 1),
            (np.zeros((0, 6)), np.zeros((2, 6)), 0),
        ],
    )
    def test_share_of_rows_with_the_same_largest(self, found: object, expected: object, share: float) -> None:
        assert score(Agreement("y"), found, expected) == share

    def test_pooled_maps_have_one_row_of_channels(self) -> None:
        found, expected = array([1, 3, 2]).reshape(1, 3, 1, 1), array([3, 1, 2]).reshape(1, 3, 1, 1)
        assert score(Agreement("y"), found, expected) == 0
        assert score(Agreement("y"), found, found) == 1

    def test_integers_have_a_largest_too(self) -> None:
        outputs = {"y": np.array([[1, 200]], np.uint8)}
        assert Agreement("y").score(outputs, {"y": np.array([[7, 9]], np.uint8)}, None, "0") == 1

    @pytest.mark.parametrize(("found", "shape"), [([[1]], "[1, 1]"), (1, "[]"), (np.zeros((1, 1, 1, 1)), "[1, 1, 1, 1]"), (np.zeros((1, 0)), "[1, 0]")])  # fmt: skip
    def test_rows_of_one_have_no_largest(self, found: object, shape: str) -> None:
        with pytest.raises(MetricError) as caught:
            score(Agreement("y"), found)
        assert str(caught.value) == (
            "metric agreement at sample a.png needs rows of at least two scores along the last axis: output 'y' has shape "
            f"{shape}; {ROWS_HINT}"
        )

    @given(npst.arrays(np.float32, npst.array_shapes(max_dims=3, min_side=2), elements=st.floats(width=32)))
    def test_fp32_agrees_with_itself(self, values: np.ndarray) -> None:
        assert score(Agreement("y"), values) == 1

    @given(npst.arrays(np.float32, (2, 3, 4), elements=FLOATS), npst.arrays(np.float32, (2, 3, 4), elements=FLOATS))
    def test_is_counted_row_by_row(self, found: np.ndarray, expected: np.ndarray) -> None:
        same = [
            a.tolist().index(max(a)) == b.tolist().index(max(b))
            for a, b in zip(found.reshape(6, 4), expected.reshape(6, 4), strict=True)
        ]
        assert score(Agreement("y"), found, expected) == pytest.approx(sum(same) / 6)


class TestCosine:
    @pytest.mark.parametrize(
        ("found", "expected", "cosine"),
        [
            ([3, 4], [6, 8], 1),
            ([3, 4], [-3, -4], -1),
            ([0, 1], [1, 0], 0),
            ([3, 4], [4, 3], 0.96),
            ([0, 0], [0, 0], 1),
            ([0, 0], [0, 1], 0),
            ([0, 1], [0, 0], 0),
            ([], [], 1),
            ([-INF, 3, 4], [-INF, 4, 3], 0.96),
            ([-INF, 0], [-INF, 0], 1),
            ([INF, 3], [3, 3], 0),
            ([INF, 3], [-INF, 3], 0),
            ([NAN, 3], [3, 3], 0),
            ([3, 3], [NAN, 3], 0),
            ([1, 2, 3], [1, 2], 0),
            ([1e-45, 0], [1e38, 0], 1),
        ],
    )
    def test_of_the_flattened_outputs(self, found: list, expected: list, cosine: float) -> None:
        assert score(Cosine(), found, expected) == pytest.approx(cosine, abs=1e-15)

    def test_of_several_outputs_the_lowest(self) -> None:
        outputs = {"a": array([3, 4]), "b": array([1, 0]), "ids": np.array([1, 2])}
        reference = {"a": array([4, 3]), "b": array([1, 0]), "ids": np.array([-1, -2])}
        assert Cosine().score(outputs, reference, None, "0") == pytest.approx(0.96)
        assert Cosine("b").score(outputs, reference, None, "0") == 1

    def test_doubles_neither_overflow_nor_vanish(self) -> None:
        for size in (1e300, 1e-300):
            found, expected = {"y": np.array([3, 4]) * size}, {"y": np.array([4, 3]) * size}
            assert Cosine("y").score(found, expected, None, "0") == pytest.approx(0.96)

    def test_no_floating_point_output(self) -> None:
        outputs = {"ids": np.array([1])}
        with pytest.raises(MetricError) as caught:
            Cosine().score(outputs, outputs, None, "7")
        assert str(caught.value) == (
            "metric cosine at sample 7 needs a floating-point output and got none; use module:function"
        )

    @given(npst.arrays(np.float32, npst.array_shapes(), elements=st.floats(width=32, allow_nan=False)))
    def test_fp32_has_exactly_one_with_itself(self, values: np.ndarray) -> None:
        before = values.copy()
        assert score(Cosine(), values) == 1
        np.testing.assert_array_equal(values, before)

    @given(npst.arrays(np.float32, 6, elements=FLOATS), npst.arrays(np.float32, 6, elements=FLOATS))
    def test_lies_within_one_and_is_symmetric(self, a: np.ndarray, b: np.ndarray) -> None:
        found = score(Cosine(), a, b)
        assert -1 <= found <= 1
        assert found == score(Cosine(), b, a)


class TestFunction:
    @pytest.mark.parametrize("returned", [True, 1, 1.0, np.float32(1), np.int8(1), np.bool_(True)])
    def test_returns_a_number(self, returned: object) -> None:
        found = score(Function(lambda outputs, label: returned), [[1]])
        assert type(found) is float
        assert found == 1

    def test_gets_all_outputs_and_the_label(self) -> None:
        outputs = {"a": array([1, 2]), "b": array([3])}
        metric = Function(lambda given, label: float(given["a"][label] + given["b"][0]))
        assert metric.score(outputs, {}, 1, "0") == 5

    def test_cannot_change_what_others_see(self) -> None:
        outputs = {"y": array([1, 2])}

        def greedy(given, label) -> int:
            given["y"] *= 0
            return 0

        Function(greedy).score(outputs, outputs, None, "0")
        assert outputs["y"].tolist() == [1, 2]

    @pytest.mark.parametrize(
        ("returned", "shown"),
        [
            (NAN, "nan"), (np.float64(INF), repr(np.float64(INF))), (None, "None"), ("0.5", "'0.5'"), (1j, "1j"), ([0.5], "[0.5]"),
            (10**400, "1" + "0" * 17 + "..." + "0" * 19), (10**5000, "something of type int that cannot be shown"), (np.array([0.5]), "array([0.5])"),
            (np.arange(4).reshape(2, 2), r"'array([[0, 1],\n       [2, 3]])'"),
        ],
        ids=lambda value: f"{value!s:.20}" if isinstance(value, str) else type(value).__name__,
    )  # fmt: skip
    def test_returns_something_else(self, returned: object, shown: str) -> None:
        def iou(outputs, label):
            return returned

        with pytest.raises(MetricError) as caught:
            score(Function(iou), [[1]])
        assert caught.value.reason == f"returned {shown}, expected a finite number"
        assert str(caught.value) == f"metric {iou.__qualname__} at sample a.png {caught.value.reason}"

    def test_raises_and_its_traceback_begins_at_its_own_frame(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        metric = imported(
            tmp_path,
            monkeypatch,
            "def iou(outputs, label):\n    return inner(label)\n\ndef inner(label):\n    raise ValueError(f'bad {label}')\n",
        )
        with pytest.raises(MetricError) as caught:
            score(metric, [[1]], label=3)
        error = caught.value
        first, header, frame, *_, last = str(error).splitlines()
        assert first == "metric user_metrics:iou at sample a.png raised ValueError: bad 3"
        assert header == "Traceback (most recent call last):"
        assert frame == f'  File "{tmp_path / "user_metrics.py"}", line 2, in iou'
        assert last == "ValueError: bad 3"
        assert "line 5, in inner" in error.traceback
        assert "function_metric.py" not in error.traceback
        assert (error.metric, error.sample, error.reason) == ("user_metrics:iou", "a.png", "raised ValueError: bad 3")
        assert isinstance(error, TrtcalibError)
        assert error.exit_code == 2
        assert isinstance(error.__cause__, ValueError)

    def test_takes_other_arguments(self) -> None:
        with pytest.raises(MetricError) as caught:
            score(Function(lambda outputs: 1), [[1]])
        assert caught.value.traceback == ""
        assert "raised TypeError: " in str(caught.value)
        assert str(caught.value).endswith("; it is called as function(outputs, label) and returns a number")

    def test_exits(self) -> None:
        def leaves(outputs, label):
            sys.exit(0)

        with pytest.raises(MetricError, match="raised SystemExit: 0\nTraceback"):
            score(Function(leaves), [[1]])

    def test_raises_without_a_text_or_with_one_that_fails_or_is_endless(self) -> None:
        class Mute(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        def raising(error: Exception):
            def function(outputs, label):
                raise error

            return function

        for error, said in (
            (KeyError(), "raised KeyError"),
            (Mute(), "raised Mute: (its text cannot be shown)"),
            (ValueError("x" * 100_000), f"raised ValueError: {'x' * 500}"),
        ):
            with pytest.raises(MetricError) as caught:
                score(Function(raising(error)), [[1]])
            assert caught.value.reason == said
            assert 0 < len(caught.value.traceback) <= 8000

    def test_recurses_without_end(self) -> None:
        def deeper(outputs, label):
            return deeper(outputs, label)

        with pytest.raises(MetricError, match="raised RecursionError") as caught:
            score(Function(deeper), [[1]])
        assert len(caught.value.traceback) <= 8000

    def test_is_imported_by_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        metric = imported(tmp_path, monkeypatch, "def iou(outputs, label):\n    return label / 2\n")
        assert metric.name == "user_metrics:iou"
        assert score(metric, [[1]], label=1) == 0.5

    def test_cannot_be_imported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(DataError, match="^user_metrics:iou: the module 'user_metrics' has no 'iou'$"):
            imported(tmp_path, monkeypatch, "other = 1\n")
        with pytest.raises(DataError, match="^user_absent:iou: the module 'user_absent' cannot be imported: "):
            find("user_absent:iou")

    def test_is_no_function(self) -> None:
        with pytest.raises(MetricError) as caught:
            Function("iou")
        assert str(caught.value) == "metric 'iou' is no module:function"


def imported(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Metric:
    """The metric user_metrics:iou of a module with this text."""
    (folder / "user_metrics.py").write_text(text)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sys.modules.pop("user_metrics", None)
    return find("user_metrics:iou")


class TestKinds:
    @pytest.mark.parametrize(
        ("metric", "name", "needs_labels", "pooled", "is_share"),
        [
            (Top(1, "y"), "top1", True, False, True),
            (Top(5, "y"), "top5", True, False, True),
            (Agreement("y"), "agreement", False, False, False),
            (Agreement("y", is_share=True), "agreement", False, False, True),
            (Cosine(), "cosine", False, False, False),
            (Sqnr(), "sqnr", False, True, False),
            (Function(max), "max", False, False, False),
        ],
    )
    def test_what_each_needs_and_gives(
        self, metric: Metric, name: str, needs_labels: bool, pooled: bool, is_share: bool
    ) -> None:
        found = (metric.name, metric.needs_labels, metric.pooled, metric.is_share)
        assert found == (name, needs_labels, pooled, is_share)

    def test_a_pooled_metric_scores_no_sample(self) -> None:
        with pytest.raises(NotImplementedError):
            score(Sqnr(), [[1]])


class TestFind:
    def test_the_default_follows_labels_and_outputs(self) -> None:
        assert find(labels=True) == Top(1, "y")
        assert find() == Agreement("y", is_share=True)
        assert find(None, SCORES, MAP) == Agreement("y", is_share=True)
        assert find(None, MAP) == Sqnr()
        assert find(None, SCORES, MAP, output="map") == Sqnr("map")
        assert find(None, IDS, MAP) == Sqnr()

    def test_what_was_asked_for(self) -> None:
        assert find("top1", labels=True) == Top(1, "y")
        assert find("top5", MAP, SCORES, IDS, labels=True) == Top(5, "y")
        assert find("agreement") == Agreement("y", is_share=True)
        assert find("agreement", MAP) == Agreement("map")
        assert find("agreement", SCORES, MAP, output="map") == Agreement("map")
        assert find("sqnr", SCORES, MAP) == Sqnr()
        assert find("cosine", SCORES, MAP, output="y") == Cosine("y")
        assert isinstance(find(max), Function)
        assert {find(name, labels=True).name for name in METRICS} == set(METRICS)

    @pytest.mark.parametrize(
        ("shape", "looks", "may"),
        [
            ((None, 10), True, True),
            ((1, None), True, True),
            ((4, 2), True, True),
            ((None, 10, 1, 1), True, True),
            ((None, None, 1, 1), True, True),
            ((None, 1), False, False),
            ((None, 0), False, False),
            ((None, 1, 1, 1), False, False),
            ((None, 10, 1, 7), False, False),
            ((None, 10, None, None), False, True),
            ((None, 1, 10), False, True),
            ((None, 84, 8400), False, False),
            ((10,), False, True),
            ((None,), False, True),
            ((1,), False, False),
            ((), False, False),
            (None, False, True),
        ],
    )
    def test_which_shapes_look_like_class_scores(self, shape: tuple | None, looks: bool, may: bool) -> None:
        facts = OutputFacts("y", shape, is_float=True)
        assert (facts.is_class_scores, facts.may_be_one_row) == (looks, may)
        assert not OutputFacts("y", shape, is_float=False).is_class_scores
        if may:
            assert find("top1", facts, MAP, labels=True) == Top(1, "y")
        else:
            text = "[" + ", ".join("?" if n is None else str(n) for n in shape or ()) + "]"
            expected = f"metric top1 needs one row of class scores per sample: output 'y' has shape {text}; {HINT}"
            assert refusal("top1", facts) == refusal(None, facts) == expected
            assert refusal("top1", facts, OutputFacts("z", (None, 10), is_float=True), output="y") == expected

    def test_integers_are_class_scores_only_where_nothing_else_can_be_meant(self) -> None:
        assert find("top1", IDS, labels=True) == Top(1, "ids")
        assert find("top1", IDS, SCORES, output="ids", labels=True) == Top(1, "ids")
        assert find("top1", IDS, SCORES, labels=True) == Top(1, "y")

    def test_several_outputs_none_of_which_is_class_scores(self) -> None:
        assert refusal(None, MAP, OutputFacts("z", (1,), is_float=True)) == (
            "metric top1 needs one row of class scores per sample: output 'map' has shape [1, 84, 8400], output 'z' has shape "
            f"[1]; {HINT}"
        )

    @pytest.mark.parametrize(("wanted", "labels", "name"), [("top5", True, "top5"), (None, True, "top1"), (None, False, "agreement")])  # fmt: skip
    def test_several_outputs_of_class_scores(self, wanted: str | None, labels: bool, name: str) -> None:
        other = OutputFacts("z", (None, None), is_float=True)
        assert refusal(wanted, SCORES, other, MAP, labels=labels) == (
            f"metric {name} suits several outputs: output 'y' has shape [?, 10], output 'z' has shape [?, ?]; say which with "
            "--output-name, or use --metric sqnr or cosine, which judge all"
        )
        assert find(wanted, SCORES, other, MAP, output="z", labels=labels).name == name

    def test_an_output_that_the_model_has_not(self) -> None:
        said = "finds no output 'x' in the model: output 'y' has shape [?, 10], output 'q' has an unknown shape"
        outputs = (SCORES, OutputFacts("q", None, is_float=True))
        for wanted, name in (("top1", "top1"), ("cosine", "cosine"), (None, "top1")):
            assert refusal(wanted, *outputs, output="x") == f"metric {name} {said}"
        assert refusal(None, *outputs, output="x", labels=False) == f"metric sqnr {said}"

    def test_hostile_lists_of_outputs_stay_short(self) -> None:
        many = [OutputFacts(f"\x1b{i}" + "x" * 10_000, (1,), is_float=True) for i in range(5000)]
        found = refusal("top1", *many)
        assert " and 4992 more; use" in found
        assert "\x1b" not in found
        assert len(found) < 2000

    def test_no_rows_for_the_agreement(self) -> None:
        assert refusal("agreement", OutputFacts("y", (None, 1), is_float=True)) == (
            "metric agreement needs rows of at least two scores along the last axis: output 'y' has shape [?, 1]; "
            + ROWS_HINT
        )

    def test_labels_are_missing(self) -> None:
        for name in ("top1", "top5"):
            assert refusal(name, labels=False) == (
                f"metric {name} needs labels: give --labels, or use --metric agreement, sqnr or cosine"
            )

    def test_an_unknown_metric(self) -> None:
        expected = "is unknown: expected top1, top5, agreement, sqnr, cosine or module:function"
        assert refusal("top3") == f"metric 'top3' {expected}"
        assert refusal("a b:c") == f"metric 'a b:c' {expected}"
        assert refusal("") == f"metric '' {expected}"

    @pytest.mark.parametrize("name", ["sqnr", "cosine"])
    def test_no_floating_point_output(self, name: str) -> None:
        expected = f"metric {name} needs a floating-point output, found integers: output 'ids' has shape [?, 10]; use module:function"
        assert refusal(name, IDS) == expected
        assert refusal(name, IDS, SCORES, output="ids") == expected


def test_facts_of_a_models_outputs(tmp_path: Path) -> None:
    path = save_model(
        tmp_path / "m.onnx",
        """
        m (float[N, 3] x) => (float[N, 3] y, int64[2] s, float16[1, 4] h, float z, float16 u)
        {
            y = Relu(x)
            s = Shape(x)
            h = RandomNormal <dtype = 10, shape = [1, 4]> ()
            z = ReduceSum <keepdims = 0> (x)
            u = Cast <to = 10> (x)
        }
        """,
    )
    model = read_model(path)
    model.proto.graph.output[4].type.tensor_type.ClearField("shape")
    model.proto.graph.output[2].type.tensor_type.shape.dim[0].dim_value = -1
    assert output_facts(model) == (
        OutputFacts("y", (None, 3), is_float=True),
        OutputFacts("s", (2,), is_float=False),
        OutputFacts("h", (None, 4), is_float=True),
        OutputFacts("z", (), is_float=True),
        OutputFacts("u", None, is_float=True),
    )
