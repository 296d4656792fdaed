"""study.json: its schema, and what reading a damaged one says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import trtcalib.manifest
from tests.batch_study.helpers import ZOO
from tests.models import save_model
from trtcalib.batch_study.result import Study, read_study
from trtcalib.batch_study.study import study
from trtcalib.errors import SpecError

SCHEMA = Path(trtcalib.manifest.__file__).parent / "schemas" / "study.schema.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of every kind of tensor, with an infinite scale among them."""
    folder = tmp_path_factory.mktemp("study")
    x = np.random.default_rng(3).standard_cauchy((9, 6)).astype(np.float32)
    x[0] = 0
    np.save(folder / "data.npy", x)
    study(save_model(folder / "model.onnx", ZOO), folder / "data.npy", folder / "out", batch_sizes=[2], orders=1)
    return folder / "out"


def test_the_schema_is_the_models_own() -> None:
    expected = json.dumps(Study.model_json_schema(), indent=2, ensure_ascii=False) + "\n"
    assert SCHEMA.read_text(encoding="utf-8") == expected, f"write this to {SCHEMA.name}"
    jsonschema.Draft202012Validator.check_schema(json.loads(expected))


def test_a_real_study_fits_it_and_needs_every_part(folder: Path) -> None:
    content = json.loads((folder / "study.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(content)
    for key in content.keys() - {"schema_version", "tool", "kind"}:
        with pytest.raises(jsonschema.ValidationError, match=f"'{key}' is a required property"):
            validator.validate({k: v for k, v in content.items() if k != key})
    for broken in ({"schema_version": 2}, {"kind": "manifest"}, {"configurations": [{}]}, {"summary": {}}):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(content | broken)
    assert any(tensor["scale"] is None for tensor in content["tensors"])
    assert any(tensor["inherited_from"] for tensor in content["tensors"])


def test_what_was_written_is_read_again(folder: Path) -> None:
    content = (folder / "study.json").read_text(encoding="utf-8")
    assert read_study(folder / "study.json").model_dump_json() + "\n" == content


def test_nothing_in_it_names_this_machines_folders(folder: Path) -> None:
    content = (folder / "study.json").read_text(encoding="utf-8")
    assert str(folder.parent) not in content
    found = read_study(folder / "study.json")
    assert (found.model.path, found.data.path) == ("../model.onnx", "../data.npy")
    assert found.data.samples == 9


class TestDamaged:
    def refusal(self, path: Path) -> str:
        with pytest.raises(SpecError) as caught:
            read_study(path)
        assert caught.value.path == path
        return str(caught.value)

    def test_missing(self, tmp_path: Path) -> None:
        assert self.refusal(tmp_path / "s.json").endswith("s.json: no such file: trtcalib study writes it")

    def test_a_folder(self, tmp_path: Path) -> None:
        assert "cannot be read" in self.refusal(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"null"])
    def test_no_study(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "s.json").write_bytes(content)
        assert re.search(r"s\.json: file: ", self.refusal(tmp_path / "s.json"))

    def test_newer(self, folder: Path, tmp_path: Path) -> None:
        content = json.loads((folder / "study.json").read_text(encoding="utf-8")) | {"schema_version": 2}
        (tmp_path / "s.json").write_text(json.dumps(content))
        assert self.refusal(tmp_path / "s.json").endswith("s.json: schema_version: Input should be 1")

    def test_a_manifest_is_none(self, folder: Path) -> None:
        assert "data: Field required" in self.refusal(folder / "all.cache.json")

    def test_further_fields_of_a_later_release_are_passed_over(self, folder: Path, tmp_path: Path) -> None:
        content = json.loads((folder / "study.json").read_text(encoding="utf-8"))
        (tmp_path / "s.json").write_text(json.dumps(content | {"later": 1}))
        assert read_study(tmp_path / "s.json") == read_study(folder / "study.json")
