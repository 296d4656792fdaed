"""An edited calibration cache: what stood beside the files that it comes from, and what is to stand beside it.

Where the first file's manifest is of its very bytes, the result gets a manifest: provenance, recipe and findings of that first file, the facts
of every tensor whose scale stayed, and the edits. Where it has none, nothing is known of model and data, and only the edits are told, in
OUT.cache.edits.json; commands that look for a manifest then find none, as beside the file that was edited.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trtcalib import __version__
from trtcalib.cache_tools.scale_files import MOST_BYTES, read_believed
from trtcalib.core.cache import CalibrationCache, format_cache, parse_cache, version_text
from trtcalib.edit_record import Edit, EditedFile, EditRecord
from trtcalib.errors import CacheFormatError, OutputError, SpecError
from trtcalib.files import sha256_of_bytes, write_files
from trtcalib.manifest import (
    Finding,
    Manifest,
    TensorFacts,
    edits_path,
    manifest_path,
    portable_path,
    read_edits,
    read_manifest,
)
from trtcalib.provenance import portable_name, relative_to, with_absolute_paths

__all__ = ["EditSource", "Edited", "Request", "finish", "read_source", "write_edited"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EditSource:
    """A cache to edit.

    Attributes:
        path: Where it stands.
        content: Its bytes.
        cache: What they say.
        manifest: What stands beside it and is of these very bytes.
        edits: What was done to it before.
        notes: Why what stands beside it is not used.
    """

    path: Path
    content: bytes
    cache: CalibrationCache
    manifest: Manifest | None = None
    edits: tuple[Edit, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for, as the record of the edit keeps it.

    Attributes:
        command: The command.
        output: Where the result is to stand.
        detail: Its arguments, as plain values.
        renamed: New names of the first file's tensors.
        notes: What is worth knowing, one sentence each.
    """

    command: Literal["merge", "convert", "rename", "set"]
    output: Path
    detail: Mapping[str, Any]
    renamed: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """A result, not written yet.

    Attributes:
        path: Where it is to stand.
        cache: The cache.
        changed: Bits before and after, per tensor of the first file whose scale is another now; under the new names.
        added: Tensors that the first file does not have.
        notes: What is worth knowing, one sentence each.
        files: What is to be written.
        stale: What must not stand beside it any more.
    """

    path: Path
    cache: CalibrationCache
    changed: Mapping[str, tuple[int, int]]
    added: tuple[str, ...]
    notes: tuple[str, ...]
    files: Mapping[Path, bytes]
    stale: Path

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "schema_version": 1,
            "cache": portable_name(str(self.path)),
            "header": portable_name(self.cache.header),
            "tensors": len(self.cache.entries),
            "changed": [
                {"name": portable_name(name), "before_hex": f"{before:x}", "after_hex": f"{after:x}"}
                for name, (before, after) in self.changed.items()
            ],
            "added": [portable_name(name) for name in self.added],
            "notes": [portable_name(note) for note in self.notes],
        }


def read_source(path: Path) -> EditSource:
    """Read a cache with what stands beside it.

    Raises:
        CacheFormatError: If it cannot be read, is too large or is no calibration cache.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise CacheFormatError(None, 0, f"is larger than {MOST_BYTES >> 20} MiB: is it a calibration cache?")
        cache = parse_cache(content)
    except CacheFormatError as error:
        raise CacheFormatError(path, error.line, error.reason) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CacheFormatError(path, 0, f"cannot be read: {reason}") from error
    manifest, notes = read_believed(manifest_path(path), read_manifest, content)
    if manifest is not None:
        return EditSource(path=path, content=content, cache=cache, manifest=manifest, edits=tuple(manifest.edits))
    record, _ = read_believed(edits_path(path), read_edits, content)
    edits = () if record is None else tuple(record.edits)
    return EditSource(path=path, content=content, cache=cache, edits=edits, notes=notes)


def finish(sources: Sequence[EditSource], cache: CalibrationCache, request: Request) -> Edited:
    """Make the files of an edit; nothing is written.

    Args:
        sources: What was read; the first is what the result is called an edit of.
        cache: The result.
        request: What was asked for.
    """
    first = sources[0]
    names = request.renamed or {}
    before = {names.get(entry.name, entry.name): entry.bits for entry in first.cache.entries}
    after = {entry.name: entry.bits for entry in cache.entries}
    content = format_cache(cache)
    notes = (*(note for source in sources for note in source.notes), *request.notes, *_unknown(first, request.output))
    edits = _history(sources, request, notes, sha256_of_bytes(content))
    manifest = _manifest(sources, cache, request, edits)
    beside, stale = manifest_path(request.output), edits_path(request.output)
    if first.manifest is None:
        beside, stale = stale, beside
    text = manifest.model_dump_json(indent=2) + "\n"
    return Edited(
        path=request.output,
        cache=cache,
        changed={name: (bits, after[name]) for name, bits in before.items() if after[name] != bits},
        added=tuple(name for name in after if name not in before),
        notes=notes,
        files={request.output: content, beside: text.encode("utf-8", "backslashreplace")},
        stale=stale,
    )


def _unknown(first: EditSource, output: Path) -> tuple[str, ...]:
    if first.manifest is not None:
        return ()
    told = f"{edits_path(output)} tells of the edits, and there is no manifest"
    return (f"nothing is known of the model and the data that {first.path} is from: {told}",)


def _history(sources: Sequence[EditSource], request: Request, notes: tuple[str, ...], digest: str) -> list[Edit]:
    """Return what was done to any of the files before, each once, and this."""
    folder = request.output.parent.resolve()
    edits: list[Edit] = []
    for source in sources:
        edits += [edit for edit in source.edits if edit not in edits]
    files = [
        EditedFile(
            cache=portable_name(portable_path(source.path.resolve(), folder)),
            sha256=sha256_of_bytes(source.content),
            header=portable_name(source.cache.header),
            model_sha256=None if source.manifest is None else source.manifest.provenance.model.sha256,
            data_sha256=None if source.manifest is None else source.manifest.provenance.data.sha256,
        )
        for source in sources
    ]
    this = Edit(
        command=request.command,
        files=files,
        result_sha256=digest,
        detail=dict(request.detail),
        notes=[portable_name(note) for note in notes],
        trtcalib=__version__,
    )
    return [*edits, this]


def _manifest(
    sources: Sequence[EditSource], cache: CalibrationCache, request: Request, edits: list[Edit]
) -> Manifest | EditRecord:
    first, algorithm = sources[0], portable_name(cache.algorithm)
    name, digest, version = portable_name(request.output.name), edits[-1].result_sha256, version_text(cache.version)
    if first.manifest is None:
        return EditRecord(cache=name, cache_sha256=digest, tensorrt_version=version, algorithm=algorithm, edits=edits)
    provenance = with_absolute_paths(first.manifest.provenance, first.path.parent.resolve())
    tensors = _kept_facts(sources, cache, request.renamed or {})
    changes = {
        "cache": name,
        "cache_sha256": digest,
        # As it was stated, with a build number for instance, where the version is the same.
        "tensorrt_version": version if cache.version != first.cache.version else first.manifest.tensorrt_version,
        "algorithm": algorithm,
        "provenance": relative_to(provenance, request.output.parent),
        "findings": _kept_findings(first, cache, request.renamed or {}),
        "tensors": tensors,
        "edits": edits,
    }
    return first.manifest.model_copy(update=changes)


def _kept_facts(
    sources: Sequence[EditSource], cache: CalibrationCache, renamed: Mapping[str, str]
) -> list[TensorFacts]:
    """Return what a manifest states of the tensors whose scale it still is, the first manifest's word first."""
    bits = {portable_name(entry.name): entry.bits for entry in cache.entries}
    names = {portable_name(old): portable_name(new) for old, new in renamed.items()}
    kept: dict[str, TensorFacts] = {}
    for source in sources:
        for fact in source.manifest.tensors if source.manifest is not None else ():
            name, origin = names.get(fact.name, fact.name), fact.inherited_from
            if name in kept or f"{bits.get(name, -1):x}" != fact.scale_hex:
                continue
            origin = None if origin is None else names.get(origin, origin)
            if origin is not None and bits.get(origin) != bits[name]:
                origin = None  # what it carried is another scale now
            kept[name] = fact.model_copy(update={"name": name, "inherited_from": origin})
    return [kept[name] for name in bits if name in kept]


def _kept_findings(first: EditSource, cache: CalibrationCache, renamed: Mapping[str, str]) -> list[Finding]:
    """Return the first file's findings, without those of tensors whose scale is another now."""
    assert first.manifest is not None
    before = {portable_name(renamed.get(entry.name, entry.name)): entry.bits for entry in first.cache.entries}
    after = {portable_name(entry.name): entry.bits for entry in cache.entries}
    names = {portable_name(old): portable_name(new) for old, new in renamed.items()}
    kept = []
    for finding in first.manifest.findings:
        name = None if finding.tensor is None else names.get(finding.tensor, finding.tensor)
        if name is None or before.get(name) == after.get(name):
            kept.append(finding.model_copy(update={"tensor": name}))
    return kept


def write_edited(edited: Edited) -> None:
    """Write an edited cache and what tells of it; what stood beside the cache that it takes the place of goes.

    Raises:
        OutputError: If it cannot be written, or what stands beside it is nothing that trtcalib wrote; nothing is changed then.
    """
    if edited.stale.exists():
        try:
            (read_manifest if edited.stale == manifest_path(edited.path) else read_edits)(edited.stale)
        except SpecError as error:
            reason = "stands beside the result and is no manifest: move it away, or choose another name for the result"
            raise OutputError(edited.stale, reason) from error
    write_files(edited.files)
    # Of another cache from now on; should this fail, its digest says so.
    with contextlib.suppress(OSError):
        edited.stale.unlink(missing_ok=True)
