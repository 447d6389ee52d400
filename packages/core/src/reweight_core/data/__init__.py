"""What is trained on: datasets, batches of them, files read ahead, and every random stream."""
