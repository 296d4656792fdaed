"""By which method the scales were chosen, as far as the header and a manifest that is believed state it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trtcalib.core.cache_scan import CacheScan
from trtcalib.manifest import Manifest

__all__ = ["Statement", "statement_of"]

Method = Literal["entropy", "maybe-entropy", "minmax", "other"]


@dataclass(frozen=True, slots=True)
class Statement:
    """What is stated.

    Attributes:
        method: ``entropy``: TensorRT's search, as the manifest says. ``maybe-entropy``: the header says entropy and no manifest
            says more; caches of percentiles carry that header too. ``minmax``. ``other``: a method without a rule here.
        by: Who states it, for messages.
        raised: Whether scales were raised to be shared, for DLA; no rule holds for such scales, so that the method is ``other``.
    """

    method: Method
    by: str
    raised: bool = False


def statement_of(scan: CacheScan, manifest: Manifest | None) -> Statement:
    """Return what is stated.

    Args:
        scan: The cache.
        manifest: What stands beside it and is of these very bytes.
    """
    if manifest is None:
        methods: dict[str | None, Method] = {"EntropyCalibration2": "maybe-entropy", "MinMaxCalibration": "minmax"}
        return Statement(methods.get(scan.algorithm, "other"), "the header")
    if any(found.code == "dla-shared-scales" for found in manifest.findings):
        return Statement("other", "the manifest", raised=True)
    match manifest.recipe:
        # Absent fields are the recipe's defaults.
        case {"method": "entropy", **rest} if (
            rest.get("variant", "tensorrt"),
            rest.get("range", "doubling"),
            rest.get("bins", 2048),
        ) == ("tensorrt", "doubling", 2048) and scan.algorithm == "EntropyCalibration2":
            return Statement("entropy", "the manifest")
        case {"method": "minmax"}:
            return Statement("minmax", "the manifest")
        case _:
            return Statement("other", "the manifest")
