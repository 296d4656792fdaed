"""May a calibration cache that stands there be used again? Only if it was made from the same things."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trtcalib.batches import Batches
from trtcalib.core.cache import parse_cache
from trtcalib.core.sharing import raised_scales
from trtcalib.errors import CacheFormatError, SpecError
from trtcalib.files import sha256_of_bytes
from trtcalib.manifest import Manifest, Provenance, manifest_path, read_manifest
from trtcalib.onnx_graph import ModelGraph
from trtcalib.provenance import model_facts
from trtcalib.specs import Recipe

__all__ = ["Reuse", "Wanted", "find_reusable"]


@dataclass(frozen=True, slots=True)
class Reuse:
    """The answer.

    Attributes:
        content: The cache, where it may be used.
        differences: Why not, where a cache stands there; one text each.
        manifest: What the cache was made from, where that is known.
    """

    content: bytes | None
    differences: tuple[str, ...] = ()
    manifest: Manifest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a cache must have been made from.

    Attributes:
        batches: The data, grouped; they are not read, unless their digest needs it.
        recipe: How each amax is chosen.
        header: The first line that TensorRT takes.
        shapes: The batches' shapes where TensorRT calibrates, ``None`` where trtcalib does.
        tf32: Whether TensorRT's FP32 run may use TF32.
        skip_bad_images: Whether images that cannot be decoded are left out.
        one_scale: Where trtcalib chooses the scales for DLA, names of tensors that must have one.
    """

    batches: Batches
    recipe: Recipe
    header: str
    shapes: Mapping[str, tuple[int, ...]] | None
    tf32: bool
    skip_bad_images: bool
    one_scale: Sequence[Sequence[str]] | None = None


def find_reusable(path: Path, graph: ModelGraph, wanted: Wanted) -> Reuse:
    """Look at the cache at a path, and compare its manifest with what is wanted now."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Reuse(None)
    except OSError as error:
        return Reuse(None, (f"it cannot be read: {error.strerror}",))
    if not content:
        return Reuse(None, ("it is empty",))
    try:
        manifest = read_manifest(manifest_path(path))
        header = parse_cache(content).header
    except SpecError as error:
        return Reuse(None, (f"its manifest {manifest_path(path)} tells nothing: {error.faults[0]}",))
    except CacheFormatError as error:
        return Reuse(None, (f"it is no calibration cache: {error.reason}",))
    differences = [
        *_file_differences(content, header, manifest, wanted),
        *_input_differences(manifest.provenance, graph, wanted.batches),
        *_choice_differences(manifest, wanted),
        *_dla_differences(content, manifest, wanted),
    ]
    return Reuse(None if differences else content, tuple(differences), manifest)


def _file_differences(content: bytes, header: str, manifest: Manifest, wanted: Wanted) -> Iterator[str]:
    if sha256_of_bytes(content) != manifest.cache_sha256:
        yield "it was changed after its manifest was written"
    edits = dict.fromkeys(edit.command for edit in manifest.edits if edit.command in ("merge", "set"))
    if edits:
        yield f"some of its scales were edited with trtcalib cache {', '.join(edits)}"
    if header != wanted.header:
        yield f"its first line is {header!r}, TensorRT here takes {wanted.header!r}"
    by = "trtcalib" if wanted.shapes is None else "tensorrt"
    if manifest.calibrated_by != by:
        names = {"trtcalib": "trtcalib on the CPU", "tensorrt": "TensorRT itself"}
        yield f"its scales were chosen by {names[manifest.calibrated_by]}, this build wants {names[by]}"


def _dla_differences(content: bytes, manifest: Manifest, wanted: Wanted) -> Iterator[str]:
    if wanted.one_scale is None:
        if any(finding.code == "dla-shared-scales" for finding in manifest.findings):
            yield "some of its scales were raised for DLA"
    elif raised_scales(parse_cache(content).scales, wanted.one_scale):
        yield "DLA needs one scale for the inputs of an element-wise layer, and there it has several"


def _input_differences(was: Provenance, graph: ModelGraph, batches: Batches) -> Iterator[str]:
    model = model_facts(graph)
    if (model.sha256, model.external_sha256) != (was.model.sha256, was.model.external_sha256):
        yield "the model is another one"
    if batches.source.size() is None:
        yield "the data come from a function, and only running it tells whether they are the same"
    elif batches.source.sha256() != was.data.sha256:
        yield "the data, or their preparation, are other ones"


def _choice_differences(manifest: Manifest, wanted: Wanted) -> Iterator[str]:
    was, batching = manifest.provenance.batching, wanted.batches.batching
    pairs = {
        "recipe": (manifest.recipe, wanted.recipe.model_dump()),
        "batch size": (was.batch_size, wanted.batches.batch_size),
        "max_samples": (was.max_samples, batching.max_samples),
        "shuffle": (was.shuffle, batching.shuffle),
        "drop_last": (was.drop_last, batching.drop_last),
        "skip_bad_images": (was.skip_bad_images, wanted.skip_bad_images),
    }
    if wanted.shapes is not None:
        shapes = manifest.provenance.shapes
        pairs["shapes"] = (
            shapes and {k: list(v) for k, v in shapes.items()},
            {k: list(v) for k, v in wanted.shapes.items()},
        )
        pairs["tf32"] = (manifest.provenance.tf32, wanted.tf32)
    for name, (then, now) in pairs.items():
        if then != now:
            yield f"{name} was {then!r}, now {now!r}"
