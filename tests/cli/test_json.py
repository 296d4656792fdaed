"""Every ``--json`` holds what its schema in the package says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from tests.trt.fakes import installed, tensorrt
from trtcalib.core.agreement import Verdict

CALIBRATE = ["calibrate", "model.onnx", "--data", "data.npy", "-o", "out.cache"]

CROSSCHECK = ["crosscheck", "out.cache", "--model", "model.onnx", "--data", "data.npy"]

SCHEMAS = Path(__file__).parents[2] / "trtcalib" / "schemas"


def read(schema: str) -> dict[str, Any]:
    contract = json.loads((SCHEMAS / f"{schema}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(contract)
    return contract


@pytest.mark.parametrize(
    ("schema", "command"),
    [
        ("manifest", [*CALIBRATE, "--json"]),
        ("cache-show", ["cache", "show", "out.cache", "--json"]),
        ("cache-show", ["cache", "show", "out.cache", "--model", "model.onnx", "--json"]),
        ("cache-verify", ["cache", "verify", "out.cache", "--json"]),
        ("cache-diff", ["cache", "diff", "out.cache", "out.cache", "--json"]),
        ("cache-lint", ["cache", "lint", "out.cache", "--model", "model.onnx", "--json"]),
        ("crosscheck", [*CROSSCHECK, "--json"]),
        ("layouts", [*CROSSCHECK, "--find", "--json"]),
        ("qdq-report", ["qdq", "model.onnx", "out.cache", "-o", "qdq.onnx", "--json"]),
        ("cache-edit", ["cache", "set", "out.cache", "x=2", "-o", "set.cache", "--json"]),
        ("migration", ["migrate", "model.onnx", "out.cache", "-o", "out", "--compute-capability", "none", "--json"]),
        ("study", ["study", "model.onnx", "--data", "data.npy", "--batch-sizes", "8", "-o", "study", "--json"]),
        ("evaluation", ["evaluate", "model.onnx", "--data", "data.npy", "--json"]),
        ("advice", ["advise", "model.onnx", "--data", "data.npy", "-o", "advice", "--json"]),
        ("ablation", ["ablate", "model.onnx", "--data", "data.npy", "-o", "ablation", "--json"]),
        (
            "sensitivity",
            ["sensitivity", "model.onnx", "--data", "data.npy", "--max-loss", "0", "-o", "sensitivity", "--json"],
        ),
        ("sweep", ["sweep", "model.onnx", "--data", "data.npy", "--budget", "2", "-o", "sweep", "--json"]),
        ("doctor", ["doctor", "--json"]),
    ],
)
def test_json_output_fits_its_schema(done, net: Path, schema: str, command: list[str]) -> None:
    done(*CALIBRATE, "--drop-last")
    printed = json.loads(done(*command).out)
    contract = read(schema)
    jsonschema.validate(printed, contract, jsonschema.Draft202012Validator)
    printed.pop("schema_version")
    # The models of these give the version where it is missing.
    broken = [] if schema in ("manifest", "study", "qdq-report", "migration") else printed
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, contract, jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("schema", "rows", "flags"), [("crosscheck", "tensors", []), ("layouts", "layouts", ["--find"])]
)
def test_the_schemas_of_a_crosscheck_name_every_key(done, net: Path, schema: str, rows: str, flags: list[str]) -> None:
    done(*CALIBRATE, "--drop-last")
    printed = json.loads(done(*CROSSCHECK, *flags, "--json").out)
    contract = read(schema)
    row = contract["properties"][rows]["items"]
    assert contract["properties"].keys() == set(contract["required"]) == printed.keys()
    assert row["properties"].keys() == set(row["required"]) == printed[rows][0].keys()


def test_the_schema_of_a_crosscheck_names_every_verdict() -> None:
    verdicts = set(get_args(Verdict))
    contract = read("crosscheck")["properties"]
    assert set(contract["tensors"]["items"]["properties"]["verdict"]["enum"]) == verdicts
    assert set(contract["counts"]["propertyNames"]["enum"]) == verdicts


class TestWhatNeedsTensorRT:
    """The values that the commands print; printing them needs TensorRT."""

    def check(self, schema: str, printed: dict[str, Any], broken: dict[str, Any]) -> None:
        contract = read(schema)
        printed = json.loads(json.dumps(printed))
        jsonschema.validate(printed, contract, jsonschema.Draft202012Validator)
        for key in printed:
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate({k: v for k, v in printed.items() if k != key}, contract)
        for key, value in broken.items():
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate({**printed, key: value}, contract)
        assert contract["properties"].keys() == printed.keys()

    def test_infer(self) -> None:
        from trtcalib.engine_run import Timing

        timing = Timing(
            samples=5, batches=3, batch_size=2, p50_ms=1.5, p90_ms=2.0, p99_ms=2.5, samples_per_second=9.5, left_out=0
        )
        self.check("infer", timing.as_json(), {"samples": 0, "p50_ms": "1.5", "left_out": None, "schema_version": 2})

    def test_engine_inspect(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with installed(tensorrt(), monkeypatch):
            from trtcalib.trt.inspection import EngineLayer, Inspection

        layers = (
            EngineLayer(name="conv1", type="CaskConvolution", precision="INT8", formats=("Int8",), tensors=("x",)),
            EngineLayer(name="fc", type="unknown", precision="unknown", reason="asked for by fallback"),
        )
        found = Inspection(path="x.engine", tensorrt_version="10.16.1.11", detailed=True, layers=layers)
        printed = found.as_json()
        self.check("engine-inspect", printed, {"counts": {"INT8": 0}, "layers": [{}], "detailed": "yes"})
        contract = read("engine-inspect")["properties"]["layers"]["items"]
        assert contract["properties"].keys() == set(contract["required"]) == printed["layers"][0].keys()


def test_check_builder() -> None:
    """Printing it needs TensorRT-RTX."""
    from trtcalib.trt.conformance_values import BuildOutcome, Conformance, NodeVerdict

    schema = Conformance.model_json_schema(mode="serialization")
    assert (SCHEMAS / "check-builder.schema.json").read_text(encoding="utf-8") == json.dumps(schema, indent=2) + "\n"
    node = NodeVerdict(node="conv", operator="Conv", layer="conv", kind="CONVOLUTION", int8_inputs=True)
    build = BuildOutcome(compute_capability=86, outcome="accepted", engine_bytes=1000, seconds=0.5)
    result = Conformance(
        model="m.onnx", tensorrt_rtx_version="1.7.1.116", parser="accepted", nodes=(node,), builds=(build,)
    )
    broken = {"parser": "verified", "builds": [{}], "nodes": [{}], "passed": None, "schema_version": 2}
    TestWhatNeedsTensorRT().check("check-builder", result.as_json(), broken)


def test_every_schema_is_checked_here() -> None:
    """That of an engine's manifest, which `build --json` prints, in tests/test_manifest.py and tests/test_engine_facts.py; that of
    what `report` writes in tests/reports/test_report.py; that of the record of edits in tests/cli/test_cache_edit.py."""
    assert {file.name.removesuffix(".schema.json") for file in SCHEMAS.iterdir()} == {
        "manifest",
        "ablation",
        "sweep",
        "sensitivity",
        "advice",
        "engine-manifest",
        "engine-inspect",
        "evaluation",
        "infer",
        "cache-show",
        "cache-verify",
        "cache-diff",
        "cache-edit",
        "cache-edits",
        "cache-lint",
        "check-builder",
        "crosscheck",
        "layouts",
        "migration",
        "qdq-report",
        "doctor",
        "report",
        "study",
    }
