"""What lets other libraries train with reweight."""
