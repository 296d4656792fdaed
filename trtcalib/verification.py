"""A manifest against what is on disk now: cache, model, data, versions."""

from __future__ import annotations

import os.path
from pathlib import Path
from typing import NamedTuple

from trtcalib.batches import Batching, plan_batches
from trtcalib.errors import TrtcalibError
from trtcalib.files import sha256_of
from trtcalib.manifest import Manifest, environment, manifest_path, read_manifest
from trtcalib.onnx_graph import read_model
from trtcalib.provenance import model_facts, with_absolute_paths
from trtcalib.samples.sources import open_source

__all__ = ["Check", "verify_cache"]


class Check(NamedTuple):
    """One comparison.

    Attributes:
        what: What was compared.
        status: ``same``, ``changed``, or ``unknown`` where it could not be compared.
        detail: A few words for people.
    """

    what: str
    status: str
    detail: str


def verify_cache(cache: Path, *, model: Path | None = None, data: str | None = None) -> list[Check]:
    """Compare a cache, its model, its data and the versions here with the cache's manifest.

    Args:
        cache: The calibration cache; its manifest stands beside it.
        model: Where the model is now; by default where the manifest says.
        data: Where the data are now; by default where the manifest says. A function is run only when it is given here.

    Raises:
        SpecError: If there is no manifest, or it cannot be read.
    """
    manifest = read_manifest(manifest_path(cache))
    facts = with_absolute_paths(manifest.provenance, manifest_path(cache).parent)
    model_path = model or Path(facts.model.path)
    return [
        _check_cache(cache, manifest.cache_sha256),
        _check_model(model_path, facts.model.sha256, facts.model.external_sha256),
        _check_data(
            manifest, model_path, data or (facts.data.path if facts.data.is_path else None), allow_code=bool(data)
        ),
        *_check_versions(manifest),
    ]


def _check(what: str, found: object, expected: object, detail: str) -> Check:
    return Check(what, "same" if found == expected else "changed", detail)


def _check_cache(path: Path, digest: str) -> Check:
    if not path.is_file():
        return Check("cache", "unknown", f"{path} does not exist")
    return _check("cache", sha256_of(path), digest, str(path))


def _check_model(path: Path, digest: str, external: dict[str, str]) -> Check:
    if not os.path.isfile(path):  # noqa: PTH113 - false for hostile names too, where Path.is_file raises
        return Check("model", "unknown", f"{path} does not exist; say where it is with --model")
    try:
        found = model_facts(read_model(path))
    except TrtcalibError as error:
        return Check("model", "changed", str(error))
    return _check("model", (found.sha256, found.external_sha256), (digest, external), str(path))


def _check_data(manifest: Manifest, model: Path, data: str | None, *, allow_code: bool) -> Check:
    facts = manifest.provenance
    if data is None:
        return Check("data", "unknown", f"{facts.data.path} is no file; give it with --data to read it again")
    batching = facts.batching
    try:
        graph = read_model(model)
        source = open_source(data, graph.inputs, skip_bad_images=batching.skip_bad_images, allow_code=allow_code)
        if source.size() is None:
            # A function's digest is that of what it gives.
            wanted = Batching(
                batch_size=batching.batch_size, max_samples=batching.max_samples, drop_last=batching.drop_last
            )
            for _ in plan_batches(source, graph.fixed_batch, wanted).runs():
                pass
        return _check("data", source.sha256(), facts.data.sha256, data)
    except TrtcalibError as error:
        status = "changed" if os.path.exists(data) and os.path.isfile(model) else "unknown"  # noqa: PTH110, PTH113 - false for hostile names too
        return Check("data", status, str(error))


def _check_versions(manifest: Manifest) -> list[Check]:
    then = manifest.provenance.versions
    versions, cpu = environment(tuple(name for name in then if name != "python"))
    checks = [
        Check(
            name,
            "same" if versions.get(name) == was else "changed",
            f"{was}, here {versions.get(name, 'not installed')}",
        )
        for name, was in then.items()
        if versions.get(name) != was
    ]
    if not checks:
        checks.append(Check("versions", "same", ", ".join(f"{name} {number}" for name, number in then.items())))
    checks.append(
        _check(
            "cpu",
            cpu,
            manifest.provenance.cpu,
            cpu if cpu == manifest.provenance.cpu else f"{manifest.provenance.cpu}, here {cpu}",
        )
    )
    return checks
