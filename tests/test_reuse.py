"""A calibration cache is used again only where it was made from the same things."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trtcalib
from tests.models import DENSE, save_model
from tests.trt.fakes import FACTS
from trtcalib.batches import Batching, plan_batches
from trtcalib.cache_tools.edits import set_in_cache
from trtcalib.engine_facts import CalibrationFacts, cache_manifest
from trtcalib.files import write_files
from trtcalib.manifest import manifest_path, read_manifest
from trtcalib.onnx_graph import ModelGraph, read_model
from trtcalib.provenance import batching_facts, data_facts, model_facts
from trtcalib.reuse import Reuse, Wanted, find_reusable
from trtcalib.samples.sources import open_source
from trtcalib.specs import load_recipe

HEADER = "TRT-101601-EntropyCalibration2"
CONTENT = f"{HEADER}\nx: 3c010a14\n".encode()
SHAPES = {"x": (4, 3)}


@dataclass(frozen=True)
class Asked:
    """What a build asks for; every field decides the scales."""

    folder: Path
    data: Any = "data.npy"
    model: str = "model.onnx"
    recipe: str = "entropy"
    header: str = HEADER
    batch_size: int = 4
    max_samples: int | None = 10
    shuffle: int | None = 1
    drop_last: bool = True
    shapes: dict[str, tuple[int, ...]] | None = None
    tf32: bool = False
    skip_bad_images: bool = False

    @property
    def graph(self) -> ModelGraph:
        return read_model(self.folder / self.model)

    def wanted(self) -> Wanted:
        data = self.folder / self.data if isinstance(self.data, str) else self.data
        batching = Batching(
            batch_size=self.batch_size, max_samples=self.max_samples, shuffle=self.shuffle, drop_last=self.drop_last
        )
        return Wanted(
            batches=plan_batches(open_source(data, self.graph.inputs), None, batching),
            recipe=load_recipe(self.recipe),
            header=self.header,
            shapes=self.shapes,
            tf32=self.tf32,
            skip_bad_images=self.skip_bad_images,
        )

    def find(self) -> Reuse:
        return find_reusable(self.folder / "x.cache", self.graph, self.wanted())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "model.onnx", DENSE)
    save_model(tmp_path / "other.onnx", DENSE.replace("Relu", "Tanh"))
    values = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    np.save(tmp_path / "data.npy", values)
    np.save(tmp_path / "other.npy", values + 1)
    return tmp_path


@pytest.fixture(params=["tensorrt", "trtcalib"])
def asked(request: pytest.FixtureRequest, folder: Path) -> Asked:
    """What a cache that stands there was made from: by TensorRT, or on the CPU."""
    path = folder / "x.cache"
    if request.param == "trtcalib":
        asked = Asked(folder)
        trtcalib.calibrate(
            folder / asked.model,
            folder / asked.data,
            asked.recipe,
            batch_size=asked.batch_size,
            max_samples=asked.max_samples,
            shuffle=asked.shuffle,
            drop_last=asked.drop_last,
        ).write_cache(path, tensorrt_version="10.16.1")
        return asked
    asked = Asked(folder, shapes=SHAPES)
    wanted = asked.wanted()
    list(wanted.batches.runs())
    facts = CalibrationFacts(
        model=model_facts(asked.graph),
        data=data_facts(folder / asked.data, wanted.batches),
        batching=batching_facts(wanted.batches, skip_bad_images=False),
        recipe=load_recipe(asked.recipe),
        shapes=SHAPES,
        tf32=asked.tf32,
        device=FACTS,
    )
    path.write_bytes(CONTENT)
    manifest_path(path).write_text(cache_manifest(facts, path, CONTENT, []).model_dump_json(), encoding="utf-8")
    return asked


class TestTheSame:
    def test_is_used_again(self, asked: Asked) -> None:
        found = asked.find()
        assert found.differences == ()
        assert found.content == (asked.folder / "x.cache").read_bytes()
        assert found.manifest == read_manifest(asked.folder / "x.cache.json")

    def test_also_under_other_names(self, asked: Asked) -> None:
        """Content decides, not where it stands."""
        (asked.folder / "model.onnx").rename(asked.folder / "renamed.onnx")
        (asked.folder / "data.npy").rename(asked.folder / "renamed.npy")
        assert replace(asked, model="renamed.onnx", data="renamed.npy").find().content is not None

    def test_the_data_are_not_read(self, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
        wanted = asked.wanted()
        monkeypatch.setattr(wanted.batches.source, "samples", None)
        assert find_reusable(asked.folder / "x.cache", asked.graph, wanted).content is not None


class TestOneDifference:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"model": "other.onnx"}, "the model is another one"),
            ({"data": "other.npy"}, "the data, or their preparation, are other ones"),
            (
                {"header": "TRT-8601-EntropyCalibration2"},
                "its first line is 'TRT-101601-EntropyCalibration2', TensorRT here takes 'TRT-8601-EntropyCalibration2'",
            ),
            ({"batch_size": 2}, "batch size was 4, now 2"),
            ({"max_samples": 9}, "max_samples was 10, now 9"),
            ({"max_samples": None}, "max_samples was 10, now None"),
            ({"shuffle": 2}, "shuffle was 1, now 2"),
            ({"shuffle": None}, "shuffle was 1, now None"),
            ({"drop_last": False}, "drop_last was True, now False"),
            ({"skip_bad_images": True}, "skip_bad_images was False, now True"),
        ],
    )
    def test_is_told_and_forbids(self, asked: Asked, change: dict[str, Any], said: str) -> None:
        found = replace(asked, **change).find()
        assert found.content is None
        assert found.differences == (said,)
        assert found.manifest is not None

    def test_of_the_recipe(self, asked: Asked) -> None:
        changed = replace(asked, recipe="percentile-99.9")
        (said,) = changed.find().differences
        was = "{'range': 'doubling', 'bins': 2048, 'method': 'entropy', 'variant': 'tensorrt'}"
        now = "{'range': 'doubling', 'bins': 2048, 'method': 'percentile', 'percentile': 99.9}"
        assert said == f"recipe was {was}, now {now}"

    def test_a_function_may_give_anything(self, asked: Asked) -> None:
        def feeds():
            raise AssertionError("it must not be called")

        found = replace(asked, data=feeds, shuffle=None).find()
        assert (
            found.differences[0] == "the data come from a function, and only running it tells whether they are the same"
        )

    def test_the_file_itself(self, asked: Asked) -> None:
        path = asked.folder / "x.cache"
        path.write_bytes(path.read_bytes() + b"z: 3f800000\n")
        assert asked.find().differences == ("it was changed after its manifest was written",)

    def test_several_are_told_together(self, asked: Asked) -> None:
        found = replace(asked, model="other.onnx", batch_size=2, shuffle=None).find()
        assert found.differences == ("the model is another one", "batch size was 4, now 2", "shuffle was 1, now None")


class TestWhoCalibrated:
    @pytest.mark.parametrize("asked", ["tensorrt"], indirect=True)
    def test_by_tensorrt_and_wanted_from_the_cpu(self, asked: Asked) -> None:
        (said,) = replace(asked, shapes=None).find().differences
        assert said == "its scales were chosen by TensorRT itself, this build wants trtcalib on the CPU"

    @pytest.mark.parametrize("asked", ["trtcalib"], indirect=True)
    def test_by_the_cpu_and_wanted_from_tensorrt(self, asked: Asked) -> None:
        found = replace(asked, shapes=SHAPES).find()
        assert found.differences == (
            "its scales were chosen by trtcalib on the CPU, this build wants TensorRT itself",
            "shapes was None, now {'x': [4, 3]}",
            "tf32 was None, now False",
        )

    @pytest.mark.parametrize("asked", ["tensorrt"], indirect=True)
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"shapes": {"x": (4, 4)}}, "shapes was {'x': [4, 3]}, now {'x': [4, 4]}"),
            ({"shapes": {"y": (4, 3)}}, "shapes was {'x': [4, 3]}, now {'y': [4, 3]}"),
            ({"tf32": True}, "tf32 was False, now True"),
        ],
    )
    def test_what_only_tensorrt_depends_on(self, asked: Asked, change: dict[str, Any], said: str) -> None:
        assert replace(asked, **change).find().differences == (said,)

    @pytest.mark.parametrize("asked", ["trtcalib"], indirect=True)
    def test_tf32_does_not_touch_the_cpu(self, asked: Asked) -> None:
        assert replace(asked, tf32=True).find().content is not None


class TestNoAnswer:
    def test_nothing_stands_there(self, folder: Path) -> None:
        assert Asked(folder).find() == Reuse(None)

    def test_an_empty_file(self, folder: Path) -> None:
        (folder / "x.cache").touch()
        assert Asked(folder).find() == Reuse(None, ("it is empty",))

    def test_a_cache_without_a_manifest(self, folder: Path) -> None:
        (folder / "x.cache").write_bytes(CONTENT)
        said = f"its manifest {folder / 'x.cache.json'} tells nothing: no such file: a cache that trtcalib wrote has its manifest beside it"
        assert Asked(folder).find() == Reuse(None, (said,))

    def test_a_manifest_that_is_damaged(self, asked: Asked) -> None:
        path = asked.folder / "x.cache.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        content["schema_version"] = 2
        path.write_text(json.dumps(content), encoding="utf-8")
        said = f"its manifest {path} tells nothing: schema_version: Input should be 1"
        assert asked.find() == Reuse(None, (said,))

    def test_something_that_is_no_cache(self, asked: Asked) -> None:
        (asked.folder / "x.cache").write_bytes(b"hello\n")
        (said,) = asked.find().differences
        assert said.startswith("it is no calibration cache: ")

    @pytest.mark.parametrize(
        ("number", "text"), [(errno.EACCES, "Permission denied"), (errno.EIO, "Input/output error")]
    )
    def test_a_file_that_cannot_be_read(self, asked: Asked, monkeypatch, number: int, text: str) -> None:
        read: Callable[[Path], bytes] = Path.read_bytes

        def refuse(path: Path) -> bytes:
            if path.name == "x.cache":
                raise OSError(number, text)
            return read(path)

        monkeypatch.setattr(Path, "read_bytes", refuse)
        assert asked.find() == Reuse(None, (f"it cannot be read: {text}",))

    def test_a_folder(self, folder: Path) -> None:
        (folder / "x.cache").mkdir()
        assert Asked(folder).find() == Reuse(None, ("it cannot be read: Is a directory",))


def test_a_cache_that_was_edited_is_not_what_the_recipe_made(folder: Path) -> None:
    path = folder / "x.cache"
    asked = Asked(folder)
    trtcalib.calibrate(
        folder / "model.onnx", folder / "data.npy", batch_size=4, max_samples=10, shuffle=1, drop_last=True
    ).write_cache(path)
    assert asked.find().content is not None
    write_files(set_in_cache(path, {"x": np.float32(2.0)}, path).files)
    found = asked.find()
    assert (found.content, found.differences) == (None, ("some of its scales were edited with trtcalib cache set",))
