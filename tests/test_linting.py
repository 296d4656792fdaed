"""Each rule of the linter: a case that it finds, the nearest one that it must not find, and its section in docs/lint-rules.md."""

from __future__ import annotations

import ast
import itertools
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import make_model, save_model
from trtcalib import calibrate
from trtcalib.core.cache import format_cache, make_cache, parse_cache
from trtcalib.core.scale import bits_from_scale, scale_from_amax
from trtcalib.errors import CacheFormatError, ModelError
from trtcalib.files import sha256_of_bytes
from trtcalib.linting import RULES, LintResult, lint_cache
from trtcalib.linting.implied import bin_of, full_range_bits, is_minmax, minmax_bits
from trtcalib.linting.lint import MOST_BYTES, MOST_FINDINGS
from trtcalib.linting.renames import _increasing
from trtcalib.manifest import Finding, Manifest
from trtcalib.onnx_graph import read_model
from trtcalib.views.lint_lines import lint_lines

PAGE = (Path(__file__).parent.parent / "docs" / "lint-rules.md").read_text(encoding="utf-8")

SECTIONS = re.findall(r"^### (TC\d{3}) (\S+)\n\n\*\*(\w+)\.\*\* (.*)\n((?:.*\n)*?)(?=^##|\Z)", PAGE, re.MULTILINE)

ENTROPY = "TRT-101601-EntropyCalibration2"

HEADER_LINE = b"TRT-101601-EntropyCalibration2\n"

MINMAX = "TRT-101601-MinMaxCalibration"

WEIGHT = """
net (float[N, 3] x) => (float[N, 2] y)
<float[3, 2] w = {1, 0, 0, 1, 1, 1}>
{
  h = Relu(x)
  y = MatMul(h, w)
}
"""

CONSTANTS = """
net (float[N] x) => (float[N] y)
<float a = {1}, float b = {2}, float c = {8}>
{
  h = Mul(x, a)
  i = Mul(h, b)
  y = Add(i, c)
}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scale_hex(amax: float) -> str:
    return f"{bits_from_scale(scale_from_amax(amax)):x}"


def write(scales: dict[str, float | str] | bytes, header: str = ENTROPY) -> Path:
    """Write model.cache: the file's bytes, or an amax or the digits per tensor."""
    if not isinstance(scales, bytes):
        digits = {name: amax if isinstance(amax, str) else scale_hex(amax) for name, amax in scales.items()}
        scales = "".join(f"{line}\n" for line in [header, *(f"{k}: {v}" for k, v in digits.items())]).encode()
    Path("model.cache").write_bytes(scales)
    return Path("model.cache")


def lint(scales: dict[str, float | str] | bytes, model: str | None = None, header: str = ENTROPY) -> LintResult:
    return lint_cache(write(scales, header), None if model is None else save_model(Path("model.onnx"), model))


def lines_of(result: LintResult, rule: str) -> list[int | None]:
    return [found.line for found in result.findings if found.rule.id == rule]


def message_of(result: LintResult, rule: str) -> str:
    return next(found.message for found in result.findings if found.rule.id == rule)


def write_manifest(header: str = ENTROPY, **changes: object) -> Manifest:
    """Write a manifest beside model.cache that is of its bytes, with some fields changed."""
    save_model(Path("model.onnx"), WEIGHT)
    data = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    manifest = calibrate("model.onnx", data, "entropy").manifest("model.cache")
    algorithm = header.split("-")[2]
    digest = sha256_of_bytes(Path("model.cache").read_bytes())
    changed = manifest.model_copy(update={"cache_sha256": digest, "algorithm": algorithm, **changes})
    Path("model.cache.json").write_text(changed.model_dump_json(), encoding="utf-8")
    return changed


# the page


def test_the_page_and_the_rules_are_the_same() -> None:
    told = [(rule, name, severity, meaning) for rule, name, severity, meaning, _ in SECTIONS]
    known = [(r.id, r.name, r.severity, f"{r.meaning[0].upper()}{r.meaning[1:]}.") for r in RULES.values()]
    assert told == known
    assert list(RULES) == sorted(RULES)


@pytest.mark.parametrize(("rule", "body"), [(s[0], s[4]) for s in SECTIONS], ids=[s[0] for s in SECTIONS])
def test_every_example_of_the_page_gives_its_lines_and_says_what_to_do(rule: str, body: str) -> None:
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```$", body, re.MULTILINE | re.DOTALL))
    if rule in MANIFEST_EXAMPLES:
        result = MANIFEST_EXAMPLES[rule]()
    else:
        content = blocks["text"].encode() if "text" in blocks else ast.literal_eval(blocks["python"])
        result = lint(content, blocks.get("onnx"))
    shown = blocks["console"].splitlines()
    assert shown
    assert all(f" {rule} {RULES[rule].severity}: " in line for line in shown)
    assert set(shown) <= set(lint_lines(result))
    assert len(body.rpartition("```")[2].strip()) > 10


# text


@pytest.mark.parametrize(
    ("ending", "cut"),
    [
        (b"x: 3c01", True),
        (b"x: 3", True),
        (b"x: 3c010a1", True),
        (b"x: 3c010a14", False),  # whole
        (b"x: 0", False),  # a tensor that was all zero
        (b"x: 3c01\n", False),  # a tiny scale all the same, and TC025's
        (b"y: 3c01\nx: 3c010a14", False),
    ],
)
def test_a_last_scale_without_its_digits_and_line_end_was_cut_off(ending: bytes, cut: bool) -> None:
    result = lint(b"TRT-101601-EntropyCalibration2\n" + ending)
    assert ("TC019" in result.counts) is cut


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("TRT-101601-A", False),
        ("TRT-101699-A", False),
        ("TRT-101700-A", True),
        ("TRT-110000-A", True),
        ("TRT-8601-A", False),
        ("TRT-7000-A", False),
        ("TRT-9999-A", False),
        ("TRT-10000-A", True),
        ("TRT-99999-A", True),
        ("TRT-999-A", True),
        ("TRT-100000-A", False),
    ],
)
def test_versions_are_known_up_to_the_last_with_calibrators(header: str, found: bool) -> None:
    assert (lines_of(lint({"x": 1.0}, header=header), "TC002") == [1]) == found


@pytest.mark.parametrize(
    "algorithm", ["EntropyCalibration2", "MinMaxCalibration", "EntropyCalibration", "LegacyCalibration"]
)
def test_the_algorithms_of_tensorrt_are_known(algorithm: str) -> None:
    assert lint({"x": 1.0}, header=f"TRT-101601-{algorithm}").findings == ()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the first line is empty"),
        (b"\n\n", "the first line is empty"),
        (b"x: 3c010a14\n", "the first line is that of tensor 'x'"),
        (ENTROPY.encode("utf-16-le"), "UTF-16?"),
        (b"TRT-1-A\rx: 1\r", "end in CR alone?"),
        (b"\x7fELF\x01\x02\nabc\n", "is it a calibration cache?"),
    ],
)
def test_a_header_that_is_none_is_told_with_the_likely_cause(content: bytes, reason: str) -> None:
    result = lint(content)
    assert reason in message_of(result, "TC001")
    assert {rule for rule in result.counts if RULES[rule].severity == "error"} == {"TC001"}


def test_every_malformed_line_is_told_and_no_empty_cache_with_it() -> None:
    result = lint(f"{ENTROPY}\nx\n: 1\ny: 0x1\n".encode())
    assert lines_of(result, "TC004") == [2, 3]
    assert lines_of(result, "TC005") == [4]
    assert "TC006" not in result.counts


def test_a_name_that_stands_three_times_is_compared_with_its_first_line() -> None:
    result = lint(f"{ENTROPY}\nx: 1000000\nx: 1000000\nx: 2000000\nX: 1000000\n".encode())
    assert (lines_of(result, "TC007"), lines_of(result, "TC008")) == ([3], [4])


def test_printable_names_of_any_language_are_fine() -> None:
    assert lint({"größe": 1.0, "画像": 1.0, "a b": 1.0, "/model/conv": 1.0}).findings == ()


def test_a_colon_and_a_blank_is_what_the_finding_on_colons_names() -> None:
    result = lint({"a:b": 1.0, "a: b": 1.0, "c": 1.0})
    assert lines_of(result, "TC011") == [3]
    assert "'a: b' and 1 more hold ':'" in message_of(result, "TC011")
    assert "'a:b' holds ':'" in message_of(lint({"a:b": 1.0}), "TC011")


def test_what_concerns_the_whole_file_is_told_once() -> None:
    result = lint(ENTROPY.encode() + b"\r\n" + b"x: 3c010a14\r\n\r\n")
    assert (lines_of(result, "TC013"), lines_of(result, "TC014")) == ([1], [3])
    assert "(the first of 3 lines)" in message_of(result, "TC013")


# scales


@pytest.mark.parametrize(
    ("digits", "rule"),
    [
        ("7f800001", "TC021"),
        ("ffc00000", "TC021"),
        ("7f800000", "TC023"),
        ("ff800000", "TC022"),
        ("80000001", "TC022"),
        ("80000000", "TC024"),
        ("0", "TC024"),
        ("1", "TC025"),
        ("7fffff", "TC025"),
        ("800000", None),
        ("7f7fffff", None),
    ],
)
def test_scales_that_int8_cannot_use(digits: str, rule: str | None) -> None:
    assert list(lint({"x": digits}).counts) == ([] if rule is None else [rule])


def test_a_scale_of_zero_is_right_for_what_the_model_makes_zero() -> None:
    model = """
net (float[N, 3] x) => (float[N, 3] y)
<float[3] zero = {0, 0, 0}, int64[1] shape = {3}>
{
  wide = ConstantOfShape(shape)
  same = Identity(zero)
  s = Add(x, zero)
  t = Add(s, wide)
  y = Add(t, same)
}
"""
    scales: dict[str, float | str] = {"x": "0", "zero": "0", "wide": "0", "same": "0", "s": 1.0, "t": 1.0, "y": 1.0}
    result = lint(scales, model)
    assert lines_of(result, "TC024") == [2]
    assert "TC049" not in result.counts
    assert lines_of(lint({**scales, "zero": 1.0}, model), "TC049") == [3]


# names


def test_few_names_are_another_model_and_a_fifth_are_not() -> None:
    names = {f"other{i}": 1.0 for i in range(5)}
    result = lint({"x": 1.0, **names}, WEIGHT)
    assert list(result.counts) == ["TC041"]
    names.pop("other4")
    result = lint({"x": 1.0, **names}, WEIGHT)
    assert "TC041" not in result.counts
    assert lines_of(result, "TC042") == [3, 4, 5, 6]


def test_names_that_the_parser_made_are_not_counted_against_a_cache() -> None:
    made = {f"(Unnamed Layer* {i}) [Shuffle]_output": 1.0 for i in range(20)} | {"ONNXTRT_squeezeTensor_3": 1.0}
    result = lint({"x": 1.0, "h": 1.0, "w": "3c010a14", "y": 1.0, **made}, WEIGHT)
    assert list(result.counts) == ["TC043"]
    assert "21 names were made" in message_of(result, "TC043")


def test_a_name_of_the_model_is_not_stale_whatever_it_is() -> None:
    model = """
net (float[N, 3] x, bool c) => (float[N, 3] y)
<float[3] gamma = {1, 1, 1}, float[3] beta = {0, 0, 0}, float[3] mean = {0, 0, 0}, float[3] var = {1, 1, 1}, int64[1] i = {0}>
{
  n = BatchNormalization(x, gamma, beta, mean, var)
  g = Gather(n, i)
  z = If(c)<then_branch = a () => (float[N, 3] p) { p = Relu(g) }, else_branch = b () => (float[N, 3] q) { q = Neg(g) }>
  y = Relu(z)
}
"""
    named = dict.fromkeys(("x", "gamma", "var", "i", "n", "g", "p", "q", "z", "y"), 1.0)
    assert "TC042" not in lint(named, model).counts


@pytest.mark.parametrize(
    ("old", "why"),
    [
        # Each is a cache of x, h1, h2, h3, y, of which h1 to h3 are called so in the model.
        (("h7", "h8", "h9"), "the same name but for its number"),
        (("h1", "r/mul", "h3"), "the same place between the same neighbours"),
    ],
)
def test_renames_are_guessed(old: tuple[str, ...], why: str) -> None:
    model = "net (float[N] x) => (float[N] y) { h1 = Sigmoid(x) h2 = Exp(h1) h3 = Log(h2) y = Relu(h3) }"
    result = lint({"x": 1.0, **dict.fromkeys(old, 1.0), "y": 1.0}, model)
    stale = [found for found in result.findings if found.rule.id == "TC042"]
    assert [found.tensor for found in stale] == [name for name in old if name not in ("h1", "h2", "h3")]
    for found in stale:
        place = old.index(str(found.tensor)) + 1
        assert f"likely 'h{place}' now" in found.message
        assert why in found.message
    assert "TC045" not in result.counts


def test_a_renamed_constant_is_known_by_its_scale() -> None:
    renamed = CONSTANTS.replace("c = {8}", "other = {8}").replace("(i, c)", "(i, other)")
    scales: dict[str, float | str] = {
        "c": "3d810a14",
        "y": 1.0,
        "x": 1.0,
        "a": "3c010a14",
        "b": "3c810a14",
        "h": 1.0,
        "i": 1.0,
    }
    result = lint(scales, renamed)
    assert list(result.counts) == ["TC042"]
    assert "likely 'other' now (its values imply this very scale)" in message_of(result, "TC042")
    assert "implies" not in message_of(lint({**scales, "c": "3d810a15"}, renamed), "TC042")


def test_the_most_similar_name_is_the_last_guess_and_needs_similarity() -> None:
    model = "net (float[N] x) => (float[N] y) { backbone_stage_one_relu = Relu(x) extra = Exp(x) y = Add(backbone_stage_one_relu, extra) }"
    result = lint({"x": 1.0, "model_backbone_stage_one_relu": 1.0, "y": 1.0}, model)
    assert "likely 'backbone_stage_one_relu' now (the most similar name)" in message_of(result, "TC042")
    result = lint({"x": 1.0, "model_backbone": 1.0, "y": 1.0}, model)
    assert "likely" not in message_of(result, "TC042")


def test_what_the_parser_made_between_two_neighbours_spoils_the_place() -> None:
    model = "net (float[N] x) => (float[N] y) { h = Exp(x) i = Log(h) y = Relu(i) }"
    result = lint({"x": 1.0, "(Unnamed Layer* 0) [Unary]_output": 1.0, "i": 1.0, "Q": 1.0, "y": 1.0}, model)
    assert "likely" not in message_of(result, "TC042")
    assert "'h'" in message_of(result, "TC045")


def test_inputs_without_a_scale_may_stand_under_as_many_names_that_the_parser_made() -> None:
    model = "net (float[3, 3] x) => (float[3, 3] y) { h = Exp(x) i = Log(h) y = MatMul(h, i) }"
    made = "(Unnamed Layer* 0) [Unary]_output"
    result = lint({"x": 1.0, "h": 1.0, made: 1.0, "y": 1.0}, model)
    assert "may stand under the 1 name that TensorRT's parser made: 'i'" in message_of(result, "TC045")
    assert "TC044" not in result.counts
    assert lint({"x": 1.0, made: 1.0, "y": 1.0}, model).counts["TC044"] == 2


@given(st.permutations(range(8)))
def test_the_longest_growing_part_is_as_long_as_the_slow_search_finds(order: list[int]) -> None:
    pairs = list(enumerate(order))
    longest = [1] * len(order)
    for i, value in enumerate(order):
        longest[i] = 1 + max((longest[j] for j in range(i) if order[j] < value), default=0)
    chain = _increasing(pairs)
    assert len(chain) == max(longest)
    assert all(a < b and v < w for (a, v), (b, w) in itertools.pairwise(chain))


def test_missing_scales_that_matter_are_those_of_tensors_that_vary_and_are_quantized() -> None:
    model = """
net (float[N, 4] x, int64[N] ids) => (float[N, 2] y)
<float[4, 2] w = {1, 0, 0, 1, 1, 1, 2, 2}, float[2] bias = {1, 1}, float[8, 4] table = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}>
{
  shape = Shape(x)
  size = Cast<to = 1>(shape)
  half = Mul(size, size)
  more = Add(half, size)
  e = Gather(table, ids)
  total = Add(e, x)
  r = Relu(total)
  p = MatMul(r, w)
  y = Add(p, bias)
}
"""
    result = lint({"y": 1.0, "x": 1.0}, model)
    assert [found.tensor for found in result.findings if found.rule.id == "TC044"] == ["e", "r", "p"]
    texts = [found.message for found in result.findings if found.rule.id == "TC045"]
    assert len(texts) == 2
    assert "'total'" in texts[0]
    assert "3 constants" in texts[1]
    assert not any(word in text for text in texts for word in ("size", "half", "more", "ids"))


def test_a_missing_view_is_told_with_the_scale_that_it_has() -> None:
    model = "net (float[2, 3] x) => (float[3, 3] y) { t = Transpose(x) y = MatMul(t, x) }"
    assert "give it that of 'x'" in message_of(lint({"x": 1.0, "y": 1.0}, model), "TC044")


def test_the_bias_of_a_gemm_and_what_a_custom_operator_makes_need_no_scale() -> None:
    header = '<ir_version: 8, opset_import: ["" : 17, "my" : 1]>'
    model = f"{header} net (float[2, 3] x, float[3, 3] v, float[2, 3] z) => (float[2, 3] y) {{ c = my.Op(x) r = Relu(z) g = Gemm(x, v, r) y = Add(g, c) }}"
    result = lint({"x": 1.0, "v": 1.0, "z": 1.0, "g": 1.0, "y": 1.0}, model)
    assert "TC044" not in result.counts
    assert "'r'" in message_of(result, "TC045")


# values


POOLED = "net (float[N, 3, 8, 8] x) => (float[N, 48] y) { p = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(x) y = Flatten(p) }"


def test_siblings_have_one_scale_and_a_view_of_a_pool_its_own() -> None:
    assert lines_of(lint({"x": 1.0, "p": 1.0, "y": 0.5}, POOLED), "TC046") == []
    assert lines_of(lint({"x": 1.0, "p": 0.9, "y": 0.9}, POOLED), "TC046") == [3]


def test_siblings_may_be_apart_as_far_as_sums_on_a_gpu_are() -> None:
    view = "net (float[2, 3] x) => (float[3, 2] y) { y = Transpose(x) }"
    assert lines_of(lint({"x": "3c010a14", "y": "3c010a1c"}, view), "TC046") == []
    assert lines_of(lint({"x": "3c010a14", "y": "3c010a1d"}, view), "TC046") == [3]


@pytest.mark.parametrize(
    ("scales", "attributes", "compared"),
    [
        ("{1, 1, 2, 2}", 'mode = "nearest"', True),
        ("{1, 1, 1.5, 2}", 'mode = "nearest"', False),
        ("{1, 1, 0.5, 1}", 'mode = "nearest"', False),
        ("{1, 1, 2, 2}", 'mode = "linear"', False),
        (
            "{1, 1, 2, 2}",
            'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"',
            True,
        ),
        ("{1, 1, 2, 2}", 'mode = "nearest", coordinate_transformation_mode = "align_corners"', False),
    ],
)
def test_a_nearest_resize_by_whole_factors_keeps_the_scale(scales: str, attributes: str, compared: bool) -> None:
    model = f"net (float[1, 3, 4, 4] x) => (float[1, 3, M, K] y) <float[4] s = {scales}> {{ y = Resize<{attributes}>(x, , s) }}"
    assert (lines_of(lint({"x": 1.0, "y": 2.0}, model), "TC046") == [3]) == compared
    assert lines_of(lint({"x": 1.0, "y": 1.0}, model), "TC046") == []


@pytest.mark.parametrize(
    ("header", "compared"), [("TRT-8003-", True), ("TRT-8099-", True), ("TRT-8100-", False), ("TRT-7202-", False)]
)
def test_a_concat_shares_one_scale_in_tensorrt_8_0_only(header: str, compared: bool) -> None:
    model = "net (float[N, 2] x, float[N, 2] z) => (float[N, 4] y) { y = Concat<axis = 1>(x, z) }"
    result = lint({"x": 1.0, "z": 2.0, "y": 2.0}, model, f"{header}EntropyCalibration2")
    assert (lines_of(result, "TC046") == [4]) == compared


@pytest.mark.parametrize(
    ("header", "after", "found"),
    [(ENTROPY, 1.99, False), (ENTROPY, 2.01, True), (MINMAX, 1.005, False), (MINMAX, 1.02, True)],
)
def test_a_relu_makes_nothing_larger(header: str, after: float, found: bool) -> None:
    model = "net (float[N] x) => (float[N] y) { y = Relu(x) }"
    assert (lines_of(lint({"x": 1.0, "y": after}, model, header), "TC047") == [3]) == found


def test_a_relu_of_what_has_scale_zero_is_told_of_once() -> None:
    assert list(lint({"x": "0", "y": 1.0}, "net (float[N] x) => (float[N] y) { y = Relu(x) }").counts) == ["TC024"]


@pytest.mark.parametrize(
    "operator", ["Sigmoid(x)", "Softmax(x)", "Tanh(x)", "HardSigmoid(x)", "Erf(x)", "Clip(x, low, high)"]
)
@pytest.mark.parametrize(
    ("header", "amax", "found"),
    [(ENTROPY, 2.0, False), (ENTROPY, 2.03, True), (MINMAX, 1.0, False), (MINMAX, 1.02, True)],
)
def test_bounded_operators_end_at_their_bound(operator: str, header: str, amax: float, found: bool) -> None:
    model = f"net (float[N] x) => (float[N] y) <float low = {{-1}}, float high = {{0.5}}> {{ y = {operator} }}"
    result = lint({"x": 8.0, "y": amax}, model, header)
    assert (lines_of(result, "TC048") == [3]) == found


def test_a_clip_without_two_constant_bounds_has_none() -> None:
    model = "net (float[N] x, float[] z) => (float[N] y) <float zero = {0}> { h = Clip(x, zero) y = Clip(h, zero, z) }"
    assert "TC048" not in lint({"x": 8.0, "z": 8.0, "h": 80.0, "y": 80.0}, model).counts
    old = (
        '<ir_version: 4, opset_import: ["" : 9]> net (float[N] x) => (float[N] y) { y = Clip<min = 0.0, max = 6.0>(x) }'
    )
    assert lines_of(lint({"x": 8.0, "y": 12.0}, old), "TC048") == []
    assert lines_of(lint({"x": 8.0, "y": 13.0}, old), "TC048") == [3]


@pytest.mark.parametrize(("z", "found"), [(9.9, False), (10.1, True), (0.101, False), (0.099, True)])
def test_the_inputs_of_a_residual_add_are_told_of_from_a_factor_of_ten(z: float, found: bool) -> None:
    model = "net (float[N] x, float[N] z) => (float[N] y) { y = Add(x, z) }"
    assert lint({"x": 1.0, "z": z, "y": 2.0}, model).counts == ({"TC050": 1} if found else {})


def test_a_constant_added_is_no_residual() -> None:
    model = "net (float[N] x) => (float[N] y) <float c = {1}> { y = Add(x, c) }"
    assert lint({"x": 100.0, "c": "3c010a14", "y": 100.0}, model).findings == ()


# constants


def test_a_constant_lies_within_the_reach_of_its_values() -> None:
    scales: dict[str, float | str] = {"x": 1.0, "h": 1.0, "y": 2.0}
    assert "TC049" not in lint({**scales, "w": "3c010a14"}, WEIGHT).counts
    assert "TC049" not in lint({**scales, "w": 0.5}, WEIGHT).counts
    assert lines_of(lint({**scales, "w": 1.001}, WEIGHT), "TC049") == [5]
    assert "TC049" not in lint({**scales, "w": 1.001}, WEIGHT, "TRT-8601-LegacyCalibration").counts


def test_minmax_leaves_a_constant_no_choice() -> None:
    scales: dict[str, float | str] = {"x": 1.0, "h": 1.0, "y": 2.0}
    assert "TC049" not in lint({**scales, "w": 1.0}, WEIGHT, MINMAX).counts
    assert lines_of(lint({**scales, "w": 0.999}, WEIGHT, MINMAX), "TC049") == [5]
    assert lines_of(lint({**scales, "w": "3c010a14"}, WEIGHT, MINMAX), "TC049") == [5]


def test_a_manifest_that_says_entropy_leaves_a_constant_the_bins() -> None:
    scales: dict[str, float | str] = {"x": 1.0, "h": 1.0, "y": 2.0}
    for amax, found in ((1000.5 / 2048, False), (1000.0 / 2048, True), (100.5 / 2048, True)):
        write({**scales, "w": amax})
        write_manifest()
        assert (lines_of(lint_cache("model.cache", "model.onnx"), "TC049") == [5]) == found
        Path("model.cache.json").unlink()
        assert "TC049" not in lint_cache("model.cache", "model.onnx").counts


def constants(amax: Callable[[float], str]) -> dict[str, float | str]:
    return {"x": 1.0, "a": amax(1.0), "b": amax(2.0), "c": amax(8.0), "h": 1.0, "i": 2.0, "y": 8.0}


def half_bins(maximum: float) -> str:
    return f"{full_range_bits(maximum):x}"


def test_an_edited_header_is_told_by_the_constants() -> None:
    result = lint(constants(half_bins), CONSTANTS, MINMAX)
    assert list(result.counts) == ["TC051"]
    assert lint(constants(scale_hex), CONSTANTS, MINMAX).findings == ()
    assert lint(constants(half_bins), CONSTANTS).findings == ()
    assert list(lint(constants(scale_hex), CONSTANTS).counts) == ["TC052"]
    assert lint(constants(scale_hex), CONSTANTS, "TRT-8601-LegacyCalibration").findings == ()


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({"method": "entropy"}, ["TC051"]),
        ({"method": "entropy", "variant": "smoothed"}, []),
        ({"method": "entropy", "bins": 4096}, []),
        ({"method": "percentile", "percentile": 99.9}, []),
        ({"method": "my-own"}, []),
        ({"method": "minmax"}, []),
    ],
)
def test_the_manifest_is_asked_what_the_entropy_header_means(recipe: dict[str, object], expected: list[str]) -> None:
    write(constants(scale_hex))
    write_manifest(recipe=recipe)
    save_model(Path("model.onnx"), CONSTANTS)
    result = lint_cache("model.cache", "model.onnx")
    assert result.manifest
    assert [rule for rule in result.counts if rule != "TC064"] == expected


def test_two_constants_are_too_few_to_tell_of_an_algorithm() -> None:
    model = CONSTANTS.replace("c = {8}", "c = {2}")
    assert lint({**constants(scale_hex), "c": scale_hex(2.0)}, model).findings == ()


def test_constants_without_any_bin_are_percentiles_or_changed() -> None:
    result = lint(constants(lambda maximum: scale_hex(maximum * 1000 / 2048)), CONSTANTS)
    assert list(result.counts) == ["TC052"]
    assert "0 of 3 constants have the scale of one of entropy's bins" in message_of(result, "TC052")


def test_scales_that_were_raised_for_dla_are_not_judged() -> None:
    write({"x": 1.0, "p": 3.0, "y": 3.0})
    shared = Finding(code="dla-shared-scales", message="raised")
    for findings, found in (([], [3]), ([shared], [])):
        write_manifest(findings=findings)
        save_model(Path("model.onnx"), POOLED)
        assert lines_of(lint_cache("model.cache", "model.onnx"), "TC046") == found


@given(m=st.integers(128, 2048), maximum=st.floats(2.0**-66, 2.0**66, width=32))
def test_every_bin_of_a_known_range_is_read_back(m: int, maximum: float) -> None:
    width = np.float32(maximum) / np.float32(2048)
    bits = bits_from_scale(scale_from_amax(np.float32(np.float32(m + 0.5) * width)))
    assert bin_of(bits, maximum) == m
    assert not is_minmax(bits, maximum)
    assert bin_of(minmax_bits(maximum), maximum) is None
    assert bin_of(full_range_bits(maximum), maximum) == 2048


@pytest.mark.parametrize("maximum", [0.0, 1e-31, np.inf])
def test_a_range_without_bins_tells_none(maximum: float) -> None:
    assert bin_of(bits_from_scale(1.0), maximum) is None


@pytest.mark.parametrize(
    ("maximum", "digits"),
    [(8.0, "3d810a14"), (0.125, "3a810a14"), (1.0, "3c010a14"), (9.999999960041972e-13, "280de15b")],
)
def test_the_whole_range_of_a_constant_is_what_tensorrt_wrote(maximum: float, digits: str) -> None:
    assert f"{full_range_bits(maximum):x}" == digits


# manifests


def healthy() -> None:
    """Write the calibration of a small model."""
    save_model(Path("model.onnx"), WEIGHT)
    data = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    calibrate("model.onnx", data, "entropy").write_cache("model.cache")


def of_other_bytes() -> LintResult:
    healthy()
    Path("model.cache").write_bytes(Path("model.cache").read_bytes() + b"z: 3c010a14\n")
    return lint_cache("model.cache")


def disagreeing() -> LintResult:
    healthy()
    edited = Path("model.cache").read_bytes().replace(b"101601", b"8601")
    Path("model.cache").write_bytes(edited)
    return lint_cache("model.cache")


def unreadable() -> LintResult:
    healthy()
    Path("model.cache.json").write_text("{}", encoding="utf-8")
    return lint_cache("model.cache")


def of_other_model() -> LintResult:
    healthy()
    model = make_model(WEIGHT)
    model.doc_string = "exported again"
    Path("model.onnx").write_bytes(model.SerializeToString())
    return lint_cache("model.cache", "model.onnx")


def at_full_range(full: int = 8, others: int = 8) -> LintResult:
    write({"x": 1.0})
    row = write_manifest().tensors[-1].model_copy(update={"inherited_from": None, "kind": "activation"})
    rows = [row.model_copy(update={"name": f"t{i}", "bin_m": 2048 if i < full else 700}) for i in range(full + others)]
    pool = row.model_copy(update={"inherited_from": "t0", "bin_m": 2048})
    write_manifest(tensors=[*rows, pool, pool.model_copy(update={"inherited_from": None, "kind": "constant"})])
    return lint_cache("model.cache")


MANIFEST_EXAMPLES: dict[str, Callable[[], LintResult]] = {
    "TC061": of_other_bytes,
    "TC062": disagreeing,
    "TC063": unreadable,
    "TC064": of_other_model,
    "TC065": at_full_range,
}
"""What the page's sections on manifests show."""


def test_the_manifest_of_these_bytes_is_fine() -> None:
    healthy()
    result = lint_cache("model.cache", "model.onnx")
    assert (result.manifest, result.findings) == (True, ())
    Path("model.cache.json").unlink()
    assert not lint_cache("model.cache").manifest


def test_an_edited_algorithm_disagrees_with_the_manifest_too() -> None:
    healthy()
    Path("model.cache").write_bytes(
        Path("model.cache").read_bytes().replace(b"EntropyCalibration2", b"MinMaxCalibration")
    )
    assert list(lint_cache("model.cache").counts) == ["TC061", "TC062"]


def test_a_manifest_for_a_tensorrt_without_caches_disagrees() -> None:
    write({"x": 1.0})
    write_manifest(tensorrt_version="11.4.0")
    assert "TensorRT 11 removed calibrators" in message_of(lint_cache("model.cache"), "TC062")


def test_a_manifest_that_is_too_large_is_not_read() -> None:
    write({"x": 1.0})
    with Path("model.cache.json").open("wb") as file:
        file.truncate((64 << 20) + 1)
    assert "model.cache.json is larger than 64 MiB" in message_of(lint_cache("model.cache"), "TC063")


@pytest.mark.parametrize(("full", "others", "found"), [(8, 9, False), (4, 4, True), (7, 0, False), (8, 0, True)])
def test_half_of_eight_tensors_at_the_full_range_are_many(full: int, others: int, found: bool) -> None:
    assert ("TC065" in at_full_range(full, others).counts) == found


# the whole


@pytest.mark.parametrize("method", ["entropy", "minmax", "percentile-99.9"])
@pytest.mark.parametrize("batch_size", [8, 100])
def test_a_cache_of_the_embedded_sample_is_healthy(method: str, batch_size: int) -> None:
    root = Path(__file__).parent.parent / "data" / "digits"
    data = np.load(root / "calibration-images.npy")[:200].astype(np.float32) / 16
    calibrate(root / "model.onnx", data, method, batch_size=batch_size).write_cache("model.cache")
    assert lint_cache("model.cache", root / "model.onnx").findings == ()
    Path("model.cache.json").unlink()
    assert set(lint_cache("model.cache", root / "model.onnx").counts) <= {"TC052"}


@pytest.mark.golden
@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("lenet_mnist_trt7202", {"TC043", "TC045"}),
        ("add_scalar_trt8204", {"TC043", "TC045"}),
        ("add_scalar_trt100001", {"TC043", "TC045"}),
    ],
)
def test_what_tensorrt_wrote_has_no_warning(golden: Path, case: str, expected: set[str]) -> None:
    folder = golden / case
    assert lint_cache(folder / "golden.cache").findings == ()
    result = lint_cache(folder / "golden.cache", folder / "model.onnx")
    assert set(result.counts) == expected
    assert not result.fails("warning")


@pytest.mark.golden
def test_a_cut_out_of_a_cache_is_healthy_under_the_models_names(golden: Path) -> None:
    folder = golden / "qwen3_rotary_trt10300"
    names = (
        "/model/language_model/model/rotary_emb/Cast_1_output_0",
        "/model/language_model/model/rotary_emb/Concat_1_output_0",
    )
    content = (folder / "golden.cache").read_bytes()
    assert lint_cache(write(content), folder / "model.onnx").counts == {"TC041": 1}
    for name, tensor in zip(
        (*names, "/model/language_model/model/rotary_emb/Cos_output_0"), ("positions", "emb", "cos"), strict=True
    ):
        content = content.replace(name.encode(), tensor.encode())
    assert not lint_cache(write(content), folder / "model.onnx").fails("warning")


@settings(max_examples=60)
@given(
    content=st.binary(max_size=80)
    | st.lists(
        st.sampled_from([b"TRT-101601-", b"MinMaxCalibration\n", b"x", b"h", b"w", b"y", b": ", b"3c010a14", b"0\n", b"ffc00000\n", b"7f800000\n", b"\xff", b"\n"]),
        max_size=30,
    ).map(b"".join)
)  # fmt: skip
def test_no_bytes_stop_the_linter(content: bytes) -> None:
    result = lint(content, WEIGHT)
    assert sum(result.counts.values()) == len(result.findings)
    assert all(line.isprintable() for line in lint_lines(result))
    try:
        parse_cache(content)
    except CacheFormatError:
        assert result.counts.keys() & {"TC001", "TC004", "TC005", "TC016"}
    else:
        assert not result.counts.keys() & {"TC001", "TC004", "TC005", "TC016"}


def test_a_model_whose_views_lead_in_a_circle_stops_nothing() -> None:
    model = make_model("net (float[N, 3] x) => (float[N, 3] y) { z = Relu(x) y = Identity(z) }")
    model.graph.node.insert(1, onnx.helper.make_node("Identity", ["z"], ["z"]))
    Path("model.onnx").write_bytes(model.SerializeToString())
    write({"x": 1.0, "z": 1.0, "y": 2.0})
    assert lines_of(lint_cache("model.cache", "model.onnx"), "TC046") == [4]


@pytest.mark.parametrize(
    "node",
    [
        onnx.helper.make_node("Relu", [], ["y"]),
        onnx.helper.make_node("Relu", ["x"], []),
        onnx.helper.make_node("Add", ["x"], ["y"]),
        onnx.helper.make_node("Concat", [], ["y"], axis=1),
        onnx.helper.make_node("Reshape", [""], ["y"]),
        onnx.helper.make_node("Resize", ["x", "", "x"], ["y"], mode=3, scales="many"),
        onnx.helper.make_node("Resize", ["x"], ["y"], mode="nearest", nearest_mode=[1.0]),
        onnx.helper.make_node("Clip", ["x", "", ""], ["y"], min="low", max=[1.0]),
        onnx.helper.make_node("ConstantOfShape", ["x"], ["y"], value=3),
        onnx.helper.make_node("MaxPool", ["y"], ["y"]),
        onnx.helper.make_node("Identity", ["y"], ["y"]),
    ],
    ids=lambda node: node.op_type,
)
def test_no_odd_node_stops_the_linter(node: onnx.NodeProto) -> None:
    model = make_model("net (float[N, 3] x) => (float[N, 3] y) { z = Relu(x) }")
    model.graph.node.append(node)
    Path("model.onnx").write_bytes(model.SerializeToString())
    write({"x": 1.0, "y": 99.0, "z": 1.0})
    assert "TC041" not in lint_cache("model.cache", "model.onnx").counts


def test_findings_are_kept_up_to_a_number_and_counted_all() -> None:
    result = lint({f"t{i}": "0" for i in range(MOST_FINDINGS + 7)})
    assert result.counts == {"TC024": MOST_FINDINGS + 7}
    assert len(result.findings) == MOST_FINDINGS
    assert list(lint_lines(result))[-2] == "model.cache: TC024 zero-scale: 7 more, 207 in all"


def test_malformed_lines_are_counted_beyond_what_the_reader_keeps() -> None:
    result = lint(HEADER_LINE + b"bad\n" * 2500 + b"x: zz\n" * 3 + b"x: 3c010a14\n")
    assert result.counts == {"TC004": 2500, "TC005": 3}
    assert len(result.findings) == MOST_FINDINGS + 3


def test_a_header_that_is_not_true_is_no_measure_for_the_other_scales() -> None:
    model = CONSTANTS.replace("y = Add(i, c)", "j = Add(i, c) y = Sigmoid(j)")
    scales: dict[str, float | str] = {**constants(half_bins), "j": 8.0, "y": 1.1}
    assert list(lint(scales, model, MINMAX).counts) == ["TC051"]
    assert list(lint({**scales, **constants(scale_hex), "y": 1.1}, model, MINMAX).counts) == ["TC048"]


def test_a_cache_that_cannot_be_read_is_no_finding() -> None:
    with pytest.raises(CacheFormatError, match="nothing.cache: cannot be read: No such file"):
        lint_cache("nothing.cache")
    Path("large.cache").write_bytes(b"x" * (MOST_BYTES + 1))
    with pytest.raises(CacheFormatError, match="large.cache: is larger than 8 MiB"):
        lint_cache("large.cache")
    write({"x": 1.0})
    with pytest.raises(ModelError, match="nothing.onnx: no such file"):
        lint_cache("model.cache", "nothing.onnx")


def test_five_thousand_tensors_and_three_hundred_nodes_take_less_than_a_second() -> None:
    nodes = "".join(f" t{i + 1} = Relu(t{i})" for i in range(300))
    save_model(Path("model.onnx"), f"net (float[N] t0) => (float[N] t300) {{{nodes} }}")
    read_model("model.onnx")  # the first use of ONNX loads it
    names = [f"t{i}" for i in range(0, 301, 2)] + [f"/module.{i}/layer_{i}/Conv_output_{i % 7}" for i in range(300)]
    names += [f"(Unnamed Layer* {i}) [Shuffle]_output" for i in range(4500)]
    cache = make_cache(dict.fromkeys(names, np.float32(0.01)), "10.16.1", "EntropyCalibration2")
    write(format_cache(cache))
    start = time.perf_counter()
    result = lint_cache("model.cache", "model.onnx")
    assert time.perf_counter() - start < 1
    assert result.counts["TC042"] == 300
