"""``find_layouts``: the layout that a cache was made with is named, of small models and of a real cache."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import save_model
from tests.test_golden_models import samples
from trtcalib import calibrate
from trtcalib.core.cache import make_cache, parse_cache
from trtcalib.errors import CacheMismatchError, DataError
from trtcalib.layout_search import MOST_CHECKED, FoundLayout, _check, _next, _sizes, find_layouts

NET = """
net (float[N, 4] x) => (float[N, 3] y)
<float[4, 3] w = {0.5, -1, 2, 0.25, 1.5, -0.5, 1, 0.125, -2, 0.75, -1.25, 0.375}, float[3] b = {0.1, -0.2, 0.3}>
{
  product = MatMul(x, w)
  sum = Add(product, b)
  e = Exp(sum)
  y = Sigmoid(sum)
}
"""
"""Five tensors that depend on the data: x, product, sum, e, y."""

FIXED = NET.replace("[N,", "[4,")


def rows(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)


@pytest.fixture
def net(tmp_path):
    return save_model(tmp_path / "model.onnx", NET)


def made(net, data, batch_size, offset=0, count=None):
    """The cache that a layout gives."""
    return calibrate(net, data[offset : None if count is None else offset + count], batch_size=batch_size).cache()


def fed(layout):
    return layout.batch_size, layout.offset, layout.samples


def best(found):
    return [fed(layout) for layout in found.layouts if layout.same_bins == found.tensors]


@pytest.mark.parametrize(("size", "offset", "count"), [(8, 0, 40), (8, 16, 24), (1, 5, 7), (40, 0, 40), (13, 13, 26)])
def test_the_layout_is_among_the_best(net, size, offset, count):
    data = rows(40)
    found = find_layouts(made(net, data, size, offset, count), net, data)
    assert (size, offset, count) in best(found)
    assert (found.tensors, found.samples, found.batch_sizes) == (5, 40, 40)
    assert all(layout.offset % layout.batch_size == layout.samples % layout.batch_size == 0 for layout in found.layouts)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(0, 2), st.integers(1, 4))
@settings(max_examples=10)
def test_any_layout_is_among_those_that_fit(tmp_path_factory, seed, size, skipped, batches):
    model = tmp_path_factory.getbasetemp() / "layouts.onnx"
    if not model.exists():
        save_model(model, NET)
    data = rows(size * (skipped + batches) + 3, seed)
    cache = made(model, data, size, size * skipped, size * batches)
    found = find_layouts(cache, model, data)
    assert (size, size * skipped, size * batches) in [fed(layout) for layout in found.layouts]


def test_layouts_with_the_same_histograms_have_the_same_number(net):
    """The first sample is the largest in everything, so that every batch size has the same range."""
    data = rows(12)
    data[0] = 3 * np.abs(data).max() * np.array([1, -1, 1, -1], np.float32)
    found = find_layouts(made(net, data, 4), net, data)
    whole = [layout for layout in found.layouts if layout.samples == 12]
    assert len(whole) >= 4
    assert len({layout.same_bins for layout in whole}) == 1


def test_a_shuffled_order_has_no_layout(net):
    data = rows(40)
    cache = calibrate(net, data, batch_size=8, shuffle=3).cache()
    assert find_layouts(cache, net, data, batch_sizes=range(2, 21)).layouts == ()


def test_a_tensor_that_is_zero_in_the_first_batch(tmp_path):
    """TensorRT's range starts with the first batch that is not all zero."""
    model = save_model(
        tmp_path / "m.onnx",
        "m (float[N, 4] x) => (float[N, 4] y) { r = Relu(x) e = Exp(x) s = Sin(x) y = Sqrt(r) }",
    )
    data = rows(24)
    data[:6] = -np.abs(data[:6])
    cache = calibrate(model, data, batch_size=6).cache()
    found = find_layouts(cache, model, data)
    assert found.tensors == 5
    assert (6, 0, 24) in best(found)


def test_a_model_with_a_fixed_batch_is_searched_in_multiples_of_it(tmp_path):
    model = save_model(tmp_path / "fixed.onnx", FIXED)
    data = rows(48)
    cache = calibrate(model, data[16:40], batch_size=8).cache()
    found = find_layouts(cache, model, data)
    assert (8, 16, 24) in best(found)
    assert (found.samples, found.batch_sizes) == (48, 12)
    assert fed(find_layouts(cache, model, data, batch_sizes=[8]).layouts[0]) == (8, 16, 24)
    with pytest.raises(
        DataError, match="the model has a fixed batch of 4: the batch size must be a multiple of it, got 6"
    ):
        find_layouts(cache, model, data, batch_sizes=[8, 6])


def test_a_batch_size_of_zero_is_refused(net):
    with pytest.raises(DataError, match="batch_size must be at least 1, got 0"):
        find_layouts(made(net, rows(8), 4), net, rows(8), batch_sizes=[0])


def test_names_that_the_parser_made(net):
    data = rows(40)
    scales = made(net, data, 8).scales
    cache = make_cache({f"layer {name}": scale for name, scale in scales.items()}, "8.6.1", "EntropyCalibration2")
    found = find_layouts(cache, net, data, names={f"layer {name}": name for name in scales})
    assert (8, 0, 40) in best(found)
    with pytest.raises(CacheMismatchError) as caught:
        find_layouts(cache, net, data, path="trt.cache")
    assert str(caught.value) == (
        f"trt.cache: none of its {len(scales)} names is a tensor of the model that depends on the data and has a scale of its own: no "
        "layout can be told from it"
    )


def test_constants_alone_tell_nothing(net):
    data = rows(8)
    scales = made(net, data, 8).scales
    cache = make_cache({name: scales[name] for name in ("w", "b")}, "8.6.1", "EntropyCalibration2")
    with pytest.raises(
        CacheMismatchError, match="none of its 2 names is a tensor of the model that depends on the data"
    ):
        find_layouts(cache, net, data)


def test_zero_and_infinite_scales_are_left_out(net):
    data = rows(40)
    scales = {**made(net, data, 8).scales, "e": np.float32(np.inf), "y": np.float32(0)}
    found = find_layouts(make_cache(scales, "8.6.1", "EntropyCalibration2"), net, data)
    assert found.tensors == 3
    assert (8, 0, 40) in best(found)


def test_minmax_caches_have_no_layout(net):
    cache = calibrate(net, rows(8), "minmax").cache()
    with pytest.raises(CacheMismatchError) as caught:
        find_layouts(cache, net, rows(8))
    assert str(caught.value) == (
        "<calibration cache>: the header says MinMaxCalibration, whose scales are maxima over all data and do not depend on the batch "
        "size: there is nothing to search, leave out --find"
    )


def test_a_function_cannot_be_searched(net):
    def feeds():
        yield {"x": rows(8)}

    with pytest.raises(
        DataError, match="feeds: a function's samples cannot be read from an offset: give them as .npz or .npy"
    ):
        find_layouts(made(net, rows(8), 4), net, feeds)


def test_too_many_layouts_tell_nothing(net, monkeypatch):
    monkeypatch.setattr("trtcalib.layout_search.MOST_FITTING", 3)
    data = rows(40)
    scales = {"x": made(net, data, 8).scales["x"]}
    with pytest.raises(
        CacheMismatchError, match="over 3 layouts fit the 1 tensors that depend on the data, so that they tell too"
    ):
        find_layouts(make_cache(scales, "8.6.1", "EntropyCalibration2"), net, data)


def test_progress_counts_the_first_pass(net):
    seen = []
    find_layouts(made(net, rows(8), 4), net, rows(8), progress=lambda *step: seen.append(step))
    assert seen == [(n, 8) for n in range(1, 9)]


def test_plain_values():
    layout = FoundLayout(batch_size=8, offset=16, samples=24, same_bins=None)
    assert (layout.batch_size, layout.same_bins) == (8, None)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [1]),
        (3, [1, 2, 3]),
        (256, list(range(1, 257))),
        (600, [*range(1, 257), 512, 600]),
        (512, [*range(1, 257), 512]),
    ],
)
def test_default_batch_sizes(count, expected):
    assert _sizes(count) == expected


# Which are checked


class TestChecking:
    """Groups stand for first batches and numbers of samples; the score falls off on both sides of the right one."""

    def groups(self, count):
        from trtcalib.core.layouts import Layout

        return [[Layout(1, 0, n + 1)] for n in range(count)]

    @pytest.mark.parametrize("right", [0, 7, 300, 511, 998])
    def test_many_groups_are_narrowed_down_to_the_right_one(self, right):
        groups = self.groups(999)
        calls = []

        def score(layout):
            calls.append(layout)
            return 1000 - abs(layout.samples - 1 - right)

        found = _check(groups, score)
        assert len(calls) == len(found) == MOST_CHECKED
        assert found[groups[right][0]] == 1000

    @pytest.mark.parametrize("count", [0, 1, MOST_CHECKED])
    def test_few_groups_are_all_checked(self, count):
        assert len(_check(self.groups(count), lambda layout: 0)) == count

    @pytest.mark.parametrize("count", [MOST_CHECKED + 1, 100])
    def test_never_more_than_the_most(self, count):
        assert len(_check(self.groups(count), lambda layout: 0)) == MOST_CHECKED

    def test_the_next_lies_beside_the_best_towards_the_better_side_or_in_the_wider_gap(self):
        assert _next({0: 1, 10: 3, 14: 1, 100: 2}) == 5
        assert _next({0: 1, 10: 3, 14: 2, 100: 2}) == 12
        assert _next({0: 1, 1: 3, 2: 1, 100: 2}) == 51


# The real cache


@pytest.fixture(scope="module")
def lenet(golden):
    folder = golden / "lenet_mnist_trt7202"
    names = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["onnx_names"]
    return parse_cache((folder / "golden.cache").read_bytes()), folder / "model.onnx", samples(folder), names


@pytest.mark.golden
def test_the_layout_of_a_real_cache_is_found(lenet):
    cache, model, data, names = lenet
    found = find_layouts(cache, model, data, names=names)
    assert found.tensors == 7
    assert found.layouts[0] == FoundLayout(batch_size=50, offset=0, samples=500, same_bins=7)
    assert best(found) == [(50, 0, 500)]
    assert len(found.layouts) >= 60
    tried = sum((500 // size) * (500 // size + 1) // 2 for size in range(1, 257)) + 1
    assert tried - len(found.layouts) > 1000
    assert len({layout.batch_size for layout in found.layouts}) < found.batch_sizes / 2


@pytest.mark.golden
def test_sixty_wrong_batch_sizes_do_not_explain_a_real_cache(lenet):
    cache, model, data, names = lenet
    wrong = [size for size in range(1, 62) if size != 50]
    assert len(wrong) == 60
    found = find_layouts(cache, model, data, names=names, batch_sizes=wrong)
    assert found.batch_sizes == 60
    assert best(found) == []
    again = find_layouts(cache, model, data, names=names, batch_sizes=[50])
    assert best(again) == [(50, 0, 500)]
