"""Our calibrators in Polygraphy's ``CreateConfig(int8=True, calibrator=...)``, over a simulated builder."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from tests.models import DENSE, FIXED, save_model
from tests.rig import simulated
from tests.rig.driving import FED, batches_of, opened_device, our_calibrators
from trtcalib.errors import CalibrationError
from trtcalib.trt.input_profile import InputProfile

SHAPE = (4, 3)
PROFILE = InputProfile({"x": SHAPE})

pytestmark = pytest.mark.filterwarnings("ignore")  # Polygraphy's own, and the bindings' about calibrators from 10.1 on


@pytest.fixture
def simulation(trt, version, cuda):
    simulation = simulated.install(trt, version)
    simulation.knobs.is_device = cuda.is_device
    yield simulation
    gc.collect()
    assert (simulation.unimplemented, simulation.errors) == ([], [])


@pytest.fixture
def calibrators(trt, version):
    return our_calibrators(version)


@pytest.fixture
def device(calibrators, cuda):
    with opened_device() as device:
        yield device


@pytest.fixture
def build(simulation, tmp_path):
    """Build a model with Polygraphy."""
    from polygraphy.backend.trt import CreateConfig, Profile, engine_bytes_from_network, network_from_onnx_path
    from polygraphy.logger import G_LOGGER

    def run(calibrator, model=DENSE):
        path = str(save_model(tmp_path / "model.onnx", model))
        profiles = [Profile().add("x", (1, 3), SHAPE, SHAPE)] if model == DENSE else None
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
            config = CreateConfig(int8=True, calibrator=calibrator, profiles=profiles)
            return bytes(engine_bytes_from_network(network_from_onnx_path(path), config=config))

    return run


@pytest.mark.parametrize("model", [DENSE, FIXED], ids=["free batch", "fixed batch"])
@pytest.mark.parametrize("kind", FED)
def test_polygraphy_drives_our_calibrator_to_its_end_simulated_builder(
    build, simulation, calibrators, device, tmp_path, *, kind, model
):
    with getattr(calibrators, kind)(batches_of(1, 5, 2, shape=SHAPE), PROFILE, device, cache=tmp_path / "c") as ours:
        assert build(ours, model).startswith(b"SIMULATED")
    assert [batch["x"].max() for batch in simulation.calibration.batches] == [1, 5, 2]
    assert ours.feeder.batches_fed == 3
    assert ours.feeder.written == (tmp_path / "c").read_bytes() == simulation.calibration.written


@pytest.mark.parametrize("kind", FED)
def test_polygraphy_takes_a_cache_that_we_answer_simulated_builder(build, simulation, calibrators, device, kind):
    with getattr(calibrators, kind)(batches_of(1, shape=SHAPE), PROFILE, device) as ours:
        assert build(ours)
        assert build(ours)
    assert [each.calibration.honoured for each in simulation.builds] == [False, True]


def test_polygraphy_takes_our_percentile_scales_simulated_builder(build, simulation, calibrators):
    with calibrators.PercentileCalibrator({"x": 0.5, "y": 0.25}, PROFILE) as ours:
        assert build(ours)
    assert simulation.calibration.honoured
    assert b"x: 3f000000\n" in simulation.calibration.answered
    assert simulation.calibration.batches == []


def test_polygraphy_keeps_a_failure_for_us_to_raise_simulated_builder(
    build, simulation, calibrators, device, tmp_path, capfd
):
    """Its own calibrator would end the data here, and give an engine with wrong scales."""
    batches = [*batches_of(1, shape=SHAPE), {"x": np.ones((1, 3), np.float32)}]
    with (
        pytest.raises(CalibrationError, match=r"after 1 batch, nothing was kept: input 'x' got shape \(1, 3\)"),
        calibrators.EntropyCalibrator(batches, PROFILE, device, cache=tmp_path / "c") as ours,
    ):
        assert build(ours)  # an engine, and Polygraphy takes it for good
    assert "Exception caught" not in capfd.readouterr().err
    assert not (tmp_path / "c").exists()


def test_polygraphy_asks_nothing_of_a_calibrator_but_tensorrts_methods(build, simulation, calibrators, device):
    """Polygraphy calls set_input_metadata on its own calibrators only, which it knows by an attribute."""
    with calibrators.EntropyCalibrator(batches_of(1, shape=SHAPE), PROFILE, device) as ours:
        assert not hasattr(ours, "is_polygraphy_calibrator")
        build(ours)


def test_polygraphy_batches_of_its_data_loader_are_fed_by_ours_simulated_builder(
    build, simulation, calibrators, device
):
    from polygraphy.common import TensorMetadata
    from polygraphy.comparator import DataLoader

    loader = DataLoader(iterations=3, input_metadata=TensorMetadata().add("x", np.float32, SHAPE))
    with calibrators.EntropyCalibrator(loader, PROFILE, device) as ours:
        assert build(ours)
    taken = simulation.calibration.batches
    assert len(taken) == 3
    for ours_batch, theirs in zip(taken, loader):
        np.testing.assert_array_equal(ours_batch["x"], theirs["x"])
