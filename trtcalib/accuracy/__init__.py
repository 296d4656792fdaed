"""Accuracy studies: what INT8 costs a model, judged sample by sample against FP32, and which choice costs least."""
