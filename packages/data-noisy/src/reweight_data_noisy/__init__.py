"""Datasets and label noise of the re-weighting papers, as plugins of reweight."""
