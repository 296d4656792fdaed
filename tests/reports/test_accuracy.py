"""Accuracy studies in a report: every number as the files hold it, damaged files refused, and tables that stand without scripts."""

from __future__ import annotations

import copy
import csv
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import trtcalib
from tests.accuracy_results import (
    SQNR,
    TOP1,
    ablation,
    advice,
    evaluation,
    judgement,
    sensitivity,
    sweep,
    write,
    write_advised,
)
from tests.studies import HOSTILE, small_study
from trtcalib.accuracy.result import MetricFacts, Range
from trtcalib.cli.report import report as report_command
from trtcalib.errors import OutputError, SpecError, TrtcalibError
from trtcalib.reports.inputs import files_of, read_results
from trtcalib.reports.report import make_report, report_files, write_report
from trtcalib.reports.result import Report
from trtcalib.views import html_report
from trtcalib.views.html_accuracy import FILTERS

SCHEMA = Path(trtcalib.__file__).parent / "schemas" / "report.schema.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What advise leaves, with its study inside, and an evaluation."""
    path = write_advised(tmp_path_factory.mktemp("advised") / "out")
    write(path, evaluation())
    (path / "study").mkdir()
    small_study(path / "study")
    return path


@pytest.fixture(scope="module")
def written(folder: Path) -> Path:
    write_report([folder], folder.parent / "r.html")
    return folder.parent / "r.html"


@pytest.fixture(scope="module")
def report(written: Path) -> Report:
    return Report.model_validate_json(written.with_suffix(".json").read_bytes())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without Plotly.js, which takes most of the time of making one."""
    monkeypatch.setattr(html_report, "_plotly", lambda: "plotly")


class Text(HTMLParser):
    """Tags, text outside of scripts and styles, and the cells of each row."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self._hidden = False
        self._cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag in ("script", "style")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True
        elif tag == "small" and self._cell:
            self.rows[-1][-1] += " | "

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data
            if self._cell:
                self.rows[-1][-1] += data.strip()

    def row(self, *begin: str) -> list[str]:
        """The first row with these first cells."""
        return next(row for row in self.rows if row[: len(begin)] == list(begin))


def page_of(*paths: Path) -> Text:
    """The page of these results."""
    target = paths[0].parent / "page.html"
    drawn = make_report(read_results(paths), target.parent)
    return Text(report_files(drawn, target)[target].decode())


class TestReading:
    def test_a_folder_of_advise_gives_all_that_it_holds(self, folder: Path, report: Report) -> None:
        assert [path.relative_to(folder).as_posix() for path in files_of(folder)] == [
            "advice.json",
            "evaluation.json",
            "ablation.json",
            "sweep.json",
            "sensitivity.json",
            "study/study.json",
        ]
        assert [source.kind for source in report.sources][:6] == [
            "advice",
            "evaluation",
            "ablation",
            "sweep",
            "sensitivity",
            "study",
        ]
        assert len(report.studies) == 1
        assert report.title == "model.onnx · accuracy"

    def test_the_results_stand_in_it_unchanged(self, report: Report) -> None:
        told = report.accuracy
        assert told.advice[0].result == advice()
        assert told.evaluations[0].result == evaluation()
        assert told.ablations[0].result == ablation()
        assert told.sweeps[0].result == sweep()
        assert told.sensitivities[0].result == sensitivity()

    def test_a_file_called_as_its_kind_is_known_by_its_folder(self, tmp_path: Path, quick: None) -> None:
        write(tmp_path / "one", ablation())
        (tmp_path / "mine.json").write_bytes((tmp_path / "one/ablation.json").read_bytes())
        made = write_report([tmp_path / "one", tmp_path / "mine.json"], tmp_path / "r.html")
        assert [of.label for of in made.accuracy.ablations] == ["one", "mine"]
        assert [of.file for of in made.accuracy.ablations] == ["one/ablation.json", "mine.json"]

    def test_another_models_results_are_noted(self, folder: Path, report: Report) -> None:
        assert (
            "out/study/study.json is of another model than out/advice.json: tensors are matched by name alone"
            in report.notes
        )

    def test_no_result_in_a_folder_is_overwritten(self, folder: Path) -> None:
        with pytest.raises(OutputError, match=r"sweep\.json: is an input or another result of this command"):
            report_command([folder], folder / "sweep.html")

    def test_a_report_without_them_has_none(self, folder: Path, tmp_path: Path, quick: None) -> None:
        assert write_report([folder / "study"], tmp_path / "r.html").accuracy is None

    def test_the_json_fits_the_schema(self, written: Path) -> None:
        content = json.loads(written.with_suffix(".json").read_text(encoding="utf-8"))
        validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
        validator.validate(content)
        del content["accuracy"]["sweeps"][0]["result"]["winner"]
        assert not validator.is_valid(content)


def changed(kind: str, change: Callable[[dict[str, Any]], object]) -> bytes:
    """A result's JSON with something changed in it."""
    made = {
        "advice": advice,
        "evaluation": evaluation,
        "ablation": ablation,
        "sweep": sweep,
        "sensitivity": sensitivity,
    }
    content = json.loads(made[kind]().model_dump_json())
    change(content)
    return json.dumps(content).encode()


class TestRefusals:
    def fault(self, path: Path) -> str:
        with pytest.raises(SpecError) as caught:
            read_results([path])
        text = str(caught.value)
        assert text.startswith(f"{path}: ")
        assert "\n" not in text
        return text.removeprefix(f"{path}: ")

    @pytest.mark.parametrize(
        ("kind", "change", "told"),
        [
            ("ablation", lambda c: c["rows"][0]["cells"].pop(), "method 'minmax' has 3 cells, expected 4"),
            ("ablation", lambda c: c["rows"][1]["cells"].reverse(), "method 'entropy' has its cells in another order"),
            ("ablation", lambda c: c["rows"].append(c["rows"][0]), "expected one row per method, at least one"),
            ("ablation", lambda c: c.update(best="x"), "'x' is told to be among the best and is none of the methods"),
            ("ablation", lambda c: c["indistinguishable"].append("y"), "'y' is told to be among the best"),
            ("ablation", lambda c: c.update(rows=[]), "expected one row per method"),
            ("sweep", lambda c: c.update(candidates=[]), "candidates: expected at least one"),
            ("sweep", lambda c: c.update(gain=float("nan")), "gain is nan, expected a finite number"),
            ("sweep", lambda c: c["gain_interval"].update(low=9), "gain_interval goes from 9 to 0.015"),
            ("sweep", lambda c: c.update(evaluations=2**63), "evaluations is a number of"),
            ("sensitivity", lambda c: c["layers"].reverse(), "the ranks are not 1 to 9 in this order"),
            ("sensitivity", lambda c: c["layers"][1].update(output=c["layers"][0]["output"]), "an output stands twice"),
            ("sensitivity", lambda c: c["network"].append(c["network"][0]), "network: an output stands twice"),
            ("sensitivity", lambda c: c["layers"][0].update(clipped_share=1.5), "has a clipped_share of 1.5"),
            ("sensitivity", lambda c: c["fallback"]["nodes"].pop(), "fallback: 1 nodes with 2 outputs"),
            ("sensitivity", lambda c: c["fallback"].update(macs_int8=-1), "macs_int8 is -1, expected a share"),
            ("evaluation", lambda c: c["classes"][0].update(right=101), "label 0 has more right samples than samples"),
            ("evaluation", lambda c: c["classes"][1].update(label=0), "classes: a label stands twice"),
            ("evaluation", lambda c: c.update(quantized=10), "quantized is 10 of 9 weighted nodes"),
            ("advice", lambda c: c["before"].update(value=float("-inf")), "before.value is -inf"),
            ("advice", lambda c: c["model"].update(sha256="x"), "model.sha256: String should match pattern"),
            ("advice", lambda c: c.pop("items"), "items: Field required"),
            ("advice", lambda c: (c.pop("items"), c.pop("cpu")), "(and 1 more faults)"),
        ],
    )
    def test_parts_that_do_not_fit(
        self, tmp_path: Path, kind: str, change: Callable[[dict[str, Any]], object], told: str
    ) -> None:
        (tmp_path / "x.json").write_bytes(changed(kind, change))
        fault = self.fault(tmp_path / "x.json")
        assert fault.startswith("damaged: ")
        assert told in fault

    @pytest.mark.parametrize("kind", ["advice", "evaluation", "ablation", "sweep", "sensitivity"])
    def test_the_unchanged_ones_are_read_and_newer_ones_are_not(self, tmp_path: Path, kind: str) -> None:
        (tmp_path / "x.json").write_bytes(changed(kind, lambda _: None))
        (told,) = read_results([tmp_path / "x.json"]).accuracy
        assert told.result.kind == kind
        (tmp_path / "x.json").write_bytes(changed(kind, lambda c: c.update(schema_version=2)))
        assert self.fault(tmp_path / "x.json") == "schema_version 2 is newer than this trtcalib reads (1): update it"

    def test_names_in_a_fault_are_short_and_of_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_bytes(
            changed("ablation", lambda c: c["versions"].update({"a\nb" + "x" * 9999: None}))
        )
        assert len(self.fault(tmp_path / "x.json")) < 300

    def test_a_folder_without_any(self, tmp_path: Path) -> None:
        assert self.fault(tmp_path).startswith("a folder without study.json or advice.json, evaluation.json, ablation")

    @pytest.mark.parametrize("kind", ["[1]", '{"a": 1}', "7", "null"])
    def test_a_kind_that_is_no_word(self, tmp_path: Path, kind: str) -> None:
        (tmp_path / "x.json").write_text(f'{{"kind": {kind}}}', encoding="utf-8")
        assert self.fault(tmp_path / "x.json").startswith("JSON that is no result: expected")


def places(value: object, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where every part of a JSON value stands."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, item in inside for place in places(item, (*at, key)))]


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(["", "inf", "a" * 3000, *HOSTILE]),
    st.just([]),
    st.just({}),
)
SMALL = [
    json.loads(result.model_dump_json()) for result in (advice(), evaluation(2), ablation(), sweep(), sensitivity(3))
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_with_anything_anywhere_is_refused_or_makes_a_page(
    data: st.DataObject, tmp_path: Path, quick: None
) -> None:
    content = copy.deepcopy(data.draw(st.sampled_from(SMALL)))
    place = data.draw(st.sampled_from([place for place in places(content) if place and place[0] != "kind"]))
    inside = content
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = data.draw(JUNK)
    (tmp_path / "x.json").write_text(json.dumps(content), encoding="utf-8")
    try:
        results = read_results([tmp_path / "x.json"])
    except TrtcalibError:
        return
    files = report_files(make_report(results, tmp_path), tmp_path / "r.html")
    text = Text(files[tmp_path / "r.html"].decode())
    assert not any(tag in ("img", "iframe") for tag, _ in text.tags)
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(
        json.loads(files[tmp_path / "r.json"])
    )


class TestCsv:
    def rows(self, written: Path) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(written.with_suffix(".csv").read_text(encoding="utf-8"), newline="")))

    def test_each_thing_that_was_judged_has_a_row(self, written: Path) -> None:
        rows = self.rows(written)
        count = {kind: sum(row["kind"] == kind for row in rows) for kind in ("advice", "evaluation", "ablation")}
        # FP32, before, two checked items and after; FP32, INT8, an output and ten classes twice; FP32 and seven methods.
        assert count == {"advice": 5, "evaluation": 23, "ablation": 1 + 7 * 4}
        both = next(row for row in rows if row["method"] == "mse" and row["judged"] == "both")
        cell = ablation().rows[-1].cells[-1].judgement
        assert [float(both[key]) for key in ("value", "low", "high", "loss")] == [
            cell.value,
            cell.interval.low,
            cell.interval.high,
            cell.loss,
        ]
        assert (both["metric"], both["source"]) == ("top1", "out/ablation.json")
        chosen = next(row for row in rows if row["judged"] == "held-out, chosen")
        assert float(chosen["gain"]) == sweep().gain

    def test_a_search_by_another_metric_names_it(self, tmp_path: Path, quick: None) -> None:
        write(tmp_path / "x", sweep().model_copy(update={"search_metric": SQNR}))
        write_report([tmp_path / "x"], tmp_path / "r.html")
        rows = self.rows(tmp_path / "r.html")
        assert {row["judged"]: row["metric"] for row in rows} == {
            "FP32": "top1",
            "searched": "sqnr",
            "held-out, baseline": "top1",
            "held-out, chosen": "top1",
        }

    def test_nodes_have_two(self, written: Path) -> None:
        rows = [row for row in self.rows(written) if row["node"]]
        layers = sensitivity().layers
        assert len(rows) == 2 * len(layers)
        assert [float(row["loss"]) for row in rows[::2]] == [layer.only_loss for layer in layers]
        assert [float(row["gain"]) for row in rows[1::2]] == [layer.gain for layer in layers]
        assert rows[0]["tensor"] == layers[0].output


@pytest.mark.usefixtures("quick")
class TestPage:
    def test_accuracy_stands_first(self, folder: Path) -> None:
        page = page_of(folder)
        sections = [a["id"] for tag, a in page.tags if tag == "section"]
        assert sections == ["accuracy", "summary", "moves", "tensors", "about"]

    def test_accuracy_alone_makes_a_whole_page(self, tmp_path: Path) -> None:
        page = page_of(write_advised(tmp_path / "x"))
        assert [a["id"] for tag, a in page.tags if tag == "section"] == ["accuracy", "about"]
        ids = {a["id"] for _, a in page.tags if a.get("id")}
        targets = {a["href"].removeprefix("#") for tag, a in page.tags if tag == "a" and a["href"].startswith("#")}
        assert targets <= ids
        assert "model.onnx · accuracy" in page.text

    def test_the_tables_hold_the_numbers(self, tmp_path: Path) -> None:
        page = page_of(write(tmp_path / "x", evaluation(), ablation(), sweep(), sensitivity()))
        assert page.row("minmax")[1:] == [
            "94.2 % | 92.6 to 95.5",
            "96.9 % | 95.6 to 97.8",
            "95.1 % | 93.6 to 96.3",
            "94.5 % | 92.9 to 95.8",
            "2.8 points | 2.1 to 3.6",
        ]
        assert page.row("FP32")[4] == "97.3 % | 96.1 to 98.1"
        assert page.row("class 9") == ["class 9", "100", "98 right | 93.0 to 99.45", "95 right | 88.8 to 97.8"]
        assert page.row("entropy | baseline")[1] == "96.1 % | 94.7 to 97.1"
        assert page.row("percentile 99.995 | chosen")[2] == "0.3 points | \u22120.4 to 1.1"
        layer = sensitivity().layers[0]
        assert page.row("1", layer.name)[3:5] == ["0.6 points", f"{layer.only_sqnr_db:.4g}"]

    def test_advice_is_an_ordered_list_with_its_commands(self, tmp_path: Path) -> None:
        page = page_of(write(tmp_path / "x", advice()))
        assert sum(tag == "ol" for tag, _ in page.tags) == 1
        for item in advice().items:
            assert item.title in page.text
            for text in (*item.evidence, item.command, item.reproduce):
                assert text is None or text in page.text
        assert "Checked 96.7 % (95.4 to 97.6), loss 0.6 points (\u22120.1 to 1.4)." in page.text

    def test_a_gain_within_its_interval_is_said_to_be_none_for_sure(self, tmp_path: Path) -> None:
        sure = page_of(write(tmp_path / "a", sweep())).text
        assert (
            "percentile 99.995 gains 0.9 points (0.3 to 1.5) over entropy on held-out samples; the interval lies above 0."
            in sure
        )
        unsure = page_of(write(tmp_path / "b", sweep(0.004, significant=False))).text
        assert "No method is shown to beat entropy: percentile 99.995 gains 0.4 points (\u22120.8 to 1)" in unsure
        assert "so this may be chance" in unsure

    def test_a_baseline_that_stays_is_said_to_stay(self, tmp_path: Path) -> None:
        stays = sweep(0.0)
        page = page_of(write(tmp_path / "x", stays.model_copy(update={"winner": stays.baseline})))
        assert (
            "No method that was tried does better than entropy, which stays: 96.1 % (94.7 to 97.1), loss" in page.text
        )

    def test_noise_is_told_in_per_cent_of_the_signal(self, tmp_path: Path) -> None:
        page = page_of(write(tmp_path / "x", ablation(SQNR), sweep(metric=SQNR)))
        assert page.row("FP32")[4].startswith("no difference")
        assert page.row("mse")[4:] == ["21.5 dB | 21.1 to 22.0", "0.7 % | "]
        assert "takes 0.9 % (0.3 to 1.5) of the signal off the noise of entropy" in page.text

    def test_a_search_by_another_metric_is_told_in_its_units(self, tmp_path: Path) -> None:
        by_noise = {"search_metric": SQNR, "candidates": sweep(metric=SQNR).candidates}
        page = page_of(write(tmp_path / "x", sweep().model_copy(update=by_noise)))
        assert page.row("percentile 99")[1:] == ["15.2 dB | 14.8 to 15.7", "3.04 % | "]
        assert page.row("entropy | baseline")[2] == "1.2 points | 0.5 to 2"
        assert "By SQNR on the 500 calibration samples" in page.text

    def test_what_differs_in_how_it_was_made_is_told_apart(self, tmp_path: Path) -> None:
        write(tmp_path / "x", ablation(), sweep())
        assert page_of(tmp_path / "x").text.count("Model, data, versions") == 1
        other = ablation().model_copy(update={"held_out": False})
        write(tmp_path / "y", other)
        text = page_of(tmp_path / "x", tmp_path / "y").text
        assert text.count("Model, data, versions") == 2
        assert "that the scales were made from too" in text

    def test_hostile_names_make_no_elements(self, tmp_path: Path) -> None:
        write(tmp_path / "x", advice(HOSTILE), ablation(names=HOSTILE[:4]), sweep(), sensitivity(20, HOSTILE))
        page = page_of(tmp_path / "x")
        assert sum(tag == "script" for tag, _ in page.tags) == 3
        assert not any(tag in ("img", "iframe", "object", "embed", "form", "b") and a for tag, a in page.tags)
        assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
        assert "<script>window.broken = 1</script>" in page.text
        assert "\\u202eright to left" in page.text

    def test_of_many_nodes_thirty_are_printed_and_of_many_classes_a_thousand(self, tmp_path: Path) -> None:
        page = page_of(write(tmp_path / "x", sensitivity(233), evaluation(0)))
        assert sum(row[0].isdigit() for row in page.rows if row) == 30
        assert "The first 30 of 233; all stand in page.json." in page.text


class TestNumbers:
    @pytest.mark.parametrize(
        ("value", "metric", "told"),
        [
            (0.5, TOP1, "50.0 %"),
            (0.9997, TOP1, "99.97 %"),
            (1.0, TOP1, "100.00 %"),
            (None, SQNR, "no difference"),
            (31.26, SQNR, "31.3 dB"),
            (0.99941234, MetricFacts(name="cosine", output=None, is_share=False), "0.99941"),
        ],
    )
    def test_a_value_has_the_unit_of_its_metric(self, value: float | None, metric: MetricFacts, told: str) -> None:
        score = judgement(0.1).model_copy(update={"value": value})
        assert FILTERS["score"](score, metric) == told

    @pytest.mark.parametrize(
        ("low", "high", "told"), [(0.1, 0.2, "10.0 to 20.0"), (None, 0.2, "up to 20.0"), (0.1, None, "10.0 and up")]
    )
    def test_an_interval_may_be_open(self, low: float | None, high: float | None, told: str) -> None:
        assert FILTERS["between"](Range(low=low, high=high), TOP1) == told
        assert FILTERS["between"](Range(low=None, high=None), TOP1) == FILTERS["between"](None, TOP1) == ""

    @pytest.mark.parametrize(
        ("loss", "told"),
        [(0.012, "1.2 points"), (-1e-9, "0 points"), (-0.0301, "\u22123.01 points"), (0.5, "50 points")],
    )
    def test_a_lost_share_is_told_in_points(self, loss: float, told: str) -> None:
        assert FILTERS["loss"](loss, TOP1) == told

    @given(st.floats(0, 1))
    def test_no_share_but_one_is_told_as_all(self, share: float) -> None:
        told = FILTERS["score"](judgement(0.1).model_copy(update={"value": share}), TOP1)
        assert re.fullmatch(r"\d{1,3}\.\d{1,2} %", told)
        assert float(told.removesuffix(" %")) == pytest.approx(100 * share, abs=0.051)
        if share < 0.9999:
            assert not told.startswith("100")


def test_each_line_of_a_command_can_be_copied_by_itself(tmp_path: Path) -> None:
    told = advice()
    first = told.items[0].model_copy(update={"command": "trtcalib qdq a\ntrtexec --onnx=b"})
    (tmp_path / "advice.json").write_text(
        told.model_copy(update={"items": [first, *told.items[1:]]}).model_dump_json(), encoding="utf-8"
    )
    write_report([tmp_path], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "trtcalib qdq a\\ntrtexec" not in page.split("<script")[0]
    for line in ("trtcalib qdq a", "trtexec --onnx=b"):
        assert re.search(rf"<code[^>]*>{re.escape(line)}</code>", page), line
