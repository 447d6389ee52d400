"""One optimisation step: the passes of a network, the look-ahead, the update."""
