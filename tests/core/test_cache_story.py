"""What moved two caches apart as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.test_cache_diff import entropy, facts, scale_set
from trtcalib.core.cache_diff import ScaleSet, compare
from trtcalib.core.cache_story import explain
from trtcalib.core.scale import bits_from_scale, scale_from_amax

ENTROPY, MINMAX = (101601, "EntropyCalibration2"), (101601, "MinMaxCalibration")


def story(one: ScaleSet, two: ScaleSet):
    return {found.kind: found for found in explain(compare(one, two), one, two)}


def numbered(scales, header=None, **known):
    return ScaleSet(
        bits={f"t{place}": bits_from_scale(scale) for place, scale in enumerate(scales)}, header=header, **known
    )


def drawn(count, seed=0):
    return np.random.default_rng(seed).uniform(0.1, 10, count).astype(np.float32)


def test_the_same_files_need_no_explanation():
    assert story(numbered(drawn(9), ENTROPY), numbered(drawn(9), ENTROPY)) == {}


def test_headers_alone_are_told():
    found = story(numbered(drawn(5), (8601, "EntropyCalibration2")), numbered(drawn(5), ENTROPY))
    assert found.keys() == {"header"}
    assert found["header"].sentence == "other headers: TensorRT 8.6.1 -> 10.16.1; nothing else differs"


@pytest.mark.parametrize(("header", "words"), [(MINMAX, "as the headers say"), (ENTROPY, "whatever the headers say")])
def test_half_bins_show_minmax_against_entropy(header, words):
    maxima = drawn(20)
    bins = [2048] * 5 + list(range(700, 715))
    found = story(
        numbered([entropy(m, r) for m, r in zip(bins, maxima, strict=True)], ENTROPY),
        numbered([scale_from_amax(r) for r in maxima], header),
    )
    assert (found["algorithm"].count, found["algorithm"].of) == (5, 20)
    assert words in found["algorithm"].sentence
    assert found["no-pattern"].count == 15
    assert ("as other algorithms make them" in found["no-pattern"].sentence) == (header == MINMAX)


@pytest.mark.parametrize(
    ("factor", "kind", "words"),
    [
        (127, "units", "one file holds amax where the other holds amax / 127"),
        (1 / 127, "units", "one file holds amax where"),
        (127 / 128, "units", "amax / 128"),
        (255, "common-factor", "such as a missing division by 255"),
        (1.7, "common-factor", "as another normalisation does, or every scale was multiplied afterwards"),
    ],
)
def test_one_factor_for_everything(factor, kind, words):
    scales = drawn(12)
    found = story(numbered(scales), numbered(scales * np.float32(factor)))
    assert found.keys() == {kind}
    assert (found[kind].count, found[kind].of) == (12, 12)
    assert words in found[kind].sentence


def test_doubled_ranges_are_told_with_what_chance_would_give():
    scales = drawn(40)
    factors = np.concatenate([[2.0] * 6, [2.01, 0.503], np.linspace(1.1, 1.9, 20), np.ones(12)]).astype(np.float32)
    found = story(numbered(scales), numbered(scales * factors))
    assert found["doubled"].count == 8
    assert found["doubled"].of == 28
    assert "6 of 28 distinct changes are by exactly a power of two, and 2 more within 1%" in found["doubled"].sentence
    assert "chance would give about 0.8" in found["doubled"].sentence
    assert "12 of 40 scales are the same to the bit" in found["no-pattern"].sentence


def test_a_few_factors_near_a_power_of_two_are_no_evidence():
    scales = drawn(70)
    factors = np.concatenate([[2.01, 2.012], np.linspace(1.1, 1.9, 68)]).astype(np.float32)
    assert "doubled" not in story(numbered(scales), numbered(scales * factors))


def test_everything_moved_without_a_pattern_fits_another_model_best():
    found = story(numbered(drawn(30)), numbered(drawn(30, seed=1)))
    assert "another model or method fits best" in found["no-pattern"].sentence


def test_a_few_ulp_are_rounding():
    scales = drawn(10)
    found = story(numbered(scales), numbered(np.nextafter(scales, np.float32(100))))
    assert found.keys() == {"rounding"}
    assert "10 of 10 distinct changes are within 8 ULP" in found["rounding"].sentence


def test_zero_and_odd_scales_are_told_apart():
    found = story(scale_set(a=0.0, b=1.0, c=np.nan), scale_set(a=1.0, b=np.inf, c=1.0))
    assert (found["zero"].count, found["odd"].count) == (1, 2)


def test_few_common_names_may_be_of_different_models():
    found = story(scale_set(a=1.0, b=1.0, c=1.0), scale_set(a=1.0, x=1.0, y=1.0, z=1.0))
    assert "only 1 of 3 names match" in found["names"].sentence
    assert "names" not in story(scale_set(a=1.0, b=1.0, c=1.0), scale_set(a=1.0, b=2.0, x=1.0))


def test_known_ranges_are_counted_and_views_count_once():
    scales = [1.0, 1.0, 3.0, 5.0]
    old = {f"t{i}": facts() for i in range(4)}
    new = {"t0": facts(2.4), "t1": facts(2.4), "t2": facts(bin_m=900), "t3": facts(maximum=9.0)}
    found = story(numbered(scales, facts=old), numbered([2.1, 2.1, 2.9, 5.5], facts=new))
    assert {kind: (e.count, e.of, e.basis) for kind, e in found.items()} == {
        "values": (1, 3, "manifests"),
        "range": (1, 3, "manifests"),
        "bin": (1, 3, "manifests"),
    }
