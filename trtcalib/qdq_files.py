"""The job: model and cache in, Q/DQ model and report out, all of it or nothing; and what is no success."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from trtcalib import __version__
from trtcalib.cache_tools.scale_files import ScaleFile, read_scales
from trtcalib.core.cache import format_cache, is_cut_off
from trtcalib.core.scale import scale_from_bits
from trtcalib.errors import CacheFormatError, CacheMismatchError, OutputError
from trtcalib.files import new_file, sha256_of
from trtcalib.manifest import Sha256
from trtcalib.onnx_graph import ModelGraph, external_files, read_model
from trtcalib.qdq.convert import Quantized, convert
from trtcalib.qdq.coverage import Coverage
from trtcalib.qdq.names import propose_names, renamed
from trtcalib.qdq.prepared import QdqOptions
from trtcalib.qdq.writing import data_path, move_weights, outside_tensors, serialised
from trtcalib.specs import load_names

__all__ = ["FileFacts", "OptionFacts", "QdqInputs", "QdqReport", "quantize", "read_inputs", "write_quantized"]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", json_schema_serialization_defaults_required=True)


class FileFacts(_Facts):
    """A file that the conversion read."""

    file: Annotated[str, Field(description="its name, without the folder")]
    sha256: Sha256


class OptionFacts(_Facts):
    """What was asked for."""

    operators: list[str]
    exclude: list[str]
    partial: Literal["error", "skip", "fill"]
    fp16: bool
    int8_weights: bool
    min_coverage: Annotated[float | None, Field(description="null: at least one weighted node")]


class QdqReport(_Facts):
    """What ``trtcalib qdq --report`` and ``--json`` hold."""

    schema_version: Literal[1] = 1
    tool: Literal["trtcalib"] = "trtcalib"
    tool_version: str
    success: Annotated[
        bool, Field(description="whether enough is quantized; nothing but this report is written otherwise")
    ]
    target: Literal["tensorrt", "tensorrt-rtx", "onnxruntime"]
    model: FileFacts
    cache: FileFacts
    options: OptionFacts
    coverage: Coverage
    proposed_names: Annotated[
        dict[str, str],
        Field(description="for names that TensorRT's parser made, the tensor each may be; nothing of it was applied"),
    ]
    notes: Annotated[list[str], Field(description="what was odd in the cache, one sentence each")]


@dataclass(frozen=True, slots=True, kw_only=True)
class QdqInputs:
    """What was read.

    Attributes:
        model: The float model.
        cache: The scales as they stand in their file.
        scales: The same under the model's names.
    """

    model: ModelGraph
    cache: ScaleFile
    scales: Mapping[str, np.float32]

    @property
    def proposed_names(self) -> dict[str, str]:
        """Tensors that names of TensorRT's parser may be, where nothing maps them yet."""
        return propose_names(self.model, list(self.scales))


def read_inputs(model: Path, cache: Path, names: Path | None = None) -> QdqInputs:
    """Read what a conversion needs.

    Args:
        model: A float ONNX model.
        cache: A calibration cache, or a table that :func:`trtcalib.cache_tools.scale_files.read_scales` takes.
        names: A YAML file that maps names of the cache to tensors of the model.

    Raises:
        ModelError: If the model cannot be read.
        CacheFormatError: If the cache cannot be read.
        SpecError: If the map of names has faults; all of them at once.
    """
    graph = read_model(model)
    found = read_scales(cache)
    _refuse_cut_off(found)
    scales = {name: scale_from_bits(bits) for name, bits in found.scales.bits.items()}
    if names is not None:
        scales = renamed(scales, load_names(names), graph, names)
    return QdqInputs(model=graph, cache=found, scales=scales)


def _refuse_cut_off(found: ScaleFile) -> None:
    """Refuse a cache that ends within a number: what is left of it is another, tiny one."""
    if found.cache is None or not found.cache.entries:
        return
    last = found.cache.entries[-1]
    if not last.end.endswith("\n") and is_cut_off(last.bits):
        raise CacheFormatError(
            found.path,
            format_cache(found.cache).count(b"\n") + 1,
            f"the file ends within the scale of tensor {last.name!r}, {last.hex}, of which eight digits are due: it was cut off",
        )


def quantize(inputs: QdqInputs, options: QdqOptions, min_coverage: float | None = None) -> tuple[Quantized, QdqReport]:
    """Convert, and judge whether enough is quantized.

    Args:
        inputs: From :func:`read_inputs`.
        options: What to quantize.
        min_coverage: Share of the weighted nodes, 0 to 1, that makes a success; ``None``: at least one of them.

    Raises:
        ModelError: If the model cannot be converted.
        CacheMismatchError: If tensors have no usable scale, and the options do not say to go on.
    """
    try:
        quantized = convert(inputs.model, inputs.scales, options)
    except CacheMismatchError as error:
        raise CacheMismatchError(inputs.cache.path, error.reason) from error
    coverage = quantized.coverage
    enough = coverage.quantized > 0 if min_coverage is None else coverage.share >= min_coverage
    report = QdqReport(
        tool_version=__version__,
        # A share of 0 does not make a success of a model in which nothing is quantized.
        success=enough and coverage.quantized > 0,
        target=options.target,
        model=_facts(inputs.model.path),
        cache=_facts(inputs.cache.path),
        options=OptionFacts(
            operators=list(options.operators),
            exclude=[pattern.pattern for pattern in options.exclude],
            partial=options.partial,
            fp16=options.half,
            int8_weights=options.int8_weights,
            min_coverage=min_coverage,
        ),
        coverage=coverage,
        proposed_names=inputs.proposed_names,
        notes=[*inputs.cache.notes, *_idle(options, coverage)],
    )
    return quantized, report


def write_quantized(
    quantized: Quantized, model: ModelGraph, output: Path, report: tuple[Path, bytes] | None = None
) -> Path | None:
    """Write a Q/DQ model, the weights that have to stand beside it, and the report: all of them whole, or none.

    Args:
        quantized: What to write; its external tensors point to the data file afterwards.
        model: What it was made from.
        output: The .onnx file.
        report: Path and content of a file that belongs to it.

    Returns:
        The data file, or ``None`` where none was needed.

    Raises:
        OutputError: If a file cannot be written, or would take the place of the model, its weights or another of the files.
    """
    moving = outside_tensors(quantized.proto, model, output)
    data = data_path(output)
    taken = {file.resolve() for file in (model.path, *external_files(model))}
    for path in [output, *([data] if moving else []), *([report[0]] if report else [])]:
        if path.resolve() in taken:
            raise OutputError(
                path, "holds the model, its weights or another result: choose another name for the result"
            )
        taken.add(path.resolve())
    with ExitStack() as stack:
        if report is not None:
            stack.enter_context(new_file(report[0])).write(report[1])
        main = stack.enter_context(new_file(output))
        if moving:
            move_weights(moving, model, output, stack.enter_context(new_file(data)))
        main.write(serialised(quantized.proto, model))
    return data if moving else None


def _idle(options: QdqOptions, coverage: Coverage) -> Iterator[str]:
    """Tell of patterns that exclude nothing: a misspelt one is otherwise not seen."""
    for pattern in options.exclude:
        if not any(pattern.search(name) for node in coverage.nodes for name in (node.name, node.output) if name):
            yield f"--exclude {pattern.pattern!r} is found in no weighted node's name or output"


def _facts(path: Path) -> FileFacts:
    return FileFacts(file=path.name, sha256=sha256_of(path))
