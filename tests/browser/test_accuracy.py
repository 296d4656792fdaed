"""Accuracy studies in a real browser: plots hold the numbers of the JSON, whatever the names, on any screen and on paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.accuracy_results import (
    SQNR,
    ablation,
    advice,
    evaluation,
    judgement,
    sensitivity,
    sweep,
    write,
    write_advised,
)
from tests.browser.conftest import SCREENSHOTS, Watched, check, open_in
from tests.studies import HOSTILE, small_study
from trtcalib.reports.report import write_report
from trtcalib.views.text import shortened

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Open = Callable[..., Watched]

PHONES = (360, 390)

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}

KINDS = ("evaluation", "ablation", "sweep", "held-out", "layers", "network")


@pytest.fixture(scope="module")
def advised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of what advise leaves, and of an evaluation: accuracy alone."""
    folder = write_advised(tmp_path_factory.mktemp("advised") / "out")
    write(folder, evaluation())
    write_report([folder], folder.parent / "advised.html")
    return folder.parent / "advised.html"


@pytest.fixture(scope="module")
def drawn(browser: Browser, advised: Path) -> Iterator[Watched]:
    """That report with every plot drawn."""
    watched = open_in(browser, advised)
    draw_all(watched.page)
    yield watched
    watched.page.context.close()
    check(watched)


def plot(kind: str) -> str:
    return f".drawn[data-plot='{kind}'] .plot"


def draw_all(page: Page) -> None:
    """Bring every plot into view until it is drawn."""
    for figure in page.query_selector_all(".drawn"):
        figure.scroll_into_view_if_needed()
        page.wait_for_selector(f"{plot(figure.get_attribute('data-plot'))} .plotly")
    page.wait_for_timeout(100)


def traces(watched: Watched, kind: str) -> list[dict[str, Any]]:
    return watched.page.eval_on_selector(
        plot(kind),
        "e => e.data.map(t => ({x: t.x && [...t.x], y: t.y && [...t.y], mode: t.mode, type: t.type, low: t.error_x?.arrayminus, "
        "high: t.error_x?.array, told: t.customdata}))",
    )


def result_of(watched: Watched, kind: str) -> dict[str, Any]:
    return watched.numbers["accuracy"][kind][0]["result"]


def labels(page: Page, kind: str) -> list[str]:
    return page.eval_on_selector_all(f"{plot(kind)} .ytick text", "texts => texts.map(t => t.textContent)")


class TestPlots:
    def test_each_method_has_four_dots_with_intervals(self, drawn: Watched) -> None:
        result = result_of(drawn, "ablations")
        shown = traces(drawn, "ablation")
        assert len(shown) == 4
        for i, trace in enumerate(shown):
            cells = [row["cells"][i]["judgement"] for row in result["rows"]]
            assert trace["x"] == pytest.approx([100 * cell["value"] for cell in cells])
            lows = [x - down for x, down in zip(trace["x"], trace["low"], strict=True)]
            highs = [x + up for x, up in zip(trace["x"], trace["high"], strict=True)]
            assert lows == pytest.approx([100 * cell["interval"]["low"] for cell in cells])
            assert highs == pytest.approx([100 * cell["interval"]["high"] for cell in cells])
        assert labels(drawn.page, "ablation") == [row["method"] for row in result["rows"]]

    def test_fp32_stands_as_a_line_over_its_interval(self, drawn: Watched) -> None:
        shapes = drawn.page.eval_on_selector(
            plot("ablation"), "e => e.layout.shapes.filter(s => s.xref === 'x').map(s => [s.type, s.x0, s.x1])"
        )
        reference = result_of(drawn, "ablations")["reference"]
        ends = [100 * reference["interval"][end] for end in ("low", "high")]
        assert shapes == [["rect", *ends], ["line", 100 * reference["value"], 100 * reference["value"]]]
        assert "FP32 97.3 %" in drawn.page.inner_text(plot("ablation"))

    def test_the_sweep_joins_its_percentiles_and_marks_the_chosen_one(self, drawn: Watched) -> None:
        result = result_of(drawn, "sweeps")
        line, tried, chosen = traces(drawn, "sweep")
        losses = {c["method"]: 100 * c["judgement"]["loss"] for c in result["candidates"]}
        assert tried["x"] == pytest.approx(list(losses.values()))
        percentiles = [loss for method, loss in losses.items() if method.startswith("percentile")]
        assert line["x"] == pytest.approx(percentiles)
        assert chosen["x"] == pytest.approx([losses[result["winner"]["method"]]])
        assert labels(drawn.page, "sweep")[chosen["y"][0]] == result["winner"]["method"]
        baseline, winner = traces(drawn, "held-out")
        assert [baseline["x"], winner["x"]] == [
            pytest.approx([100 * result[role]["judgement"]["value"]]) for role in ("baseline", "winner")
        ]

    def test_the_evaluation_shows_all_samples_and_each_class(self, drawn: Watched) -> None:
        result = result_of(drawn, "evaluations")
        fp32, int8 = traces(drawn, "evaluation")
        assert fp32["x"] == pytest.approx(
            [100 * result["reference"]["value"], *(of["reference"] / of["samples"] * 100 for of in result["classes"])]
        )
        assert int8["x"][0] == pytest.approx(100 * result["judgement"]["value"])
        assert labels(drawn.page, "evaluation")[:2] == ["all samples", "class 0"]

    def test_bars_are_the_loss_split_by_clipping(self, drawn: Watched) -> None:
        layers = result_of(drawn, "sensitivities")["layers"]
        clipping, rounding, unknown, gain = traces(drawn, "layers")
        whole = [sum(parts) for parts in zip(clipping["x"], rounding["x"], unknown["x"], strict=True)]
        assert whole == pytest.approx([100 * layer["only_loss"] for layer in layers])
        assert clipping["x"] == pytest.approx(
            [100 * layer["only_loss"] * (layer["clipped_share"] or 0) for layer in layers]
        )
        assert gain["x"] == pytest.approx([100 * layer["gain"] for layer in layers])

    def test_bars_may_tell_the_noise_instead(self, drawn: Watched) -> None:
        page = drawn.page
        page.check("input[value=noise]", force=True)
        page.wait_for_selector(f"{plot('layers')} .xtitle:has-text('noise in %')")
        shown = traces(drawn, "layers")
        layers = result_of(drawn, "sensitivities")["layers"]
        whole = [sum(parts) for parts in zip(*(trace["x"] for trace in shown[:3]), strict=True)]
        assert whole == pytest.approx([100 * 10 ** (-layer["only_sqnr_db"] / 10) for layer in layers])
        page.check("input[value=loss]", force=True)
        page.wait_for_selector(f"{plot('layers')} .xtitle:has-text('loss in points')")

    def test_the_network_is_drawn_in_its_order_with_gaps_where_nothing_is_lost(self, drawn: Watched) -> None:
        result = result_of(drawn, "sensitivities")
        alone, line, kept = traces(drawn, "network")
        assert line["y"] == [tensor["sqnr_db"] for tensor in result["network"]]
        assert line["y"][0] is None
        own = {layer["output"]: layer for layer in result["layers"]}
        assert alone["y"] == [own[tensor["output"]]["local_sqnr_db"] for tensor in result["network"]]
        assert line["told"] == [own[tensor["output"]]["name"] for tensor in result["network"]]
        assert len(kept["x"]) == sum(
            tensor["output"] in result["fallback"]["outputs"] and tensor["sqnr_db"] is not None
            for tensor in result["network"]
        )

    def test_every_plot_says_what_it_is_and_where_its_numbers_stand(self, drawn: Watched) -> None:
        told = drawn.page.eval_on_selector_all(
            ".drawn .plot", "es => es.map(e => [e.getAttribute('role'), e.ariaLabel])"
        )
        assert len(told) == len(KINDS)
        assert all(role == "img" and text.endswith("; the table holds the numbers") for role, text in told)

    @pytest.mark.parametrize("metric", [SQNR])
    def test_noise_needs_no_fp32_line(self, tmp_path: Path, open_report: Open, metric: Any) -> None:
        write(tmp_path / "x", ablation(metric), sweep(metric=metric), sensitivity(12, metric=metric, fallback=False))
        write_report([tmp_path / "x"], tmp_path / "r.html")
        watched = open_report(tmp_path / "r.html")
        draw_all(watched.page)
        assert watched.page.eval_on_selector(plot("ablation"), "e => e.layout.annotations.length") == 0
        assert watched.page.locator(".switch").count() == 0
        whole = [sum(parts) for parts in zip(*(trace["x"] for trace in traces(watched, "layers")[:3]), strict=True)]
        layers = result_of(watched, "sensitivities")["layers"]
        assert whole == pytest.approx([100 * layer["only_loss"] for layer in layers])

    def test_a_method_that_fails_does_not_push_the_others_together(self, tmp_path: Path, open_report: Open) -> None:
        made = sweep()
        failed = made.candidates[1].model_copy(update={"judgement": judgement(0.9)})
        candidates = [made.candidates[0], failed, *made.candidates[2:]]
        write(tmp_path / "x", made.model_copy(update={"candidates": candidates}))
        write_report([tmp_path / "x"], tmp_path / "r.html")
        watched = open_report(tmp_path / "r.html")
        draw_all(watched.page)
        assert "90 ▶" in watched.page.inner_text(plot("sweep"))
        assert watched.page.eval_on_selector(plot("sweep"), "e => e.layout.xaxis.range[1]") < 5
        assert len(traces(watched, "sweep")[1]["x"]) == len(candidates) - 1


class TestTable:
    def test_it_holds_every_node_and_sorts(self, drawn: Watched) -> None:
        page = drawn.page
        layers = result_of(drawn, "sensitivities")["layers"]
        cells = "cells => cells.map(c => c.dataset.value)"
        assert page.eval_on_selector_all(".layers td[data-key=rank]", cells) == [str(i + 1) for i in range(len(layers))]
        page.click(".layers thead button:text-is('MACs')")
        shown = page.eval_on_selector_all(".layers td[data-key=macs]", cells)
        known = sorted((layer["macs"] for layer in layers if layer["macs"] is not None), reverse=True)
        assert shown == [*map(str, known), ""]
        page.click(".layers thead button:text-is('rank')")
        page.click(".layers thead button:text-is('rank')")

    def test_a_node_leads_to_its_tensor_where_a_study_holds_it(self, tmp_path: Path, open_report: Open) -> None:
        (tmp_path / "x/study").mkdir(parents=True)
        small_study(tmp_path / "x/study")
        made = sensitivity(3)
        first = made.layers[0].model_copy(update={"output": "stem_relu"})
        write(tmp_path / "x", made.model_copy(update={"layers": [first, *made.layers[1:]]}))
        write_report([tmp_path / "x"], tmp_path / "r.html")
        page = open_report(tmp_path / "r.html").page
        assert page.locator(".layers tbody a").count() == 1
        page.click(".layers tbody a")
        page.wait_for_selector("#detail-title:has-text('stem_relu')")


class TestCommands:
    def test_what_is_shown_is_copied(self, advised: Path, open_report: Open) -> None:
        watched = open_report(advised, permissions=["clipboard-read", "clipboard-write"])
        page = watched.page
        page.click(".steps .copy >> nth=0")
        page.wait_for_selector(".copy:text-is('Copied')")
        command = result_of(watched, "advice")["items"][0]["command"]
        assert page.evaluate("navigator.clipboard.readText()") == command

    def test_where_copying_is_not_allowed_it_is_selected(self, drawn: Watched) -> None:
        page = drawn.page
        page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')) }")
        page.click(".steps .copy >> nth=0")
        page.wait_for_selector(".copy:text-is('Selected')")
        assert page.evaluate("String(getSelection())").strip() == result_of(drawn, "advice")["items"][0]["command"]

    def test_keys_reach_every_command_and_table(self, drawn: Watched) -> None:
        reached = drawn.page.eval_on_selector_all(
            "#accuracy :is(.command code, .scroll, .copy, .switch input, .layers .rows)",
            "es => es.filter(e => !e.closest('.paper')).map(e => e.tabIndex)",
        )
        assert len(reached) > 15
        assert set(reached) == {0}


def overlaps(page: Page, kind: str) -> list[list[str]]:
    """Pairs of labels of a plot's rows and axis that lie upon each other, and labels that leave the plot."""
    return page.eval_on_selector(
        plot(kind),
        """e => {
          const texts = [...e.querySelectorAll(".ytick text, .xtick text")].map(t => [t.textContent, t.getBoundingClientRect()]);
          const box = e.getBoundingClientRect();
          const bad = texts.filter(([, r]) => r.left < box.left - 1 || r.right > box.right + 1).map(([t]) => [t, "outside"]);
          texts.forEach(([a, r], i) => texts.slice(i + 1).forEach(([b, q]) => {
            const over = Math.min(r.right, q.right) - Math.max(r.left, q.left) > 1 && Math.min(r.bottom, q.bottom) - Math.max(r.top, q.top) > 3;
            if (over) bad.push([a, b]);
          }));
          return bad;
        }""",
    )


class TestLooks:
    @pytest.mark.parametrize("device", ["desktop", "phone"])
    def test_nothing_serious_stands_in_anyones_way(self, advised: Path, open_report: Open, device: str) -> None:
        axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
        watched = open_report(advised, **(PHONE if device == "phone" else {}))
        page = watched.page
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        if device == "phone":
            for width in PHONES:
                page.set_viewport_size({"width": width, "height": 740})
                draw_all(page)
                assert page.evaluate("document.documentElement.scrollWidth") == width
        draw_all(page)
        for kind in KINDS:
            assert overlaps(page, kind) == [], kind
        page.evaluate("scrollTo(0, 0)")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(150)
            found = axe.run(page).response["violations"]
            assert [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found] == [], scheme
            page.screenshot(path=SCREENSHOTS / f"accuracy-{device}-{scheme}.png", full_page=True)

    @pytest.mark.parametrize("options", [{}, PHONE], ids=["desktop", "phone"])
    def test_hostile_names_are_text_and_widen_nothing(
        self, tmp_path: Path, open_report: Open, options: dict[str, Any]
    ) -> None:
        write(tmp_path / "x", advice(HOSTILE), ablation(names=HOSTILE[:4]), sweep(), sensitivity(40, HOSTILE))
        write_report([tmp_path / "x"], tmp_path / "r.html")
        watched = open_report(tmp_path / "r.html", **options)
        page = watched.page
        draw_all(page)
        assert page.evaluate("typeof window.broken") == "undefined"
        assert page.locator("main img, main iframe, main script:not([type])").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") == page.evaluate("innerWidth")
        if not options:
            assert {shortened(name, 60) for name in HOSTILE[:4]} <= set(labels(page, "ablation"))
        for kind in ("ablation", "layers"):
            assert overlaps(page, kind) == []

    def test_of_long_names_the_part_that_differs_is_shown(self, tmp_path: Path, open_report: Open) -> None:
        write(tmp_path / "x", sensitivity(233))
        write_report([tmp_path / "x"], tmp_path / "r.html")
        watched = open_report(tmp_path / "r.html", **PHONE)
        draw_all(watched.page)
        shown = labels(watched.page, "layers")
        assert len(shown) == 30
        assert all(label.startswith("…block_") and len(label) <= 18 for label in shown)
        assert overlaps(watched.page, "layers") == []
        assert overlaps(watched.page, "network") == []
        watched.page.set_viewport_size({"width": 1440, "height": 900})
        watched.page.wait_for_timeout(300)
        names = [layer["name"] for layer in result_of(watched, "sensitivities")["layers"][:30]]
        assert labels(watched.page, "layers") == names

    def test_without_scripts_words_and_tables_stand_in_the_page(self, advised: Path, open_report: Open) -> None:
        watched = open_report(advised, until="", java_script_enabled=False)
        page = watched.page
        assert page.is_visible(".steps li >> nth=0")
        assert page.is_hidden(".copy >> nth=0")
        assert page.is_hidden(".drawn >> nth=0")
        for table in ("FP32 and INT8", "per method", "that were tried", "held-out samples", "that cost most"):
            assert page.is_visible(f"[aria-label*='{table}'] table"), table

    def test_paper_gets_plots_and_tables_and_no_buttons(self, advised: Path, open_report: Open) -> None:
        page = open_report(advised).page
        page.set_viewport_size({"width": 690, "height": 980})
        page.emulate_media(media="print", color_scheme="dark")
        for kind in KINDS:
            page.wait_for_selector(f"{plot(kind)} .plotly")
        assert page.is_hidden(".copy >> nth=0")
        assert page.is_hidden(".switch >> nth=0")
        assert page.is_hidden(".layers")
        assert page.is_visible("#accuracy .paper table")
        assert page.evaluate("document.documentElement.scrollWidth") <= 690
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / "accuracy-print.png", full_page=True)

    def test_the_first_key_leads_to_the_accuracy(self, advised: Path, open_report: Open) -> None:
        page = open_report(advised).page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.getAttribute('href')") == "#accuracy"
