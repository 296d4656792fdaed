"""Results shown to people: names cannot drive a terminal, a table or a picture; pictures are the same bytes twice."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

import trtcalib
from tests.models import save_model
from trtcalib.calibration import Calibration, solve
from trtcalib.core.cache import CacheEntry, CalibrationCache, parse_cache
from trtcalib.core.histogram import Histogram, collect_histogram
from trtcalib.manifest import Finding, TensorFacts
from trtcalib.views.plots import draw_histogram, format_figure
from trtcalib.views.tables import cache_table, comparison_table, finding_lines
from trtcalib.views.text import LONGEST, printable, shortened

HISTOGRAM = collect_histogram([np.random.default_rng(0).normal(size=2000).astype(np.float32)])

HOSTILE = [
    "a\x1b[31mred\x1b[0m",
    "\x1b]8;;http://evil\x07link\x1b]8;;\x07",
    "line\nbreak\r\x00\x7f\x9b31m",
    "[red]markup[/red] [link=http://evil]x[/link] [/]",
    "$math$ \\frac{ ${",
    "_underscore",
    "\u202eright to left\u202c \u200b\u2066",
    "אבג عربي",
    "卷积/输出",
    "bytes \udc80\udcff",
    "x" * 10_000,
    "",
    " ",
]


def shown(table: Table, width: int = 200) -> str:
    """What a terminal would get."""
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=True, color_system="truecolor", highlight=False).print(table)
    return file.getvalue()


def plain(text: str) -> str:
    """Without the colours that Rich puts in itself."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


class TestText:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("conv1/Relu:0", "conv1/Relu:0"),
            ("é 卷积 אבג", "é 卷积 אבג"),
            ("\x1b[31m", "\\x1b[31m"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u202eabc", "\\u202eabc"),
            ("\x9b1m\x7f\x00", "\\x9b1m\\x7f\\x00"),
            ("\udc80", "\\udc80"),
            ("\U000e0001", "\\U000e0001"),
        ],
    )
    def test_unprintables_are_escaped(self, name: str, expected: str) -> None:
        assert printable(name) == expected

    @given(st.text())
    def test_what_comes_out_is_printable_and_stays_so(self, name: str) -> None:
        assert printable(name).isprintable()
        assert printable(printable(name)) == printable(name)
        assert len(shortened(name)) <= LONGEST

    def test_long_names_lose_their_middle(self) -> None:
        name = "a" * 60 + "b" * 1000 + "c" * 59
        assert shortened(name) == "a" * 60 + "…" + "c" * 59
        assert shortened("x" * LONGEST) == "x" * LONGEST
        assert shortened("abcdefgh", 5) == "ab…gh"


class TestCacheTable:
    def test_scale_and_amax(self) -> None:
        text = plain(shown(cache_table(parse_cache(b"TRT-101601-EntropyCalibration2\nconv: 3c010a14\nzero: 0\n"))))
        assert re.search(r"conv +3c010a14 +0\.007875938 +1\.0002 *\n", text)
        assert re.search(r"zero +0 +0 +0 *\n", text)

    def test_odd_scales(self) -> None:
        text = plain(shown(cache_table(parse_cache(b"TRT-1-X\na: 7f800000\nb: 7fc00000\nc: bf800000\n"))))
        assert re.search(r"a +7f800000 +inf +inf", text)
        assert re.search(r"b +7fc00000 +nan +nan", text)
        assert re.search(r"c +bf800000 +-1 +-127", text)

    def test_facts_of_the_manifest(self) -> None:
        values = dict.fromkeys(["maximum", "first_maximum", "doublings", "clamped", "bins", "values", "amax", "scale"])
        facts = [
            TensorFacts(
                name="conv", kind="activation", range=2.5, bin_m=700, scale_hex="1", inherited_from=None, **values
            ),
            TensorFacts(
                name="pool",
                kind="activation",
                range=None,
                bin_m=None,
                scale_hex="1",
                inherited_from="co\x1bnv",
                **values,
            ),
        ]
        cache = parse_cache(b"TRT-1-X\nconv: 3c010a14\npool: 3c010a14\nother: 1\n")
        text = plain(shown(cache_table(cache, facts)))
        assert re.search(r"conv .* 2\.5 +700", text)
        assert re.search(r"pool  = co\\x1bnv .* - +-", text)
        assert re.search(r"other .* - +-", text)

    @pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name[:30]))
    def test_hostile_names(self, name: str) -> None:
        cache = CalibrationCache(1, "X", (CacheEntry(name, 0x3C010A14),))
        text = plain(shown(cache_table(cache), width=400))
        assert all(character.isprintable() or character == "\n" for character in text)
        assert shortened(name).strip() in text

    def test_a_narrow_terminal_folds_names_and_keeps_numbers(self) -> None:
        cache = CalibrationCache(1, "X", (CacheEntry("n" * 100, 0x3C010A14),))
        text = plain(shown(cache_table(cache), width=60))
        assert "3c010a14" in text
        assert text.count("n") >= 100


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    folder = tmp_path_factory.mktemp("views")
    text = """
    net (float[N, 1, 8, 8] x) => (float[N, 16] y)
    {
        r = Relu(x)
        p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r)
        f = Flatten(p)
        y = Sub(f, f)
    }
    """
    values = np.random.default_rng(0).normal(size=(20, 1, 8, 8)).astype(np.float32)
    return trtcalib.calibrate(save_model(folder / "m.onnx", text), values)


class TestComparisonTable:
    def test_every_method_has_a_column(self, calibration: Calibration) -> None:
        table = comparison_table({"entropy": calibration, "minmax": solve(calibration, "minmax")})
        text = plain(shown(table))
        for heading in ("tensor", "range", "bins", "amax entropy", "amax minmax", "scale"):
            assert heading in text
        m = calibration.clips["x"].bin_m
        assert re.search(rf"x +{calibration.histograms['x'].range:.5g} +{m}/2048 ", text)
        assert "p  = r" in text
        assert re.search(r"y +0 +-/2048 +0 +0 +0", text)

    def test_a_methods_name_is_no_markup(self, calibration: Calibration) -> None:
        text = plain(shown(comparison_table({"[red]$x$[/red]": calibration})))
        assert "amax [red]$x$[/red]" in text

    def test_without_an_entropy_search_there_is_no_bin(self, calibration: Calibration) -> None:
        assert "-/2048" in plain(shown(comparison_table({"minmax": solve(calibration, "minmax")})))


class TestFindings:
    def test_one_line_each(self) -> None:
        findings = [Finding(code="all-zero-tensor", tensor="x", message="'x' is zero")]
        assert finding_lines(findings) == ["all-zero-tensor: 'x' is zero"]
        assert finding_lines([]) == []

    def test_the_rest_is_counted(self) -> None:
        lines = finding_lines([Finding(code="c", message=str(i)) for i in range(25)])
        assert lines[19:] == ["c: 19", "... and 5 more findings, in the manifest"]
        assert len(finding_lines([Finding(code="c", message="m")] * 3, most=3)) == 3

    def test_hostile_messages_stay_one_short_line(self) -> None:
        (line,) = finding_lines([Finding(code="c", message="a\n\x1b[31m" + "x" * 10_000)])
        assert line.startswith("c: a\\n\\x1b[31mxxx")
        assert len(line) <= 403


def picture(kind: str, name: str = "x", histogram: Histogram = HISTOGRAM, marks: dict | None = None) -> bytes:
    return format_figure(
        draw_histogram(name, histogram, {"entropy": 2.0, "minmax": 3.0} if marks is None else marks), kind
    )


def bins(counts: dict[int, int], **facts: float) -> Histogram:
    values = np.zeros(256, np.int64)
    for index, count in counts.items():
        values[index] = count
    return Histogram(counts=values, **{k: v if k == "doublings" else np.float32(v) for k, v in facts.items()})


class TestPictures:
    @pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG\r\n\x1a\n"), ("svg", b"<?xml")])
    def test_are_the_same_bytes_twice(self, kind: str, start: bytes) -> None:
        first = picture(kind)
        assert first.startswith(start)
        assert first == picture(kind)

    def test_hold_no_date_and_load_nothing(self) -> None:
        svg = picture("svg").decode()
        assert "<dc:date>" not in svg
        assert not re.search(r'(?:href|src)="(?!#)', svg)
        assert "<script" not in svg

    def test_show_name_counts_range_and_marks(self) -> None:
        histogram = collect_histogram([np.ones(10, np.float32), np.full(5, 3, np.float32)])
        figure = draw_histogram("conv1", histogram, {"minmax": 3.0, "entropy": 1.25, "infinite": np.inf})
        (axes,) = figure.axes
        assert axes.get_title() == "conv1 — 2048 bins over [0, 4], doubled 2 x from 1"
        assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("|x|", "values per bin (log)", "log")
        legend = [text.get_text() for text in axes.get_legend().get_texts()]
        assert legend == [
            "15 values of |x|",
            "empty: the range is past the maximum",
            "entropy: amax 1.25",
            "minmax: amax 3",
        ]

    @pytest.mark.parametrize("kind", ["png", "svg"])
    @pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name[:30]))
    def test_hostile_names_and_methods(self, kind: str, name: str) -> None:
        content = picture(kind, name, marks={name: 1.0})
        assert len(content) < 1_000_000
        if kind == "svg":
            text = content.decode()
            assert all(character.isprintable() or character == "\n" for character in text)
            assert not re.search(r'(?:href|src)="(?!#)', text)

    @pytest.mark.parametrize(
        "histogram",
        [
            bins({}, range=0),
            bins({0: 5}, range=0),
            bins({0: 5, 3: 2}, range=np.inf, first_max=3e38, maximum=3.3e38, doublings=1),
            bins({0: 5, 3: 2}, range=1e-45, first_max=1e-45, maximum=1e-45),
            bins({0: 5, 3: 2}, range=3e38, first_max=3e38, maximum=3e38),
            bins({0: 10**15, 255: 1}, range=1, first_max=1, maximum=1),
        ],
        ids=["empty", "zero", "past float32", "smallest", "largest", "many"],
    )
    def test_extreme_histograms(self, histogram: Histogram) -> None:
        assert picture("svg", histogram=histogram, marks={"minmax": float(histogram.maximum)})

    def test_the_users_own_matplotlib_settings_are_left_alone(self) -> None:
        import matplotlib as mpl

        before = dict(mpl.rcParams)
        picture("svg")
        assert dict(mpl.rcParams) == before
