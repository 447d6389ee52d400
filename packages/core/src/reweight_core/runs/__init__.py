"""What a run leaves on disk, and what is done with it afterwards."""
