"""What the manifests beside two caches state about why their scales differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trtcalib.core.cache_story import Explanation, ExplanationKind
from trtcalib.manifest import BatchingFacts, Manifest, Provenance

__all__ = ["explain_manifests"]


def explain_manifests(old: Manifest | None, new: Manifest | None, distinct: int) -> tuple[Explanation, ...]:
    """Say what two manifests state otherwise; nothing unless both are known.

    Args:
        old: Beside the reference.
        new: Beside the other cache.
        distinct: Distinct changes between the two, of which no number of them is told apart here.
    """
    if old is None or new is None:
        return ()
    was, now = old.provenance, new.provenance
    found: list[tuple[ExplanationKind, str]] = []
    same = _same(was, now)
    if "model" not in same:
        found.append(("model", f"another model: {_models(was, now)}"))
    if "data" not in same:
        found.append(("data", f"other data, or another preparation of them: {was.data.path} -> {now.data.path}"))
    start = f"same {' and '.join(same)}, " if same else ""
    if batching := ", ".join(_batching(was, now)):
        found.append(("batching", f"{start}{batching}"))
    if recipe := ", ".join(_recipe(old, new)):
        found.append(("recipe", f"{start}{recipe}"))
    if old.edits != new.edits:
        commands = ", ".join(dict.fromkeys(edit.command for edit in (*old.edits, *new.edits)))
        found.append(("recipe", f"{start}edited with trtcalib cache: {commands}"))
    if environment := ", ".join(_environment(was, now)):
        found.append(("environment", f"{start if not found else ''}{environment}"))
    if not found:
        found.append(("nothing-stated", "their manifests state the same model, data, batches, recipe and versions"))
    return tuple(
        Explanation(kind=kind, basis="manifests", sentence=sentence, count=distinct, of=distinct)
        for kind, sentence in found
    )


def _models(was: Provenance, now: Provenance) -> str:
    if was.model.sha256 == now.model.sha256:
        return "the same graph with other external data, which hold its weights"
    return f"sha256 {was.model.sha256[:12]}… -> {now.model.sha256[:12]}…"


def _same(was: Provenance, now: Provenance) -> list[str]:
    model = (was.model.sha256, was.model.external_sha256) == (now.model.sha256, now.model.external_sha256)
    return [name for name, same in (("model", model), ("data", was.data.sha256 == now.data.sha256)) if same]


def _batching(was: Provenance, now: Provenance) -> Iterator[str]:
    old, new = was.batching, now.batching
    if old.batch_size != new.batch_size:
        yield f"batch size {old.batch_size} -> {new.batch_size}"
    if was.data.samples != now.data.samples:
        yield f"samples {was.data.samples} -> {now.data.samples}"
    if old.shuffle != new.shuffle:
        yield f"order {_order(old)} -> {_order(new)}"
    if was.shapes != now.shapes:
        yield f"shapes {was.shapes} -> {now.shapes}"


def _order(batching: BatchingFacts) -> str:
    return "of the source" if batching.shuffle is None else f"shuffled with seed {batching.shuffle}"


def _recipe(old: Manifest, new: Manifest) -> Iterator[str]:
    if old.calibrated_by != new.calibrated_by:
        yield f"calibrated by {old.calibrated_by} -> {new.calibrated_by}"
    for key in dict.fromkeys((*old.recipe, *new.recipe)):
        was, now = old.recipe.get(key), new.recipe.get(key)
        if was != now:
            yield f"{key} {_word(was)} -> {_word(now)}"


def _word(value: Any) -> str:
    return "none" if value is None else str(value)[:80]


def _environment(was: Provenance, now: Provenance) -> Iterator[str]:
    for package in dict.fromkeys((*was.versions, *now.versions)):
        old, new = was.versions.get(package), now.versions.get(package)
        if old != new:
            yield f"{package} {_word(old)} -> {_word(new)}"
    if was.cpu != now.cpu:
        yield f"CPU {was.cpu} -> {now.cpu}"
    old_device, new_device = (None if facts.device is None else facts.device.name for facts in (was, now))
    if old_device != new_device:
        yield f"device {_word(old_device)} -> {_word(new_device)}"
    if was.tf32 != now.tf32:
        yield f"TF32 {_word(was.tf32)} -> {_word(now.tf32)}"
