"""Where samples come from: ``.npz``, ``.npy``, a folder of images, a dataset YAML, arrays, ``module:function``.

A source can be read again from the start and never holds all samples in memory. A sample is one feed of the model,
``{input name: array}``, with a batch axis of 1; or of the model's own size where the source gives whole feeds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trtcalib.errors import DataError
from trtcalib.onnx_graph import ModelInput
from trtcalib.samples.array_source import ArraySource, arrays_by_input
from trtcalib.samples.arrays import open_arrays
from trtcalib.samples.feeds import DataSource
from trtcalib.samples.function_source import FunctionSource, import_function
from trtcalib.samples.image_source import ImageSource
from trtcalib.specs import DatasetSpec, load_dataset

__all__ = ["open_source"]

_FUNCTION = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


def open_source(
    data: Any, inputs: Sequence[ModelInput], *, skip_bad_images: bool = False, allow_code: bool = True
) -> DataSource:
    """Open calibration data for a model.

    Args:
        data: A path, ``module:function``, an array, a mapping of arrays, a function that returns an iterable of feeds,
            a sequence of feeds, or a source.
        inputs: The model's inputs.
        skip_bad_images: Leave out images that cannot be decoded; needs one decoding pass.
        allow_code: Whether ``module:function`` is accepted; a dataset YAML never may name one.

    Raises:
        DataError: If there are no data, or they do not fit the inputs.
        SpecError: If a dataset YAML has faults.
    """
    if isinstance(data, np.ndarray | Mapping):
        return ArraySource("<arrays>", arrays_by_input(data, inputs, "<arrays>"), inputs, {})
    if isinstance(data, DataSource):
        return data
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
            return FunctionSource(text, import_function(text, match[1], match[2]), inputs)
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
    return ArraySource(str(path), arrays_by_input(arrays, inputs, str(path)), inputs, spec.inputs, path)
