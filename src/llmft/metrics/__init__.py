"""Metrics of generated answers against references, with bootstrap confidence intervals."""
