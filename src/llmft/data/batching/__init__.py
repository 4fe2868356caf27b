"""Encoded examples -> batches."""
