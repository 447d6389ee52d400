"""Learning Fast Sample Re-weighting Without Reward Data (Zhang & Pfister, ICCV 2021), and its components."""
