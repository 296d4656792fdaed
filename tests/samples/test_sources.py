"""Where samples come from: files, folders, arrays, functions; what fits the model, and what each misfit says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trtcalib.errors import DataError, SpecError
from trtcalib.onnx_graph import ModelInput
from trtcalib.samples.feeds import DataSource, check_feed
from trtcalib.samples.preparation import prepare
from trtcalib.samples.sources import open_source
from trtcalib.specs import InputSpec

F32 = np.dtype(np.float32)
I64 = np.dtype(np.int64)

X = [ModelInput("x", F32, (None, 3))]
FIXED = [ModelInput("x", F32, (4, 3))]
PIXELS = [ModelInput("pixels", F32, (None, 3, 8, 8))]
TWO = [ModelInput("x", F32, (None, 3)), ModelInput("ids", I64, (None, 2))]

VALUES = np.arange(15, dtype=np.float32).reshape(5, 3)


def feeds(source: DataSource, order=None) -> list:
    return [sample.load() for sample in source.samples(order)]


def labels(source: DataSource, order=None) -> list[str]:
    return [sample.label for sample in source.samples(order)]


def refusal(data, inputs=X, **options) -> str:
    """What opening and reading the data says."""
    with pytest.raises(DataError) as caught:
        feeds(open_source(data, inputs, **options))
    return str(caught.value)


def write_yaml(folder: Path, text: str) -> Path:
    path = folder / "data.yaml"
    path.write_text(text, encoding="utf-8")
    return path


class TestArrays:
    def test_rows_of_an_array(self) -> None:
        source = open_source(VALUES, X)
        assert (source.name, source.whole, source.size()) == ("<arrays>", False, 5)
        assert labels(source) == ["0", "1", "2", "3", "4"]
        np.testing.assert_array_equal([feed["x"] for feed in feeds(source)], VALUES[:, np.newaxis])

    def test_another_order(self) -> None:
        source = open_source(VALUES, X)
        assert labels(source, [3, 1]) == ["3", "1"]
        np.testing.assert_array_equal(feeds(source, [3, 1])[0]["x"], VALUES[3:4])

    def test_every_pass_starts_anew(self) -> None:
        source = open_source(VALUES, X)
        np.testing.assert_array_equal(feeds(source)[0]["x"], feeds(source)[0]["x"])

    def test_fortran_order(self) -> None:
        feed = feeds(open_source(np.asfortranarray(VALUES), X))[2]
        assert feed["x"].flags.c_contiguous
        np.testing.assert_array_equal(feed["x"], VALUES[2:3])

    def test_lists_become_arrays(self) -> None:
        inputs = [ModelInput("x", I64, (None, 2))]
        np.testing.assert_array_equal(feeds(open_source({"x": [[1, 2], [3, 4]]}, inputs))[1]["x"], [[3, 4]])

    @pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int64", "int32", "uint8", "bool"])
    def test_every_dtype_of_an_input(self, dtype: str) -> None:
        inputs = [ModelInput("x", np.dtype(dtype), (None, 3))]
        values = VALUES.astype(dtype)
        feed = feeds(open_source(values, inputs))[1]
        assert feed["x"].dtype == dtype
        np.testing.assert_array_equal(feed["x"], values[1:2])

    def test_a_single_array_may_have_any_name_when_the_model_has_one_input(self) -> None:
        np.testing.assert_array_equal(feeds(open_source({"images": VALUES}, X))[0]["x"], VALUES[:1])

    def test_several_inputs_by_name_and_unneeded_arrays(self) -> None:
        arrays = {"labels": np.arange(5), "ids": np.ones((5, 2), np.int64), "x": VALUES}
        feed = feeds(open_source(arrays, TWO))[4]
        assert set(feed) == {"x", "ids"}
        np.testing.assert_array_equal(feed["x"], VALUES[4:])

    def test_one_axis_more_gives_whole_feeds(self) -> None:
        source = open_source(VALUES.reshape(1, 5, 3), X)
        assert (source.whole, source.size()) == (True, 1)
        np.testing.assert_array_equal(feeds(source)[0]["x"], VALUES)

    def test_whole_feeds_of_a_fixed_batch(self) -> None:
        source = open_source(np.zeros((2, 4, 3), np.float32), FIXED)
        assert source.whole
        assert feeds(source)[1]["x"].shape == (4, 3)

    def test_rows_of_a_fixed_batch(self) -> None:
        source = open_source(VALUES, FIXED)
        assert not source.whole
        assert feeds(source)[1]["x"].shape == (1, 3)

    def test_an_input_without_axes(self) -> None:
        inputs = [ModelInput("s", F32, ()), *X]
        arrays = {"s": np.arange(5, dtype=np.float32), "x": VALUES}
        source = open_source(arrays, inputs)
        assert not source.whole
        feed = feeds(source)[3]
        assert feed["s"].shape == ()
        assert feed["s"] == 3
        assert feeds(open_source(arrays["s"], inputs[:1]))[4]["s"].shape == ()

    def test_an_input_whose_rank_is_not_stated(self) -> None:
        source = open_source(VALUES, [ModelInput("x", F32, None)])
        np.testing.assert_array_equal(feeds(source)[1]["x"], VALUES[1:2])

    def test_the_arrays_are_not_changed(self) -> None:
        values = VALUES.copy()
        feeds(open_source(values, X))
        np.testing.assert_array_equal(values, VALUES)

    @pytest.mark.parametrize(
        ("data", "inputs", "reason"),
        [
            (VALUES.astype(np.float64), X, "sample 0: input 'x' is float64, the model takes float32: convert it with .astype(numpy.float32), or state dtype: float32 in a dataset YAML"),
            (VALUES.astype(">f4"), X, "sample 0: input 'x' is >f4, the model takes float32: convert it with .astype(numpy.float32), or state dtype: float32 in a dataset YAML"),
            (VALUES[:, :2], X, "sample 0: input 'x' has shape (1, 2), the model takes [?, 3]"),
            (VALUES[0], X, "input 'x' got an array of shape (3,); expected [?, 3] with samples along the first axis, or one axis more with whole feeds along it"),
            (np.zeros((1, 1, 5, 3), np.float32), X, "input 'x' got an array of shape (1, 1, 5, 3); expected [?, 3] with samples along the first axis, or one axis more with whole feeds along it"),
            (np.zeros((2, 1, 3), np.float32), FIXED, "sample 0: input 'x' has shape (1, 3), the model takes [4, 3]"),
            (np.zeros((2, 5, 3), np.float32), FIXED, "sample 0: input 'x' has shape (5, 3), the model takes [4, 3]"),
            (VALUES[:0], X, "the data are empty: there is no sample to calibrate on"),
            (np.array(3.0), X, "array 'x' is a single number; its first axis must count samples"),
            (np.array([[None]]), X, "array 'x' holds Python objects, expected numbers"),
            (np.array([["a"]]), X, "array 'x' holds <U1, expected numbers or booleans"),
            (VALUES.astype(complex), X, "array 'x' holds complex128, expected numbers or booleans"),
            ({}, X, "no array for input 'x'; found none, the model needs 'x'"),
            ({"a": VALUES, "b": VALUES}, X, "no array for input 'x'; found 'a', 'b', the model needs 'x'"),
            ({"x": VALUES}, TWO, "no array for input 'ids'; found 'x', the model needs 'x', 'ids'"),
            (VALUES, TWO, "no array for input 'x'; found '', the model needs 'x', 'ids'"),
            ({"x": VALUES, "ids": np.ones((4, 2), np.int64)}, TWO, "the arrays have different numbers of samples ('x': 5, 'ids': 4)"),
        ],
    )  # fmt: skip
    def test_what_does_not_fit(self, data, inputs, reason: str) -> None:
        assert refusal(data, inputs) == f"<arrays>: {reason}"

    def test_lists_of_unequal_length(self) -> None:
        assert refusal({"x": [[1.0, 2], [3]]}).startswith(
            "<arrays>: input 'x' cannot be made an array: setting an array element"
        )

    def test_rows_of_a_fixed_batch_beside_an_input_without_a_batch_axis(self) -> None:
        inputs = [*FIXED, ModelInput("s", F32, ())]
        reason = (
            "input 'x' got single rows of its fixed batch, but input 's' whole feeds: "
            "give whole feeds for all inputs (one axis more, samples along the first)"
        )
        assert refusal({"x": VALUES, "s": np.ones(5, np.float32)}, inputs) == f"<arrays>: {reason}"
        whole = {"x": np.zeros((2, 4, 3), np.float32), "s": np.ones(2, np.float32)}
        assert feeds(open_source(whole, inputs))[1]["s"].shape == ()


class TestOtherObjects:
    @pytest.mark.parametrize("data", [None, 3, 1.5, b"data.npz", bytearray(b"x"), np.float32(3)])
    def test_are_refused(self, data) -> None:
        expected = "expected a path, arrays, a sequence of feeds or a function"
        assert refusal(data) == f"<data>: found {type(data).__name__}, {expected}"

    @pytest.mark.parametrize(
        ("data", "kind"),
        [
            (({"x": VALUES} for _ in range(3)), "generator"),
            (iter([{"x": VALUES}]), "list_iterator"),
            (map(dict, []), "map"),
        ],
    )
    def test_a_generator_can_be_read_only_once(self, data, kind: str) -> None:
        reason = (
            f"found a {kind}, which can be read only once, and calibration reads the data more than once: "
            "give the function that makes it, or a list"
        )
        assert refusal(data) == f"<data>: {reason}"


class TestFiles:
    def test_npy_stays_on_disk(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", VALUES)
        source = open_source(tmp_path / "a.npy", X)
        assert (source.name, source.size()) == (str(tmp_path / "a.npy"), 5)
        assert all(type(array) is np.memmap for array in source._arrays.values())
        np.testing.assert_array_equal([feed["x"] for feed in feeds(source)], VALUES[:, np.newaxis])

    def test_a_sample_of_a_mapped_array_is_no_copy(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", VALUES)
        source = open_source(tmp_path / "a.npy", X)
        assert np.shares_memory(feeds(source)[1]["x"], source._arrays["x"])

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_npz(self, tmp_path: Path, save) -> None:
        save(tmp_path / "a.npz", x=VALUES, ids=np.ones((5, 2), np.int64), labels=np.arange(3))
        source = open_source(str(tmp_path / "a.npz"), TWO)
        assert all(type(array) is np.memmap for array in source._arrays.values())
        assert feeds(source)[4]["ids"].dtype == np.int64

    def test_npz_with_one_array_of_any_name(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", VALUES)
        np.testing.assert_array_equal(feeds(open_source(tmp_path / "a.npz", X))[0]["x"], VALUES[:1])

    def test_npz_without_arrays(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz")
        assert (
            refusal(tmp_path / "a.npz")
            == f"{tmp_path / 'a.npz'}: no array for input 'x'; found none, the model needs 'x'"
        )

    @pytest.mark.parametrize(("name", "kind"), [("a.csv", ".csv"), ("a", "nameless"), ("a.pt", ".pt")])
    def test_other_types(self, tmp_path: Path, name: str, kind: str) -> None:
        (tmp_path / name).touch()
        expected = f"found a {kind} file, expected .npz, .npy, .yaml or a folder of images"
        assert refusal(tmp_path / name) == f"{tmp_path / name}: {expected}"

    @pytest.mark.parametrize("name", ["no.npz", "no.yaml", "no/", "a" * 5000, "a:b:c", "a-b:c", "a: b", "1a:b"])
    def test_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.chdir(tmp_path)
        expected = "expected a .npz, a .npy, a dataset .yaml, a folder of images or module:function"
        assert refusal(name) == f"{name}: no such file or folder; {expected}"

    def test_a_pipe(self, tmp_path: Path) -> None:
        if not hasattr(os, "mkfifo"):
            pytest.skip("no named pipes here")
        os.mkfifo(tmp_path / "a.npz")
        assert refusal(tmp_path / "a.npz") == f"{tmp_path / 'a.npz'}: is no regular file"


class TestDatasets:
    def test_paths_are_relative_to_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "sub").mkdir()
        np.save(tmp_path / "sub" / "a.npy", VALUES)
        np.save(tmp_path / "sub" / "labels.npy", np.arange(5))
        path = write_yaml(tmp_path, "source: sub/a.npy\nlabels: sub/labels.npy\ninputs: {x: {scale: 2}}\n")
        monkeypatch.chdir(tmp_path / "sub")
        np.testing.assert_array_equal(feeds(open_source("../data.yaml", X))[1]["x"], VALUES[1:2] * 2)
        assert open_source(path, X).size() == 5

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("source: no.npy", "source: 'no.npy' does not exist beside this file"),
            (f"source: {'a' * 5000}", f"source: '{'a' * 5000}' does not exist beside this file"),
            (
                "source: 'os:getcwd'",
                "source: 'os:getcwd' does not exist beside this file; a YAML file cannot name code to run",
            ),
            ("source: a.npy\nlabels: no.npy", "labels: 'no.npy' does not exist beside this file"),
            ("source: a.npy\nlabels: sub", "labels: 'sub' does not exist beside this file"),
            ("source: a.npy\ninputs: {y: {scale: 2}}", "inputs.y: the model has no such input; it has x"),
        ],
    )
    def test_what_is_missing(self, tmp_path: Path, text: str, reason: str) -> None:
        np.save(tmp_path / "a.npy", VALUES)
        (tmp_path / "sub").mkdir()
        path = write_yaml(tmp_path, text)
        assert refusal(path) == f"{path}: {reason}"

    @pytest.mark.parametrize("key", ["resize: 8", "crop: [4, 4]", "resize: [8, 8]"])
    def test_resize_and_crop_are_for_images(self, tmp_path: Path, key: str) -> None:
        np.save(tmp_path / "a.npy", VALUES)
        path = write_yaml(tmp_path, f"source: a.npy\ninputs: {{x: {{{key}}}}}")
        expected = "inputs.x: resize and crop are for folders of images, not for arrays"
        assert refusal(path) == f"{tmp_path / 'a.npy'}: {expected}"

    def test_faults_of_the_file_itself(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="sourc: unknown key"):
            open_source(write_yaml(tmp_path, "sourc: a"), X)

    def test_a_yaml_never_names_code(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not through a source that is a YAML itself, and not through a module beside it."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "evil.py").write_text("open('made', 'w')\ndef feeds(): return []\n", encoding="utf-8")
        (tmp_path / "inner.yaml").write_text("source: 'evil:feeds'\n", encoding="utf-8")
        for source in ("'evil:feeds'", "inner.yaml", "evil.py"):
            with pytest.raises(DataError):
                open_source(write_yaml(tmp_path, f"source: {source}"), X)
        assert not (tmp_path / "made").exists()
        assert "evil" not in sys.modules

    def test_the_dtype_is_cast(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", VALUES.astype(np.uint8))
        path = write_yaml(tmp_path, "source: a.npy\ninputs: {x: {dtype: float32}}")
        np.testing.assert_array_equal(feeds(open_source(path, X))[1]["x"], VALUES[1:2])


class TestPrepare:
    def prepare(self, values, **spec) -> np.ndarray:
        return prepare(np.asarray(values), InputSpec(**spec), "data", "7")

    def test_a_fraction_divides_exactly(self) -> None:
        pixels = np.arange(256, dtype=np.uint8)
        found = self.prepare(pixels, scale="1/255")
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, pixels.astype(np.float32) / np.float32(255))
        assert (found != pixels.astype(np.float32) * np.float32(1 / 255)).any()

    def test_other_scales(self) -> None:
        np.testing.assert_array_equal(self.prepare([1, 2], scale=0.1), np.array([1, 2], np.float32) * np.float32(0.1))
        np.testing.assert_array_equal(self.prepare([1, 2], scale="0.5"), np.array([0.5, 1], np.float32))
        np.testing.assert_array_equal(self.prepare([255], scale="2/127.5"), np.array([4], np.float32))

    @pytest.mark.parametrize(("layout", "shape"), [("chw", (1, 3, 1, 1)), ("hwc", (1, 1, 1, 3))])
    def test_scale_then_mean_then_std_per_channel_in_float32(self, layout: str, shape: tuple[int, ...]) -> None:
        size = (1, 3, 4, 5) if layout == "chw" else (1, 4, 5, 3)
        pixels = np.random.default_rng(0).integers(0, 256, size, np.uint8)
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        expected = pixels.astype(np.float32) / np.float32(255)
        expected = (expected - np.array(mean, np.float32).reshape(shape)) / np.array(std, np.float32).reshape(shape)
        found = self.prepare(pixels, layout=layout, scale="1/255", mean=mean, std=std)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)

    def test_one_number_for_all_channels(self) -> None:
        found = self.prepare(np.full((1, 3, 2, 2), 6, np.uint8), mean=[2], std=[4])
        np.testing.assert_array_equal(found, np.ones((1, 3, 2, 2), np.float32))

    @pytest.mark.parametrize("key", ["mean", "std"])
    def test_a_wrong_number_of_channels(self, key: str) -> None:
        with pytest.raises(DataError, match=r"^data: mean and std need 1 or 3 numbers for 3 channels, got 2$"):
            self.prepare(np.zeros((1, 3, 2, 2)), **{key: [1, 2]})

    def test_nothing_asked_for_changes_nothing(self) -> None:
        values = np.arange(3, dtype=np.int16)
        assert self.prepare(values) is values

    @pytest.mark.parametrize(
        ("values", "dtype", "shown"),
        [([1.0, np.nan], "int64", "nan"), ([np.inf], "int32", "inf"), ([300], "uint8", "300"), ([-1], "uint8", "-1")],
    )
    def test_a_value_that_an_integer_cannot_hold(self, values: list, dtype: str, shown: str) -> None:
        with pytest.raises(DataError, match=rf"^data: sample 7: the value .*{shown}.* does not fit dtype {dtype}$"):
            self.prepare(values, dtype=dtype)

    @pytest.mark.parametrize(
        ("values", "dtype"), [([True, False], "uint8"), ([0, 1], "bool"), ([1.9, -1.9], "int8"), ([1e39], "float32")]
    )
    def test_other_casts_are_numpys_without_a_warning(self, values: list, dtype: str) -> None:
        with np.errstate(all="ignore"):
            expected = np.array(values).astype(dtype)
        found = self.prepare(values, dtype=dtype)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)


class TestImageFolders:
    YAML = "source: images\ninputs:\n  pixels: {resize: [8, 8], scale: 1/255}\n"

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "images"
        (folder / "b").mkdir(parents=True)
        for index, name in enumerate(["z.png", "b/a.png", "a.png"]):
            Image.new("RGB", (10, 9), (index * 50, 100, 200)).save(folder / name)
        write_yaml(tmp_path, self.YAML)
        return folder

    def test_images_in_the_order_of_their_names(self, tmp_path: Path, folder: Path) -> None:
        source = open_source(tmp_path / "data.yaml", PIXELS)
        assert (source.name, source.whole, source.size()) == (str(folder), False, 3)
        assert labels(source) == ["a.png", "b/a.png", "z.png"]
        first = feeds(source)[0]["pixels"]
        assert (first.shape, first.dtype) == ((1, 3, 8, 8), np.float32)
        np.testing.assert_array_equal(first[0, :, 0, 0], np.array([100, 100, 200], np.float32) / np.float32(255))

    def test_another_order(self, tmp_path: Path, folder: Path) -> None:
        source = open_source(tmp_path / "data.yaml", PIXELS)
        assert labels(source, [2, 0]) == ["z.png", "a.png"]
        assert feeds(source, [2, 0])[0]["pixels"][0, 0, 0, 0] == 0

    def test_without_a_dtype_the_models_own_is_made(self, tmp_path: Path, folder: Path) -> None:
        write_yaml(tmp_path, "source: images\ninputs: {pixels: {resize: [8, 8]}}")
        inputs = [ModelInput("pixels", np.dtype(np.uint8), (None, 3, 8, 8))]
        assert feeds(open_source(tmp_path / "data.yaml", inputs))[0]["pixels"].dtype == np.uint8

    def test_a_stated_dtype_is_kept_and_checked(self, tmp_path: Path, folder: Path) -> None:
        path = write_yaml(tmp_path, "source: images\ninputs: {pixels: {resize: [8, 8], dtype: uint8}}")
        assert refusal(path, PIXELS).startswith(
            f"{folder}: sample a.png: input 'pixels' is uint8, the model takes float32"
        )

    def test_a_wrong_size_names_the_image(self, tmp_path: Path, folder: Path) -> None:
        path = write_yaml(tmp_path, "source: images\ninputs: {pixels: {scale: 1/255}}")
        expected = "input 'pixels' has shape (1, 3, 9, 10), the model takes [?, 3, 8, 8]"
        assert refusal(path, PIXELS) == f"{folder}: sample a.png: {expected}"

    def test_a_folder_alone_does_not_say_how_to_prepare_it(self, folder: Path) -> None:
        message = refusal(folder, PIXELS)
        assert message.startswith(f"{folder}: a folder of images needs to be told how to prepare input 'pixels'; ")
        assert message.endswith(
            "source: images/\ninputs:\n  pixels: {resize: [224, 224], scale: 1/255, dtype: float32}"
        )

    def test_several_inputs_need_an_npz(self, tmp_path: Path, folder: Path) -> None:
        path = write_yaml(tmp_path, "source: images")
        assert refusal(path, TWO) == f"{folder}: a folder of images feeds one input, the model has 2: use a .npz"

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        (tmp_path / "images").mkdir()
        path = write_yaml(tmp_path, self.YAML)
        assert refusal(path, PIXELS) == f"{tmp_path / 'images'}: the folder holds no image that can be read"

    def test_a_bad_image_is_named(self, tmp_path: Path, folder: Path) -> None:
        (folder / "b" / "bad.png").write_bytes(b"hello")
        message = refusal(tmp_path / "data.yaml", PIXELS)
        assert message.startswith(f"{folder}: sample b/bad.png: the image cannot be decoded: ")

    def test_bad_images_can_be_skipped_and_are_counted(self, tmp_path: Path, folder: Path) -> None:
        (folder / "b" / "bad.png").write_bytes(b"hello")
        (folder / "0.jpg").write_bytes(b"")
        source = open_source(tmp_path / "data.yaml", PIXELS, skip_bad_images=True)
        assert source.skipped == ["0.jpg", "b/bad.png"]
        assert labels(source) == ["a.png", "b/a.png", "z.png"]
        assert len(feeds(source)) == source.size() == 3

    def test_skipping_all_images(self, tmp_path: Path) -> None:
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "a.png").write_bytes(b"")
        path = write_yaml(tmp_path, self.YAML)
        assert refusal(path, PIXELS, skip_bad_images=True).endswith(": the folder holds no image that can be read")

    def test_the_digest_covers_names_bytes_and_preparation(self, tmp_path: Path, folder: Path) -> None:
        path = tmp_path / "data.yaml"

        def digest(inputs=PIXELS) -> str:
            return open_source(path, inputs).sha256()

        first = digest()
        assert digest() == first
        write_yaml(tmp_path, self.YAML + "# a comment\n")
        assert digest() == first
        write_yaml(tmp_path, self.YAML.replace("1/255", "1/256"))
        assert digest() != first
        write_yaml(tmp_path, self.YAML)
        (folder / "a.png").rename(folder / "0.png")
        assert digest() != first
        (folder / "0.png").rename(folder / "a.png")
        assert digest() == first
        Image.new("RGB", (10, 9), (1, 2, 3)).save(folder / "a.png")
        assert digest() != first


class TestFunctions:
    def test_feeds_are_split_where_the_batch_is_free(self) -> None:
        def function():
            yield {"x": VALUES[:2]}
            yield {"x": VALUES[2:3]}
            yield {"x": VALUES[3:]}

        source = open_source(function, X)
        assert source.name.endswith("function")
        assert (source.whole, source.size()) == (False, None)
        assert labels(source) == ["0", "1", "2", "3", "4"]
        np.testing.assert_array_equal([feed["x"] for feed in feeds(source)], VALUES[:, np.newaxis])

    def test_feeds_are_whole_where_the_batch_is_fixed(self) -> None:
        source = open_source(lambda: [{"x": VALUES[:4]}, {"x": VALUES[1:]}], FIXED)
        assert source.whole
        assert labels(source) == ["0", "1"]
        np.testing.assert_array_equal(feeds(source)[1]["x"], VALUES[1:])

    def test_feeds_are_whole_where_an_input_has_no_axes(self) -> None:
        source = open_source([{"x": VALUES, "s": np.float32(2)}], [*X, ModelInput("s", F32, ())])
        assert source.whole
        feed = feeds(source)[0]
        assert feed["s"].shape == ()
        assert feed["x"].shape == (5, 3)

    def test_a_sequence_of_feeds(self) -> None:
        source = open_source([{"x": VALUES[:1]}, {"x": VALUES[1:2]}], X)
        assert source.name == "<sequence>"
        assert len(feeds(source)) == len(feeds(source)) == 2

    def test_a_rank_that_is_not_stated(self) -> None:
        inputs = [ModelInput("x", F32, None)]
        assert len(feeds(open_source([{"x": VALUES}], inputs))) == 5
        assert feeds(open_source([{"x": np.float32(1)}], inputs))[0]["x"].shape == ()

    def test_is_called_again_for_each_pass_and_read_lazily(self) -> None:
        calls = []

        def function():
            for index in range(3):
                calls.append(index)
                yield {"x": VALUES[index : index + 1]}

        source = open_source(function, X)
        next(source.samples(None))
        assert calls == [0]
        feeds(source)
        assert calls == [0, 0, 1, 2]

    def test_an_object_with_getitem_only(self) -> None:
        class Dataset:
            def __getitem__(self, index: int):
                return {"x": VALUES[index : index + 1]} if index < 5 else VALUES[index]

        assert len(feeds(open_source(Dataset, X))) == 5

    def test_has_no_random_order(self) -> None:
        source = open_source([{"x": VALUES}], X)
        expected = r"^<sequence>: a function gives its samples in its own order: shuffle them there, or save a .npz$"
        with pytest.raises(DataError, match=expected):
            list(source.samples([0]))

    @pytest.mark.parametrize(
        ("found", "reason"),
        [
            ([], "the function gave no samples"),
            (None, "the function returned NoneType, expected an iterable of feeds: yield them, or return a list"),
            (3, "the function returned int, expected an iterable of feeds: yield them, or return a list"),
            ({"x": VALUES}, "the function returned dict, expected an iterable of feeds: yield them, or return a list"),
            ([None], "sample 0: found NoneType, expected a mapping of input name to array"),
            ([VALUES], "sample 0: found ndarray, expected a mapping of input name to array"),
            ([{"x": VALUES}, 3], "sample 5: found int, expected a mapping of input name to array"),
            ([{"x": VALUES}, {}], "sample 5: input 'x' is missing; found none"),
            ([{"y": VALUES}], "sample 0: input 'x' is missing; found 'y'"),
            ([{"x": VALUES, "y": VALUES}], "sample 0: the model has no input 'y'; it has 'x'"),
            ([{"x": VALUES[0]}], "sample 0: input 'x' has shape (3,), the model takes [?, 3]"),
            ([{"x": np.zeros((1, 4), np.float32)}], "sample 0: input 'x' has shape (1, 4), the model takes [?, 3]"),
            ([{"x": VALUES.astype(int)}], "sample 0: input 'x' is int64, the model takes float32: convert it with .astype(numpy.float32), or state dtype: float32 in a dataset YAML"),
            ([{"x": np.array([[None] * 3])}], "sample 0: array 'x' holds Python objects, expected numbers"),
            ([{"x": "abc"}], "sample 0: array 'x' holds <U3, expected numbers or booleans"),
        ],
    )  # fmt: skip
    def test_what_does_not_fit(self, found, reason: str) -> None:
        def function():
            return found

        assert refusal(function).endswith(f"function: {reason}")

    def test_lists_of_unequal_length(self) -> None:
        message = refusal([{"x": VALUES}, {"x": [[1, 2], [3]]}])
        assert message.startswith("<sequence>: sample 5: input 'x' cannot be made an array: ")

    def test_inputs_of_different_batch_sizes(self) -> None:
        feed = {"x": VALUES, "ids": np.ones((4, 2), np.int64)}
        assert refusal([feed], TWO) == "<sequence>: sample 0: the inputs have different batch sizes: [4, 5]"

    def test_a_single_row_does_not_pass_for_a_fixed_batch(self) -> None:
        message = refusal([{"x": VALUES[:1]}], FIXED)
        assert message == "<sequence>: sample 0: input 'x' has shape (1, 3), the model takes [4, 3]"

    def test_a_function_that_raises_midway_names_the_sample(self) -> None:
        def function():
            yield {"x": VALUES[:2]}
            raise RuntimeError("the disk is gone")

        assert refusal(function).endswith("function: sample 2: the function raised RuntimeError: the disk is gone")

    def test_a_function_that_raises_at_once(self) -> None:
        def function():
            raise KeyError("x")

        assert refusal(function).endswith("function: the function raised KeyError: 'x'")

    def test_a_function_that_needs_arguments(self) -> None:
        message = refusal(lambda path: [])
        assert "the function raised TypeError: " in message
        assert message.endswith("missing 1 required positional argument: 'path'")

    def test_errors_of_trtcalib_pass_unchanged(self) -> None:
        def at_once():
            raise SpecError("mine", ("a fault",))

        def midway():
            yield {"x": VALUES}
            raise SpecError("mine", ("a fault",))

        for function in (at_once, midway):
            with pytest.raises(SpecError, match=r"^mine: a fault$"):
                feeds(open_source(function, X))

    def test_an_interruption_passes_unchanged(self) -> None:
        def function():
            yield {"x": VALUES}
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            feeds(open_source(function, X))

    def test_sys_exit_is_no_success(self) -> None:
        def at_once():
            sys.exit(0)

        def midway():
            yield {"x": VALUES}
            sys.exit(0)

        with pytest.raises(DataError, match="the function raised SystemExit: 0"):
            feeds(open_source(at_once, X))
        with pytest.raises(DataError, match="sample 5: the function raised SystemExit: 0"):
            feeds(open_source(midway, X))

    def test_the_same_generator_twice(self) -> None:
        generator = ({"x": VALUES} for _ in range(3))
        source = open_source(lambda: generator, X)
        next(source.samples(None))
        reason = (
            "the function returned the same generator again, which can be read only once: make a new one on each call"
        )
        with pytest.raises(DataError, match=reason):
            feeds(source)

    def test_a_second_pass_that_gives_nothing(self) -> None:
        shared = [{"x": VALUES}]

        def function():
            while shared:
                yield shared.pop()

        source = open_source(function, X)
        feeds(source)
        reason = "the function gave no samples when it was called again: it must start anew on each call"
        with pytest.raises(DataError, match=reason):
            feeds(source)


class TestModuleFunctions:
    @pytest.fixture
    def module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """Write a module into the current folder; give what names it."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        written = []

        def write(code: str) -> str:
            name = f"loader_{tmp_path.name}_{len(written)}".replace("-", "_")
            (tmp_path / f"{name}.py").write_text(f"import numpy as np\n{code}\n", encoding="utf-8")
            written.append(name)
            return name

        yield write
        for name in written:
            sys.modules.pop(name, None)

    def test_is_imported_from_the_current_folder(self, module) -> None:
        name = module("def feeds():\n    yield {'x': np.ones((2, 3), np.float32)}")
        source = open_source(f"{name}:feeds", X)
        assert source.name == f"{name}:feeds"
        assert len(feeds(source)) == 2

    def test_a_file_of_that_name_comes_first(self, module, tmp_path: Path) -> None:
        (tmp_path / "os:getcwd").touch()
        assert (
            refusal("os:getcwd") == "os:getcwd: found a nameless file, expected .npz, .npy, .yaml or a folder of images"
        )

    def test_can_be_forbidden(self, module) -> None:
        name = module("raise SystemExit('it ran')")
        assert refusal(f"{name}:feeds", allow_code=False).startswith(f"{name}:feeds: no such file or folder; ")

    @pytest.mark.parametrize(
        ("code", "reason"),
        [
            ("feeds = 3", "'feeds' is a int, expected a function that yields feeds"),
            ("", "the module NAME has no 'feeds'"),
            ("1 / 0", "importing NAME raised ZeroDivisionError: division by zero"),
            ("import no_such_package", "the module NAME cannot be imported: No module named 'no_such_package'"),
            ("def feeds():\n    yield {'x': np.ones((1, 3), np.float32)}\n    1 / 0", "sample 1: the function raised ZeroDivisionError: division by zero"),
            ("def feeds():\n    return 3", "the function returned int, expected an iterable of feeds: yield them, or return a list"),
        ],
    )  # fmt: skip
    def test_what_goes_wrong(self, module, code: str, reason: str) -> None:
        name = module(code)
        assert refusal(f"{name}:feeds") == f"{name}:feeds: {reason.replace('NAME', repr(name))}"

    def test_a_module_that_is_not_there(self, module) -> None:
        expected = "the module 'no_such_module' cannot be imported: No module named 'no_such_module'"
        assert refusal("no_such_module:feeds") == f"no_such_module:feeds: {expected}"


class TestDigests:
    def test_of_arrays(self) -> None:
        digest = open_source(VALUES, X).sha256()
        assert digest == open_source({"x": VALUES}, X).sha256() == open_source(np.asfortranarray(VALUES), X).sha256()
        assert len(digest) == 64
        others = [
            open_source(VALUES + 1, X),
            open_source(VALUES[:4], X),
            open_source(VALUES.astype(np.float64), [ModelInput("x", np.dtype(np.float64), (None, 3))]),
            open_source(VALUES, [ModelInput("y", F32, (None, 3))]),
            open_source(VALUES.reshape(1, 5, 3), X),
        ]
        assert len({digest, *(other.sha256() for other in others)}) == 6

    def test_of_files_covers_bytes_and_preparation_not_the_path(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", VALUES)
        np.save(tmp_path / "b.npy", VALUES)
        np.save(tmp_path / "c.npy", VALUES + 1)
        digests = {name: open_source(tmp_path / f"{name}.npy", X).sha256() for name in "abc"}
        assert digests["a"] == digests["b"] != digests["c"]
        path = write_yaml(tmp_path, "source: a.npy\n")
        assert open_source(path, X).sha256() == digests["a"]
        write_yaml(tmp_path, "source: a.npy\ninputs: {x: {scale: 2}}\n")
        assert open_source(path, X).sha256() != digests["a"]

    def test_of_a_function_is_that_of_what_it_gave(self) -> None:
        def source(values=VALUES):
            return open_source(lambda: ({"x": row[np.newaxis]} for row in values), X)

        first, second, other = source(), source(), source(VALUES + 1)
        for one in (first, second, other):
            feeds(one)
        assert first.sha256() == second.sha256() != other.sha256()

    def test_of_a_function_is_not_changed_by_a_look_at_its_first_batch(self) -> None:
        source = open_source([{"x": VALUES[:2]}, {"x": VALUES[2:]}], X)
        next(source.samples(None))
        partial = source.sha256()
        feeds(source)
        whole = source.sha256()
        assert whole != partial
        next(source.samples(None))
        assert source.sha256() == whole

    def test_do_not_depend_on_the_process(self) -> None:
        code = (
            "import numpy as np; from trtcalib.samples.sources import open_source; from trtcalib.onnx_graph import ModelInput; "
            "v = np.arange(15, dtype=np.float32).reshape(5, 3); "
            "print(open_source(v, [ModelInput('x', np.dtype(np.float32), (None, 3))]).sha256())"
        )
        root = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"}
        found = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == open_source(VALUES, X).sha256()


def test_check_feed_takes_a_row_of_a_fixed_batch_only_where_rows_are_meant() -> None:
    row = {"x": VALUES[:1]}
    check_feed(row, FIXED, "data", "0", rows=True)
    for feed in (row, {"x": VALUES[:3]}):
        with pytest.raises(DataError, match="the model takes \\[4, 3\\]"):
            check_feed(feed, FIXED, "data", "0")
    with pytest.raises(DataError, match="the model takes \\[4, 3\\]"):
        check_feed({"x": VALUES[:3]}, FIXED, "data", "0", rows=True)
