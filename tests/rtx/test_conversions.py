"""What ``trtcalib qdq`` makes of every graph that it must accept, shown to TensorRT-RTX: nothing runs in float that it says is quantized."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.qdq.graphs import ACCEPTED, converted


@pytest.mark.parametrize("int8_weights", [False, True], ids=["float weights", "int8 weights"])
@pytest.mark.parametrize("name", ACCEPTED)
def test_a_converted_graph_is_accepted_and_quantized_as_told(
    check, tmp_path: Path, name: str, int8_weights: bool
) -> None:
    case = ACCEPTED[name]
    result = converted(tmp_path, replace(case, options=replace(case.options, int8_weights=int8_weights)))
    found = check(result.proto)
    assert found.accepted, found.model_dump_json(indent=2)
    in_float = {node.node for node in found.in_float if node.operator != "ConvTranspose"}
    told = {fact.name or f"node_of_{fact.output}" for fact in result.coverage.nodes if not fact.quantized}
    assert in_float <= told, [node for node in found.in_float if node.node not in told]
