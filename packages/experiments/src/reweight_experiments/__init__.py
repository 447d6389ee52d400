"""Many runs: methods by settings by seeds, and the settings of published tables."""
