"""What the linter found, as lines for a terminal and as annotations for GitHub."""

from __future__ import annotations

from collections.abc import Iterator

from trtcalib.linting import RULES, LintFinding, LintResult, Severity
from trtcalib.views.text import printable, shortened

__all__ = ["github_lines", "lint_lines"]

LONGEST_MESSAGE = 600
"""Characters of a message that are shown; names of 10 kB exist in hostile files."""

LONGEST_PATH = 300

_COMMANDS: dict[Severity, str] = {"info": "notice", "warning": "warning", "error": "error"}
"""GitHub's words for the severities."""


def lint_lines(result: LintResult) -> Iterator[str]:
    """Yield one line per finding, ``model.cache:12: TC024 warning: ...``, one per rule that found more, and a summary."""
    path = shortened(str(result.path), LONGEST_PATH)
    for found in result.findings:
        place = path if found.line is None else f"{path}:{found.line}"
        yield f"{place}: {found.rule.id} {found.rule.severity}: {shortened(found.message, LONGEST_MESSAGE)}"
    yield from (f"{path}: {text}" for text in _more(result))
    yield _summary(result)


def github_lines(result: LintResult) -> Iterator[str]:
    """Yield GitHub's workflow commands, one annotation per finding, and a summary.

    Source: docs.github.com, "Workflow commands for GitHub Actions": ``%``, CR and LF are escaped everywhere, ``:`` and ``,`` in
    properties too.
    """
    for found in result.findings:
        line = {} if found.line is None else {"line": str(found.line)}
        title = f"{found.rule.id} {found.rule.name}"
        yield _command(found, {"file": result.path.as_posix(), **line, "title": title})
    yield from (f"::notice::{_data(text)}" for text in _more(result))
    # The runner takes a line that starts with two colons for a command, and a file's name may.
    yield f"trtcalib cache lint: {_summary(result)}"


def _summary(result: LintResult) -> str:
    """Return how many findings there are of each severity, and in what."""
    counts = [_count(result.count(severity), word) for severity, word in _WORDS]
    found = ", ".join(text for text in counts if text) or "no findings"
    against = "" if result.model is None else f" against {shortened(result.model.name)}"
    beside = ", with its manifest" if result.manifest else ""
    tensors = f"{result.tensors} {'tensor' if result.tensors == 1 else 'tensors'}"
    return f"{shortened(str(result.path), LONGEST_PATH)}: {found} in {tensors}{against}{beside}"


_WORDS: tuple[tuple[Severity, str], ...] = (("error", "error"), ("warning", "warning"), ("info", "info"))


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}" if number else ""


def _more(result: LintResult) -> Iterator[str]:
    """Tell of the findings that were not kept."""
    shown = [found.rule.id for found in result.findings]
    for rule, count in result.counts.items():
        if (rest := count - shown.count(rule)) > 0:
            yield f"{rule} {RULES[rule].name}: {rest} more, {count} in all"


def _command(found: LintFinding, properties: dict[str, str]) -> str:
    listed = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{_COMMANDS[found.rule.severity]} {listed}::{_data(shortened(found.message, LONGEST_MESSAGE))}"


def _data(text: str) -> str:
    return printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    # A path is escaped as it is: the escapes of printable() would name another file.
    safe = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A").replace(":", "%3A").replace(",", "%2C")
    return printable(safe)
