"""Locate, load and build pretrained models and their tokenizers."""
