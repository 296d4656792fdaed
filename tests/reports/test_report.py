"""What a report shows is what the results hold; files that are none are refused; the page cannot be broken out of."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import trtcalib
from tests.studies import HOSTILE, SAMPLES, all_zero, calibrated, large_study, small_study
from trtcalib.batch_study.result import read_study
from trtcalib.core.entropy import divergences
from trtcalib.core.histogram import Histogram
from trtcalib.errors import CacheFormatError, HistogramError, OutputError, SpecError
from trtcalib.histogram_file import save_histograms
from trtcalib.methods import clip_point
from trtcalib.reports.csv_rows import COLUMNS, guarded
from trtcalib.reports.report import METHODS, write_report
from trtcalib.reports.result import Curves, Report
from trtcalib.specs import load_recipe
from trtcalib.views.html_report import SCRIPTS
from trtcalib.views.report_curves import COUNT_STEPS, GROUP, KL_NEAR, KL_STEPS, KL_STRIDE, kept_candidates, packed_group

SCHEMA = Path(trtcalib.__file__).parent / "schemas" / "report.schema.json"

RESOURCES = Path(trtcalib.__file__).parent / "views" / "report"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study.json of a small real study."""
    return small_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def written(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of the small study and two of its caches."""
    page = tmp_path_factory.mktemp("report") / "report.html"
    write_report([study.parent, study.parent / "b1.cache", study.parent / "all.cache"], page)
    return page


@pytest.fixture(scope="module")
def report(written: Path) -> Report:
    return Report.model_validate_json(written.with_suffix(".json").read_bytes())


class Page(HTMLParser):
    """The elements of a page, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.text = ""
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._script = (dict(attrs).get("id") or "") if tag == "script" else None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.text += data
        else:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._script = None


def unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text, validate=True))


class TestNumbers:
    def test_the_study_stands_in_it_unchanged(self, report: Report, study: Path) -> None:
        assert report.studies[0].study == read_study(study)

    def test_every_tensor_and_configuration_has_a_story(self, report: Report) -> None:
        told = report.studies[0]
        assert [len(stories) for stories in told.stories] == [len(tensor.outcomes) for tensor in told.study.tensors]
        assert any(stories for stories in told.stories)

    def test_growth_ends_at_the_final_range_and_counts_samples(self, report: Report) -> None:
        told = report.studies[0]
        sizes = [configuration.batch_size for configuration in told.study.configurations]
        grown = 0
        for tensor, stories in zip(told.study.tensors, told.stories, strict=True):
            for outcome, story, size in zip(tensor.outcomes, stories, sizes, strict=bool(stories)):
                if outcome.first_batch == 0:
                    assert story.growth == []
                    continue
                assert story.growth[0] == (min(size, SAMPLES), outcome.first_maximum)
                assert story.growth[-1][1] == outcome.range
                assert len(story.growth) == 1 + len(outcome.doublings)
                grown += len(outcome.doublings)
        assert grown > 0

    def test_amax_of_each_method_is_that_of_the_method(self, report: Report) -> None:
        run = calibrated(1)
        facts = report.histograms[1]
        assert (facts.study, facts.configuration) == (0, "b1")
        for shown in facts.histograms:
            histogram = run.histograms[shown.tensor]
            expected = [clip_point(histogram, load_recipe(name)) for name in METHODS]
            assert [method.amax for method in shown.methods] == [float(clip.amax) for clip in expected]
            assert [method.bin_m for method in shown.methods] == [clip.bin_m for clip in expected]
            assert shown.values == histogram.total

    def test_the_search_that_is_drawn_chose_the_m_that_is_told(self, report: Report) -> None:
        searched = [shown for facts in report.histograms for shown in facts.histograms if shown.divergence is not None]
        assert len(searched) > 20
        for shown in searched:
            assert shown.divergence.bin_m == shown.methods[0].bin_m

    def test_empty_bins_are_those_above_the_maximum(self, report: Report) -> None:
        run = calibrated(1)
        doubled = 0
        for shown in report.histograms[1].histograms:
            histogram = run.histograms[shown.tensor]
            empty = 0
            while (
                empty < histogram.bins
                and float(histogram.range) * (histogram.bins - empty - 1) / histogram.bins >= shown.maximum
            ):
                empty += 1
            assert shown.empty_bins == (empty if histogram.range > 0 else 0), shown.tensor
            doubled += shown.empty_bins > 0
        assert doubled > 0

    def test_views_lead_to_the_histogram_that_they_carry(self, report: Report) -> None:
        facts = report.histograms[0]
        carried = [tensor for tensor in facts.tensors if tensor.inherited_from]
        assert carried
        for tensor in carried:
            assert facts.histograms[tensor.histogram].tensor == tensor.inherited_from

    def test_all_zero_tensors_have_no_search(self, tmp_path: Path) -> None:
        run = calibrated(SAMPLES)
        name = next(iter(run.histograms))
        held = type(run)(
            recipe=run.recipe,
            tensors=run.tensors,
            histograms={**run.histograms, name: all_zero()},
            infinite={},
            provenance=run.provenance,
            findings=(),
        )
        save_histograms(held, tmp_path / "h.npz")
        shown = write_report([tmp_path / "h.npz"], tmp_path / "r.html").histograms[0].histograms[0]
        assert (shown.tensor, shown.range, shown.maximum, shown.divergence, shown.empty_bins) == (name, 0, 0, None, 0)
        assert {method.amax for method in shown.methods} == {0}


class TestCaches:
    def test_the_reference_of_the_study_stands_first(self, report: Report) -> None:
        labels = [cache.label for cache in report.caches.caches]
        assert labels == ["study: all", "b1.cache", "all.cache"]

    def test_each_cache_names_the_configuration_that_it_is(self, report: Report) -> None:
        _, b1, everything = report.caches.caches
        assert (b1.closest, everything.closest) == ("b1", "all")
        activations = sum(1 for tensor in report.studies[0].study.tensors if tensor.outcomes)
        assert b1.closest_equal == everything.closest_equal == activations
        assert everything.equal == everything.common == everything.tensors
        assert (b1.batch_size, b1.samples, b1.method) == (1, SAMPLES, "entropy")

    def test_ratios_are_to_the_first(self, report: Report) -> None:
        moved = 0
        for row in report.caches.rows:
            first = row.scales[0].scale
            for scale in row.scales:
                if first:
                    assert scale.ratio == scale.scale / first
            if first:
                assert row.apart == max(abs(scale.ratio - 1) for scale in row.scales)
                moved += row.apart > 0.01
        assert moved == report.caches.caches[1].moved > 0

    def test_caches_alone_compare_with_the_first(self, tmp_path: Path) -> None:
        (tmp_path / "a.cache").write_bytes(b"TRT-101601-EntropyCalibration2\nx: 3f800000\ny: 40000000\nz: 0\n")
        (tmp_path / "b.cache").write_bytes(b"TRT-8601-MinMaxCalibration\nx: 40000000\nw: 7f800000\nz: 3f800000\n")
        report = write_report([tmp_path / "a.cache", tmp_path / "b.cache"], tmp_path / "r.html")
        rows = {row.name: row for row in report.caches.rows}
        assert [scale and scale.ratio for scale in rows["x"].scales] == [1, 2]
        assert rows["x"].apart == 1
        assert rows["y"].scales[1] is None
        assert rows["y"].apart is None
        assert (rows["w"].scales[1].scale, rows["w"].scales[1].scale_hex) == (None, "7f800000")
        assert [scale.ratio for scale in rows["z"].scales] == [None, None]
        a, b = report.caches.caches
        assert (a.tensorrt_version, b.tensorrt_version, b.algorithm) == ("10.16.1", "8.6.1", "MinMaxCalibration")
        assert (b.common, b.equal, b.moved, b.method, b.closest) == (2, 0, 2, None, None)
        assert b.oddities == ["tensor 'w' has an infinite scale"]
        assert 'id="plotly-source"' not in (tmp_path / "r.html").read_text(encoding="utf-8")

    def test_files_of_one_name_are_told_apart_by_their_folders(self, tmp_path: Path) -> None:
        for folder in ("one", "two"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "m.cache").write_bytes(b"TRT-101601-EntropyCalibration2\nx: 3f800000\n")
        report = write_report([tmp_path / "one/m.cache", tmp_path / "two/m.cache"], tmp_path / "r.html")
        assert [cache.label for cache in report.caches.caches] == ["one/m.cache", "two/m.cache"]

    def test_a_manifest_of_other_bytes_is_not_believed(self, study: Path, tmp_path: Path) -> None:
        for suffix in (".cache", ".cache.json"):
            (tmp_path / f"m{suffix}").write_bytes((study.parent / f"b1{suffix}").read_bytes())
        with (tmp_path / "m.cache").open("ab") as file:
            file.write(b"more: 1\n")
        report = write_report([tmp_path / "m.cache"], tmp_path / "r.html")
        assert report.notes == ["m.cache changed since its manifest was written: the manifest is not used"]
        assert report.caches.caches[0].samples is None


class TestFiles:
    def test_the_same_results_give_the_same_bytes(self, written: Path, study: Path, tmp_path: Path) -> None:
        again = written.parent / "report.html"
        before = [again.with_suffix(suffix).read_bytes() for suffix in (".html", ".json", ".csv")]
        write_report([study.parent, study.parent / "b1.cache", study.parent / "all.cache"], again)
        assert before == [again.with_suffix(suffix).read_bytes() for suffix in (".html", ".json", ".csv")]

    def test_a_result_given_twice_stands_once(self, study: Path, tmp_path: Path) -> None:
        report = write_report(
            [study.parent, study, study.parent / "b1.cache", study.parent / "b1.cache"], tmp_path / "r.html"
        )
        assert len(report.studies) == 1
        assert len(report.caches.caches) == 2

    def test_no_absolute_path_stands_in_it(self, written: Path, study: Path) -> None:
        for suffix in (".json", ".csv"):
            assert str(study.parent.parent) not in written.with_suffix(suffix).read_text(encoding="utf-8")

    def test_nothing_is_written_when_one_file_cannot_be(self, study: Path, tmp_path: Path) -> None:
        (tmp_path / "r.csv").mkdir()
        with pytest.raises(OutputError, match=r"r\.csv: is a folder"):
            write_report([study], tmp_path / "r.html")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["r.csv"]

    def test_the_schema_is_the_models_own(self) -> None:
        expected = json.dumps(Report.model_json_schema(mode="serialization"), indent=2, ensure_ascii=False) + "\n"
        assert SCHEMA.read_text(encoding="utf-8") == expected, f"write this to {SCHEMA.name}"
        jsonschema.Draft202012Validator.check_schema(json.loads(expected))

    def test_the_json_fits_the_schema(self, written: Path) -> None:
        content = json.loads(written.with_suffix(".json").read_text(encoding="utf-8"))
        validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
        validator.validate(content)
        del content["histograms"][0]["histograms"][0]["methods"]
        with pytest.raises(jsonschema.ValidationError, match="'methods' is a required property"):
            validator.validate(content)

    def test_the_csv_has_a_row_per_tensor_and_configuration(self, written: Path, report: Report) -> None:
        rows = list(csv.DictReader(io.StringIO(written.with_suffix(".csv").read_text(encoding="utf-8"), newline="")))
        told = report.studies[0]
        expected = sum(max(len(tensor.outcomes), 1) for tensor in told.study.tensors) + 2 * len(report.caches.rows)
        assert len(rows) == expected
        assert tuple(rows[0]) == COLUMNS
        tensor = next(tensor for tensor in told.study.tensors if tensor.outcomes)
        row = next(row for row in rows if row["tensor"] == tensor.name and row["configuration"] == "b1")
        at = [configuration.name for configuration in told.study.configurations].index("b1")
        assert float(row["scale"]) == tensor.outcomes[at].scale
        assert row["scale_hex"] == tensor.outcomes[at].scale_hex
        assert int(row["bin_m"]) == tensor.outcomes[at].bin_m

    @given(st.text())
    def test_no_text_in_the_csv_is_a_formula_and_all_can_be_undone(self, text: str) -> None:
        safe = guarded(text)
        assert not safe.startswith(("=", "+", "-", "@", "\t", "\r"))
        assert safe.isprintable()
        if text.isprintable():
            assert safe.removeprefix("'") == text if safe != text else not text.startswith("'")

    def test_guarded_literals(self) -> None:
        assert guarded("=1+1") == "'=1+1"
        assert guarded("'x") == "''x"
        assert guarded("\tx") == "'\\tx"
        assert guarded("conv1") == "conv1"


class TestRefusals:
    def fault(self, path: Path, kind: type[Exception] = SpecError) -> str:
        with pytest.raises(kind) as caught:
            write_report([path], path.parent / "r.html")
        text = str(caught.value)
        assert "\n" not in text
        assert str(path) in text
        return text

    def test_missing(self, tmp_path: Path) -> None:
        assert "no such file: expected a study's folder" in self.fault(tmp_path / "x")

    def test_a_folder_without_a_study(self, tmp_path: Path) -> None:
        assert "a folder without study.json" in self.fault(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"text", b"\x7fELF", b"\xff\xfe{", b"[1]"])
    def test_other_files(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "study.json").write_bytes(content)
        assert "no result that a report can show" in self.fault(tmp_path / "study.json")

    @pytest.mark.parametrize("content", [b"{", b'{"kind": ', b'{"a":' * 10_000])
    def test_damaged_json(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x").write_bytes(content)
        assert ": damaged: Invalid JSON" in self.fault(tmp_path / "x")

    def test_another_json(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b'{"kind": "report"}')
        assert "JSON that is no result" in self.fault(tmp_path / "x")

    def test_a_manifest(self, study: Path) -> None:
        assert "a cache's manifest: give the calibration cache" in self.fault(study.parent / "b1.cache.json")

    def test_a_newer_study(self, study: Path, tmp_path: Path) -> None:
        self.changed(study, tmp_path, schema_version=2)
        assert "schema_version 2 is newer than this trtcalib reads (1): update it" in self.fault(
            tmp_path / "study.json"
        )

    def changed(self, study: Path, folder: Path, **changes: object) -> None:
        content = json.loads(study.read_bytes())
        (folder / "study.json").write_text(json.dumps({**content, **changes}), encoding="utf-8")

    def test_a_study_without_a_part(self, study: Path, tmp_path: Path) -> None:
        self.changed(study, tmp_path, summary=None, cost=None)
        assert re.search(r"damaged: cost: .* \(and 1 more faults\)", self.fault(tmp_path / "study.json"))

    def test_a_study_whose_parts_do_not_fit(self, study: Path, tmp_path: Path) -> None:
        tensors = json.loads(study.read_bytes())["tensors"]
        wrong = next(tensor for tensor in tensors if tensor["outcomes"])
        wrong["outcomes"].pop()
        self.changed(study, tmp_path, tensors=tensors)
        assert f"tensor {wrong['name']!r} has 2 outcomes for 3 configurations" in self.fault(tmp_path / "study.json")

    def test_a_study_without_its_reference(self, study: Path, tmp_path: Path) -> None:
        self.changed(study, tmp_path, reference="b99")
        assert "the reference 'b99' is not one of" in self.fault(tmp_path / "study.json")

    def test_bits_that_are_none(self, study: Path, tmp_path: Path) -> None:
        tensors = json.loads(study.read_bytes())["tensors"]
        tensors[0]["scale_hex"] = "xyz"
        self.changed(study, tmp_path, tensors=tensors)
        assert "scale_hex 'xyz'" in self.fault(tmp_path / "study.json")

    @pytest.mark.parametrize(
        "name", ["../all.npz", "/etc/passwd", "a/b.npz", "a\\b.npz", "c:x.npz", "..", ".", "", "a\0b"]
    )
    def test_histograms_elsewhere(self, study: Path, tmp_path: Path, name: str) -> None:
        self.changed(study, tmp_path, histograms={"all": name})
        assert "is no plain name of a file beside the study" in self.fault(tmp_path / "study.json")

    def test_a_link_that_leads_elsewhere(self, study: Path, tmp_path: Path) -> None:
        self.changed(study, tmp_path, histograms={"all": "all.npz"})
        (tmp_path / "all.npz").symlink_to(study.parent / "all.npz")
        assert "is no plain name of a file beside the study" in self.fault(tmp_path / "study.json")

    def test_histograms_that_are_gone_are_noted(self, study: Path, tmp_path: Path) -> None:
        self.changed(study, tmp_path, histograms={"all": "gone.npz"})
        report = write_report([tmp_path], tmp_path / "r.html")
        assert report.notes == [
            "study.json names the histogram file gone.npz, which does not stand beside it: its histograms are not shown"
        ]
        assert report.histograms == []

    def test_histograms_of_another_model(self, study: Path, tmp_path: Path) -> None:
        model = {**json.loads(study.read_bytes())["model"], "sha256": "0" * 64}
        self.changed(study, tmp_path, model=model)
        (tmp_path / "all.npz").write_bytes((study.parent / "all.npz").read_bytes())
        with pytest.raises(HistogramError, match=r"all\.npz: holds histograms of another model than study\.json"):
            write_report([tmp_path], tmp_path / "r.html")

    def test_a_damaged_histogram_file(self, study: Path, tmp_path: Path) -> None:
        (tmp_path / "h").write_bytes((study.parent / "all.npz").read_bytes()[:1000])
        assert "not a .npz file, or truncated" in self.fault(tmp_path / "h", HistogramError)

    def test_a_damaged_cache(self, tmp_path: Path) -> None:
        (tmp_path / "c").write_bytes(b"TRT-101601-EntropyCalibration2\nx: zz\n")
        assert ":2: tensor 'x' has scale 'zz'" in self.fault(tmp_path / "c", CacheFormatError)

    def test_a_damaged_manifest_beside_a_cache(self, tmp_path: Path) -> None:
        (tmp_path / "c").write_bytes(b"TRT-101601-EntropyCalibration2\nx: 1\n")
        (tmp_path / "c.json").write_bytes(b"{")
        with pytest.raises(SpecError, match=r"c\.json: file: Invalid JSON"):
            write_report([tmp_path / "c"], tmp_path / "r.html")


class TestPage:
    def test_it_holds_the_numbers_of_the_json(self, written: Path) -> None:
        page = Page(written.read_text(encoding="utf-8"))
        inside = json.loads(unpacked(page.scripts["report-data"]))
        assert inside["report"] == json.loads(written.with_suffix(".json").read_text(encoding="utf-8"))

    def test_its_policy_allows_its_scripts_by_their_hashes_and_nothing_from_anywhere(self, written: Path) -> None:
        page = Page(written.read_text(encoding="utf-8"))
        policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
        rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split("; ")}
        run = [page.scripts[""], unpacked(page.scripts["plotly-source"]).decode()]
        hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in run]
        assert rules["script-src"] == hashes
        assert rules["default-src"] == ["'none'"]
        assert rules.keys() == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}
        assert rules["img-src"] == ["data:", "blob:"]

    def test_it_refers_to_nothing_but_its_neighbours(self, written: Path) -> None:
        page = Page(written.read_text(encoding="utf-8"))
        addresses = {a[key] for _, a in page.tags for key in ("href", "src", "action", "data", "poster") if a.get(key)}
        assert {x for x in addresses if not x.startswith("#")} == {"data:,", "./report.json", "./report.csv"}
        assert "url(" not in written.read_text(encoding="utf-8").split("</style>")[0]

    def test_file_names_beside_it_are_no_addresses_of_another_kind(self, study: Path, tmp_path: Path) -> None:
        target = tmp_path / "javascript:alert(1)#?%41.html"
        write_report([study.parent / "b1.cache"], target)
        page = Page(target.read_text(encoding="utf-8"))
        assert {a["href"] for tag, a in page.tags if tag == "a" and a["href"].startswith("./")} == {
            "./javascript%3Aalert%281%29%23%3F%2541.json",
            "./javascript%3Aalert%281%29%23%3F%2541.csv",
        }

    def test_hostile_names_make_no_elements(self, tmp_path: Path) -> None:
        large_study(tmp_path, 12, HOSTILE)
        write_report([tmp_path], tmp_path / "r.html")
        page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
        groups = -(-12 // GROUP)
        assert sum(tag == "script" for tag, _ in page.tags) == 3 + 2 * groups
        assert not any(tag in ("img", "iframe", "object", "embed", "form") for tag, _ in page.tags)
        assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
        assert "<script>window.broken = 1</script>" in page.text
        assert "\\u202eright to left" in page.text
        assert "x" * 200 not in page.text
        names = [
            tensor["name"] for tensor in json.loads((tmp_path / "r.json").read_text())["studies"][0]["study"]["tensors"]
        ]
        assert tuple(names[: len(HOSTILE)]) == HOSTILE

    def test_the_script_cannot_end_its_element_and_puts_no_html_anywhere(self) -> None:
        for name in SCRIPTS:
            text = (RESOURCES / name).read_text(encoding="utf-8")
            assert "</script" not in text
            assert "<!--" not in text
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)
        assert "</style" not in (RESOURCES / "report.css").read_text(encoding="utf-8")

    def test_every_script_is_in_the_page(self) -> None:
        assert {path.name for path in RESOURCES.iterdir()} == {*SCRIPTS, "report.css", "report.html", "accuracy.html"}

    def test_sections_without_data_are_absent(self, study: Path, tmp_path: Path) -> None:
        def ids(*results: Path) -> set[str]:
            write_report(results, tmp_path / "r.html")
            page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
            return {a["id"] for tag, a in page.tags if tag == "section"}

        assert ids(study) == {"summary", "moves", "tensors", "about"}
        assert ids(study.parent / "all.npz") == {"tensors", "about"}
        assert ids(study.parent / "all.cache") == {"caches", "about"}
        assert ids(study, study.parent / "all.cache") == {"summary", "moves", "tensors", "caches", "about"}


def decoded(text: str) -> list[tuple[np.ndarray, dict[int, float]]]:
    """Unpack a group of curves as the page does, written from the format's description."""
    content = unpacked(text)
    number = int.from_bytes(content[:4], "little")
    headers, at = [], 4
    for _ in range(number):
        whole = np.frombuffer(content, "<u4", 4, at)
        headers.append((*map(int, whole), *np.frombuffer(content, "<f8", 3, at + 16)))
        at += 40
    counts = []
    for bins, _, _, _, top, _, _ in headers:
        code, values = 0, []
        for byte in content[at : at + bins]:
            code = (code + byte) % 256
            values.append(0.0 if code == 0 else np.exp((code - 1) / COUNT_STEPS * top))
        counts.append(np.array(values))
        at += bins
    kept = sum(header[3] for header in headers)
    low, high = content[at : at + kept], content[at + kept :]
    assert len(high) == kept
    found, at = [], 0
    for values, (_, candidates, chosen, size, _, lowest, highest) in zip(counts, headers, strict=True):
        code, curve = 0, {}
        places = [i for i in range(candidates) if i % KL_STRIDE == 0 or abs(i - chosen) <= KL_NEAR]
        assert len(places) == size
        for place in places:
            code = (code + low[at] + 256 * high[at]) % 65536
            at += 1
            if code:
                curve[place] = 0.0 if code == 1 else np.exp(lowest + (code - 2) / KL_STEPS * (highest - lowest))
        found.append((values, curve))
    return found


class TestCurves:
    @given(st.lists(arrays(np.int64, 256, elements=st.integers(0, 2**40)).filter(np.any), min_size=1, max_size=3))
    def test_counts_come_back_within_a_fifth_of_a_per_cent_of_the_axis(self, several: list[np.ndarray]) -> None:
        curves = [Curves(Histogram(counts=counts, range=np.float32(1))) for counts in several]
        for counts, (values, curve) in zip(several, decoded(packed_group(curves)), strict=True):
            assert np.array_equal(counts == 0, values == 0)
            height = np.log(max(counts.max(), 2))
            seen = counts > 0
            assert np.all(np.abs(np.log(values[seen]) - np.log(counts[seen])) <= 0.002 * height)
            assert curve == {}

    def test_divergences_come_back_and_those_that_are_not_allowed_stay_out(self) -> None:
        histogram = calibrated(1).histograms["stem_relu"]
        exact = divergences(histogram)
        chosen = int(np.argmin(exact))
        ((_, curve),) = decoded(packed_group([Curves(histogram, exact, chosen)]))
        places = kept_candidates(exact.size, chosen)
        assert set(curve) == {int(place) for place in places if np.isfinite(exact[place])}
        span = np.log(exact[np.isfinite(exact)].max() / exact[exact > 0].min())
        assert all(abs(np.log(curve[place] / exact[place])) <= 0.0006 * span for place in curve if exact[place] > 0)
        assert curve[chosen] == min(curve.values())

    @given(st.integers(0, 3000), st.integers(0, 3000))
    def test_every_fourth_candidate_is_kept_and_all_near_the_chosen_one(self, candidates: int, chosen: int) -> None:
        expected = [i for i in range(candidates) if i % KL_STRIDE == 0 or abs(i - chosen) <= KL_NEAR]
        assert kept_candidates(candidates, chosen).tolist() == expected


class TestSize:
    @pytest.mark.parametrize("values", [10_000, 1_000_000])
    def test_a_thousand_noisy_tensors_in_eight_configurations_are_eight_megabytes(
        self, tmp_path: Path, values: int
    ) -> None:
        large_study(tmp_path, 1000, values=values)
        write_report([tmp_path], tmp_path / "r.html")
        assert (tmp_path / "r.html").stat().st_size <= 8_000_000
