"""The config: compose, validate, store, redact."""
