"""The bytes of a simulated engine: a first line, a line of JSON, and the ONNX model that is run in its place."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["read_plan", "write_plan"]

MAGIC = b"SIMULATED-ENGINE\n"


def write_plan(facts: dict[str, Any], model: bytes) -> bytes:
    """Return a plan."""
    return MAGIC + json.dumps(facts).encode() + b"\n" + model


def read_plan(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the facts and the model of a plan.

    Raises:
        ValueError: If it is none.
    """
    if not content.startswith(MAGIC):
        raise ValueError("the bytes are no simulated engine")
    text, separator, model = content[len(MAGIC) :].partition(b"\n")
    if not separator:
        raise ValueError("the simulated engine is cut off")
    return json.loads(text), model
