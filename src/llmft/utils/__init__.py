"""Utilities without any fine-tuning: files, text, console, errors, ranks, signals, locks, memory."""
