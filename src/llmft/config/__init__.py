"""Compose, validate, store and redact configs."""
