"""Evaluate tuned and base model on test rows: generate, score with intervals, and judge."""
