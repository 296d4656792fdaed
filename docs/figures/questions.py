"""Draw every picture of docs/batch-size-and-order.md and print every table of it.

    python docs/figures/questions.py [-o docs/images] [--golden FOLDER]

Needs trtcalib with ONNX Runtime (``pip install -e '.[cpu]'``). The tables about LeNet need caches that TensorRT wrote, which may not be
redistributed: they are looked for in ``../shared/golden``, beside the checkout, and left out where they are not.
"""

# ruff: noqa: INP001, T201 - scripts of one page, not a package; tables go to stdout

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from activations import ROOT
from generated_sample import write_samples
from lenet_ranges import LENET, implied_rows, load_lenet, policy_rows
from material import load_questions
from question_pictures import draw_all
from question_tables import TABLES
from tables import markdown

from trtcalib.core.planned import POLICIES
from trtcalib.files import write_files
from trtcalib.views.plots import format_figure

__all__ = ["main"]


def main() -> None:
    """Write the pictures, print the tables."""
    arguments = _arguments()
    if not arguments.output.is_dir():
        sys.exit(f"questions.py: {arguments.output}: no such folder")
    with tempfile.TemporaryDirectory() as folder:
        write_samples(Path(folder))
        questions = load_questions(Path(folder))
        for name, (head, rows) in TABLES.items():
            print(markdown(name, head, rows(questions)))
    _print_lenet(arguments.golden / LENET)
    pictures = {name: format_figure(figure, Path(name).suffix[1:]) for name, figure in draw_all(questions).items()}
    write_files({arguments.output / name: content for name, content in pictures.items()})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "images", metavar="FOLDER")
    parser.add_argument("--golden", type=Path, default=ROOT.parent / "shared" / "golden", metavar="FOLDER")
    return parser.parse_args()


def _print_lenet(folder: Path) -> None:
    if not folder.is_dir():
        print(f"questions.py: {folder}: no such folder; the tables about LeNet are left out", file=sys.stderr)
        return
    lenet = load_lenet(folder)
    print(
        markdown(
            "policies",
            ("range policy", "scales of TensorRT's cache reproduced", "the others are off by"),
            policy_rows(lenet),
        )
    )
    ranges = ("R0", "maximum", "R doubled", "R squared")
    print(markdown("implied", ("tensor", *ranges, *(f"m if `{policy}`" for policy in POLICIES)), implied_rows(lenet)))


if __name__ == "__main__":
    main()
