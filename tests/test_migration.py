"""From a calibration cache to a checked Q/DQ model: every check can fail, and then there is no model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest

import trtcalib
from tests.models import save_model
from trtcalib.errors import CacheMismatchError, EngineError, MissingPackageError, OutputError
from trtcalib.migration import NEXT_STEPS, REPORT, Migration, MigrationOptions, migrate
from trtcalib.qdq.prepared import QdqOptions
from trtcalib.trt.conformance_values import BuildOutcome, Conformance, NodeVerdict

ROOT = Path(__file__).parent.parent
SCHEMA = ROOT / "trtcalib" / "schemas" / "migration.schema.json"

NET = """
net (float[N, 2, 6, 6] x) => (float[N, 3, 6, 6] y)
<float[3, 2, 3, 3] w = {0.1, -0.2, 0.3, 0.4, -0.5, 0.6, 0.7, 0.8, -0.9, 0.1, 0.2, 0.3, -0.4, 0.5, 0.6, 0.7, -0.8, 0.9,
 0.1, -0.2, 0.3, 0.4, -0.5, 0.6, 0.7, 0.8, -0.9, 0.1, 0.2, 0.3, -0.4, 0.5, 0.6, 0.7, -0.8, 0.9,
 0.1, -0.2, 0.3, 0.4, -0.5, 0.6, 0.7, 0.8, -0.9, 0.1, 0.2, 0.3, -0.4, 0.5, 0.6, 0.7, -0.8, 0.9}>
{
    h = Conv <pads = [1, 1, 1, 1]> (x, w)
    y = Relu(h)
}
"""


class Case:
    """A model, its cache and data in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = save_model(folder / "net.onnx", NET)
        self.data = folder / "data.npy"
        np.save(self.data, np.random.default_rng(0).normal(size=(8, 2, 6, 6)).astype(np.float32))
        self.cache = folder / "net.cache"
        trtcalib.calibrate(self.model, self.data, batch_size=8).write_cache(self.cache)
        self.output = folder / "out"

    def run(self, **options: Any) -> Migration:
        asked = MigrationOptions(**{"conversion": QdqOptions(), "data": self.data, **options})
        return migrate(self.model, self.cache, self.output, asked)

    def written(self) -> list[str]:
        return sorted(path.name for path in self.output.iterdir())

    def replace(self, old: str, new: str) -> None:
        (self.folder / "net.cache.json").unlink(missing_ok=True)
        self.cache.write_text(self.cache.read_text().replace(old, new))


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def answer(monkeypatch: pytest.MonkeyPatch, result: Conformance | Exception) -> None:
    """Let TensorRT-RTX's check say this."""

    def check(*_: object, **__: object) -> Conformance:
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr("trtcalib.trt.conformance.check_model", check)


def verdict(**changes: Any) -> Conformance:
    facts: dict[str, Any] = {
        "model": "x",
        "tensorrt_rtx_version": "1.7.1",
        "parser": "accepted",
        "nodes": (NodeVerdict(node="conv", operator="Conv", layer="conv", kind="CONVOLUTION", int8_inputs=True),),
        "builds": (BuildOutcome(compute_capability=86, outcome="accepted", engine_bytes=1),),
    }
    return Conformance(**{**facts, **changes})


FLOAT_NODE = NodeVerdict(
    node="up", operator="ConvTranspose", layer="up", kind="DECONVOLUTION", int8_inputs=False, reasons=("never",)
)


def steps(result: Migration) -> dict[str, str]:
    return {step.name: step.verdict for step in result.steps}


def test_a_migration_that_passes_gives_model_report_and_next_steps(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, verdict())
    result = case.run()
    assert result.success
    assert steps(result) == dict.fromkeys(("lint", "convert", "checker", "compare", "builder"), "passed")
    assert case.written() == sorted(result.files) == sorted(["net-qdq.onnx", REPORT, NEXT_STEPS])
    onnx.checker.check_model(str(case.output / "net-qdq.onnx"), full_check=True)
    assert Migration.model_validate_json((case.output / REPORT).read_bytes()) == result
    assert result.comparison is not None
    assert result.comparison.samples == 8
    assert (result.comparison.outputs[0].sqnr_db or 0) > 20  # eight samples, one convolution
    assert [tensor.name for tensor in result.comparison.tensors] == ["h"]
    assert "--onnx=net-qdq.onnx" in (case.output / NEXT_STEPS).read_text()


def test_the_same_inputs_give_the_same_bytes(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, verdict())
    case.run()
    first = {path.name: path.read_bytes() for path in case.output.iterdir()}
    case.run(workers=3)
    assert {path.name: path.read_bytes() for path in case.output.iterdir()} == first


def test_the_report_fits_its_schema(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, verdict())
    case.run()
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((case.output / REPORT).read_bytes()), schema)
    assert schema == Migration.model_json_schema(), "write it anew: see tests/test_manifest.py"


def test_without_data_or_tensorrt_rtx_these_checks_are_skipped_with_a_reason(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, MissingPackageError("tensorrt_rtx_bindings", "install it"))
    result = case.run(data=None)
    assert result.success
    assert (steps(result)["compare"], steps(result)["builder"]) == ("skipped", "skipped")
    assert "install it" in result.steps[-1].detail
    assert (result.comparison, result.builder) == (None, None)


def test_a_check_that_could_not_be_asked_is_skipped_and_said_so(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, EngineError("x", "no process"))
    result = case.run()
    assert (result.success, steps(result)["builder"]) == (True, "skipped")
    assert "TensorRT-RTX could not be asked" in result.steps[-1].detail
    assert steps(case.run(compute_capabilities=()))["builder"] == "skipped"


def test_an_error_in_the_cache_stops_before_the_conversion(case: Case) -> None:
    line = next(line for line in case.cache.read_text().splitlines() if line.startswith("x: "))
    case.replace(line, "x: 7fc00000")
    result = case.run()
    assert (result.success, steps(result)) == (False, {"lint": "failed"})
    assert "TC021" in result.steps[0].detail
    assert case.written() == [REPORT]


def test_a_cache_of_another_model_is_no_success(case: Case) -> None:
    for old, new in (("\nx: ", "\na: "), ("\nh: ", "\nb: "), ("\ny: ", "\nc: "), ("\nw: ", "\nd: ")):
        case.replace(old, new)
    result = case.run(conversion=QdqOptions(partial="skip"))
    assert not result.success
    assert case.written() == [REPORT]


def test_a_missing_scale_is_an_error_that_names_the_tensor(case: Case) -> None:
    case.replace("\nx: ", "\nnobody: ")
    with pytest.raises(CacheMismatchError, match="'x'"):
        case.run()
    assert case.written() == []


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"parser": "rejected", "parser_faults": ("no kernel",), "builds": ()}, "its parser: rejected: no kernel"),
        ({"parser_warnings": ("odd",)}, "its parser warns: odd"),
        (
            {"builds": (BuildOutcome(compute_capability=86, outcome="rejected", reason="too large"),)},
            "its builder for SM86: rejected: too large",
        ),
        (
            {"nodes": (FLOAT_NODE.model_copy(update={"operator": "Conv"}),)},
            "1 weighted nodes would run in float, first 'up': never",
        ),
        (
            {"builds": (BuildOutcome(compute_capability=86, outcome="accepted", told_float=("conv",)),)},
            "its builder lists weighted nodes in float",
        ),
    ],
)
def test_what_the_builder_does_not_take_fails_the_migration(
    case: Case, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], told: str
) -> None:
    answer(monkeypatch, verdict(**said))
    result = case.run()
    assert (result.success, steps(result)["builder"]) == (False, "failed")
    assert told in result.steps[-1].detail
    assert result.builder is not None
    assert case.written() == [REPORT]


def test_transposed_convolutions_that_rtx_alone_runs_in_float_fail_only_where_rtx_is_the_target(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, verdict(nodes=(FLOAT_NODE,)))
    assert case.run().success
    assert not case.run(conversion=QdqOptions(target="tensorrt-rtx")).success


def test_results_never_take_the_place_of_an_input(case: Case) -> None:
    model = case.output / "net-qdq.onnx"
    case.output.mkdir()
    case.model.rename(case.output / "net.onnx")
    (case.output / "net.onnx").rename(model)
    options = MigrationOptions(conversion=QdqOptions())
    # net-qdq.onnx becomes net-qdq-qdq.onnx beside it; as cache it would be written over.
    with pytest.raises(OutputError, match="is an input"):
        migrate(case.folder / "net.onnx", model, case.output, options)
    assert sorted(path.name for path in case.output.iterdir()) == ["net-qdq.onnx"]
