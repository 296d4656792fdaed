"""A report as one HTML page that loads nothing: text from a template, data and Plotly.js inside it, compressed.

Names of tensors, samples and files are hostile: the template escapes them, the data stand in the page as base64, and the
scripts put text into text nodes only. The page's Content-Security-Policy allows the two scripts by their hashes, nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from trtcalib.batch_study.result import StudiedTensor
from trtcalib.reports.result import Curves, Drawn, ReportedStudy
from trtcalib.views.html_accuracy import FILTERS, NONE
from trtcalib.views.report_curves import COUNT_STEPS, GROUP, KL_NEAR, KL_STEPS, KL_STRIDE, packed, packed_group
from trtcalib.views.text import printable, shortened

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["BROWSERS", "SCRIPTS", "format_html"]

BROWSERS = "Chrome or Edge 111, Firefox 113, Safari 16.4"
"""The oldest that have both DecompressionStream, which unpacks the data, and color-mix, as MDN tells; tried in Chromium alone."""

SCRIPTS = (
    "base.js",
    "data.js",
    "table.js",
    "plots.js",
    "heatmap.js",
    "detail.js",
    "caches.js",
    "scores.js",
    "layers.js",
    "accuracy.js",
    "main.js",
)
"""The page's script, in the order in which its parts need each other."""

_PRINTED = 30
"""Tensors or nodes in the table that stands on paper and where scripts are off."""

_LISTED = 1000
"""Rows of a table that is always in the page: as many as ImageNet has classes."""


class _Block(NamedTuple):
    """Packed data in the page.

    Attributes:
        name: The element's id.
        text: base64.
    """

    name: str
    text: str


def format_html(drawn: Drawn, beside: Mapping[str, str]) -> bytes:
    """Return the bytes of the page; the same bytes for the same report, Plotly and zlib.

    Args:
        drawn: What to show.
        beside: Names of the files beside the page, by suffix (``.json``, ``.csv``).
    """
    report = drawn.report
    script = _script()
    plotly = _plotly() if report.studies or report.histograms or report.accuracy else ""
    page = {"report": json.loads(report.model_dump_json()), "page": _page_facts(beside)}
    text = json.dumps(page, separators=(",", ":"), ensure_ascii=False)
    blocks = [_Block("report-data", packed(text.encode("utf-8", "backslashreplace"))), *_curve_blocks(drawn.curves)]
    html = (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            beside=beside,
            browsers=BROWSERS,
            listed=_LISTED,
            printed=_PRINTED,
            policy=_policy(*filter(None, (script, plotly))),
            style=_resource("report.css"),
            script=script,
            blocks=blocks,
            plotly=packed(plotly.encode()) if plotly else "",
        )
    )
    return html.encode("utf-8", "backslashreplace")


def _page_facts(beside: Mapping[str, str]) -> dict[str, Any]:
    """State what the script must know of how the data are packed."""
    return {
        "group": GROUP,
        "countSteps": COUNT_STEPS,
        "klSteps": KL_STEPS,
        "klStride": KL_STRIDE,
        "klNear": KL_NEAR,
        "beside": dict(beside),
    }


def _curve_blocks(curves: Mapping[int, Sequence[Curves]]) -> Iterator[_Block]:
    for position, of_set in curves.items():
        for group, start in enumerate(range(0, len(of_set), GROUP)):
            yield _Block(f"curves-{position}-{group}", packed_group(of_set[start : start + GROUP]))


def _policy(*scripts: str) -> str:
    """Return the Content-Security-Policy. Styles are free: Plotly sets them on elements, and they can load nothing."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _script() -> str:
    parts = "\n".join(_resource(name) for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _resource(name: str) -> str:
    """Return a file of the page with plain line ends, as the browser sees it when it checks the hash."""
    return (files("trtcalib.views") / "report" / name).read_text(encoding="utf-8").replace("\r\n", "\n")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "name": shortened,
        "text": printable,
        "number": _number,
        "share": _share,
        "most_unstable": _most_unstable,
        **FILTERS,
    }
    return environment


def _most_unstable(reported: ReportedStudy) -> list[StudiedTensor]:
    tensors = [tensor for tensor in reported.study.tensors if tensor.outcomes and tensor.instability is not None]
    return sorted(tensors, key=lambda tensor: -(tensor.instability or 0.0))[:_PRINTED]


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.5g}"


def _share(value: float) -> str:
    return f"{100 * value:.3g} %"
