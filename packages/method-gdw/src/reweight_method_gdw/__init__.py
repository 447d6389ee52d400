"""Generalized Data Weighting via Class-level Gradient Manipulation (Chen et al., NeurIPS 2021)."""
