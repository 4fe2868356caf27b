"""The section "Use" of a model card: one module for each library that opens a form."""
