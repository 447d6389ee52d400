"""Which labels of a run's training set are probably wrong, what they should be, and what to do about it."""
