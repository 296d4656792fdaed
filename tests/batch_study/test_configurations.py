"""Which configurations a list of batch sizes means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtcalib.batch_study.configurations import Layout, default_sizes, plan_layouts, shuffled

PARTIAL = "since there are 10 samples; calibrate does the same, TensorRT itself takes full batches only"


def plan(sizes, samples=10, seeds=()):
    layouts, notes = plan_layouts(sizes, samples, seeds)
    return [layout.name for layout in layouts], notes


def test_the_reference_comes_first_then_each_size_with_its_orders() -> None:
    layouts, notes = plan_layouts([5, "all", 2], 10, range(7, 9))
    assert layouts == [
        Layout("all", 10),
        Layout("b5", 5),
        Layout("b5-s7", 5, 7),
        Layout("b5-s8", 5, 8),
        Layout("b2", 2),
        Layout("b2-s7", 2, 7),
        Layout("b2-s8", 2, 8),
    ]
    assert notes == []


def test_all_is_added_where_it_is_missing_and_said_so() -> None:
    names, notes = plan([2])
    assert names == ["all", "b2"]
    assert notes == ["all samples in one batch was added: it is what the others are compared with"]


@pytest.mark.parametrize(
    ("sizes", "names", "note"),
    [
        ([2, 2, "all"], ["all", "b2"], "batch size 2 was asked for twice and is studied once"),
        ([10], ["all"], "batch size 10 is all samples in one batch"),
        (
            [11],
            ["all"],
            "batch size 11 is more than the 10 samples, so that it is the same as all of them in one batch",
        ),
        (
            [3, "all"],
            ["all", "b3"],
            f"batch size 3 ends in a partial batch, {PARTIAL}",
        ),
        (
            ["all", 4, 5, 3],
            ["all", "b4", "b5", "b3"],
            f"batch sizes 4, 3 end in a partial batch, {PARTIAL}",
        ),
        (["all", "all"], ["all"], None),
    ],
)
def test_what_is_replaced_or_odd_is_told(sizes, names, note) -> None:
    assert plan(sizes) == (names, [note] if note else [])


@given(st.lists(st.integers(1, 40) | st.just("all"), max_size=8), st.integers(1, 30), st.integers(0, 3))
def test_no_configuration_stands_twice_and_all_is_always_there(sizes, samples, orders) -> None:
    layouts, _ = plan_layouts(sizes, samples, range(orders))
    names = [layout.name for layout in layouts]
    assert len(set(names)) == len(names)
    assert layouts[0] == Layout("all", samples)
    chosen = {size for size in sizes if size != "all" and size < samples}
    assert {layout.batch_size for layout in layouts} == {samples} | chosen
    assert len(layouts) == 1 + len(chosen) * (1 + orders)


def test_the_orders_are_numpys_pcg64_permutations() -> None:
    assert shuffled(5, None).tolist() == [0, 1, 2, 3, 4]
    assert shuffled(50, 3).tolist() == np.random.Generator(np.random.PCG64(3)).permutation(50).tolist()
    assert sorted(shuffled(50, 3).tolist()) == list(range(50))


def test_the_default_sizes_are_multiples_of_what_the_model_runs_at_a_time() -> None:
    assert list(default_sizes(1)) == [1, 2, 4, 8, 16, 32, 64, "all"]
    assert list(default_sizes(3)) == [3, 6, 12, 24, 48, 96, 192, "all"]
