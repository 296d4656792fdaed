"""The YAML files that a user writes: recipes (calibrators/) and datasets (data/). All faults are told at once.

Engine specs (engines/) join these when engines are built.
"""

from __future__ import annotations

import difflib
import math
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from trtcalib.errors import SpecError

__all__ = [
    "BUILTIN_RECIPES",
    "METHODS_GROUP",
    "DatasetSpec",
    "EntropyRecipe",
    "InputSpec",
    "MinMaxRecipe",
    "PercentileRecipe",
    "PluginRecipe",
    "Recipe",
    "load_dataset",
    "load_recipe",
]

METHODS_GROUP = "trtcalib.methods"
"""Entry-point group of third-party methods: ``name = module:function``, called as ``function(histogram, **options)``
and returning the amax as a float."""

_LARGEST_FILE = 1 << 20
"""Bytes of the largest YAML file that is read: a spec is a page, and a larger file is a mistake or an attack."""

_LONGEST_SHOWN = 80
"""Characters of a value that a fault shows."""

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


class PercentileRecipe(_RecipeBase):
    """``{method: percentile, percentile: 99.99}``: a stated share of the values stays inside."""

    method: Literal["percentile"]
    percentile: Annotated[float, Field(gt=0, le=100)]


class PluginRecipe(_RecipeBase):
    """``{method: NAME, options: {...}}``: a method that another package registers under ``trtcalib.methods``."""

    method: str
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)


Recipe = EntropyRecipe | MinMaxRecipe | PercentileRecipe | PluginRecipe

_BUILTIN: TypeAdapter[Any] = TypeAdapter(
    Annotated[EntropyRecipe | MinMaxRecipe | PercentileRecipe, Field(discriminator="method")]
)
_KEYS_OF_METHOD = {
    "entropy": set(EntropyRecipe.model_fields),
    "minmax": set(MinMaxRecipe.model_fields),
    "percentile": set(PercentileRecipe.model_fields),
}

BUILTIN_RECIPES = ("entropy", "minmax", "percentile-<p>")
"""Names that need no file; ``percentile-99.99`` is the recipe ``{method: percentile, percentile: 99.99}``."""


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


def load_recipe(recipe: str | Path | Recipe) -> Recipe:
    """Return a recipe from a built-in name, a YAML file or a recipe that was made before.

    Raises:
        SpecError: If the name is unknown, or the file is missing or has faults; all of them at once.
    """
    if isinstance(recipe, _RecipeBase):
        return recipe
    text = str(recipe)
    if Path(text).suffix in (".yaml", ".yml"):
        return _parse_recipe(_read_yaml(Path(text)), Path(text))
    if text.startswith("percentile-"):
        return _parse_recipe({"method": "percentile", "percentile": _number(text[len("percentile-") :])}, text)
    if text in ("entropy", "minmax"):
        return _parse_recipe({"method": text}, text)
    raise SpecError(
        text,
        (
            f"no such calibrator: expected {', '.join(BUILTIN_RECIPES)} or the name of a .yaml file{_nearest(text, ('entropy', 'minmax', 'percentile-99.99'))}",
        ),
    )


def load_dataset(path: Path | str) -> DatasetSpec:
    """Read a dataset YAML.

    Raises:
        SpecError: If the file is missing or has faults; all of them at once.
    """
    return _validate(TypeAdapter(DatasetSpec), _read_yaml(Path(path)), Path(path), set(DatasetSpec.model_fields))


def _parse_recipe(content: Any, path: Path | str) -> Recipe:
    method = content.get("method") if isinstance(content, dict) else None
    if isinstance(method, str) and method not in _KEYS_OF_METHOD and method in entry_points(group=METHODS_GROUP).names:
        plugin: Recipe = _validate(TypeAdapter(PluginRecipe), content, path, set(PluginRecipe.model_fields))
        return plugin
    keys = _KEYS_OF_METHOD.get(method, {"method"}) if isinstance(method, str) else {"method"}
    recipe: Recipe = _validate(_BUILTIN, content, path, keys)
    return recipe


T = TypeVar("T")


def _validate(adapter: TypeAdapter[T], content: Any, path: Path | str, keys: set[str]) -> T:
    if not isinstance(content, dict):
        raise SpecError(
            path, (f"found {type(content).__name__}, expected a mapping with the keys {', '.join(sorted(keys))}",)
        )
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        faults = tuple(dict.fromkeys(_fault(dict(e), keys, content) for e in error.errors(include_url=False)))
        raise SpecError(path, faults) from error


_EXPECTED = {
    "resize": "[height, width] or the length of the shorter side, 1 to 16384",
    "crop": "[height, width], at least 1",
    "scale": "a positive number or a fraction such as 1/255",
    "mean": "a list of numbers, one per channel",
    "std": "a list of positive numbers, one per channel",
    "options": "true, false, a number or a text",
}
"""What pydantic would say in several errors, one per form that a value may have."""


def _fault(error: dict[str, Any], keys: set[str], content: dict[Any, Any]) -> str:
    """Say one of pydantic's errors in one line that starts with the key's path."""
    location = list(error["loc"])
    if len(location) > 1 and location[0] in _KEYS_OF_METHOD:
        del location[0]  # the union's tag, not a key
    # Behind these stands a position in a list, or which branch of a union was tried.
    del location[3 if location[:1] == ["inputs"] else 2 :]
    key = ".".join(_brief(str(part), quoted=False) for part in location) or "method"
    kind, found = error["type"], error.get("input")
    if kind == "extra_forbidden":
        valid = set(InputSpec.model_fields) if len(location) > 1 else keys
        return f"{key}: unknown key{_nearest(str(location[-1]), valid)}; expected one of {', '.join(sorted(valid))}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        methods = ["entropy", "minmax", "percentile", *sorted(entry_points(group=METHODS_GROUP).names)]
        if kind == "union_tag_not_found":
            return f"method: this key is missing, expected one of {', '.join(methods)}"
        hint = _nearest(str(content["method"]), methods)
        return f"method: found {_brief(content['method'])}, expected one of {', '.join(methods)}{hint}"
    field = location[2] if len(location) > 2 else location[0] if len(location) > 1 else ""  # noqa: PLR2004 - inputs.NAME.FIELD
    if field in _EXPECTED:
        value = content
        for part in location:
            value = value[part]
        return f"{key}: found {_brief(value)}, expected {_EXPECTED[field]}"
    if kind == "missing":
        return f"{key}: this key is missing"
    if key == "percentile":
        return f"{key}: {_brief(found)} is not in (0, 100]"
    message = str(error["msg"])
    return f"{key}: found {_brief(found)}, {message[:1].lower()}{message[1:]}"


def _brief(value: Any, *, quoted: bool = True) -> str:
    """Return a value as a fault shows it: a hostile one may be a megabyte, or hold line ends."""
    text = value if not quoted and value.isprintable() else repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _nearest(word: str, valid: set[str] | tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(word, sorted(valid), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML without what a spec never needs: duplicate keys (the last would win) and aliases (a bomb's fuse)."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.get_mark()
            raise yaml.MarkedYAMLError(problem="aliases are not allowed here", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep=deep)


def _read_yaml(path: Path) -> Any:
    try:
        if path.exists() and not path.is_file():
            raise SpecError(path, ("is no regular file",))
        if path.stat().st_size > _LARGEST_FILE:
            raise SpecError(path, (f"the file is over {_LARGEST_FILE} bytes: a spec is a page of YAML",))
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except SpecError:
        raise
    except FileNotFoundError as error:
        raise SpecError(path, ("no such file",)) from error
    except OSError as error:
        raise SpecError(path, (f"cannot be read: {error.strerror}",)) from error
    except UnicodeDecodeError as error:
        raise SpecError(path, ("not a text file in UTF-8",)) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise SpecError(path, (f"{where}not valid YAML: {error.problem}",)) from error
    except RecursionError as error:
        raise SpecError(path, ("not valid YAML: nested too deeply",)) from error
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(path, (f"not valid YAML: {str(error).splitlines()[0]}",)) from error


VARIANTS_OF_RECIPE = get_args(EntropyRecipe.model_fields["variant"].annotation)
