"""Draw every picture of docs/how-tensorrt-calibrates.md and print every table of it but the evidence.

    python docs/figures/rules.py [-o docs/images]

Needs trtcalib with ONNX Runtime (``pip install -e '.[cpu]'``). The same machine and versions give the same bytes.
"""

# ruff: noqa: INP001, T201 - scripts of one page, not a package; tables go to stdout

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from activations import ROOT
from comparisons import comparison_tables, runtime_table
from examples import literal_tables
from histograms import load_material
from pictures import draw_all

from trtcalib.files import write_files
from trtcalib.views.plots import format_figure


def main() -> None:
    """Write the pictures, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "images", metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="leave out ONNX Runtime's own search, which is slow")
    arguments = parser.parse_args()
    folder = arguments.output
    if not folder.is_dir():
        sys.exit(f"rules.py: {folder}: no such folder")
    material = load_material()
    for table in literal_tables():
        print(table)
    for table in comparison_tables(material):
        print(table)
    if not arguments.quick:
        print(runtime_table(material.values))
    write_files({folder / name: format_figure(figure, "svg") for name, figure in draw_all(material).items()})


if __name__ == "__main__":
    main()
