"""A run directory: write, open, read, resume."""
