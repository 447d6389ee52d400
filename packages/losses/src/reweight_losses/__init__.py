"""Losses for noisy labels and unbalanced classes, and the methods that go with them."""
