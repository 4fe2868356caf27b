"""OpenAI-compatible HTTP API and chat page, with continuous batching."""
