"""DLA's rule for element-wise layers: laws for any scales and groups, and one case by hand."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trtcalib.core.sharing import raised_scales

NAMES = "abcdefghij"

SCALES = st.dictionaries(
    st.sampled_from(NAMES),
    st.one_of(st.sampled_from([0.0, 1.0, 2.0]), st.floats(0, width=32, allow_nan=False)).map(np.float32),
)
GROUPS = st.lists(st.lists(st.sampled_from(NAMES), max_size=4), max_size=6)


def shared(scales, groups):
    raised = raised_scales(scales, groups)
    return {name: scales[raised.get(name, name)] for name in scales}


def classes(scales, groups):
    """The oracle: groups are merged as long as two have a finite tensor in common."""
    sets = [{name for name in group if name in scales and math.isfinite(scales[name])} for group in groups]
    while True:
        pair = next(((i, j) for i in range(len(sets)) for j in range(i) if sets[i] & sets[j]), None)
        if pair is None:
            return sets
        sets[pair[1]] |= sets.pop(pair[0])


@given(SCALES, GROUPS)
def test_each_connected_group_takes_its_largest_scale_and_nothing_else_moves(scales, groups):
    expected = dict(scales)
    for members in classes(scales, groups):
        expected |= dict.fromkeys(members, max((scales[name] for name in members), default=None))
    assert shared(scales, groups) == expected


@given(SCALES, GROUPS)
def test_no_scale_falls_and_every_group_is_equal(scales, groups):
    found = shared(scales, groups)
    assert found.keys() == scales.keys()
    assert all(found[name] >= scales[name] for name in scales)
    for group in groups:
        assert len({found[name] for name in group if name in scales and math.isfinite(scales[name])}) <= 1


@given(SCALES, GROUPS)
def test_sharing_twice_is_sharing_once(scales, groups):
    assert raised_scales(shared(scales, groups), groups) == {}


@given(SCALES, GROUPS, st.randoms())
def test_the_order_of_the_groups_plays_no_part(scales, groups, random):
    mixed = [random.sample(group, len(group)) for group in random.sample(groups, len(groups))]
    assert raised_scales(scales, mixed) == raised_scales(scales, groups)


@given(SCALES, GROUPS)
def test_a_raised_tensor_names_one_whose_scale_stays_and_is_larger(scales, groups):
    raised = raised_scales(scales, groups)
    assert not raised.keys() & set(raised.values())
    assert all(scales[donor] > scales[name] for name, donor in raised.items())


def test_a_chain_by_hand():
    scales = {name: np.float32(value) for name, value in {"a": 1, "b": 4, "c": 2, "d": 8, "e": 3, "f": 9}.items()}
    # a + b, b * c and max(d, e); f is an input of no element-wise layer, and "constant" has no scale.
    groups = [("a", "b"), ("b", "c"), ("d", "e"), ("f", "constant")]
    assert raised_scales(scales, groups) == {"a": "b", "c": "b", "e": "d"}


def test_an_infinite_scale_is_not_taken_over():
    scales = {"x": np.float32(1), "mask": np.float32(np.inf), "y": np.float32(2)}
    assert raised_scales(scales, [("x", "mask"), ("mask", "y")]) == {}
    assert raised_scales(scales, [("x", "mask", "y")]) == {"x": "y"}


def test_no_groups_raise_nothing():
    assert raised_scales({"x": np.float32(1)}, []) == {}
