"""Accuracy results as GitHub Markdown: a header that says what was judged and how, the command, and the tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from trtcalib.accuracy.result import Ablation, Advice, AdviceItem, MetricFacts, Sensitivity, Setting, Sweep
from trtcalib.manifest import DataFacts
from trtcalib.views import accuracy_rows as rows
from trtcalib.views import accuracy_text as words
from trtcalib.views.text import printable, shortened

__all__ = ["ablation_markdown", "advice_markdown", "sensitivity_markdown", "sweep_markdown"]

_SPECIAL = re.compile(r"[\\`*\[<>~&#]|(?<![^\W_])_|_(?![^\W_])")
"""What means something within a line of GitHub Markdown; an underscore between letters does not."""

_REFERENCE = re.compile(r"[|$]")
"""What would end a table's cell or begin mathematics, and is safest as a character reference."""

_LIST = re.compile(r"^(\d*)([-+=.)])(?=[-=\s]|$)")
"""What begins a list or an underline at the start of a line."""

_NOT_IN_CODE = re.compile(r"[`|\\]|^\s|\s$|^$")
"""What a code span of a table cannot hold, or what it trims."""

_BLANK = "(blank)"
"""In place of names and sentences of blanks, which Markdown drops."""

_SHORTEST_FENCE = 3
"""Backticks around a block of code, by CommonMark 0.31, 4.5."""


def ablation_markdown(ablation: Ablation, command: str) -> str:
    """Return ablation.md.

    Args:
        ablation: The result.
        command: The command lines that make it again, one a line.
    """
    columns = ("method", *rows.ABLATION_COLUMNS, *rows.noise_headings(ablation.metric))
    body = [_ablation_row(ablation, place) for place in range(len(ablation.rows))]
    # The mark at its start would begin a list.
    best = rf"\{rows.best_line(ablation, _code)}"
    notes = [best, rows.weights_line(ablation, _code), rows.cell_line(ablation.metric)]
    below = [_bullet(note) for note in notes if note]
    return _document("Ablation", ablation, command, [*_table(columns, body), "", *below])


def _ablation_row(ablation: Ablation, place: int) -> list[str]:
    row = ablation.rows[place]
    cells = rows.ablation_cells(row)
    shown = []
    for column in rows.ABLATION_COLUMNS:
        lines = rows.cell_lines(ablation.metric, cells[column].judgement) if column in cells else ("-", "")
        text = " ".join(filter(None, lines))
        shown.append(f"**{text}**" if column == rows.BOTH and row.method == ablation.best else text)
    mark = rows.mark(ablation, row.method)
    return [f"{mark}{mark and ' '}{_code(row.method)}", *shown, *rows.noise_cells(ablation.metric, row)]


def sweep_markdown(sweep: Sweep, command: str) -> str:
    """Return sweep.md; arguments as in :func:`ablation_markdown`."""
    metric, searched = sweep.metric, rows.searched_by(sweep)
    columns = ("tried", "method", _plain(searched.name), f"change from {words.FP32}", "95 % interval")
    body = []
    for place, candidate in rows.ranked(sweep):
        judged = candidate.judgement
        name = _code(candidate.method)
        numbers = (words.judged_value(searched, judged), words.change(searched, judged.loss))
        between = words.change_interval(searched, judged.loss_interval)
        won = rows.is_winner(sweep, candidate)
        body.append([str(place), f"**{name}**" if won else name, *numbers, between])
    held = [
        _bullet(f"{what} {_code(found.method)}: {words.judged_text(metric, found.judgement)}")
        for what, found in (("baseline", sweep.baseline), ("winner", sweep.winner))
    ]
    held.append(_bullet(words.gain_claim(sweep)))
    samples = words.counted(sweep.searched.samples, "calibration sample")
    kind = "held-out sample" if sweep.held_out else "sample"
    parts = [f"## On {words.counted(sweep.evaluation.samples, kind)}", "", *held, ""]
    parts += [f"## Candidates, compared on {samples}", "", *_table(columns, body)]
    return _document("Sweep", sweep, command, parts)


def sensitivity_markdown(sensitivity: Sensitivity, command: str) -> str:
    """Return sensitivity.md; arguments as in :func:`ablation_markdown`."""
    metric, known = sensitivity.metric, rows.known_macs(sensitivity)
    columns = ("rank", "node", "operator", *rows.layer_headings(metric))
    body = [
        [
            str(layer.rank),
            _code(rows.node_name(layer)),
            _code(layer.operator),
            *rows.layer_cells(metric, layer, known),
        ]
        for layer in sensitivity.layers
    ]
    parts = [rows.full_line(sensitivity), "", *_table(columns, body), *_fallback(sensitivity)]
    return _document("Sensitivity", sensitivity, command, parts)


def _fallback(sensitivity: Sensitivity) -> Iterator[str]:
    fallback = sensitivity.fallback
    if fallback is None:
        return
    yield from ("", "## To leave in float", "")
    yield from (_bullet(_code(name)) for name in fallback.nodes)
    yield from ("", rows.reached(sensitivity.metric, fallback))
    for tool, line in fallback.dialects.items():
        yield from ("", f"{_plain(tool)}:", "", *_block([line], ""))


def advice_markdown(advice: Advice, command: str) -> str:
    """Return advice.md; arguments as in :func:`ablation_markdown`."""
    parts = [_bullet(f"entropy, everything in INT8: {words.judged_text(advice.metric, advice.before)}")]
    if advice.after is not None:
        parts.append(_bullet(f"all of it followed: {words.judged_text(advice.metric, advice.after)}"))
    for place, item in enumerate(advice.items, start=1):
        parts += ["", f"## {place}. {_plain(item.title)}", *_item(advice.metric, item)]
    return _document("Advice", advice, command, parts)


def _item(metric: MetricFacts, item: AdviceItem) -> Iterator[str]:
    bullets = [_plain(evidence) for evidence in item.evidence]
    if item.checked is not None:
        bullets.append(f"followed: {words.judged_text(metric, item.checked)}")
    if bullets:
        yield from ("", *map(_bullet, bullets))
    for what, line in (("To do it", item.command), ("To see it again", item.reproduce)):
        if line is not None:
            yield from ("", f"{what}:", "", *_block(line.splitlines(), "sh"))


def _document(title: str, setting: Setting, command: str, body: Iterable[str]) -> str:
    metric = setting.metric
    at = "" if metric.output is None else f" at output {_code(metric.output)}"
    held = "held out from calibration" if setting.held_out else "not held out from calibration"
    lines = [f"# {title} of {_code(setting.model.path)}", ""]
    lines += [_bullet(f"metric: {_code(metric.name)}{at}")]
    lines += [_bullet(f"judged on: {_data(setting.evaluation)}, {held}")]
    if setting.calibration is not None:
        lines += [_bullet(f"calibrated on: {_data(setting.calibration)}")]
    lines += [_bullet(words.reference(setting))]
    if setting.simulated:
        lines += [_bullet(words.SIMULATED)]
    lines += [_bullet(f"note: {_plain(note)}") for note in setting.notes]
    lines += ["", *_block(command.splitlines(), "sh"), "", *body]
    return "\n".join(lines) + "\n"


def _data(data: DataFacts) -> str:
    return f"{words.counted(data.samples, 'sample')} of {_code(data.path)}"


def _table(columns: Sequence[str], body: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a table; its cells are Markdown already, and hold no bare pipe."""
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    for cells in body:
        yield f"| {' | '.join(cells)} |"


def _bullet(markdown: str) -> str:
    return f"- {markdown}"


def _block(lines: Sequence[str], language: str) -> list[str]:
    """Return a block of code whose fence is longer than any run of backticks in it."""
    shown = [printable(line) for line in lines]
    longest = max((len(run) for line in shown for run in re.findall("`+", line)), default=0)
    fence = "`" * max(_SHORTEST_FENCE, longest + 1)
    return [f"{fence}{language}", *shown, fence]


def _code(name: str) -> str:
    """Return a name as a code span; as escaped text where such a span could not hold it, in or out of a table."""
    text = shortened(name)
    return _plain(text) if _NOT_IN_CODE.search(text) else f"`{text}`"


def _plain(text: str) -> str:
    """Return text of the model's or the user's that means only itself; what the other views wrote needs none of this."""
    shown = _SPECIAL.sub(r"\\\g<0>", printable(text).strip() or _BLANK)
    shown = _REFERENCE.sub(lambda found: f"&#{ord(found[0])};", shown)
    return _LIST.sub(r"\1\\\2", shown)
