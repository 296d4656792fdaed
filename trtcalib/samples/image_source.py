"""Samples from a folder of images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from trtcalib.errors import DataError
from trtcalib.files import sha256_of
from trtcalib.onnx_graph import ModelInput
from trtcalib.samples.feeds import Feed, Sample, check_feed
from trtcalib.samples.images import decode_image, image_files
from trtcalib.samples.preparation import preparation_bytes, prepare
from trtcalib.specs import DatasetSpec, InputSpec

__all__ = ["ImageSource"]

SMALLEST_DATASET = "source: images/\ninputs:\n  INPUT_NAME: {resize: [224, 224], scale: 1/255, dtype: float32}"


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
        digest = hashlib.sha256(preparation_bytes(self._preparation))
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
