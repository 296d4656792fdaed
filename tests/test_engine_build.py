"""Building an engine where TensorRT is missing: what is told before anything is asked of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models import DENSE, save_model
from tests.trt.fakes import hide
from trtcalib.engine_build import build_engine
from trtcalib.engine_spec import BuilderSettings, EngineSpec
from trtcalib.errors import MissingPackageError, ModelError

ROUNDED = """
<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
wrapped (float[N, 3] x) => (float[N, 3] y)
<float scale = {0.5}, int8 zero = {0}>
{
    y = own.Rounded(x, scale, zero)
}
<domain: "own", opset_import: ["" : 17]>
Rounded (x, scale, zero) => (y)
{
    q = QuantizeLinear(x, scale, zero)
    y = DequantizeLinear(q, scale, zero)
}
"""

CHOSEN = """
chosen (float[N, 3] x, bool which) => (float[N, 3] y)
<float scale = {0.5}, int8 zero = {0}>
{
    y = If(which) <
        then_branch = rounded () => (float[N, 3] a)
        {
            q = QuantizeLinear(x, scale, zero)
            a = DequantizeLinear(q, scale, zero)
        },
        else_branch = plain () => (float[N, 3] b)
        {
            b = Identity(x)
        }
    >
}
"""


@pytest.fixture(autouse=True)
def without_nvidia(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch)


def spec(folder: Path, text: str) -> EngineSpec:
    model = save_model(folder / "m.onnx", text)
    return EngineSpec(model=str(model), output=str(folder / "m.engine"), builder=BuilderSettings(strongly_typed=True))


def test_a_model_without_qdq_nodes_cannot_be_strongly_typed_and_is_refused_first(tmp_path: Path) -> None:
    wanted = spec(tmp_path, DENSE)
    with pytest.raises(ModelError) as caught:
        build_engine(wanted)
    assert str(caught.value) == (
        f"{wanted.model}: the model holds no QuantizeLinear/DequantizeLinear (Q/DQ) nodes, which --qdq (builder.strongly_typed) "
        f"builds: convert it first: trtcalib qdq {wanted.model} CACHE -o OUT.onnx"
    )


@pytest.mark.parametrize("text", [ROUNDED, CHOSEN], ids=["function", "branch"])
def test_nodes_in_functions_and_branches_count_and_no_data_are_asked_for(tmp_path: Path, text: str) -> None:
    with pytest.raises(MissingPackageError, match="'tensorrt'"):
        build_engine(spec(tmp_path, text))
