"""Explicit quantization: a float model and a cache's scales -> an ONNX model with Q/DQ nodes, as TensorRT wants them placed."""
