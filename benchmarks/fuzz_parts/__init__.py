"""What `fuzz.py` gives the program, and how it judges what the program does."""
