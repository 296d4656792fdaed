"""``trtcalib report``: what it writes, what it refuses before any work, and the browser that it opens or misses."""

from __future__ import annotations

import json
import webbrowser

import pytest

from tests.cli.helpers import listing
from tests.studies import small_study

CALIBRATE = ["calibrate", "model.onnx", "--data", "data.npy", "-o", "out.cache", "--histograms", "h.npz"]

REPORT = ["report", "out.cache", "h.npz", "-o", "r.html"]


@pytest.fixture
def results(done, net):
    """``out.cache`` with its manifest and ``h.npz`` in the current folder."""
    done(*CALIBRATE)
    return net


def test_page_json_and_csv_are_written_and_named(done, results):
    before = listing(results)
    result = done(*REPORT)
    assert result.out.split() == ["r.html", "r.json", "r.csv"]
    assert listing(results).keys() - before.keys() == {"r.html", "r.json", "r.csv"}
    content = json.loads((results / "r.json").read_text(encoding="utf-8"))
    assert [source["file"] for source in content["sources"]] == ["h.npz", "out.cache"]
    assert content["title"] == "model.onnx · histograms"


def test_it_is_written_into_another_folder_with_paths_from_there(done, results):
    (results / "sub").mkdir()
    done("report", "out.cache", "-o", "sub/r.html")
    content = json.loads((results / "sub/r.json").read_text(encoding="utf-8"))
    assert content["sources"][0]["file"] == "../out.cache"


def test_a_study_of_the_command_line(done, results):
    done("study", "model.onnx", "--data", "data.npy", "--batch-sizes", "1,8,all", "--orders", "1", "-o", "out")
    done("report", "out", "out/b8.cache", "-o", "r.html")
    content = json.loads((results / "r.json").read_text(encoding="utf-8"))
    (told,) = content["studies"]
    assert told["study"] == json.loads((results / "out/study.json").read_text(encoding="utf-8"))
    assert len(content["histograms"]) == len(told["study"]["histograms"]) == 2
    assert content["caches"]["caches"][1]["closest"] == "b8"
    grown = [story for stories in told["stories"] for story in stories if len(story["growth"]) > 1]
    assert grown
    ends = {
        (outcome["range"], story["growth"][-1][1])
        for tensor, stories in zip(told["study"]["tensors"], told["stories"], strict=True)
        for outcome, story in zip(tensor["outcomes"], stories, strict=True)
        if story["growth"]
    }
    assert all(range_ == end for range_, end in ends)


def test_notes_go_to_stderr(done, folder):
    study = small_study(folder)
    (folder / "b1.npz").unlink()
    result = done("report", study, "-o", "r.html")
    assert result.err == (
        "note: study.json names the histogram file b1.npz, which does not stand beside it: its histograms are not shown\n"
    )


@pytest.mark.parametrize("name", ["r", "r.json", "r.pdf"])
def test_another_suffix_is_refused(refused, results, name):
    assert refused("report", "out.cache", "-o", name) == f"{name}: a report is written as .html\n"


def test_a_result_is_not_overwritten(refused, folder):
    small_study(folder)
    message = refused("report", ".", "-o", "study.html")
    assert message == "study.json: is an input or another result of this command: choose another name\n"


def test_a_missing_folder_is_told_before_anything_is_read(refused, folder):
    assert "the folder 'none' does not exist" in refused("report", "nothing.cache", "-o", "none/r.html")


def test_files_that_are_no_results_are_named(refused, results):
    assert refused("report", "out.cache", "model.onnx", "-o", "r.html").startswith(
        "model.onnx: no result that a report can show: expected a study's folder"
    )


def test_no_result_is_a_usage_error(misused, folder):
    assert "Missing argument 'RESULT...'" in misused("report", "-o", "r.html")


def test_open_opens_the_page(done, results, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    result = done(*REPORT, "--open")
    assert opened == [(results / "r.html").resolve().as_uri()]
    assert result.err == ""


@pytest.mark.parametrize("failure", [False, webbrowser.Error("could not locate runnable browser")])
def test_open_says_so_where_there_is_no_browser(done, results, monkeypatch, failure):
    def missing(address):
        if failure:
            raise failure
        return False

    monkeypatch.setattr(webbrowser, "open", missing)
    assert done(*REPORT, "--open").err == "no browser was found here: open r.html in one\n"
