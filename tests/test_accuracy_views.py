"""Accuracy results shown to people: how each metric's numbers are written, tables, Markdown and pictures."""

from __future__ import annotations

import io
import re
import shlex
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from rich.table import Table

from tests.accuracy_view_results import (
    AGREEMENT,
    COSINE,
    FUNCTION,
    METHODS,
    SQNR,
    TOP1,
    ablation,
    advice,
    candidate,
    evaluation,
    fallback,
    judged,
    layer,
    noisy,
    sensitivity,
    sweep,
)
from trtcalib.accuracy.result import Ablation, AdviceItem, JudgedOutput, Range, Score, Sensitivity, Sweep, VariantFacts
from trtcalib.manifest import ModelFacts
from trtcalib.views import accuracy_rows as rows
from trtcalib.views import accuracy_text as words
from trtcalib.views.accuracy_markdown import (
    ablation_markdown,
    advice_markdown,
    sensitivity_markdown,
    sweep_markdown,
)
from trtcalib.views.accuracy_plots import plot_ablation, plot_sensitivity, plot_sweep
from trtcalib.views.accuracy_tables import (
    ablation_table,
    advice_lines,
    class_table,
    evaluation_lines,
    fallback_lines,
    output_table,
    sensitivity_table,
    sweep_lines,
    sweep_table,
)
from trtcalib.views.text import printable, shortened

HOSTILE = [
    "a\x1b[31mred\x1b[0m",
    "line\nbreak\r\n# heading\n",
    "[red]markup[/red] [link=http://evil]x[/link] [/]",
    "$math$ \\frac{ ${",
    "a|b\\|c\\\\|d",
    "`tick` ``two`` ```three",
    "<script>alert(1)</script> &lt; &#124;",
    "[x](http://evil) ![y](http://evil) ~~no~~ **bold** _thin_ __two__",
    "- item",
    "1. item",
    "---",
    "\u202eright to left\u202c",
    "卷积/输出",
    "bytes \udc80",
    "x" * 10_000,
    " ",
    "",
]

LARGEST = sys.float_info.max
"""What a judgement's loss holds where an output is nothing but noise."""


def shown(table: Table, width: int = 160) -> str:
    """What a terminal without colours would get, the blanks at the ends of lines left out."""
    file = io.StringIO()
    Console(file=file, width=width, highlight=False, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


class TestNumbers:
    @pytest.mark.parametrize(
        ("metric", "number", "expected"),
        [
            (TOP1, 0.996, "99.60 %"),
            (AGREEMENT, 1.0, "100.00 %"),
            (COSINE, 0.999871, "0.99987"),
            (SQNR, 35.71, "35.7 dB"),
            (SQNR, None, "no difference"),
            (FUNCTION, 1234.5678, "1234.6"),
            (FUNCTION, None, "infinite"),
        ],
    )
    def test_a_value_is_written_by_its_metric(self, metric, number, expected):
        assert words.value(metric, number) == expected

    @pytest.mark.parametrize(
        ("metric", "score", "expected"),
        [
            (TOP1, Score(value=0.996, interval=Range(low=0.986, high=0.99912)), "99.60 % [98.6, 99.9]"),
            (TOP1, Score(value=0.996, interval=None), "99.60 %"),
            (SQNR, Score(value=35.71, interval=Range(low=34.5, high=None)), "35.7 dB [34.5, inf]"),
            (COSINE, Score(value=0.99, interval=Range(low=None, high=0.995)), "0.99000 [-inf, 0.99500]"),
            (FUNCTION, Score(value=2.5, interval=Range(low=-1e-7, high=31.25)), "2.5 [-1e-07, 31.25]"),
        ],
    )
    def test_a_score_has_its_interval(self, metric, score, expected):
        assert words.score(metric, score) == expected

    @pytest.mark.parametrize(
        ("metric", "loss", "expected"),
        [
            (TOP1, 0.012, "-1.20 points"),
            (AGREEMENT, -0.012, "+1.20 points"),
            (TOP1, 0.0, "0.00 points"),
            (TOP1, -0.00001, "0.00 points"),
            (COSINE, 0.00013, "-0.00013"),
            (FUNCTION, 0.25, "-0.25"),
            (FUNCTION, 0.0, "0"),
            (SQNR, 0.00027, "noise 0.027 %"),
            (SQNR, 0.0, "noise 0 %"),
            (SQNR, 0.0999, "noise 10 %"),
            (SQNR, 12.3, "noise 1230 %"),
            (SQNR, 1e9, "noise 1e+11 %"),
        ],
    )
    def test_a_loss_is_written_as_the_change_from_fp32(self, metric, loss, expected):
        assert words.change(metric, loss) == expected

    def test_the_interval_of_a_change_is_that_of_the_loss_turned_round(self):
        loss = Range(low=-0.003, high=0.021)
        assert words.change_interval(TOP1, loss) == "[-2.10, +0.30]"
        assert words.change_interval(TOP1, Range(low=None, high=0.021)) == "[-2.10, inf]"
        assert words.change_interval(SQNR, Range(low=0.00021, high=0.00035)) == "[0.021, 0.035] %"
        assert words.change_interval(TOP1, None) == ""

    @pytest.mark.parametrize(
        ("metric", "gain", "expected"),
        [
            (TOP1, 0.008, "+0.80 points"),
            (TOP1, -0.008, "-0.80 points"),
            (SQNR, 0.005, "0.5 % less noise"),
            (SQNR, -0.005, "0.5 % more noise"),
            (FUNCTION, 0.5, "+0.5"),
        ],
    )
    def test_a_gain_is_what_is_lost_less(self, metric, gain, expected):
        assert words.gain(metric, gain) == expected

    def test_an_allowed_loss_has_no_sign(self):
        assert words.loss_amount(TOP1, 0.01) == "1.00 points"
        assert words.loss_amount(SQNR, 0.01) == "noise 1 %"

    @pytest.mark.parametrize(
        ("p", "expected"),
        [(0.0, "p < 0.001"), (0.00099, "p < 0.001"), (0.001, "p = 0.001"), (0.03, "p = 0.03"), (1.0, "p = 1")],
    )
    def test_a_small_p_is_not_spelled_out(self, p, expected):
        assert words.p_value(p) == expected

    def test_an_infinite_value_tells_no_noise_from_nothing_but_noise(self):
        assert words.judged_value(SQNR, noisy(0.0, None)) == "no difference"
        assert words.judged_value(SQNR, noisy(LARGEST, None)) == "only noise"
        assert words.score(SQNR, noisy(LARGEST, None, interval=None)) == "only noise"

    @given(st.floats(-1, 1), st.floats(0, 0.5))
    def test_what_lies_in_the_interval_of_the_loss_lies_in_that_of_the_change(self, loss, half):
        text = words.change_interval(TOP1, Range(low=loss - half, high=loss + half))
        low, high = map(float, text.strip("[]").split(", "))
        assert low <= round(-100 * loss, 2) + 0.011
        assert high >= round(-100 * loss, 2) - 0.011


class TestClaims:
    def test_an_interval_that_holds_0_needs_more_samples(self):
        found = judged(0.004, loss_interval=Range(low=-0.006, high=0.0152))
        assert words.claim(TOP1, found, 500) == (
            "the difference of -0.40 points cannot be told from none: the 95 % interval of 500 samples, [-1.52, +0.60] points, "
            "holds 0; more samples are needed to tell"
        )

    def test_an_interval_without_0_carries_the_claim(self):
        assert words.claim(TOP1, judged(), 500) == (
            "the difference of -1.20 points is more than chance: the 95 % interval of 500 samples, [-2.10, -0.30] points, "
            "does not hold 0"
        )

    @pytest.mark.parametrize(
        ("low", "high", "holds"),
        [
            (0.0, 0.1, True),
            (-0.1, 0.0, True),
            (0.01, None, False),
            (None, -0.01, False),
            (None, None, True),
            (-0.1, None, True),
        ],
    )
    def test_ends_and_infinite_ends_count(self, low, high, holds):
        text = words.claim(TOP1, judged(loss_interval=Range(low=low, high=high)), 9)
        assert ("cannot be told from none" in text) is holds
        assert ("more than chance" in text) is not holds

    def test_without_an_interval_there_is_no_claim(self):
        text = words.claim(FUNCTION, judged(0.5, value=0.25, loss_interval=None), 1)
        assert text == "the difference of -0.5 is no claim: there is no interval of it from 1 sample"

    def test_noise_is_told_with_its_interval(self):
        assert words.claim(SQNR, noisy(), 64) == (
            "noise 0.027 % of the signal at the worst output, with 95 % confidence [0.021, 0.035] %"
        )
        assert words.claim(SQNR, noisy(0.0, None), 64) == "no difference from FP32 in 64 samples"
        assert "no difference" not in words.claim(SQNR, noisy(LARGEST, None), 64)

    def test_a_gain_within_the_interval_is_no_claim(self):
        assert words.gain_claim(sweep()) == (
            "the gain of +1.80 points cannot be told from none: the 95 % interval of 500 samples, [-0.20, +4.00] points, holds 0; "
            "more samples are needed to tell"
        )
        noise = sweep(metric=SQNR, gain=0.005, gain_interval=Range(low=0.001, high=0.009))
        assert words.gain_claim(noise) == (
            "the gain of 0.5 % less noise is more than chance: the 95 % interval of 500 samples, [0.1, 0.9] %, does not hold 0"
        )


class TestEvaluation:
    def test_lines(self):
        assert list(evaluation_lines(evaluation())) == [
            "top1 of 500 samples at output scores",
            "  FP32 98.20 % [96.6, 99.1]",
            "  INT8 (entropy) 97.00 % [95.2, 98.2]: -1.20 points [-2.10, -0.30], p = 0.03",
            "  right with FP32 only: 9; with INT8 only: 3",
            (
                "the difference of -1.20 points is more than chance: the 95 % interval of 500 samples, [-2.10, -0.30] points, "
                "does not hold 0"
            ),
            "25 of 26 weighted nodes in INT8",
            "INT8 is simulated by ONNX Runtime in float; it is not TensorRT's kernels",
        ]

    def test_an_engine_is_not_called_simulated(self):
        lines = list(evaluation_lines(evaluation(engine="m.engine", simulated=False, quantized=None, weighted=None)))
        assert lines[2].startswith("  engine m.engine (entropy) 97.00 %")
        assert lines[3] == "  right with FP32 only: 9; with the engine only: 3"
        assert not any("simulated" in line or "weighted" in line for line in lines)

    def test_where_fp32_is_the_measure_it_has_no_score(self):
        lines = list(
            evaluation_lines(evaluation(metric=SQNR, judgement=noisy(), only_reference=None, only_variant=None))
        )
        assert lines[1:4] == [
            "  compared with FP32's outputs",
            "  INT8 (entropy) 35.7 dB [34.5, 36.8]: noise 0.027 % [0.021, 0.035] %",
            "noise 0.027 % of the signal at the worst output, with 95 % confidence [0.021, 0.035] %",
        ]

    def test_outputs(self):
        lines = shown(output_table(evaluation())).splitlines()
        assert lines[0].split() == ["output", "SQNR", "cosine", "agreement", "largest", "difference"]
        assert re.split(r"  +", lines[2]) == ["scores", "35.7 dB", "0.99987", "98.80 %", "0.12346"]
        assert re.split(r"  +", lines[3]) == ["same", "no difference", "-", "-", "-"]

    def test_the_classes_that_lose_most_come_first(self):
        lines = shown(class_table(evaluation())).splitlines()
        assert re.split(r"  +", lines[2].strip()) == ["2", "50", "48", "40", "[86.5, 98.9]", "-8"]
        assert [line.split()[0] for line in lines[2:]] == ["2", "0", "1"]
        assert [line.split()[-1] for line in lines[2:]] == ["-8", "0", "+1"]

    def test_classes_past_the_shown_ones_are_counted(self):
        text = shown(class_table(evaluation(), most=1))
        assert text.splitlines()[-1] == "... and 2 more classes, in the JSON file"


class TestAblationTable:
    def test_a_row_has_a_cell_per_part(self):
        lines = shown(ablation_table(ablation())).splitlines()
        assert re.split(r"  +", lines[0].strip()) == ["method", *rows.ABLATION_COLUMNS, "SQNR of both"]
        assert re.split(r"  +", lines[4].strip()) == [
            "* entropy",
            "87.20 % -11.00",
            "97.20 % -1.00",
            "98.00 % -0.20",
            "97.00 % -1.20",
            "-",
        ]
        assert re.split(r"  +", lines[5].strip()) == [
            "[-11.90, -10.10]",
            "[-1.90, -0.10]",
            "[-1.10, +0.70]",
            "[-2.10, -0.30]",
        ]

    def test_the_noise_of_both_tells_methods_apart_where_the_metric_does_not(self):
        study = ablation()
        first = study.rows[0]
        found = [
            JudgedOutput(name=name, sqnr_db=sqnr, cosine=1.0, agreement=None, largest_difference=0.0)
            for name, sqnr in (("scores", 41.26), ("boxes", 7.0))
        ]
        both = first.cells[-1].model_copy(
            update={"judgement": first.cells[-1].judgement.model_copy(update={"outputs": found})}
        )
        row = first.model_copy(update={"cells": [*first.cells[:-1], both]})
        assert rows.noise_cells(study.metric, row) == ("41.3 dB",)
        every = study.metric.model_copy(update={"output": None})
        assert rows.noise_cells(every, row) == ("7.0 dB",)
        assert rows.noise_cells(every.model_copy(update={"name": "sqnr"}), row) == ()

    def test_the_marks_are_explained(self):
        lines = shown(ablation_table(ablation())).splitlines()
        assert [line.split()[0] for line in lines[2:12:2]] == ["minmax", "*", "percentile", "percentile", "~"]
        assert lines[-4:] == [
            "FP32 98.20 % [96.6, 99.1], 500 samples",
            "* entropy loses least with both; ~ cannot be told from it on these samples",
            "both: weights per channel by minmax",
            "each cell: value, change from FP32, in points, and the change's 95 % interval",
        ]
        assert "~" not in shown(ablation_table(ablation(indistinguishable=[])))

    def test_the_best_cell_is_bold(self):
        table = ablation_table(ablation())
        both = list(table.columns[-2].cells)
        assert [any(span.style == "bold" for span in cell.spans) for cell in both] == [False, True, False, False, False]

    def test_a_cell_that_was_not_tried_is_empty(self):
        study = ablation()
        first = study.rows[0].model_copy(update={"cells": study.rows[0].cells[:1]})
        text = shown(ablation_table(study.model_copy(update={"rows": [first]})))
        assert re.split(r"  +", text.splitlines()[2].strip()) == ["minmax", "88.20 % -10.00", "-", "-", "-", "-"]

    @pytest.mark.parametrize("width", [40, 60, 80])
    def test_a_narrow_terminal_folds_and_loses_nothing(self, width):
        text = shown(ablation_table(ablation()), width)
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
        assert text.count("%") == 20 + 2


class TestSweepTable:
    def test_the_winner_is_first_and_marked(self):
        lines = shown(sweep_table(sweep())).splitlines()
        assert re.split(r"  +", lines[2].strip()) == [
            "* 2",
            "percentile 99.1",
            "96.20 %",
            "-2.00 points",
            "[-2.90, -1.10]",
        ]
        assert [line.split()[0] for line in lines[3:6]] == ["1", "3", "4"]
        assert lines[-1] == "compared on 300 calibration samples; * is the winner"

    def test_the_held_out_samples_judge(self):
        lines = list(sweep_lines(sweep()))
        assert lines[:3] == [
            "top1 of 500 held-out samples: FP32 98.20 % [96.6, 99.1]",
            "  baseline entropy: 95.20 % [93.4, 96.4], -3.00 points [-3.90, -2.10], p = 0.03",
            "  winner percentile 99.1: 97.00 % [95.2, 98.2], -1.20 points [-2.10, -0.30], p = 0.03",
        ]
        assert "cannot be told from none" in lines[3]
        assert lines[4] == words.SIMULATED


class TestSensitivity:
    def test_a_row_per_node(self):
        layers = [
            layer(1, "conv1"),
            layer(
                2, "", output="named", operator="Gemm", macs=None, clipped_share=None, only_sqnr_db=None, only_loss=0.0
            ),
        ]
        table = sensitivity_table(sensitivity(layers=layers))
        lines = shown(table).splitlines()
        assert re.split(r"  +", lines[2].strip()) == [
            "1",
            "conv1",
            "Conv",
            "100.0 %",
            "-5.00",
            "21.0 dB",
            "+4.00",
            "25 %",
        ]
        assert re.split(r"  +", lines[3].strip()) == ["2", "named", "Gemm", "-", "0.00", "no noise", "+2.00", "-"]
        assert str(table.caption) == (
            "FP32 98.20 % [96.6, 99.1]; everything in INT8 92.00 % [90.2, 93.2], -6.20 points [-7.10, -5.30], p = 0.03; 500 samples"
        )

    def test_the_headings_say_what_the_metric_loses(self):
        assert rows.layer_headings(TOP1)[1] == "alone, points"
        assert rows.layer_headings(SQNR)[1::2] == ("noise alone", "noise less in float")
        assert rows.layer_headings(COSINE)[1] == "alone"

    def test_of_300_nodes_20_are_shown_and_the_rest_counted(self):
        lines = shown(sensitivity_table(sensitivity(300)), 200).splitlines()
        assert sum("Conv " in line for line in lines) == 20
        assert lines[-1] == "... and 280 more nodes, in the JSON file"
        assert "conv300" in shown(sensitivity_table(sensitivity(300), most=None), 200)

    def test_where_no_macs_are_known_there_is_no_share(self):
        assert rows.layer_cells(TOP1, layer(1, "a", macs=0), 0)[0] == "-"

    def test_the_fallback_can_be_pasted(self):
        assert list(fallback_lines(sensitivity())) == [
            "left in float, 1 node: conv1",
            (
                "-0.40 points [-1.00, +0.20] with them in float, within the 1.00 points that were allowed; "
                "75.0 % of the multiply-accumulates stay in INT8"
            ),
            "trtexec:",
            "--layerPrecisions=conv1:fp16",
            "trtcalib qdq:",
            "--exclude conv1",
        ]

    def test_a_fallback_that_does_not_reach_says_so(self):
        lines = list(fallback_lines(sensitivity(fallback=fallback(reached=False, macs_int8=None))))
        assert lines[1].endswith("not within the 1.00 points that were allowed")

    def test_a_line_to_be_pasted_is_never_shortened(self):
        line = "--exclude " + shlex.quote(",".join(f"node{i}" for i in range(1000)))
        found = sensitivity(fallback=fallback(dialects={"x": line}, nodes=[f"node{i}" for i in range(30)]))
        lines = list(fallback_lines(found))
        assert lines[-1] == line
        assert lines[0].endswith("node18, node19 and 10 more")

    def test_without_a_set_there_are_no_lines(self):
        assert list(fallback_lines(sensitivity(fallback=None))) == []


def test_advice_is_numbered_with_its_evidence_and_commands():
    assert list(advice_lines(advice())) == [
        "top1 of 500 samples: FP32 98.20 % [96.6, 99.1]",
        "entropy, everything in INT8: 92.00 % [90.2, 93.2], -6.20 points [-7.10, -5.30], p = 0.03",
        "1. take percentile 99.99",
        "   - entropy loses 6.20 points",
        "   - percentile 99.99 loses 1.20 points",
        "   followed: 97.00 % [95.2, 98.2], -1.20 points [-2.10, -0.30], p = 0.03",
        "   do: trtcalib calibrate model.onnx --calibrator percentile-99.99",
        "   see: trtcalib ablate model.onnx",
        "2. add samples",
        "all of it followed: 97.00 % [95.2, 98.2], -1.20 points [-2.10, -0.30], p = 0.03",
        "INT8 is simulated by ONNX Runtime in float; it is not TensorRT's kernels",
    ]


def called(path: str) -> ModelFacts:
    return ModelFacts(path=path, sha256="0" * 64)


def hostile_ablation(name: str) -> Ablation:
    study = ablation((name, "second"), model=called(name), notes=[name])
    return study.model_copy(update={"best": name, "metric": FUNCTION.model_copy(update={"name": name, "output": name})})


def hostile_sweep(name: str) -> Sweep:
    found = candidate(name, 0.01)
    return sweep(
        candidates=[found],
        winner=found,
        baseline=found,
        metric=TOP1.model_copy(update={"name": name}),
        model=called(name),
    )


def hostile_sensitivity(name: str) -> Sensitivity:
    told = fallback(nodes=[name], outputs=[name], dialects={name: name})
    found = layer(1, name, operator=name, output=name)
    return sensitivity(layers=[found], fallback=told, model=called(name))


def hostile_advice(name: str):
    item = AdviceItem(code="x", title=name, evidence=[name], command=name, reproduce=name, checked=None)
    return advice(items=[item], notes=[name])


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name[:20]))
class TestHostileNames:
    def test_drive_no_terminal(self, name):
        output = JudgedOutput(name=name, sqnr_db=1.0, cosine=1.0, agreement=1.0, largest_difference=0.0)
        odd = evaluation(
            judgement=judged(outputs=[output]),
            engine=name,
            variant=VariantFacts(method=name, activations=True, weights="channel"),
            metric=TOP1.model_copy(update={"name": name, "output": name}),
        )
        tables = [
            ablation_table(hostile_ablation(name)),
            sweep_table(hostile_sweep(name)),
            sensitivity_table(hostile_sensitivity(name)),
            output_table(odd),
        ]
        lines = [
            *evaluation_lines(odd),
            *sweep_lines(hostile_sweep(name)),
            *fallback_lines(hostile_sensitivity(name)),
            *advice_lines(hostile_advice(name)),
        ]
        for table in tables:
            text = shown(table, 400)
            assert all(character.isprintable() or character == "\n" for character in text)
            assert shortened(name, 40).strip() in text or shortened(name, 60).strip() in text
        assert all(line.isprintable() for line in lines)
        assert sum(printable(name) in line for line in lines) >= 4

    @pytest.mark.parametrize(
        ("make", "names"),
        [
            (lambda name: ablation_markdown(hostile_ablation(name), "run"), 3),
            (lambda name: sweep_markdown(hostile_sweep(name), "run"), 3),
            (lambda name: sensitivity_markdown(hostile_sensitivity(name), "run"), 3),
            (lambda name: advice_markdown(hostile_advice(name), "run"), 3),
        ],
        ids=["ablation", "sweep", "sensitivity", "advice"],
    )
    def test_are_only_text_in_markdown(self, name, make: Callable[[str], str], names):
        wanted, plain = read(make(name)), read(make("plain"))
        assert wanted.structure == plain.structure
        found = (shortened(name).strip() or "(blank)", printable(name).strip() or "(blank)")
        assert sum(any(one in text for one in found) for text in wanted.texts) >= names

    @pytest.mark.parametrize("kind", ["png", "svg"])
    def test_break_no_picture(self, name, kind):
        study = hostile_ablation(name)
        assert plot_ablation(study, kind)
        assert plot_sweep(hostile_sweep(name), kind)
        assert plot_sensitivity(hostile_sensitivity(name), kind)


class Read:
    """A document as a parser sees it: its structure without texts, and the texts."""

    def __init__(self, markdown: str) -> None:
        self.structure: list[str] = []
        self.texts: list[str] = []
        # It comes with Rich, but not with the oldest that is supported.
        markdown_it = pytest.importorskip("markdown_it", reason="no parser of Markdown")
        for token in (
            markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(markdown)
        ):
            if token.type == "inline":
                children = token.children or []
                self.texts.append("".join(child.content for child in children))
                self.structure += [c.type for c in children if c.type not in ("text", "code_inline", "text_special")]
            else:
                self.structure.append(f"{token.type} {token.info}")
                self.texts.append(token.content)


def read(markdown: str) -> Read:
    return Read(markdown)


class TestMarkdown:
    def test_the_header_says_model_data_metric_and_samples(self):
        text = ablation_markdown(ablation(notes=["few_samples | here"]), "trtcalib ablate model.onnx\ntrtcalib again")
        assert text.startswith(
            "# Ablation of `model.onnx`\n"
            "\n"
            "- metric: `top1` at output `scores`\n"
            "- judged on: 500 samples of `images`, held out from calibration\n"
            "- calibrated on: 100 samples of `calibration`\n"
            "- FP32 98.20 % [96.6, 99.1]\n"
            "- INT8 is simulated by ONNX Runtime in float; it is not TensorRT's kernels\n"
            "- note: few_samples &#124; here\n"
            "\n"
            "```sh\n"
            "trtcalib ablate model.onnx\n"
            "trtcalib again\n"
            "```\n"
            "\n"
            "| method | weights per tensor | weights per channel | activations | both | SQNR of both |\n"
            "| --- | --- | --- | --- | --- | --- |\n"
        )

    def test_ablation(self):
        lines = ablation_markdown(ablation(), "x").splitlines()
        assert (
            "| * `entropy` | 87.20 % -11.00 [-11.90, -10.10] | 97.20 % -1.00 [-1.90, -0.10] | 98.00 % -0.20 [-1.10, +0.70] "
            "| **97.00 % -1.20 [-2.10, -0.30]** | - |" in lines
        )
        assert lines[-3] == r"- \* `entropy` loses least with both; ~ cannot be told from it on these samples"

    def test_sweep(self):
        text = sweep_markdown(sweep(held_out=False, calibration=None), "x")
        assert "- judged on: 500 samples of `images`, not held out from calibration\n- FP32" in text
        assert "## On 500 samples\n" in text
        assert (
            "| 2 | **`percentile 99.1`** | 96.20 % | -2.00 points | [-2.90, -1.10] |\n| 1 | `percentile 99.0` |" in text
        )

    def test_sensitivity_holds_all_nodes_and_the_lines_to_paste(self):
        text = sensitivity_markdown(sensitivity(300), "x")
        assert "| 1 | `conv1` | `Conv` | 0.3 % | -5.00 | 21.0 dB | +4.00 | 25 % |\n" in text
        assert "| 300 | `conv300` |" in text
        assert text.endswith("trtcalib qdq:\n\n```\n--exclude conv1\n```\n")
        assert "float\n\n-" not in sensitivity_markdown(sensitivity(fallback=None), "x")

    def test_advice(self):
        assert advice_markdown(advice(), "x").split("```\n\n", 1)[1] == (
            "- entropy, everything in INT8: 92.00 % [90.2, 93.2], -6.20 points [-7.10, -5.30], p = 0.03\n"
            "- all of it followed: 97.00 % [95.2, 98.2], -1.20 points [-2.10, -0.30], p = 0.03\n"
            "\n"
            "## 1. take percentile 99.99\n"
            "\n"
            "- entropy loses 6.20 points\n"
            "- percentile 99.99 loses 1.20 points\n"
            "- followed: 97.00 % [95.2, 98.2], -1.20 points [-2.10, -0.30], p = 0.03\n"
            "\n"
            "To do it:\n"
            "\n"
            "```sh\n"
            "trtcalib calibrate model.onnx --calibrator percentile-99.99\n"
            "```\n"
            "\n"
            "To see it again:\n"
            "\n"
            "```sh\n"
            "trtcalib ablate model.onnx\n"
            "```\n"
            "\n"
            "## 2. add samples\n"
        )

    @given(st.text(max_size=30))
    def test_no_name_changes_what_a_parser_sees(self, name):
        assert (
            read(ablation_markdown(hostile_ablation(name), name)).structure
            == read(ablation_markdown(hostile_ablation("a"), "a")).structure
        )

    @given(st.text(alphabet="`*_[]()<>|~&$#\\-+=.!:;'\"1 ax", max_size=12))
    def test_a_node_reads_as_it_is_called(self, name):
        found = read(sensitivity_markdown(hostile_sensitivity(name), "x"))
        assert found.structure == read(sensitivity_markdown(hostile_sensitivity("a"), "x")).structure
        assert (name.strip() or "(blank)") in [text.strip() for text in found.texts]


PLOTS = {
    "ablation": (plot_ablation, ablation),
    "sweep": (plot_sweep, sweep),
    "sensitivity": (plot_sensitivity, sensitivity),
}


class TestPictures:
    @pytest.mark.parametrize("which", PLOTS)
    @pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
    def test_are_the_same_bytes_twice(self, which, kind, start):
        plot, make = PLOTS[which]
        first = plot(make(), kind)
        assert first == plot(make(), kind)
        assert first.startswith(start)
        assert b"<dc:date>" not in first

    @pytest.mark.parametrize("which", ["sweep", "sensitivity"])
    def test_a_picture_of_300_is_no_taller_than_one_of_31(self, which):
        plot, make = PLOTS[which]
        heights = [Image.open(io.BytesIO(plot(make(count), "png"))).height for count in (31, 300)]
        assert heights[0] == heights[1] < 1500

    def test_a_winner_past_the_first_30_tried_is_drawn(self, drawn):
        found = sweep(
            300, candidates=[candidate(f"m{i}", 0.3 - 0.001 * i) for i in range(300)], winner=candidate("m299", 0.001)
        )
        plot_sweep(found, "png")
        (axes,) = drawn[0].axes
        names = [label.get_text() for label in axes.get_yticklabels()]
        assert names == [f"m{i}  {i + 1}" for i in range(270, 300)]
        stars = [line for line in axes.lines if line.get_marker() == "*" and len(line.get_xdata())]
        assert [tuple(star.get_xydata()[0]) for star in stars] == [(pytest.approx(0.1), 29)]

    def test_the_ablation_draws_four_dots_per_method_and_fp32(self, drawn):
        plot_ablation(ablation(), "png")
        (axes,) = drawn[0].axes
        dots = {m: [x for line in axes.lines if line.get_marker() == m for x in line.get_xdata()] for m in "s^Do"}
        assert dots["s"] == pytest.approx([88.2, 87.2, 86.2, 85.2, 84.2])
        assert dots["o"] == pytest.approx([93.0, 97.0, 93.0, 89.0, 85.0])
        assert [len(found) for found in dots.values()] == [5] * 4
        dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
        assert [line.get_xdata()[0] for line in dashed] == [pytest.approx(98.2)]
        assert len(axes.collections) == 4 * len(METHODS)

    def test_the_sensitivity_draws_losses_gains_and_ratios(self, drawn):
        plot_sensitivity(sensitivity(3), "png")
        losses, ratios = drawn[0].axes
        assert [bar.get_width() for bar in losses.patches] == pytest.approx([5, 2.5, 5 / 3])
        assert [bar.get_width() for bar in ratios.patches] == [21, 22, 23]
        assert [label.get_text() for label in losses.get_yticklabels()] == [
            "* conv1 (Conv)  1",
            "conv2 (Conv)  2",
            "conv3 (Conv)  3",
        ]

    def test_infinite_values_stand_as_words(self, drawn):
        study = ablation()
        judgements = [noisy(), noisy(0.0, None), noisy(LARGEST, None), noisy(loss_interval=None, interval=None)]
        cells = [
            cell.model_copy(update={"judgement": j}) for cell, j in zip(study.rows[0].cells, judgements, strict=True)
        ]
        row = study.rows[0].model_copy(update={"cells": cells})
        assert plot_ablation(study.model_copy(update={"rows": [row], "metric": SQNR}), "png")
        assert [text.get_text() for text in drawn[0].axes[0].texts] == ["no difference", "only noise"]
        layers = [
            layer(1, "a", only_loss=LARGEST, gain=LARGEST, only_sqnr_db=None),
            layer(2, "b", only_sqnr_db=None, only_loss=0.0),
        ]
        plot_sensitivity(sensitivity(metric=SQNR, layers=layers), "png")
        assert [text.get_text() for text in drawn[1].axes[0].texts] == ["only noise"]
        assert [text.get_text() for text in drawn[1].axes[1].texts] == ["-", "no noise"]
        worst = candidate("x", 0.1).model_copy(update={"judgement": noisy(LARGEST, None)})
        plot_sweep(sweep(metric=SQNR, candidates=[worst]), "png")
        assert [text.get_text() for text in drawn[2].axes[0].texts] == ["only noise"]

    def test_nothing_to_draw_is_a_picture_too(self):
        assert plot_sensitivity(sensitivity(0), "png")
        assert plot_sweep(sweep(0), "png")

    def test_no_text_overlaps_another_or_leaves_the_picture(self, drawn):
        names = [f"/backbone/{'block/' * 30}conv{i}" for i in range(40)]
        metric = FUNCTION.model_copy(update={"name": "package.module.with.names:" + "function" * 9})
        plot_ablation(ablation(tuple(names), metric=metric, model=called("m" * 300)), "png")
        plot_sweep(sweep(candidates=[candidate(name, 0.01) for name in names], metric=metric), "png")
        plot_sensitivity(sensitivity(layers=[layer(i + 1, name) for i, name in enumerate(names)], metric=metric), "png")
        for figure in drawn:
            figure.draw_without_rendering()  # what was saved had another resolution
            boxes = [text.get_window_extent() for text in texts_of(figure)]
            width, height = figure.bbox.width, figure.bbox.height
            assert all(box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1 for box in boxes)
            for i, one in enumerate(boxes):
                assert not any(one.overlaps(other) for other in boxes[i + 1 :])


def texts_of(figure):
    from matplotlib.text import Text

    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip() and in_view(text)]


def in_view(text) -> bool:
    """Ticks past the ends of an axis are found but not drawn."""
    for axes in text.get_figure().axes:
        if any(text is tick.label1 for tick in axes.xaxis.majorTicks):
            box = text.get_window_extent()
            return axes.bbox.x0 - 1 <= (box.x0 + box.x1) / 2 <= axes.bbox.x1 + 1
    return True


@pytest.fixture
def drawn(monkeypatch):
    from trtcalib.views import accuracy_plots

    figures = []
    real = accuracy_plots.format_figure
    monkeypatch.setattr(
        accuracy_plots, "format_figure", lambda figure, kind: figures.append(figure) or real(figure, kind)
    )
    return figures
