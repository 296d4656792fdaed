"""Engine specs (engines/*.yaml): model + data + calibrator + shapes + builder settings, everything that decides an engine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from trtcalib.errors import SpecError
from trtcalib.spec_files import Wording, read_yaml, validate

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = [
    "BuilderSettings",
    "EngineSpec",
    "ShapeRange",
    "change_spec",
    "load_engine_spec",
    "parse_fallback",
    "parse_shapes",
    "parse_size",
]

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)")
_LARGEST_SIZE = 2**50
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

Axis = Annotated[int, Field(ge=1, le=2**31 - 1)]
FallbackPrecision = Literal["fp16", "fp32"]
T = TypeVar("T")

_TYPED_ELSEWHERE = {
    "fp16": "where every type is the model's: leave fp16 out; trtcalib qdq --fp16 makes float16 of what is not quantized",
    "fallback": "where every type is the model's: leave fallback out; trtcalib qdq --exclude keeps nodes out of INT8",
    "dla": "which is for models with Q/DQ nodes: DLA takes INT8 scales from a calibration only, so leave one of the two out",
}
"""By key, why it cannot stand beside ``strongly_typed``."""


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ShapeRange(_Spec):
    """The shapes that one input may have at run time; TensorRT tunes for ``opt`` and calibrates at it."""

    min: tuple[Axis, ...]
    opt: tuple[Axis, ...]
    max: tuple[Axis, ...]

    @model_validator(mode="after")
    def _check_order(self) -> ShapeRange:
        if not len(self.min) == len(self.opt) == len(self.max):
            raise ValueError(f"min, opt and max have {len(self.min)}, {len(self.opt)} and {len(self.max)} axes")
        for axis, sizes in enumerate(zip(self.min, self.opt, self.max, strict=True)):
            if list(sizes) != sorted(sizes):
                raise ValueError(
                    f"axis {axis} has min {sizes[0]}, opt {sizes[1]}, max {sizes[2]}, expected min <= opt <= max"
                )
        return self


class BuilderSettings(_Spec):
    """How TensorRT builds.

    Attributes:
        strongly_typed: Take every type from the model, which must hold Q/DQ nodes; ``--qdq`` on the command line. TensorRT 11 does
            nothing else.
        fp16: Let layers run in FP16 where that is faster.
        tf32: Let FP32 layers use TF32 on Ampere and later, in the calibration run too; ``None``: TensorRT's default, on.
        workspace: Most device memory for scratch, such as ``4GiB`` or a number of bytes.
        timing_cache: A file of measured kernels; read where it exists, and written anew.
        fallback: Layers that must not run in INT8, by precision; ``*`` and ``?`` match.
        dla: The DLA core that takes every layer it can; the others run on the GPU.
    """

    # First, for the validator of what cannot stand beside it sees only the fields before.
    strongly_typed: bool = False
    fp16: bool = False
    tf32: bool | None = None
    workspace: Annotated[int, Field(strict=True)] | str | None = None
    timing_cache: str | None = None
    fallback: dict[FallbackPrecision, tuple[str, ...]] = Field(default_factory=dict)
    dla: Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)] | None = None

    @field_validator("workspace")
    @classmethod
    def _check_workspace(cls, value: int | str | None) -> int | None:
        return None if value is None else parse_size(value)

    @field_validator(*_TYPED_ELSEWHERE)
    @classmethod
    def _check_typing(cls, value: T, info: ValidationInfo) -> T:
        is_given = value is not None and value is not False and value != {}
        if is_given and info.data.get("strongly_typed"):
            reason = _TYPED_ELSEWHERE[str(info.field_name)]
            raise PydanticCustomError("strongly_typed", f"not with strongly_typed (--qdq), {reason}")
        return value


class EngineSpec(_Spec):
    """One engine. In a file, paths are relative to it.

    Attributes:
        model: The ONNX file.
        data: Calibration data; ``None`` for a model that holds Q/DQ nodes.
        calibrator: ``entropy``, ``minmax``, ``mse``, ``percentile-<p>`` or a recipe's YAML file.
        batch_size: Samples per calibration batch; ``None``: the batch of ``opt``.
        max_samples: Only the first so many samples are used.
        shuffle: Seed of the samples' order.
        shapes: Per input with free axes, the shapes that it may have.
        builder: How TensorRT builds.
        output: The engine to write.
    """

    model: str
    data: str | None = None
    calibrator: str = "entropy"
    batch_size: Annotated[int, Field(ge=1)] | None = None
    max_samples: Annotated[int, Field(ge=1)] | None = None
    shuffle: Annotated[int, Field(ge=0)] | None = None
    shapes: dict[str, ShapeRange] = Field(default_factory=dict)
    builder: BuilderSettings = Field(default_factory=BuilderSettings)
    output: str | None = None


def _typing_fault(error: ErrorDetails, _content: Mapping[Any, Any]) -> str | None:
    return f"{'.'.join(map(str, error['loc']))}: {error['msg']}" if error["type"] == "strongly_typed" else None


_SHAPE = "a list of sizes of at least 1, such as [8, 3, 224, 224]"

_WORDING = Wording(
    keys=set(EngineSpec.model_fields),
    below={("shapes", "*"): set(ShapeRange.model_fields), ("builder",): set(BuilderSettings.model_fields)},
    expected={
        "min": _SHAPE,
        "opt": _SHAPE,
        "max": _SHAPE,
        "workspace": "a number of bytes, or a size such as 4GiB or 512MiB",
        "fallback": "lists of layers under fp16 or fp32, such as {fp16: [conv1]}",
        "dla": "the number of a DLA core, such as 0",
    },
    special=_typing_fault,
)


def load_engine_spec(path: Path | str) -> EngineSpec:
    """Read an engine spec; its paths come back relative to the working folder, the output filled in.

    Raises:
        SpecError: If the file is missing or has faults; all of them at once.
    """
    path = Path(path)
    spec = validate(TypeAdapter(EngineSpec), read_yaml(path), path, _WORDING)
    folder = path.parent
    if spec.data is not None and _FUNCTION.fullmatch(spec.data) and not (folder / spec.data).exists():
        # In the current folder it would read as module:function, and elsewhere as a file.
        raise SpecError(
            path, (f"data: {spec.data!r} does not exist beside this file; a YAML file cannot name code to run",)
        )

    def beside(name: str | None) -> str | None:
        return None if name is None else str(folder / name)

    # What nobody gave stays so in the copy.
    recipe = {"calibrator": beside(spec.calibrator)} if Path(spec.calibrator).suffix in (".yaml", ".yml") else {}
    builder = spec.builder.model_copy(update={"timing_cache": beside(spec.builder.timing_cache)})
    return spec.model_copy(
        update={
            "model": beside(spec.model),
            "data": beside(spec.data),
            **recipe,
            "builder": builder,
            "output": beside(spec.output or f"out/{path.stem}.engine"),
        }
    )


def change_spec(spec: EngineSpec, changes: Mapping[str, Any], builder: Mapping[str, Any]) -> EngineSpec:
    """Return a spec with some keys, and some of its builder settings, replaced; ``None`` leaves a key as it is.

    What nobody gave, in the spec or in the changes, is not among the result's ``model_fields_set``.

    Raises:
        SpecError: If the result has faults.
    """

    def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
        return {**old, **{key: value for key, value in new.items() if value is not None}}

    settings = merged(spec.builder.model_dump(exclude_unset=True), builder)
    content = merged(spec.model_dump(exclude_unset=True), {**changes, "builder": settings})
    return validate(TypeAdapter(EngineSpec), content, "engine spec", _WORDING)


def parse_size(text: int | str) -> int:
    """Return the bytes of ``4GiB``, ``512 MB`` or a plain number.

    Raises:
        ValueError: If it is none of these, or is not positive.
    """
    match = _SIZE.fullmatch(str(text).strip())
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError(f"{text!r} is no size such as 4GiB, 512MiB or a number of bytes")
    size = float(match[1]) * _UNITS[match[2].lower()]
    if not 1 <= size <= _LARGEST_SIZE:
        raise ValueError(f"{text!r} is not between 1 byte and 1024 TiB")
    return int(size)


def parse_shapes(texts: Sequence[str]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return shape ranges from ``x:1x3x224x224,8x3x224x224,32x3x224x224`` (min, opt, max), or one shape for all three.

    Raises:
        SpecError: If a text is not of that form, or an input stands twice.
    """
    ranges: dict[str, dict[str, tuple[int, ...]]] = {}
    for text in texts:
        # Tensor names may hold ':' themselves; shapes never do.
        name, _, listed = text.rpartition(":")
        shapes = [re.fullmatch(r"[0-9]{1,10}(x[0-9]{1,10})*", shape.strip()) for shape in listed.split(",")]
        if not name or len(shapes) not in (1, 3) or not all(shapes):
            raise SpecError(
                "--shapes",
                (f"found {text!r}, expected INPUT:MIN,OPT,MAX such as x:1x3x224x224,8x3x224x224,32x3x224x224",),
            )
        if name in ranges:
            raise SpecError("--shapes", (f"input {name!r} stands twice",))
        sizes = [tuple(int(size) for size in match[0].split("x")) for match in shapes if match]
        ranges[name] = dict(zip(("min", "opt", "max"), sizes * (3 // len(sizes)), strict=True))
    return ranges


def parse_fallback(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return fallback layers from ``fp16:conv1,conv2``.

    Raises:
        SpecError: If a text is not of that form.
    """
    layers: dict[str, tuple[str, ...]] = {}
    for text in texts:
        precision, _, listed = text.partition(":")
        names = tuple(name.strip() for name in listed.split(",") if name.strip())
        if precision not in ("fp16", "fp32") or not names:
            raise SpecError("--fallback", (f"found {text!r}, expected fp16:LAYER,LAYER or fp32:LAYER,LAYER",))
        layers[precision] = (*layers.get(precision, ()), *names)
    return layers
