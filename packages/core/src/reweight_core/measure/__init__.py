"""What a step costs, and how exact it is."""
