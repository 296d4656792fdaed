"""Labels: what each sample should give. From a ``.npy``, a ``.txt``, a ``.csv`` or an array, held against the samples."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trtcalib.errors import DataError
from trtcalib.samples.arrays import open_arrays
from trtcalib.samples.feeds import DataSource
from trtcalib.spec_files import brief
from trtcalib.specs import load_dataset

__all__ = ["Labels", "check_count", "class_labels", "read_labels", "stated_labels"]

_LARGEST_TEXT = 1 << 26
"""Bytes of the largest ``.txt`` or ``.csv`` that is read: millions of labels; more belong in a ``.npy``, which is mapped."""

_LARGEST_CLASS = 1 << 31
"""Class numbers are below it; ours: no model has so many classes, and every type of number holds it exactly."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
"""What ``int64`` holds for certain, in ASCII; ``int()`` also takes underscores and other scripts' digits."""

_COLUMNS = 2
"""Of a ``.csv``: name, label."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Labels that fit the samples.

    Attributes:
        name: What an error calls them.
        values: Any shape and type of number; the first axis is the samples in the source's own order.
    """

    name: str
    values: NDArray[Any]

    def at(self, position: int) -> Any:
        """Return the label of the sample at a position of the source's own order.

        Raises:
            DataError: If the samples go on behind the last label.
        """
        if position >= len(self.values):
            raise DataError(
                self.name, f"found {len(self.values)} labels, and the data give more samples: expected one per sample"
            )
        return self.values[position]


def stated_labels(data: Any) -> Path | None:
    """Return the ``labels`` of a dataset YAML, relative to its folder; ``None`` where none are stated, or for other data.

    Raises:
        SpecError: If the dataset YAML has faults.
    """
    if not isinstance(data, str | Path) or Path(data).suffix not in (".yaml", ".yml") or not _is_file(Path(data)):
        return None
    stated = load_dataset(data).labels
    return None if stated is None else Path(data).parent / stated


def read_labels(
    labels: Path | str | ArrayLike, source: DataSource, max_samples: int | None, *, rows: int = 1
) -> Labels:
    """Read the labels of a source's samples.

    A ``.npy`` (mapped, any shape behind the first axis), a ``.txt`` (one integer per line) and an array stand in the order of
    the samples, for all of them or for the first ``max_samples``. A ``.csv`` has rows ``name,label`` (a header may
    stand above) in any order, by the names that errors give samples: an image's path below its folder. Names that are
    no samples are passed over.

    Args:
        labels: A file, or an array in memory.
        source: The samples. Where its size is unknown, :func:`check_count` is called when all have been read.
        max_samples: Only the first so many samples are used; ``None``: all.
        rows: Samples in each whole feed: the model's fixed batch where the source gives whole feeds, else 1.

    Raises:
        DataError: If the labels cannot be read, or are not one per sample.
    """
    count = None if (size := source.size()) is None else size * rows
    used = max_samples if max_samples is None else max(0, max_samples - max_samples % rows)
    if not isinstance(labels, str | Path):
        return _by_position("<labels>", _as_array(labels), source, count, used)
    path = Path(labels)
    if not _is_file(path):
        raise DataError(path, "no such file, or no regular one; expected labels in a .npy, .txt or .csv")
    if path.suffix == ".csv":
        if count is None or rows > 1:
            raise DataError(
                path,
                f"a .csv names samples, and those of {source.name} have no names of their own: give a .txt or a .npy in their "
                "order",
            )
        return Labels(str(path), _by_name(path, source, used))
    if path.suffix == ".npy":
        return _by_position(str(path), open_arrays(path, [])[""], source, count, used)
    if path.suffix == ".txt":
        return _by_position(str(path), _integers(path), source, count, used)
    raise DataError(
        path,
        f"found a {path.suffix or 'nameless'} file, expected labels in a .npy, in a .txt (one integer per line) or in a "
        ".csv (rows name,label)",
    )


def check_count(labels: Labels, seen: int) -> None:
    """Check, when a source whose size was unknown has been read, that there was a label for each sample and no more.

    Args:
        labels: From :func:`read_labels`.
        seen: Samples that the source gave, those included that filled no batch.

    Raises:
        DataError: If the numbers differ.
    """
    if len(labels.values) != seen:
        raise _other_count(labels.name, len(labels.values), seen, "the data")


def class_labels(labels: Labels) -> NDArray[np.int64]:
    """Return labels as class numbers, int64 ``[n]``; ``[n, 1]``, booleans and floats that are whole numbers will do.

    Raises:
        DataError: If a label is no class number: a row of several numbers, negative, a fraction, or 2**31 and more.
    """
    values = labels.values
    if not _one_each(values):
        each = "[" + ", ".join(str(size) for size in values.shape[1:]) + "]"
        raise DataError(
            labels.name,
            f"found an array of shape {each} per sample, expected one class number; for one-hot rows save labels.argmax(axis=1)",
        )
    flat = np.asarray(values).reshape(-1)
    if flat.dtype.kind == "f":
        flat = flat.astype(np.float64)  # float16 does not hold the largest class
    wrong = ~((flat >= 0) & (flat < _LARGEST_CLASS)) | (flat != np.rint(flat))
    if wrong.any():
        first = int(wrong.argmax())
        raise DataError(labels.name, f"the label is {flat[first]}, expected a class number: 0, 1, 2, ...", first)
    return flat.astype(np.int64)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for the file system, or with a null character
        return False


def _as_array(labels: ArrayLike) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.asanyarray(labels)
    except Exception as error:  # lists of unequal length, and whatever an object's own conversion raises
        raise DataError("<labels>", f"cannot be made an array: {str(error)[:200]}") from error
    if array.dtype.kind not in "biuf":
        raise DataError("<labels>", f"found an array of {array.dtype}, expected numbers")
    return array


def _by_position(name: str, values: NDArray[Any], source: DataSource, samples: int | None, most: int | None) -> Labels:
    """Return the labels of the first ``most`` of so many samples; ``None``: all, and of a number that is not known."""
    skipped: Sequence[str] = getattr(source, "skipped", ())
    if skipped:
        raise DataError(
            name,
            f"damaged images were left out ({len(skipped)}, the first {brief(skipped[0])}), so that labels by position no longer "
            "fit: give a .csv with rows name,label",
        )
    if values.ndim == 0:
        raise DataError(name, "found a single number, expected one label per sample")
    count = len(values)
    if count == 0:
        raise DataError(name, "there are no labels, expected one per sample")
    if samples is not None and count not in (samples, samples if most is None else min(samples, most)):
        raise _other_count(name, count, samples, source.name)
    values = values[:most]
    if values.dtype.kind == "f" and _one_each(values) and np.isnan(values).any():
        first = int(np.isnan(values).argmax())
        raise DataError(name, "the label is NaN, expected a number; leave out samples that have no label", first)
    return Labels(name, values)


def _other_count(name: str, count: int, samples: int, source: str) -> DataError:
    return DataError(
        name,
        f"found {count} labels for the {samples} samples of {source}, expected one per sample in the same order "
        "(--max-samples N takes the first N samples, with their labels)",
    )


def _one_each(values: NDArray[Any]) -> bool:
    return values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)  # noqa: PLR2004 - [n, 1]


def _integers(path: Path) -> NDArray[np.int64]:
    lines = _read_text(path).rstrip().split("\n")
    if lines == [""]:
        raise DataError(path, "the file is empty, expected one integer per line")
    return np.array([_integer(path, number, line) for number, line in enumerate(lines, 1)], np.int64)


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_TEXT:
            raise DataError(path, f"the file is over {_LARGEST_TEXT} bytes: save the labels as a .npy, one per sample")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(path, "not a text file in UTF-8: save it as UTF-8, or the labels as a .npy") from error


def _integer(path: Path, line: int, text: str) -> int:
    if not _INTEGER.fullmatch(text.strip()):
        raise DataError(path, f"line {line}: found {brief(text.strip())}, expected an integer")
    return int(text)


def _by_name(path: Path, source: DataSource, max_samples: int | None) -> NDArray[np.int64]:
    names = [sample.label for sample in islice(source.samples(None), max_samples)]
    found = _labels_by_name(path, set(names))
    missing = [name for name in names if name not in found]
    if missing and len(missing) == len(names):
        raise DataError(
            path,
            f"none of its {len(found)} names is a sample of {source.name}: found {brief(next(iter(found)))}, expected names such "
            f"as {brief(names[0])}",
        )
    if missing:
        raise DataError(
            path,
            f"no label for {len(missing)} of the {len(names)} samples of {source.name}, the first {brief(missing[0])}: every "
            "sample needs a row name,label",
        )
    return np.array([found[name] for name in names], np.int64)


def _labels_by_name(path: Path, names: set[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for number, (line, row) in enumerate(_rows(path)):
        if len(row) != _COLUMNS:
            raise DataError(path, f"line {line}: expected two columns, name,label, found {len(row)}")
        name, label = row
        if number == 0 and name not in names and not _INTEGER.fullmatch(label.strip()):
            continue  # a header
        if name in found:
            raise DataError(path, f"line {line}: the name {brief(name)} stands twice, expected one label per name")
        found[name] = _integer(path, line, label)
    if not found:
        raise DataError(path, "the file is empty, expected rows name,label")
    return found


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the columns of each row that is not blank."""
    reader = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(path, f"line {reader.line_num}: not a .csv: {error}; expected rows name,label") from error
