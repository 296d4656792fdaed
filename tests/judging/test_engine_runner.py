"""Feeds for an engine and what it gives back; an engine is stood in for, since the real ones need a GPU (see tests/rig and tests/gpu)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models import save_model
from trtcalib.errors import DataError, EngineError
from trtcalib.judging.engine_runner import EngineRunner
from trtcalib.onnx_graph import ModelGraph, ModelInput, read_model

IDS = "ids (int64[N,2] ids, float[N,2] x) => (int64[N,2] twice, float[N,2] y) { twice = Add(ids, ids) y = Neg(x) }"

PRIORS = "p (float[N,2] x, float[3,2] priors) => (float[N,2] y, float[3,2] z) { y = Neg(x) z = Neg(priors) }"


@dataclass
class Found:
    """What a run gives."""

    arrays: Mapping[str, Any]


@dataclass
class Standing:
    """Stands in for a loaded engine: computes what the models above do, and keeps what it was fed."""

    inputs: tuple[ModelInput, ...]
    outputs: tuple[str, ...]
    smallest_batch: int = 1
    path: Path = Path("out.engine")
    fed: list[Mapping[str, np.ndarray]] = field(default_factory=list)

    def run(self, feed: Mapping[str, np.ndarray]) -> Found:
        self.fed.append(feed)
        made = {"y": -feed["x"]}
        if "ids" in feed:
            made["twice"] = 2 * feed["ids"]
        if "priors" in feed:
            made["z"] = -feed["priors"]
        return Found({**made, "more": np.zeros(1)})


def standing(model: ModelGraph, smallest: int = 1, **dtypes: Any) -> Standing:
    inputs = tuple(ModelInput(i.name, np.dtype(dtypes.get(i.name, i.dtype)), i.shape) for i in model.inputs)
    return Standing(inputs, (*(output.name for output in model.proto.graph.output), "more"), smallest)


@pytest.fixture
def ids(tmp_path: Path) -> ModelGraph:
    return read_model(save_model(tmp_path / "model.onnx", IDS))


def feed(rows: int = 1, largest: int = 7) -> dict[str, np.ndarray]:
    return {"ids": np.full((rows, 2), largest, np.int64), "x": np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)}


def test_the_model_s_outputs_come_back_and_no_others(ids: ModelGraph) -> None:
    runner = EngineRunner(standing(ids), ids)  # type: ignore[arg-type]
    found = runner.run(feed(), "data", "0")
    assert list(found) == ["twice", "y"] == list(runner.outputs)
    np.testing.assert_array_equal(found["twice"], [[14, 14]])


def test_numbers_are_given_as_the_engine_takes_them(ids: ModelGraph) -> None:
    engine = standing(ids, ids=np.int32, x=np.float16)
    EngineRunner(engine, ids).run(feed(), "data", "0")  # type: ignore[arg-type]
    assert {name: array.dtype for name, array in engine.fed[0].items()} == {"ids": np.int32, "x": np.float16}


def test_integers_beyond_the_engine_s_type_are_refused(ids: ModelGraph) -> None:
    runner = EngineRunner(standing(ids, ids=np.int32), ids)  # type: ignore[arg-type]
    runner.run(feed(largest=2**31 - 1), "data", "0")
    with pytest.raises(DataError, match="input 'ids' holds numbers that the engine's int32 does not") as raised:
        runner.run(feed(largest=2**31), "data.npz", "5")
    assert (str(raised.value.source), raised.value.sample) == ("data.npz", "5")


@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
def test_another_kind_of_number_is_another_model_s_engine(ids: ModelGraph, dtype: Any) -> None:
    with pytest.raises(EngineError, match=f"its input 'x' is {np.dtype(dtype)}, and that of .*model.onnx float32"):
        EngineRunner(standing(ids, x=dtype), ids)  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [1, 3, 4, 6])
def test_a_batch_below_the_smallest_is_filled_up_and_cut_again(ids: ModelGraph, rows: int) -> None:
    engine = standing(ids, smallest=4)
    given = feed(rows)
    found = EngineRunner(engine, ids).run(given, "data", "0")  # type: ignore[arg-type]
    assert {len(array) for array in engine.fed[0].values()} == {max(rows, 4)}
    np.testing.assert_array_equal(found["y"], -given["x"])
    np.testing.assert_array_equal(engine.fed[0]["x"][rows:], np.repeat(given["x"][:1], max(4 - rows, 0), 0))


def test_an_output_without_the_batch_is_refused_where_it_was_filled_up(tmp_path: Path) -> None:
    model = read_model(save_model(tmp_path / "model.onnx", PRIORS))
    given = {"x": np.ones((3, 2), np.float32), "priors": np.ones((3, 2), np.float32)}
    assert EngineRunner(standing(model), model).run(given, "data", "0")["z"].shape == (3, 2)  # type: ignore[arg-type]
    given["x"] = np.ones((1, 2), np.float32)
    with pytest.raises(EngineError, match=r"its smallest batch is 4, and output 'z' has shape \[3, 2\]"):
        EngineRunner(standing(model, smallest=4), model).run(given, "data", "0")  # type: ignore[arg-type]


def test_missing_and_other_tensors_are_named(ids: ModelGraph, tmp_path: Path) -> None:
    other = read_model(save_model(tmp_path / "other.onnx", PRIORS))
    with pytest.raises(
        EngineError, match=r"its inputs are 'priors', 'x', and .*model.onnx has 'ids', 'x': give the model"
    ):
        EngineRunner(standing(other), ids)  # type: ignore[arg-type]
    engine = standing(ids)
    engine.outputs = ("y",)
    with pytest.raises(EngineError, match=r"its outputs are 'y', and .*model.onnx has 'twice', 'y'"):
        EngineRunner(engine, ids)  # type: ignore[arg-type]
