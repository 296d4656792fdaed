"""The lines that name a calibration cache in the configuration of other tools.

What each tool does with them was read in its sources, not run: trtexec and Polygraphy of TensorRT 8.6.1 and 10.16, Gst-nvinfer's calibrator,
and ONNX Runtime's TensorRT provider.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

__all__ = ["Lines"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Writes them.

    Attributes:
        origin: What they were made from, on one line.
        version: The TensorRT that takes the cache, such as ``10.16.1``.
        model: The ONNX model, as seen from where the lines stand.
        table: The cache's or table's file name, which needs no quoting.
    """

    origin: str
    version: str
    model: str
    table: str

    def onnxruntime(self, *, native: bool) -> str:
        """Return Python for ONNX Runtime's TensorRT provider.

        Args:
            native: Whether the table is TensorRT's own cache, or ONNX Runtime's table.
        """
        return f"""\
# {self.origin}
# For ONNX Runtime with its TensorRT provider, built with TensorRT 8.6 to 10.16.
# The table is looked for in the folder trt_engine_cache_path where that option is set, else in the current folder.
# An engine that the provider cached before keeps its old scales: clear that folder.
import onnxruntime

options = {{
    "trt_int8_enable": True,
    "trt_int8_calibration_table_name": {self.table!r},
    "trt_int8_use_native_calibration_table": {native},
}}
session = onnxruntime.InferenceSession(
    {self.model!r},
    providers=[("TensorrtExecutionProvider", options), "CUDAExecutionProvider"],
)
"""

    def deepstream(self) -> str:
        """Return a group of a Gst-nvinfer configuration file."""
        return f"""\
# {self.origin}
# For Gst-nvinfer of a DeepStream with TensorRT {self.version}; another TensorRT refuses the cache.
# Put these keys into the [property] group of your own file; here, paths are relative to this one.
# Remove the engine that model-engine-file names, if it was built before: it keeps its old scales.
[property]
onnx-file={self.model}
int8-calib-file={self.table}
network-mode=1
"""

    def trtexec(self) -> str:
        """Return a shell script that builds an engine with trtexec."""
        return f"""\
#!/bin/sh
# {self.origin}
# For trtexec of TensorRT {self.version}; trtexec takes --int8 --calib from 8.6 to 10.16.
# Another version than {self.version} refuses the cache and calibrates on trtexec's random numbers: its log then says that the calibration
# table does not match, and the engine's scales are worthless.
# With free axes add --minShapes, --optShapes and --maxShapes; add --fp16 for layers that do not run in INT8.
cd "$(dirname "$0")" || exit
trtexec --onnx={shlex.quote(self.model)} --int8 --calib={self.table} --saveEngine=int8.engine
"""

    def polygraphy_shell(self, calibrator: str) -> str:
        """Return a shell script that builds an engine with Polygraphy.

        Args:
            calibrator: TensorRT's class of calibrator.
        """
        return f"""\
#!/bin/sh
{self._about_polygraphy()}# It calibrates on random numbers then, as no --data-loader-script is given.
cd "$(dirname "$0")" || exit
polygraphy convert {shlex.quote(self.model)} --int8 --calibration-cache {self.table} --calib-base-cls {calibrator} -o int8.engine
"""

    def polygraphy_python(self, calibrator: str) -> str:
        """Return the same in Python; see :meth:`polygraphy_shell`."""
        return f"""\
{self._about_polygraphy()}# No data are given here, so that there is nothing else to calibrate on.
import tensorrt as trt
from polygraphy.backend.trt import Calibrator, CreateConfig, EngineFromNetwork, NetworkFromOnnxPath, SaveEngine

calibrator = Calibrator(data_loader=[], cache={self.table!r}, BaseClass=trt.{calibrator})
config = CreateConfig(int8=True, calibrator=calibrator)
SaveEngine(EngineFromNetwork(NetworkFromOnnxPath({self.model!r}), config), "int8.engine")()
"""

    def _about_polygraphy(self) -> str:
        return f"""\
# {self.origin}
# For Polygraphy with TensorRT {self.version}. Another version (8.6 to 10.16 have calibrators) refuses the cache and calibrates, and Polygraphy
# writes what comes of that over {self.table}: look at its log, or compare the file afterwards with trtcalib cache diff.
"""
