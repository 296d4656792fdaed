"""Samples grouped in calibration batches: how many, in what order, and what happens to the rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtcalib.batches import DEFAULT_BATCH_SIZE, Batches, Batching, Run, full_batches, plan_batches
from trtcalib.errors import DataError
from trtcalib.samples.feeds import Feed, Sample


class Counter:
    """A source of ``length`` samples, each its own position; ``known`` says whether the length is told beforehand."""

    name = "counter"

    def __init__(self, length: int, *, whole: bool = False, known: bool = True) -> None:
        self.length = length
        self.whole = whole
        self.known = known
        self.passes = 0
        self.loaded: list[int] = []

    def size(self) -> int | None:
        return self.length if self.known else None

    def samples(self, order: Sequence[int] | None) -> Iterator[Sample]:
        if order is not None and not self.known:
            raise DataError(self.name, "no random order")
        self.passes += 1
        for position in range(self.length) if order is None else order:
            yield Sample(str(position), lambda position=position: self._load(position))

    def sha256(self) -> str:
        return "0" * 64

    def _load(self, position: int) -> Feed:
        self.loaded.append(position)
        return {"x": np.full((1, 2), position), "y": np.full((1,), -position)}


def plan(length: int, fixed: int | None = None, *, whole: bool = False, known: bool = True, **batching) -> Batches:
    return plan_batches(Counter(length, whole=whole, known=known), fixed, Batching(**batching))


def labels(batches: Batches) -> list[list[str]]:
    """The labels of the runs, batch by batch."""
    grouped: list[list[str]] = []
    for run in batches.runs():
        grouped.extend([] for _ in range(run.batch + 1 - len(grouped)))
        grouped[run.batch].append(run.label)
    return grouped


def rows(batches: Batches) -> list[int]:
    return [int(row[0]) for run in batches.runs() for row in run.load()["x"]]


class TestBatchSize:
    def test_the_default_is_32(self) -> None:
        assert DEFAULT_BATCH_SIZE == 32
        assert plan(100).batch_size == 32

    def test_the_default_is_the_models_own_where_it_is_fixed(self) -> None:
        assert plan(100, 4).batch_size == 4
        assert plan(100, 1).batch_size == 1
        assert plan(100, 4, whole=True).batch_size == 4

    def test_the_default_is_1_for_whole_feeds_of_a_free_batch(self) -> None:
        assert plan(100, whole=True).batch_size == 1

    def test_a_stated_one_wins(self) -> None:
        assert plan(100, batch_size=5).batch_size == 5
        assert plan(100, 4, batch_size=12).batch_size == 12
        assert plan(100, whole=True, batch_size=7).batch_size == 7

    @pytest.mark.parametrize("batch_size", [1, 3, 6])
    def test_it_is_a_multiple_of_a_fixed_batch(self, batch_size: int) -> None:
        with pytest.raises(DataError) as caught:
            plan(100, 4, batch_size=batch_size)
        reason = f"the model has a fixed batch of 4: the batch size must be a multiple of it, got {batch_size}"
        assert str(caught.value) == f"counter: {reason}"

    @pytest.mark.parametrize("name", ["batch_size", "max_samples"])
    @pytest.mark.parametrize("value", [0, -1])
    def test_numbers_below_1(self, name: str, value: int) -> None:
        with pytest.raises(DataError, match=f"^counter: {name} must be at least 1, got {value}$"):
            plan(100, **{name: value})

    def test_a_negative_seed(self) -> None:
        with pytest.raises(DataError, match=r"^counter: the seed of the shuffle must not be negative, got -1$"):
            plan(100, shuffle=-1)


class TestGrouping:
    def test_one_run_per_sample_and_a_partial_last_batch(self) -> None:
        batches = plan(5, batch_size=2)
        assert labels(batches) == [["0", "1"], ["2", "3"], ["4"]]
        assert batches.samples == batches.seen == 5
        assert batches.last_is_partial

    def test_full_batches(self) -> None:
        batches = plan(6, batch_size=3)
        assert labels(batches) == [["0", "1", "2"], ["3", "4", "5"]]
        assert not batches.last_is_partial

    def test_rows_are_put_together_to_a_fixed_batch(self) -> None:
        batches = plan(8, 2, batch_size=4)
        runs = list(batches.runs())
        assert [(run.batch, run.samples, run.label) for run in runs] == [
            (0, 2, "0 to 1"),
            (0, 2, "2 to 3"),
            (1, 2, "4 to 5"),
            (1, 2, "6 to 7"),
        ]
        feed = runs[1].load()
        np.testing.assert_array_equal(feed["x"], [[2, 2], [3, 3]])
        np.testing.assert_array_equal(feed["y"], [-2, -3])

    def test_a_rest_that_does_not_fill_a_fixed_batch_is_left_out_and_counted(self) -> None:
        batches = plan(11, 4)
        assert rows(batches) == list(range(8))
        assert (batches.samples, batches.seen, batches.left_out) == (8, 8, 3)

    def test_a_partial_batch_of_full_runs(self) -> None:
        batches = plan(12, 4, batch_size=8)
        assert labels(batches) == [["0 to 3", "4 to 7"], ["8 to 11"]]
        assert batches.last_is_partial

    def test_a_whole_feed_counts_as_the_models_fixed_batch(self) -> None:
        batches = plan(5, 4, whole=True, batch_size=8)
        assert [(run.batch, run.samples, run.label) for run in batches.runs()] == [
            (0, 4, "0"),
            (0, 4, "1"),
            (1, 4, "2"),
            (1, 4, "3"),
            (2, 4, "4"),
        ]
        assert batches.samples == batches.seen == 20

    @pytest.mark.parametrize(("length", "fixed"), [(3, 4), (0, None), (0, 4)])
    @pytest.mark.parametrize("known", [True, False])
    def test_too_few_samples_for_one_run(self, length: int, fixed: int | None, known: bool) -> None:
        with pytest.raises(DataError, match=f"^counter: fewer samples than the {fixed or 1} that one batch needs$"):
            list(plan(length, fixed, known=known).runs())

    def test_nothing_is_loaded_before_it_is_asked_for(self) -> None:
        batches = plan(5)
        runs = list(batches.runs())
        assert batches.source.loaded == []
        runs[3].load()
        assert batches.source.loaded == [3]


@pytest.mark.parametrize("known", [True, False])
class TestLimits:
    def test_drop_last(self, known: bool) -> None:
        batches = plan(11, batch_size=4, drop_last=True, known=known)
        assert labels(batches) == [["0", "1", "2", "3"], ["4", "5", "6", "7"]]
        assert batches.samples == (8 if known else None)
        assert batches.seen == 8
        assert not batches.last_is_partial

    def test_drop_last_of_full_batches_drops_nothing(self, known: bool) -> None:
        assert rows(plan(8, batch_size=4, drop_last=True, known=known)) == list(range(8))

    def test_drop_last_with_a_fixed_batch(self, known: bool) -> None:
        batches = plan(15, 2, batch_size=6, drop_last=True, known=known)
        assert labels(batches) == [["0 to 1", "2 to 3", "4 to 5"], ["6 to 7", "8 to 9", "10 to 11"]]

    def test_drop_last_of_whole_feeds(self, known: bool) -> None:
        batches = plan(5, 4, whole=True, batch_size=8, drop_last=True, known=known)
        assert labels(batches) == [["0", "1"], ["2", "3"]]

    def test_drop_last_of_everything(self, known: bool) -> None:
        with pytest.raises(DataError, match=r"^counter: fewer samples than the 8 that one batch needs$"):
            list(plan(7, batch_size=8, drop_last=True, known=known).runs())

    @pytest.mark.parametrize(("max_samples", "expected"), [(3, 3), (7, 7), (100, 10)])
    def test_max_samples(self, known: bool, max_samples: int, expected: int) -> None:
        batches = plan(10, max_samples=max_samples, known=known)
        assert rows(batches) == list(range(expected))
        assert batches.seen == expected
        assert batches.samples == (expected if known else None)

    def test_max_samples_and_drop_last(self, known: bool) -> None:
        assert rows(plan(20, batch_size=4, max_samples=11, drop_last=True, known=known)) == list(range(8))

    def test_max_samples_with_a_fixed_batch(self, known: bool) -> None:
        assert rows(plan(20, 4, max_samples=11, known=known)) == list(range(8))

    def test_max_samples_of_whole_feeds_counts_rows(self, known: bool) -> None:
        assert labels(plan(20, 4, whole=True, max_samples=11, known=known)) == [["0"], ["1"]]

    def test_the_source_is_not_read_past_the_limit(self, known: bool) -> None:
        class Endless(Counter):
            def samples(self, order):
                for sample in super().samples(order):
                    assert int(sample.label) < 5
                    yield sample

        source = Endless(1000, known=known)
        assert len(list(plan_batches(source, None, Batching(max_samples=5)).runs())) == 5


class TestShuffle:
    @pytest.mark.parametrize("seed", [0, 1, 2**70])
    def test_is_numpys_pcg64_permutation(self, seed: int) -> None:
        expected = np.random.Generator(np.random.PCG64(seed)).permutation(10).tolist()
        assert rows(plan(10, shuffle=seed)) == expected

    def test_literal_order(self) -> None:
        assert rows(plan(8, shuffle=0)) == [2, 4, 3, 6, 5, 0, 1, 7]

    def test_only_the_used_samples_are_permuted(self) -> None:
        expected = np.random.Generator(np.random.PCG64(5)).permutation(6).tolist()
        assert rows(plan(10, shuffle=5, max_samples=6)) == expected

    def test_only_the_used_whole_feeds_are_permuted(self) -> None:
        expected = np.random.Generator(np.random.PCG64(5)).permutation(3)
        batches = plan(10, 4, whole=True, shuffle=5, max_samples=14)
        assert [label for batch in labels(batches) for label in batch] == [str(i) for i in expected]

    def test_drop_last_drops_from_the_end_of_the_order(self) -> None:
        expected = np.random.Generator(np.random.PCG64(5)).permutation(10).tolist()[:8]
        assert rows(plan(10, batch_size=4, shuffle=5, drop_last=True)) == expected

    def test_rows_of_a_fixed_batch_are_permuted_one_by_one(self) -> None:
        expected = np.random.Generator(np.random.PCG64(5)).permutation(10).tolist()[:8]
        assert rows(plan(10, 4, shuffle=5)) == expected

    def test_every_pass_has_the_same_order(self) -> None:
        batches = plan(10, shuffle=5)
        assert rows(batches) == rows(batches)

    def test_a_source_of_unknown_size_says_no(self) -> None:
        with pytest.raises(DataError, match=r"^counter: no random order$"):
            list(plan(10, shuffle=5, known=False).runs())


class TestPasses:
    def test_every_pass_starts_anew(self) -> None:
        batches = plan(5, batch_size=2)
        assert labels(batches) == labels(batches)
        assert batches.source.passes == 2

    def test_only_the_first_batches(self) -> None:
        batches = plan(10, 2, batch_size=4)
        assert [run.label for run in batches.runs(1)] == ["0 to 1", "2 to 3"]
        assert [run.label for run in batches.runs(2)] == ["0 to 1", "2 to 3", "4 to 5", "6 to 7"]
        assert len(list(batches.runs(100))) == 5

    def test_what_was_seen_is_that_of_the_last_complete_pass(self) -> None:
        batches = plan(10, batch_size=4)
        assert batches.seen == 0
        list(batches.runs())
        list(batches.runs(1))
        next(batches.runs())
        next(batches.runs(1))
        assert batches.seen == 10
        assert batches.last_is_partial


@given(
    length=st.integers(1, 40),
    fixed=st.sampled_from([None, 1, 2, 3]),
    multiple=st.integers(1, 5),
    max_samples=st.none() | st.integers(1, 50),
    drop_last=st.booleans(),
    shuffle=st.none() | st.integers(0, 9),
)
def test_laws(length, fixed, multiple, max_samples, drop_last, shuffle) -> None:
    """Every sample at most once, batches full but the last, and the number that was announced."""
    size = multiple * (fixed or 1)
    batches = plan(length, fixed, batch_size=size, max_samples=max_samples, drop_last=drop_last, shuffle=shuffle)
    expected = batches.samples
    if expected == 0:
        with pytest.raises(DataError, match="fewer samples than the"):
            list(batches.runs())
        return
    runs = list(batches.runs())
    found = rows(batches)
    assert len(found) == len(set(found)) == expected == batches.seen == sum(run.samples for run in runs)
    assert set(found) <= set(range(min(length, max_samples or length)))
    per_batch = np.bincount([run.batch for run in runs], weights=[run.samples for run in runs])
    assert (per_batch[:-1] == size).all()
    assert 0 < per_batch[-1] <= size
    assert batches.last_is_partial == (per_batch[-1] < size)
    assert not (drop_last and batches.last_is_partial)


def nothing(run: Run, feed: Feed) -> None:
    """Accept every feed."""


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("trtcalib")]


class Slow(Counter):
    """Every sample but the first waits for ``go``, and then takes its time."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.go = threading.Event()

    def _load(self, position: int) -> Feed:
        if position:
            assert self.go.wait(10)
            time.sleep(0.005)
        return super()._load(position)


class TestFullBatches:
    @given(
        length=st.integers(1, 30),
        fixed=st.sampled_from([None, 2, 3]),
        multiple=st.integers(1, 4),
        max_samples=st.none() | st.integers(1, 40),
        shuffle=st.none() | st.integers(0, 9),
        workers=st.integers(1, 4),
    )
    def test_are_those_of_a_plain_loop(self, length, fixed, multiple, max_samples, shuffle, workers) -> None:
        size = multiple * (fixed or 1)
        batches = plan(length, fixed, batch_size=size, max_samples=max_samples, shuffle=shuffle, drop_last=True)
        if not batches.samples:
            return
        expected = [run.load() for run in batches.runs()]
        checked = []
        found = list(full_batches(batches, workers, lambda run, feed: checked.append((run.label, feed["x"][0, 0]))))
        assert {feed["x"].shape for feed in found} == {(size, 2)}
        for name in ("x", "y"):
            np.testing.assert_array_equal(
                np.concatenate([feed[name] for feed in found]), np.concatenate([feed[name] for feed in expected])
            )
        assert checked == [(run.label, run.load()["x"][0, 0]) for run in batches.runs()]
        assert batches.seen == len(found) * size

    def test_a_check_stands_before_its_batch(self) -> None:
        batches, checked = plan(6, batch_size=3, drop_last=True), []
        feeds = full_batches(batches, 2, lambda run, feed: checked.append(run.label))
        next(feeds)
        assert checked == ["0", "1", "2"]
        feeds.close()

    def test_an_error_of_a_loader_comes_when_its_batch_is_due(self) -> None:
        class Broken(Counter):
            def _load(self, position: int) -> Feed:
                if position == 4:
                    raise DataError(self.name, "is broken", position)
                return super()._load(position)

        feeds = full_batches(plan_batches(Broken(9), None, Batching(batch_size=3)), 4, nothing)
        assert next(feeds)["x"].shape == (3, 2)
        with pytest.raises(DataError, match=r"^counter: sample 4: is broken$"):
            next(feeds)
        assert readers() == []

    def test_too_few_samples(self) -> None:
        with pytest.raises(DataError, match=r"^counter: fewer samples than the 4 that one batch needs$"):
            list(full_batches(plan(3, batch_size=4, drop_last=True), 2, nothing))
        assert readers() == []

    @pytest.mark.parametrize("how", ["closed", "check"])
    def test_who_stops_early_waits_for_no_sample_that_nobody_takes(self, how: str) -> None:
        source = Slow(100)

        def check(run: Run, feed: Feed) -> None:
            source.go.set()
            if how == "check":
                raise DataError("counter", "does not fit", run.label)

        feeds = full_batches(plan_batches(source, None, Batching(batch_size=40)), 1, check)
        if how == "closed":
            next(feeds)
            feeds.close()
        else:
            with pytest.raises(DataError, match=r"^counter: sample 0: does not fit$"):
                next(feeds)
        assert readers() == []
        # 42 are read ahead: without the first batch's 40 the rest was cancelled.
        assert len(source.loaded) < (60 if how == "closed" else 20)

    def test_no_more_is_read_ahead_than_two_per_thread_and_a_batch(self) -> None:
        source = Counter(100)
        feeds = full_batches(plan_batches(source, None, Batching(batch_size=5)), 2, nothing)
        next(feeds)
        time.sleep(0.05)
        assert len(source.loaded) <= 5 + 5 + 2 * 2
        feeds.close()


class TestDropped:
    @given(
        length=st.integers(1, 40),
        fixed=st.sampled_from([None, 2, 3]),
        multiple=st.integers(1, 5),
        max_samples=st.none() | st.integers(1, 130),
        whole=st.booleans(),
    )
    def test_is_what_a_pass_did_not_use_whether_the_size_is_known_or_not(
        self, length, fixed, multiple, max_samples, whole
    ) -> None:
        size = multiple * (fixed or 1)
        per_sample = fixed if whole and fixed else 1
        usable = min(length * per_sample, max_samples or length * per_sample) // per_sample * per_sample
        if usable < size:
            return
        for known in (True, False):
            options = {"batch_size": size, "max_samples": max_samples, "drop_last": True}
            batches = plan(length, fixed, whole=whole, known=known, **options)
            list(batches.runs())
            assert batches.seen == usable - usable % size
            assert batches.dropped == usable % size

    def test_nothing_is_dropped_where_nothing_may_be(self) -> None:
        batches = plan(5, batch_size=2)
        list(batches.runs())
        assert batches.dropped == 0
