"""Whether the calibration inputs have the range that the model was trained on; the simple cases, each a finding with a hint.

A wrong range is no error anywhere: the scales then fit values that the model never sees in use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from trtcalib.input_preparation import (
    SMALL_LEVELS,
    expected_preparation,
    first_operators,
    starts_with_arithmetic,
)
from trtcalib.input_statistics import InputStatistics, Statistics, WatchedSource
from trtcalib.manifest import Finding
from trtcalib.onnx_graph import ModelGraph

__all__ = [
    "InputStatistics",
    "Statistics",
    "WatchedSource",
    "compare_inputs",
    "input_findings",
    "likely_factor",
    "starts_with_arithmetic",
]

_WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})

_LEAST_TOP = SMALL_LEVELS - 1
"""The largest value of 4-bit pixels, the coarsest that are stored as pictures; one-hot codes, masks, trimaps and boards stay below."""

_TOP = 255
"""The largest value of 8-bit pixels."""

_NEARLY_ALL = 0.99
"""Share of whole numbers in pixels that nothing scaled: a border that was padded with a mean is no whole number."""

_COLOURS = 3
_WITH_ALPHA = 4

_USUAL_MEANS = (0.3, 0.6)
_USUAL_STDS = (0.15, 0.35)
"""Means and standard deviations per channel of photographs in 0 to 1, with room: ImageNet's are 0.41 to 0.49, and 0.22 to 0.23."""

_BRIGHT = 0.5
"""Photographs in 0 to 1 reach more than this."""

_APART = 4.0
"""Factor between two ranges or standard deviations that is told: two draws of the same data stay well below 2, and dividing by
ImageNet's standard deviation, the smallest of the usual mistakes that change the spread by much, makes 4.4."""

_SHIFT = 2.0
"""Standard deviations between two means that are told."""

_CAUSES = {
    255.0: "0 to 255 in the one and 0 to 1 in the other: is scale: 1/255 missing in one of them?",
    127.5: "0 to 255 in the one and -1 to 1 in the other: do scale, mean and std stand in one of them only?",
    57.4: "0 to 255 in the one and ImageNet's mean and std in the other: do scale, mean and std stand in one of them only?",
    16.0: "0 to 16 in the one and 0 to 1 in the other: is scale: 1/16 missing in one of them?",
    4.43: "0 to 1 in the one and ImageNet's mean and std in the other: are mean and std missing in one of them?",
}
"""Likely cause by factor between the standard deviations; 57.4 is 255 times ImageNet's mean standard deviation 0.225, 4.43 is 1/0.226."""

_CLOSE = 1.3
"""How far from such a factor still counts as it: the contrast of two sets of pictures differs that much."""


def input_findings(statistics: Iterable[InputStatistics], graph: ModelGraph) -> Iterator[Finding]:
    """Yield what is odd about the floating-point, image-like inputs of a model.

    - ``input-like-raw-pixels``: at least 99 % whole numbers, none below 0, the largest from 15 to 255, and the model begins with a
      convolution or a matrix product. A largest value below 15 is no alarm, since masks, one-hot codes and boards hold such
      numbers; one of 15 or 16 is the least that pixels have. Models that take 0 to 255 begin so too: nothing is told where the
      batch normalization after the convolution fits the data as they are, and the hint says what to do otherwise.
    - ``input-not-normalised``: three channels in 0 to 1 with the means and spreads of photographs, and the batch normalization
      after the first convolution fits them with a mean and a standard deviation only. Most exporters fold it into the convolution;
      then there is no evidence, and nothing is told.
    - ``input-constant-channel``: some channels of three or four hold one value in all samples and others do not. A full alpha
      channel is fine.

    Nothing is said of the range where the model itself scales or normalises the input.

    Args:
        statistics: Of its inputs; of others is nothing said.
        graph: The model.
    """
    for found in statistics:
        if found.floating and found.channels:
            yield from _constant_channels(found)
            if not starts_with_arithmetic(graph, found.name):
                yield from _raw_pixels(found, graph)
                yield from _not_normalised(found, graph)


def compare_inputs(calibration: Iterable[InputStatistics], evaluation: Iterable[InputStatistics]) -> Iterator[Finding]:
    """Yield the inputs whose calibration and evaluation samples differ grossly: they were not prepared alike.

    Told are largest magnitudes or standard deviations that are a factor of 4 or more apart, and means that are more than 2 of the larger
    standard deviation apart. 0 to 1 against -1 to 1 is less than that. An input that is the same in all samples is not compared.

    Args:
        calibration: Statistics of the samples that were calibrated on.
        evaluation: Of those that are judged on.
    """
    others = {found.name: found for found in evaluation}
    for ours in calibration:
        theirs = others.get(ours.name)
        if theirs is None or not (ours.std > 0 and theirs.std > 0):
            continue
        factors = (_factor(ours.std, theirs.std), _factor(_magnitude(ours), _magnitude(theirs)))
        shifted = abs(ours.mean - theirs.mean) > _SHIFT * max(ours.std, theirs.std)
        if max(factors) >= _APART or shifted:
            yield Finding(
                code="inputs-differ",
                tensor=ours.name,
                message=f"input {ours.name!r} is {_range(ours)} in calibration and {_range(theirs)} in evaluation: {_cause(factors[0])}",
            )


def likely_factor(wanted: InputStatistics, found: InputStatistics) -> float:
    """Return what ``found`` has to be multiplied by to spread as ``wanted`` does, a usual factor where one is near."""
    ratio = found.std / wanted.std
    nearest = min(_CAUSES, key=lambda known: _factor(known, max(ratio, 1 / ratio)))
    if _factor(nearest, max(ratio, 1 / ratio)) > _CLOSE:
        return 1 / ratio
    return 1 / nearest if ratio > 1 else nearest


def _raw_pixels(found: InputStatistics, graph: ModelGraph) -> Iterator[Finding]:
    whole = found.whole >= _NEARLY_ALL and found.minimum >= 0 and _LEAST_TOP <= found.maximum <= _TOP
    operators = {node.op_type for node in first_operators(graph, found.name)}
    if not whole or not operators & _WEIGHTED:
        return
    expected = expected_preparation(graph, found)
    if expected is not None and expected.as_fed:
        return
    top = _TOP if found.maximum > SMALL_LEVELS else int(found.maximum)
    kind = "8-bit pixels" if top == _TOP else "unscaled grey levels"
    evidence = "; a model that takes them so is fine as it is"
    if expected is not None:
        evidence = ", and the batch normalization after the first convolution was trained on other values"
        if expected.fitting:
            evidence += f" ({' and '.join(expected.fitting)} would fit)"
    yield Finding(
        code="input-like-raw-pixels",
        tensor=found.name,
        message=f"input {found.name!r} holds whole numbers from {found.minimum:g} to {found.maximum:g}: looks like {kind} that nothing "
        f"scaled{evidence}. For a model of 0 to 1, a dataset YAML states inputs: {{{_key(found.name)}: {{scale: 1/{top}}}}}",
    )


def _not_normalised(found: InputStatistics, graph: ModelGraph) -> Iterator[Finding]:
    photographs = (
        found.channels == _COLOURS
        and found.minimum >= 0
        and _BRIGHT < found.maximum <= 1
        and all(_USUAL_MEANS[0] <= mean <= _USUAL_MEANS[1] for mean in found.channel_means)
        and all(_USUAL_STDS[0] <= std <= _USUAL_STDS[1] for std in found.channel_stds)
    )
    expected = expected_preparation(graph, found) if photographs else None
    if expected is None or expected.as_fed:
        return
    centred = [name for name in expected.fitting if "-" in name]
    if centred:
        yield Finding(
            code="input-not-normalised",
            tensor=found.name,
            message=f"input {found.name!r} holds pixels in 0 to 1, and the batch normalization after the first convolution was trained on "
            f"values that spread more ({' and '.join(centred)} would fit): are mean and std of inputs.{_key(found.name)} missing "
            "in the dataset YAML?",
        )


def _constant_channels(found: InputStatistics) -> Iterator[Finding]:
    ranges = list(zip(found.channel_minima, found.channel_maxima, strict=True))
    constant = [c for c, (low, high) in enumerate(ranges) if low == high]
    if len(constant) == found.channels:
        return  # no picture at all; an input that is zero throughout has a finding of its own
    for c in constant:
        if found.channels == _WITH_ALPHA and c == _WITH_ALPHA - 1 and ranges[c][0] != 0:
            continue
        yield Finding(
            code="input-constant-channel",
            tensor=found.name,
            message=f"channel {c} of {found.channels} of input {found.name!r} is {ranges[c][0]:g} everywhere in {found.samples} "
            "samples and the others are not: was it lost when the samples were made?",
        )


def _key(name: str) -> str:
    """Return a name as a YAML key; quoted as JSON, which is YAML too, where it is no plain word."""
    return name if re.fullmatch(r"[A-Za-z_][\w./-]*", name, re.ASCII) else json.dumps(name)


def _magnitude(found: InputStatistics) -> float:
    return max(abs(found.minimum), abs(found.maximum))


def _factor(a: float, b: float) -> float:
    return max(a, b) / min(a, b)


def _range(found: InputStatistics) -> str:
    return f"{found.minimum:.4g} to {found.maximum:.4g} (mean {found.mean:.3g}, standard deviation {found.std:.3g})"


def _cause(factor: float) -> str:
    nearest = min(_CAUSES, key=lambda known: _factor(known, factor))
    if _factor(nearest, factor) <= _CLOSE:
        return f"the standard deviations are a factor of {factor:.3g} apart, as with {_CAUSES[nearest]}"
    return "were the samples of both prepared alike?"
