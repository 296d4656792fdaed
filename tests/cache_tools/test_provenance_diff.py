"""What two manifests state about why the scales differ."""

from __future__ import annotations

from typing import Any

import pytest

from trtcalib.cache_tools.provenance_diff import explain_manifests
from trtcalib.manifest import Manifest

DEVICE = {"name": "NVIDIA L4", "compute_capability": "8.9", "memory": 1, "cuda": "13.0", "driver": None}


EDIT = {
    "command": "set",
    "files": [{"cache": "m.cache", "sha256": "c" * 64, "header": "TRT-101601-EntropyCalibration2"}],
    "result_sha256": "e" * 64,
    "detail": {"x": 1.0},
    "notes": [],
    "trtcalib": "0.1.0",
}


def manifest(**changes: Any) -> Manifest:
    """A manifest; keys such as ``data__sha256`` lead into its provenance, the others stand on top."""
    provenance: dict[str, Any] = {
        "model": {"path": "m.onnx", "sha256": "a" * 64},
        "data": {"path": "d.npz", "is_path": True, "sha256": "b" * 64, "samples": 100},
        "batching": {
            "batch_size": 8,
            "batches": 13,
            "last_batch_samples": 4,
            "max_samples": None,
            "shuffle": None,
            "drop_last": False,
        },
        "range": "doubling",
        "bins": 2048,
        "session_options": {},
        "versions": {"onnxruntime": "1.20.0"},
        "cpu": "one",
    }
    content: dict[str, Any] = {
        "cache": "m.cache",
        "cache_sha256": "c" * 64,
        "tensorrt_version": "10.16.1",
        "algorithm": "EntropyCalibration2",
        "recipe": {"method": "entropy"},
        "findings": [],
        "tensors": [],
    }
    for key, value in changes.items():
        *path, last = key.split("__")
        place = provenance if path or last in provenance or last in ("device", "tf32", "shapes") else content
        for part in path:
            place = place[part]
        place[last] = value
    return Manifest.model_validate({**content, "provenance": provenance})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, {"nothing-stated": "their manifests state the same model, data, batches, recipe and versions"}),
        ({"model__sha256": "d" * 64}, {"model": "another model: sha256 aaaaaaaaaaaa… -> dddddddddddd…"}),
        (
            {"model__external_sha256": {"weights": "d" * 64}},
            {"model": "another model: the same graph with other external data, which hold its weights"},
        ),
        (
            {"data__sha256": "d" * 64, "data__path": "e.npz"},
            {"data": "other data, or another preparation of them: d.npz -> e.npz"},
        ),
        (
            {"batching__batch_size": 32, "batching__shuffle": 0},
            {"batching": "same model and data, batch size 8 -> 32, order of the source -> shuffled with seed 0"},
        ),
        (
            {"edits": [EDIT]},
            {"recipe": "same model and data, edited with trtcalib cache: set"},
        ),
        ({"data__samples": 96}, {"batching": "same model and data, samples 100 -> 96"}),
        (
            {"recipe": {"method": "percentile", "percentile": 99.9}},
            {"recipe": "same model and data, method entropy -> percentile, percentile none -> 99.9"},
        ),
        (
            {"calibrated_by": "tensorrt", "tf32": True, "device": DEVICE},
            {
                "recipe": "same model and data, calibrated by trtcalib -> tensorrt",
                "environment": "device none -> NVIDIA L4, TF32 none -> True",
            },
        ),
        (
            {"versions": {"onnxruntime": "1.21.0", "numpy": "2.0.0"}, "cpu": "two"},
            {"environment": "same model and data, onnxruntime 1.20.0 -> 1.21.0, numpy none -> 2.0.0, CPU one -> two"},
        ),
        (
            {"model__sha256": "d" * 64, "batching__batch_size": 1},
            {
                "model": "another model: sha256 aaaaaaaaaaaa… -> dddddddddddd…",
                "batching": "same data, batch size 8 -> 1",
            },
        ),
    ],
)
def test_what_is_stated_otherwise_is_told(changes: dict[str, Any], told: dict[str, str]) -> None:
    found = explain_manifests(manifest(), manifest(**changes), 7)
    assert {explanation.kind: explanation.sentence for explanation in found} == told
    assert {(e.basis, e.count, e.of) for e in found} == {("manifests", 7, 7)}


def test_one_manifest_alone_tells_nothing() -> None:
    assert explain_manifests(manifest(), None, 7) == explain_manifests(None, manifest(), 7) == ()
