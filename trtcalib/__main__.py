"""``python -m trtcalib`` is the same as ``trtcalib``."""

from trtcalib.cli.main import run

if __name__ == "__main__":
    run()
