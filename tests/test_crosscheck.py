"""A cache against our reference: every verdict and every note by a small case, laws over random models, the real caches."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import FIXED, save_model
from tests.test_golden_models import CASES, samples
from trtcalib import calibrate
from trtcalib.batches import Batching
from trtcalib.core.cache import CacheEntry, CalibrationCache, make_cache, parse_cache
from trtcalib.core.entropy import amax_of_bin
from trtcalib.core.scale import bits_from_scale, scale_from_amax
from trtcalib.crosscheck import Stated, crosscheck, read_stated, reference
from trtcalib.errors import CacheMismatchError, DataError, SpecError

NET = """
net (float[N, 1, 4, 4] x) => (float[N, 3] y)
<float[4, 3] w = {0.5, -1, 2, 0.25, 1.5, -0.5, 1, 0.125, -2, 0.75, -1.25, 0.375}, float[3] b = {0.1, -0.2, 0.3}>
{
  r = Relu(x)
  pool = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
  flat = Flatten(pool)
  product = MatMul(flat, w)
  sum = Add(product, b)
  y = Sigmoid(sum)
}
"""
"""Listed: x, r, the pool with r's scale, a view of its values, product, sum, y, and the constants w and b."""

ENTROPY = "EntropyCalibration2"

ALL = Batching(batch_size=8, drop_last=True)


def images(count=40, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 1, 4, 4)).astype(np.float32)


@pytest.fixture
def net(tmp_path):
    return save_model(tmp_path / "model.onnx", NET)


@pytest.fixture
def ours(net):
    return calibrate(net, images(), batch_size=8)


def cache_of(scales, algorithm=ENTROPY):
    return make_cache({name: np.float32(scale) for name, scale in scales.items()}, "10.16.1", algorithm)


def changed(ours, **scales):
    """Our own cache, some scales given another value; ``None`` leaves one out."""
    return cache_of({n: s for n, s in {**ours.scales, **scales}.items() if s is not None})


def bin_scale(ours, name, off):
    """The scale of a bin so far from the one that was chosen."""
    return scale_from_amax(amax_of_bin(ours.clips[name].bin_m + off, ours.histograms[name]))


def verdicts(result):
    return {tensor.name: tensor.verdict for tensor in result.tensors}


def of(result, name):
    return next(tensor for tensor in result.tensors if tensor.name == name)


# Verdicts


def test_our_own_cache_is_exact(ours):
    result = crosscheck(ours.cache(), ours)
    assert verdicts(result) == {**dict.fromkeys(ours.scales, "exact"), "pool": "inherited"}
    assert (result.agreement, result.passed, result.notes, result.only_ours) == (1, True, (), ())
    assert (result.batch_size, result.samples, result.method) == (8, 40, "entropy")
    assert result.counts == {"exact": len(ours.scales) - 1, "inherited": 1}
    assert result.header == "TRT-101601-EntropyCalibration2"


def test_a_few_ulp_are_the_same_bin(ours):
    near = np.nextafter(np.float32(ours.scales["sum"]), np.float32(np.inf))
    found = of(crosscheck(changed(ours, sum=near), ours), "sum")
    assert (found.verdict, found.ulp, found.their_bin, found.agrees) == ("same bin", 1, found.our_bin, True)


def test_bins_off(ours):
    off = 3 if ours.clips["sum"].bin_m < 2000 else -3
    result = crosscheck(changed(ours, sum=bin_scale(ours, "sum", off)), ours)
    found = of(result, "sum")
    assert (found.verdict, found.bins_off, found.agrees) == ("bins off", off, False)
    assert result.agreement == pytest.approx(1 - 1 / len(ours.scales))
    (note,) = result.notes
    assert note.startswith("1 scales are other bins of the same ranges: the first batch is the right one")
    assert note.endswith(": 'sum'")


def test_other_range(ours):
    result = crosscheck(changed(ours, sum=ours.scales["sum"] * np.float32(0.9003)), ours)
    found = of(result, "sum")
    assert (found.verdict, found.their_bin, found.agrees) == ("other range", None, False)
    (note,) = result.notes
    assert note.startswith(
        "1 of 6 scales that depend on the data are no bin of our ranges: with another batch size or order"
    )


def test_unknown_names_are_not_counted(ours):
    result = crosscheck(changed(ours, **{"(Unnamed Layer* 0) [Shuffle]_output": 0.5}), ours)
    found = result.tensors[-1]
    assert (found.verdict, found.ours, found.ulp) == ("unknown name", None, None)
    assert (len(result.shared), len(result.tensors), result.agreement) == (len(ours.scales), len(ours.scales) + 1, 1)
    (note,) = result.notes
    assert note == (
        f"{len(ours.scales)} of {len(ours.scales) + 1} names are tensors of the model; the others were made by TensorRT's parser, or "
        "belong to another model: '(Unnamed Layer* 0) [Shuffle]_output'"
    )


def test_a_long_list_of_names_is_cut(ours):
    result = crosscheck(changed(ours, **{f"layer {n}": 0.5 for n in range(9)}), ours)
    assert result.notes[0].endswith("model: 'layer 0', 'layer 1', 'layer 2', 'layer 3', 'layer 4', ...")


def test_what_only_we_have_is_listed(ours):
    result = crosscheck(changed(ours, sum=None, w=None), ours)
    assert set(result.only_ours) == {"w", "sum"}
    assert result.passed


def test_a_map_names_what_the_parser_named(ours):
    scale = ours.scales["sum"]
    result = crosscheck(changed(ours, sum=None, theirs=scale), ours, names={"theirs": "sum", "absent": "y"})
    found = of(result, "theirs")
    assert (found.verdict, found.tensor, found.agrees) == ("exact", "sum", True)
    assert result.only_ours == ()


def test_two_names_of_one_tensor_are_each_compared_with_their_own_scale(ours):
    wrong = ours.scales["sum"] * np.float32(0.9003)
    result = crosscheck(changed(ours, theirs=wrong), ours, names={"theirs": "sum"})
    assert (of(result, "sum").verdict, of(result, "theirs").verdict) == ("exact", "other range")


# Pools


def test_a_pool_inherits(ours):
    found = of(crosscheck(ours.cache(), ours), "pool")
    assert (found.verdict, found.origin, found.agrees) == ("inherited", "r", True)


def test_a_pool_whose_source_disagrees_does_not_count_as_agreeing(ours):
    wrong = ours.scales["r"] * np.float32(0.9003)
    result = crosscheck(changed(ours, r=wrong, pool=wrong), ours)
    assert [(of(result, n).verdict, of(result, n).agrees) for n in ("r", "pool")] == [
        ("other range", False),
        ("inherited", False),
    ]
    assert result.agreement == pytest.approx(1 - 2 / len(ours.scales))


def test_a_pool_with_a_scale_of_its_own_has_not_inherited(ours):
    found = of(crosscheck(changed(ours, pool=ours.scales["r"] * np.float32(0.9003)), ours), "pool")
    assert (found.verdict, found.origin, found.agrees) == ("other range", "r", False)


def test_a_pool_whose_source_the_cache_does_not_list_is_compared_with_it(ours):
    found = of(crosscheck(changed(ours, r=None), ours), "pool")
    assert (found.verdict, found.origin, found.agrees) == ("exact", "r", True)


def test_a_view_carries_the_histogram_of_its_source(ours):
    found = of(crosscheck(ours.cache(), ours), "flat")
    assert (found.verdict, found.origin) == ("exact", "pool")


# MinMax


def minmax(net):
    return calibrate(net, images(), "minmax", batch_size=8)


def test_minmax_is_compared_by_distance(net):
    ours = minmax(net)
    up = np.nextafter(ours.scales["sum"], np.float32(9))
    scales = {**ours.scales, "sum": up, "y": ours.scales["y"] * np.float32(1.01)}
    result = crosscheck(cache_of(scales, "MinMaxCalibration"), ours)
    assert [of(result, n).verdict for n in ("x", "sum", "y", "pool")] == ["exact", "same", "other scale", "inherited"]
    assert (of(result, "sum").their_bin, of(result, "sum").our_bin, of(result, "sum").residual) == (None, None, None)
    assert result.method == "minmax"
    (note,) = result.notes
    assert note.startswith("1 of 6 scales are not the largest magnitude / 127: the cache was made from other data")


def test_the_header_chooses_the_reference(net):
    cache = minmax(net).cache()
    result = crosscheck(cache, reference(cache, net, images(), ALL))
    assert (result.method, result.agreement, result.notes) == ("minmax", 1, ())


def test_an_entropy_header_over_maxima_is_told(net, ours):
    cache = cache_of(minmax(net).scales)
    result = crosscheck(cache, ours)
    assert not result.passed
    (note,) = result.notes
    assert (
        "are the largest magnitude / 127: they were made by a MinMax calibration, whatever the header 'TRT-101601-Entropy"
        in note
    )


def test_a_minmax_header_over_entropy_scales_is_told(net, ours):
    result = crosscheck(cache_of(ours.scales, "MinMaxCalibration"), minmax(net))
    assert not result.passed
    (note,) = result.notes
    assert (
        "are bins of our ranges: they were made by an entropy calibration, whatever the header 'TRT-101601-MinMax"
        in note
    )


def test_percentiles_without_their_manifest_are_told(net, ours):
    result = crosscheck(calibrate(net, images(), "percentile-99", batch_size=8).cache(), ours)
    assert not result.passed
    assert "lie on the edge between two bins: they were made by percentiles" in result.notes[0]


@pytest.mark.parametrize("variant", ["pseudocode", "smoothed", "pytorch-quantization"])
def test_other_searches_agree_with_themselves(net, tmp_path, variant):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"method: entropy\nvariant: {variant}\n")
    ours = calibrate(net, images(), recipe, batch_size=8)
    result = crosscheck(ours.cache(), ours)
    assert (result.agreement, result.notes, result.method) == (1, (), f"entropy ({variant})")
    assert all(t.their_bin == t.our_bin for t in result.tensors)


@pytest.mark.parametrize("algorithm", ["EntropyCalibration", "LegacyCalibration", "OwnCalibration"])
def test_other_headers_are_compared_with_entropy2s_rules_and_say_so(net, ours, algorithm):
    cache = replace(ours.cache(), algorithm=algorithm)
    result = crosscheck(cache, reference(cache, net, images(), ALL))
    assert (result.method, result.agreement) == ("entropy", 1)
    (note,) = result.notes
    assert note.startswith(f"the header says '{algorithm}': our reference follows the rules of EntropyCalibration2")


# Odd caches


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0, "1 scales are zero and ours are not: TensorRT saw nothing but zeros there: 'sum'"),
        (0x7FC00000, "1 scales are NaN, infinite or negative: 'sum'"),
        (0x7F800000, "1 scales are NaN, infinite or negative: 'sum'"),
        (0xBF800000, "1 scales are NaN, infinite or negative: 'sum'"),
    ],
)
@pytest.mark.parametrize("algorithm", [ENTROPY, "MinMaxCalibration"])
def test_odd_scales_disagree_and_are_told(net, bits, words, algorithm):
    ours = calibrate(net, images(), "minmax" if algorithm.startswith("Min") else "entropy", batch_size=8)
    entries = tuple(CacheEntry(n, bits if n == "sum" else bits_from_scale(s)) for n, s in ours.scales.items())
    result = crosscheck(CalibrationCache(101601, algorithm, entries), ours)
    assert not of(result, "sum").agrees
    assert result.notes == (words,)
    printed = json.dumps(result.as_json(), allow_nan=False)
    assert np.isfinite(of(result, "sum").theirs) or '"theirs": null' in printed


def test_zero_and_infinite_scales_that_are_ours_too_are_exact(tmp_path):
    model = save_model(
        tmp_path / "m.onnx", "m (float[N, 2] x) => (float[N, 2] y) <float[2] c = {0, 0}> { y = Mul(x, c) }"
    )
    ours = calibrate(model, images(8).reshape(8, -1)[:, :2], batch_size=4)
    assert ours.scales["y"] == 0
    result = crosscheck(ours.cache(), ours)
    assert (result.agreement, result.notes) == (1, ())
    wrong = crosscheck(changed(ours, y=0.5), ours)
    assert (of(wrong, "y").verdict, of(wrong, "y").agrees) == ("other scale", False)


def test_of_a_name_that_stands_twice_the_last_counts(ours):
    cache = ours.cache()
    twice = replace(cache, entries=(CacheEntry("sum", 1), *cache.entries))
    result = crosscheck(twice, ours)
    assert result.agreement == 1
    assert result.notes == ("1 names stand more than once in the cache, and the last scale of each counts: 'sum'",)


def test_names_that_are_no_utf_8_come_out_as_text(ours):
    cache = parse_cache(b"TRT-8601-EntropyCalibration2\nx\xff: 3c010a14\nx: 3c010a14\n")
    printed = crosscheck(cache, ours).as_json()
    assert printed["tensors"][0]["name"] == "x\\udcff"
    json.dumps(printed, ensure_ascii=False).encode()


# Other models and data


def test_the_cache_of_another_model_is_refused(ours):
    with pytest.raises(CacheMismatchError) as caught:
        crosscheck(cache_of({"a": 1, "c": 2}), ours, path=Path("trt.cache"))
    assert str(caught.value) == (
        f"trt.cache: none of its 2 names is a tensor of the model, which has {len(ours.scales)}: it is the cache of another model, or "
        "--names must say which tensors they are"
    )


def test_an_empty_cache_is_refused(ours):
    with pytest.raises(CacheMismatchError, match="<calibration cache>: none of its 0 names is a tensor"):
        crosscheck(cache_of({}), ours)


def test_a_model_with_other_weights_is_told_apart_from_other_data(tmp_path, ours):
    other = save_model(tmp_path / "other.onnx", NET.replace("2, 0.25", "2.5, 0.25"))
    result = crosscheck(ours.cache(), calibrate(other, images(), batch_size=8))
    assert (
        "1 of 2 constants have other scales, which do not depend on the data: the cache is of a model with other weights: 'w'"
        in result.notes
    )


def test_other_data_are_told(net, ours):
    result = crosscheck(ours.cache(), calibrate(net, images(seed=5), batch_size=8))
    assert not result.passed
    assert "only 1 of 6 scales that depend on the data are a bin of our ranges" in result.notes[0]  # one by chance
    assert not any("weights" in note for note in result.notes)


def test_scales_far_out_of_reach_are_told_too(ours):
    """A hundred times our range is beyond every candidate, so that no bin at all can be read back."""
    far = {name: scale * np.float32(137) for name, scale in ours.scales.items() if name not in ("w", "b")}
    result = crosscheck(changed(ours, **far), ours)
    assert any("only 0 of 6 scales" in note and "another batch size or order" in note for note in result.notes)


# How the data are fed


def test_the_last_partial_batch_is_left_out(net):
    cache = calibrate(net, images(32), batch_size=16).cache()
    result = crosscheck(cache, reference(cache, net, images(40), Batching(batch_size=16, drop_last=True)))
    assert (result.samples, result.agreement) == (32, 1)


def test_too_few_samples_for_the_batch_size_are_refused(net, ours):
    with pytest.raises(DataError, match="fewer samples than the 64 that one batch needs"):
        reference(ours.cache(), net, images(), Batching(batch_size=64, drop_last=True))


def test_data_may_come_from_a_function(net, ours):
    def feeds():
        for image in images():
            yield {"x": image[np.newaxis]}

    result = crosscheck(ours.cache(), reference(ours.cache(), net, feeds, ALL))
    assert (result.agreement, result.samples) == (1, 40)


def test_a_model_with_a_fixed_batch(tmp_path):
    model = save_model(tmp_path / "fixed.onnx", FIXED)
    data = np.random.default_rng(0).normal(size=(18, 3)).astype(np.float32)
    cache = calibrate(model, data[:16]).cache()
    result = crosscheck(cache, reference(cache, model, data, Batching(drop_last=True)))
    assert (result.batch_size, result.samples, result.agreement) == (4, 16, 1)


def test_a_sequence_of_whole_feeds(tmp_path):
    model = save_model(tmp_path / "whole.onnx", "whole (float[3] x) => (float[3] y) { y = Exp(x) }")
    feeds = [{"x": row} for row in np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)]
    cache = calibrate(model, feeds).cache()
    result = crosscheck(cache, reference(cache, model, feeds, Batching(drop_last=True)))
    assert (result.batch_size, result.samples, result.agreement) == (3, 15, 1)  # its first axis counts as a batch


# Laws


@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 30),
    st.integers(1, 8),
    st.integers(1, 8),
    st.sampled_from(["entropy", "minmax"]),
)
@settings(max_examples=25)
def test_a_batch_size_agrees_with_itself_and_never_with_one_that_gives_other_scales(
    tmp_path_factory, seed, count, size, other, method
):
    model = tmp_path_factory.getbasetemp() / "law.onnx"
    if not model.exists():
        save_model(model, NET)
    size, other = min(size, count), min(other, count)
    random = np.random.default_rng(seed)
    data = (images(count, seed) * np.exp(random.normal(size=(count, 1, 1, 1)))).astype(np.float32)
    cache = calibrate(model, data, method, batch_size=size, drop_last=True).cache()
    same = crosscheck(cache, reference(cache, model, data, Batching(batch_size=size, drop_last=True)), min_agreement=1)
    assert (same.passed, same.agreement, same.notes) == (True, 1, ())
    ours = reference(cache, model, data, Batching(batch_size=other, drop_last=True))
    differs = crosscheck(cache, ours, min_agreement=1)
    if ours.scales == cache.scales:
        assert differs.passed
    # Scales of one bin whose ranges differ by less than GPU sums do agree: 0.04 bins of 128 at most.
    if any(abs(ours.scales[name] / scale - 1) > 0.04 / 128 for name, scale in cache.scales.items()):
        assert not differs.passed
        assert differs.notes


def test_a_view_alone_shows_the_histogram_of_a_pool_and_is_told_of(ours):
    result = crosscheck(changed(ours, flat=ours.scales["flat"] * np.float32(0.9003)), ours)
    assert (of(result, "flat").verdict, of(result, "pool").verdict) == ("other range", "inherited")
    assert result.notes[0].startswith("1 of 6 scales that depend on the data are no bin of our ranges")
    assert result.notes[0].endswith(": 'flat'")


# Manifests


def written(ours, folder):
    ours.write_cache(folder / "out.cache")
    return parse_cache((folder / "out.cache").read_bytes()), folder / "out.cache"


@pytest.mark.parametrize("method", ["percentile-99.9", "minmax", "entropy"])
def test_the_recipe_of_a_manifest_is_taken(net, tmp_path, method):
    cache, path = written(calibrate(net, images(), method, batch_size=8), tmp_path)
    stated = read_stated(cache, path)
    result = crosscheck(cache, reference(cache, net, images(), ALL, recipe=stated.recipe), stated=stated)
    assert (result.agreement, result.notes) == (1, ())
    assert result.method == f"{method.replace('-', ' ')} (as its manifest says)"


def test_percentiles_that_do_not_agree_with_their_manifest_are_told(net, tmp_path):
    cache, path = written(calibrate(net, images(), "percentile-99", batch_size=8), tmp_path)
    stated = read_stated(cache, path)
    result = crosscheck(cache, reference(cache, net, images(seed=1), ALL, recipe=stated.recipe), stated=stated)
    assert {t.verdict for t in result.tensors} == {"exact", "other scale", "inherited"}
    assert result.notes[-1].startswith(
        "6 of 8 scales are not those of percentile 99: the model, the data or their batches"
    )


def test_a_recipe_file_in_a_manifest_is_the_same_recipe(net, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("method: entropy\nvariant: smoothed\nrange: global\nbins: 1024\n")
    cache, path = written(calibrate(net, images(), recipe, batch_size=8), tmp_path)
    stated = read_stated(cache, path)
    assert (stated.recipe.variant, stated.recipe.range, stated.recipe.bins) == ("smoothed", "global", 1024)
    result = crosscheck(cache, reference(cache, net, images(), ALL, recipe=stated.recipe), stated=stated)
    assert (result.agreement, result.notes) == (1, ())


def test_without_a_manifest_nothing_is_stated(ours, tmp_path):
    assert read_stated(ours.cache(), tmp_path / "out.cache") == Stated()


def test_a_manifest_of_other_bytes_is_not_believed(net, ours, tmp_path):
    _, path = written(calibrate(net, images(), "percentile-99"), tmp_path)
    stated = read_stated(ours.cache(), path)
    assert (stated.manifest, stated.recipe) == (None, None)
    result = crosscheck(ours.cache(), ours, stated=stated)
    assert (result.method, result.agreement) == ("entropy", 1)
    assert result.notes == (
        f"the manifest {path}.json is of another cache, or the cache was changed after it: nothing in it was believed",
    )


def test_what_is_no_manifest_is_refused(ours, tmp_path):
    cache, path = written(ours, tmp_path)
    Path(f"{path}.json").write_text("{")
    with pytest.raises(SpecError, match=r"out\.cache\.json: "):
        read_stated(cache, path)


def test_a_recipe_that_is_not_known_here_is_refused(ours, tmp_path):
    cache, path = written(ours, tmp_path)
    manifest = json.loads(Path(f"{path}.json").read_text())
    manifest["recipe"] = {"method": "entropy", "variant": "of the future"}
    Path(f"{path}.json").write_text(json.dumps(manifest))
    with pytest.raises(
        SpecError, match="of the future'} is not known here: move the manifest away to compare by the method"
    ):
        read_stated(cache, path)


def test_other_model_data_and_batches_than_the_manifest_states_are_told(net, tmp_path):
    np.save(tmp_path / "data.npy", images())
    np.save(tmp_path / "other.npy", images(seed=1))
    cache, path = written(calibrate(net, tmp_path / "data.npy", batch_size=8), tmp_path)
    stated = read_stated(cache, path)
    other = save_model(tmp_path / "other.onnx", NET.replace("0.25", "0.5"))
    result = crosscheck(
        cache, calibrate(other, tmp_path / "other.npy", batch_size=4, max_samples=20, shuffle=1), stated=stated
    )
    assert result.notes[:5] == (
        "its manifest states another model than this one",
        "its manifest states other data, or another preparation of them, than these",
        "its manifest states batch_size 8, and this comparison took 4",
        "its manifest states max_samples None, and this comparison took 20",
        "its manifest states shuffle None, and this comparison took 1",
    )


# As plain values


def test_the_share_that_must_agree(ours):
    wrong = changed(ours, sum=ours.scales["sum"] * np.float32(0.9003))
    share = 1 - 1 / len(ours.scales)
    assert crosscheck(wrong, ours, min_agreement=share).passed
    assert not crosscheck(wrong, ours, min_agreement=share + 0.001).passed
    assert crosscheck(wrong, ours, min_agreement=0).passed


def test_what_a_manifest_keeps(ours):
    wrong = changed(ours, sum=ours.scales["sum"] * np.float32(0.9003))
    result = crosscheck(wrong, ours)
    facts = result.facts
    assert (facts.method, facts.tensors, facts.agreement) == ("entropy", len(ours.scales), result.agreement)
    assert (facts.passed, facts.counts, facts.notes) == (result.passed, result.counts, list(result.notes))


def test_a_thousand_tensors_are_compared_at_once(tmp_path):
    body = "\n".join(f"  t{n + 1} = Add(t{n}, c)" for n in range(1000))
    text = f"deep (float[N, 4] t0) => (float[N, 4] t1000) <float[4] c = {{0.1, 0.2, 0.3, 0.4}}>\n{{\n{body}\n}}"
    model = save_model(tmp_path / "deep.onnx", text)
    ours = calibrate(model, np.ones((2, 4), np.float32))
    cache = ours.cache()
    start = time.process_time()
    result = crosscheck(cache, ours)
    json.dumps(result.as_json())
    assert time.process_time() - start < 0.5
    assert (len(result.shared), result.agreement) == (1002, 1)


# The real caches


def meta_of(folder):
    return json.loads((folder / "meta.json").read_text(encoding="utf-8"))


def golden_result(folder, batch_size=None):
    meta = meta_of(folder)
    cache = parse_cache((folder / "golden.cache").read_bytes())
    batching = Batching(batch_size=batch_size or meta["batch_size"], drop_last=True)
    ours = reference(cache, folder / "model.onnx", samples(folder), batching)
    return crosscheck(cache, ours, names=meta["onnx_names"]), meta


@pytest.mark.golden
@pytest.mark.parametrize("case", CASES)
def test_every_bin_of_a_real_cache_is_reproduced(golden, case):
    result, meta = golden_result(golden / case)
    assert (result.agreement, result.passed) == (1, True)
    assert meta["reproduction"]
    for row in meta["reproduction"]:
        found = of(result, row["cache_name"])
        assert (found.their_bin, found.our_bin, found.agrees) == (row["m"], row["m"], True)
        assert abs(found.residual) < 0.001
        assert found.tensor == (None if row["onnx_tensor"] == row["cache_name"] else row["onnx_tensor"])
    assert not any("batch size" in note for note in result.notes)


@pytest.mark.golden
def test_the_pools_of_a_real_cache_inherit(golden):
    result, _ = golden_result(golden / "lenet_mnist_trt7202")
    assert [(t.name, t.origin) for t in result.tensors if t.verdict == "inherited"] == [
        ("pool1", "conv1"),
        ("pool2", "conv2"),
    ]
    assert (len(result.shared), result.notes) == (9, ())


@pytest.mark.golden
@pytest.mark.parametrize("batch_size", [1, 2, 5, 10, 16, 20, 25, 32, 40, 100, 125, 250, 500])
def test_a_real_cache_is_rejected_at_every_other_batch_size(golden, batch_size):
    result, _ = golden_result(golden / "lenet_mnist_trt7202", batch_size)
    assert not result.passed
    assert any("another batch size" in note and "--find" in note for note in result.notes)


@pytest.mark.golden
def test_a_real_cache_is_rejected_in_another_order(golden):
    folder = golden / "lenet_mnist_trt7202"
    cache = parse_cache((folder / "golden.cache").read_bytes())
    ours = reference(cache, folder / "model.onnx", samples(folder), Batching(batch_size=50, shuffle=1))
    result = crosscheck(cache, ours, names=meta_of(folder)["onnx_names"])
    assert not result.passed
    assert "another batch size or order" in result.notes[0]
