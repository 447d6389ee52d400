"""Observers that log a run: to TensorBoard, trackio, Weights & Biases, or a CSV file."""
