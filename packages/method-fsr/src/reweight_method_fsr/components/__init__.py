"""What FSR adds to re-weighting, usable with any method."""
