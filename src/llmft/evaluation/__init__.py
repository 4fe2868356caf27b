"""Evaluate tuned and base model on the rows of a split: generate, score with intervals, and judge."""
