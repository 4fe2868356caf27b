"""Answers -> scores with intervals, base beside tuned, and what a judge says."""
