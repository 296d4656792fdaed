"""Every ``--json`` holds what its schema in the package says."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

CALIBRATE = ["calibrate", "model.onnx", "--data", "data.npy", "-o", "out.cache"]

SCHEMAS = Path(__file__).parents[2] / "trtcalib" / "schemas"


@pytest.mark.parametrize(
    ("schema", "command"),
    [
        ("manifest", [*CALIBRATE, "--json"]),
        ("cache-show", ["cache", "show", "out.cache", "--json"]),
        ("cache-show", ["cache", "show", "out.cache", "--model", "model.onnx", "--json"]),
        ("cache-verify", ["cache", "verify", "out.cache", "--json"]),
        ("doctor", ["doctor", "--json"]),
    ],
)
def test_json_output_fits_its_schema(done, net: Path, schema: str, command: list[str]) -> None:
    done(*CALIBRATE)
    printed = json.loads(done(*command).out)
    contract = json.loads((SCHEMAS / f"{schema}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(contract)
    jsonschema.validate(printed, contract, jsonschema.Draft202012Validator)
    printed.pop("schema_version")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(printed if schema != "manifest" else [], contract, jsonschema.Draft202012Validator)


def test_every_schema_is_checked_here() -> None:
    assert {file.name.removesuffix(".schema.json") for file in SCHEMAS.iterdir()} == {
        "manifest",
        "cache-show",
        "cache-verify",
        "doctor",
    }
