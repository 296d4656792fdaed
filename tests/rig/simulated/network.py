"""The simulated network: tensors, layers, and the definition that holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.rig.simulated.abi import BOOL, DIMS, FLOAT, INT, INT64, OBJECT, TEXT, WEIGHTS, Simulated, keep, method

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from tests.rig.simulated.record import Shape, Simulation

__all__ = ["ConstantPart", "Layer", "NetworkDefinition", "Tensor"]


class Tensor(Simulated):
    """A tensor of a network.

    Attributes:
        shape: Its dimensions, -1 where unknown; ``None`` where not even their number is known.
        dtype: The number of a ``DataType``.
    """

    TABLE = "VTensor"

    def __init__(self, simulation: Simulation, name: str, dtype: int, shape: Shape | None) -> None:
        super().__init__(simulation)
        self.name = name
        self.dtype = dtype
        self.shape = shape
        self.is_input = False
        self.is_output = False
        self.dynamic_range: tuple[float, float] | None = None
        self.allowed_formats = -1

    @method(TEXT)
    def getName(self):
        return self.name

    @method(None, TEXT)
    def setName(self, name):
        self.name = name

    @method(DIMS)
    def getDimensions(self):
        return self.shape

    @method(None, DIMS)
    def setDimensions(self, shape):
        self.shape = shape

    @method(INT)
    def getType(self):
        return self.dtype

    @method(None, INT)
    def setType(self, dtype):
        self.dtype = dtype

    @method(INT)
    def getLocation(self):
        return int(self.simulation.trt.TensorLocation.DEVICE)

    @method(INT64)
    def getAllowedFormats(self):
        return self.allowed_formats

    @method(None, INT64)
    def setAllowedFormats(self, formats):
        self.allowed_formats = formats

    @method(BOOL)
    def isNetworkInput(self):
        return self.is_input

    @method(BOOL)
    def isNetworkOutput(self):
        return self.is_output

    @method(BOOL)
    def isShapeTensor(self):
        return False

    @method(BOOL)
    def isExecutionTensor(self):
        return True

    @method(BOOL, FLOAT, FLOAT)
    def setDynamicRange(self, smallest, largest):
        self.dynamic_range = (smallest, largest)
        return True

    @method(BOOL)
    def dynamicRangeIsSet(self):
        return self.dynamic_range is not None

    @method(None)
    def resetDynamicRange(self):
        self.dynamic_range = None

    @method(FLOAT)
    def getDynamicRangeMin(self):
        return self.dynamic_range[0] if self.dynamic_range else 0.0

    @method(FLOAT)
    def getDynamicRangeMax(self):
        return self.dynamic_range[1] if self.dynamic_range else 0.0


class Layer(Simulated):
    """A layer of a network; one per ONNX node, and one per constant that a node takes as a tensor.

    Attributes:
        kind: The name of a ``LayerType``.
        precision: The number of a ``DataType``, once set.
        output_types: The same per output.
        axis: Of a QUANTIZE or DEQUANTIZE layer with a scale per channel; else -1.
    """

    TABLE = "VLayer"

    def __init__(
        self, simulation: Simulation, name: str, kind: str, inputs: list[Tensor], outputs: list[Tensor], axis: int = -1
    ) -> None:
        super().__init__(simulation)
        self.name = name
        self.kind = kind
        self.inputs = inputs
        self.outputs = outputs
        self.axis = axis
        self.precision: int | None = None
        self.output_types: dict[int, int] = {}
        self.metadata = ""

    @method(INT)
    def getType(self):
        return int(getattr(self.simulation.trt.LayerType, self.kind))

    @method(TEXT)
    def getName(self):
        return self.name

    @method(None, TEXT)
    def setName(self, name):
        self.name = name

    @method(TEXT)
    def getMetadata(self):
        return self.metadata

    @method(None, TEXT)
    def setMetadata(self, metadata):
        self.metadata = metadata

    @method(INT)
    def getNbInputs(self):
        return len(self.inputs)

    @method(OBJECT, INT)
    def getInput(self, index):
        return self.inputs[index] if 0 <= index < len(self.inputs) else None

    @method(INT)
    def getNbOutputs(self):
        return len(self.outputs)

    @method(OBJECT, INT)
    def getOutput(self, index):
        return self.outputs[index] if 0 <= index < len(self.outputs) else None

    @method(None, INT)
    def setPrecision(self, dtype):
        self.precision = dtype

    @method(INT)
    def getPrecision(self):
        return int(self.simulation.trt.DataType.FLOAT) if self.precision is None else self.precision

    @method(BOOL)
    def precisionIsSet(self):
        return self.precision is not None

    @method(None)
    def resetPrecision(self):
        self.precision = None

    @method(None, INT, INT)
    def setOutputType(self, index, dtype):
        self.output_types[index] = dtype

    @method(INT, INT)
    def getOutputType(self, index):
        return self.output_types.get(index, self.outputs[index].dtype)

    @method(BOOL, INT)
    def outputTypeIsSet(self, index):
        return index in self.output_types

    @method(None, INT)
    def resetOutputType(self, index):
        self.output_types.pop(index, None)


class ConstantPart(Simulated):
    """What a constant layer is beside a layer: its values."""

    TABLE = "VConstantLayer"

    def __init__(self, simulation: Simulation, dtype: int, values: NDArray[Any]) -> None:
        super().__init__(simulation)
        self.dtype = dtype
        self.values = keep(np.ascontiguousarray(values))

    @method(WEIGHTS)
    def getWeights(self):
        return self.dtype, self.values.ctypes.data, self.values.size

    @method(DIMS)
    def getDimensions(self):
        return self.values.shape


class NetworkDefinition(Simulated):
    """A network.

    Attributes:
        flags: The creation flags.
        model: The ONNX model that it was parsed from, with its external data.
    """

    TABLE = "VNetworkDefinition"

    def __init__(self, simulation: Simulation, builder: Simulated, flags: int) -> None:
        super().__init__(simulation)
        self.builder = builder
        self.flags = flags
        self.name = "Unnamed Network 0"
        self.model: onnx.ModelProto | None = None
        self.layers: list[Layer] = []
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []

    def has_flag(self, name: str) -> bool:
        """Whether a creation flag is set; one that this version does not have is not."""
        flag = getattr(self.simulation.trt.NetworkDefinitionCreationFlag, name, None)
        return flag is not None and bool(self.flags >> int(flag) & 1)

    @property
    def strongly_typed(self) -> bool:
        """Whether the types of the model are binding; in TensorRT 11 they always are."""
        return self.simulation.major >= 11 or self.has_flag("STRONGLY_TYPED")

    @property
    def is_quantized(self) -> bool:
        """Whether it holds quantize or dequantize layers."""
        return any(layer.kind in ("QUANTIZE", "DEQUANTIZE") for layer in self.layers)

    @method(INT)
    def getNbLayers(self):
        return len(self.layers)

    @method(OBJECT, INT)
    def getLayer(self, index):
        return self.layers[index] if 0 <= index < len(self.layers) else None

    @method(INT)
    def getNbInputs(self):
        return len(self.inputs)

    @method(OBJECT, INT)
    def getInput(self, index):
        return self.inputs[index] if 0 <= index < len(self.inputs) else None

    @method(INT)
    def getNbOutputs(self):
        return len(self.outputs)

    @method(OBJECT, INT)
    def getOutput(self, index):
        return self.outputs[index] if 0 <= index < len(self.outputs) else None

    @method(None, OBJECT)
    def markOutput(self, tensor):
        tensor.is_output = True
        self.outputs.append(tensor)

    @method(None, OBJECT)
    def unmarkOutput(self, tensor):
        tensor.is_output = False
        self.outputs.remove(tensor)

    @method(TEXT)
    def getName(self):
        return self.name

    @method(None, TEXT)
    def setName(self, name):
        self.name = name

    @method(BOOL)
    def hasImplicitBatchDimension(self):
        return False

    @method(INT)
    def getFlags(self):
        return self.flags

    @method(BOOL, INT)
    def getFlag(self, flag):
        return bool(self.flags >> flag & 1)

    @method(OBJECT)
    def getBuilder(self):
        return self.builder
