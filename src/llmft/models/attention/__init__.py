"""Attention without padding, and block masks for packed sequences."""
