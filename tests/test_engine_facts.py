"""The manifests of a build, and what it finds odd."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import pytest

import trtcalib.manifest
from tests.models import DENSE, save_model
from tests.trt.fakes import FACTS
from trtcalib.batches import Batching, plan_batches
from trtcalib.engine_facts import (
    Calibrated,
    CalibrationFacts,
    cache_manifest,
    engine_manifest,
    shared_findings,
    uncovered_findings,
)
from trtcalib.engine_spec import BuilderSettings, EngineSpec, ShapeRange
from trtcalib.files import sha256_of, sha256_of_bytes
from trtcalib.manifest import EngineManifest, Finding, Manifest, manifest_path, read_engine_manifest, read_manifest
from trtcalib.onnx_graph import read_model
from trtcalib.provenance import batching_facts, data_facts, model_facts
from trtcalib.samples.sources import open_source
from trtcalib.specs import load_recipe

CACHE = b"TRT-101601-EntropyCalibration2\nx: 3c010a14\n"
PLAN = b"a plan"
ODD = Finding(code="partial-last-batch", message="1 sample was left out")
SCHEMAS = Path(trtcalib.manifest.__file__).parent / "schemas"


@pytest.fixture
def facts(tmp_path: Path) -> CalibrationFacts:
    """What a calibration on 9 of 10 samples was made from; model and data in folders of their own."""
    for name in ("models", "data", "out", "caches"):
        (tmp_path / name).mkdir()
    graph = read_model(save_model(tmp_path / "models" / "m.onnx", DENSE))
    data = tmp_path / "data" / "d.npy"
    np.save(data, np.zeros((10, 3), np.float32))
    batches = plan_batches(open_source(data, graph.inputs), None, Batching(batch_size=3, shuffle=7, drop_last=True))
    list(batches.runs())
    return CalibrationFacts(
        model=model_facts(graph),
        data=data_facts(data, batches),
        batching=batching_facts(batches, skip_bad_images=False),
        recipe=load_recipe("entropy"),
        shapes={"x": (3, 3)},
        tf32=False,
        device=FACTS,
    )


class TestCacheManifest:
    def test_says_that_tensorrt_calibrated_and_with_what(self, facts: CalibrationFacts, tmp_path: Path) -> None:
        manifest = cache_manifest(facts, tmp_path / "caches" / "x.cache", CACHE, [ODD])
        assert manifest.calibrated_by == "tensorrt"
        assert (manifest.cache, manifest.cache_sha256) == ("x.cache", sha256_of_bytes(CACHE))
        assert (manifest.tensorrt_version, manifest.algorithm) == ("10.16.1", "EntropyCalibration2")
        assert manifest.recipe == load_recipe("entropy").model_dump()
        assert (manifest.findings, manifest.tensors) == ([ODD], [])
        made = manifest.provenance
        assert (made.device, made.shapes, made.tf32) == (FACTS, {"x": (3, 3)}, False)
        assert (made.range, made.bins, made.session_options) == (None, None, {})
        assert (made.model.path, made.data.path) == ("../models/m.onnx", "../data/d.npy")
        assert made.model.sha256 == sha256_of(tmp_path / "models" / "m.onnx")
        assert made.batching.model_dump() == {
            "batch_size": 3,
            "batches": 3,
            "last_batch_samples": 3,
            "max_samples": None,
            "shuffle": 7,
            "drop_last": True,
            "skip_bad_images": False,
        }
        assert made.data.samples == 9
        assert {"python", "numpy", "onnx"} <= made.versions.keys()
        assert "onnxruntime" not in made.versions

    def test_fits_the_schema_and_reads_back(self, facts: CalibrationFacts, tmp_path: Path) -> None:
        path = tmp_path / "caches" / "x.cache"
        manifest = cache_manifest(facts, path, CACHE, [])
        manifest_path(path).write_text(manifest.model_dump_json(), encoding="utf-8")
        assert read_manifest(manifest_path(path)) == manifest
        schema = json.loads((SCHEMAS / "manifest.schema.json").read_text(encoding="utf-8"))
        jsonschema.validate(json.loads(manifest.model_dump_json()), schema, jsonschema.Draft202012Validator)

    def test_is_the_same_bytes_for_the_same_calibration(self, facts: CalibrationFacts, tmp_path: Path) -> None:
        made = [cache_manifest(facts, tmp_path / "caches" / "x.cache", CACHE, []).model_dump_json() for _ in range(2)]
        assert made[0] == made[1]
        assert str(tmp_path) not in made[0]


class TestUncovered:
    @pytest.mark.parametrize(
        ("tensors", "said"),
        [
            ([], None),
            (["x"], None),
            (["x", "x"], None),
            (["x", "y"], "1 of 2 floating-point tensors of TensorRT's network have no scale in the cache, {why}: 'y'"),
            (
                ["y", "x", "y", "z"],
                "2 of 3 floating-point tensors of TensorRT's network have no scale in the cache, {why}: 'y', 'z'",
            ),
            (
                list("xabcdef"),
                "6 of 7 floating-point tensors of TensorRT's network have no scale in the cache, {why}: 'a', 'b', 'c', 'd', 'e', ...",
            ),
        ],
    )
    def test_names_the_tensors_without_a_scale(self, tensors: list[str], said: str | None) -> None:
        why = "so that the layers around them run in FP16 or FP32"
        expected = [] if said is None else [said.replace("{why}", why)]
        found = list(uncovered_findings(tensors, CACHE))
        assert [finding.message for finding in found] == expected
        assert {finding.code for finding in found} <= {"tensors-without-scale"}


class TestShared:
    def test_nothing_is_told_where_nothing_was_raised(self) -> None:
        assert list(shared_findings({})) == []

    def test_one_and_many_are_counted_and_five_are_named(self) -> None:
        (one,) = shared_findings({"a": "b"})
        assert one.code == "dla-shared-scales"
        assert one.message == (
            "1 tensor took the larger scale of another input of the same element-wise layer, because DLA needs them to share one: "
            "'a'"
        )
        (many,) = shared_findings({f"t{n}": "b" for n in range(7)})
        assert many.message.startswith("7 tensors took the larger scale of another input")
        assert many.message.endswith("to share one: 't0', 't1', 't2', 't3', 't4', ...")


class TestEngineManifest:
    def make(self, folder: Path, calibrated: Calibrated, *messages: str, quantized: bool = False) -> EngineManifest:
        builder = SimpleNamespace(
            full_version="10.16.1.11",
            quantized=quantized,
            shapes={"x": ShapeRange(min=(1, 3), opt=(3, 3), max=(8, 3))},
        )
        built = SimpleNamespace(plan=PLAN, messages=messages, seconds=1.23456)
        settings = BuilderSettings(fp16=True, workspace="1GiB", timing_cache="/secret/timing.cache")
        spec = EngineSpec(model=str(folder / "models" / "m.onnx"), builder=settings)
        return engine_manifest(
            spec,
            read_model(spec.model),
            load_recipe("entropy"),
            builder,
            built,
            calibrated,
            paths=(folder / "out" / "m.engine", folder / "caches" / "x.cache"),
            device=FACTS,
            findings=[ODD],
        )

    def calibrated(self, facts: CalibrationFacts, folder: Path, **changes: Any) -> Calibrated:
        manifest: Manifest = cache_manifest(facts, folder / "caches" / "x.cache", CACHE, [])
        values = {"cache": CACHE, "origin": "tensorrt", "manifest": manifest, "batches_fed": 3, "seconds": 0.98765}
        return Calibrated(**{**values, **changes})

    def test_of_an_engine_that_tensorrt_calibrated(self, facts: CalibrationFacts, tmp_path: Path) -> None:
        found = self.make(tmp_path, self.calibrated(facts, tmp_path), "a warning")
        assert (found.engine, found.engine_sha256, found.engine_bytes) == ("m.engine", sha256_of_bytes(PLAN), 6)
        assert (found.tensorrt_version, found.device, found.messages) == ("10.16.1.11", FACTS, ["a warning"])
        assert found.cache is not None
        assert found.cache.model_dump() == {
            "path": "../caches/x.cache",
            "sha256": sha256_of_bytes(CACHE),
            "header": "TRT-101601-EntropyCalibration2",
            "origin": "tensorrt",
        }
        assert found.shapes == {"x": {"min": (1, 3), "opt": (3, 3), "max": (8, 3)}}
        assert (found.batches_fed, found.seconds) == (3, {"calibration": 0.988, "build": 1.235})
        assert found.settings == {
            "strongly_typed": False,
            "fp16": True,
            "tf32": None,
            "workspace": 1 << 30,
            "fallback": {},
            "dla": None,
        }
        assert found.recipe == load_recipe("entropy").model_dump()
        assert found.batching == facts.batching
        assert found.findings == [ODD]

    def test_its_paths_are_relative_to_the_engine(self, facts: CalibrationFacts, tmp_path: Path) -> None:
        """Those of the cache's manifest are relative to the cache."""
        found = self.make(tmp_path, self.calibrated(facts, tmp_path))
        assert found.data is not None
        assert (found.model.path, found.data.path) == ("../models/m.onnx", "../data/d.npy")
        assert str(tmp_path) not in found.model_dump_json()

    def test_of_a_model_with_qdq_nodes(self, facts: CalibrationFacts, tmp_path: Path) -> None:
        found = self.make(tmp_path, Calibrated(), quantized=True)
        assert found.explicit_quantization
        assert (found.cache, found.data, found.batching, found.recipe) == (None, None, None, None)
        assert (found.batches_fed, found.seconds["calibration"]) == (0, 0.0)

    def test_of_a_cache_that_nothing_is_known_of(self, facts: CalibrationFacts, tmp_path: Path) -> None:
        found = self.make(tmp_path, self.calibrated(facts, tmp_path, origin="reused", manifest=None, batches_fed=0))
        assert found.cache is not None
        assert (found.cache.origin, found.data, found.batching) == ("reused", None, None)

    def test_fits_the_schema_and_reads_back(self, facts: CalibrationFacts, tmp_path: Path) -> None:
        found = self.make(tmp_path, self.calibrated(facts, tmp_path), "half of a pair: \ud800")
        path = tmp_path / "out" / "m.engine.json"
        path.write_text(found.model_dump_json(), encoding="utf-8")
        assert read_engine_manifest(path) == found
        assert found.messages == [r"half of a pair: \ud800"]
        schema = json.loads((SCHEMAS / "engine-manifest.schema.json").read_text(encoding="utf-8"))
        jsonschema.validate(json.loads(found.model_dump_json()), schema, jsonschema.Draft202012Validator)
