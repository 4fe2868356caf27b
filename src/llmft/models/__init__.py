"""Backbones: loading them, choosing what is trained, and the loss."""
