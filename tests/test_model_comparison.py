"""Two models on the same samples: sums that can be worked out by hand, whatever the number of workers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.models import save_model
from trtcalib.batches import Batching, plan_batches
from trtcalib.errors import ModelError
from trtcalib.model_comparison import Comparison, compare_models
from trtcalib.onnx_graph import read_model
from trtcalib.samples.sources import open_source

SCALED = """
scaled (float[N, 3] x) => (float[N, 3] y)
<float w = {{{factor}}}>
{{
    h = Mul(x, w)
    y = Relu(h)
}}
"""


def compare(
    folder: Path, samples: np.ndarray, *, factor: str = "1.0", other: str = "1.5", **options: int
) -> Comparison:
    first = read_model(save_model(folder / "first.onnx", SCALED.format(factor=factor)))
    second = read_model(save_model(folder / "second.onnx", SCALED.format(factor=other)))
    batches = plan_batches(open_source(samples.astype(np.float32), first.inputs), None, Batching(batch_size=1))
    return compare_models(first, second, batches, ["h"], **options)


def test_the_ratio_is_of_sums_over_all_samples_and_values(tmp_path: Path) -> None:
    found = compare(tmp_path, np.array([[1, 2, 3], [-4, 0, 2]]))
    (output,), (inside,) = found.outputs, found.tensors
    assert (found.samples, output.name, inside.name) == (2, "y", "h")
    # y is 1 2 3 and 0 0 2 against half as much again: 18 over 4.5, which is 4, as is 34 over 8.5 for h.
    assert output.sqnr_db == pytest.approx(10 * math.log10(4))
    assert inside.sqnr_db == pytest.approx(10 * math.log10(4))
    assert (output.largest_difference, inside.largest_difference) == (1.5, 2.0)
    assert (output.top1_agreement, output.rows) == (1.0, 2)


def test_another_largest_element_counts_against_the_agreement(tmp_path: Path) -> None:
    found = compare(tmp_path, np.array([[1, 2, 3], [-3, -2, -1]]), other="-1.0")
    # Row 1: 2 against 0, the first of three zeros. Row 2: zeros, whose first is 0, against 3 2 1.
    assert found.outputs[0].top1_agreement == 0.5


def test_identical_models_have_no_ratio_and_differ_by_nothing(tmp_path: Path) -> None:
    found = compare(tmp_path, np.array([[1, 2, 3]]), other="1.0")
    assert (found.outputs[0].sqnr_db, found.outputs[0].largest_difference) == (None, 0.0)


def test_a_tensor_that_becomes_infinite_has_no_ratio(tmp_path: Path) -> None:
    found = compare(tmp_path, np.array([[1e38, 2, 3]]), other="10.0")
    assert (found.outputs[0].sqnr_db, found.outputs[0].largest_difference) == (None, None)


def test_infinities_that_both_have_take_no_part(tmp_path: Path) -> None:
    found = compare(tmp_path, np.array([[1e38, 2, 3]]), factor="10.0", other="15.0")
    assert found.outputs[0].sqnr_db == pytest.approx(10 * math.log10(4), rel=1e-6)


def test_the_number_of_workers_changes_no_bit(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(size=(40, 3))
    one, three = (compare(tmp_path, samples, other="1.03", workers=workers) for workers in (1, 3))
    assert one == three


def test_models_with_other_outputs_are_refused(tmp_path: Path) -> None:
    first = read_model(save_model(tmp_path / "a.onnx", SCALED.format(factor="1.0")))
    second = read_model(save_model(tmp_path / "b.onnx", SCALED.format(factor="1.0").replace("y", "z")))
    batches = plan_batches(open_source(np.ones((1, 3), np.float32), first.inputs), None, Batching())
    with pytest.raises(ModelError, match=r"its outputs are not those of .*a\.onnx"):
        compare_models(first, second, batches)
