"""Estimate memory, steps and time of a training before its model is loaded."""
