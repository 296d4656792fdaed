"""Labels: read from files and arrays, held against the samples; and what each misfit says."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from trtcalib.errors import DataError, SpecError
from trtcalib.judging import labels as module
from trtcalib.judging.labels import Labels, check_count, class_labels, read_labels, stated_labels
from trtcalib.onnx_graph import ModelInput
from trtcalib.samples.feeds import DataSource
from trtcalib.samples.image_source import ImageSource
from trtcalib.samples.sources import open_source
from trtcalib.specs import DatasetSpec, InputSpec

F32 = np.dtype(np.float32)
ROWS = open_source(np.zeros((4, 3), np.float32), [ModelInput("x", F32, (None, 3))])
"""Four samples of arrays; their names are 0 to 3."""

WHOLE = open_source(np.zeros((2, 4, 3), np.float32), [ModelInput("x", F32, (4, 3))])
"""Two whole feeds of a fixed batch of 4: eight samples."""

UNKNOWN = open_source(list, [ModelInput("x", F32, (None, 3))])


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def images(folder: Path, *names: str, bad: str | None = None) -> ImageSource:
    """A folder of images, opened with --skip-bad-images where one is bad."""
    for name in names:
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2)).save(path)
    if bad:
        (folder / "images" / bad).write_bytes(b"no image")
    spec = DatasetSpec(source="images", inputs={"x": InputSpec(colour="grey")})
    return ImageSource(
        folder / "images", spec, [ModelInput("x", F32, (None, 1, 2, 2))], skip_bad_images=bad is not None
    )


def refusal(labels: object, source: DataSource = ROWS, max_samples: int | None = None) -> str:
    with pytest.raises(DataError) as caught:
        read_labels(labels, source, max_samples)  # type: ignore[arg-type]  # some are wrong on purpose
    return str(caught.value)


def class_refusal(values: object) -> str:
    with pytest.raises(DataError) as caught:
        class_labels(Labels("y.npy", np.asarray(values)))
    return str(caught.value)


class TestStated:
    def test_stands_relative_to_the_dataset_yaml(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        path = write(tmp_path / "sub", "d.yaml", "source: x.npy\nlabels: ../y.npy\n")
        assert stated_labels(path) == stated_labels(str(path)) == tmp_path / "sub" / "../y.npy"

    def test_is_none_where_no_labels_are_stated(self, tmp_path: Path) -> None:
        assert stated_labels(write(tmp_path, "d.yml", "source: x.npy\n")) is None

    @pytest.mark.parametrize("data", ["x.npy", "m:f", "absent.yaml", "a" * 5000 + ".yaml", "\0.yaml", ROWS, None, [1]])
    def test_is_none_for_other_data(self, data: object) -> None:
        assert stated_labels(data) is None

    def test_a_faulty_yaml_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="source: this key is missing"):
            stated_labels(write(tmp_path, "d.yaml", "labels: y.npy\n"))


class TestByPosition:
    def test_a_npy_is_mapped(self, tmp_path: Path) -> None:
        np.save(tmp_path / "y.npy", np.array([3, 1, 4, 1], np.uint8))
        found = read_labels(tmp_path / "y.npy", ROWS, None)
        assert found.name == str(tmp_path / "y.npy")
        assert isinstance(found.values, np.memmap)
        assert [found.at(i) for i in range(4)] == [3, 1, 4, 1]

    def test_a_npy_may_have_any_shape_behind_its_first_axis(self, tmp_path: Path) -> None:
        masks = np.full((4, 2, 2), np.nan)
        np.save(tmp_path / "y.npy", masks)
        np.testing.assert_array_equal(read_labels(str(tmp_path / "y.npy"), ROWS, None).at(2), masks[2])

    @pytest.mark.parametrize("text", ["3\n1\n4\n1\n", "3\r\n1\r\n4\r\n1", "\ufeff3\n +1\n4 \n01\n\n\n"])
    def test_a_text_has_one_integer_per_line(self, tmp_path: Path, text: str) -> None:
        found = read_labels(write(tmp_path, "y.txt", text), ROWS, None)
        assert found.values.dtype == np.int64
        assert found.values.tolist() == [3, 1, 4, 1]

    def test_arrays_and_lists_in_memory(self) -> None:
        array = np.array([3, 1, 4, 1])
        assert read_labels(array, ROWS, None).values.tolist() == array.tolist()
        assert read_labels([3, 1, 4, 1], ROWS, None).values.tolist() == array.tolist()
        assert read_labels(array, ROWS, None).name == "<labels>"

    def test_max_samples_takes_the_first_of_all_labels_or_labels_for_these(self) -> None:
        assert read_labels([3, 1, 4, 1], ROWS, 2).values.tolist() == [3, 1]
        assert read_labels([3, 1], ROWS, 2).values.tolist() == [3, 1]
        assert read_labels([3, 1, 4, 1], ROWS, 9).values.tolist() == [3, 1, 4, 1]

    def test_whole_feeds_of_a_fixed_batch_have_a_label_per_row(self) -> None:
        assert WHOLE.whole
        assert read_labels(range(8), WHOLE, None, rows=4).values.tolist() == list(range(8))
        assert read_labels(range(8), WHOLE, 7, rows=4).values.tolist() == [0, 1, 2, 3]
        with pytest.raises(DataError, match="<labels>: found 2 labels for the 8 samples of <arrays>, expected one"):
            read_labels(range(2), WHOLE, None, rows=4)

    def test_another_number_of_labels_than_samples(self) -> None:
        expected = (
            "<labels>: found {} labels for the 4 samples of <arrays>, expected one per sample in the same order "
            "(--max-samples N takes the first N samples, with their labels)"
        )
        assert refusal([1, 2, 3]) == expected.format(3)
        assert refusal([1, 2, 3, 4, 5]) == expected.format(5)
        assert refusal([1, 2, 3], max_samples=2) == expected.format(3)
        assert refusal([1, 2, 3, 4, 5], max_samples=5) == expected.format(5)

    def test_no_labels_at_all(self, tmp_path: Path) -> None:
        assert refusal([]) == "<labels>: there are no labels, expected one per sample"
        assert refusal(np.zeros((0, 3)), UNKNOWN) == "<labels>: there are no labels, expected one per sample"
        for text in ("", "\n \n", "\ufeff"):
            path = write(tmp_path, "y.txt", text)
            assert refusal(path) == f"{path}: the file is empty, expected one integer per line"

    def test_a_single_number(self) -> None:
        assert refusal(7) == "<labels>: found a single number, expected one label per sample"

    @pytest.mark.parametrize("values", [[1.0, np.nan, 2.0, np.nan], [[1.0], [np.nan], [2.0], [3.0]]])
    def test_nan_where_a_sample_has_one_number(self, values: list) -> None:
        expected = "<labels>: sample 1: the label is NaN, expected a number; leave out samples that have no label"
        assert refusal(values) == expected
        assert len(read_labels(values, ROWS, 1).values) == 1

    def test_what_is_no_array_of_numbers(self) -> None:
        assert refusal(["a", "b", "c", "d"]) == "<labels>: found an array of <U1, expected numbers"
        assert refusal(np.array([None] * 4)) == "<labels>: found an array of object, expected numbers"
        assert refusal([[1], [2, 3], [4], [5]]).startswith("<labels>: cannot be made an array: ")

    @pytest.mark.parametrize(
        ("line", "shown"),
        [
            ("cat", "'cat'"), ("1.0", "'1.0'"), ("", "''"), ("1_0", "'1_0'"), ("٣", "'٣'"), ("nan", "'nan'"),
            ("9" * 19, "'" + "9" * 19 + "'"), ("x" * 200, "'" + "x" * 79 + "..."), ("\x1b[1m", r"'\x1b[1m'"),
        ],
    )  # fmt: skip
    def test_a_line_that_is_no_integer(self, tmp_path: Path, line: str, shown: str) -> None:
        path = write(tmp_path, "y.txt", f"1\n{line}\n3\n4\n")
        assert refusal(path) == f"{path}: line 2: found {shown}, expected an integer"

    def test_encodings_that_cannot_be_read(self, tmp_path: Path) -> None:
        for name, content in (("y.txt", "1\n2".encode("utf-16")), ("y.csv", b"caf\xe9,1\n")):
            path = write(tmp_path, name, content)
            said = "not a text file in UTF-8: save it as UTF-8, or the labels as a .npy"
            assert refusal(path) == f"{path}: {said}"

    def test_a_text_that_is_too_large_is_not_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_LARGEST_TEXT", 5)
        path = write(tmp_path, "y.txt", "1\n2\n3\n")
        assert refusal(path) == f"{path}: the file is over 5 bytes: save the labels as a .npy, one per sample"

    def test_a_file_that_cannot_be_opened(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(tmp_path, "y.txt", "1\n")

        def refuse(*args: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "read_bytes", refuse)
        assert refusal(path) == f"{path}: cannot be read: Permission denied"

    def test_files_that_are_not_there_or_of_another_kind(self, tmp_path: Path) -> None:
        absent = "no such file, or no regular one; expected labels in a .npy, .txt or .csv"
        assert refusal(tmp_path / "y.npy") == f"{tmp_path / 'y.npy'}: {absent}"
        assert refusal(tmp_path) == f"{tmp_path}: {absent}"
        assert refusal("a" * 5000) == f"{'a' * 5000}: {absent}"
        path = write(tmp_path, "y.json", "[1]")
        assert refusal(path) == (
            f"{path}: found a .json file, expected labels in a .npy, in a .txt (one integer per line) or in a .csv "
            "(rows name,label)"
        )

    def test_a_pipe_does_not_block(self, tmp_path: Path) -> None:
        if not hasattr(os, "mkfifo"):
            pytest.skip("no named pipes here")
        os.mkfifo(tmp_path / "y.txt")
        assert "no regular one" in refusal(tmp_path / "y.txt")

    def test_a_npy_is_never_unpickled(self, tmp_path: Path) -> None:
        np.save(tmp_path / "y.npy", np.array([{}], object), allow_pickle=True)
        assert "holds Python objects, which only pickle can read: refused" in refusal(tmp_path / "y.npy")

    def test_a_source_of_unknown_size_is_checked_when_it_was_read(self) -> None:
        found = read_labels([3, 1, 4], UNKNOWN, None)
        check_count(found, 3)
        for seen in (2, 4):
            with pytest.raises(DataError) as caught:
                check_count(found, seen)
            assert str(caught.value) == (
                f"<labels>: found 3 labels for the {seen} samples of the data, expected one per sample in the same order "
                "(--max-samples N takes the first N samples, with their labels)"
            )
        check_count(read_labels([3, 1, 4], UNKNOWN, 2), 2)

    def test_a_sample_behind_the_last_label(self) -> None:
        with pytest.raises(DataError) as caught:
            read_labels([3, 1], UNKNOWN, None).at(2)
        assert str(caught.value) == (
            "<labels>: found 2 labels, and the data give more samples: expected one per sample"
        )

    def test_left_out_images_move_the_positions(self, tmp_path: Path) -> None:
        source = images(tmp_path, "a.png", "c.png", bad="b.png")
        assert refusal([0, 1], source) == (
            "<labels>: damaged images were left out (1, the first 'b.png'), so that labels by position no longer fit: give a "
            ".csv with rows name,label"
        )
        assert read_labels([0, 1, 2], images(tmp_path, "b.png"), None).values.tolist() == [0, 1, 2]

    @given(count=st.integers(1, 30), samples=st.integers(1, 30), most=st.none() | st.integers(1, 40))
    def test_there_are_as_many_labels_as_samples_or_an_error(self, count: int, samples: int, most: int | None) -> None:
        source = open_source(np.zeros((samples, 3), np.float32), [ModelInput("x", F32, (None, 3))])
        used = samples if most is None else min(samples, most)
        if count in (samples, used):
            assert read_labels(np.arange(count), source, most).values.tolist() == list(range(used))
        else:
            assert f"found {count} labels for the {samples} samples" in refusal(np.arange(count), source, most)


class TestByName:
    @pytest.mark.parametrize("header", ["", "name,label\n", "file, class\n", "\ufeffimage,y\n"])
    def test_in_any_order_with_and_without_a_header(self, tmp_path: Path, header: str) -> None:
        source = images(tmp_path, "a.png", "cats/a.png", "b, c.png")
        path = write(tmp_path, "y.csv", f'{header}cats/a.png,7\n\n"b, c.png", 5\r\nother.png,9\na.png,-3\n')
        found = read_labels(path, source, None)
        assert (found.name, found.values.dtype) == (str(path), np.int64)
        assert [s.label for s in source.samples(None)] == ["a.png", "b, c.png", "cats/a.png"]
        assert found.values.tolist() == [-3, 5, 7]

    def test_left_out_images_are_no_samples(self, tmp_path: Path) -> None:
        source = images(tmp_path, "a.png", "c.png", bad="b.png")
        path = write(tmp_path, "y.csv", "a.png,1\nb.png,2\nc.png,3\n")
        assert read_labels(path, source, None).values.tolist() == [1, 3]

    def test_max_samples_needs_the_first_only(self, tmp_path: Path) -> None:
        path = write(tmp_path, "y.csv", "0,5\n1,6\n")
        assert read_labels(path, ROWS, 2).values.tolist() == [5, 6]

    @pytest.mark.parametrize("most", [0, -1])
    def test_a_wrong_number_of_samples_is_left_to_who_plans_the_batches(self, tmp_path: Path, most: int) -> None:
        assert read_labels(write(tmp_path, "y.csv", "0,5\n"), ROWS, most).values.tolist() == []
        assert read_labels([1, 2, 3, 4], ROWS, most).values.tolist() == []

    def test_a_sample_without_a_row(self, tmp_path: Path) -> None:
        path = write(tmp_path, "y.csv", "0,5\n2,6\n")
        assert refusal(path) == (
            f"{path}: no label for 2 of the 4 samples of <arrays>, the first '1': every sample needs a row name,label"
        )

    def test_no_name_is_a_sample(self, tmp_path: Path) -> None:
        path = write(tmp_path, "y.csv", "name,label\nimages/a.png,5\nimages/b.png,6\n")
        assert refusal(path, images(tmp_path, "a.png")) == (
            f"{path}: none of its 2 names is a sample of {tmp_path / 'images'}: found 'images/a.png', expected names such as "
            "'a.png'"
        )

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("0,5\n1,6\n0,5\n", "line 3: the name '0' stands twice, expected one label per name"),
            ("0,5\n1,cat\n", "line 2: found 'cat', expected an integer"),
            ("0,cat\n1,5\n", "line 1: found 'cat', expected an integer"),
            ("name,label\nname,label\n", "line 2: found 'label', expected an integer"),
            ("0,5\n1\n", "line 2: expected two columns, name,label, found 1"),
            ("0,5,cat\n", "line 1: expected two columns, name,label, found 3"),
            ("", "the file is empty, expected rows name,label"),
            ("name,label\n", "the file is empty, expected rows name,label"),
            ('0,5\n"1,6\n', "line 2: not a .csv: unexpected end of data; expected rows name,label"),
        ],
    )  # fmt: skip
    def test_faulty_rows(self, tmp_path: Path, text: str, reason: str) -> None:
        path = write(tmp_path, "y.csv", text)
        assert refusal(path) == f"{path}: {reason}"

    def test_a_function_gives_no_names(self, tmp_path: Path) -> None:
        path = write(tmp_path, "y.csv", "0,5\n")
        assert refusal(path, UNKNOWN) == (
            f"{path}: a .csv names samples, and those of {UNKNOWN.name} have no names of their own: give a .txt or a .npy in "
            "their order"
        )

    def test_rows_of_whole_feeds_have_no_names(self, tmp_path: Path) -> None:
        path = write(tmp_path, "y.csv", "0,5\n1,5\n")
        with pytest.raises(DataError, match="those of <arrays> have no names of their own: give a .txt or a .npy"):
            read_labels(path, WHOLE, None, rows=4)

    @given(order=st.permutations(range(4)), numbers=st.lists(st.integers(-(10**17), 10**17), min_size=4, max_size=4))
    def test_the_order_of_the_rows_does_not_matter(
        self, tmp_path_factory: pytest.TempPathFactory, order: list[int], numbers: list[int]
    ) -> None:
        rows = "".join(f"{i},{numbers[i]}\n" for i in order)
        path = write(tmp_path_factory.mktemp("csv"), "y.csv", rows)
        assert read_labels(path, ROWS, None).values.tolist() == numbers


class TestClasses:
    @pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64", "float16", "float32", "float64", "bool"])
    @pytest.mark.parametrize("shape", [(2,), (2, 1)])
    def test_whole_numbers_of_every_type(self, dtype: str, shape: tuple[int, ...]) -> None:
        found = class_labels(Labels("y", np.array([0, 1], dtype).reshape(shape)))
        assert found.dtype == np.int64
        assert found.tolist() == [0, 1]

    def test_one_hot_rows(self) -> None:
        assert class_refusal(np.eye(3)) == (
            "y.npy: found an array of shape [3] per sample, expected one class number; for one-hot rows save "
            "labels.argmax(axis=1)"
        )
        assert "found an array of shape [2, 2] per sample" in class_refusal(np.zeros((3, 2, 2)))

    @pytest.mark.parametrize(
        ("values", "shown"),
        [
            ([0, -1], "-1"), ([0.0, 0.5], "0.5"), ([0.0, np.nan], "nan"), ([0.0, np.inf], "inf"), ([0, 2**31], "2147483648"),
            (np.array([0, 2**64 - 1], np.uint64), "18446744073709551615"), (np.array([0, -1], np.int8), "-1"),
            (np.array([0, np.inf], np.float16), "inf"),
        ],
    )  # fmt: skip
    def test_what_is_no_class_number(self, values: object, shown: str) -> None:
        assert class_refusal(values) == f"y.npy: sample 1: the label is {shown}, expected a class number: 0, 1, 2, ..."

    def test_the_largest_class(self) -> None:
        assert class_labels(Labels("y", np.array([2**31 - 1]))).tolist() == [2**31 - 1]

    @given(npst.arrays(npst.integer_dtypes() | npst.floating_dtypes(), st.integers(1, 8)))
    def test_classes_are_the_labels_or_an_error(self, values: np.ndarray) -> None:
        before = values.copy()
        fits = all(0 <= v < 2**31 and float(v).is_integer() for v in values.tolist())
        if fits:
            assert class_labels(Labels("y", values)).tolist() == values.tolist()
        else:
            assert "expected a class number" in class_refusal(values)
        np.testing.assert_array_equal(values, before)
