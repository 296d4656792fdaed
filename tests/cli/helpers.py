"""Models as ONNX text, data, and what the tests of the command line ask of its results."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

import trtcalib
from trtcalib.core.cache import CalibrationCache, parse_cache
from trtcalib.core.scale import scale_from_amax
from trtcalib.manifest import Manifest, TensorFacts

HEADER = '<ir_version: 8, opset_import: ["" : 17, "com.acme" : 1]>'

NET = """
net (float[N, 4] x) => (float[N, 3] y)
<float[4, 3] w = {0.5, -1, 2, 0.25, 1.5, -0.5, 1, 0.125, -2, 0.75, -1.25, 0.375}, float[3] b = {0.1, -0.2, 0.3}>
{
  product = MatMul(x, w)
  sum = Add(product, b)
  y = Relu(sum)
}
"""
"""One input, a free batch axis; five tensors with a histogram: x, w, b, product, sum, and the ReLU's y."""

RELU = "relu (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"

METHODS = ("entropy", "minmax", "percentile-99", "percentile-99.9", "percentile-99.99")


@dataclass(frozen=True, slots=True)
class Result:
    """What a command did: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """stdout and stderr as plain words: no colours, no frames, no line breaks."""
        return plain(self.out + self.err)


def plain(text: str) -> str:
    """Return text without escape sequences and frames, every run of white space as one space."""
    return " ".join(re.sub("[│╭╮╰╯─━]", " ", re.sub(r"\x1b\[[0-9;]*m", "", text)).split())


def save_model(path: Path, text: str, opset: int = 17) -> onnx.ModelProto:
    """Write a model that is given as ONNX text, without its header."""
    model = onnx.parser.parse_model(HEADER.replace("17", str(opset)) + text)
    path.write_bytes(model.SerializeToString())
    return model


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Return float32 samples of a normal distribution."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def listing(folder: Path) -> dict[str, str]:
    """Return every file below a folder with its digest."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "-"
        for file in sorted(folder.rglob("*"))
    }


def manifest(path: Path) -> Manifest:
    """Return the manifest beside a cache."""
    return Manifest.model_validate_json(Path(f"{path}.json").read_bytes())


def facts(path: Path) -> dict[str, TensorFacts]:
    """Return what the manifest beside a cache says of each tensor."""
    return {tensor.name: tensor for tensor in manifest(path).tensors}


def codes(path: Path) -> list[str]:
    """Return the codes of the findings in the manifest beside a cache."""
    return [finding.code for finding in manifest(path).findings]


def cache(path: Path) -> CalibrationCache:
    """Return a calibration cache."""
    return parse_cache(path.read_bytes())


def scale_hex(path: Path) -> dict[str, str]:
    """Return the digits of every line of a cache."""
    return {entry.name: entry.hex for entry in cache(path).entries}


def expected_scale(batches: Sequence[np.ndarray]) -> np.float32:
    """Return the scale that the core gives for one tensor's values, batch by batch, by entropy."""
    return scale_from_amax(trtcalib.entropy_amax(trtcalib.collect_histogram(batches)))


def batched(values: np.ndarray, size: int = 32) -> list[np.ndarray]:
    """Split samples into batches."""
    return [values[start : start + size] for start in range(0, len(values), size)]


def python(*arguments: str, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False, **options)
