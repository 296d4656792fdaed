"""The simulated engine inspector: layers as JSON in the form that TensorRT 8, 10 and 11 print.

Sources:
    The developer guide ("Engine Inspector"), engine graphs in NVIDIA's trt-engine-explorer, and the 10.x to 11.x
    migration guide. What depends on the version:

    - up to 10 a tensor has one field ``Format/Datatype`` (a sentence for most layers, a bare type such as ``Int8`` for the
      ``kgen`` layers of 10), 11 has ``Format`` and ``DataType``;
    - up to 10 the engine ends with ``Bindings``, a list of names; 11 has ``I/O Tensors``, a list of objects;
    - 10 and later add ``StreamId`` and ``Metadata`` (the ONNX nodes) to every layer.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.rig.simulated.abi import BOOL, INT, OBJECT, TEXT, Simulated, method

if TYPE_CHECKING:
    from tests.rig.simulated.execution import ExecutionContext
    from tests.rig.simulated.runtime import CudaEngine

__all__ = ["EngineInspector", "fused_layers"]

_LAYER_TYPES = {
    "CONVOLUTION": ("CaskConvolution", "Convolution"),
    "DECONVOLUTION": ("CaskDeconvolution", "Deconvolution"),
}
_UNKNOWN_FORMAT = "N/A due to dynamic shapes"
_IMAGE_RANK = 4
_FORMATS = {
    "FLOAT": "Row major linear FP32",
    "HALF": "Row major linear FP16 format",
    "INT8": "Row major Int8 format",
    "INT32": "Row major linear Int32",
    "INT64": "Row major linear Int64 format",
    "BOOL": "Row major linear BOOL",
}
_IMAGE_FORMATS = {
    "HALF": "Channel major FP16 format where channel % 8 == 0",
    "INT8": "Thirty-two wide channel vectorized row major Int8 format",
}
_BARE_TYPES = {"FLOAT": "Float", "HALF": "Half", "INT8": "Int8", "INT32": "Int32", "INT64": "Int64", "BOOL": "Bool"}


class EngineInspector(Simulated):
    """Tells the layers of an engine."""

    TABLE = "VEngineInspector"

    def __init__(self, engine: CudaEngine) -> None:
        super().__init__(engine.simulation)
        self.engine = engine
        self.context: ExecutionContext | None = None

    @method(BOOL, OBJECT)
    def setExecutionContext(self, context):
        self.context = context
        return True

    @method(OBJECT)
    def getExecutionContext(self):
        return self.context

    @method(TEXT, INT)
    def getEngineInformation(self, form):
        layers = self._layers()
        if form != int(self.simulation.trt.LayerInformationFormat.JSON):
            return "Layers:\n" + "\n".join(map(str, layers))
        tensors = list(self.engine.tensors)
        if self.simulation.major < 11:
            return json.dumps({"Layers": layers, "Bindings": tensors}, indent=2)
        return json.dumps({"Layers": layers, "I/O Tensors": [self._io_tensor(name) for name in tensors]}, indent=2)

    @method(TEXT, INT, INT)
    def getLayerInformation(self, index, form):
        layers = self._layers()
        return json.dumps(layers[index % len(layers)], indent=2) if layers else ""

    def _layers(self) -> list[Any]:
        verbosity = self.engine.facts["profiling_verbosity"]
        if verbosity == "NONE":
            return []
        layers = fused_layers(self.engine.facts["layers"])
        if verbosity != "DETAILED":
            return [layer["name"] for layer in layers]
        outside = set(self.engine.tensors)
        return [self._layer(layer, outside) for layer in layers]

    def _layer(self, layer: dict[str, Any], outside: set[str]) -> dict[str, Any]:
        kind, parameters = _LAYER_TYPES.get(layer["type"], ("", ""))
        precision = layer["precision"]
        if layer["type"] == "REFORMAT":
            kind, parameters = "Reformat", "Reformat"
        elif not kind:
            kind, parameters = ("kgen", "") if self.simulation.major >= 10 else ("PointWiseV2", "PointWise")
        bare = kind == "kgen"
        entry: dict[str, Any] = {
            "Name": layer["name"],
            "LayerType": kind,
            "Inputs": [self._tensor(t, precision, outside, bare=bare) for t in layer["inputs"]],
            "Outputs": [self._tensor(t, precision, outside, bare=bare) for t in layer["outputs"]],
        }
        if parameters:
            entry["ParameterType"] = parameters
        if layer["type"] in _LAYER_TYPES:
            entry["Weights"] = {"Type": _BARE_TYPES[precision], "Count": 0}
        entry["TacticName"] = f"simulated_{precision.lower()}"
        if self.simulation.major >= 10:
            nodes = layer["name"].split(" + ")
            entry |= {"StreamId": 0, "Metadata": "\x1e".join(f"[ONNX Layer: {node}]" for node in nodes)}
        return entry

    def _tensor(self, tensor: dict[str, Any], precision: str, outside: set[str], *, bare: bool) -> dict[str, Any]:
        shape = list(tensor["shape"] or ())
        if self.context is not None and tensor["name"] in outside:
            shape = list(self.context.shape_of(tensor["name"]))
        inner = tensor["name"] not in outside and tensor["dtype"] in ("FLOAT", "HALF")
        dtype = precision if inner else tensor["dtype"]
        entry: dict[str, Any] = {"Name": tensor["name"], "Location": "Device", "Dimensions": shape}
        if -1 in shape and (self.context is None or self.context.missing()):
            form = _UNKNOWN_FORMAT
        else:
            images = _IMAGE_FORMATS if inner and len(shape) == _IMAGE_RANK else {}
            form = images.get(dtype) or _FORMATS.get(dtype, "Unknown format")
        if self.simulation.major >= 11:
            return entry | {"Format": form, "DataType": _BARE_TYPES.get(dtype, dtype)}
        if bare and form != _UNKNOWN_FORMAT:
            form = _BARE_TYPES.get(dtype, dtype)
        return entry | {"Format/Datatype": form}

    def _io_tensor(self, name: str) -> dict[str, Any]:
        tensor = self.engine.tensors[name]
        is_input = name in self.engine.inputs
        entry = {
            "Name": name,
            "IOMode": "Input" if is_input else "Output",
            "DataType": _BARE_TYPES.get(tensor["dtype"], tensor["dtype"]),
            "Dimensions": tensor["shape"],
            "Location": "Device",
            "IsShapeInferenceIO": False,
        }
        if is_input:
            shapes = ("MinShape", "OptShape", "MaxShape")
            entry["ProfileInfo"] = [
                {key: list(self.engine.profile_shape(name, index, which) or ()) for which, key in enumerate(shapes)}
                for index in range(self.engine.number_of_profiles)
            ]
        return entry


def fused_layers(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return layers as an engine has them: ``conv + relu`` in one, Q/DQ gone, a reformat before INT8.

    A crude picture of TensorRT's fusions, for readers of layer names to meet what real engines show them.
    """
    readers: dict[str, int] = {}
    for layer in layers:
        for tensor in layer["inputs"]:
            readers[tensor["name"]] = readers.get(tensor["name"], 0) + 1
    fused: list[dict[str, Any]] = []
    for layer in layers:
        last = fused[-1] if fused else None
        if layer["type"] in ("QUANTIZE", "DEQUANTIZE", "CONSTANT"):
            continue
        if (
            last is not None
            and last["type"] in _LAYER_TYPES
            and layer["type"] in ("SCALE", "ACTIVATION")
            and layer["inputs"] == last["outputs"]
            and readers[layer["inputs"][0]["name"]] == 1
        ):
            fused[-1] = last | {"name": f"{last['name']} + {layer['name']}", "outputs": layer["outputs"]}
        elif not fused and layer["precision"] == "INT8" and layer["inputs"]:
            source = layer["inputs"][0]
            copy = source | {"name": f"Reformatted Input Tensor 0 to {layer['name']}"}
            name = f"Reformatting CopyNode for Input Tensor 0 to {layer['name']}"
            reformat = {"name": name, "type": "REFORMAT", "precision": "INT8", "inputs": [source], "outputs": [copy]}
            fused += [reformat, layer | {"inputs": [copy, *layer["inputs"][1:]]}]
        else:
            fused.append(layer)
    return fused
