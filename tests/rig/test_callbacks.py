"""Logger, progress monitor and Ctrl-C: what TensorRT's C++ calls in Python, and that nothing is raised into it."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.models import DENSE, save_model
from tests.rig import simulated
from tests.rig.driving import HostDevice, batches_of, on_another_thread, our_calibrators
from tests.rig.vtable import LoggerDriver, ProgressMonitorDriver
from trtcalib.errors import CalibrationError
from trtcalib.onnx_graph import read_model

LEVELS = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.INFO,
    "VERBOSE": logging.DEBUG,
}

ERRORS = [ValueError("broken"), KeyboardInterrupt(), SystemExit(3)]


@pytest.fixture
def callbacks(trt):
    from trtcalib.trt import callbacks

    return callbacks


@pytest.fixture
def told(callbacks, caplog):
    """The messages that reached Python's logging, as (level, text)."""
    caplog.set_level(logging.DEBUG, logger="trtcalib.tensorrt")
    return lambda: [(each.levelno, each.getMessage()) for each in caplog.records if each.name == "trtcalib.tensorrt"]


@pytest.fixture
def log(callbacks, version):
    """A logger, and what calls it as TensorRT does."""
    log = callbacks.TensorRTLog()
    return log, LoggerDriver(log, int(version.split(".")[0]))


class Raising(logging.Handler):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def emit(self, record):
        raise self.error


# The logger


@pytest.mark.parametrize("severity", LEVELS)
def test_bindings_messages_reach_logging_at_their_level(trt, log, told, capfd, severity):
    log[1].log(int(getattr(trt.ILogger.Severity, severity)), "100 %s of é")
    assert told() == [(LEVELS[severity], "100 %s of é")]
    assert capfd.readouterr() == ("", "")


def test_bindings_warnings_and_errors_are_kept_once(trt, log):
    severity = trt.ILogger.Severity
    for _ in range(2):
        for each in ("VERBOSE", "INFO", "WARNING", "ERROR", "INTERNAL_ERROR"):
            log[1].log(int(getattr(severity, each)), each)
    assert log[0].kept == ["WARNING", "ERROR", "INTERNAL_ERROR"]
    assert log[0].last_error == "INTERNAL_ERROR"
    with log[0].recording():
        assert (log[0].kept, log[0].last_error) == ([], "")


def test_bindings_messages_without_end_take_no_memory_without_end(trt, log, told):
    warning = int(trt.ILogger.Severity.WARNING)
    log[1].log(warning, "x" * 10**6)
    for number in range(1000):
        log[1].log(warning, str(number))
    assert len(log[0].kept[0]) == 2000
    assert len(log[0].kept) == 200
    assert len(told()) == 1001


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_bindings_what_a_log_handler_raises_does_not_cross(trt, log, capfd, monkeypatch, error):
    monkeypatch.setattr(logging.getLogger("trtcalib.tensorrt"), "handlers", [Raising(error)])
    log[1].log(int(trt.ILogger.Severity.ERROR), "told")
    assert capfd.readouterr() == ("", "")
    assert log[0].last_error == "told"


def test_bindings_messages_may_come_from_another_thread(trt, log, told):
    on_another_thread(log[1].log, int(trt.ILogger.Severity.WARNING), "from there")
    assert told() == [(logging.WARNING, "from there")]


def test_there_is_one_logger_for_the_process(callbacks):
    """TensorRT keeps the first one that it is given."""
    assert callbacks.tensorrt_log() is callbacks.tensorrt_log()


# The progress monitor


@pytest.fixture
def monitor(callbacks, version):
    """Make a progress monitor, and what calls it."""
    if version.startswith("8."):
        pytest.skip("TensorRT 8 has no progress monitor")
    kept = []

    def make(progress=None, stop=None, failed=lambda: False):
        kept.append(callbacks.progress_monitor(progress, stop or callbacks.Stop(), failed))
        return ProgressMonitorDriver(kept[-1])

    return make


def test_there_is_no_progress_monitor_on_8(callbacks, version):
    if not version.startswith("8."):
        pytest.skip("about TensorRT 8")
    assert callbacks.progress_monitor(None, callbacks.Stop(), lambda: False) is None


def test_bindings_phases_are_told(monitor):
    told = []
    driver = monitor(lambda *phase: told.append(phase))
    driver.phase_start("build", None, 2)
    driver.phase_start("tactics", "build", 3)
    assert driver.step_complete("tactics", 0)
    driver.phase_finish("tactics")
    assert driver.step_complete("build", 0)
    driver.phase_finish("build")
    assert told == [
        ("build", 0, 2),
        ("tactics", 0, 3),
        ("tactics", 1, 3),
        ("tactics", 3, 3),
        ("build", 1, 2),
        ("build", 2, 2),
    ]


def test_bindings_steps_of_a_phase_that_never_began_are_told(monitor, capfd):
    told = []
    driver = monitor(lambda *phase: told.append(phase))
    assert driver.step_complete("unheard of", 4)
    driver.phase_finish("unheard of")
    assert told == [("unheard of", 5, None), ("unheard of", 0, None)]
    assert capfd.readouterr() == ("", "")


def test_bindings_steps_go_on_without_a_progress_callback(monitor):
    driver = monitor()
    driver.phase_start("build", None, 1)
    assert driver.step_complete("build", 0)


def test_bindings_step_ends_the_build_after_a_failure_of_the_feeder(monitor):
    failures = []
    driver = monitor(failed=lambda: bool(failures))
    assert driver.step_complete("build", 0)
    failures.append("a batch")
    assert not driver.step_complete("build", 1)


def test_bindings_step_ends_the_build_after_ctrl_c(monitor, callbacks):
    stop = callbacks.Stop()
    driver = monitor(stop=stop)
    stop.hold(KeyboardInterrupt())
    assert not driver.step_complete("build", 0)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["start", "step", "finish"])
def test_bindings_what_a_progress_callback_raises_is_held_and_ends_the_build(monitor, callbacks, capfd, error, where):
    stop = callbacks.Stop()
    calls = {"start": 0, "step": 1, "finish": 2}

    def progress(*_):
        calls["now"] = calls.get("now", -1) + 1
        if calls["now"] == calls[where]:
            raise error

    driver = monitor(progress, stop)
    driver.phase_start("build", None, 2)
    answers = [driver.step_complete("build", 0)]
    driver.phase_finish("build")
    answers.append(driver.step_complete("next", 0))
    assert answers == [where == "finish", False]
    assert stop.error is error
    assert capfd.readouterr() == ("", "")


# Simulated builds


@pytest.fixture
def build(trt, version, tmp_path):
    """Build a model over a simulated TensorRT and host memory, with a cache at ``tmp_path / "x.cache"``."""
    calibrators = our_calibrators(version)
    from trtcalib.trt.engine import EngineBuilder

    simulation = simulated.install(trt, version)
    path = save_model(tmp_path / "dense.onnx", DENSE)

    def run(batches, **options):
        builder = EngineBuilder(read_model(path), batch_size=2)
        run.calibrator = calibrators.EntropyCalibrator(
            batches, builder.profile, HostDevice(), cache=tmp_path / "x.cache"
        )
        return builder.build(run.calibrator, **options)

    run.simulation = simulation
    yield run
    gc.collect()
    assert (simulation.unimplemented, simulation.errors) == ([], [])


def test_simulated_build_tells_its_messages_and_phases(build, told, version):
    phases = []
    built = build(batches_of(1, 2), progress=lambda *phase: phases.append(phase))
    assert sum("Calibrated batch" in text for _, text in told()) == 2
    assert any("Missing scale" in message for message in built.messages) == any("Missing" in text for _, text in told())
    assert bool(phases) != version.startswith("8.")
    assert {phase for phase, *_ in phases} <= {"Building Engine", "Calibration", "Timing layers"}


def test_simulated_build_is_cancelled_by_a_wrong_batch(build, version, tmp_path):
    with pytest.raises(CalibrationError, match=r"after 1 batch, nothing was kept: input 'x' got shape \(1, 3\)"):
        build([*batches_of(1), {"x": np.ones((1, 3), np.float32)}])
    assert build.simulation.builds[0].cancelled != version.startswith("8.")
    assert not (tmp_path / "x.cache").exists()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_simulated_build_is_cancelled_by_a_progress_callback_that_raises(build, version, tmp_path, error):
    if version.startswith("8."):
        pytest.skip("TensorRT 8 has no progress monitor")

    def progress(*_):
        raise error

    with pytest.raises(type(error)) as caught:
        build(batches_of(1), progress=progress)
    assert caught.value is error
    assert build.simulation.builds[0].cancelled
    assert not (tmp_path / "x.cache").exists()


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def interrupt_from_a_thread():
    thread = threading.Thread(target=interrupt)
    thread.start()
    thread.join()
    time.sleep(0.01)  # bytecode of the main thread, where Python calls the handler


@pytest.mark.parametrize("strike", [interrupt, interrupt_from_a_thread], ids=lambda strike: strike.__name__)
@pytest.mark.parametrize("when", ["before the first batch", "between two", "at the end", "twice"])
def test_simulated_ctrl_c_in_a_build_is_raised_after_it_and_nothing_kept(build, tmp_path, capfd, strike, when):
    def batches():
        if when == "before the first batch":
            strike()
        yield from batches_of(1)
        if when in ("between two", "twice"):
            strike()
        yield from batches_of(2)
        if when in ("at the end", "twice"):
            strike()

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build(batches())
    assert signal.getsignal(signal.SIGINT) is before
    assert build.calibrator.feeder.written is None
    assert not (tmp_path / "x.cache").exists()
    assert "Exception caught" not in capfd.readouterr().err
    if when in ("before the first batch", "between two"):
        assert build.calibrator.feeder.batches_fed <= 1 + (when == "between two")


QUANTIZED = """
quantized (float[2, 3] x) => (float[2, 3] y)
<float scale = {0.5}, int8 zero = {0}>
{
    q = QuantizeLinear(x, scale, zero)
    y = DequantizeLinear(q, scale, zero)
}
"""


def test_simulated_ctrl_c_in_a_build_without_calibrator_ends_it(trt, version, tmp_path):
    if version.startswith("8."):
        pytest.skip("TensorRT 8 calls nothing of ours in such a build")
    from trtcalib.trt.engine import EngineBuilder

    simulation = simulated.install(trt, version)
    builder = EngineBuilder(read_model(save_model(tmp_path / "quantized.onnx", QUANTIZED)))
    with pytest.raises(KeyboardInterrupt):
        builder.build(progress=lambda *_: interrupt())
    assert simulation.builds[0].cancelled
    assert simulation.errors == []


def test_simulated_ctrl_c_when_the_cache_is_written_removes_it_not_the_error(build, monkeypatch, tmp_path):
    """The latest moment: TensorRT hands over its cache."""
    from trtcalib.trt.feeder import BatchFeeder

    write = BatchFeeder.write_cache

    def write_cache(self, cache):
        interrupt()
        write(self, cache)

    monkeypatch.setattr(BatchFeeder, "write_cache", write_cache)
    with pytest.raises(KeyboardInterrupt):
        build(batches_of(1))
    assert not (tmp_path / "x.cache").exists()


def test_simulated_build_in_another_thread_leaves_ctrl_c_to_the_main_one(build):
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def batches():
        seen.append(signal.getsignal(signal.SIGINT))
        yield from batches_of(1)

    assert on_another_thread(build, batches()).plan
    assert seen == [before]


DATA = """
import os, signal
import numpy as np

def batches():
    for number in range(4):
        if number == 2 and "STRIKE" in os.environ:
            os.kill(os.getpid(), signal.SIGINT)
        yield {"x": np.ones((2, 3), np.float32)}
"""


@pytest.mark.parametrize("strikes", [False, True])
def test_simulated_ctrl_c_at_the_command_line_leaves_no_file(version, trt, tmp_path, strikes):
    our_calibrators(version)
    save_model(tmp_path / "dense.onnx", DENSE)
    (tmp_path / "strikes.py").write_text(DATA)
    command = ["-m", "tests.rig.simulated_cli", version, "build", "dense.onnx", "--data", "strikes:batches"]
    paths = [str(Path.cwd()), str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    where = {"PYTHONPATH": os.pathsep.join(paths), "TRTCALIB_RIG": str(Path(os.environ["TRTCALIB_RIG"]).resolve())}
    done = subprocess.run(
        [sys.executable, *command, "--batch-size", "2", "-o", "dense.engine"],
        cwd=tmp_path,
        env=os.environ | where | ({"STRIKE": "1"} if strikes else {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    made = {path.name for path in tmp_path.iterdir() if path.is_file()} - {"dense.onnx", "strikes.py"}
    if strikes:
        assert (done.returncode, done.stdout) == (130, "")
        assert done.stderr.splitlines()[-1] == "trtcalib: interrupted; no result was written"
        assert "Traceback" not in done.stderr
        assert made == set()
    else:
        assert done.returncode == 0, done.stderr
        assert made == {"dense.engine", "dense.engine.json", "dense.cache", "dense.cache.json"}
