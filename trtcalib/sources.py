"""Where samples come from: ``.npz``, ``.npy``, a folder of images, a dataset YAML, arrays, ``module:function``.

A source can be read again from the start and never holds all samples in memory. A sample is one feed of the model,
``{input name: array}``, with a batch axis of 1; or of the model's own size where the source gives whole feeds.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trtcalib.arrays import open_arrays
from trtcalib.errors import DataError, TrtcalibError
from trtcalib.files import sha256_of
from trtcalib.images import decode_image, image_files
from trtcalib.onnx_graph import ModelInput
from trtcalib.specs import DatasetSpec, InputSpec, load_dataset

__all__ = ["DataSource", "Feed", "Sample", "check_feed", "open_source"]

Feed = Mapping[str, NDArray[Any]]

_FUNCTION = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")

SMALLEST_DATASET = "source: images/\ninputs:\n  INPUT_NAME: {resize: [224, 224], scale: 1/255, dtype: float32}"


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample that has not been read yet.

    Attributes:
        label: What an error calls it: its position, or its file.
        load: Reads it; may be called from another thread.
    """

    label: str
    load: Callable[[], Feed]


class DataSource(Protocol):
    """What calibration runs on; the seam for other kinds of data.

    Attributes:
        name: What an error calls the source.
        whole: Whether a sample is a whole feed of the model rather than one row of its batch axis.
    """

    name: str
    whole: bool

    def size(self) -> int | None:
        """Return the number of samples; ``None`` where only reading tells, and then there is no random order."""

    def samples(self, order: Sequence[int] | None) -> Iterator[Sample]:
        """Yield the samples from the start, in the source's order or in the given one."""

    def sha256(self) -> str:
        """Return a digest of the data; of a function, of what it gave in its last pass."""


def open_source(
    data: Any, inputs: Sequence[ModelInput], *, skip_bad_images: bool = False, allow_code: bool = True
) -> DataSource:
    """Open calibration data for a model.

    Args:
        data: A path, ``module:function``, an array, a mapping of arrays, a function that returns an iterable of feeds,
            or a sequence of feeds.
        inputs: The model's inputs.
        skip_bad_images: Leave out images that cannot be decoded; needs one decoding pass.
        allow_code: Whether ``module:function`` is accepted; a dataset YAML never may name one.

    Raises:
        DataError: If there are no data, or they do not fit the inputs.
        SpecError: If a dataset YAML has faults.
    """
    if isinstance(data, np.ndarray | Mapping):
        return ArraySource("<arrays>", _by_input(data, inputs, "<arrays>"), inputs, {})
    if callable(data):
        return FunctionSource(getattr(data, "__qualname__", "<function>"), data, inputs)
    if isinstance(data, Sequence) and not isinstance(data, str | bytes | bytearray):
        return FunctionSource("<sequence>", lambda: data, inputs)
    if isinstance(data, Iterator):
        raise DataError(
            "<data>",
            f"found a {type(data).__name__}, which can be read only once, and calibration reads the data more than once: "
            "give the function that makes it, or a list",
        )
    if not isinstance(data, str | Path):
        raise DataError(
            "<data>", f"found {type(data).__name__}, expected a path, arrays, a sequence of feeds or a function"
        )
    return _open_path(str(data), inputs, skip_bad_images=skip_bad_images, allow_code=allow_code)


def _open_path(text: str, inputs: Sequence[ModelInput], *, skip_bad_images: bool, allow_code: bool) -> DataSource:
    path = Path(text)
    if not _exists(path):
        match = _FUNCTION.fullmatch(text)
        if match and allow_code:
            return FunctionSource(text, _import_function(text, match[1], match[2]), inputs)
        raise DataError(
            text,
            "no such file or folder; expected a .npz, a .npy, a dataset .yaml, a folder of images or module:function",
        )
    if path.suffix in (".yaml", ".yml"):
        spec = load_dataset(path)
        return _open_dataset(path, spec, inputs, skip_bad_images=skip_bad_images)
    return _open_files(path, DatasetSpec(source=path.name), inputs, skip_bad_images=skip_bad_images)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for the file system
        return False


def _open_dataset(path: Path, spec: DatasetSpec, inputs: Sequence[ModelInput], *, skip_bad_images: bool) -> DataSource:
    known = {i.name for i in inputs}
    unknown = [name for name in spec.inputs if name not in known]
    if unknown:
        raise DataError(path, f"inputs.{unknown[0]}: the model has no such input; it has {', '.join(sorted(known))}")
    source = path.parent / spec.source
    if not _exists(source):
        hint = "; a YAML file cannot name code to run" if _FUNCTION.fullmatch(spec.source) else ""
        raise DataError(path, f"source: {spec.source!r} does not exist beside this file{hint}")
    if spec.labels is not None and not (path.parent / spec.labels).is_file():
        raise DataError(path, f"labels: {spec.labels!r} does not exist beside this file")
    return _open_files(source, spec, inputs, skip_bad_images=skip_bad_images)


def _open_files(path: Path, spec: DatasetSpec, inputs: Sequence[ModelInput], *, skip_bad_images: bool) -> DataSource:
    if path.is_dir():
        return ImageSource(path, spec, inputs, skip_bad_images=skip_bad_images)
    if path.suffix not in (".npz", ".npy"):
        raise DataError(
            path, f"found a {path.suffix or 'nameless'} file, expected .npz, .npy, .yaml or a folder of images"
        )
    arrays = open_arrays(path, [i.name for i in inputs])
    return ArraySource(str(path), _by_input(arrays, inputs, str(path)), inputs, spec.inputs, path)


def _by_input(data: Any, inputs: Sequence[ModelInput], source: str) -> dict[str, NDArray[Any]]:
    """Map arrays to inputs by name; a lone array may have any name when the model has one input."""
    arrays = {"": data} if isinstance(data, np.ndarray) else dict(data)
    if len(arrays) == 1 and len(inputs) == 1:
        return {inputs[0].name: _array(inputs[0].name, next(iter(arrays.values())), source)}
    missing = [i.name for i in inputs if i.name not in arrays]
    if missing:
        raise DataError(
            source,
            f"no array for input {missing[0]!r}; found {', '.join(map(repr, arrays)) or 'none'}, "
            f"the model needs {', '.join(repr(i.name) for i in inputs)}",
        )
    return {i.name: _array(i.name, arrays[i.name], source) for i in inputs}


def _array(name: str, value: Any, source: str, sample: int | None = None) -> NDArray[Any]:
    """Return a value as an array; a memory-mapped one stays so."""
    try:
        array: NDArray[Any] = np.asanyarray(value)
    except Exception as error:  # lists of unequal length, and whatever an object's own conversion raises
        raise DataError(source, f"input {name!r} cannot be made an array: {str(error)[:200]}", sample) from error
    if array.dtype.hasobject:
        raise DataError(source, f"array {name!r} holds Python objects, expected numbers", sample)
    if array.dtype.kind not in "biuf":
        raise DataError(source, f"array {name!r} holds {array.dtype}, expected numbers or booleans", sample)
    return array


class ArraySource:
    """Arrays whose first axis counts samples; memory-mapped where they come from a file.

    An array with as many axes as its input gives one row per sample; with one axis more it gives whole feeds.
    """

    def __init__(
        self,
        name: str,
        arrays: Mapping[str, NDArray[Any]],
        inputs: Sequence[ModelInput],
        preparation: Mapping[str, InputSpec],
        path: Path | None = None,
    ) -> None:
        self.name = name
        self._arrays = arrays
        self._inputs = inputs
        self._preparation = preparation
        self._path = path
        self._length = _common_length(name, arrays)
        self._rows = {i.name: _has_batch_axis(name, arrays[i.name], i) for i in inputs}
        self.whole = not any(self._rows.values())
        _check_rows_can_be_grouped(name, self._rows, inputs)
        for key, spec in preparation.items():
            if spec.resize is not None or spec.crop is not None:
                raise DataError(name, f"inputs.{key}: resize and crop are for folders of images, not for arrays")

    def size(self) -> int:
        """Return the number of samples."""
        return self._length

    def samples(self, order: Sequence[int] | None) -> Iterator[Sample]:
        """Yield the samples."""
        for index in range(self._length) if order is None else order:
            yield Sample(str(index), lambda index=int(index): self._load(index))  # type: ignore[misc]  # bound early

    def sha256(self) -> str:
        """Return the file's digest, or that of the arrays, with the preparation."""
        digest = hashlib.sha256(_preparation_bytes(self._preparation))
        if self._path is not None:
            digest.update(sha256_of(self._path).encode())
        else:
            _update(digest, self._arrays)
        return digest.hexdigest()

    def _load(self, index: int) -> Feed:
        feed = {}
        for name, array in self._arrays.items():
            # Not ascontiguousarray, which gives a single number an axis.
            value = np.asarray(array[index : index + 1] if self._rows[name] else array[index], order="C")
            spec = self._preparation.get(name)
            feed[name] = value if spec is None else prepare(value, spec, self.name, str(index))
        check_feed(feed, self._inputs, self.name, str(index), rows=not self.whole)
        return feed


def _common_length(name: str, arrays: Mapping[str, NDArray[Any]]) -> int:
    for key, array in arrays.items():
        if array.ndim == 0:
            raise DataError(name, f"array {key!r} is a single number; its first axis must count samples")
    lengths = {key: len(array) for key, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key!r}: {length}" for key, length in lengths.items())
        raise DataError(name, f"the arrays have different numbers of samples ({listed})")
    length = next(iter(lengths.values()))
    if length == 0:
        raise DataError(name, "the data are empty: there is no sample to calibrate on")
    return length


def _has_batch_axis(name: str, array: NDArray[Any], model_input: ModelInput) -> bool:
    if model_input.shape is None or array.ndim == len(model_input.shape) > 0:
        return True
    if array.ndim == len(model_input.shape) + 1:
        return False
    raise DataError(
        name,
        f"input {model_input.name!r} got an array of shape {array.shape}; expected {_shape_text(model_input.shape)} with "
        "samples along the first axis, or one axis more with whole feeds along it",
    )


def _check_rows_can_be_grouped(name: str, rows: Mapping[str, bool], inputs: Sequence[ModelInput]) -> None:
    """Refuse an input without a batch axis beside rows that must be grouped to a fixed batch."""
    whole = [i.name for i in inputs if not rows[i.name]]
    fixed = [i.name for i in inputs if rows[i.name] and i.shape and (i.shape[0] or 1) > 1]
    if whole and fixed:
        raise DataError(
            name,
            f"input {fixed[0]!r} got single rows of its fixed batch, but input {whole[0]!r} whole feeds: "
            "give whole feeds for all inputs (one axis more, samples along the first)",
        )


class ImageSource:
    """A folder of images, read and prepared one at a time, in the order of their names."""

    whole = False

    def __init__(self, path: Path, spec: DatasetSpec, inputs: Sequence[ModelInput], *, skip_bad_images: bool) -> None:
        self.name = str(path)
        if len(inputs) != 1:
            raise DataError(path, f"a folder of images feeds one input, the model has {len(inputs)}: use a .npz")
        if inputs[0].name not in spec.inputs:
            raise DataError(
                path,
                f"a folder of images needs to be told how to prepare input {inputs[0].name!r}; "
                f"give a dataset YAML instead, for instance:\n{SMALLEST_DATASET.replace('INPUT_NAME', inputs[0].name)}",
            )
        self._inputs = inputs
        self._preparation = spec.inputs
        self._path = path
        self._files = image_files(path)
        self.skipped: list[str] = []
        if skip_bad_images:
            self._files = [file for file in self._files if self._is_good(file)]
        if not self._files:
            raise DataError(path, "the folder holds no image that can be read")

    def size(self) -> int:
        """Return the number of images."""
        return len(self._files)

    def samples(self, order: Sequence[int] | None) -> Iterator[Sample]:
        """Yield the images."""
        for index in range(len(self._files)) if order is None else order:
            file = self._files[index]
            yield Sample(self._label(file), lambda file=file: self._load(file))  # type: ignore[misc]  # bound early

    def sha256(self) -> str:
        """Return the digest of the names and bytes of the images, with the preparation."""
        digest = hashlib.sha256(_preparation_bytes(self._preparation))
        for file in self._files:
            digest.update(f"{self._label(file)}\0{sha256_of(file)}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def _label(self, file: Path) -> str:
        return file.relative_to(self._path).as_posix()

    def _is_good(self, file: Path) -> bool:
        try:
            decode_image(file, self._spec, self.name, self._label(file))
        except DataError:
            self.skipped.append(self._label(file))
            return False
        return True

    @property
    def _spec(self) -> InputSpec:
        return self._preparation[self._inputs[0].name]

    def _load(self, file: Path) -> Feed:
        pixels = decode_image(file, self._spec, self.name, self._label(file))
        wanted = self._inputs[0]
        value = prepare(pixels[np.newaxis], self._spec, self.name, self._label(file))
        if self._spec.dtype is None:
            value = value.astype(wanted.dtype)
        feed = {wanted.name: value}
        check_feed(feed, self._inputs, self.name, self._label(file), rows=True)
        return feed


class FunctionSource:
    """A function that returns an iterable of feeds, Polygraphy's convention; called again for each pass."""

    def __init__(self, name: str, function: Callable[[], Iterable[Any]], inputs: Sequence[ModelInput]) -> None:
        self.name = name
        self._function = function
        self._inputs = inputs
        self._last: Iterator[Any] | None = None
        self._digest = hashlib.sha256()
        self._feeds_digested = 0
        firsts = {i.shape[0] if i.shape else None for i in inputs}
        # Rows can be told apart only where every input has a batch axis that may be of any size.
        self._splits = firsts == {None} and all(i.shape is None or i.shape for i in inputs)
        self.whole = not self._splits

    def size(self) -> int | None:
        """Return the number of feeds where the function gives a sequence of single samples."""
        return None

    def samples(self, order: Sequence[int] | None) -> Iterator[Sample]:
        """Call the function and yield its feeds, split into single samples where the batch axis is free."""
        if order is not None:
            raise DataError(
                self.name, "a function gives its samples in its own order: shuffle them there, or save a .npz"
            )
        digest = hashlib.sha256()
        feeds = self._start()
        position = count = 0
        while (feed := self._next(feeds, position)) is not _END:
            arrays = self._checked(feed, position)
            _update(digest, arrays)
            count += 1
            if count >= self._feeds_digested:
                # A pass over the first batch alone must not take the place of a whole one.
                self._digest, self._feeds_digested = digest, count
            for sample in self._split(arrays, position):
                yield sample
                position += 1
        if position == 0:
            again = " when it was called again: it must start anew on each call" if self._feeds_digested > count else ""
            raise DataError(self.name, f"the function gave no samples{again}")

    def sha256(self) -> str:
        """Return the digest of what the longest pass gave."""
        return self._digest.hexdigest()

    def _start(self) -> Iterator[Any]:
        try:
            found: Any = self._function()
        except TrtcalibError:
            raise
        except Exception as error:
            raise DataError(self.name, f"the function raised {type(error).__name__}: {error}") from error
        if isinstance(found, Iterator) and found is self._last:
            raise DataError(
                self.name,
                "the function returned the same generator again, which can be read only once: make a new one on each call",
            )
        if isinstance(found, Mapping) or not (isinstance(found, Iterable) or hasattr(found, "__getitem__")):
            raise DataError(
                self.name,
                f"the function returned {type(found).__name__}, expected an iterable of feeds: yield them, or return a list",
            )
        self._last = iter(found)
        return self._last

    def _next(self, feeds: Iterator[Any], position: int) -> Any:
        try:
            return next(feeds, _END)
        except TrtcalibError:
            raise
        except Exception as error:
            raise DataError(self.name, f"the function raised {type(error).__name__}: {error}", position) from error

    def _checked(self, feed: Any, position: int) -> dict[str, NDArray[Any]]:
        if not isinstance(feed, Mapping):
            raise DataError(
                self.name, f"found {type(feed).__name__}, expected a mapping of input name to array", position
            )
        arrays = {
            str(key): np.asarray(_array(str(key), value, self.name, position), order="C") for key, value in feed.items()
        }
        check_feed(arrays, self._inputs, self.name, str(position))
        return arrays

    def _split(self, arrays: Mapping[str, NDArray[Any]], position: int) -> list[Sample]:
        rows = {len(array) if array.ndim else 1 for array in arrays.values()} if self._splits else {1}
        if len(rows) > 1:
            raise DataError(self.name, f"the inputs have different batch sizes: {sorted(rows)}", position)
        count = rows.pop()
        if count == 1:
            return [Sample(str(position), lambda: arrays)]
        return [
            Sample(str(position + row), lambda row=row: {n: a[row : row + 1] for n, a in arrays.items()})  # type: ignore[misc]  # bound early
            for row in range(count)
        ]


_END = object()


def _update(digest: hashlib._Hash, arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode("utf-8", "surrogatepass"))
        digest.update(np.ascontiguousarray(array).tobytes())


def _import_function(text: str, module: str, function: str) -> Callable[[], Iterable[Any]]:
    """Import ``module:function``; this runs the module's code, and is asked for on the command line only."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        raise DataError(text, f"the module {module!r} cannot be imported: {error}") from error
    except Exception as error:
        raise DataError(text, f"importing {module!r} raised {type(error).__name__}: {error}") from error
    found = getattr(imported, function, None)
    if found is None:
        raise DataError(text, f"the module {module!r} has no {function!r}")
    if not callable(found):
        raise DataError(text, f"{function!r} is a {type(found).__name__}, expected a function that yields feeds")
    return found  # type: ignore[no-any-return]  # what it returns is checked feed by feed


def check_feed(feed: Feed, inputs: Sequence[ModelInput], source: str, sample: str, *, rows: bool = False) -> None:
    """Check that a feed fits the model.

    Args:
        feed: Arrays by input name.
        inputs: What the model takes.
        source: What an error calls the data.
        sample: What an error calls the feed.
        rows: Whether the feed is one row of a fixed batch, to be put together with its neighbours.

    Raises:
        DataError: If an input is missing or unknown, or has another dtype, rank or size than the model states.
    """
    for wanted in inputs:
        if wanted.name not in feed:
            raise DataError(
                source, f"input {wanted.name!r} is missing; found {', '.join(map(repr, feed)) or 'none'}", sample
            )
        array = feed[wanted.name]
        if array.dtype != wanted.dtype:
            hint = f"convert it with .astype(numpy.{wanted.dtype}), or state dtype: {wanted.dtype} in a dataset YAML"
            raise DataError(
                source, f"input {wanted.name!r} is {array.dtype}, the model takes {wanted.dtype}: {hint}", sample
            )
        if not _fits(array.shape, wanted.shape, rows=rows):
            assert wanted.shape is not None
            reason = f"input {wanted.name!r} has shape {array.shape}, the model takes {_shape_text(wanted.shape)}"
            raise DataError(source, reason, sample)
    unknown = [name for name in feed if name not in {i.name for i in inputs}]
    if unknown:
        known = ", ".join(repr(i.name) for i in inputs)
        raise DataError(source, f"the model has no input {unknown[0]!r}; it has {known}", sample)


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...] | None, *, rows: bool) -> bool:
    if wanted is None:
        return True
    if rows and shape[:1] == (1,):
        wanted = (None, *wanted[1:])
    return len(shape) == len(wanted) and all(w is None or w == n for w, n in zip(wanted, shape, strict=True))


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def prepare(value: NDArray[Any], spec: InputSpec, source: str, sample: str) -> NDArray[Any]:
    """Apply scale, mean, std and dtype in float32; ``value`` has a batch axis, channels where the layout puts them.

    Raises:
        DataError: If mean or std do not have one number per channel, or a value does not fit an integer dtype.
    """
    with np.errstate(all="ignore"):  # what becomes infinite or NaN is refused where it is counted
        if spec.scale is not None or spec.mean is not None or spec.std is not None:
            value = value.astype(np.float32)
        if isinstance(spec.scale, str):
            numerator, _, denominator = spec.scale.partition("/")
            value = value * np.float32(float(numerator)) / np.float32(float(denominator or 1))
        elif spec.scale is not None:
            value = value * np.float32(spec.scale)
        if spec.mean is not None:
            value = value - _per_channel(spec.mean, value, spec, source)
        if spec.std is not None:
            value = value / _per_channel(spec.std, value, spec, source)
        return value if spec.dtype is None else _cast(value, np.dtype(spec.dtype), source, sample)


def _cast(value: NDArray[Any], dtype: np.dtype[Any], source: str, sample: str) -> NDArray[Any]:
    if dtype.kind in "iu" and value.dtype.kind != "b":
        limits = np.iinfo(dtype)
        fits = (value >= limits.min) & (value <= limits.max)  # false for NaN
        if not fits.all():
            raise DataError(source, f"the value {value[~fits][0]!r} does not fit dtype {dtype}", sample)
    return value.astype(dtype)


def _per_channel(numbers: tuple[float, ...], value: NDArray[Any], spec: InputSpec, source: str) -> NDArray[np.float32]:
    axis = 1 if spec.layout == "chw" else value.ndim - 1
    channels = value.shape[axis] if value.ndim > axis else 1
    if len(numbers) not in (1, channels):
        raise DataError(
            source, f"mean and std need 1 or {channels} numbers for {channels} channels, got {len(numbers)}"
        )
    if len(numbers) == 1:
        return np.array(numbers, np.float32)
    shape = [1] * value.ndim
    shape[axis] = channels
    return np.array(numbers, np.float32).reshape(shape)


def _preparation_bytes(preparation: Mapping[str, InputSpec]) -> bytes:
    return "\n".join(f"{name} {spec.model_dump_json()}" for name, spec in sorted(preparation.items())).encode()
