"""What to do with a migrated model: the commands for each runtime, as Markdown."""

from __future__ import annotations

__all__ = ["next_steps"]


def next_steps(model: str, *, half: bool) -> str:
    """Return the commands for each runtime, as Markdown."""
    typed = "FP16 and INT8" if half else "FP32 and INT8"
    return f"""# Next steps

`{model}` holds the scales of your calibration cache as Q/DQ nodes ({typed}). No calibrator, cache or data is needed any more; leave
out `--int8` and `--calib`.

## TensorRT 11 (always strongly typed)

```sh
trtexec --onnx={model} --saveEngine=model.engine
```

```python
import tensorrt as trt

logger = trt.Logger(trt.Logger.WARNING)
builder = trt.Builder(logger)
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
if not parser.parse_from_file("{model}"):
    raise SystemExit([parser.get_error(i).desc() for i in range(parser.num_errors)])
plan = builder.build_serialized_network(network, builder.create_builder_config())
with open("model.engine", "wb") as file:
    file.write(plan)
```

or `trtcalib build {model} --qdq -o model.engine`.

## TensorRT 10

```sh
trtexec --onnx={model} --stronglyTyped --saveEngine=model.engine
```

## TensorRT-RTX

```sh
tensorrt_rtx --onnx={model} --saveEngine=model.engine
```

## ONNX Runtime

```python
import onnxruntime

session = onnxruntime.InferenceSession("{model}", providers=["CPUExecutionProvider"])
```
"""
