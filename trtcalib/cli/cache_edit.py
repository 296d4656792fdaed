"""``trtcalib cache merge``, ``convert``, ``rename`` and ``set``."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtcalib.cli import options

if TYPE_CHECKING:
    from trtcalib.cache_tools.edited import Edited

MERGE_EXAMPLE = "Example: trtcalib cache merge first.cache model.cache --how max -o merged.cache"
CONVERT_EXAMPLE = "Example: trtcalib cache convert model.cache --tensorrt-version 8.6.1 -o model-8.6.1.cache"
RENAME_EXAMPLE = "Example: trtcalib cache rename model.cache --map names.yaml -o renamed.cache"
SET_EXAMPLE = "Example: trtcalib cache set model.cache relu1=3.5 -o changed.cache"

SHOWN_CHANGES = 20
"""Lines about scales that changed; the others are counted, and --json lists all."""

CacheFile = Annotated[Path, typer.Argument(metavar="FILE", help="A calibration cache.", show_default=False)]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT.cache",
        help="The cache to write, with a manifest beside it; it may be the input itself, which is then replaced.",
        show_default=False,
    ),
]


class How(str, Enum):
    """How scales are merged."""

    MAX = "max"
    MEDIAN = "median"
    MEAN = "mean"
    FIRST = "first"


def merge(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="A B [C ...]", help="Calibration caches; the first gives header and order.", show_default=False
        ),
    ],
    output: Output,
    how: Annotated[
        How, typer.Option("--how", help="Which scale a tensor gets that several caches have.", show_default=False)
    ],
    strict: Annotated[bool, typer.Option("--strict", help="Refuse names that not every cache has.")] = False,
    json: options.Json = False,
) -> None:
    """Merge calibration caches, tensor by tensor; the names are those of all.

    A mean or median is taken in float64 and rounded once to float32. It leaves out a scale of 0, which says that the tensor was all zero
    there; an infinite scale makes a mean infinite. The algorithms must be the same. The manifest states model and data of the first cache,
    and of the others what they were.
    """
    if len(files) < 2:  # noqa: PLR2004 - a merge
        raise typer.BadParameter("got one file, expected two or more to merge", param_hint="A B [C ...]")
    from trtcalib.cache_tools.edits import merge_files

    _check(output, files)
    _write(merge_files(files, how.value, output, strict=strict), json=json)


def convert(
    file: CacheFile,
    output: Output,
    tensorrt_version: Annotated[
        str | None,
        typer.Option(
            "--tensorrt-version", metavar="X.Y.Z", help="The TensorRT that is to read it.", show_default=False
        ),
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(
            "--algorithm",
            metavar="NAME",
            help="entropy, minmax, or an algorithm as headers spell it, such as EntropyCalibration2.",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Write another version or algorithm into the header; every scale stays.

    TensorRT takes a cache only with its own version and its calibrator's algorithm in the header. The numbers mean the same in every version;
    under another algorithm they stay those of the first, and TensorRT takes them as they are.
    """
    if tensorrt_version is None and algorithm is None:
        raise typer.BadParameter(
            "say what the header is to be: --tensorrt-version, --algorithm or both", param_hint="--tensorrt-version"
        )
    from trtcalib.cache_tools.edits import algorithm_named, convert_cache

    try:
        named = None if algorithm is None else algorithm_named(algorithm)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--algorithm") from error
    _check(output, [file])
    _write(convert_cache(file, output, tensorrt_version=tensorrt_version, algorithm=named), json=json)


def rename(
    file: CacheFile,
    output: Output,
    names: Annotated[
        Path,
        typer.Option("--map", metavar="MAP.yaml", help="OLD-NAME: NEW-NAME, one per tensor.", show_default=False),
    ],
    json: options.Json = False,
) -> None:
    """Rename tensors, all at once, so that two can change places. Every scale stays."""
    from trtcalib.cache_tools.edits import rename_in_cache
    from trtcalib.specs import load_names

    _check(output, [file], others=[names])
    _write(rename_in_cache(file, load_names(names), output, where=names), json=json)


def set_amax(
    file: CacheFile,
    assignments: Annotated[
        list[str],
        typer.Argument(
            metavar="TENSOR=AMAX...",
            help="The largest |x| that INT8 is to hold, such as conv1=3.5; a name may hold '=' itself.",
            show_default=False,
        ),
    ],
    output: Output,
    add: Annotated[bool, typer.Option("--add", help="Add tensors that the cache does not have.")] = False,
    allow_zero: Annotated[
        bool, typer.Option("--allow-zero", help="Take an amax of 0, which stands for a tensor that was all zero.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Give tensors other scales: amax / 127, in float32."""
    from trtcalib.cache_tools.edits import parse_assignments, set_in_cache

    _check(output, [file])
    scales = parse_assignments(assignments, allow_zero=allow_zero)
    _write(set_in_cache(file, scales, output, add=add), json=json)


def _check(output: Path, inputs: Sequence[Path], others: Sequence[Path] = ()) -> None:
    """Refuse results that cannot be written before any work is done; the result may be one of the inputs, what stands beside it not."""
    from trtcalib.manifest import edits_path, manifest_path

    options.check_results([output], others)
    options.check_results([manifest_path(output), edits_path(output)], [*inputs, *others])


def _write(edited: Edited, *, json: bool) -> None:
    """Write a result and say what it is."""
    from trtcalib.cache_tools.edited import write_edited
    from trtcalib.views.text import printable, shortened

    write_edited(edited)
    if json:
        typer.echo(json_module.dumps(edited.as_json(), indent=2))
    else:
        counts = [f"{len(edited.cache.entries)} scales"]
        counts += [f"{len(edited.changed)} changed"] if edited.changed else []
        counts += [f"{len(edited.added)} added"] if edited.added else []
        typer.echo(printable(f"{edited.path}: {', '.join(counts)}, {edited.cache.header}"))
        for line in _change_lines(edited):
            typer.echo(line)
    for note in edited.notes:
        typer.echo(f"note: {shortened(note, 400)}", err=True)


def _change_lines(edited: Edited) -> list[str]:
    from trtcalib.core.scale import amax_from_scale, scale_from_bits
    from trtcalib.views.text import shortened

    scales = edited.cache.scales
    rows = {name: before for name, (before, _) in edited.changed.items()} | dict.fromkeys(edited.added)
    lines = []
    for name, before in list(rows.items())[:SHOWN_CHANGES]:
        scale = scales[name]
        was = "new" if before is None else f"was {scale_from_bits(before):.8g}"
        lines.append(f"  {shortened(name)}: scale {scale:.8g}, amax {amax_from_scale(scale):.8g}, {was}")
    if len(rows) > SHOWN_CHANGES:
        lines.append(f"  ... and {len(rows) - SHOWN_CHANGES} more; --json lists all")
    return lines
