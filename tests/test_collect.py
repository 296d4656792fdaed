"""The streaming collector gives what TensorRT's batch-after-batch rule gives, whatever the number of workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtcalib.batches import Batching, plan_batches
from trtcalib.collect import collect
from trtcalib.core.histogram import Histogram, collect_histogram
from trtcalib.core.ranges import Record, Tally
from trtcalib.errors import ActivationError, DataError, HistogramError
from trtcalib.onnx_graph import ModelGraph, read_model
from trtcalib.passes import Collection
from trtcalib.samples.sources import open_source

# Every operator is exact in float32, so that NumPy gives the very same activations.
EXACT = """
<ir_version: 8, opset_import: ["" : 17]>
exact (float[N, 6] x) => (float[N, 6] negative)
<float half = {0.5}>
{
  positive = Relu(x)
  halved = Mul(positive, half)
  negative = Neg(halved)
}
"""
TENSORS = ("x", "positive", "halved", "negative")


def model(folder: Path, text: str) -> ModelGraph:
    path = folder / "model.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return read_model(path)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> ModelGraph:
    return model(tmp_path_factory.mktemp("model"), EXACT)


def activations(x: np.ndarray) -> dict[str, np.ndarray]:
    positive = np.maximum(x, np.float32(0))
    halved = positive * np.float32(0.5)
    return {"x": x, "positive": positive, "halved": halved, "negative": -halved}


def batched(x: np.ndarray, size: int) -> list[np.ndarray]:
    return [x[start : start + size] for start in range(0, len(x), size)]


def run(graph: ModelGraph, x: np.ndarray, *, size: int, workers: int, policy: str = "doubling") -> Collection:
    batches = plan_batches(open_source(x, graph.inputs), graph.fixed_batch, Batching(batch_size=size))
    return collect(graph, batches, workers=workers, policy=policy)


# Powers of two times one value meet the range exactly, again and again: where clamping happens, and late starts.
awkward = st.one_of(st.sampled_from([0.0, 0.75, 1.5, 3.0, 6.0, 12.0, 3 * 2.0**20]), st.floats(0, 20, width=32))


@settings(max_examples=150)
@given(
    rows=st.lists(st.lists(awkward, min_size=6, max_size=6), min_size=1, max_size=12),
    size=st.integers(1, 5),
    workers=st.integers(1, 4),
)
def test_streaming_equals_batch_after_batch(
    exact: ModelGraph, rows: list[list[float]], size: int, workers: int
) -> None:
    x = np.array(rows, np.float32)
    found = run(exact, x, size=size, workers=workers).histograms
    for name, values in activations(x).items():
        assert found[name] == collect_histogram(batched(values, size)), name


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_many_samples_give_the_same_histograms_with_any_number_of_workers(exact: ModelGraph, workers: int) -> None:
    x = np.random.default_rng(0).standard_cauchy((300, 6)).astype(np.float32)
    found = run(exact, x, size=7, workers=workers).histograms
    for name, values in activations(x).items():
        assert found[name] == collect_histogram(batched(values, 7)), name


def test_a_tensor_that_starts_late_takes_its_range_from_the_first_batch_that_is_not_zero(exact: ModelGraph) -> None:
    x = np.zeros((12, 6), np.float32)
    x[5] = [-4, 0.3, 1.1, 0, 0.2, 0.7]
    x[9, 0] = 9
    found = run(exact, x, size=2, workers=2)
    assert set(found.late) == set(TENSORS)
    for name, values in activations(x).items():
        assert found.histograms[name] == collect_histogram(batched(values, 2)), name


def test_a_tensor_that_is_zero_everywhere_has_range_zero(exact: ModelGraph) -> None:
    found = run(exact, -np.ones((4, 6), np.float32), size=2, workers=2)
    assert found.late == ()
    assert found.histograms["positive"].range == 0
    assert found.histograms["positive"].counts[0] == found.histograms["positive"].total == 24


def test_a_large_range_past_float32_is_followed(exact: ModelGraph) -> None:
    x = np.full((4, 6), 3e-3, np.float32)
    x[2:] = 3.3e38
    found = run(exact, x, size=1, workers=2).histograms["x"]
    assert found == collect_histogram(batched(x, 1))
    assert np.isinf(found.range)
    assert found.total == 24


def test_policy_global_counts_over_the_true_maximum(exact: ModelGraph) -> None:
    x = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
    found = run(exact, x, size=4, workers=2, policy="global").histograms["x"]
    assert found.range == found.maximum == np.abs(x).max()
    index = np.minimum((np.abs(x) * np.float32(2048) / found.range).astype(np.int64), 2047)
    assert np.array_equal(found.counts, np.bincount(index.ravel(), minlength=2048))


def test_policy_square_makes_the_range_the_square_of_the_new_maximum(exact: ModelGraph) -> None:
    x = np.zeros((3, 6), np.float32)
    x[:, 0] = [1.54, 1.0, 2.4]
    found = run(exact, x, size=1, workers=2, policy="square").histograms["x"]
    assert found.range == pytest.approx(5.76)
    bins = np.flatnonzero(found.counts).tolist()
    # 1.54 was clamped into bin 2047 of [0, 1.54] and moved with that bin's middle; 2.4 was counted at the new range.
    moved = int((2047 + 0.5) * 1.54 / 5.76)
    assert bins == [0, int((1329 + 0.5) * 1.54 / 5.76), moved, int(2.4 * 2048 / 5.76)]
    assert found.total == 18


def test_policy_extend_keeps_the_width_and_adds_bins(exact: ModelGraph) -> None:
    x = np.zeros((2, 6), np.float32)
    x[:, 0] = [2.0, 3.1]
    found = run(exact, x, size=1, workers=1, policy="extend").histograms["x"]
    assert found.bins == int(np.ceil(3.1 / (2 / 2048)))
    assert found.width == pytest.approx(2 / 2048)
    assert np.flatnonzero(found.counts).tolist() == [0, 2048, found.bins - 1]


def test_policy_extend_refuses_an_explosion_of_bins_and_names_the_tensor(exact: ModelGraph) -> None:
    x = np.full((2, 6), 1e-3, np.float32)
    x[1] = 1e3
    with pytest.raises(
        HistogramError, match=r"tensor 'x': range policy 'extend' needs over 32768 bins.*use 'doubling'"
    ):
        run(exact, x, size=1, workers=1, policy="extend")


@pytest.mark.parametrize("policy", ["global", "square", "extend"])
def test_planned_policies_do_not_depend_on_the_workers(exact: ModelGraph, policy: str) -> None:
    x = np.abs(np.random.default_rng(2).normal(size=(50, 6)).astype(np.float32)) + np.float32(0.5)
    one = run(exact, x, size=3, workers=1, policy=policy)
    assert run(exact, x, size=3, workers=4, policy=policy).histograms == one.histograms


def test_nan_inside_the_graph_names_the_tensor_and_the_sample(tmp_path: Path) -> None:
    graph = model(
        tmp_path,
        """
        <ir_version: 8, opset_import: ["" : 17]>
        nan (float[N, 2] x) => (float[N, 2] y) { root = Sqrt(x)  y = Relu(root) }
        """,
    )
    x = np.ones((6, 2), np.float32)
    x[4, 1] = -1
    with pytest.raises(ActivationError, match=r"tensor 'root' at sample 4: holds NaN"):
        run(graph, x, size=2, workers=2)


@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN"), (np.inf, "an infinite value")])
def test_inputs_must_be_finite(exact: ModelGraph, value: float, what: str) -> None:
    x = np.ones((6, 6), np.float32)
    x[3, 2] = value
    with pytest.raises(DataError, match=f"sample 3: input 'x' holds {what}"):
        run(exact, x, size=2, workers=2)


def test_infinite_activations_are_left_out_and_counted(tmp_path: Path) -> None:
    graph = model(
        tmp_path,
        """
        <ir_version: 8, opset_import: ["" : 17]>
        masked (float[N, 3] x) => (float[N, 3] y) <float[3] ones = {1, 1, 0}> { mask = Log(ones)  y = Add(x, mask) }
        """,
    )
    x = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
    found = run(graph, x, size=2, workers=2)
    assert found.infinite == {"mask": 1, "y": 4}
    assert found.histograms["y"] == collect_histogram(batched(x[:, :2], 2))


def test_data_that_change_between_passes_are_refused(exact: ModelGraph) -> None:
    rng = np.random.default_rng()

    def augmented() -> list[dict[str, np.ndarray]]:
        return [{"x": rng.normal(size=(1, 6)).astype(np.float32)} for _ in range(4)]

    batches = plan_batches(open_source(augmented, exact.inputs), None, Batching(batch_size=2))
    with pytest.raises(DataError, match="the first batch gave other values when it was read again"):
        collect(exact, batches, workers=1)


def test_a_view_of_a_pool_has_the_histogram_of_the_pools_values(tmp_path: Path) -> None:
    graph = model(
        tmp_path,
        """
        <ir_version: 8, opset_import: ["" : 17]>
        pooled (float[N, 1, 2, 2] x) => (float[N, 1] flat) {
          pool = AveragePool <kernel_shape = [2, 2]> (x)
          flat = Flatten(pool)
        }
        """,
    )
    x = np.array([[1, 2, 3, 6]], np.float32).reshape(1, 1, 2, 2)
    found = run(graph, x, size=1, workers=1).histograms
    assert isinstance(found["pool"], Histogram)
    assert found["pool"].maximum == 3
    assert found["x"].maximum == 6
    assert "flat" not in found


@pytest.mark.parametrize("policy", ["global", "square", "extend"])
def test_data_that_change_between_the_passes_of_a_planned_policy_are_refused(exact: ModelGraph, policy: str) -> None:
    calls = iter(range(10))

    def growing() -> list[dict[str, np.ndarray]]:
        factor = np.float32(1 + next(calls))
        return [{"x": np.full((1, 6), factor, np.float32)} for _ in range(3)]

    batches = plan_batches(open_source(growing, exact.inputs), None, Batching(batch_size=1))
    with pytest.raises(DataError, match=r"gave other values when it was read again \(tensor 'x' reached .*1.*then .*2"):
        collect(exact, batches, workers=1, policy=policy)


def test_the_pass_for_late_tensors_reads_nothing_else(exact: ModelGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    add = Tally.add

    def spy(tally: Tally, batch: int, arrays: list[np.ndarray | None]) -> Record:
        counted.append(sum(array is not None for array in arrays))
        return add(tally, batch, arrays)

    monkeypatch.setattr(Tally, "add", spy)
    x = -np.ones((4, 6), np.float32)  # nothing positive in the first batch, so all but the input start late
    x[3] = 2
    found = run(exact, x, size=2, workers=1)
    assert set(found.late) == {"positive", "halved", "negative"}
    assert counted == [4, 4, 4, 4, 4, 4, 3, 3, 3, 3]  # the first batch, the whole, and the late ones once more
    for name, values in activations(x).items():
        assert found.histograms[name] == collect_histogram(batched(values, 2)), name
