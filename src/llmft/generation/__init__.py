"""Prompts -> generated text; load and save a fine-tuned model."""
