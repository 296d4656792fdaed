"""TensorRT's calibration cache against our reference: do both choose the same bins, and if not, what does the cache tell?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from trtcalib.batches import Batching
from trtcalib.calibration import Calibration, calibrate
from trtcalib.core.agreement import Agreement, compare, invert
from trtcalib.core.cache import CalibrationCache, format_cache
from trtcalib.core.entropy import VARIANTS
from trtcalib.core.histogram import Histogram
from trtcalib.crosscheck_notes import notes
from trtcalib.errors import CacheMismatchError, SpecError
from trtcalib.files import sha256_of_bytes
from trtcalib.manifest import CrosscheckFacts, Manifest, manifest_path, read_manifest
from trtcalib.methods import ClipPoint, describe, method_of
from trtcalib.passes import Progress
from trtcalib.specs import EntropyRecipe, Recipe

__all__ = ["Crosscheck", "Stated", "crosscheck", "read_stated", "reference"]

# A plug-in's recipe takes any method's name, so the built-in ones are tried before it.
_RECIPE: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(union_mode="left_to_right")])


@dataclass(frozen=True, slots=True)
class Stated:
    """What the manifest beside a cache states.

    Attributes:
        manifest: ``None`` where there is none, or where it is of other bytes than the cache's.
        recipe: How each amax was chosen, by that manifest.
        note: Why the manifest that stands there is not believed.
    """

    manifest: Manifest | None = None
    recipe: Recipe | None = None
    note: str | None = None


class _Ours(NamedTuple):
    """What our calibration says, computed once."""

    scales: Mapping[str, np.float32]
    origins: Mapping[str, str]
    histograms: Mapping[str, Histogram]
    clips: Mapping[str, ClipPoint]
    inherits: Mapping[str, str]
    half_bin: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Crosscheck:
    """The result.

    Attributes:
        header: First line of the cache.
        method: What our side computed; it says so where a manifest named it.
        batch_size: Samples per batch on our side.
        samples: Samples on our side.
        tensors: One entry per line of the cache, in its order.
        only_ours: Tensors of ours that the cache does not list.
        min_agreement: The share that was asked for.
        notes: What the cache tells as a whole, one sentence each.
    """

    header: str
    method: str
    batch_size: int
    samples: int
    tensors: tuple[Agreement, ...]
    only_ours: tuple[str, ...]
    min_agreement: float
    notes: tuple[str, ...]

    @property
    def shared(self) -> tuple[Agreement, ...]:
        """The tensors that both have."""
        return tuple(tensor for tensor in self.tensors if tensor.ours is not None)

    @property
    def agreement(self) -> float:
        """The share of the shared tensors that agree, 0 to 1."""
        return sum(tensor.agrees for tensor in self.shared) / len(self.shared)

    @property
    def passed(self) -> bool:
        """Whether enough of them agree."""
        return self.agreement >= self.min_agreement

    @property
    def counts(self) -> dict[str, int]:
        """How many tensors have each verdict."""
        return dict(Counter(tensor.verdict for tensor in self.tensors))

    @property
    def facts(self) -> CrosscheckFacts:
        """What a manifest keeps of it."""
        return CrosscheckFacts(
            method=self.method,
            tensors=len(self.shared),
            agreement=self.agreement,
            passed=self.passed,
            counts=self.counts,
            notes=[_text(note) for note in self.notes],
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values; numbers that JSON cannot hold are null."""
        return {
            "schema_version": 1,
            "header": _text(self.header),
            "method": self.method,
            "batch_size": self.batch_size,
            "samples": self.samples,
            "agreement": self.agreement,
            "min_agreement": self.min_agreement,
            "passed": self.passed,
            "counts": self.counts,
            "notes": [_text(note) for note in self.notes],
            "only_ours": [_text(name) for name in self.only_ours],
            "tensors": [_plain(tensor) for tensor in self.tensors],
        }


def read_stated(cache: CalibrationCache, path: Path) -> Stated:
    """Read the manifest beside a cache, where there is one; it is believed only if it is of these very bytes.

    Args:
        cache: As it was read.
        path: The cache's file.

    Raises:
        SpecError: If what stands there is no manifest, or its recipe is not known here.
    """
    beside = manifest_path(path)
    if not beside.is_file():
        return Stated()
    manifest = read_manifest(beside)
    if sha256_of_bytes(format_cache(cache)) != manifest.cache_sha256:
        return Stated(
            note=f"the manifest {beside} is of another cache, or the cache was changed after it: nothing in it was believed"
        )
    try:
        return Stated(manifest, _RECIPE.validate_python(manifest.recipe))
    except ValidationError as error:
        fault = f"recipe: {manifest.recipe!r} is not known here: move the manifest away to compare by the method of the cache's header"
        raise SpecError(beside, (fault,)) from error


def crosscheck(
    cache: CalibrationCache,
    ours: Calibration,
    *,
    min_agreement: float = 0.95,
    names: Mapping[str, str] | None = None,
    path: Path | None = None,
    stated: Stated | None = None,
) -> Crosscheck:
    """Compare a cache with our calibration of the same model and data.

    Args:
        cache: TensorRT's.
        ours: The reference, see :func:`reference`.
        min_agreement: The share of shared names that must agree, 0 to 1.
        names: The model's tensor for names that TensorRT's parser made.
        path: The cache's file, for errors.
        stated: What the manifest beside the cache states.

    Raises:
        CacheMismatchError: If no name of the cache is a tensor of the model.
    """
    stated = stated or Stated()
    recipe = ours.recipe
    half_bin = VARIANTS[recipe.variant].half_bin if isinstance(recipe, EntropyRecipe) else True
    inherits = {tensor.name: tensor.scale_of for tensor in ours.tensors if tensor.scale_of is not None}
    mine = _Ours(ours.scales, ours.origins, ours.histograms, ours.clips, inherits, half_bin)
    theirs = cache.scales
    known = {name: (names or {}).get(name, name) for name in theirs}
    # A name of the model itself goes before one that the map gives to the same tensor.
    by_ours = {known[name]: scale for name, scale in theirs.items() if known[name] != name}
    by_ours.update((name, scale) for name, scale in theirs.items() if known[name] == name)
    tensors = tuple(
        _agreement(name, known[name], scale, by_ours, mine)
        if known[name] in mine.scales
        else Agreement(name=name, verdict="unknown name", theirs=float(scale))
        for name, scale in theirs.items()
    )
    if not any(tensor.ours is not None for tensor in tensors):
        raise CacheMismatchError(
            path,
            f"none of its {len(theirs)} names is a tensor of the model, which has {len(mine.scales)}: it is the cache of another "
            "model, or --names must say which tensors they are",
        )
    facts = ours.provenance
    return Crosscheck(
        header=cache.header,
        method=describe(recipe) + (" (as its manifest says)" if stated.recipe == recipe else ""),
        batch_size=facts.batching.batch_size,
        samples=facts.data.samples,
        tensors=tensors,
        only_ours=tuple(name for name in mine.scales if name not in by_ours),
        min_agreement=min_agreement,
        notes=(*_manifest_notes(stated, ours), *notes(tensors, cache, ours)),
    )


def reference(  # noqa: PLR0913 - the public call names every choice that changes the result
    cache: CalibrationCache,
    model: Path | str,
    data: Any,
    batching: Batching,
    *,
    recipe: Recipe | None = None,
    skip_bad_images: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Calibrate on the CPU by the method that a cache's header names, or by the one that its manifest does.

    Raises:
        TrtcalibError: As :func:`trtcalib.calibrate`.
    """
    return calibrate(
        model,
        data,
        recipe or method_of(cache.algorithm),
        batch_size=batching.batch_size,
        max_samples=batching.max_samples,
        shuffle=batching.shuffle,
        drop_last=batching.drop_last,
        skip_bad_images=skip_bad_images,
        workers=workers,
        progress=progress,
    )


def _agreement(name: str, tensor: str, theirs: np.float32, by_ours: Mapping[str, np.float32], ours: _Ours) -> Agreement:
    """Compare one tensor; ``tensor`` and ``by_ours`` go by our names."""
    origin = ours.origins[tensor]
    histogram = ours.histograms.get(origin)
    found = compare(
        name,
        theirs,
        ours.scales[tensor],
        None if histogram is None else invert(theirs, histogram, half_bin=ours.half_bin),
        ours.clips[origin].bin_m,
        None if origin == tensor else origin,
    )
    if tensor != name:
        found = replace(found, tensor=tensor)
    source = ours.inherits.get(tensor)
    if source is not None and by_ours.get(source) == theirs:
        # Whether it agrees is what its source does: two wrong scales that are the same are still wrong.
        return replace(found, verdict="inherited", origin=source)
    return found


def _manifest_notes(stated: Stated, ours: Calibration) -> Iterator[str]:
    """Say where our side is not what the manifest states."""
    if stated.note is not None:
        yield stated.note
    if stated.manifest is None:
        return
    was, now = stated.manifest.provenance, ours.provenance
    if (was.model.sha256, was.model.external_sha256) != (now.model.sha256, now.model.external_sha256):
        yield "its manifest states another model than this one"
    # A function's digest is that of what it happened to give.
    if was.data.is_path and now.data.is_path and was.data.sha256 != now.data.sha256:
        yield "its manifest states other data, or another preparation of them, than these"
    for key in ("batch_size", "max_samples", "shuffle"):
        then, here = getattr(was.batching, key), getattr(now.batching, key)
        if then != here:
            yield f"its manifest states {key} {then}, and this comparison took {here}"


def _text(name: str) -> str:
    """Return text that JSON readers take: what is no UTF-8 escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def _plain(tensor: Agreement) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, value in {**asdict(tensor), "bins_off": tensor.bins_off}.items():
        if isinstance(value, str):
            plain[key] = _text(value)
        else:
            plain[key] = None if isinstance(value, float) and not np.isfinite(value) else value
    return plain
