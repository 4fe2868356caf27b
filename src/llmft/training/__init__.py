"""The Lightning trainer of a run, its loggers, and what is printed at its start and end."""
