"""DLA's rule for element-wise layers: all inputs of one have the same scale, the largest of theirs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

__all__ = ["raised_scales"]


def raised_scales(scales: Mapping[str, np.float32], groups: Iterable[Sequence[str]]) -> dict[str, str]:
    """Return for each tensor whose scale must rise the tensor whose scale it takes.

    Groups that share a tensor are one group. Tensors without a scale play no part, and neither does an infinite scale, such as
    that of an attention mask: whatever took it over would be zero in INT8.

    Args:
        scales: Per tensor name.
        groups: Names of tensors that must have one scale.
    """
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while parents.setdefault(name, name) != name:
            parents[name] = name = parents[parents[name]]
        return name

    for group in groups:
        members = [name for name in group if name in scales and np.isfinite(scales[name])]
        for name in members:
            parents[root(name)] = root(members[0])
    # One of the largest; in order of the names, so that the order of the groups does not matter.
    largest: dict[str, str] = {}
    for name in sorted(parents):
        donor = largest.setdefault(root(name), name)
        if scales[name] > scales[donor]:
            largest[root(name)] = name
    return {name: largest[root(name)] for name in parents if scales[name] < scales[largest[root(name)]]}
