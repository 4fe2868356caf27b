"""Runtimes that open an exported folder: one module each, and the interface that all of them have."""
