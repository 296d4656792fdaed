"""Histograms of TensorRT's own tensors: an FP32 engine with every float tensor as an output, and kernels that count them in place.

The names are the network's, so tensors that TensorRT's parser made are there too. Activations never leave the device. What does not
fit into its memory at once is collected in groups of tensors, with an engine and a pass over the data for each.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from trtcalib.core.histogram import Histogram, collect_histogram
from trtcalib.core.tally import INFINITY_BITS, finite_values, flat_float32
from trtcalib.engine_spec import ShapeRange
from trtcalib.errors import ActivationError, DeviceError, EngineError, ModelError
from trtcalib.onnx_graph import ModelGraph
from trtcalib.passes import Collection
from trtcalib.trt.buffers import Device
from trtcalib.trt.input_profile import InputProfile
from trtcalib.trt.listing import Output, list_tensors
from trtcalib.trt.network import calibration_profile, has_qdq, input_shapes, parse_network
from trtcalib.trt.observed_run import ObservedRun
from trtcalib.trt.require import import_tensorrt, version_of
from trtcalib.trt.stopping import Stop

__all__ = ["SHARE_OF_MEMORY", "Collector", "LabelledBatch"]

logger = logging.getLogger(__name__)

LabelledBatch = tuple[str, Mapping[str, NDArray[Any]]]
"""What an error calls a batch, and the batch."""

SHARE_OF_MEMORY = 0.6
"""Of the free device memory that outputs may take; the rest is for TensorRT's own and for what else runs on the GPU."""


class Collector:
    """A model as TensorRT's network, whose tensors can be collected.

    Args:
        graph: The model.
        device: Where to run.
        shapes: Of inputs with free axes; kOPT is what counts.
        batch_size: Another batch than kOPT's.
        tf32: Whether TensorRT may use TF32.
        budget: Bytes of device memory for outputs; by default a share of what is free.

    Attributes:
        version: TensorRT's version, as a cache's header counts it.
        full_version: As TensorRT tells it.
        profile: What batches must look like.
        tensors: What TensorRT would list, in network order.
        notes: What was done about too little memory, and which tensors cannot be outputs.

    Raises:
        DeviceError: If TensorRT finds no usable GPU.
        ModelError: If TensorRT's parser refuses the model, or it holds Q/DQ nodes.
        SpecError: If shapes do not fit the model.
    """

    def __init__(
        self,
        graph: ModelGraph,
        device: Device,
        shapes: Mapping[str, ShapeRange] | None = None,
        batch_size: int | None = None,
        *,
        tf32: bool = False,
        budget: int | None = None,
    ) -> None:
        self._trt = trt = import_tensorrt()
        from trtcalib.trt.callbacks import tensorrt_log

        self._graph = graph
        self._device = device
        self._tf32 = tf32
        self._budget = budget
        self._log = tensorrt_log()
        self.version = version_of(trt)
        self.full_version = str(trt.__version__)
        self._builder = self._make_builder()
        self._network = parse_network(trt, self._builder, graph, self._log)
        if has_qdq(trt, self._network):
            raise ModelError(graph.path, "the model holds Q/DQ nodes: its scales are in it, and none are to be found")
        self.profile: InputProfile = calibration_profile(
            trt, self._network, input_shapes(self._network, shapes or {}, batch_size), batch_size
        )
        self.notes: list[str] = []
        self._listing = list_tensors(trt, self._network, self.profile.batch_size)
        self.tensors = tuple(self._listing.tensors)
        if self._listing.hidden:
            self.notes.append(
                f"{len(self._listing.hidden)} tensors inside loops and conditions of the network cannot be observed and get no scale"
            )

    def collect(self, batches: Callable[[], Iterable[LabelledBatch]]) -> Collection:
        """Collect the histogram of every tensor.

        Args:
            batches: Gives the batches, the same at every call: they are read once per group of tensors.

        Raises:
            ActivationError: If a NaN appears, naming the tensor and the batch.
            CalibrationError: If a batch does not have the profile's shapes.
            DeviceError: If not even one tensor fits into the device's memory.
            EngineError: If TensorRT builds no engine or cannot run it.
            ModelError: If there is no tensor to observe.
        """
        found: dict[str, Histogram] = {}
        infinite: dict[str, int] = {}
        late: list[str] = []
        for name, values in self._listing.constants.items():
            found[name], infinite[name] = _histogram_of(name, values)
        inputs = [t.name for t in self.tensors if t.kind == "input"]
        groups, observed = deque(self._groups()), False
        while groups:
            group = groups.popleft()
            if not group:
                continue
            try:
                with ObservedRun(self._build(group), self._device, self.profile, self._graph.path) as run:
                    if run.endless:
                        groups.appendleft(self._without(group, run.endless))
                        continue
                    self._check_budget(run.nbytes)
                    run.observe(inputs)
                    for label, feed in batches():
                        run.add(label, feed)
                    found.update(run.histograms.result())
                    infinite.update(run.histograms.infinite)
                    late += run.histograms.late
            except DeviceError as error:
                groups.extendleft(reversed(self._halves(group, error)))
                continue
            inputs, observed = [], True  # inputs are counted with the first group
        if not observed:
            raise ModelError(self._graph.path, "the network computes no floating-point tensor that can be an output")
        names = [t.name for t in self.tensors]
        return Collection(
            histograms={name: found[name] for name in names if name in found and found[name].total},
            infinite={name: n for name, n in infinite.items() if n},
            late=tuple(late),
        )

    def _halves(self, group: list[Output], error: DeviceError) -> list[list[Output]]:
        """Split a group that memory was not enough for.

        Raises:
            DeviceError: If memory was not the reason, or the group is a single tensor.
        """
        if error.asked is None:
            raise error
        if len(group) <= 1:
            raise DeviceError(
                f"the tensor {group[0].name!r} alone does not fit into the device's memory with its network: {error}",
                error.asked,
            ) from error
        half = len(group) // 2
        note = (
            f"{len(group)} tensors did not fit into device memory at once: they are collected in two halves ({error})"
        )
        logger.warning("%s", note)
        self.notes.append(note)
        return [group[:half], group[half:]]

    def _without(self, group: list[Output], endless: Sequence[str]) -> list[Output]:
        for name in endless:
            self.notes.append(f"{name!r} has a size that depends on the data: it cannot be collected and gets no scale")
        return [output for output in group if output.name not in endless]

    def _groups(self) -> list[list[Output]]:
        """Return the tensors in groups that are likely to fit; each at least one."""
        budget = self._room()
        groups: list[list[Output]] = [[]]
        total = 0
        for output in self._listing.outputs:
            if groups[-1] and total + output.nbytes > budget:
                groups.append([])
                total = 0
            groups[-1].append(output)
            total += output.nbytes
        if len(groups) > 1:
            logger.info("%d tensors in %d groups of at most %d bytes", len(self._listing.outputs), len(groups), budget)
        return groups

    def _room(self) -> int:
        """Return the bytes that the outputs of one engine may take."""
        return int(self._device.free_memory() * SHARE_OF_MEMORY) if self._budget is None else self._budget

    def _check_budget(self, nbytes: Mapping[str, int]) -> None:
        """Refuse outputs that turn out larger than the network told; a single one may always be tried."""
        total, budget = sum(nbytes.values()), self._room()
        if len(nbytes) > 1 and total > budget:
            raise DeviceError(f"the outputs take {total} bytes, the budget is {budget}", total)

    def _build(self, group: Sequence[Output]) -> Any:
        """Return an engine whose outputs are the tensors of a group.

        Raises:
            DeviceError: If TensorRT says that memory is not enough.
            EngineError: If it builds none for another reason.
            KeyboardInterrupt: After Ctrl-C, when TensorRT has returned.
        """
        network, stop = self._network, Stop()
        for output in [network.get_output(i) for i in range(network.num_outputs)]:
            network.unmark_output(output)
        for each in group:
            network.mark_output(each.handle)
        with self._log.recording(), stop.on_ctrl_c():
            plan = self._builder.build_serialized_network(network, self._config())
            if stop.error is not None:
                raise stop.error
            engine = None if plan is None else self._trt.Runtime(self._log).deserialize_cuda_engine(plan)
        if engine is None:
            reason = self._log.last_error or "it said nothing; run with --verbose for its log"
            if "memory" in reason.lower():
                raise DeviceError(f"TensorRT cannot build the engine: {reason}", sum(each.nbytes for each in group))
            raise EngineError(self._graph.path, f"TensorRT built no FP32 engine: {reason}")
        return engine

    def _config(self) -> Any:
        trt = self._trt
        config = self._builder.create_builder_config()
        if hasattr(trt.BuilderFlag, "TF32"):
            (config.set_flag if self._tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
        if any(-1 in tuple(self._network.get_input(i).shape) for i in range(self._network.num_inputs)):
            profile = self._builder.create_optimization_profile()
            for name, shape in self.profile.shapes.items():
                profile.set_shape(name, shape, shape, shape)
            if config.add_optimization_profile(profile) < 0:
                raise EngineError(self._graph.path, f"TensorRT does not take the shapes: {self._log.last_error}")
        return config

    def _make_builder(self) -> Any:
        try:
            return self._trt.Builder(self._log)
        except Exception as error:  # the bindings raise TypeError where TensorRT returns null
            reason = self._log.last_error or str(error)
            raise DeviceError(f"TensorRT {self._trt.__version__} cannot use a GPU here: {reason}") from error


def _histogram_of(name: str, values: NDArray[Any]) -> tuple[Histogram, int]:
    """Return a constant's histogram, made here, and how many infinities it holds."""
    finite, top = finite_values(flat_float32(values))
    if top > INFINITY_BITS:
        raise ActivationError(name, None, "the constant holds NaN")
    return collect_histogram([finite]), values.size - finite.size
