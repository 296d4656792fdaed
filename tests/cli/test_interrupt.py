"""Ctrl-C: exit code 130, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.helpers import NET, listing, save_model

# A shell that starts jobs in the background lets them ignore Ctrl-C; a user's terminal does not.
START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from trtcalib.cli.main import run; sys.argv[0] = 'trtcalib'; run()"
)

SLOW = """
import itertools, os, time
import numpy as np

def feeds():
    for n in itertools.count(1):
        if n == {signal_at}:
            open(os.environ["STARTED"], "w").close()
        time.sleep(0.01)
        yield {{"x": np.full((1, 4), n, np.float32)}}
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process alone")
@pytest.mark.parametrize("signal_at", [1, 40], ids=["in the first batch", "in a later batch"])
@pytest.mark.parametrize("command", ["calibrate", "plot"])
def test_nothing_is_left_behind(folder, tmp_path_factory, command, signal_at):
    save_model(folder / "model.onnx", NET)
    (folder / "slow.py").write_text(SLOW.format(signal_at=signal_at))
    started = tmp_path_factory.mktemp("flag") / "started"
    arguments = {
        "calibrate": ["-o", "out.cache", "--histograms", "h.npz"],
        "plot": ["--tensor", "sum", "-o", "x.png"],
    }[command]
    before = listing(folder)
    process = subprocess.Popen(
        [sys.executable, "-B", "-c", START, command, "model.onnx", "--data", "slow:feeds", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "STARTED": str(started)},
    )
    try:
        deadline = time.monotonic() + 60
        while not started.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    assert out == ""
    assert "trtcalib: interrupted; no result was written" in err
    assert "Traceback" not in err
    assert listing(folder) == before
