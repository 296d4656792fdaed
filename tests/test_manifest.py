"""The manifest beside a cache: its schema, what reading a damaged one says, and paths that travel."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import trtcalib
import trtcalib.manifest
from tests.models import DENSE, save_model
from trtcalib.errors import SpecError
from trtcalib.manifest import (
    CacheFacts,
    DeviceFacts,
    EngineManifest,
    Manifest,
    ModelFacts,
    environment,
    manifest_path,
    portable_path,
    read_engine_manifest,
    read_manifest,
)

SCHEMA = Path(trtcalib.manifest.__file__).parent / "schemas" / "manifest.schema.json"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that was really made, with an infinite scale, a zero tensor and a view among its tensors."""
    folder = tmp_path_factory.mktemp("manifest")
    text = """
    odd (float[N, 4] x) => (float[N, 4] y)
    <float[4] k = {1, 2, 3, 4}, int64[2] shape = {-1, 4}>
    {
        huge = Constant<value_float = -inf>()
        a = Mul(x, k)
        b = Max(a, huge)
        c = Sub(b, b)
        d = Reshape(b, shape)
        y = Add(c, d)
    }
    """
    model = save_model(folder / "model.onnx", text)
    values = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    np.save(folder / "data.npy", values)
    result = trtcalib.calibrate(model, folder / "data.npy", "entropy", workers=1)
    result.write_cache(folder / "out.cache")
    return folder / "out.cache"


ORIGIN_FAULT = "cache.origin: Input should be 'tensorrt', 'trtcalib' or 'reused'"

ENGINE = EngineManifest(
    engine="m.engine",
    engine_sha256="1" * 64,
    engine_bytes=6,
    tensorrt_version="10.16.1.11",
    device=DeviceFacts(name="a GPU", compute_capability="8.9", memory=1 << 34, cuda="12.4", driver=None),
    model=ModelFacts(path="../m.onnx", sha256="2" * 64),
    explicit_quantization=False,
    cache=CacheFacts(path="m.cache", sha256="3" * 64, header="TRT-101601-EntropyCalibration2", origin="tensorrt"),
    data=None,
    batching=None,
    recipe={"method": "entropy"},
    shapes={"x": {"min": (1, 3), "opt": (8, 3), "max": (32, 3)}},
    settings={"fp16": True, "tf32": None, "workspace": None, "fallback": {}},
    batches_fed=3,
    seconds={"calibration": 0.5, "build": 12.0},
    versions={"python": "3.11.7"},
    findings=[],
    messages=["a warning"],
)


class TestSchema:
    @pytest.mark.parametrize(("name", "model"), [("manifest", Manifest), ("engine-manifest", EngineManifest)])
    def test_the_file_is_the_models_own_schema(self, name: str, model: type[Manifest | EngineManifest]) -> None:
        path = SCHEMA.with_name(f"{name}.schema.json")
        expected = json.dumps(model.model_json_schema(), indent=2, ensure_ascii=False) + "\n"
        assert path.read_text(encoding="utf-8") == expected, f"write this to {path.name}"
        jsonschema.Draft202012Validator.check_schema(json.loads(expected))

    @pytest.mark.parametrize("key", ["engine_sha256", "device", "cache", "shapes", "messages"])
    def test_an_engines_manifest_fits_its_own_and_needs_every_part(self, key: str) -> None:
        schema = json.loads(SCHEMA.with_name("engine-manifest.schema.json").read_text(encoding="utf-8"))
        content = json.loads(ENGINE.model_dump_json())
        jsonschema.validate(content, schema, jsonschema.Draft202012Validator)
        del content[key]
        with pytest.raises(jsonschema.ValidationError, match=f"'{key}' is a required property"):
            jsonschema.validate(content, schema, jsonschema.Draft202012Validator)

    def test_a_real_manifest_fits_it(self, cache: Path) -> None:
        content = json.loads(manifest_path(cache).read_text(encoding="utf-8"))
        validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
        validator.validate(content)
        assert content["schema_version"] == 1
        assert any(tensor["scale"] is None for tensor in content["tensors"])
        assert any(tensor["inherited_from"] for tensor in content["tensors"])
        assert {finding["code"] for finding in content["findings"]} >= {"all-zero-tensor", "infinite-scale"}
        del content["provenance"]["model"]["sha256"]
        with pytest.raises(jsonschema.ValidationError, match="'sha256' is a required property"):
            validator.validate(content)

    def test_every_field_of_the_manifest_is_plain_json(self, cache: Path) -> None:
        """No NaN and no Infinity, which JSON does not have."""
        text = manifest_path(cache).read_text(encoding="utf-8")

        def refuse(constant: str) -> None:
            raise AssertionError(constant)

        json.loads(text, parse_constant=refuse)


class TestReading:
    def fault(self, path: Path) -> str:
        with pytest.raises(SpecError) as caught:
            read_manifest(path)
        return str(caught.value)

    def test_round_trip(self, cache: Path) -> None:
        manifest = read_manifest(manifest_path(cache))
        assert manifest.cache == "out.cache"
        assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest

    def test_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "x.cache.json"
        assert self.fault(path) == f"{path}: no such file: a cache that trtcalib wrote has its manifest beside it"

    def test_a_folder(self, tmp_path: Path) -> None:
        assert self.fault(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"TRT-101601-EntropyCalibration2\n", b"[" * 100000])
    def test_no_json(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "x.json"
        path.write_bytes(content)
        assert self.fault(path).startswith(f"{path}: file: Invalid JSON: ")

    def test_another_json(self, tmp_path: Path) -> None:
        path = tmp_path / "x.json"
        path.write_text("{}", encoding="utf-8")
        lines = self.fault(path).splitlines()
        assert f"{path}: cache_sha256: Field required" in lines
        assert f"{path}: provenance: Field required" in lines

    @pytest.mark.parametrize(
        ("key", "value", "fault"),
        [
            ("schema_version", 2, "schema_version: Input should be 1"),
            ("tool", "other", "tool: Input should be 'trtcalib'"),
            ("cache_sha256", "abc", "cache_sha256: String should match pattern '^[0-9a-f]{64}$'"),
            ("tensors", 3, "tensors: Input should be a valid array"),
        ],
    )
    def test_faults_name_the_key(self, cache: Path, tmp_path: Path, key: str, value: object, fault: str) -> None:
        content = json.loads(manifest_path(cache).read_text(encoding="utf-8"))
        content[key] = value
        path = tmp_path / "x.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        assert self.fault(path) == f"{path}: {fault}"

    def test_faults_of_a_large_file_are_few(self, cache: Path, tmp_path: Path) -> None:
        content = json.loads(manifest_path(cache).read_text(encoding="utf-8"))
        content["tensors"] = [{}] * 1000
        path = tmp_path / "x.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        assert len(self.fault(path).splitlines()) == 10

    def test_new_fields_are_ignored(self, cache: Path, tmp_path: Path) -> None:
        content = json.loads(manifest_path(cache).read_text(encoding="utf-8"))
        content["later"] = content["provenance"]["later"] = 1
        path = tmp_path / "x.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        assert read_manifest(path) == read_manifest(manifest_path(cache))


class TestReadingAnEnginesManifest:
    def fault(self, path: Path) -> str:
        with pytest.raises(SpecError) as caught:
            read_engine_manifest(path)
        return str(caught.value)

    def test_round_trip(self, tmp_path: Path) -> None:
        path = tmp_path / "m.engine.json"
        path.write_text(ENGINE.model_dump_json(), encoding="utf-8")
        assert read_engine_manifest(path) == ENGINE

    def test_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "m.engine.json"
        assert self.fault(path) == f"{path}: no such file: an engine that trtcalib wrote has its manifest beside it"

    def test_that_of_a_cache(self, cache: Path) -> None:
        lines = self.fault(manifest_path(cache)).splitlines()
        assert f"{manifest_path(cache)}: engine_sha256: Field required" in lines

    @pytest.mark.parametrize(
        ("key", "value", "fault"),
        [
            ("schema_version", 2, "schema_version: Input should be 1"),
            ("engine_sha256", "abc", "engine_sha256: String should match pattern '^[0-9a-f]{64}$'"),
            ("settings", [], "settings: Input should be an object"),
            ("cache", {**ENGINE.cache.model_dump(), "origin": "?"}, ORIGIN_FAULT),
        ],
    )
    def test_faults_name_the_key(self, tmp_path: Path, key: str, value: object, fault: str) -> None:
        path = tmp_path / "m.engine.json"
        path.write_text(json.dumps({**json.loads(ENGINE.model_dump_json()), key: value}), encoding="utf-8")
        assert self.fault(path) == f"{path}: {fault}"


class TestWhoCalibrated:
    def test_a_manifest_from_before_engines_is_the_cpus(self, cache: Path, tmp_path: Path) -> None:
        content = json.loads(manifest_path(cache).read_text(encoding="utf-8"))
        assert content.pop("calibrated_by") == "trtcalib"
        for key in ("device", "shapes", "tf32"):
            assert content["provenance"].pop(key) is None
        path = tmp_path / "x.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        assert read_manifest(path) == read_manifest(manifest_path(cache))


class TestPaths:
    def test_the_manifest_stands_beside_the_cache(self) -> None:
        assert manifest_path("a/x.cache") == Path("a/x.cache.json")

    def test_relative_with_forward_slashes(self, tmp_path: Path) -> None:
        assert portable_path(tmp_path / "a" / "m.onnx", tmp_path) == "a/m.onnx"
        assert portable_path(tmp_path / "m.onnx", tmp_path / "out" / "x") == "../../m.onnx"

    def test_another_drive(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: object) -> str:
            raise ValueError("path is on mount 'D:', start on mount 'C:'")

        monkeypatch.setattr(os.path, "relpath", refuse)
        assert portable_path("D:/m.onnx", "C:/out") == "D:/m.onnx"

    def test_a_manifest_holds_no_absolute_path_and_moves_with_its_folder(self, cache: Path) -> None:
        text = manifest_path(cache).read_text(encoding="utf-8")
        assert str(cache.parent) not in text
        manifest = read_manifest(manifest_path(cache))
        assert (manifest.provenance.model.path, manifest.provenance.data.path) == ("model.onnx", "data.npy")

    def test_the_same_calibration_gives_the_same_bytes_elsewhere(self, tmp_path: Path) -> None:
        written = []
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            model = save_model(folder / "model.onnx", DENSE)
            np.save(folder / "data.npy", np.arange(30, dtype=np.float32).reshape(10, 3))
            trtcalib.calibrate(model, folder / "data.npy").write_cache(folder / "out.cache")
            written.append([(folder / file).read_bytes() for file in ("out.cache", "out.cache.json")])
        assert written[0] == written[1]


class TestEnvironment:
    def test_versions(self) -> None:
        versions, cpu = environment()
        assert versions["python"] == platform.python_version()
        assert versions["numpy"] == np.__version__
        assert platform.machine() in cpu

    def test_packages_that_are_not_installed_are_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> str:
            raise PackageNotFoundError(name)

        monkeypatch.setattr(trtcalib.manifest, "version", missing)
        assert list(environment()[0]) == ["python"]

    def test_a_system_without_cpuinfo(self, monkeypatch: pytest.MonkeyPatch) -> None:
        read = Path.read_text

        def missing(path: Path, *args: object, **options: object) -> str:
            if path == Path("/proc/cpuinfo"):
                raise FileNotFoundError
            return read(path, *args, **options)

        monkeypatch.setattr(Path, "read_text", missing)
        monkeypatch.setattr(platform, "processor", lambda: "")
        assert environment()[1] == f"unknown ({platform.machine()})"
