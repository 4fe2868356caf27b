"""Run directories: write, open, read, resume."""
