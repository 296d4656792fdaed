"""Section 8: real models with Q/DQ nodes, ours beside ONNX Runtime's, held against FP32 and given to TensorRT-RTX."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
from models import MODELS, PICTURES, Model, feeds, model_path
from numpy.typing import NDArray
from report import Section

from trtcalib import calibrate
from trtcalib.batches import Batching, plan_batches
from trtcalib.errors import MissingPackageError
from trtcalib.model_comparison import ComparedOutput, compare_models
from trtcalib.onnx_graph import ModelGraph, read_model
from trtcalib.qdq.prepared import QdqOptions
from trtcalib.qdq.upgrade import FIRST_OPSET
from trtcalib.qdq_files import quantize, read_inputs, write_quantized
from trtcalib.samples.sources import open_source
from trtcalib.trt.conformance import COMPUTE_CAPABILITIES, check_model
from trtcalib.trt.conformance_values import Conformance

__all__ = ["qdq_section"]

CALIBRATION_PICTURES = 32
"""ONNX Runtime's histogram methods keep the activations of all of them."""

COMPARED_PICTURES = 16
"""Others than those, but cut from the same photographs."""

OUR_RECIPES = ("entropy", "percentile-99.99", "minmax")

PERCENTILE = 99.99
"""For ONNX Runtime too, whose own default is 99.999."""

WEIGHTED = ["Conv", "ConvTranspose", "MatMul", "Gemm"]

DEFAULT = "ONNX Runtime, its nodes"
NARROW = "ONNX Runtime, our nodes"

SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True}

NARROW_OPTIONS = {
    **SYMMETRIC,
    "AddQDQPairToWeight": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": WEIGHTED,
    "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
    "CalibPercentile": PERCENTILE,
}
"""As near to ours as it goes: weighted operators' inputs only, no bias, weights as float with both nodes."""

RUNTIME_RUNS = ((DEFAULT, "MinMax"), (NARROW, "MinMax"), (NARROW, "Percentile"), (NARROW, "Entropy"))

TEXT = frozenset({"page.png", "text.png"})
"""Photographs of text; the others give a text detector nothing to find."""

SHOWN_REASON = 70
"""Characters of what TensorRT-RTX says."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A float model and its pictures.

    Attributes:
        model: What the bench knows of it.
        path: Its file, with shapes that TensorRT-RTX can tell apart.
        calibration: Prepared pictures, shape [count, 3, height, width].
        compared: Others.
    """

    model: Model
    path: Path
    calibration: NDArray[np.float32]
    compared: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to quantize.

    Attributes:
        who: Whose, and which nodes.
        method: How the ranges are chosen.
        make: Writes the quantized model of a subject to a path.
    """

    who: str
    method: str
    make: Callable[[Subject, Path], None]


def qdq_section(*, quick: bool, workers: int) -> Section:
    """Quantize every model in every way, compare with FP32, and ask TensorRT-RTX once for each choice of nodes."""
    calibration, compared = (2, 2) if quick else (CALIBRATION_PICTURES, COMPARED_PICTURES)
    rows: list[tuple[str, ...]] = []
    facts: dict[str, Any] = {}
    for model in _models():
        with tempfile.TemporaryDirectory() as folder:
            pictures = _pictures(model, calibration + compared)
            path = _with_usable_shapes(model, Path(folder))
            subject = Subject(model, path, pictures[:calibration], pictures[calibration:])
            found = dict(_measure(subject, Path(folder), workers))
        rows += [(f"**{model.title}**", "", "", "", "", ""), *(_row(key, each) for key, each in found.items())]
        facts[model.title] = {f"{who}, {method}": each for (who, method), each in found.items()}
    return Section(
        title="Q/DQ models beside ONNX Runtime's",
        setting=f"Calibrated on {calibration} pictures, compared with FP32 on {compared} others cut from the same photographs, Q/DQ nodes simulated in float. ONNX Runtime: "
        "opset 13 by onnx, quant_pre_process, then quantize_static: QDQ, per_channel, symmetric INT8 activations and weights, all pictures at once. TensorRT-RTX "
        f"was asked once for each choice of nodes, for {_capabilities(COMPUTE_CAPABILITIES)}; the engines were not run.",
        columns=("quantized by", "ranges by", "Q nodes on activations", "SQNR dB", "same largest", "TensorRT-RTX"),
        rows=rows,
        facts=facts,
    )


def _models() -> Iterator[Model]:
    yield replace(MODELS["det"], title="PP-OCRv4 det 320", size=(320, 320))
    yield MODELS["rec"]
    yield replace(
        MODELS["rec"],
        title="PP-OCR mobile v2.0 cls 48x192",
        file="rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        size=(48, 192),
    )
    yield MODELS["yolo"]


def _pictures(model: Model, wanted: int) -> NDArray[np.float32]:
    """Return prepared pictures, shape [wanted, 3, height, width], of text where the model reads text."""
    if model.package == "nudenet":
        return np.concatenate([feed[model.input] for feed in feeds(model, wanted)])
    # The first draw of a picture's index says which photograph it is cut from.
    of_text = (
        feed[model.input]
        for index, feed in enumerate(feeds(model, wanted * len(PICTURES) * 10))
        if PICTURES[np.random.default_rng(index).integers(len(PICTURES))] in TEXT
    )
    return np.concatenate(list(islice(of_text, wanted)))


def _with_usable_shapes(model: Model, folder: Path) -> Path:
    """Return the model's file, or a copy with a fixed input where two of the input's axes have one name."""
    path = model_path(model)
    proto = onnx.load(path)
    axes = proto.graph.input[0].type.tensor_type.shape.dim
    names = [axis.dim_param for axis in axes if axis.dim_param]
    if len(names) == len(set(names)):
        return path
    for axis, size in zip(axes, (1, 3, *model.size), strict=True):
        axis.dim_value = size
    del proto.graph.value_info[:]
    onnx.save(proto, folder / "fixed.onnx")
    return folder / "fixed.onnx"


def _measure(subject: Subject, folder: Path, workers: int) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """Yield what each contender came to, by whose nodes and method; what fails says so."""
    asked: set[str] = set()
    for index, contender in enumerate(_contenders(workers)):
        print(f"  {subject.model.title}: {contender.who}, {contender.method} ...", file=sys.stderr)
        path = folder / f"{index}.onnx"
        key = contender.who, contender.method
        try:
            with redirect_stdout(sys.stderr):  # ONNX Runtime's calibrators print
                contender.make(subject, path)
            quantized = read_model(path)
            output = _compare(subject, quantized, workers)
        except Exception as error:
            yield key, {"failed": f"{type(error).__name__}: {error}"}
            continue
        facts = {"activations": _quantized_activations(quantized), "output": output.model_dump()}
        if contender.who not in asked:
            asked.add(contender.who)
            try:
                facts["builder"] = check_model(path, shapes=_shapes(subject)).as_json()
            except MissingPackageError as error:
                facts["builder missing"] = str(error)
        yield key, facts


def _contenders(workers: int) -> list[Contender]:
    ours = [Contender("trtcalib", recipe, partial(_ours, recipe, workers)) for recipe in OUR_RECIPES]
    return ours + [Contender(who, method, partial(_runtime, who, method)) for who, method in RUNTIME_RUNS]


def _ours(recipe: str, workers: int, subject: Subject, path: Path) -> None:
    cache = path.with_suffix(".cache")
    calibrate(subject.path, subject.calibration, recipe, workers=workers).write_cache(cache)
    inputs = read_inputs(subject.path, cache)
    quantized, _ = quantize(inputs, QdqOptions())
    write_quantized(quantized, inputs.model, path)


def _runtime(who: str, method: str, subject: Subject, path: Path) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_suffix(".prepared.onnx")
    source = subject.path
    proto = onnx.load(source)
    if proto.opset_import[0].version < FIRST_OPSET:
        source = path.with_suffix(".upgraded.onnx")
        onnx.save(onnx.version_converter.convert_version(proto, FIRST_OPSET), source)
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(path),
        _reader(subject),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=WEIGHTED if who == NARROW else None,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=getattr(CalibrationMethod, method),
        extra_options=NARROW_OPTIONS if who == NARROW else SYMMETRIC,
    )


def _reader(subject: Subject) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is untyped
        def __init__(self) -> None:
            self._feeds = iter([{subject.model.input: picture[np.newaxis]} for picture in subject.calibration])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self._feeds, None)

    return Reader()


def _quantized_activations(model: ModelGraph) -> int:
    """Count the QuantizeLinear nodes whose input is no weight."""
    graph = model.proto.graph
    fixed = {tensor.name for tensor in graph.initializer}
    fixed |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    return sum(node.op_type == "QuantizeLinear" and node.input[0] not in fixed for node in graph.node)


def _compare(subject: Subject, quantized: ModelGraph, workers: int) -> ComparedOutput:
    reference = read_model(subject.path)
    source = open_source(subject.compared, reference.inputs)
    batches = plan_batches(source, reference.fixed_batch, Batching(batch_size=1))
    return compare_models(reference, quantized, batches, workers=workers).outputs[0]


def _shapes(subject: Subject) -> Mapping[str, Mapping[str, tuple[int, ...]]]:
    """Return one shape for each input with free axes."""
    given = onnx.load(subject.path).graph.input[0]
    if all(axis.dim_value > 0 for axis in given.type.tensor_type.shape.dim):
        return {}
    return {given.name: dict.fromkeys(("min", "opt", "max"), (1, 3, *subject.model.size))}


def _row(key: tuple[str, str], facts: Mapping[str, Any]) -> tuple[str, ...]:
    who, method = key
    if "failed" in facts:
        return (who, method, "", "", "", f"not made: {facts['failed'][:SHOWN_REASON]}")
    output, builder = ComparedOutput(**facts["output"]), facts.get("builder")
    return (
        who,
        method,
        str(facts["activations"]),
        "-" if output.sqnr_db is None else f"{output.sqnr_db:.1f}",
        "-" if output.top1_agreement is None else f"{output.top1_agreement:.1%} of {output.rows}",
        _said(builder) if builder is not None else "not installed" if "builder missing" in facts else "",
    )


def _said(builder: Mapping[str, Any]) -> str:
    """Return in some words what TensorRT-RTX said."""
    found = Conformance(**{name: value for name, value in builder.items() if name != "passed"})
    if found.parser != "accepted":
        return f"{found.parser} by its parser: {'; '.join(found.parser_faults[:1]).rpartition(': ')[2][:SHOWN_REASON]}"
    good = [build.compute_capability for build in found.builds if build.outcome == "accepted"]
    parts = [f"accepted for {_capabilities(good)}"] if good else []
    bad = [build for build in found.builds if build.outcome != "accepted"]
    parts += [f"SM{build.compute_capability} {build.outcome}: {build.reason[:SHOWN_REASON]}" for build in bad[:1]]
    parts += [f"{len(found.parser_warnings)} parser warnings"] if found.parser_warnings else []
    told = sorted({str(build.told_int8) for build in found.builds if build.told_int8 is not None})
    ready = len(found.nodes) - len(found.in_float)
    listed = f" ({' or '.join(told)} as the builder lists them)" if told and told != [str(ready)] else ""
    return "; ".join([*parts, f"INT8 inputs: {ready} of {len(found.nodes)}{listed}"])


def _capabilities(numbers: Sequence[int]) -> str:
    return "SM" + "/".join(map(str, numbers))
