"""A manifest against what is on disk now: same, changed or unknown; and never a reason to run code."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import trtcalib
import trtcalib.manifest
from tests.models import DENSE, make_model, save_model
from trtcalib.errors import SpecError
from trtcalib.manifest import manifest_path
from trtcalib.verification import Check, verify_cache

VALUES = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    model = make_model(DENSE)
    weight = model.graph.initializer[0]
    weight.CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight), weight.name)
    )  # only raw data goes outside
    onnx.save_model(model, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    np.save(folder / "data.npy", VALUES)
    (folder / "data.yaml").write_text("source: data.npy\ninputs: {x: {scale: 2}}\n", encoding="utf-8")
    for name, data in (("npy", folder / "data.npy"), ("yaml", folder / "data.yaml"), ("arrays", VALUES)):
        trtcalib.calibrate(folder / "model.onnx", data, "minmax").write_cache(folder / f"{name}.cache")
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy to change things in, at another place than where the manifest was written."""
    return Path(shutil.copytree(original, tmp_path / "moved"))


def statuses(cache: Path, **options) -> dict[str, str]:
    return {check.what: check.status for check in verify_cache(cache, **options)}


def detail(cache: Path, what: str, **options) -> str:
    return next(check.detail for check in verify_cache(cache, **options) if check.what == what)


def edit(cache: Path, **provenance: object) -> None:
    """Change the manifest's provenance, key by key: ``data__path`` is ``provenance.data.path``."""
    content = json.loads(manifest_path(cache).read_text(encoding="utf-8"))
    for key, value in provenance.items():
        place = content["provenance"]
        *parents, last = key.split("__")
        for parent in parents:
            place = place[parent]
        place[last] = value
    manifest_path(cache).write_text(json.dumps(content), encoding="utf-8")


ALL_SAME = {"cache": "same", "model": "same", "data": "same", "versions": "same", "cpu": "same"}


class TestSame:
    @pytest.mark.parametrize("name", ["npy", "yaml"])
    def test_everything_after_a_move(self, folder: Path, name: str) -> None:
        assert statuses(folder / f"{name}.cache") == ALL_SAME

    def test_from_another_folder(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder)
        assert statuses(Path("npy.cache")) == ALL_SAME

    def test_model_and_data_elsewhere(self, folder: Path, original: Path) -> None:
        cache = folder / "npy.cache"
        for name in ("model.onnx", "data.npy"):
            (folder / name).unlink()
        assert statuses(cache)["model"] == statuses(cache)["data"] == "unknown"
        found = statuses(cache, model=original / "model.onnx", data=str(original / "data.npy"))
        assert found == ALL_SAME

    def test_what_it_says(self, folder: Path) -> None:
        checks = verify_cache(folder / "npy.cache")
        assert checks[0] == Check("cache", "same", str(folder / "npy.cache"))
        assert checks[1] == Check("model", "same", str(folder / "model.onnx"))
        assert checks[2] == Check("data", "same", str(folder / "data.npy"))


class TestChanged:
    def test_cache(self, folder: Path) -> None:
        with (folder / "npy.cache").open("ab") as file:
            file.write(b"\n")
        assert statuses(folder / "npy.cache") == {**ALL_SAME, "cache": "changed"}

    def test_model(self, folder: Path) -> None:
        model = onnx.load(folder / "model.onnx", load_external_data=False)
        model.doc_string = "edited"
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        assert statuses(folder / "npy.cache") == {**ALL_SAME, "model": "changed"}

    def test_external_weights(self, folder: Path) -> None:
        content = bytearray((folder / "weights.bin").read_bytes())
        content[0] ^= 1
        (folder / "weights.bin").write_bytes(content)
        assert statuses(folder / "npy.cache") == {**ALL_SAME, "model": "changed"}

    def test_external_weights_that_are_gone(self, folder: Path) -> None:
        (folder / "weights.bin").unlink()
        assert statuses(folder / "npy.cache")["model"] == "changed"
        assert detail(folder / "npy.cache", "model").endswith("its external data file 'weights.bin' is missing")

    def test_a_model_that_is_damaged(self, folder: Path) -> None:
        (folder / "model.onnx").write_bytes(b"\xff")
        found = statuses(folder / "npy.cache")
        assert (found["model"], found["data"]) == ("changed", "changed")

    def test_data(self, folder: Path) -> None:
        np.save(folder / "data.npy", VALUES + 1)
        assert statuses(folder / "npy.cache") == {**ALL_SAME, "data": "changed"}
        assert statuses(folder / "yaml.cache") == {**ALL_SAME, "data": "changed"}

    def test_data_that_are_damaged(self, folder: Path) -> None:
        (folder / "data.npy").write_bytes(b"hello")
        assert statuses(folder / "npy.cache")["data"] == "changed"
        assert "not a .npy array, or truncated" in detail(folder / "npy.cache", "data")

    def test_preparation(self, folder: Path) -> None:
        (folder / "data.yaml").write_text("source: data.npy\ninputs: {x: {scale: 3}}\n", encoding="utf-8")
        assert statuses(folder / "npy.cache") == ALL_SAME
        assert statuses(folder / "yaml.cache") == {**ALL_SAME, "data": "changed"}

    def test_versions_and_cpu(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        edit(folder / "npy.cache", versions__numpy="0.9", versions__old="1", cpu="Z80")
        checks = {check.what: check for check in verify_cache(folder / "npy.cache")}
        assert "versions" not in checks
        assert checks["numpy"] == Check("numpy", "changed", f"0.9, here {np.__version__}")
        assert checks["old"] == Check("old", "changed", "1, here not installed")
        assert checks["cpu"].status == "changed"
        assert checks["cpu"].detail.startswith("Z80, here ")


class TestUnknown:
    def test_no_manifest(self, folder: Path) -> None:
        manifest_path(folder / "npy.cache").unlink()
        with pytest.raises(SpecError, match="no such file: a cache that trtcalib wrote has its manifest beside it"):
            verify_cache(folder / "npy.cache")

    def test_no_cache(self, folder: Path) -> None:
        (folder / "npy.cache").unlink()
        assert verify_cache(folder / "npy.cache")[0] == Check(
            "cache", "unknown", f"{folder / 'npy.cache'} does not exist"
        )

    def test_no_model(self, folder: Path) -> None:
        (folder / "model.onnx").unlink()
        found = statuses(folder / "npy.cache")
        assert (found["model"], found["data"]) == ("unknown", "unknown")
        expected = f"{folder / 'model.onnx'} does not exist; say where it is with --model"
        assert detail(folder / "npy.cache", "model") == expected

    def test_no_data(self, folder: Path) -> None:
        (folder / "data.npy").unlink()
        assert statuses(folder / "npy.cache") == {**ALL_SAME, "data": "unknown"}
        assert "no such file or folder" in detail(folder / "npy.cache", "data")

    def test_arrays_in_memory(self, folder: Path) -> None:
        assert statuses(folder / "arrays.cache") == {**ALL_SAME, "data": "unknown"}
        assert detail(folder / "arrays.cache", "data") == "<arrays> is no file; give it with --data to read it again"

    @pytest.mark.parametrize("path", ["x" * 5000, "../" * 3000, "\n\x1b[31m"])
    def test_hostile_paths(self, folder: Path, path: str) -> None:
        edit(folder / "npy.cache", data__path=path, model__path=path)
        found = statuses(folder / "npy.cache")
        assert (found["model"], found["data"]) == ("unknown", "unknown")


class TestFunctions:
    @pytest.fixture
    def module(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        """A module beside the cache that makes a file when it is imported."""
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        code = (
            "import numpy as np\nopen('imported', 'w').close()\n"
            "def feeds():\n    for row in np.load('data.npy'):\n        yield {'x': row[None]}\n"
        )
        (folder / "my_loader.py").write_text(code, encoding="utf-8")
        yield folder
        sys.modules.pop("my_loader", None)

    @pytest.fixture
    def cache(self, module: Path) -> Path:
        result = trtcalib.calibrate("model.onnx", "my_loader:feeds", "minmax", max_samples=30, batch_size=8)
        result.write_cache("function.cache")
        sys.modules.pop("my_loader")
        (module / "imported").unlink()
        return module / "function.cache"

    def test_are_not_run_unless_they_are_given_again(self, cache: Path, module: Path) -> None:
        assert statuses(cache) == {**ALL_SAME, "data": "unknown"}
        assert detail(cache, "data") == "my_loader:feeds is no file; give it with --data to read it again"
        assert not (module / "imported").exists()

    def test_same_and_changed(self, cache: Path, module: Path) -> None:
        assert statuses(cache, data="my_loader:feeds") == ALL_SAME
        np.save(module / "data.npy", VALUES[::-1])
        assert statuses(cache, data="my_loader:feeds") == {**ALL_SAME, "data": "changed"}

    def test_that_raise(self, cache: Path, module: Path) -> None:
        (module / "data.npy").unlink()
        assert statuses(cache, data="my_loader:feeds")["data"] == "unknown"
        assert "sample 0: the function raised FileNotFoundError" in detail(cache, "data", data="my_loader:feeds")

    @pytest.mark.parametrize("path", ["my_loader:feeds", "./my_loader:feeds", "evil.yaml"])
    def test_a_manifest_never_makes_code_run(self, module: Path, path: str) -> None:
        (module / "evil.yaml").write_text("source: 'my_loader:feeds'\n", encoding="utf-8")
        cache = module / "npy.cache"
        edit(cache, data__path=path, data__is_path=True)
        assert statuses(cache)["data"] in ("unknown", "changed")
        assert not (module / "imported").exists()
        assert "my_loader" not in sys.modules

    def test_a_manifest_beside_a_file_system_root_runs_nothing_either(self, module, monkeypatch) -> None:
        """The resolved path could only be a bare name if there were no folder in it; code is refused all the same."""
        edit(module / "npy.cache", data__path="my_loader:feeds", data__is_path=True)
        monkeypatch.setattr("trtcalib.verification.with_absolute_paths", lambda provenance, folder: provenance)
        assert statuses(module / "npy.cache")["data"] == "unknown"
        assert "my_loader" not in sys.modules


def test_skipped_images_are_skipped_again(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for index in range(3):
        Image.new("RGB", (8, 8), (index, 2, 3)).save(tmp_path / "images" / f"{index}.png")
    (tmp_path / "images" / "bad.png").write_bytes(b"")
    (tmp_path / "data.yaml").write_text("source: images\ninputs: {pixels: {scale: 1/255}}\n", encoding="utf-8")
    text = "image (float[N, 3, 8, 8] pixels) => (float[N, 3, 8, 8] y) { y = Relu(pixels) }"
    model = save_model(tmp_path / "model.onnx", text)
    result = trtcalib.calibrate(model, tmp_path / "data.yaml", "minmax", skip_bad_images=True)
    result.write_cache(tmp_path / "out.cache")
    assert statuses(tmp_path / "out.cache") == ALL_SAME
