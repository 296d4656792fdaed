"""The YAML files that a user writes: recipes (calibrators/) and datasets (data/). All faults are told at once.

Engine specs (engines/) stand in :mod:`trtcalib.engine_spec`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

from trtcalib.errors import SpecError
from trtcalib.spec_files import Wording, brief, nearest, read_yaml, validate

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = [
    "BUILTIN_RECIPES",
    "METHODS_GROUP",
    "DatasetSpec",
    "EntropyRecipe",
    "InputSpec",
    "MinMaxRecipe",
    "MseRecipe",
    "PercentileRecipe",
    "PluginRecipe",
    "Recipe",
    "load_dataset",
    "load_names",
    "load_recipe",
    "recipe_of",
]

METHODS_GROUP = "trtcalib.methods"
"""Entry-point group of third-party methods: ``name = module:function``, called as ``function(histogram, **options)``
and returning the amax as a float."""

RangePolicy = Literal["doubling", "global", "square", "extend"]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _RecipeBase(_Spec):
    range: RangePolicy = "doubling"
    bins: Annotated[int, Field(ge=256, le=65536, multiple_of=2)] = 2048


class EntropyRecipe(_RecipeBase):
    """``{method: entropy, variant: tensorrt}``: the KL search."""

    method: Literal["entropy"]
    variant: Literal["tensorrt", "pseudocode", "smoothed", "pytorch-quantization"] = "tensorrt"


class MinMaxRecipe(_RecipeBase):
    """``{method: minmax}``: the largest magnitude seen."""

    method: Literal["minmax"]


class MseRecipe(_RecipeBase):
    """``{method: mse}``: the least expected squared error of INT8."""

    method: Literal["mse"]


class PercentileRecipe(_RecipeBase):
    """``{method: percentile, percentile: 99.99}``: a stated share of the values stays inside."""

    method: Literal["percentile"]
    percentile: Annotated[float, Field(gt=0, le=100)]


class PluginRecipe(_RecipeBase):
    """``{method: NAME, options: {...}}``: a method that another package registers under ``trtcalib.methods``."""

    method: str
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)


Recipe = EntropyRecipe | MinMaxRecipe | MseRecipe | PercentileRecipe | PluginRecipe

_BUILTIN: TypeAdapter[Any] = TypeAdapter(
    Annotated[EntropyRecipe | MinMaxRecipe | MseRecipe | PercentileRecipe, Field(discriminator="method")]
)
_KEYS_OF_METHOD = {
    "entropy": set(EntropyRecipe.model_fields),
    "minmax": set(MinMaxRecipe.model_fields),
    "mse": set(MseRecipe.model_fields),
    "percentile": set(PercentileRecipe.model_fields),
}

BUILTIN_RECIPES = ("entropy", "minmax", "mse", "percentile-<p>")
"""Names that need no file; ``percentile-99.99`` is the recipe ``{method: percentile, percentile: 99.99}``."""

_NAMED_ALONE = ("entropy", "minmax", "mse")
"""Methods without a number in their name."""


class InputSpec(_Spec):
    """How one input of the model is made from what the source holds; applied in the order of the fields.

    Attributes:
        resize: ``[height, width]`` in pixels, or one number for the shorter side.
        fit: For ``[height, width]``: ``stretch``, or ``letterbox``, which keeps the aspect and pads with ``pad``.
        pad: 0..255, the grey that a letterbox adds.
        interpolation: ``bilinear`` (antialiased, as Pillow does it), ``nearest`` or ``bicubic``.
        crop: ``[height, width]`` cut from the centre.
        colour: ``rgb``, ``bgr`` or ``grey``.
        layout: ``chw`` or ``hwc``; the batch axis is put in front.
        scale: Factor, or a fraction such as ``1/255``, which divides (``x / 255``, in float32).
        mean: Subtracted per channel, after the scale.
        std: Divided by per channel, after the mean.
        dtype: The type to cast to.
    """

    resize: (
        tuple[Annotated[int, Field(gt=0, le=16384)], Annotated[int, Field(gt=0, le=16384)]]
        | Annotated[int, Field(gt=0, le=16384)]
        | None
    ) = None
    fit: Literal["stretch", "letterbox"] = "stretch"
    pad: Annotated[int, Field(ge=0, le=255)] = 114
    interpolation: Literal["bilinear", "nearest", "bicubic"] = "bilinear"
    crop: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] | None = None
    colour: Literal["rgb", "bgr", "grey"] = "rgb"
    layout: Literal["chw", "hwc"] = "chw"
    scale: Annotated[float, Field(gt=0)] | str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    dtype: Literal["float32", "float16", "float64", "int64", "int32", "int8", "uint8", "bool"] | None = None

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, value: float | str | None) -> float | str | None:
        if isinstance(value, str):
            numerator, _, denominator = value.partition("/")
            try:
                factor = float(numerator) / float(denominator or 1)
            except (ValueError, ZeroDivisionError) as error:
                raise ValueError(f"{value!r} is no number and no fraction such as 1/255") from error
            if not 0 < factor < math.inf:
                raise ValueError(f"{value!r} is not positive and finite")
        return value


class DatasetSpec(_Spec):
    """What to calibrate on.

    Attributes:
        source: A ``.npz``, a ``.npy`` or a folder of images, relative to the YAML file.
        labels: A ``.npy`` with one label per sample, relative to the YAML file; for accuracy studies.
        inputs: Preprocessing per model input.
    """

    source: str
    labels: str | None = None
    inputs: dict[str, InputSpec] = Field(default_factory=dict)


_EXPECTED = {
    "resize": "[height, width] or the length of the shorter side, 1 to 16384",
    "crop": "[height, width], at least 1",
    "scale": "a positive number or a fraction such as 1/255",
    "mean": "a list of numbers, one per channel",
    "std": "a list of positive numbers, one per channel",
    "options": "true, false, a number or a text",
}
"""What pydantic would say in several errors, one per form that a value may have."""


_DATASET = Wording(
    keys=set(DatasetSpec.model_fields), below={("inputs", "*"): set(InputSpec.model_fields)}, expected=_EXPECTED
)


def load_recipe(recipe: str | Path | Recipe) -> Recipe:
    """Return a recipe from a built-in name, a YAML file or a recipe that was made before.

    Raises:
        SpecError: If the name is unknown, or the file is missing or has faults; all of them at once.
    """
    if isinstance(recipe, _RecipeBase):
        return recipe
    text = str(recipe)
    if Path(text).suffix in (".yaml", ".yml"):
        return _parse_recipe(read_yaml(Path(text)), Path(text))
    if text.startswith("percentile-"):
        return _parse_recipe({"method": "percentile", "percentile": _number(text[len("percentile-") :])}, text)
    if text in _NAMED_ALONE:
        return _parse_recipe({"method": text}, text)
    raise SpecError(
        text,
        (
            f"no such calibrator: expected {', '.join(BUILTIN_RECIPES)} or the name of a .yaml file{nearest(text, (*_NAMED_ALONE, 'percentile-99.99'))}",
        ),
    )


def recipe_of(stated: Mapping[str, Any]) -> Recipe:
    """Return the recipe that a manifest or a result states.

    Raises:
        SpecError: If it has faults; all of them at once.
    """
    return _parse_recipe(dict(stated), "recipe")


def load_dataset(path: Path | str) -> DatasetSpec:
    """Read a dataset YAML.

    Raises:
        SpecError: If the file is missing or has faults; all of them at once.
    """
    return validate(TypeAdapter(DatasetSpec), read_yaml(Path(path)), Path(path), _DATASET)


def load_names(path: Path | str) -> dict[str, str]:
    """Read a YAML file that maps names of a cache to tensors of a model.

    Raises:
        SpecError: If the file is missing or is no mapping of texts to texts.
    """
    adapter = TypeAdapter(dict[str, str])
    return validate(adapter, read_yaml(Path(path)), Path(path), Wording(keys={"CACHE-NAME: MODEL-TENSOR"}))


def _parse_recipe(content: Any, path: Path | str) -> Recipe:
    method = content.get("method") if isinstance(content, dict) else None
    if isinstance(method, str) and method not in _KEYS_OF_METHOD and method in entry_points(group=METHODS_GROUP).names:
        plugin: Recipe = validate(TypeAdapter(PluginRecipe), content, path, _wording(set(PluginRecipe.model_fields)))
        return plugin
    keys = _KEYS_OF_METHOD.get(method, {"method"}) if isinstance(method, str) else {"method"}
    recipe: Recipe = validate(_BUILTIN, content, path, _wording(keys))
    return recipe


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _wording(keys: set[str]) -> Wording:
    return Wording(keys=keys, expected=_EXPECTED, tags=_KEYS_OF_METHOD, special=_method_fault, default_key="method")


def _method_fault(error: ErrorDetails, content: Mapping[Any, Any]) -> str | None:
    """Say what is wrong with a recipe's method or percentile; ``None`` for other faults."""
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        methods = [*_KEYS_OF_METHOD, *sorted(entry_points(group=METHODS_GROUP).names)]
        if error["type"] == "union_tag_not_found":
            return f"method: this key is missing, expected one of {', '.join(methods)}"
        hint = nearest(str(content["method"]), methods)
        return f"method: found {brief(content['method'])}, expected one of {', '.join(methods)}{hint}"
    if error["loc"][-1] == "percentile" and error["type"] not in ("missing", "extra_forbidden"):
        return f"percentile: {brief(error['input'])} is not in (0, 100]"
    return None


VARIANTS_OF_RECIPE = get_args(EntropyRecipe.model_fields["variant"].annotation)
