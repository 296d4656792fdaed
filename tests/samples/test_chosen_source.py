"""A part of a source's samples is a source like any other."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models import DENSE, save_model
from trtcalib.batches import Batching, plan_batches
from trtcalib.errors import DataError
from trtcalib.onnx_graph import ModelInput
from trtcalib.samples.chosen_source import ChosenSource
from trtcalib.samples.feeds import DataSource
from trtcalib.samples.sources import open_source

INPUTS = (ModelInput("x", np.dtype(np.float32), (None, 3)),)

ROWS = np.arange(30, dtype=np.float32).reshape(10, 3)


def source(rows: np.ndarray = ROWS) -> DataSource:
    return open_source(rows, INPUTS)


def firsts(chosen: DataSource, order: list[int] | None = None) -> list[int]:
    """Which rows come, by their first number."""
    return [int(sample.load()["x"][0, 0]) // 3 for sample in chosen.samples(order)]


def test_the_chosen_samples_come_in_order_and_keep_their_names() -> None:
    chosen = ChosenSource(source(), [1, 4, 9], "a part")
    assert (chosen.size(), chosen.whole, firsts(chosen), firsts(chosen)) == (3, False, [1, 4, 9], [1, 4, 9])
    every = [sample.label for sample in source().samples(None)]
    assert [sample.label for sample in chosen.samples(None)] == [every[i] for i in (1, 4, 9)]
    assert chosen.name == f"{source().name} (a part)"


def test_an_order_is_one_of_the_chosen_samples() -> None:
    assert firsts(ChosenSource(source(), [1, 4, 9], "a part"), [2, 0, 1, 2]) == [9, 1, 4, 9]


def test_it_is_shuffled_and_grouped_like_any_source() -> None:
    chosen = ChosenSource(source(), [0, 2, 4, 6, 8], "a part")
    batches = plan_batches(chosen, None, Batching(batch_size=2, shuffle=3, max_samples=4))
    found = [int(run.load()["x"][0, 0]) // 3 for run in batches.runs()]
    assert sorted(found) == [0, 2, 4, 6]
    assert batches.seen == 4


def test_opening_it_again_gives_itself() -> None:
    chosen = ChosenSource(source(), [1], "a part")
    assert open_source(chosen, INPUTS) is chosen


def test_its_digest_tells_positions_and_data() -> None:
    digests = {
        ChosenSource(source(rows), positions, "a part").sha256()
        for rows in (ROWS, ROWS + 1)
        for positions in ([0], [1], [0, 1], [1, 0])
    }
    assert len(digests) == 8
    assert ChosenSource(source(), [0], "a part").sha256() == ChosenSource(source(), [0], "other words").sha256()
    assert source().sha256() not in digests


def test_the_positions_are_its_own() -> None:
    positions = [1, 2]
    chosen = ChosenSource(source(), positions, "a part")
    positions.append(3)
    assert firsts(chosen) == [1, 2]


def test_a_function_s_samples_cannot_be_chosen() -> None:
    given = open_source(lambda: iter([{"x": ROWS[:1]}]), INPUTS)
    with pytest.raises(DataError, match="its samples can be read in one order only, so that no part can be chosen"):
        ChosenSource(given, [0], "a part")


def test_no_sample_is_no_source() -> None:
    with pytest.raises(DataError, match="every fourth sample would be none: there are too few samples"):
        ChosenSource(source(), [], "every fourth sample")


def test_a_calibration_runs_on_it(tmp_path) -> None:
    import trtcalib

    model = save_model(tmp_path / "model.onnx", DENSE)
    chosen = ChosenSource(source(), [0, 5], "a part")
    result = trtcalib.calibrate(model, chosen, "minmax")
    assert result.scales["x"] == trtcalib.scale_from_amax(np.float32(17))
    assert (result.provenance.data.samples, result.provenance.data.path) == (2, "<arrays> (a part)")
