"""The sentence that says how a scale came about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtcalib.batch_study.result import Configuration, Doubling, Outcome, Without
from trtcalib.views.text_study import percent, why

B8 = Configuration(
    name="b8",
    batch_size=8,
    shuffle=None,
    batches=5,
    last_batch_samples=8,
    cache="b8.cache",
    cache_sha256="0" * 64,
    moved=0,
)

ALL = B8.model_copy(update={"name": "all", "batch_size": 40, "batches": 1})


def doubling(batch: int, times: int = 1, sample: str = "812", alone: bool = False) -> Doubling:
    return Doubling(batch=batch, times=times, sample=sample, maximum=2.0, alone=alone)


def without(sample: str = "812", change: float | None = -0.38) -> Without:
    return Without(sample=sample, range=1.0, doublings=0, bin_m=700, scale=0.1, change=change)


def outcome(*doublings: Doubling, **changes: object) -> Outcome:
    facts = {
        "first_maximum": 1.2,
        "first_batch": 1,
        "first_sample": "17",
        "doublings": list(doublings),
        "range": 1.2 * 2 ** sum(d.times for d in doublings),
        "wasted_bins": 0,
        "bin_m": 700,
        "amax": 1.0,
        "scale": 0.1,
        "scale_hex": "3dcccccd",
        "change": 0.0,
        "clipped": 0.0,
        "without": None,
    }
    return Outcome(**{**facts, **changes})


@pytest.mark.parametrize(
    ("given_outcome", "configuration", "expected"),
    [
        (outcome(), ALL, "the only batch's maximum 1.2 from sample 17; the range never doubled"),
        (outcome(first_sample=None), B8, "first batch's maximum 1.2; the range never doubled"),
        (
            outcome(doubling(2), doubling(3), doubling(9, alone=True), without=without()),
            B8,
            "first batch's maximum 1.2 from sample 17; doubled 3 x to 9.6 at batches 2, 3 and 9; sample 812 alone causes the last one; without it scale -38 %",
        ),
        (
            outcome(doubling(4, alone=True), without=without(change=0.0)),
            B8,
            "first batch's maximum 1.2 from sample 17; doubled 1 x to 2.4 at batch 4; sample 812 alone causes it; without it the scale stays",
        ),
        (
            outcome(doubling(4, times=3, alone=True), without=without("5")),
            B8,
            "first batch's maximum 1.2 from sample 17; doubled 3 x to 9.6 at batch 4 (3 x); sample 812 alone causes the last one",
        ),
        (
            outcome(doubling(2), wasted_bins=900, without=without("5", 0.25)),
            B8,
            "first batch's maximum 1.2 from sample 17; doubled 1 x to 2.4 at batch 2; without sample 5, which holds the maximum, scale +25 %; 900 of 2048 bins lie above the true maximum",
        ),
        (
            outcome(*(doubling(batch) for batch in (2, 3, 9, 40, 41, 42, 312))),
            B8,
            "first batch's maximum 1.2 from sample 17; doubled 7 x to 153.6 at batches 2, 3, 9, 40 and 3 more, the last 312",
        ),
        (
            outcome(first_batch=2),
            B8,
            "batch 1 is all zero; batch 2's maximum 1.2 from sample 17; the range never doubled",
        ),
        (
            outcome(first_batch=4),
            B8,
            "batches 1 to 3 are all zero; batch 4's maximum 1.2 from sample 17; the range never doubled",
        ),
        (
            outcome(doubling(2), range=None),
            B8,
            "first batch's maximum 1.2 from sample 17; doubled 1 x past float32 at batch 2",
        ),
        (
            outcome(first_batch=0, first_maximum=0.0, first_sample=None, range=0.0),
            B8,
            "zero in every sample: there is no range and the scale is 0",
        ),
        (
            outcome(without=without(change=0.0001)),
            ALL,
            "the only batch's maximum 1.2 from sample 17; the range never doubled",
        ),
        (
            outcome(without=without(change=None)),
            ALL,
            "the only batch's maximum 1.2 from sample 17; the range never doubled",
        ),
    ],
)
def test_one_sentence_tells_why(given_outcome: Outcome, configuration: Configuration, expected: str) -> None:
    assert why(given_outcome, configuration, 2048) == expected


@given(st.lists(st.integers(1, 9), max_size=12))
def test_the_doublings_told_are_all_of_them(times: list[int]) -> None:
    doublings = [doubling(batch, n) for batch, n in enumerate(times, start=2)]
    told = why(outcome(*doublings), B8, 2048)
    assert (f"doubled {sum(times)} x " in told) == bool(times)
    assert ("never doubled" in told) == (not times)
    assert not times or f" {len(times) + 1}" in told


@pytest.mark.parametrize(("share", "text"), [(0, "0 %"), (-0.38, "-38 %"), (0.00123, "+0.123 %"), (1.5, "+150 %")])
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text
