"""Kernels, variable-length attention, and packed sequences."""
