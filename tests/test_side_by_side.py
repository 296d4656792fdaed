"""What docs/side-by-side.md shows of trtcalib is what it does now; of ONNX Runtime and onnx, where the page's versions are installed."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version
from pathlib import Path

import onnx
import pytest

from tests.bench import rejects
from tests.bench.reject_cells import CACHE, OUTPUT, came_of_it
from tests.bench.reject_inputs import BUILDER_CORPUS, BUILDER_FOLDERS, CACHES, CacheInput, builder_models
from tests.bench.reject_runtime import run_in_runtime

PAGE = (Path(__file__).parent.parent / "docs" / "side-by-side.md").read_text(encoding="utf-8")

SAME_RUNTIME = pytest.mark.skipif(
    f"onnxruntime {version('onnxruntime')}," not in PAGE or f"onnx {onnx.__version__}," not in PAGE,
    reason="the page was measured with another ONNX Runtime or onnx",
)

WHOLE = "2 of 2 Conv, 8 Q/DQ nodes"

each_cache = pytest.mark.parametrize("case", CACHES, ids=lambda case: case.title)
each_model = pytest.mark.parametrize("name", builder_models())


def rows(table: str) -> dict[str, list[str]]:
    """The cells of a table by the first of each row, heads left out."""
    found = re.search(rf"<!-- table: {table} -->\n\n((?:\|.*\n)+)", PAGE)
    assert found is not None
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in found[1].splitlines()]
    return {first.strip(): [cell.strip() for cell in rest] for first, *rest in lines[2:]}


def test_the_tables_have_a_row_per_input_and_no_other() -> None:
    assert list(rows("caches")) == [case.title for case in CACHES]
    assert list(rows("builder")) == [f"`{name}`" for name in builder_models()]
    assert {case.due for case in CACHES} == {"refuse", "report", "convert"}


@each_cache
def test_our_columns_are_what_lint_and_qdq_do(case: CacheInput) -> None:
    due, lint, qdq, *_ = rows("caches")[case.title]
    with rejects.scratch(case):
        assert [due, lint, qdq] == [case.due, rejects.lint(), rejects.qdq()]


@pytest.mark.parametrize("case", [case for case in CACHES if case.due == "refuse"], ids=lambda case: case.title)
def test_what_must_be_refused_is_told_by_the_linter_and_not_converted(case: CacheInput) -> None:
    with rejects.scratch(case) as folder:
        before = sorted(folder.iterdir())
        assert rejects.lint().startswith("exit 1, TC")
        code, out, err = rejects.command("qdq", "m.onnx", CACHE, "-o", OUTPUT)
        assert (code, out) == (2, "")
        assert re.match(r"trtcalib: m\.(cache|onnx)[: ]", err), err
        assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("case", [case for case in CACHES if case.due == "report"], ids=lambda case: case.title)
def test_what_must_be_reported_makes_the_linter_fail(case: CacheInput) -> None:
    with rejects.scratch(case):
        assert re.match(r"exit 1, TC\d{3} (warning|error)", rejects.lint())


@pytest.mark.parametrize("case", [case for case in CACHES if case.due == "convert"], ids=lambda case: case.title)
def test_what_is_merely_odd_converts_with_the_scale_of_the_cache(case: CacheInput) -> None:
    with rejects.scratch(case):
        assert rejects.lint().startswith("exit 0")
        assert rejects.qdq().startswith("exit 0;")
        assert came_of_it() == [WHOLE, "scale 0.125"]
        onnx.checker.check_model(onnx.load(OUTPUT), full_check=True)


@SAME_RUNTIME
@each_cache
def test_the_column_of_onnx_runtime(case: CacheInput) -> None:
    with rejects.scratch(case):
        assert rows("caches")[case.title][-1] == rejects.runtime_table(case)
    assert rejects.runtime_as_it_is(case) == "JSONDecodeError"


@SAME_RUNTIME
@each_model
def test_the_columns_of_the_checker_and_of_running_a_model(name: str) -> None:
    proto = builder_models()[name]
    assert rows("builder")[f"`{name}`"][:2] == [rejects.checker(proto), run_in_runtime(proto)]


@each_model
def test_the_builder_refuses_for_the_reason_that_the_corpus_has(name: str) -> None:
    """What the corpus has, its own tests ask of TensorRT-RTX."""
    (file,) = [BUILDER_CORPUS / folder / f"{name}.onnxtxt" for folder in BUILDER_FOLDERS
               if (BUILDER_CORPUS / folder / f"{name}.onnxtxt").exists()]  # fmt: skip
    (says,) = onnx.parser.parse_model(file.read_text(encoding="utf-8")).metadata_props
    cell = rows("builder")[f"`{name}`"][-1]
    assert cell.startswith("exit 1; ")
    assert says.value in cell.replace("\\|", "|")


def test_no_modelopt_is_said_to_be_missing() -> None:
    assert rejects.versions(None)[-1] == "NVIDIA ModelOpt: missing (--modelopt was not given)"


def test_an_interpreter_that_is_none_or_has_no_modelopt_is_said_to_be_so(tmp_path: Path) -> None:
    with rejects.scratch(CACHES[0]):
        assert rejects.modelopts(str(tmp_path / "python")) == "missing: No such file or directory; no model"
        answer = rejects.modelopts(sys.executable)
    assert re.fullmatch(r"the process ended with 1: ModuleNotFoundError: .*modelopt.*; no model", answer), answer
