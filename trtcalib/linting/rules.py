"""The rules of the linter, by their IDs; docs/lint-rules.md explains each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = ["RULES", "SEVERITIES", "LintFinding", "Rule", "Severity", "finding", "rank"]

Severity = Literal["info", "warning", "error"]

SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")
"""From the mildest to the worst."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule.

    Attributes:
        id: Stable; never used again for another rule.
        name: For people.
        severity: Of each of its findings.
        meaning: One sentence.
    """

    id: str
    name: str
    severity: Severity
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LintFinding:
    """Something that a rule found.

    Attributes:
        rule: Which rule.
        message: What was found and what to do, in one sentence, as plain text; names in it may hold anything.
        line: One-based line of the cache; ``None`` where no line is meant.
        tensor: The tensor that it is about.
    """

    rule: Rule
    message: str
    line: int | None = None
    tensor: str | None = None


def finding(rule_id: str, message: str, *, line: int | None = None, tensor: str | None = None) -> LintFinding:
    """Return a finding of the rule with this ID."""
    return LintFinding(rule=RULES[rule_id], message=message, line=line, tensor=tensor)


def rank(severity: Severity) -> int:
    """Return 0 for info, 1 for warning, 2 for error."""
    return SEVERITIES.index(severity)


def _by_id(rules: Iterable[Rule]) -> dict[str, Rule]:
    return {rule.id: rule for rule in rules}


RULES: dict[str, Rule] = _by_id(
    (
        Rule("TC001", "malformed-header", "error", "the first line is no header of a calibration cache"),
        Rule("TC002", "unknown-version", "warning", "the header names a TensorRT that is unknown or has no calibrators"),
        Rule("TC003", "unknown-algorithm", "warning", "the header names an algorithm that TensorRT does not have"),
        Rule("TC004", "malformed-line", "error", "a line is not of the form 'tensor name: hexadecimal scale'"),
        Rule("TC005", "bad-hexadecimal", "error", "a scale is not one to eight hexadecimal digits"),
        Rule("TC006", "empty-cache", "error", "the cache holds no tensor"),
        Rule("TC007", "repeated-name", "warning", "a tensor stands more than once, with the same scale"),
        Rule("TC008", "conflicting-name", "error", "a tensor stands more than once, with different scales"),
        Rule("TC009", "name-not-utf8", "info", "a name holds bytes that are not UTF-8"),
        Rule("TC010", "control-character", "info", "a name holds control characters or others that cannot be seen"),
        Rule("TC011", "colon-in-name", "info", "names hold a colon, which other readers of the file split at"),
        Rule("TC012", "unusual-digits", "info", "numbers are written otherwise than TensorRT writes them"),
        Rule("TC013", "carriage-returns", "info", "lines end in CRLF"),
        Rule("TC014", "blank-lines", "info", "the file has blank lines"),
        Rule("TC015", "no-final-line-end", "info", "the last line has no line end"),
        Rule("TC016", "byte-order-mark", "error", "the file starts with a byte order mark"),
        Rule("TC017", "nul-bytes", "info", "the file holds NUL bytes"),
        Rule("TC018", "trailing-white-space", "info", "lines end in spaces or tabs"),
        Rule("TC019", "cut-off-scale", "error", "the file ends within the digits of its last scale"),
        Rule("TC021", "nan-scale", "error", "a scale is NaN"),
        Rule("TC022", "negative-scale", "error", "a scale is negative"),
        Rule("TC023", "infinite-scale", "warning", "a scale is infinite"),
        Rule("TC024", "zero-scale", "warning", "a scale is zero"),
        Rule("TC025", "subnormal-scale", "warning", "a scale is a subnormal float32"),
        Rule("TC041", "other-model", "error", "none or few of the names are tensors of the model"),
        Rule("TC042", "stale-name", "warning", "a name is no tensor of the model"),
        Rule("TC043", "parser-made-names", "info", "names were made by TensorRT's parser, so that the model cannot tell whose they are"),
        Rule("TC044", "missing-scale", "warning", "an input of Conv, ConvTranspose, MatMul, Gemm or Add has no scale"),
        Rule("TC045", "missing-minor-scale", "info", "tensors have no scale that need not have one, or may have it under another name"),
        Rule("TC046", "siblings-differ", "warning", "two tensors that TensorRT gives the same scale have different ones"),
        Rule("TC047", "relu-above-input", "warning", "the output of a Relu has a far larger amax than its input"),
        Rule("TC048", "above-bound", "warning", "a tensor has an amax that its operator cannot reach"),
        Rule("TC049", "weights-differ", "warning", "the scale of a constant is not what its values imply"),
        Rule("TC050", "residual-factor", "info", "the two inputs of an Add have scales that are far apart"),
        Rule("TC051", "other-algorithm", "warning", "the scales of the model's constants are those of another algorithm than the stated one"),
        Rule("TC052", "maybe-other-algorithm", "info", "the scales of the model's constants are not those of the header's algorithm, nor must they be"),
        Rule("TC053", "calibrators-ignored", "warning", "the model holds Q/DQ nodes, so that TensorRT ignores the cache"),
        Rule("TC061", "manifest-of-other-bytes", "warning", "the manifest beside the cache is of other bytes"),
        Rule("TC062", "manifest-disagrees", "warning", "the manifest states another version or algorithm than the header"),
        Rule("TC063", "manifest-unreadable", "warning", "what stands beside the cache is no manifest"),
        Rule("TC064", "manifest-of-other-model", "info", "the manifest states another model file than the given one"),
        Rule("TC065", "many-at-full-range", "info", "the search kept the whole range of many tensors"),
    )
)  # fmt: skip
"""Every rule. 001 to 020 need the text, 021 to 040 the scales, 041 to 060 the model, 061 to 080 the manifest beside the cache."""
