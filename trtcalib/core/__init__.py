"""The numerics: histogram -> amax -> scale -> calibration cache. NumPy in, NumPy out; no files, no ONNX, no TensorRT."""
