"""Names from models and files, made safe for a terminal and a picture."""

from __future__ import annotations

__all__ = ["printable", "shortened"]

LONGEST = 120
"""Characters of a name that are shown; names of 10 kB exist in hostile models."""


def printable(name: str) -> str:
    """Return a name with control characters and other unprintables escaped, so that it cannot drive a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in name)


def shortened(name: str, longest: int = LONGEST) -> str:
    """Return a printable name of at most ``longest`` characters, its middle left out."""
    text = printable(name)
    if len(text) <= longest:
        return text
    head = longest // 2
    return f"{text[:head]}…{text[-(longest - head - 1) :]}"
