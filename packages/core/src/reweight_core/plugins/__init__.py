"""What plugins are: records, hooks, and how they are found."""
