"""Batch size and order: same data, other batches, and what moved and why, without a calibration run for each."""
