"""Methods that learn weights, labels or a corruption matrix from a few trusted examples."""
